"""The learner: from the layer kernels of a training set to weights, coefficients and decisions.

Everything here sees kernels alone; where they come from is the business of the estimators.
"""

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..grams import layer_scales
from ..learner import Problem
from ..utils._memory import require_memory, working_memory
from ..utils._sklearn import CallbackSupportMixin, visual_block
from ..utils._threads import one_blas_thread
from ..weights import (
    LevelMethod,
    LpMarginProblem,
    MarginProblem,
    fixed_weights,
    learned_weights,
)
from ._diagram import fitted_layers

# Shares of uniform weights that shrinkage="auto" compares.
_SHRINKAGES = (0.0, 0.5, 1.0)
# ... how many standard errors better a smaller share must be, and how many rows are asked: enough
# to see differences that matter, few enough to cost little beside the fit. So many for up to three
# decisions; more decisions are asked on fewer rows each, at the same cost.
_STANDARD_ERRORS = 2.0
_SHRINKAGE_ROWS = 350
# Test rows taken at once: enough for the matrix products to run at full speed, few enough for a
# block to stay small beside the kernels of all test rows.
_BLOCK_ROWS = 1024
# Attributes that not every fit sets: those of an earlier fit would be wrong.
_NOT_ALWAYS_SET = ("dual_gap_", "loo_scores_", "temperature_")


