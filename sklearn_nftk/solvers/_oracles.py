"""The kernel machines of multiple kernel learning: from kernel weights to cutting planes.

Each maximises ``linear(a) - 1/2 sum_l w_l a' K_l a`` over a at given weights w, for all decisions
that share them. Kernels are seen through ``combined(weights)``, ``sum_l w_l K_l`` of shape (n, n),
which may be overwritten, and ``quadratics(A)``, ``a_j' K_l a_j`` of shape (L, k).
"""

import numpy as np

from ..utils._sklearn import libsvm
from ..weights import CuttingPlane
from ._hinge import _CACHE_MB
from ._ridge import ridge_coefficients

# libsvm's tolerance is tightened from the first to the last value as the duality gap demands.
_FIRST_TOL = 1e-3
_LAST_TOL = 1e-9
# Steps of libsvm, which may need time proportional to C where the classes overlap.
_MAX_STEPS = 10**6


class RidgeOracle:
    """``max_a y'a - 1/2 a'K_w a - sum_i a_i^2 / (4 C s_i)`` with ``1'a = 0``.

    One Cholesky factorisation serves all targets, whose objectives are summed.

    Parameters
    ----------
    kernels : object
        With ``combined`` and ``quadratics``.
    Y : ndarray of shape (n, k)
        Targets.
    s : ndarray of shape (n,)
        Positive sample weights of the loss.
    C : float
    """

    def __init__(self, kernels, Y, s, C):
        self.kernels = kernels
        self.Y = Y
        self.s = s
        self.C = C

    def __call__(self, weights):
        a, _ = ridge_coefficients(self.kernels.combined(weights), self.Y, self.s, self.C)
        quadratics = self.kernels.quadratics(a).sum(axis=1)
        # C sum_i s_i r_i^2 with the residuals r_i = a_i / (2 C s_i)
        loss = np.sum(a**2 / self.s[:, None]) / (4 * self.C)
        linear = np.sum(self.Y * a) - loss
        norm = weights @ quadratics / 2
        # The two objectives are equal but for rounding.
        return CuttingPlane(linear, quadratics, max(norm + loss, linear - norm))


class HingeOracle:
    """``max_alpha 1'alpha - 1/2 (alpha o y)'K_w (alpha o y)`` in ``[0, C s]``, ``y'alpha = 0``.

    By libsvm, one target after the other; the objectives are summed.

    Parameters
    ----------
    kernels : object
        With ``combined`` and ``quadratics``.
    Y : ndarray of shape (n, k)
        Targets -1 and 1.
    s : ndarray of shape (n,)
        Positive sample weights of the loss.
    C : float
    precision : float, default=1e-4
        Relative duality gap of this inner problem; a tenth of the tolerance of the outer one
        leaves the latter room.
    """

    def __init__(self, kernels, Y, s, C, precision=1e-4):
        self.kernels = kernels
        self.Y = Y
        self.s = s
        self.C = C
        self.precision = precision
        self._tols = np.full(Y.shape[1], _FIRST_TOL)

    def __call__(self, weights):
        K = self.kernels.combined(weights)
        solutions = [self._solve(K, c) for c in range(self.Y.shape[1])]
        a = np.column_stack([coefficients for coefficients, _ in solutions])
        quadratics = self.kernels.quadratics(a).sum(axis=1)
        return CuttingPlane(np.abs(a).sum(), quadratics, sum(upper for _, upper in solutions))

    def _solve(self, K, c):
        """``alpha o y`` and the primal objective."""
        y = self.Y[:, c]
        while True:
            a, _, n_iter = libsvm(
                K, y, self.C, self.s, tol=self._tols[c], cache_size=_CACHE_MB, max_iter=_MAX_STEPS
            )
            support = np.flatnonzero(a)
            f = K[:, support] @ a[support]
            norm = a @ f / 2
            upper = hinge_objective(f, norm, y, self.s, self.C)
            gap = (upper - np.abs(a).sum() + norm) / upper
            if gap <= self.precision or self._tols[c] <= _LAST_TOL or n_iter >= _MAX_STEPS:
                return a, upper
            self._tols[c] *= np.clip(self.precision / gap, 1e-3, 0.1)


def hinge_objective(f, norm, y, s, C):
    """``1/2 ||f||^2 + C sum_i s_i hinge_i``, the smaller of two points near f.

    Parameters
    ----------
    f : ndarray of shape (n,)
        Decision values without intercept.
    norm : float
        ``1/2 ||f||^2``.
    y, s : ndarray of shape (n,)
    C : float

    Returns
    -------
    float
        Of f with its best intercept, or of the multiple of f that separates the classes with
        margin 1, if any does: when C is large, violations of the margin by libsvm's tolerance
        cost more than all the rest.
    """
    # The loss is piecewise linear in the intercept; its slope turns positive at a weighted
    # quantile of the intercepts that put single samples on the margin.
    intercepts = y - f
    order = np.argsort(intercepts)
    turn = np.searchsorted(np.cumsum(s[order]), s[y > 0].sum())
    intercept = intercepts[order[min(turn, len(y) - 1)]]
    soft = norm + C * (s @ np.maximum(0.0, 1 - y * (f + intercept)))
    margin = (f[y > 0].min() - f[y < 0].max()) / 2
    return min(soft, norm / margin**2) if margin > 0 else soft
