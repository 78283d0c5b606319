"""Exact or loud: a few samples of every fit are compared with autograd's own gradients."""

import torch

from ._generic import looped_jacobian


def check_network(network, x):
    """Refuse networks without a per-sample gradient.

    Parameters
    ----------
    network : torch.nn.Module
    x : torch.Tensor of shape (k, ...)
        A few samples.

    Raises
    ------
    ValueError
        If the network cannot be applied to `x`, its output is not (n, O), or an output of sample i
        depends on sample j.
    """
    try:
        with torch.no_grad():
            output = network(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        sizes = ", ".join(map(str, ("n", *x.shape[1:])))
        raise ValueError(f"network cannot be applied to X of shape ({sizes}): {error}") from error
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or len(output) != len(x):
        raise ValueError(
            f"network output must have shape (n_samples, n_outputs); for n_samples={len(x)} it "
            f"is {shape}."
        )
    if len(x) > 1:
        _check_rows_independent(network, x)


def _check_rows_independent(network, x):
    probe = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        output = network(probe)
    for i in range(len(x)):
        (gradient,) = torch.autograd.grad(
            # Squares, so that a sum over outputs that is constant (softmax) does not hide it.
            output[i].square().sum(), probe, retain_graph=True, materialize_grads=True
        )  # fmt: skip
        moved = gradient.flatten(1).abs().amax(1)
        moved[i] = 0
        if moved.any():
            raise ValueError(
                f"network mixes the samples of a batch: the output of sample {i} depends on "
                f"sample {int(moved.argmax())}. A tangent kernel needs f(x) of each sample alone."
            )


def failing_layers(source, x):
    """Names of the layers whose kernel among a few samples differs from autograd's."""
    expected = autograd_kernels(source.network, x, source.layers)
    actual = torch.from_numpy(source.block(x)).to(expected)
    scale = torch.sqrt(expected.diagonal(dim1=1, dim2=2))
    bound = scale[:, :, None] * scale[:, None, :]
    tolerance = 1e-3 if x.dtype == torch.float32 else 1e-8
    wrong = ((actual - expected).abs() > tolerance * bound).flatten(1).any(1)
    return [name for name, bad in zip(source.layer_names, wrong.tolist(), strict=True) if bad]


def autograd_kernels(network, x, layers):
    """Layer kernels among a few samples, shape (L, k, k), from autograd's own gradients."""
    names = [name for layer in layers for name in layer.parameters]
    by_name = dict(network.named_parameters())
    sizes = [sum(by_name[name].numel() for name in layer.parameters) for layer in layers]
    parts = looped_jacobian(network, x, names).split(sizes, dim=2)
    n_outputs = parts[0].shape[1]
    return torch.stack([part.flatten(1) @ part.flatten(1).T / n_outputs for part in parts])