class BaseMultipleKernelMachine(CallbackSupportMixin, BaseEstimator):
    """Kernel machine on a convex combination of layer kernels .

    Subclasses provide the parameters ``normalize, kernel_weights, p, shrinkage, per_class, loss,
    C, tol, max_iter, n_jobs, verbose``, targets in {-1, 1} or real, and kernels: those of a
    training set by ``_training_grams(X, n_decisions)``, and those of test rows, which
    ``_test_set(X)`` validates, with the training set by ``_blocks(X)``.
    """

    # Where notebooks link to.
    _doc_link_module = "sklearn_nftk"
    _doc_link_template = (
        "https://sklearn-nftk.readthedocs.io/generated/{estimator_module}.{estimator_name}.html"
    )

    def _sk_visual_block_(self):
        return visual_block(self, fitted_layers(self))

    def _fit_grams(self, grams, layer_names, Y, s, sample_weight, progress):
        """Learn from the layer kernels of the training set.

        Parameters
        ----------
        grams : LayerGrams
        layer_names : list of str
        Y : ndarray of shape (n, n_decisions)
        s : ndarray of shape (n,)
            Positive weights of the loss.
        sample_weight : ndarray of shape (n,)
            The part of s that means repeated rows.
        progress : FitProgress
        """
        problem = Problem(grams, Y, s, sample_weight)
        with progress(1, "statistics") as task:
            statistics, alive = self._statistics(problem, layer_names)
            task.update()
        return self._learn(problem, statistics, alive, layer_names, progress)

    def _statistics(self, problem, layer_names):
        """Statistics of the normalised kernels, one for each family, and which layers are alive.

        Sets the scales of the kernels.
        """
        grams = problem.grams
        statistics = grams.statistics(problem.p, problem.Y)
        grams.scales, alive = layer_scales(statistics, self.normalize, grams.dtype, layer_names)
        scaled = [
            found.scaled(scales) for found, scales in zip(statistics, grams.scales, strict=True)
        ]
        return scaled, alive

    def _learn(self, problem, statistics, alive, layer_names, progress):
        """Weights of the layers that are alive, then the machine on their combination."""
        for name in _NOT_ALWAYS_SET:
            self.__dict__.pop(name, None)
        with progress(1, "kernel weights") as task:
            self.kernel_weights_, basis = self._learn_weights(problem, statistics, alive)
            task.update()
        with progress(1, "dual coefficients") as task:
            self.C_ = self._choose_C(problem, basis)
            self._solve(problem)
            self._calibrate(problem.Y, problem.sample_weight)
            task.update()
        self._describe(problem, statistics, layer_names)
        return self

    def _check_parameters(self, n_rows):
        """Refuse what has no meaning or no room, before any kernel is computed."""
        require_memory(2 * 8 * n_rows**2, f"Solving for a combined kernel of {n_rows} rows")
        weights = self.kernel_weights
        if isinstance(weights, str) and weights == "sum" and self.normalize == "cosine":
            raise ValueError(
                "kernel_weights='sum' weights layers by their scales, and normalize='cosine' has "
                "none; use another normalize or other kernel_weights."
            )

    # -- weights --------------------------------------------------------------------------------

    def _learn_weights(self, problem, statistics, alive):
        """Weights of each decision, shape (n_decisions, L), and those that C is chosen with."""
        self.n_iter_ = 1  # where the weights are given, or the solution of one problem
        # From one row for each family of kernels to one for each decision.
        scales, alive = problem.grams.scales[problem.families], alive[problem.families]
        method = self.kernel_weights
        uniform = fixed_weights("uniform", scales, alive)
        if isinstance(method, str) and method == "alignment":
            weights = learned_weights(statistics, alive, per_class=self.per_class)
            shrinkage = self.shrinkage
            if shrinkage == "auto":
                with one_blas_thread():
                    shrinkage = self._choose_shrinkage(weights, uniform, problem)
            weights = (1 - shrinkage) * weights + shrinkage * uniform
            return weights, weights
        if isinstance(method, str) and method in ("margin", "lp"):
            # The weights and the machine are the solution of one problem, at one C.
            return self._best_margin(problem, alive, self._choose_C(problem, uniform)), uniform
        weights = fixed_weights(method, scales, alive)
        return weights, weights

    def _best_margin(self, problem, alive, C):
        """Weights of l1- or lp-norm multiple kernel learning, to a certified gap."""
        n_decisions, n_layers = alive.shape
        groups = [[c] for c in range(n_decisions)] if self.per_class else [range(n_decisions)]
        weights = np.zeros((n_decisions, n_layers))
        compiled: dict[int, LevelMethod] = {}
        solutions = []
        for group in groups:
            used = alive[group].any(axis=0)
            if not used.any():
                weights[group] = 1 / n_layers
                continue
            size = int(used.sum())
            if size not in compiled:
                lp = self.kernel_weights == "lp"
                compiled[size] = LpMarginProblem(size, self.p) if lp else MarginProblem(size)
            oracle = problem.oracle(group, used, self.loss, C, precision=self.tol / 10)
            solution = compiled[size].solve(oracle, self.tol, self.max_iter)
            weights[np.ix_(group, used)] = solution.weights
            solutions.append(solution)
        self.dual_gap_ = max((found.dual_gap for found in solutions), default=0.0)
        self.n_iter_ = max((found.n_iter for found in solutions), default=0) or 1
        return weights

    def _choose_shrinkage(self, weights, uniform, problem):
        """Leave uniform weights only as far as the leave-one-out errors are evidence for it.

        The largest share of uniform weights whose mean squared leave-one-out residual is within
        two standard errors (of the paired differences) of the smallest one: the standard-error
        rule of Breiman et al. 1984. On small data the noise of the smallest error itself costs
        more accuracy than good weights gain.
        """
        if np.allclose(weights, uniform):
            return 1.0
        n_decisions = problem.Y.shape[1]
        problem = problem.sample(int(_SHRINKAGE_ROWS * min(1.0, (3 / n_decisions) ** 0.5)))

        def mixed(shrinkage):
            return (1 - shrinkage) * weights + shrinkage * uniform

        fixed = self.loss == "squared" and not isinstance(self.C, str)
        C = self.C if fixed else problem.choose_C(mixed(0.5))
        errors = []
        for shrinkage in _SHRINKAGES:
            loo_scores = problem.ridge(mixed(shrinkage), C).loo_scores
            errors.append(np.sum((problem.Y - loo_scores) ** 2, axis=1))
        p = problem.p
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

    def _choose_C(self, problem, weights):
        """``C="auto"`` is chosen by leave-one-out for the squared loss, and 1 for the hinge."""
        if not isinstance(self.C, str):
            return float(self.C)
        return problem.choose_C(weights) if self.loss == "squared" else 1.0

    def _solve(self, problem):
        if self.loss == "squared":
            solution = problem.ridge(self.kernel_weights_, self.C_)
            self.dual_coef_ = solution.dual_coef.T
            self.intercept_ = solution.intercept
            self.loo_scores_ = solution.loo_scores
        else:
            self.dual_coef_, self.intercept_ = problem.hinge(
                self.kernel_weights_, self.C_, self.n_jobs
            )

    def _calibrate(self, Y, sample_weight):
        """Do what decisions need besides: nothing, but for probabilities."""

    def _describe(self, problem, statistics, layer_names):
        """What inspection needs without the data."""
        self.layer_names_ = list(layer_names)
        scales, apart = problem.grams.scales, problem.grams.apart
        alignment = np.array([found.layer_alignment for found in statistics])
        self.layer_scales_ = scales if apart else scales[0]
        self.layer_alignment_ = alignment if apart else alignment[0]
        self.target_alignment_ = np.concatenate([found.target_alignment for found in statistics])
        row_means = np.array([found.row_means for found in statistics])[problem.families]
        mean_sums = np.einsum("cn,cln->cl", self.dual_coef_, row_means)
        self.mean_contributions_ = self.kernel_weights_ * mean_sums

    # -- decisions ------------------------------------------------------------------------------

    def _contributions(self, X):
        """Contribution of each layer to each decision, shape (n, n_decisions, L).

        Test rows are taken in blocks, so memory beyond the result does not depend on their number.
        """
        check_is_fitted(self)
        X = self._test_set(X)
        contributions = np.empty((len(X), *self.kernel_weights_.shape))
        for rows, block in self._blocks(X):
            contributions[rows] = self._block_contributions(block)
        return contributions

    def _block_contributions(self, block):
        """``phi_cl(x) = w_cl sum_i a_ci K_l(x, x_i)``, shape (b, C, L).

        `block` has shape (L, b, n_fit), or (C, L, b, n_fit) where each decision has its kernels.
        """
        coefficients = self.kernel_weights_ / self.layer_scales_
        if block.ndim == 4:
            sums = np.array([planes @ a for planes, a in zip(block, self.dual_coef_, strict=True)])
            return np.einsum("clb,cl->bcl", sums, coefficients)
        sums = block @ self.dual_coef_.T  # (L, b, C)
        return np.einsum("lbc,cl->bcl", sums, coefficients)

    def _rows_per_block(self, itemsize):
        """Test rows whose kernels with the training set fit the working memory."""
        # A float32 block is copied to float64 for the product with the dual coefficients.
        per_row = self.layer_scales_.size * self.dual_coef_.shape[1] * (itemsize + 8)
        return max(1, min(_BLOCK_ROWS, working_memory() // per_row))
