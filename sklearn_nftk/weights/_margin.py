"""``kernel_weights="margin"``: l1-norm multiple kernel learning, to a certified gap."""

import numpy as np

from ._base import LayerWeights, WeightMethod, uniform_weights
from ._level import LevelMethod

# In units of the largest weight: what an interior-point method leaves of an inactive one.
_INACTIVE = 1e-7


class Margin(WeightMethod):
    """The smallest objective of the kernel machine over the simplex: sparse weights."""

    name = "margin"

    def weights(self, problem, statistics, mask):
        """Minimise over the weights of the active layers, at one C."""
        options = problem.options
        uniform = uniform_weights(problem, mask)
        # The weights and the machine are the solution of one problem, at one C.
        C = problem.choose_C(uniform)
        weights = uniform.copy()
        n_decisions = len(weights)
        groups = [[c] for c in range(n_decisions)] if options.per_class else [range(n_decisions)]
        compiled: dict = {}
        solutions = []
        for group in groups:
            used = mask[[problem.kernels[c] for c in group]].any(axis=0)
            if not used.any():
                continue
            size = int(used.sum())
            if size not in compiled:
                compiled[size] = self.level_method(size, options)
            oracle = problem.oracle(group, used, C, precision=options.tol / 10)
            solution = compiled[size].solve(oracle, options.tol, options.max_iter)
            weights[group] = 0.0
            weights[np.ix_(group, used)] = solution.weights
            solutions.append(solution)
        return LayerWeights(
            weights,
            basis=uniform,
            n_iter=max((solution.n_iter for solution in solutions), default=0) or 1,
            dual_gap=max((solution.dual_gap for solution in solutions), default=0.0),
        )

    def level_method(self, n_layers, options):
        """Outer problem on so many layers."""
        return MarginProblem(n_layers)


class MarginProblem(LevelMethod):
    """``min_w J(w)`` over the simplex (Lanckriet et al., JMLR 2004; Xu et al., NeurIPS 2008).

    Equivalent to ``min 1/2 (sum_l ||f_l||)^2 + C sum_i s_i loss_i``, hence sparse.

    Parameters
    ----------
    n_layers : int
    max_planes : int, default=100
    """

    def __init__(self, n_layers, max_planes=100):
        super().__init__(Simplex(), n_layers, max_planes)


class Simplex:
    """``w >= 0, sum(w) = 1``."""

    def constraints(self, w):
        """For cvxpy."""
        import cvxpy as cp

        return [w >= 0, cp.sum(w) == 1]

    def support(self, q):
        """``max_w w @ q``."""
        return q.max()

    def clean(self, w):
        """True zeros, and the sum 1."""
        w = active(w)
        return w / w.sum()


def active(w):
    """Weights with true zeros for the inactive ones."""
    w = np.asarray(w, dtype=float)
    return np.where(w > _INACTIVE * w.max(), w, 0.0)
