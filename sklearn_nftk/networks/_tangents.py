"""From a network of our own to its tangent kernels."""

from ..tangents import TangentKernels
from ..utils._device import resolve_device, resolve_dtype


def tangent_kernels(network, X, *, device, dtype, specification=None, **options):
    """Tangent kernels of a network, checked against autograd on samples of X.

    Parameters
    ----------
    network : torch.nn.Module
        A copy of our own, in evaluation mode.
    X : ndarray of shape (n, ...)
    device, dtype
        As in `sklearn_nftk.kernels.layer_kernels`.
    specification : object, default=None
        What the network can be restored from, with the arrays of its parameters.
    **options
        ``layers, outputs, n_jobs`` of `TangentKernels`.
    """
    source = TangentKernels(
        network,
        device=resolve_device(device),
        dtype=resolve_dtype(dtype, X.dtype),
        specification=specification,
        **options,
    )
    source.check(X)
    return source
