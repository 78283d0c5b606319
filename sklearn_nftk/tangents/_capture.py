"""One forward and O backward passes that leave behind what the rules need."""

from typing import NamedTuple

import torch


class Use(NamedTuple):
    """One call of a module: its input, and the gradients of the O outputs at its output."""

    inputs: torch.Tensor  # (n, ...)
    gradients: torch.Tensor  # (n, O, ...)


def capture(network, X, modules):
    """Run a batch through the network, watching some of its modules.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode. Left as it was.
    X : torch.Tensor of shape (n, ...)
    modules : dict of str to torch.nn.Module
        Modules to watch, by name.

    Returns
    -------
    outputs : torch.Tensor of shape (n, O)
    uses : dict of str to list of Use
        For each watched module, its uses in the order of the forward pass. A module that the
        network did not call has an empty list.
    """
    inputs: dict[str, list] = {name: [] for name in modules}
    outputs: dict[str, list] = {name: [] for name in modules}

    def hook(name):
        def record(module, args, output):
            # Parameters need no gradient here, so the first watched module starts the graph.
            watched = output if output.requires_grad else output.detach().requires_grad_()
            inputs[name].append(args[0].detach().clone())
            outputs[name].append(watched)
            # In-place operations that follow must not reach the tensors kept here.
            return watched.clone()

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        with torch.enable_grad():
            f = network(X)
    finally:
        for handle in handles:
            handle.remove()
    flat = [tensor for tensors in outputs.values() for tensor in tensors]
    gradients = iter(_gradients(f, flat))
    uses = {name: [Use(a, next(gradients)) for a in tensors] for name, tensors in inputs.items()}
    return f.detach(), uses


def _gradients(f, tensors):
    """Gradients of each column of `f`, summed over samples, stacked along axis 1."""
    if not tensors:
        return []
    n_outputs = f.shape[1]
    stacked = [t.new_empty((t.shape[0], n_outputs, *t.shape[1:])) for t in tensors]
    for o in range(n_outputs):
        if not f.requires_grad:
            for g in stacked:
                g.zero_()
            break
        columns = torch.autograd.grad(
            f[:, o].sum(), tensors, retain_graph=o < n_outputs - 1, materialize_grads=True
        )
        for g, column in zip(stacked, columns, strict=True):
            g[:, o] = column
    return stacked
