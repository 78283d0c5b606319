"""The generic way: gradients written out, for any parameters of any network."""

import warnings
from contextlib import contextmanager, suppress

import torch
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ._factors import DenseFactor


def generic_factors(network, x, groups, heads, *, vectorise=True):
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
    """
    if not groups:
        return []
    names = [name for group in groups for name in group]
    jacobians = None
    if vectorise:
        # Some modules refuse vectorisation: fused recurrent kernels, data-dependent branches.
        with suppress(RuntimeError, NotImplementedError):
            jacobians = vectorised_jacobians(network, x, names, heads)
    if jacobians is None:
        jacobians = looped_jacobians(network, x, names, heads)
    return [DenseFactor(torch.cat([jacobians[name] for name in group], dim=2)) for group in groups]


def vectorised_jacobians(network, x, names, heads):
    """Gradients of shape (n, H, P) for each name, all samples and heads at once."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    fixed = {name: tensor.detach() for name, tensor in tensors}
    moving = {name: fixed.pop(name) for name in names}

    def outputs(parameters, sample):
        f = functional_call(network, {**fixed, **parameters}, (sample[None].clone(),))
        return heads(f)[0]

    # Fused attention has no batching rule; where others are missing torch loops, and says so.
    with _left_alone(network), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        jacobians = vmap(jacrev(outputs), in_dims=(None, 0))(moving, x)
    return {name: jacobian.flatten(2) for name, jacobian in jacobians.items()}


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
    found = {}
    for i, sample in enumerate(x):
        with torch.enable_grad():
            outputs = heads(network(sample[None].clone()))[0]
        for h, output in enumerate(outputs):
            for name, gradient in zip(names, _gradients(output, parameters), strict=True):
                if not i and not h:
                    found[name] = gradient.new_empty((len(x), len(outputs), gradient.numel()))
                found[name][i, h] = gradient.flatten()
    return found


def _gradients(output, parameters):
    if not output.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    return torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
