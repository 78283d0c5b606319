"""The kernels and targets of one fit, and what can be solved on them for any weights."""

import copy
import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import LinAlgWarning

from ..grams import Grams
from ..solvers import (
    C_GRID,
    HingeOracle,
    RidgeOracle,
    anchored_loo_scores,
    hinge,
    ridge,
    ridge_path,
)
from ..utils._memory import available_memory
from ..utils._threads import computed, n_workers
from ..weights import CuttingPlane
from ._options import LearnerOptions

# Rows of each class that a sample of the rows holds at least.
_LEAST_OF_A_CLASS = 10


class HeldOut(NamedTuple):
    """Decisions (n, n_decisions) on rows that were not learned from.

    Attributes
    ----------
    scores : ndarray
    anchored : ndarray
        The same without what leaving out a row does to the mean of the targets, see
        `anchored_loo_scores`.
    """

    scores: np.ndarray
    anchored: np.ndarray


class Problem:
    """Kernel machines on combinations of the same layer kernels.

    What was solved is remembered: what chose the shrinkage is often what the fit ends with.

    Parameters
    ----------
    grams : Grams
        Of n distinct rows.
    Y : ndarray of shape (n, n_decisions)
        Targets: -1 and 1, or real.
    s : ndarray of shape (n,)
        Positive weights of the loss.
    options : LearnerOptions
    sample_weight : ndarray of shape (n,), default=None
        The part of s that is not due to weights of classes, for probabilities; None is s.
    strata : ndarray of int, shape (n,), default=None
        The class of each row, where there are classes.
    contested : ndarray of bool, shape (n,), default=None
        Rows whose x has other targets too, which leave-one-out leaves behind; None is none.
    order : ndarray of int, shape (n,), default=None
        The rows in an order that does not depend on theirs; None is theirs.
    seed : int
        Of the sample of the rows.
    largest_C : float
        Beyond which float64 cannot solve for the squared loss.
    """

    folds: Any = None  # of rows, where kernels know some of the targets

    def __init__(
        self,
        grams,
        Y,
        s,
        options=None,
        *,
        sample_weight=None,
        strata=None,
        contested=None,
        order=None,
        seed=0,
        largest_C=np.inf,
    ):
        self.grams: Grams = grams
        self.Y = Y
        self.s = s
        self.options: LearnerOptions = LearnerOptions() if options is None else options
        self.sample_weight = s if sample_weight is None else sample_weight
        self.strata = strata
        self.contested = np.zeros(len(Y), dtype=bool) if contested is None else contested
        self.order = np.arange(len(Y)) if order is None else order
        self.seed = seed
        self.largest_C = largest_C
        self.kernels = [grams.kernel_of(c) for c in range(Y.shape[1])]
        self._forget()

    def _forget(self):
        self._paths: dict[bytes, tuple[float, dict[float, np.ndarray]]] = {}
        self._solved: dict[tuple, Any] = {}

    def _with(self, **changes):
        """Another problem, of which nothing is solved yet."""
        other = copy.copy(self)
        vars(other).update(changes)
        other._forget()
        return other

    @property
    def p(self):
        """Sample probabilities."""
        return self.s / self.s.sum()

    def statistics(self):
        """Statistics of the kernels, a list of H `KernelStatistics`."""
        return self.grams.statistics(self.p, self.Y)

    # -- other problems on the same kernels ------------------------------------------------------

    def on(self, grams, statistics):
        """State the same problem on scaled kernels, which are known by their statistics.

        Beyond ``1 / (2 eps tr)``, tr the largest trace of the kernels weighted with s, the ridge
        ``1 / (2 C)`` is less than what rounding does to the largest eigenvalue.
        """
        trace = self.s.sum() * max(of_kernel.mean_diagonal.max() for of_kernel in statistics)
        largest_C = 0.5 / max(np.finfo(float).eps * trace, np.finfo(float).tiny)
        return self._with(grams=grams, largest_C=largest_C)

    def resampled(self, counts):
        """State the same problem with row i counted ``counts[i]`` times, shape (n,)."""
        return self._on_rows(np.flatnonzero(counts), counts)

    def sample(self, n_rows):
        """State the same problem on at most so many rows, drawn without regard to their order.

        Classes that would have fewer than ten rows get these (or all they have), at the expense
        of their weight.

        Returns
        -------
        Problem or None
            None if so few rows cannot hold ten of each class.
        """
        n = len(self.Y)
        if n <= n_rows:
            return self
        classes = np.zeros(n, dtype=int) if self.strata is None else self.strata
        sizes = np.bincount(classes)
        least = np.minimum(sizes, _LEAST_OF_A_CLASS)
        if least.sum() > n_rows:
            return None
        rest = sizes - least
        taken = least + (n_rows - least.sum()) * rest // max(1, rest.sum())
        drawn = np.random.RandomState(self.seed).permutation(n)
        shuffled = self.order[drawn]
        rows = np.concatenate([shuffled[classes[shuffled] == c][:k] for c, k in enumerate(taken)])
        factors = np.divide(sizes, taken, where=taken > 0, out=np.zeros(len(sizes)))
        counts = np.zeros(n)
        counts[rows] = factors[classes[rows]] * len(rows) / n
        return self._on_rows(np.sort(rows), counts)

    def _on_rows(self, rows, counts):
        place = np.full(len(self.Y), -1)
        place[rows] = np.arange(len(rows))
        order = place[self.order]
        return self._with(
            grams=self.grams.subset(rows),
            Y=self.Y[rows],
            s=self.s[rows] * counts[rows],
            sample_weight=self.sample_weight[rows] * counts[rows],
            strata=None if self.strata is None else self.strata[rows],
            contested=self.contested[rows],
            order=order[order >= 0],
        )

    # -- machines --------------------------------------------------------------------------------

    def choose_C(self, weights):
        """Take C from the options, or choose it.

        ``C="auto"`` is 1 for the hinge loss. For the squared loss it has the smallest weighted
        squared leave-one-out residuals on the weights averaged over the decisions that share
        kernels: one eigendecomposition for each of the H kernels, one C for all.

        Warns
        -----
        LinAlgWarning
            If float64 cannot solve for the given C; the largest one it can is taken.
        """
        C, loss = self.options.C, self.options.loss
        if isinstance(C, str):
            return self.loo_C(weights) if loss == "squared" else 1.0
        if loss == "squared" and self.largest_C < C:
            warnings.warn(
                f"C={C:.3g} is more than float64 can solve for on these kernels; solved with "
                f"C={self.largest_C:.3g}.",
                LinAlgWarning,
                stacklevel=2,
            )
            return self.largest_C
        return float(C)

    def loo_C(self, weights):
        """C of the smallest weighted squared leave-one-out residuals."""
        return self._path(weights)[0]

    def anchored_scores_of_C(self, weights):
        """`anchored_loo_scores`, ``{C: (n, n_decisions)}``, on the weights as in `choose_C`."""
        return self._path(weights)[1]

    def _path(self, weights):
        """The C of `loo_C`, and the anchored scores of each."""
        key = weights.tobytes()
        if key not in self._paths:
            grid = self._grid_of_C()
            scores, anchored = self._held_out_on_grid(self._averages(weights), grid)
            errors = np.einsum("n,gnc->g", self.s, (self.Y - scores) ** 2)
            of_C = dict(zip(map(float, grid), anchored, strict=True))
            self._paths[key] = float(grid[int(np.argmin(errors))]), of_C
        return self._paths[key]

    def _averages(self, weights):
        """Mean weights of the decisions that share kernels, shape (H, L)."""
        return np.array([weights[c].mean(axis=0) for c in self._columns()])

    def _columns(self):
        """The decisions of each of the H kernels, slices."""
        return [self.grams.decisions_of(h, self.Y.shape[1]) for h in range(self.grams.shape[0])]

    def _held_out_on_grid(self, averages, grid):
        """Leave-one-out decisions at each C, two arrays of shape (g, n, n_decisions)."""
        scores, anchored = np.empty((2, len(grid), *self.Y.shape))
        combined = self.grams.combined(averages, range(len(averages)))
        for K, c in zip(combined, self._columns(), strict=True):
            Y = self.Y[:, c]
            for i, solution in enumerate(ridge_path(K, Y, self.s, grid)):
                scores[i][:, c] = solution.loo_scores
                anchored[i][:, c] = anchored_loo_scores(solution, Y, self.s, grid[i])
        return scores, anchored

    def _grid_of_C(self):
        """Values of C, for rows of any mean weight, that float64 can solve for."""
        grid = C_GRID / self.s.mean()
        return grid[grid <= self.largest_C] if grid[0] <= self.largest_C else grid[:1]

    def held_out(self, weights, C, Y=None):
        """Leave-one-out decisions of the squared loss at these weights, a `HeldOut`.

        Parameters
        ----------
        weights : ndarray of shape (n_decisions, L)
        C : float
        Y : ndarray of shape (n, n_decisions), default=None
            Other targets.
        """
        solution = self.ridge(weights, C, Y)
        targets = self.Y if Y is None else Y
        anchored = anchored_loo_scores(solution, targets, self.s, C)
        return HeldOut(solution.loo_scores, anchored)

    def ridge(self, weights, C, Y=None):
        """Solve every decision, for other targets Y if given: a `RidgeSolution`."""
        key = weights.tobytes(), C, None if Y is None else Y.tobytes()
        if key not in self._solved:
            self._solved[key] = self._ridge(self.Y if Y is None else Y, weights, C)
        return self._solved[key]

    def _ridge(self, Y, weights, C):
        """Decisions with the same kernel share a factorisation."""
        rows, group = self.machines(weights)
        combined = self.grams.combined(rows[:, 1:], rows[:, 0].astype(int))
        arguments = ((K, Y[:, group == k], self.s, C) for k, K in enumerate(combined))
        # A single machine may use all threads of LAPACK; several are tasks of one thread each.
        at_once = 1 if len(rows) == 1 else self.machines_that_fit()
        solutions = (
            [ridge(*a) for a in arguments]
            if at_once == 1
            else list(computed(ridge, arguments, at_once))
        )
        order = np.argsort(np.argsort(group, kind="stable"))
        joined = [
            np.concatenate(parts, axis=-1)[..., order] for parts in zip(*solutions, strict=True)
        ]
        return type(solutions[0])(*joined)

    def machines(self, weights):
        """Kernels and weights of the distinct machines, (k, 1 + L), and that of each decision."""
        labelled = np.column_stack([self.kernels, weights])
        rows, group = np.unique(labelled, axis=0, return_inverse=True)
        return rows, group.ravel()

    def hinge(self, weights, C):
        """Solve every decision by libsvm: dual coefficients (n_decisions, n) and intercepts."""
        combined = self.grams.combined(weights, self.kernels)
        arguments = ((K, y, self.s, C) for K, y in zip(combined, self.Y.T, strict=True))
        # Each decision at work holds its kernel, and libsvm a cache of the same size.
        at_once = self.machines_that_fit()
        solutions = computed(hinge, arguments, at_once)
        dual_coef, intercept = zip(*solutions, strict=True)
        return np.array(dual_coef), np.array(intercept)

    def held_out_hinge(self, weights, C):
        """Decisions of the hinge loss on rows not learned from: None, there is no short cut."""
        return None

    def machines_that_fit(self):
        """Decisions solved at once: as many as `n_jobs` says and as fit into memory."""
        available = available_memory()
        asked = n_workers(self.options.n_jobs)
        if available is None:
            return asked
        fitting = int(available // (2 * 8 * len(self.Y) ** 2)) - 2  # those that wait
        return max(1, min(asked, fitting))

    def oracle(self, decisions, used, C, precision):
        """Kernel machines of decisions that share weights: from weights to a `CuttingPlane`.

        Parameters
        ----------
        decisions : list of int
        used : ndarray of bool, shape (L,)
            The layers that weights are asked for.
        C : float
        precision : float
            Relative duality gap to which the hinge loss is solved.
        """
        parts: list[RidgeOracle | HingeOracle] = []
        for kernel in sorted({self.kernels[c] for c in decisions}):
            view = _KernelView(self.grams, kernel, used)
            Y = self.Y[:, [c for c in decisions if self.kernels[c] == kernel]]
            if self.options.loss == "squared":
                parts.append(RidgeOracle(view, Y, self.s, C))
            else:
                parts.append(HingeOracle(view, Y, self.s, C, precision))

        def plane(weights):
            linear, quadratics, upper = zip(*(part(weights) for part in parts), strict=True)
            return CuttingPlane(sum(linear), np.sum(quadratics, axis=0), sum(upper))

        return plane


class _KernelView:
    """Some layers of one of the H kernels, for oracles that combine them again and again."""

    def __init__(self, grams, kernel, used):
        self.grams = grams
        self.kernel = kernel
        self.used = used

    def combined(self, weights):
        """``sum_l w_l K_l`` in float64, shape (n, n), to keep."""
        row = np.zeros(len(self.used))
        row[self.used] = weights
        return next(self.grams.combined(row[None], [self.kernel]))

    def quadratics(self, A):
        """``a_j' K_l a_j``, shape (L, k)."""
        return self.grams.quadratics(A, [self.kernel] * A.shape[1])[self.used]
