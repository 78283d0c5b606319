"""One forward pass and one backward pass per head, which leave behind what the rules need."""

from typing import NamedTuple

import torch

# name -> the scalar heads whose gradients make the kernels, (n, O) -> (n, H), and whether each
# head has a kernel of its own instead of a share in one
HEADS = {
    "mean": (lambda f: f / f.shape[1] ** 0.5, False),
    "sum": (lambda f: f.sum(dim=1, keepdim=True), False),
    "per_class": (lambda f: f, True),
    # what two classes compare: per_class where one decision takes the place of two
    "difference": (lambda f: (f[:, 1:] - f[:, :1]) / 2**0.5, True),
}


class Use(NamedTuple):
    """One call of a module: its input, and the gradients of the H heads at its output."""

    inputs: torch.Tensor  # (n, ...)
    gradients: torch.Tensor  # (n, H, ...)


class InPlaceError(Exception):
    """Something kept without a copy was overwritten by an in-place operation that followed."""


def capture(network, X, modules, heads, *, copy=True):
    """Run a batch through the network, watching some of its modules.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode. Left as it was.
    X : torch.Tensor of shape (n, ...)
    modules : dict of str to torch.nn.Module
        Modules to watch, by name.
    heads : callable
        (n, O) -> (n, H).
    copy : bool
        Keep copies, which in-place operations cannot reach. Without them passes are faster.

    Returns
    -------
    dict of str to list of Use
        For each watched module, its uses in the order of the forward pass; empty for a module that
        was not called, or not with one tensor in and one tensor out.

    Raises
    ------
    InPlaceError
        If copies are needed and there are none.
    """
    inputs: dict[str, list] = {name: [] for name in modules}
    outputs: dict[str, list] = {name: [] for name in modules}
    versions: list[tuple] = []

    def hook(name):
        def record(module, args, output):
            if not (args and isinstance(args[0], torch.Tensor) and torch.is_tensor(output)):
                return None
            # The first watched module may be where gradients begin to be tracked.
            watched = output if output.requires_grad else output.detach().requires_grad_()
            # What was not made in this pass may be a buffer that the next pass overwrites.
            kept = args[0].detach()
            inputs[name].append(kept.clone() if copy or not args[0].requires_grad else kept)
            outputs[name].append(watched)
            if copy or output is args[0] or output.is_inference():
                return watched.clone()
            versions.extend((t, t._version) for t in (inputs[name][-1], watched))
            return watched

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        with torch.enable_grad():
            f = heads(network(X.clone()))  # a network may begin with an in-place operation
    finally:
        for handle in handles:
            handle.remove()
    if any(tensor._version != version for tensor, version in versions):
        raise InPlaceError
    flat = [tensor for tensors in outputs.values() for tensor in tensors]
    gradients = iter(_gradients(f, flat))
    return {name: [Use(a, next(gradients)) for a in tensors] for name, tensors in inputs.items()}


def _gradients(f, tensors):
    """Gradients of each column of `f`, summed over samples, stacked along axis 1."""
    n_heads = f.shape[1]
    if not (tensors and f.requires_grad):
        return [t.new_zeros((t.shape[0], n_heads, *t.shape[1:])) for t in tensors]
    stacked = []
    for h in range(n_heads):
        columns = torch.autograd.grad(
            f[:, h].sum(), tensors, retain_graph=h < n_heads - 1, materialize_grads=True
        )
        if n_heads == 1:
            return [column[:, None] for column in columns]
        if h == 0:
            stacked = [t.new_empty((t.shape[0], n_heads, *t.shape[1:])) for t in columns]
        for g, column in zip(stacked, columns, strict=True):
            g[:, h] = column
    return stacked
