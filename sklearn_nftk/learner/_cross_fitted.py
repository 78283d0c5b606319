"""A problem whose kernels know some of its targets: evidence comes from rows they do not know.

The network of each fold was trained without the rows of that fold. The machine is one on the mean
of the kernels of all networks; what chooses weights, C and temperature is learned and tested with
the kernels of one network alone: learned on the rows that it was trained on, tested on those of
its fold.
"""

import numpy as np

from ..grams import pooled
from ..solvers import hinge, ridge_coefficients, ridge_path
from ..utils._threads import computed
from ._problem import HeldOut, Problem


class CrossFittedProblem(Problem):
    """Kernel machines on combinations of the same layer kernels, with folds in place of rows.

    Parameters
    ----------
    grams, Y, s, options, **rest
        As in `Problem`; the kernels are the mean of those of all networks.
    folds : ndarray of int, shape (n,)
        Fold of each row, 0 to n_folds - 1.
    grams_of_folds : list of Grams
        Kernels of all rows under the network of each fold.
    """

    def __init__(self, grams, Y, s, options=None, *, folds, grams_of_folds, **rest):
        super().__init__(grams, Y, s, options, **rest)
        self.folds = folds
        self.grams_of_folds = grams_of_folds

    def statistics(self):
        """Statistics whose products are those of rows that the network did not see."""
        parts, shares, p = [], [], self.p
        for grams, new, _ in self._splits():
            share = p[new].sum()
            parts.append(grams.subset(new).statistics(p[new] / share, self.Y[new]))
            shares.append(share)
        of_kernels = zip(super().statistics(), *parts, strict=True)
        return [pooled(overall, blocks, np.array(shares)) for overall, *blocks in of_kernels]

    def on(self, grams, statistics):
        """State the same problem on scaled kernels; those of the folds have the same scales."""
        other = super().on(grams, statistics)
        factors = grams.scales / self.grams.scales
        other.grams_of_folds = [of_fold.scaled(factors) for of_fold in self.grams_of_folds]
        return other

    def _on_rows(self, rows, counts):
        other = super()._on_rows(rows, counts)
        other.folds = self.folds[rows]
        other.grams_of_folds = [of_fold.subset(rows) for of_fold in self.grams_of_folds]
        return other

    def _splits(self):
        """Yield the kernels of each network, the rows that are new to it and those it saw."""
        for fold, grams in enumerate(self.grams_of_folds):
            new = self.folds == fold
            if new.any() and not new.all():
                yield grams, np.flatnonzero(new), np.flatnonzero(~new)

    # -- evidence --------------------------------------------------------------------------------

    def held_out(self, weights, C, Y=None):
        """Decisions of the squared loss on the rows of each fold, a `HeldOut`."""
        if Y is None and weights.tobytes() in self._paths:
            of_C = self._paths[weights.tobytes()][1]
            # C was chosen with these weights, where all decisions have the same.
            if C in of_C and np.array_equal(weights, self._shared(weights)):
                return HeldOut(of_C[C], of_C[C])
        key = "held out", weights.tobytes(), C, None if Y is None else Y.tobytes()
        if key not in self._solved:
            targets = self.Y if Y is None else Y
            scores = self._scores_of_folds(_ridge_scores, targets, weights, C)
            self._solved[key] = HeldOut(scores, scores)
        return self._solved[key]

    def held_out_hinge(self, weights, C):
        """Decisions of the hinge loss on the rows of each fold, (n, n_decisions)."""
        return self._scores_of_folds(_hinge_scores, self.Y, weights, C)

    def _shared(self, weights):
        """Weights as `choose_C` averages them, a row for each decision."""
        return self._averages(weights)[self.kernels]

    def _held_out_on_grid(self, averages, grid):
        scores = np.empty((len(grid), *self.Y.shape))
        scores[:] = self.p @ self.Y  # where there is no machine
        for grams, new, seen in self._splits():
            combined = grams.combined(averages, range(len(averages)))
            for K, c in zip(combined, self._columns(), strict=True):
                across, Y = K[np.ix_(new, seen)], self.Y[seen, c]
                path = ridge_path(K[np.ix_(seen, seen)], Y, self.s[seen], grid)
                for of_C, solution in zip(scores, path, strict=True):
                    of_C[new, c] = across @ solution.dual_coef + solution.intercept
        return scores, scores

    def _scores_of_folds(self, solve, Y, weights, C):
        rows, group = self.machines(weights)
        scores = np.tile(self.p @ Y, (len(Y), 1))  # where there is no machine
        for grams, new, seen in self._splits():
            combined = grams.combined(rows[:, 1:], rows[:, 0].astype(int))
            arguments = (
                (K, Y[:, group == k], self.s, C, new, seen) for k, K in enumerate(combined)
            )
            at_once = self.machines_that_fit()
            for k, of_machine in enumerate(computed(solve, arguments, at_once)):
                scores[np.ix_(new, group == k)] = of_machine
        return scores


def _ridge_scores(K, Y, s, C, new, seen):
    """Decisions on new rows of a machine that learned from the others, (len(new), k)."""
    across = K[np.ix_(new, seen)]
    a, b = ridge_coefficients(K[np.ix_(seen, seen)], Y[seen], s[seen], C)
    return across @ a + b


def _hinge_scores(K, Y, s, C, new, seen):
    across, among = K[np.ix_(new, seen)], K[np.ix_(seen, seen)]
    columns = []
    for y in Y[seen].T:
        one_class = (y == y[0]).all()
        a, b = (0 * y, y[0]) if one_class else hinge(among, y, s[seen], C)
        columns.append(across @ a + b)
    return np.column_stack(columns)
