"""The generic way: gradients written out, for any parameters of any network."""

import warnings
from contextlib import suppress

import torch
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from ._factors import DenseFactor


def generic_factor(network, x, names, heads, *, vectorise=True):
    """Factor of the gradients for some parameters.

    Parameters
    ----------
    network : torch.nn.Module
    x : torch.Tensor of shape (n, ...)
    names : sequence of str
        Parameters as in ``named_parameters()``.
    heads : callable
        (n, O) -> (n, H).
    vectorise : bool
        False: one sample after the other.

    Returns
    -------
    DenseFactor
    """
    jacobian = None
    if vectorise:
        # Some modules refuse vectorisation: fused recurrent kernels, data-dependent branches.
        with suppress(RuntimeError, NotImplementedError):
            jacobian = vectorised_jacobian(network, x, names, heads)
    if jacobian is None:
        jacobian = looped_jacobian(network, x, names, heads)
    return DenseFactor(jacobian.flatten(1))


def vectorised_jacobian(network, x, names, heads):
    """Gradients of shape (n, H, P), all samples and heads at once."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    fixed = {name: tensor.detach() for name, tensor in tensors}
    moving = {name: fixed.pop(name) for name in names}

    def outputs(parameters, sample):
        f = functional_call(network, {**fixed, **parameters}, (sample[None].clone(),))
        return heads(f)[0]

    # Fused attention has no batching rule; where others are missing torch loops, and says so.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        jacobians = vmap(jacrev(outputs), in_dims=(None, 0))(moving, x)
    return torch.cat([jacobians[name].flatten(2) for name in names], dim=2)


def looped_jacobian(network, x, names, heads):
    """Gradients of shape (n, H, P): one backward pass of autograd per sample and head."""
    by_name = dict(network.named_parameters())
    parameters = [by_name[name] for name in names]
    rows = []
    for sample in x:
        with torch.enable_grad():
            outputs = heads(network(sample[None].clone()))[0]
        rows.append(torch.stack([_flat_gradient(output, parameters) for output in outputs]))
    return torch.stack(rows)


def _flat_gradient(output, parameters):
    if not output.requires_grad:
        return torch.cat([torch.zeros_like(p).flatten() for p in parameters])
    gradients = torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])
