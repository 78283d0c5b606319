"""Exact or loud: a few samples of every fit are compared with autograd's own gradients."""

import torch

from ._generic import looped_jacobians


def check_network(network, x):
    """Refuse networks without a per-sample gradient.

    Parameters
    ----------
    network : torch.nn.Module
    x : torch.Tensor of shape (k, ...)
        A few samples.

    Returns
    -------
    int
        Number of outputs.

    Raises
    ------
    ValueError
        If the network cannot be applied to `x`, its output is not (n, O), it gives something else
        at each call, or the output of sample i depends on sample j.
    """
    output = _apply(network, x)
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or len(output) != len(x):
        raise ValueError(
            f"network output must have shape (n_samples, n_outputs); for n_samples={len(x)} it "
            f"is {shape}."
        )
    if not torch.equal(output.nan_to_num(), _apply(network, x).nan_to_num()):
        raise ValueError(
            "network gives different outputs for the same X at each call; a tangent kernel needs "
            "a function of X."
        )
    _check_rows_independent(network, x, output)
    return output.shape[1]


def _apply(network, x):
    try:
        with torch.no_grad():
            return network(x.clone())
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        sizes = ", ".join(map(str, ("n", *x.shape[1:])))
        raise ValueError(f"network cannot be applied to X of shape ({sizes}): {error}") from error


def _check_rows_independent(network, x, output):
    """Each output must stay when another sample of the batch is replaced."""
    tolerance = 1e-4 if output.dtype == torch.float32 else 1e-8
    scale = output.abs().amax(1)
    for j in reversed(range(len(x))):
        replaced = x.clone()
        replaced[j] = x[j - 1]
        difference = (_apply(network, replaced) - output).abs().amax(1)
        difference[j] = 0
        for i in (difference > tolerance * scale).nonzero().flatten().tolist():
            raise ValueError(
                f"network mixes the samples of a batch: the output of sample {i} depends on "
                f"sample {j}. A tangent kernel needs f(x) of each sample alone."
            )


def failing_layers(layers, network, x, heads, kernels):
    """Names of the layers whose kernels among a few samples differ from autograd's.

    Parameters
    ----------
    layers : list of Layer
    network : torch.nn.Module
    x : torch.Tensor of shape (k, ...)
    heads : callable
        (n, O) -> (n, H).
    kernels : torch.Tensor of shape (H, L, k, k), or (1, L, k, k)
        Of each head, or of all of them together.
    """
    names = [name for layer in layers for name in layer.parameters]
    jacobians = looped_jacobians(network, x, names, heads)
    of_layers = [[jacobians[name] for name in layer.parameters] for layer in layers]
    expected = torch.stack([_kernels(of_layer) for of_layer in of_layers], dim=1)
    if len(kernels) == 1:
        expected = expected.sum(0, keepdim=True)
    tolerance = 1e-3 if kernels.dtype == torch.float32 else 1e-8
    norms = expected.diagonal(dim1=2, dim2=3).sqrt()
    # Gradients that all but vanish beside those of the other layers are known up to rounding only.
    rounding = 10 * torch.finfo(kernels.dtype).eps / tolerance
    norms = norms.maximum(rounding * norms.square().sum(1, keepdim=True).sqrt())
    wrong = (kernels - expected).abs() > tolerance * norms[..., :, None] * norms[..., None, :]
    return [layer.name for layer, any_wrong in zip(layers, wrong.any(3).any(2).any(0), strict=True)
            if any_wrong]  # fmt: skip


def _kernels(jacobians):
    """Sum over parameters, shape (H, k, k), of the Grams of (k, H, P) gradients."""
    return torch.stack([torch.einsum("nhp,mhp->hnm", j, j) for j in jacobians]).sum(0)
