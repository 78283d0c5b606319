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
    _check_rows_independent(network, x)
    return output.shape[1]


def _apply(network, x):
    try:
        with torch.no_grad():
            return network(x.clone())
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        sizes = ", ".join(map(str, ("n", *x.shape[1:])))
        raise ValueError(f"network cannot be applied to X of shape ({sizes}): {error}") from error


def _check_rows_independent(network, x):
    """The first output must stay when another sample of the batch is replaced."""
    tolerance = 1e-4 if x.dtype == torch.float32 else 1e-8
    for i in range(len(x)):
        for j in range(len(x)):
            with_other = _apply(network, torch.stack([x[i], x[j]]))[0]
            with_itself = _apply(network, torch.stack([x[i], x[i]]))[0]
            difference = (with_other - with_itself).abs().max()
            if difference > tolerance * with_itself.abs().max():
                raise ValueError(
                    f"network mixes the samples of a batch: the output of sample {i} depends on "
                    f"sample {j}. A tangent kernel needs f(x) of each sample alone."
                )


def failing_layers(source, x):
    """Names of the layers whose kernels among a few samples differ from autograd's."""
    names = [name for layer in source.layers for name in layer.parameters]
    jacobians = looped_jacobians(source.network, x, names, source.heads)
    actual = torch.from_numpy(source.block(x))
    if not source.apart:
        actual = actual[None]
    tolerance = 1e-3 if source.dtype == torch.float32 else 1e-8
    failing = []
    for layer, kernels in zip(source.layers, actual.unbind(1), strict=True):
        jacobian = torch.cat([jacobians[name] for name in layer.parameters], dim=2)
        expected = torch.einsum("nhp,mhp->hnm", jacobian, jacobian)
        if not source.apart:
            expected = expected.sum(0, keepdim=True)
        norms = expected.diagonal(dim1=1, dim2=2).sqrt()
        difference = (kernels.to(expected) - expected).abs()
        if (difference > tolerance * norms[:, :, None] * norms[:, None]).any():
            failing.append(layer.name)
    return failing
