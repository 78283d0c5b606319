"""The autograd path: gradients written out, for any parameters of any network."""

import threading
from contextlib import contextmanager

import torch
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ._capture import named_errors
from ._factors import DenseFactor


class NotVectorisedError(Exception):
    """Some modules refuse vectorisation: fused recurrent kernels, data-dependent branches."""


def autograd_factors(network, x, groups, heads, *, vectorise=True):
    """Factors of the gradients for groups of parameters, made by the same passes.

    Parameters
    ----------
    network : torch.nn.Module
    x : torch.Tensor of shape (n, ...)
    groups : list of sequences of str
        Parameters as in ``named_parameters()``.
    heads : callable
        (n, O) -> (n, H).
    vectorise : bool
        False: one sample after the other.

    Returns
    -------
    list of DenseFactor

    Raises
    ------
    NotVectorisedError
        If the network cannot be vectorised; one sample after the other always works.
    """
    names = [name for group in groups for name in group]
    gradients = vectorised_jacobians if vectorise else looped_jacobians
    jacobians = gradients(network, x, names, heads)
    return [DenseFactor(torch.cat([jacobians[name] for name in group], dim=2)) for group in groups]


def vectorised_jacobians(network, x, names, heads):
    """Gradients of shape (n, H, P) for each name, all samples and heads at once."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    fixed = {name: tensor.detach() for name, tensor in tensors}
    moving = {name: fixed.pop(name) for name in names}

    def outputs(parameters, sample):
        f = functional_call(network, {**fixed, **parameters}, (sample[None].clone(),))
        return heads(f)[0]

    # Fused attention has no batching rule.
    with _left_alone(network), sdpa_kernel(SDPBackend.MATH), _no_fallback_warning():
        try:
            jacobians = vmap(jacrev(outputs), in_dims=(None, 0))(moving, x)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever the network's own code makes of a batched tensor
            raise NotVectorisedError from error
    return {name: jacobian.flatten(2) for name, jacobian in jacobians.items()}


class _Switch:
    """torch's own switch of the warning, off while any thread needs it off."""

    def __init__(self):
        self._lock = threading.Lock()
        self._users = 0

    def _add(self, n):
        with self._lock:
            self._users += n
            functorch = torch._C._functorch
            functorch._set_vmap_fallback_warning_enabled(not self._users)  # type: ignore[attr-defined]

    @contextmanager
    def __call__(self):
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)


# Where batching rules are missing torch loops, and says so.
_no_fallback_warning = _Switch()


@contextmanager
def _left_alone(network):
    """Put parameters back: `functional_call` loses those of a module that has two names."""
    before = [(m, dict(m._parameters), dict(m._buffers)) for m in network.modules()]
    try:
        yield
    finally:
        for module, parameters, buffers in before:
            module._parameters.update(parameters)
            module._buffers.update(buffers)


def looped_jacobians(network, x, names, heads):
    """Gradients of shape (n, H, P) for each name: one backward pass per sample and head."""
    by_name = dict(network.named_parameters())
    parameters = [by_name[name] for name in names]
    jacobians = {}
    for i, sample in enumerate(x):
        with named_errors("be differentiated on", x):
            outputs = heads(network(sample[None].clone()))[0]
            for h, output in enumerate(outputs):
                for name, gradient in zip(names, gradients(output, parameters), strict=True):
                    if not i and not h:
                        shape = len(x), len(outputs), gradient.numel()
                        jacobians[name] = gradient.new_empty(shape)
                    jacobians[name][i, h] = gradient.flatten()
    return jacobians


def gradients(output, parameters):
    """Gradients of a scalar; zeros where it does not depend on a parameter."""
    if not output.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    return torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
