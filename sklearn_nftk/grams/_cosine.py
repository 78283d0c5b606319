"""``normalize="cosine"``: a kernel source whose samples all have norm 1."""

import numpy as np

from ..utils._kernel_source import KernelSource


class CosineKernels(KernelSource):
    """``Theta_l(x, z) / sqrt(Theta_l(x, x) Theta_l(z, z))`` of another source's kernels.

    Samples whose gradient is zero have kernel value 0.

    Parameters
    ----------
    source : KernelSource
    """

    def __init__(self, source):
        self.source = source
        self.layer_names = source.layer_names
        self.dtype = source.dtype
        self.n_outputs = source.n_outputs

    @property
    def network(self):
        """Network of the other source."""
        return getattr(self.source, "network", self.source)

    @property
    def networks(self):
        """Networks of the other source."""
        return getattr(self.source, "networks", [self.network])

    @property
    def specification(self):
        """What the network of the other source was made from, where it is kept."""
        return getattr(self.source, "specification", None)

    @property
    def network_outputs(self):
        """Outputs of the network of the other source, where it has one."""
        return self.source.network_outputs

    def prepare(self, X):
        """Validate samples; their batch knows their norms."""
        batch = self.source.prepare(X)
        norms = np.sqrt(self.source.diag(batch))
        inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        return NormedBatch(batch, inverse)

    def block(self, batch, other=None):
        """Layer kernels of two batches, shape (H, L, n, m)."""
        others = None if other is None else other.batch
        columns = (batch if other is None else other).inverse_norms
        kernels = self.source.block(batch.batch, others)
        return kernels * _products(batch.inverse_norms, columns)

    def diag(self, batch):
        """Kernels of each sample with itself, shape (H, L, n): 1, or 0."""
        return (batch.inverse_norms > 0).astype(self.dtype)

    def tiles(self, batch, progress=None):
        """Yield ``(rows, columns, tile)`` of the upper half."""
        for rows, columns, tile in self.source.tiles(batch.batch, progress):
            inverse = batch.inverse_norms
            yield rows, columns, tile * _products(inverse[..., rows], inverse[..., columns])

    def expansion(self, X, dual_coef, coefficients, *, normed=True):
        """Kernel expansions that can be differentiated: those of the other source, normed."""
        dual_coef = dual_coef * self.prepare(X).inverse_norms
        return self.source.expansion(X, dual_coef, coefficients, normed=normed)


class NormedBatch:
    """A batch beside the norms of its samples.

    Parameters
    ----------
    batch : batch of n samples
    inverse_norms : ndarray of shape (H, L, n)
        0 for samples of norm 0.
    """

    def __init__(self, batch, inverse_norms):
        self.batch = batch
        self.inverse_norms = inverse_norms

    @property
    def nbytes(self):
        """Bytes that are kept."""
        return self.inverse_norms.nbytes + getattr(self.batch, "nbytes", 0)

    def __len__(self):
        return len(self.batch)

    def __getitem__(self, rows):
        return NormedBatch(self.batch[rows], self.inverse_norms[..., rows])


def _products(rows, columns):
    """Outer products, first of all: so that symmetric kernels stay exactly symmetric."""
    return rows[..., :, None] * columns[..., None, :]
