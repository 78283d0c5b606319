"""The level method: minimise a convex function of the weights, known by its cutting planes.

The outer problem of multiple kernel learning is ``min_w J(w)`` over a small convex set, with

    J(w) = max_a  linear(a) - 1/2 sum_l w_l q_l(a),    q_l(a) = a' K_l a,

so that any feasible a bounds J from below by a cutting plane, which touches J at w when a is the
kernel machine's own solution there. The level method (Lemarechal, Nemirovskii & Nesterov, Math.
Programming 1995; for kernels Xu et al., NeurIPS 2008) takes a lower bound from a linear programme
on all planes, and its next weights are the nearest ones where every plane is below a level between
the bounds; plain cutting planes (Sonnenburg et al., JMLR 2006) jump from corner to corner instead.
Both programmes have about as many variables as there are kernels, however many samples there are.
"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ._solve import one_at_a_time, solve

# Where the level lies between the lower bound (0) and the upper bound (1).
_LEVEL = 0.5
# Iterations without progress after which the kernel machine is as exact as it gets.
_PATIENCE = 15
_PROGRESS = 0.99
_TINY = np.finfo(float).tiny


class CuttingPlane(NamedTuple):
    """Bounds on J, at w and at all other weights, from a kernel machine solved at weights w.

    Attributes
    ----------
    linear : float
        ``linear(a)`` of any feasible a: ``J(w') >= linear - 1/2 quadratics @ w'`` for all w'.
    quadratics : ndarray of shape (L,)
        ``a' K_l a``, non-negative, summed over the decisions that share their weights.
    upper : float
        The primal objective at w: ``J(w) <= upper``, however well the machine was solved.
    """

    linear: float
    quadratics: np.ndarray
    upper: float


class MarginSolution(NamedTuple):
    """Kernel weights, and how far they can be from the best ones.

    Attributes
    ----------
    weights : ndarray of shape (L,)
        Non-negative, summing to 1.
    dual_gap : float
        ``(upper - lower) / upper``, of the primal objective of these weights, the best of all,
        and the best lower bound. Both are certified, so that the relative distance of the
        objective to the optimum is not larger.
    n_iter : int
        How often the kernel machine was solved; 0 for a single kernel.
    """

    weights: np.ndarray
    dual_gap: float
    n_iter: int


class LevelMethod:
    """The level method on a convex set of weights.

    Its two programmes are compiled once and serve every decision, one after the other: an
    instance must not be shared between threads.

    Parameters
    ----------
    weight_set : object
        Has ``constraints(w)``, for cvxpy; ``support(q)``, which is ``max_w w @ q`` over the set;
        and ``clean(w)``, the member of the set that is meant by what a solver returned.
    n_layers : int
    max_planes : int
        Number of cutting planes that are kept; beyond it those that bind least are dropped.
    """

    @one_at_a_time
    def __init__(self, weight_set, n_layers, max_planes):
        import cvxpy as cp

        self.weight_set = weight_set
        self.n_layers = n_layers
        self.max_planes = max_planes
        # Each row is a cutting plane, divided by its size: offset - slopes @ w <= t / size.
        self._w = cp.Variable(n_layers)
        self._offsets = cp.Parameter(max_planes)
        self._slopes = cp.Parameter((max_planes, n_layers))
        self._inverse_sizes = cp.Parameter(max_planes)
        self._centre = cp.Parameter(n_layers)
        t = cp.Variable()
        rows = self._offsets - self._slopes @ self._w
        in_set = weight_set.constraints(self._w)
        self._below_t = rows <= self._inverse_sizes * t
        self._master = cp.Problem(cp.Minimize(t), [self._below_t, *in_set])
        distance = cp.sum_squares(self._w - self._centre)
        self._projection = cp.Problem(cp.Minimize(distance), [rows <= 0, *in_set])

    def solve(self, oracle, tol, max_iter, start=None):
        """Minimise J to a relative gap of `tol`.

        Parameters
        ----------
        oracle : callable
            From weights of shape (L,) to a `CuttingPlane`.
        tol : float
        max_iter : int
            Largest number of calls of the oracle; the first one is made in any case.
        start : ndarray of shape (L,), optional
            Weights to begin with; uniform by default.

        Returns
        -------
        MarginSolution

        Warns
        -----
        ConvergenceWarning
            With the gap reached, if that is larger than `tol` after `max_iter` iterations, or
            when the oracle is not exact enough to get any further.
        """
        if self.n_layers == 1:
            return MarginSolution(np.ones(1), 0.0, 0)
        w = self.weight_set.clean(np.ones(self.n_layers) if start is None else start)
        best, upper, lower = w, np.inf, 0.0  # a = 0 is feasible: J >= 0
        corner = w  # where the highest plane is lowest
        planes = _CuttingPlanes(self.n_layers, self.max_planes)
        gaps: list[float] = []
        while True:
            plane = oracle(w)
            planes.add(plane)
            if plane.upper < upper:
                best, upper = w, plane.upper
                scale = max(upper, _TINY)  # 0 where there is nothing to fit
            corner = self._minimise(planes, scale, otherwise=corner)
            lower = max(lower, planes.certified_bound(self.weight_set.support))
            gaps.append(float(max(upper - lower, 0.0) / scale))
            if gaps[-1] <= tol or len(gaps) >= max_iter or _has_stalled(gaps):
                break
            level = lower + _LEVEL * (upper - lower)
            w = self._project(w, planes, level, scale, otherwise=(best + corner) / 2)
        if gaps[-1] > tol:
            warnings.warn(
                f"kernel weights: the relative duality gap is {gaps[-1]:.1e} after {len(gaps)} "
                f"iterations, not {tol:.1e}; increase max_iter or tol, or decrease C.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return MarginSolution(best / best.sum(), gaps[-1], len(gaps))

    def _minimise(self, planes, scale, otherwise):
        """Minimise the highest plane; the planes learn their multipliers."""
        offsets, slopes = planes.offsets / scale, planes.slopes / scale
        # Steep planes would decide what the solver takes for zero.
        sizes = np.abs(offsets[:, None] - slopes).max(axis=1).clip(1.0)
        self._set_rows(offsets / sizes, slopes / sizes[:, None], padding=0.0)  # J >= 0
        self._inverse_sizes.value = _padded(1 / sizes, self.max_planes, 1.0)
        if not solve(self._master):
            return otherwise
        planes.multipliers = self._below_t.dual_value[: len(sizes)] / sizes
        return self.weight_set.clean(self._w.value)

    def _project(self, w, planes, level, scale, otherwise):
        """The point of the set nearest to w where no plane is above the level."""
        offsets, slopes = (planes.offsets - level) / scale, planes.slopes / scale
        sizes = np.abs(offsets[:, None] - slopes).max(axis=1).clip(_TINY)
        self._set_rows(offsets / sizes, slopes / sizes[:, None], padding=-1.0)
        self._centre.value = w
        nearest = self._w.value if solve(self._projection) else otherwise
        return self.weight_set.clean(nearest)

    def _set_rows(self, offsets, slopes, padding):
        self._offsets.value = _padded(offsets, self.max_planes, padding)
        self._slopes.value = _padded(slopes, self.max_planes, 0.0)


class _CuttingPlanes:
    """The planes ``offset - slopes @ w`` below J that are kept."""

    def __init__(self, n_layers, max_planes):
        self.max_planes = max_planes
        self.offsets = np.empty(0)
        self.slopes = np.empty((0, n_layers))
        self.multipliers = np.empty(0)

    def add(self, plane):
        if len(self.offsets) == self.max_planes:
            kept = np.arange(self.max_planes) != self.multipliers.argmin()
            self.offsets, self.slopes = self.offsets[kept], self.slopes[kept]
            self.multipliers = self.multipliers[kept]
        self.offsets = np.append(self.offsets, plane.linear)
        # Rounding may leave a quadratic form below 0; raising it only lowers the plane.
        self.slopes = np.vstack([self.slopes, np.maximum(plane.quadratics, 0.0) / 2])
        self.multipliers = np.append(self.multipliers, 0.0)

    def certified_bound(self, support):
        """Minimum over the set of a mean of the planes: below J whatever the multipliers are."""
        multipliers = self.multipliers.clip(0.0)
        if not multipliers.any():
            return 0.0
        multipliers = multipliers / multipliers.sum()
        return multipliers @ self.offsets - support(multipliers @ self.slopes)


def _padded(rows, n_rows, value):
    unused = np.full((n_rows - len(rows), *rows.shape[1:]), value)
    return np.concatenate([rows, unused])


def _has_stalled(gaps):
    return len(gaps) > _PATIENCE and gaps[-1] > _PROGRESS * gaps[-1 - _PATIENCE]
