"""The layer kernels of a training set as the learner sees them: held in memory, or streamed.

H families of L kernels: one family for all decisions, or one for each (``outputs="per_class"``).
Kernels are in units of their scales: ``K_l = Theta_l / s_l``.
"""

import numpy as np

from ..utils._memory import available_memory, require_memory
from ..utils._threads import one_blas_thread
from ..utils._tiles import upper_tiles
from ._normalize import cosine_normalise
from ._statistics import StatisticsAccumulator

# Tiles of stored kernels: the float64 copy of a tile is the only temporary.
_TILE_ROWS = 512


class LayerGrams:
    """What weights and solvers ask of n x n kernels of L layers.

    Subclasses yield the kernels tile by tile; everything else follows.

    Attributes
    ----------
    shape : tuple
        (H, L, n).
    dtype : numpy.dtype
        The precision the kernels were computed in.
    apart : bool
        Whether each decision has kernels of its own, H = n_decisions; else H = 1.
    scales : ndarray of shape (H, L)
        What the kernels are divided by; ones until they are known.
    """

    apart: bool
    shape: tuple[int, int, int]
    dtype: np.dtype
    scales: np.ndarray

    def tiles(self):
        """Yield ``(rows, columns, tile)`` of the upper half of the unscaled kernels.

        Tiles have shape (H, L, len(rows), len(columns)).
        """
        raise TypeError(f"{type(self).__name__} does not define tiles")

    def family(self, decision):
        """Which kernels a decision uses."""
        return decision if self.apart else 0

    def decisions(self, family, n_decisions):
        """Which decisions use these kernels."""
        return slice(family, family + 1) if self.apart else slice(0, n_decisions)

    def statistics(self, p, Y):
        """Statistics of each family with the targets of its decisions: a list of length H.

        Parameters
        ----------
        p : ndarray of shape (n,)
            Sample probabilities.
        Y : ndarray of shape (n, n_decisions)
        """
        n_families, n_layers, _ = self.shape
        accumulators = [
            StatisticsAccumulator(p, Y[:, self.decisions(family, Y.shape[1])], n_layers)
            for family in range(n_families)
        ]
        for rows, columns, tile in self.tiles():
            with one_blas_thread():
                for accumulator, kernels in zip(accumulators, tile, strict=True):
                    accumulator.add(rows, columns, kernels)
        results = [accumulator.result() for accumulator in accumulators]
        return [r.scaled(scales) for r, scales in zip(results, self.scales, strict=True)]

    def combined(self, weights, families):
        """Yield ``sum_l w_kl K_l`` for each row of weights: float64 of shape (n, n), to keep.

        Parameters
        ----------
        weights : ndarray of shape (k, L)
        families : sequence of k int
        """
        coefficients = weights / self.scales[families]
        n = self.shape[2]
        available = available_memory()
        # One goes to the solver, which wants as much again.
        at_once = len(weights) if available is None else int(available // (8 * n * n)) - 1
        at_once = max(1, at_once)
        for start in range(0, len(weights), at_once):
            some = list(range(start, min(start + at_once, len(weights))))
            sums = [np.empty((n, n)) for _ in some]
            for rows, columns, tile in self.tiles():
                for K, k in zip(sums, some, strict=True):
                    part = np.tensordot(coefficients[k], tile[families[k]], axes=1)
                    K[rows, columns] = part
                    if rows != columns:
                        K[columns, rows] = part.T
            while sums:
                yield sums.pop(0)

    def subset(self, rows):
        """The kernels of some rows among themselves, held in memory.

        Parameters
        ----------
        rows : ndarray of int
            In ascending order.
        """
        stack = np.empty((*self.shape[:2], len(rows), len(rows)), dtype=self.dtype)
        for of_rows, of_columns, tile in self.tiles():
            i, j = (
                np.searchsorted(rows, [part.start, part.stop]) for part in (of_rows, of_columns)
            )
            mine, others = rows[slice(*i)] - of_rows.start, rows[slice(*j)] - of_columns.start
            part = tile[..., mine[:, None], others]
            stack[..., slice(*i), slice(*j)] = part
            stack[..., slice(*j), slice(*i)] = part.swapaxes(-1, -2)
        found = StoredGrams(stack if self.apart else stack[0])
        found.scales = self.scales
        return found

    def stored(self):
        """The same kernels, held in memory.

        Raises
        ------
        MemoryError
            If they do not fit there.
        """
        n_bytes = np.prod(self.shape, dtype=float) * self.shape[2] * self.dtype.itemsize
        require_memory(n_bytes, "Keeping the layer kernels", advice="Use fewer rows.")
        return self.subset(np.arange(self.shape[2]))

    def quadratics(self, A, families):
        """``a_j' K_l a_j`` for each column of A, shape (L, k).

        Parameters
        ----------
        A : ndarray of shape (n, k)
        families : sequence of k int
        """
        found = np.zeros((self.shape[1], A.shape[1]))
        for rows, columns, tile in self.tiles():
            mirrored = 1 + (rows != columns)
            for family in set(families):
                mine = np.equal(families, family)
                sums = tile[family] @ A[columns][:, mine]  # (L, r, k)
                found[:, mine] += mirrored * np.einsum("rk,lrk->lk", A[rows][:, mine], sums)
        return found / self.scales[families].T


class FamilyView:
    """Some layers of one family, for solvers that combine them again and again.

    Parameters
    ----------
    grams : LayerGrams
    family : int
    used : ndarray of bool, shape (L,)
        The layers that are seen.
    """

    def __init__(self, grams, family, used):
        self.grams = grams
        self.family = family
        self.used = used

    def combined(self, weights):
        """``sum_l w_l K_l`` in float64, shape (n, n), to keep."""
        row = np.zeros(len(self.used))
        row[self.used] = weights
        return next(self.grams.combined(row[None], [self.family]))

    def quadratics(self, A):
        """``a_j' K_l a_j``, shape (L, k)."""
        return self.grams.quadratics(A, [self.family] * A.shape[1])[self.used]


class StoredGrams(LayerGrams):
    """Kernels held in memory.

    Parameters
    ----------
    stack : ndarray of shape (L, n, n) or (H, L, n, n)
        Symmetric planes.
    """

    def __init__(self, stack):
        self.apart = stack.ndim == 4
        self.stack = stack if self.apart else stack[None]
        self.shape = self.stack.shape[:3]
        self.dtype = stack.dtype
        self.scales = np.ones(self.shape[:2])

    @classmethod
    def normalised(cls, stack):
        """Divide the kernels by the norms of the samples, in place: ``normalize="cosine"``."""
        diagonal = np.ascontiguousarray(stack.diagonal(axis1=-2, axis2=-1))
        return cls(cosine_normalise(stack, diagonal, diagonal))

    def stored(self):
        """The kernels are in memory already."""
        return self

    def tiles(self):
        """Yield ``(rows, columns, tile)`` of the upper half of the unscaled kernels."""
        for rows, columns in upper_tiles(self.shape[2], _TILE_ROWS):
            yield rows, columns, self.stack[:, :, rows, columns]

    def combined(self, weights, families):
        """Yield ``sum_l w_kl K_l`` for each row of weights, one after the other."""
        for row, family in zip(weights, families, strict=True):
            yield self._combined(row / self.scales[family], self.stack[family])

    def _combined(self, coefficients, planes):
        used = np.flatnonzero(coefficients)
        n = self.shape[2]
        K = np.empty((n, n))
        step = max(1, 2**22 // n)
        for start in range(0, n, step):
            rows = slice(start, start + step)
            np.multiply(planes[used[0], rows], coefficients[used[0]], out=K[rows])
            for layer in used[1:]:
                K[rows] += coefficients[layer] * planes[layer, rows]
        return K


class StreamedGrams(LayerGrams):
    """Kernels computed again in each pass, where they do not fit into memory.

    Parameters
    ----------
    source : KernelSource
    X : array-like of shape (n, ...)
    cosine : bool
        Divide the kernels by the norms of the samples.
    """

    def __init__(self, source, X, *, cosine=False):
        self.source = source
        self.batch = source.prepare(X)
        diagonal = source.diag(self.batch)
        self.apart = diagonal.ndim == 3
        diagonal = self._families_first(diagonal)
        self.diagonal = diagonal if cosine else None
        self.shape = diagonal.shape
        self.dtype = diagonal.dtype
        self.scales = np.ones(self.shape[:2])

    def tiles(self):
        """Yield ``(rows, columns, tile)`` of the upper half of the unscaled kernels."""
        for rows, columns, tile in self.source.tiles(self.batch):
            tile = self._families_first(tile)
            if self.diagonal is not None:
                cosine_normalise(tile, self.diagonal[..., rows], self.diagonal[..., columns])
            yield rows, columns, tile

    def _families_first(self, kernels):
        return kernels if self.apart else kernels[None]
