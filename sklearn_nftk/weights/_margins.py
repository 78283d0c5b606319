"""``kernel_weights="margin"`` and ``"lp"``: multiple kernel learning to a certified gap."""

from numbers import Real

import numpy as np

from ..utils._sklearn import Interval
from ._base import LayerWeights, WeightMethod, uniform_weights
from ._lp import LpMarginProblem
from ._margin import MarginProblem


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


class LpMargin(Margin):
    """The same over an lp ball, between "margin" and uniform weights."""

    name = "lp"
    constraints = {"p": [Interval(Real, 1, None, closed="neither")]}  # noqa: RUF012

    def level_method(self, n_layers, options):
        """Outer problem on so many layers."""
        return LpMarginProblem(n_layers, options.p)
