"""Layer kernels that do not fit into memory, and the choice between the two ways."""

import numpy as np

from ..utils._memory import fits, working_memory
from ._average import mean
from ._cosine import CosineKernels
from ._grams import Grams, StoredGrams


class StreamedGrams(Grams):
    """Kernels that are computed again in each pass.

    Parameters
    ----------
    source : KernelSource
    batch : batch
        What ``source.prepare`` returned for the training set.
    """

    def __init__(self, source, batch):
        n_kernels, n_layers = source.diag(batch[:1]).shape[:2]
        super().__init__((n_kernels, n_layers, len(batch)), source.dtype, source.layer_names)
        self.source = source
        self.batch = batch

    def tiles(self, progress=None):
        """Yield ``(rows, columns, tile)`` of the upper half of the unscaled kernels."""
        return self.source.tiles(self.batch, progress)


class RowGrams(StreamedGrams):
    """Kernels that are computed again in each pass, those of some rows from these rows alone.

    Parameters
    ----------
    source : KernelSource
    batch : batch
        What ``source.prepare`` returned for X.
    X : ndarray of shape (n, ...)
        The training set.
    """

    def __init__(self, source, batch, X):
        super().__init__(source, batch)
        self.X = X

    def subset(self, rows):
        """Kernels of some rows among themselves."""
        X = self.X[rows]
        return RowGrams(self.source, self.source.prepare(X), X).scaled(self.scales)


def layer_grams(source, batch, progress=None):
    """Compute the kernels of a training set where they fit into memory beside the solver.

    Parameters
    ----------
    source : KernelSource
    batch : batch of n samples
    progress : callable, default=None

    Returns
    -------
    Grams
        Stored, or streamed where they do not fit.
    """
    streamed = StreamedGrams(source, batch)
    n_kernels, n_layers, n = streamed.shape
    stack_bytes = n_kernels * n_layers * n**2 * streamed.dtype.itemsize
    if not fits(stack_bytes + 2 * 8 * n**2):
        return streamed
    return StoredGrams(source.gram(batch, progress), source.layer_names)


def fold_grams(source, batch, X, progress=None):
    """Kernels of a training set under each of several networks, and their mean.

    Parameters
    ----------
    source : AverageKernels, or CosineKernels of one
    batch : batch
        What ``source.prepare`` returned for X.
    X : ndarray of shape (n, ...)
    progress : callable, default=None

    Returns
    -------
    of_folds : list of Grams
        Under each network; held where all of them are small beside working memory, else computed
        again in each pass.
    mean : Grams
        Those of `source`.
    """
    if isinstance(source, CosineKernels):
        sources = [CosineKernels(of_fold) for of_fold in source.source.sources]
        of_folds = [RowGrams(one, one.prepare(X), X) for one in sources]
    else:
        pairs = zip(source.sources, batch.batches, strict=True)
        of_folds = [RowGrams(one, of_fold, X) for one, of_fold in pairs]
    n_bytes = sum(np.prod(g.shape) * g.shape[2] * g.dtype.itemsize for g in of_folds)
    if n_bytes > working_memory():
        return of_folds, layer_grams(source, batch, progress)
    held = [StoredGrams(g.source.gram(g.batch, progress), g.layer_names) for g in of_folds]
    if isinstance(source, CosineKernels):  # no mean of normed kernels, but the norm of the mean
        return held, layer_grams(source, batch, progress)
    return held, StoredGrams(mean(g.planes for g in held), source.layer_names)
