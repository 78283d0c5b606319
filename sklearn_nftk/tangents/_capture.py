"""One forward pass and one backward pass per head, which leave behind what the rules need."""

from contextlib import contextmanager
from typing import NamedTuple

import torch

# name -> the scalar heads whose gradients make the kernels, (n, O) -> (n, H), and whether they
# make per-output kernels, one for each head, instead of sharing one
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


class NetworkError(ValueError):
    """Error of the network's own code, in one line."""


@contextmanager
def named_errors(what, x):
    """Turn what the network's code raises into one line that says on what; the cause is kept."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, NetworkError, InPlaceError):
        raise
    except Exception as error:
        sizes = ", ".join(map(str, ("n", *x.shape[1:])))
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        if x.is_floating_point() and "'indices'" in first_line:
            first_line = (
                "float X reaches an embedding, which looks up integers; give integers or cast them"
                " in forward."
            )
        message = f"network cannot {what} X of shape ({sizes}): {first_line}"
        raise NetworkError(message) from error


def outputs_of(network, x):
    """Apply a network to samples.

    Returns
    -------
    torch.Tensor of shape (n, O)

    Raises
    ------
    NetworkError
        If the network raises, or returns anything else.
    """
    with named_errors("be applied to", x):
        output = network(x.clone())  # a network may begin with an in-place operation
    is_tensor = isinstance(output, torch.Tensor)
    if not is_tensor or output.ndim != 2 or len(output) != len(x) or not output.shape[1]:
        shape = tuple(output.shape) if is_tensor else f"a {type(output).__name__}"
        raise NetworkError(
            "network output must have shape (n_samples, n_outputs), with n_outputs > 0; for "
            f"n_samples={len(x)} it is {shape}."
        )
    return output


def capture(network, x, modules, heads, *, copy=True, look_outside=True):
    """Run a batch through the network, watching some of its modules.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode. Left as it was.
    x : torch.Tensor of shape (n, ...)
    modules : dict of str to torch.nn.Module
        Modules to watch, by name.
    heads : callable
        (n, O) -> (n, H).
    copy : bool
        Keep copies, which in-place operations cannot reach. Without them passes are faster.
    look_outside : bool
        Look for uses of parameters outside of their modules.

    Returns
    -------
    network_outputs : torch.Tensor of shape (n, O)
    uses : dict of str to list of Use
        For each watched module, its uses in the order of the forward pass; empty for a module that
        was not called, or not with one tensor in and one tensor out, or whose parameters were used
        in any other way.

    Raises
    ------
    InPlaceError
        If copies are needed and there are none.
    NetworkError
        If the network fails on the samples.
    """
    inputs: dict[str, list] = {name: [] for name in modules}
    outputs: dict[str, list] = {name: [] for name in modules}
    versions: list[tuple] = []
    before: dict = {}  # node of an output -> those of the inputs

    def hook(name):
        def record(module, args, output):
            if not (args and isinstance(args[0], torch.Tensor) and torch.is_tensor(output)):
                return None
            # The first watched module may be where gradients begin to be tracked.
            leaf = not output.requires_grad
            if not leaf:
                before[output.grad_fn] = [a.grad_fn for a in args if isinstance(a, torch.Tensor)]
            watched = output.detach().requires_grad_() if leaf else output
            # What was not made in this pass may be a buffer that the next pass overwrites.
            kept = args[0].detach()
            inputs[name].append(kept.clone() if copy or not args[0].requires_grad else kept)
            outputs[name].append(watched)
            if copy or leaf or output is args[0] or output.is_inference():
                return watched.clone()
            versions.extend((t, t._version) for t in (inputs[name][-1], watched))
            return watched

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        network_outputs = outputs_of(network, x)
    finally:
        for handle in handles:
            handle.remove()
    if any(tensor._version != version for tensor, version in versions):
        raise InPlaceError
    if look_outside:
        nodes = graph(network_outputs, before)
        outside = {id(node.variable) for node in nodes if hasattr(node, "variable")}
        for name, module in modules.items():
            if any(id(parameter) in outside for parameter in module.parameters(recurse=False)):
                inputs[name], outputs[name] = [], []
    flat = [tensor for tensors in outputs.values() for tensor in tensors]
    with named_errors("be differentiated on", x):
        gradients = iter(_gradients(heads(network_outputs), flat))
    uses = {name: [Use(a, next(gradients)) for a in tensors] for name, tensors in inputs.items()}
    return network_outputs.detach(), uses


def graph(output, jumps=None):
    """Go through the nodes that autograd would go through; `jumps` lead from node to nodes."""
    nodes, seen = [output.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if jumps and node in jumps:
            nodes.extend(jumps[node])
        else:
            nodes.extend(following for following, _ in node.next_functions)
            yield node


def _gradients(f, tensors):
    """Gradients of each column of `f`, summed over samples, stacked along axis 1."""
    n_heads = f.shape[1]
    if not (tensors and f.requires_grad):
        return [t.new_zeros((*t.shape[:1], n_heads, *t.shape[1:])) for t in tensors]
    stacked = []
    for h in range(n_heads):
        columns = torch.autograd.grad(
            f[:, h].sum(), tensors, retain_graph=h < n_heads - 1, materialize_grads=True
        )
        if n_heads == 1:
            return [column[:, None] if column.ndim else column for column in columns]
        if h == 0:
            stacked = [t.new_empty((*t.shape[:1], n_heads, *t.shape[1:])) for t in columns]
        for g, column in zip(stacked, columns, strict=True):
            if column.ndim:
                g[:, h] = column
    return stacked
