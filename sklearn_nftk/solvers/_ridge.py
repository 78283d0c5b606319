"""Kernel ridge regression with unpenalised intercept, sample weights and exact leave-one-out.

The problem is ``min 1/2 ||f||^2 + C sum_i s_i (y_i - f(x_i) - b)^2``. Its conditions are

    (K + D) a + b 1 = y,   1' a = 0,   D = diag(1 / (2 C s_i)).

With ``q = sqrt(s)`` everything is solved in the scaled coordinates ``a = q o alpha``, where the
matrix is ``q K q + I / (2 C)``, well conditioned however small some weights are. With N its
inverse and ``B_ii`` the diagonal of the inverse of the bordered system,

    1 - h_i = D_i B_ii = (N_ii - (N q)_i^2 / (q' N q)) / (2 C),

and leaving sample i out changes its residual ``r_i = D_i a_i`` to ``r_i / (1 - h_i)`` (Allen
1974; Golub, Heath & Wahba 1979).
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.linalg.lapack import dpotrf, dpotrs, dtrtri

from ..utils._threads import lapack_threads

# The values that C="auto" chooses from, for rows of mean weight 1.
C_GRID = 10.0 ** np.linspace(-3, 5, 17)


class RidgeSolution(NamedTuple):
    """Dual coefficients (n, k), intercepts (k,) and leave-one-out decision values (n, k)."""

    dual_coef: np.ndarray
    intercept: np.ndarray
    loo_scores: np.ndarray


def ridge(K, Y, s, C):
    """Solve for several targets on one kernel: one Cholesky factorisation.

    Parameters
    ----------
    K : ndarray of shape (n, n)
        Combined kernel, float64. Overwritten.
    Y : ndarray of shape (n, k)
        Targets.
    s : ndarray of shape (n,)
        Positive sample weights of the loss.
    C : float

    Returns
    -------
    RidgeSolution
    """
    q = np.sqrt(s)
    factor, restored = factored(K, q, C)
    if factor is None:
        return next(_Spectrum(restored, Y, q).solve(Y, q, [C]))
    Nq, NY = solve_factored(factor, Y, q)
    with lapack_threads(len(q)):
        inverse, _ = dtrtri(factor, lower=1, overwrite_c=1)
    N_diagonal = np.array([inverse[i:, i] @ inverse[i:, i] for i in range(len(q))])
    return _solution(Nq, NY, N_diagonal, Y, q, C)


def ridge_coefficients(K, Y, s, C):
    """Dual coefficients and intercepts alone, for a third of the work of `ridge`.

    Parameters
    ----------
    K : ndarray of shape (n, n)
        Combined kernel, float64. Overwritten.
    Y : ndarray of shape (n, k)
        Targets.
    s : ndarray of shape (n,)
        Positive sample weights of the loss.
    C : float

    Returns
    -------
    dual_coef : ndarray of shape (n, k)
    intercept : ndarray of shape (k,)
    """
    q = np.sqrt(s)
    factor, restored = factored(K, q, C)
    if factor is None:
        spectrum = _Spectrum(restored, Y, q)
        return next(spectrum.solve(Y, q, [C]))[:2]
    Nq, NY = solve_factored(factor, Y, q)
    alpha, intercept = _bordered(Nq, NY, q)
    return q[:, None] * alpha, intercept


def ridge_path(K, Y, s, grid=C_GRID):
    """Solve for one C after the other, after one eigendecomposition.

    Parameters
    ----------
    K : ndarray of shape (n, n)
        Combined kernel, float64. Overwritten.
    Y, s
        As in `ridge`.
    grid : sequence of float
        Values of C.

    Yields
    ------
    RidgeSolution
    """
    q = np.sqrt(s)
    _scale(K, q)
    yield from _Spectrum(K, Y, q).solve(Y, q, grid)


def anchored_loo_scores(solution, Y, s, C):
    """Leave-one-out decision values around a mean that the left-out sample stays part of.

    Without a sample its class is a little rarer, so that leave-one-out decisions lean away from
    each sample's own class; the stronger the regularisation, the more they consist of nothing
    else. With ``p_i`` the share of sample i in the mean, the residual ``r_i / (1 - h_i)`` becomes
    ``r_i / (1 - h_i + p_i)``, which for C to 0 is the residual of the mean of all.

    Parameters
    ----------
    solution : RidgeSolution
    Y, s, C
        As in `ridge`, which it is a solution of.

    Returns
    -------
    ndarray of shape (n, k)
    """
    residuals = solution.dual_coef / (2 * C * s[:, None])
    left_out = Y - solution.loo_scores
    together = residuals + (s / s.sum())[:, None] * left_out
    anchored = np.divide(
        residuals * left_out, together, out=np.zeros_like(left_out), where=together != 0
    )
    return Y - anchored


def factored(K, q, C):
    """Cholesky factor of ``q K q + I / (2 C)`` in place; or None, and ``q K q``.

    The latter when rounding made K indefinite beyond ``1 / (2 C)``.
    """
    _scale(K, q)
    diagonal = K.diagonal().copy()
    K.flat[:: len(K) + 1] += 1 / (2 * C)
    # The transpose of a C-contiguous symmetric matrix is Fortran-contiguous: factored in place.
    with lapack_threads(len(q)):
        factor, info = dpotrf(K.T, lower=1, clean=0, overwrite_a=1)
    if info:  # dpotrf left the strict upper half intact
        return None, _restored(factor, diagonal)
    return factor, None


def solve_factored(factor, Y, q):
    """``N q`` and ``N (q o Y)``."""
    solutions, _ = dpotrs(factor, np.column_stack([q, q[:, None] * Y]), lower=1)
    return solutions[:, 0], solutions[:, 1:]


def _scale(K, q):
    """``q K q`` in place."""
    if (q != 1).any():
        K *= q[:, None]
        K *= q


def spectrum(K):
    """Eigenvalues and eigenvectors of a kernel, which is overwritten."""
    # The transpose is what LAPACK can overwrite: the same matrix without a copy.
    with lapack_threads(len(K)):
        values, vectors = eigh(K.T, overwrite_a=True, check_finite=False, driver="evd")
    return values.clip(0), vectors  # a kernel is positive semidefinite; below 0 is rounding


class _Spectrum:
    """Eigendecomposition of ``q K q``, from which every C is O(n^2)."""

    def __init__(self, scaled_K, Y, q):
        self.values, self.vectors = spectrum(scaled_K)
        self.projections = self.vectors.T @ np.column_stack([q, q[:, None] * Y])

    def solve(self, Y, q, grid):
        """Yield the solution of each C; the products for all of them are made together."""
        inverses = 1 / (self.values[:, None] + 1 / (2 * np.asarray(grid)))  # (n, g)
        weighted = inverses[:, :, None] * self.projections[:, None]  # (n, g, 1 + k)
        solutions = self.vectors @ weighted.reshape(len(q), -1)
        solutions = solutions.reshape(weighted.shape)
        N_diagonals = np.square(self.vectors) @ inverses
        for i, C in enumerate(grid):
            Nq, NY = solutions[:, i, 0], solutions[:, i, 1:]
            yield _solution(Nq, NY, N_diagonals[:, i], Y, q, C)


def _solution(Nq, NY, N_diagonal, Y, q, C):
    """Put together what both factorisations yield: ``N q``, ``N (q o Y)`` and ``diag(N)``."""
    alpha, intercept = _bordered(Nq, NY, q)
    residuals = alpha / (2 * C * q[:, None])
    kept = (N_diagonal - Nq**2 / (q @ Nq)) / (2 * C)  # 1 - h, without cancellation
    loo_residuals = residuals / kept[:, None]
    return RidgeSolution(q[:, None] * alpha, intercept, Y - loo_residuals)


def _bordered(Nq, NY, q):
    """Eliminate the border: scaled coefficients with ``q' alpha = 0``, and intercepts."""
    intercept = q @ NY / (q @ Nq)
    return NY - np.outer(Nq, intercept), intercept


def _restored(factor, diagonal):
    """The matrix that a failed in-place factorisation of its lower half started from."""
    K = np.triu(factor, 1)
    K += K.T
    K.flat[:: len(K) + 1] = diagonal
    return K
