"""The mean of the layer kernels of several networks: a kernel source made of theirs."""

import numpy as np
from sklearn import config_context, get_config

from ..utils._kernel_source import KernelSource


class AverageKernels(KernelSource):
    """``Theta_l(x, z)``, the mean over K sources with the same layers.

    Of networks drawn at random it is closer to the kernel of their infinitely wide limit than any
    of theirs: the variance is K times smaller. Tile by tile, so that one stack is in memory.

    Parameters
    ----------
    sources : list of KernelSource
    """

    def __init__(self, sources):
        self.sources = sources
        first = sources[0]
        self.layer_names = first.layer_names
        self.dtype = first.dtype
        self.n_jobs = first.n_jobs
        self.n_outputs = first.n_outputs

    @property
    def networks(self):
        """The networks of all sources."""
        return [network for source in self.sources for network in _networks(source)]

    @property
    def specification(self):
        """What the networks were made from, where it is kept."""
        return getattr(self.sources[0], "specification", None)

    @property
    def network_outputs(self):
        """Mean outputs of the networks, where they have some: ``network_outputs(X)``."""
        each = [source.network_outputs for source in self.sources]
        return lambda X: np.mean([outputs(X) for outputs in each], axis=0)

    @property
    def network(self):
        """The first network, of which the others differ in parameters alone."""
        return self.networks[0]

    def prepare(self, X):
        """Validate samples, and prepare them for each network, all within `working_memory`."""
        share = get_config()["working_memory"] / len(self.sources)
        with config_context(working_memory=share):
            return AverageBatch([source.prepare(X) for source in self.sources])

    def block(self, batch, other=None):
        """Layer kernels of two batches, shape (H, L, n, m)."""
        others = [None] * len(self.sources) if other is None else other.batches
        return mean(
            source.block(*pair)
            for source, *pair in zip(self.sources, batch.batches, others, strict=True)
        )

    def diag(self, batch):
        """Kernels of each sample with itself, shape (H, L, n)."""
        pairs = zip(self.sources, batch.batches, strict=True)
        return mean(source.diag(of_source) for source, of_source in pairs)

    def expansion(self, X, dual_coef, coefficients, *, normed=False):
        """Kernel expansions that can be differentiated; norms are those of the mean kernel."""
        if normed:
            return super().expansion(X, dual_coef, coefficients, normed=True)
        parts = [source.expansion(X, dual_coef, coefficients) for source in self.sources]
        return AverageExpansion(parts)


def mean(arrays):
    """Mean of arrays, one after the other."""
    arrays = iter(arrays)
    total, count = next(arrays).copy(), 1
    for array in arrays:
        total += array
        count += 1
    total /= count
    return total


def _networks(source):
    """All networks of a source, which is one itself if it has none."""
    several = getattr(source, "networks", None)
    return [getattr(source, "network", source)] if several is None else several


class AverageBatch:
    """The same samples as each source prepared them.

    Parameters
    ----------
    batches : list of batch
    """

    def __init__(self, batches):
        self.batches = batches

    @property
    def nbytes(self):
        """Bytes that are kept."""
        return sum(getattr(batch, "nbytes", np.inf) for batch in self.batches)

    def __len__(self):
        return len(self.batches[0])

    def __getitem__(self, rows):
        return AverageBatch([batch[rows] for batch in self.batches])


class AverageExpansion:
    """The mean of expansions.

    Parameters
    ----------
    parts : list of expansion
    """

    def __init__(self, parts):
        self.parts = parts

    def gradients(self, X, *, per_layer=False):
        """Gradients with respect to samples, see `KernelSource.expansion`."""
        return sum(part.gradients(X, per_layer=per_layer) for part in self.parts) / len(self.parts)
