"""``kernel_weights="lp"``: lp-norm multiple kernel learning, between "margin" and uniform."""

from numbers import Real
from typing import ClassVar

import numpy as np

from ..utils._sklearn import Interval
from ._level import LevelMethod
from ._margin import Margin, active


class LpMargin(Margin):
    """The same over an lp ball, between "margin" and uniform weights."""

    name = "lp"
    constraints: ClassVar[dict] = {"p": [Interval(Real, 1, None, closed="neither")]}

    def level_method(self, n_layers, options):
        """Outer problem on so many layers."""
        return LpMarginProblem(n_layers, options.p)


class LpMarginProblem(LevelMethod):
    """``min_w J(w)`` over ``w >= 0, ||w||_p <= L^(1/p - 1)`` (Kloft et al., JMLR 2011).

    Equivalent to ``min 1/2 L^(1 - 1/p) ||(||f_l||)_l||_q^2 + C sum_i s_i loss_i`` with
    ``q = 2 p / (p + 1)``. The radius makes uniform weights 1/L feasible and tight, so that C means
    the same for every p: p -> 1 gives "margin" and p -> inf uniform weights. At the solution
    ``w_l`` is proportional to ``||f_l||^(2 / (p + 1))``, positive wherever ``f_l`` is not zero.
    Iterating that formula (as Kloft et al. do) is slow for p near 1 and small C; the level method
    is not.

    `solve` returns weights on the simplex. The gap is of the problem as it stands above, in which
    they sum to at most 1: on the simplex they are those of a kernel larger by a constant.

    Parameters
    ----------
    n_layers : int
    p : float
        Larger than 1.
    max_planes : int, default=100
    """

    def __init__(self, n_layers, p, max_planes=100):
        super().__init__(LpBall(n_layers, p), n_layers, max_planes)


class LpBall:
    """``w >= 0, ||w||_p <= L^(1/p - 1)``.

    Parameters
    ----------
    n_layers : int
    p : float
    """

    def __init__(self, n_layers, p):
        self.p = p
        self.radius = n_layers ** (1 / p - 1)

    def constraints(self, w):
        """For cvxpy."""
        import cvxpy as cp

        if w.size == 1:  # a power cone of one row is more than older versions take
            return [w >= 0, w <= self.radius]
        # w_l <= t_l^(1/p) radius^(1 - 1/p), sum(t) = radius: `pnorm` would round p to a fraction,
        # and warn of it.
        t = cp.Variable(w.shape)
        radius = np.full(w.shape, self.radius)
        return [w >= 0, cp.sum(t) == self.radius, cp.PowCone3D(t, radius, w, 1 / self.p)]

    def support(self, q):
        """``max_w w @ q``, for non-negative q."""
        return self.radius * _norm(q, self.p / (self.p - 1))

    def clean(self, w):
        """True zeros, and on the sphere: larger weights are never worse."""
        w = active(w)
        return w * (self.radius / _norm(w, self.p))


def _norm(x, p):
    """p-norm of a non-negative vector, also where powers of its entries overflow or vanish."""
    largest = x.max()
    return largest * np.linalg.norm(x / largest, p) if largest > 0 else 0.0
