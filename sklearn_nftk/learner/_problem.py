"""The kernels and targets of one fit, and what can be solved for any weights on them."""

from typing import Any

import numpy as np
from joblib import Parallel, delayed

from ..grams import FamilyView
from ..solvers import C_GRID, HingeOracle, RidgeOracle, hinge, loo_errors, ridge
from ..weights import Cut


class Problem:
    """Kernel machines on combinations of the same layer kernels.

    What was solved is remembered: what chose the shrinkage is often what the fit ends with.

    Parameters
    ----------
    grams : LayerGrams
    Y : ndarray of shape (n, n_decisions)
        Targets: -1 and 1, or real.
    s : ndarray of shape (n,)
        Positive weights of the loss.
    sample_weight : ndarray of shape (n,)
        The part of s that means repeated rows.
    """

    def __init__(self, grams, Y, s, sample_weight):
        self.grams = grams
        self.Y = Y
        self.s = s
        self.sample_weight = sample_weight
        # Leaving a sample out takes away one of its repetitions.
        self.rho = np.minimum(1.0, 1.0 / sample_weight)
        self.families = [grams.family(c) for c in range(Y.shape[1])]
        self._chosen: dict[bytes, float] = {}
        self._solved: dict[tuple[bytes, float], Any] = {}

    @property
    def p(self):
        """Sample probabilities."""
        return self.s / self.s.sum()

    def sample(self, n_rows):
        """The same problem on at most so many rows, drawn once and for all."""
        n = len(self.Y)
        if n <= n_rows:
            return self
        return self._rows(np.sort(np.random.RandomState(0).permutation(n)[:n_rows]))

    def resampled(self, counts):
        """The same problem with row i counted ``counts[i]`` times, shape (n,).

        Copies weigh more but are no further rows: leave-one-out leaves all of them out, for it
        would find each row again in its copies.
        """
        found = self._rows(np.flatnonzero(counts))
        found.s *= counts[counts > 0]
        return found

    def _rows(self, rows):
        return Problem(
            self.grams.subset(rows), self.Y[rows], self.s[rows], self.sample_weight[rows]
        )

    def choose_C(self, weights):
        """Choose C by leave-one-out on the weights averaged over the decisions that share kernels.

        One eigendecomposition for each family of kernels, one C for all.
        """
        key = weights.tobytes()
        if key not in self._chosen:
            families = range(self.grams.shape[0])
            columns = [self.grams.decisions(family, self.Y.shape[1]) for family in families]
            averages = np.array([weights[c].mean(axis=0) for c in columns])
            errors = sum(
                loo_errors(K, self.Y[:, c], self.s, self.rho)
                for K, c in zip(self.grams.combined(averages, families), columns, strict=True)
            )
            self._chosen[key] = float(C_GRID[int(np.argmin(errors))])
        return self._chosen[key]

    def ridge(self, weights, C):
        """Solve every decision; those with the same kernel share a factorisation."""
        key = weights.tobytes(), C
        if key not in self._solved:
            self._solved[key] = self._ridge(weights, C)
        return self._solved[key]

    def _ridge(self, weights, C):
        labelled = np.column_stack([self.families, weights])
        rows, group = np.unique(labelled, axis=0, return_inverse=True)
        group = group.ravel()
        kernels = self.grams.combined(rows[:, 1:], rows[:, 0].astype(int))
        solutions = [
            ridge(K, self.Y[:, group == k], self.s, self.rho, C) for k, K in enumerate(kernels)
        ]
        order = np.argsort(np.argsort(group, kind="stable"))
        joined = [
            np.concatenate(parts, axis=-1)[..., order] for parts in zip(*solutions, strict=True)
        ]
        return type(solutions[0])(*joined)

    def oracle(self, decisions, used, loss, C, precision):
        """What the kernel machines of some decisions say about common weights: ``w -> Cut``.

        Parameters
        ----------
        decisions : list of int
        used : ndarray of bool, shape (L,)
            The layers that weights are asked for.
        loss : {"squared", "hinge"}
        C : float
        precision : float
            Relative duality gap to which the hinge loss is solved.
        """
        parts: list[RidgeOracle | HingeOracle] = []
        for family in sorted({self.families[c] for c in decisions}):
            view = FamilyView(self.grams, family, used)
            Y = self.Y[:, [c for c in decisions if self.families[c] == family]]
            if loss == "squared":
                parts.append(RidgeOracle(view, Y, self.s, C))
            else:
                parts.append(HingeOracle(view, Y, self.s, C, precision))

        def cut(weights):
            linear, quadratics, upper = zip(*(part(weights) for part in parts), strict=True)
            return Cut(sum(linear), np.sum(quadratics, axis=0), sum(upper))

        return cut

    def hinge(self, weights, C, n_jobs):
        """Solve every decision by libsvm, `n_jobs` at a time."""
        kernels = self.grams.combined(weights, self.families)
        solutions = Parallel(n_jobs=n_jobs, prefer="threads")(
            delayed(hinge)(K, y, self.s, C) for K, y in zip(kernels, self.Y.T, strict=True)
        )
        dual_coef, intercept = zip(*solutions, strict=True)
        return np.array(dual_coef), np.array(intercept)
