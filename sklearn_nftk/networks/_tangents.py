"""From a network of our own to its tangent kernels."""

import numpy as np

from ..tangents import TangentKernels
from ..utils._arrays import check_batch
from ..utils._device import resolve_device, resolve_dtype
from ..utils._kernel_source import KernelSource
from ..utils._progress import silent


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
    options |= {"device": resolve_device(device), "dtype": resolve_dtype(dtype, X.dtype)}
    source = TangentKernels(network, **options)
    source.check(X)
    source = _Contract(source, specification, X.shape[1:])
    source._built = X[:3], options
    return source


class _Contract(KernelSource):
    """TEMPORARY: until `TangentKernels` keeps the contract and takes `specification` itself."""

    def __init__(self, source, specification, shape):
        self.source, self.specification, self.shape = source, specification, shape
        self.layer_names, self.n_outputs = source.layer_names, source.n_outputs
        self.network = source.network
        self.dtype = np.dtype(str(source.dtype).removeprefix("torch."))

    def __getstate__(self):
        return {"network": self.network, "built": self._built, "spec": self.specification}

    def __setstate__(self, state):
        rows, options = state["built"]
        source = TangentKernels(state["network"], **options)
        source.check(rows)
        self.__init__(source, state["spec"], rows.shape[1:])
        self._built = rows, options

    def prepare(self, X):
        X = check_batch(X)
        if X.shape[1:] != self.shape:
            raise ValueError(f"samples have shape {X.shape[1:]}, not {self.shape}.")
        return self.source.prepare(X)

    def block(self, batch, other=None):
        return self._four(self.source.block(batch, other), 4)

    def diag(self, batch):
        return self._four(self.source.diag(batch), 3)

    def gram(self, batch, progress=None):
        self.source.progress = progress or silent
        return self.block(batch)

    def tiles(self, batch, progress=None):
        self.source.progress = progress or silent
        for rows, columns, tile in self.source.tiles(batch):
            yield rows, columns, self._four(tile, 4)

    @staticmethod
    def _four(planes, ndim):
        return planes if planes.ndim == ndim else planes[None]
