"""The layer kernels of a training set as weights and solvers see them."""

import copy
from abc import ABC, abstractmethod

import numpy as np

from ..utils._memory import available_memory, require_memory
from ..utils._threads import one_blas_thread
from ..utils._tiles import upper_tiles
from ._statistics import StatisticsAccumulator

# Tiles of stored kernels: the float64 copy of a tile is the only temporary.
_TILE_ROWS = 512


class Grams(ABC):
    """H x L symmetric n x n kernels in units of their scales, ``K_l = Theta_l / s_l``.

    H is 1 where all decisions share their kernels, else each decision has kernels of its own
    (``outputs="per_class"``). Never changed once made: `scaled` returns others on the same data.

    Parameters
    ----------
    shape : tuple
        (H, L, n).
    dtype : numpy.dtype
        The precision the kernels were computed in.
    layer_names : list of str

    Attributes
    ----------
    scales : ndarray of shape (H, L)
        What the kernels are divided by: ones, unless it was `scaled`.
    """

    def __init__(self, shape, dtype, layer_names):
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.layer_names = list(layer_names)
        self.scales = np.ones(shape[:2])

    @abstractmethod
    def tiles(self, progress=None):
        """Yield ``(rows, columns, tile)`` of the upper half of the unscaled kernels.

        Tiles have shape (H, L, len(rows), len(columns)).
        """

    def scaled(self, scales):
        """Return the kernels divided by scales of shape (H, L), on the same data."""
        other = copy.copy(self)
        other.scales = self.scales * scales
        return other

    def kernel_of(self, decision):
        """Index of the kernels that a decision uses, 0 to H - 1."""
        return decision if self.shape[0] > 1 else 0

    def decisions_of(self, kernel, n_decisions):
        """Return the slice of the decisions that use these kernels."""
        return slice(kernel, kernel + 1) if self.shape[0] > 1 else slice(0, n_decisions)

    def statistics(self, p, Y):
        """Statistics of the kernels with the targets that use them: a list of length H.

        Parameters
        ----------
        p : ndarray of shape (n,)
            Sample probabilities.
        Y : ndarray of shape (n, n_decisions)

        Returns
        -------
        list of KernelStatistics
        """
        n_kernels, n_layers, _ = self.shape
        accumulators = [
            StatisticsAccumulator(p, Y[:, self.decisions_of(h, Y.shape[1])], n_layers)
            for h in range(n_kernels)
        ]
        for rows, columns, tile in self.tiles():
            with one_blas_thread():
                for accumulator, kernels in zip(accumulators, tile, strict=True):
                    accumulator.add(rows, columns, kernels)
        return [
            accumulator.result().scaled(scales)
            for accumulator, scales in zip(accumulators, self.scales, strict=True)
        ]

    def combined(self, weights, kernels):
        """Yield ``sum_l w_kl K_l`` for each row of weights: float64 of shape (n, n), to keep.

        Parameters
        ----------
        weights : ndarray of shape (k, L)
        kernels : sequence of k int
            The kernels, 0 to H - 1, that each row combines.
        """
        coefficients = weights / self.scales[kernels]
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
                    part = np.tensordot(coefficients[k], tile[kernels[k]], axes=1)
                    K[rows, columns] = part
                    if rows != columns:
                        K[columns, rows] = part.T
            while sums:
                yield sums.pop(0)

    def quadratics(self, A, kernels):
        """``a_j' K_l a_j`` for each column of A, shape (L, k).

        Parameters
        ----------
        A : ndarray of shape (n, k)
        kernels : sequence of k int
            The kernels, 0 to H - 1, of each column.
        """
        sums = np.zeros((self.shape[1], A.shape[1]))
        for rows, columns, tile in self.tiles():
            mirrored = 1 + (rows != columns)
            for kernel in set(kernels):
                mine = np.equal(kernels, kernel)
                products = tile[kernel] @ A[columns][:, mine]  # (L, r, k)
                sums[:, mine] += mirrored * np.einsum("rk,lrk->lk", A[rows][:, mine], products)
        return sums / self.scales[kernels].T

    def subset(self, rows):
        """Kernels of some rows among themselves, held in memory.

        Parameters
        ----------
        rows : ndarray of int
            In ascending order.
        """
        planes = np.empty((*self.shape[:2], len(rows), len(rows)), dtype=self.dtype)
        for of_rows, of_columns, tile in self.tiles():
            i, j = (
                np.searchsorted(rows, [part.start, part.stop]) for part in (of_rows, of_columns)
            )
            mine, others = rows[slice(*i)] - of_rows.start, rows[slice(*j)] - of_columns.start
            part = tile[..., mine[:, None], others]
            planes[..., slice(*i), slice(*j)] = part
            planes[..., slice(*j), slice(*i)] = part.swapaxes(-1, -2)
        return StoredGrams(planes, self.layer_names).scaled(self.scales)

    def stored(self):
        """Hold the kernels in memory.

        Raises
        ------
        MemoryError
            If they do not fit there.
        """
        n_bytes = np.prod(self.shape, dtype=float) * self.shape[2] * self.dtype.itemsize
        require_memory(n_bytes, "Keeping the layer kernels", advice="Use fewer rows.")
        return self.subset(np.arange(self.shape[2]))


class StoredGrams(Grams):
    """Kernels held in memory.

    Parameters
    ----------
    planes : ndarray of shape (H, L, n, n)
        Symmetric; never written to.
    layer_names : list of str
    """

    def __init__(self, planes, layer_names):
        super().__init__(planes.shape[:3], planes.dtype, layer_names)
        self.planes = planes

    def stored(self):
        """Return the kernels themselves: they are in memory already."""
        return self

    def tiles(self, progress=None):
        """Yield ``(rows, columns, tile)`` of the upper half of the unscaled kernels."""
        for rows, columns in upper_tiles(self.shape[2], _TILE_ROWS):
            yield rows, columns, self.planes[:, :, rows, columns]

    def combined(self, weights, kernels):
        """Yield ``sum_l w_kl K_l`` for each row of weights, one after the other."""
        for row, kernel in zip(weights, kernels, strict=True):
            yield self._combined(row / self.scales[kernel], self.planes[kernel])

    def _combined(self, coefficients, planes):
        used = np.flatnonzero(coefficients)
        n = self.shape[2]
        if not len(used):
            return np.zeros((n, n))
        K = np.empty((n, n))
        step = max(1, 2**22 // n)
        for start in range(0, n, step):
            rows = slice(start, start + step)
            np.multiply(planes[used[0], rows], coefficients[used[0]], out=K[rows])
            for layer in used[1:]:
                K[rows] += coefficients[layer] * planes[layer, rows]
        return K
