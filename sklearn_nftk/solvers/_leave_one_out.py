"""What leaving one row out of a kernel machine does to its decisions anywhere.

A machine with conditions ``(K + D) a + b 1 = z``, ``1' a = 0``, D diagonal, has the inverse

    [ B  g ]
    [ g' . ]   of the bordered matrix.

With ``h_i(x) = (k_x' B)_i + g_i``, what ``y_i`` is multiplied by in f(x), leaving row i out
changes f(x) by exactly ``-h_i(x) a_i / B_ii`` (Allen 1974; Cook & Weisberg 1982). With
``D = diag(1 / v)``, v the curvatures of a loss at its solution, it is one Newton step from there
(Rad & Maleki, JRSS B 2020). As in `_ridge`, everything is solved in the coordinates scaled by
``q = sqrt(v)``, in which ``B = q H q`` and ``g = q gamma``.
"""

import numpy as np
from scipy.linalg.lapack import dpotri

from ..utils._threads import lapack_threads
from ..utils._tiles import slices
from ._ridge import factored, solve_factored, spectrum

_ROWS = 512


class LeaveOneOut:
    """The changes of decisions of several targets that have kernel and curvatures in common.

    Parameters
    ----------
    K : ndarray of shape (n, n)
        Combined kernel, float64. Overwritten.
    curvatures : ndarray of shape (n,)
        Positive: ``2 C s`` for the squared loss.
    targets : ndarray of shape (n, k)
        What the machine is the ridge regression of: the targets of the squared loss, working
        responses of another.

    Attributes
    ----------
    H : ndarray of shape (n, n)
    q, gamma : ndarray of shape (n,)
    """

    def __init__(self, K, curvatures, targets):
        self.q = q = np.sqrt(curvatures)
        factor, restored = factored(K, q, 0.5)
        if factor is None:
            values, vectors = spectrum(restored)
            H = (vectors / (values + 1)) @ vectors.T
            Nq = H @ q
        else:
            Nq, _ = solve_factored(factor, np.empty((len(q), 0)), q)
            with lapack_threads(len(q)):
                H, _ = dpotri(factor, lower=1, overwrite_c=1)
            H = H.T  # contiguous, of which the upper half is set
        self.gamma = Nq / (q @ Nq)
        for rows in slices(len(H), _ROWS):
            H[rows, rows.start :] -= Nq[rows, None] * self.gamma[rows.start :]
            H[rows, : rows.start] = H[: rows.start, rows].T
            block = np.triu(H[rows, rows])
            H[rows, rows] = block + np.triu(block, 1).T
        self.H = H
        self._factors = H @ (q[:, None] * targets) / H.diagonal()[:, None]

    def smoothed(self, kernels):
        """``h_i(x) / q_i`` without its constant ``gamma_i``, for kernels (b, n) with the rows."""
        return (kernels * self.q) @ self.H

    def smoothed_at(self, kernels, rows):
        """The same for some rows of each sample alone.

        Parameters
        ----------
        kernels : ndarray of shape (L, b, n)
        rows : ndarray of int, shape (b, k)

        Returns
        -------
        ndarray of shape (L, b, k)
        """
        scaled = kernels * self.q
        values = np.empty((len(kernels), *rows.shape))
        for i, some in enumerate(rows):
            values[:, i] = scaled[:, i] @ self.H[some].T
        return values

    def factors(self, decision):
        """What `smoothed` (with its constant) is multiplied by for changes of a target, (n,)."""
        return self._factors[:, decision]
