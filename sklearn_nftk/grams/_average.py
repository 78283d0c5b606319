"""The layer kernels of several networks, averaged or side by side: sources made of theirs."""

import numpy as np
from sklearn import config_context, get_config

from ..utils._groups import layer_label
from ..utils._kernel_source import KernelSource


class SeveralKernels(KernelSource):
    """K sources with the same layers, for the same samples.

    Parameters
    ----------
    sources : list of KernelSource
    """

    def __init__(self, sources):
        self.sources = sources
        first = sources[0]
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

    def prepare(self, X):
        """Validate samples, and prepare them for each network, all within `working_memory`."""
        share = get_config()["working_memory"] / len(self.sources)
        with config_context(working_memory=share):
            return SeveralBatches([source.prepare(X) for source in self.sources])

    def _blocks(self, batch, other):
        """Yield the layer kernels of two batches of each source, (H, L, n, m)."""
        others = [None] * len(self.sources) if other is None else other.batches
        for source, *pair in zip(self.sources, batch.batches, others, strict=True):
            yield source.block(*pair)

    def _diagonals(self, batch):
        """Yield the kernels of each sample with itself of each source, (H, L, n)."""
        for source, of_source in zip(self.sources, batch.batches, strict=True):
            yield source.diag(of_source)


class AverageKernels(SeveralKernels):
    """``Theta_l(x, z)``, the mean over K sources with the same layers.

    Of networks drawn at random it is closer to the kernel of their infinitely wide limit than any
    of theirs: the variance is K times smaller. Tile by tile, so that one stack is in memory.

    Parameters
    ----------
    sources : list of KernelSource
    """

    def __init__(self, sources):
        super().__init__(sources)
        self.layer_names = sources[0].layer_names

    @property
    def network_outputs(self):
        """Mean outputs of the networks, where they have some: ``network_outputs(X)``."""
        each = [source.network_outputs for source in self.sources]
        return lambda X: np.mean([outputs(X) for outputs in each], axis=0)

    @property
    def network(self):
        """The first network, of which the others differ in parameters alone."""
        return self.networks[0]

    def block(self, batch, other=None):
        """Layer kernels of two batches, shape (H, L, n, m)."""
        return mean(self._blocks(batch, other))

    def diag(self, batch):
        """Kernels of each sample with itself, shape (H, L, n)."""
        return mean(self._diagonals(batch))

    def expansion(self, X, dual_coef, coefficients, *, normed=False):
        """Kernel expansions that can be differentiated; norms are those of the mean kernel."""
        if normed:
            return super().expansion(X, dual_coef, coefficients, normed=True)
        parts = [source.expansion(X, dual_coef, coefficients) for source in self.sources]
        return AverageExpansion(parts)


class StackedKernels(SeveralKernels):
    """The layers of K sources side by side: K x L layers.

    Parameters
    ----------
    sources : list of KernelSource
        In time, for instance: the network of the last is what the kernels are of.
    labels : list of str
        One for each source, for the names of its layers.
    """

    def __init__(self, sources, labels):
        super().__init__(sources)
        self.layer_names = self.joined(labels, [source.layer_names for source in sources])

    @staticmethod
    def joined(labels, names):
        """Names of the layers, those of each source with its label."""
        pairs = zip(labels, names, strict=True)
        return [f"{label}, {layer_label(name)}" for label, own in pairs for name in own]

    @property
    def network_outputs(self):
        """Outputs of the last network, where it has some: ``network_outputs(X)``."""
        return self.sources[-1].network_outputs

    @property
    def network(self):
        """The last network."""
        return self.networks[-1]

    def block(self, batch, other=None):
        """Layer kernels of two batches, shape (H, K L, n, m)."""
        return np.concatenate(list(self._blocks(batch, other)), axis=1)

    def diag(self, batch):
        """Kernels of each sample with itself, shape (H, K L, n)."""
        return np.concatenate(list(self._diagonals(batch)), axis=1)

    def expansion(self, X, dual_coef, coefficients, *, normed=False):
        """Kernel expansions that can be differentiated: those of the sources side by side."""
        ends = np.cumsum([len(source.layer_names) for source in self.sources])[:-1]
        parts = np.split(coefficients, ends, axis=1)
        # One set of coefficients for all layers, or one for each.
        duals = [dual_coef] * len(parts)
        if dual_coef.shape[1] > 1:
            duals = np.split(dual_coef, ends, axis=1)
        return StackedExpansion(
            [
                source.expansion(X, dual, part, normed=normed)
                for source, dual, part in zip(self.sources, duals, parts, strict=True)
            ]
        )


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


class SeveralBatches:
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
        return SeveralBatches([batch[rows] for batch in self.batches])


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


class StackedExpansion:
    """Expansions whose layers are side by side.

    Parameters
    ----------
    parts : list of expansion
    """

    def __init__(self, parts):
        self.parts = parts

    def gradients(self, X, *, per_layer=False):
        """Gradients with respect to samples, see `KernelSource.expansion`."""
        gradients = [part.gradients(X, per_layer=per_layer) for part in self.parts]
        return np.concatenate(gradients, axis=2) if per_layer else sum(gradients)
