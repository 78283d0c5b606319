"""The learner: from a stack of layer kernels to weights, dual coefficients and decisions.

Everything here sees kernels alone; where they come from is the business of the estimators.
"""

from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator

from .solvers import choose_C, hinge, ridge
from .utils._memory import require_memory, working_memory
from .weights import (
    cosine_normalise,
    fixed_weights,
    layer_scales,
    learned_weights,
    stack_statistics,
)

# Shares of uniform weights that shrinkage="auto" compares.
_SHRINKAGES = (0.0, 0.5, 1.0)
# ... and how many standard errors better a smaller share must be.
_STANDARD_ERRORS = 2.0


class BaseMultipleKernelMachine(BaseEstimator):
    """Kernel machine on a convex combination of layer kernels (DESIGN 1).

    Subclasses provide the parameters ``normalize, kernel_weights, shrinkage, per_class, loss, C,
    n_jobs``, targets in {-1, 1} or real, and blocks of kernels.
    """

    def _fit_stack(self, stack, layer_names, Y, s, sample_weight):
        """Learn from the layer kernels of the training set.

        Parameters
        ----------
        stack : ndarray of shape (L, n, n)
            Overwritten when ``normalize="cosine"``.
        layer_names : list of str
        Y : ndarray of shape (n, n_decisions)
        s : ndarray of shape (n,)
            Positive weights of the loss.
        sample_weight : ndarray of shape (n,)
            The part of s that means repeated rows.
        """
        n = stack.shape[1]
        require_memory(2 * 8 * n * n, f"Solving for a combined kernel of {n} rows")
        if self.normalize == "cosine":
            diagonal = np.ascontiguousarray(stack.diagonal(axis1=1, axis2=2))
            cosine_normalise(stack, diagonal, diagonal)
        p = s / s.sum()
        statistics = stack_statistics(stack, p, Y)
        self.layer_scales_, alive = layer_scales(
            statistics, self.normalize, stack.dtype, layer_names
        )
        statistics = statistics.scaled(self.layer_scales_)
        # Leaving a sample out takes away one of its repetitions.
        problem = _Problem(
            stack, self.layer_scales_, Y, s, sample_weight, np.minimum(1.0, 1.0 / sample_weight)
        )
        self.kernel_weights_ = self._learn_weights(statistics, alive, problem)
        self._solve(problem)
        self.layer_names_ = list(layer_names)
        self.layer_alignment_ = statistics.layer_alignment
        self.target_alignment_ = statistics.target_alignment
        mean_sums = self.dual_coef_ @ statistics.row_means.T
        self.mean_contributions_ = self.kernel_weights_ * mean_sums
        self.n_iter_ = 1  # the weights are the solution of one convex problem
        return self

    def _check_parameters(self):
        """Refuse combinations without a meaning, before any kernel is computed."""
        weights = self.kernel_weights
        if isinstance(weights, str) and weights == "sum" and self.normalize == "cosine":
            raise ValueError(
                "kernel_weights='sum' weights layers by their scales, and normalize='cosine' has "
                "none; use another normalize or other kernel_weights."
            )

    # -- weights --------------------------------------------------------------------------------

    def _learn_weights(self, statistics, alive, problem):
        n_decisions = problem.Y.shape[1]
        method = self.kernel_weights
        if not (isinstance(method, str) and method == "alignment"):
            return fixed_weights(method, self.layer_scales_, alive, n_decisions)
        weights = learned_weights(statistics, alive, per_class=self.per_class)
        uniform = fixed_weights("uniform", self.layer_scales_, alive, n_decisions)
        shrinkage = self.shrinkage
        if shrinkage == "auto":
            shrinkage = self._choose_shrinkage(weights, uniform, problem)
        return (1 - shrinkage) * weights + shrinkage * uniform

    def _choose_shrinkage(self, weights, uniform, problem):
        """Leave uniform weights only as far as the leave-one-out errors are evidence for it.

        The largest share of uniform weights whose mean squared leave-one-out residual is within
        two standard errors (of the paired differences) of the smallest one: the standard-error
        rule of Breiman et al. 1984. On small data the noise of the smallest error itself costs
        more accuracy than good weights gain.
        """
        if np.allclose(weights, uniform):
            return 1.0

        def mixed(shrinkage):
            return (1 - shrinkage) * weights + shrinkage * uniform

        fixed = self.loss == "squared" and not isinstance(self.C, str)
        C = self.C if fixed else problem.choose_C(mixed(0.5))
        errors = []
        for shrinkage in _SHRINKAGES:
            loo_scores = problem.ridge(mixed(shrinkage), C).loo_scores
            errors.append(np.sum((problem.Y - loo_scores) ** 2, axis=1))
        p = problem.s / problem.s.sum()
        best = min(errors, key=lambda error: p @ error)
        within = []
        for shrinkage, error in zip(_SHRINKAGES, errors, strict=True):
            excess = error - best
            mean = p @ excess
            variance = p @ (excess - mean) ** 2 / problem.sample_weight.sum()
            if mean <= _STANDARD_ERRORS * np.sqrt(variance):
                within.append(shrinkage)
        return max(within)

    # -- dual coefficients ----------------------------------------------------------------------

    def _solve(self, problem):
        if self.loss == "squared":
            auto = isinstance(self.C, str)
            self.C_ = problem.choose_C(self.kernel_weights_) if auto else float(self.C)
            solution = problem.ridge(self.kernel_weights_, self.C_)
            self.dual_coef_ = solution.dual_coef.T
            self.intercept_ = solution.intercept
            self.loo_scores_ = solution.loo_scores
        else:
            self.C_ = 1.0 if isinstance(self.C, str) else float(self.C)
            self.dual_coef_, self.intercept_ = problem.hinge(
                self.kernel_weights_, self.C_, self.n_jobs
            )

    # -- decisions ------------------------------------------------------------------------------

    def _block_contributions(self, block):
        """``phi_cl(x) = w_cl sum_i a_ci K_l(x, x_i)`` for a block (L, b, n_fit): (b, C, L)."""
        coefficients = self.kernel_weights_ / self.layer_scales_
        sums = block @ self.dual_coef_.T  # (L, b, C)
        return np.einsum("lbc,cl->bcl", sums, coefficients)

    def _rows_per_block(self, itemsize):
        """Test rows whose kernels with the training set fit the working memory."""
        n_layers, n_fit = len(self.layer_scales_), self.dual_coef_.shape[1]
        # A float32 block is copied to float64 for the product with the dual coefficients.
        return max(1, working_memory() // (n_layers * n_fit * (itemsize + 8)))


class _Problem:
    """The kernels and targets of one fit, and what can be solved for any weights on them.

    One combined kernel per decision at work exists at a time. What was solved is remembered: what
    chose the shrinkage is often what the fit ends with.
    """

    def __init__(self, stack, scales, Y, s, sample_weight, rho):
        self.stack = stack
        self.scales = scales
        self.Y = Y
        self.s = s
        self.sample_weight = sample_weight
        self.rho = rho
        self._chosen: dict[bytes, float] = {}
        self._solved: dict[tuple[bytes, float], Any] = {}

    def combined(self, weights):
        """``sum_l w_l K_l`` in float64, shape (n, n)."""
        coefficients = weights / self.scales
        used = np.flatnonzero(coefficients)
        n = self.stack.shape[1]
        K = np.empty((n, n))
        step = max(1, 2**22 // n)
        for start in range(0, n, step):
            rows = slice(start, start + step)
            np.multiply(self.stack[used[0], rows], coefficients[used[0]], out=K[rows])
            for layer in used[1:]:
                K[rows] += coefficients[layer] * self.stack[layer, rows]
        return K

    def choose_C(self, weights):
        """Leave-one-out choice of C on the decision-averaged weights: one eigendecomposition."""
        key = weights.tobytes()
        if key not in self._chosen:
            K = self.combined(weights.mean(axis=0))
            self._chosen[key] = choose_C(K, self.Y, self.s, self.rho)
        return self._chosen[key]

    def ridge(self, weights, C):
        """Solve every decision; those with equal weights share a factorisation."""
        key = weights.tobytes(), C
        if key not in self._solved:
            self._solved[key] = self._ridge(weights, C)
        return self._solved[key]

    def _ridge(self, weights, C):
        rows, group = np.unique(weights, axis=0, return_inverse=True)
        group = group.ravel()
        solutions = [
            ridge(self.combined(row), self.Y[:, group == k], self.s, self.rho, C)
            for k, row in enumerate(rows)
        ]
        order = np.argsort(np.argsort(group, kind="stable"))
        joined = [
            np.concatenate(parts, axis=-1)[..., order] for parts in zip(*solutions, strict=True)
        ]
        return type(solutions[0])(*joined)

    def hinge(self, weights, C, n_jobs):
        """Solve every decision by libsvm, `n_jobs` at a time."""

        def solve(row, y):
            return hinge(self.combined(row), y, self.s, C)

        solutions = Parallel(n_jobs=n_jobs, prefer="threads")(
            delayed(solve)(row, y) for row, y in zip(weights, self.Y.T, strict=True)
        )
        dual_coef, intercept = zip(*solutions, strict=True)
        return np.array(dual_coef), np.array(intercept)
