"""The generic way: gradients written out, for any parameters of any network."""

import math

import torch
from torch.func import functional_call, jacrev, vmap

from ._factors import DenseFactor


def generic_factor(network, x, names):
    """Factor of the gradients for some parameters.

    Parameters
    ----------
    network : torch.nn.Module
    x : torch.Tensor of shape (n, ...)
    names : sequence of str
        Parameters as in ``named_parameters()``.

    Returns
    -------
    DenseFactor
    """
    try:
        jacobian = vectorised_jacobian(network, x, names)
    except RuntimeError:
        # Some modules refuse vectorisation: fused recurrent kernels, data-dependent branches.
        jacobian = looped_jacobian(network, x, names)
    return DenseFactor(jacobian.flatten(1) / math.sqrt(jacobian.shape[1]))


def vectorised_jacobian(network, x, names):
    """Gradients of shape (n, O, P), all samples and outputs at once."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    fixed = {name: tensor.detach() for name, tensor in tensors}
    moving = {name: fixed.pop(name) for name in names}

    def outputs(parameters, sample):
        return functional_call(network, {**fixed, **parameters}, (sample[None],))[0]

    jacobians = vmap(jacrev(outputs), in_dims=(None, 0))(moving, x)
    return torch.cat([jacobians[name].flatten(2) for name in names], dim=2)


def looped_jacobian(network, x, names):
    """Gradients of shape (n, O, P): one backward pass of autograd per sample and output."""
    by_name = dict(network.named_parameters())
    parameters = [by_name[name] for name in names]
    rows = []
    for sample in x:
        with torch.enable_grad():
            outputs = network(sample[None])[0]
        rows.append(torch.stack([_flat_gradient(output, parameters) for output in outputs]))
    return torch.stack(rows)


def _flat_gradient(output, parameters):
    if not output.requires_grad:
        return torch.cat([torch.zeros_like(p).flatten() for p in parameters])
    gradients = torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])
