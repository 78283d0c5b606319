"""One row is one distinct (x, y): which rows are learned from, and how copies share the result.

Merged rows make a weight of k the same as k repetitions, in leave-one-out too, which leaves a row
out whole. Their order by content, which no order of the training set changes, is what samples of
the rows are drawn from.
"""

import pickle
from typing import NamedTuple

import numpy as np

# In units of rounding of the largest diagonal entry: how far kernels of one x may differ.
_ROUNDING = 64


class DistinctRows(NamedTuple):
    """The distinct rows of a training set.

    Attributes
    ----------
    first : ndarray of int, shape (m,)
        First row of each group of copies, ascending.
    copy_of : ndarray of int, shape (n,)
        Group of each row, 0 to m - 1.
    order : ndarray of int, shape (m,)
        The groups in the order of their content.
    contested : ndarray of bool, shape (m,)
        Whether the same x has other targets too.
    """

    first: np.ndarray
    copy_of: np.ndarray
    order: np.ndarray
    contested: np.ndarray

    def total(self, weights):
        """Sum weights of shape (n,) over copies, shape (m,)."""
        return np.bincount(self.copy_of, weights=weights, minlength=len(self.first))

    def share(self, weights):
        """Share of each row in the weight of its group, shape (n,)."""
        return weights / self.total(weights)[self.copy_of]


def distinct_rows(keys, Y):
    """Find the rows of the same x and the same targets.

    Parameters
    ----------
    keys : ndarray of shape (n,)
        Equal where x is, and sorted by content: of `array_keys` or `kernel_keys`.
    Y : ndarray of shape (n, n_decisions)
        Targets.

    Returns
    -------
    DistinctRows
    """
    _, of_x = np.unique(keys, return_inverse=True)
    values, of_y = np.unique(Y, axis=0, return_inverse=True)
    both = of_x.ravel() * len(values) + of_y.ravel()
    _, first, group = np.unique(both, return_index=True, return_inverse=True)
    position = np.argsort(np.argsort(first))
    first = np.sort(first)
    of_x = of_x.ravel()[first]
    contested = np.bincount(of_x)[of_x] > 1
    return DistinctRows(first, position[group.ravel()], position, contested)


def array_keys(X):
    """Keys of the samples of an array: the bytes of each row.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
        Numbers, or objects that can be pickled.

    Returns
    -------
    ndarray of shape (n,)
    """
    if X.dtype == object:
        return np.array([pickle.dumps(x, protocol=4).hex() for x in X])
    rows = np.ascontiguousarray(X.reshape(len(X), -1)) + X.dtype.type(0)  # -0.0 is 0.0
    return rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()


def kernel_keys(planes, rows):
    """Keys of samples that are known by their kernels alone: equal where all kernels are.

    Parameters
    ----------
    planes : ndarray of shape (L, n, n)
        Symmetric; no copy is made, whatever its layout.
    rows : ndarray of int, shape (m,)
        The samples, ascending; kernels with others do not count.

    Returns
    -------
    ndarray of int, shape (m,)
    """
    diagonal = planes.diagonal(axis1=1, axis2=2)[:, rows]
    largest = np.abs(diagonal).max(axis=1)
    tolerance = _ROUNDING * np.finfo(planes.dtype).eps * largest  # (L,)
    # Copies have equal random projections; what is near there is compared in full.
    direction, ones = np.zeros((2, planes.shape[1]))
    direction[rows] = np.random.RandomState(0).standard_normal(len(rows))
    ones[rows] = 1.0
    reach = tolerance * np.abs(direction).sum()
    units = np.divide(1, reach, out=np.zeros_like(reach), where=reach > 0)
    projected = units @ np.einsum("lij,j->li", planes, direction)[:, rows]
    ascending = np.argsort(projected, kind="stable")
    near = np.diff(projected[ascending]) <= len(planes)
    same_as = np.arange(len(rows))
    leaders = [ascending[0]]  # of rows that are near one after the other
    for i, is_near in zip(ascending[1:], near, strict=True):
        leaders = leaders if is_near else []
        kernels = planes[:, rows[i]]
        for leader in leaders:
            if _same(kernels, planes[:, rows[leader]], rows, tolerance):
                same_as[i] = leader
                break
        else:
            leaders.append(i)
    # Sums over all samples do not know their order; rounding must not decide between copies.
    sums = np.einsum("lij,j->li", planes, ones)[:, rows]
    content = np.column_stack([diagonal.T, sums.T])
    rank = np.empty(len(rows), dtype=int)
    rank[np.lexsort(content[same_as].T[::-1])] = np.arange(len(rows))
    return rank[same_as]


def _same(kernels, others, rows, tolerance):
    return (np.abs(kernels - others)[:, rows].max(axis=1) <= tolerance).all()
