"""The rows that a fit learns from."""

from dataclasses import dataclass

import numpy as np

from ..learner import CrossFittedProblem, DistinctRows, Problem, distinct_rows


@dataclass(frozen=True)
class TrainingSet:
    """Rows of positive weight, of which identical ones are one.

    Attributes
    ----------
    kept : ndarray of int, shape (n_fit,)
        Rows of X of positive weight.
    rows : DistinctRows
        Of these.
    s : ndarray of shape (n_fit,)
        Their weights in the loss.
    Y : ndarray of shape (m, n_decisions)
        Targets of the distinct rows.
    sample_weight : ndarray of shape (m,)
        Of the distinct rows, without the weights of classes.
    strata : ndarray of int, shape (m,) or None
        Classes of the distinct rows.
    """

    kept: np.ndarray
    rows: DistinctRows
    s: np.ndarray
    Y: np.ndarray
    sample_weight: np.ndarray
    strata: np.ndarray | None

    @property
    def first(self):
        """Rows of X that stand for the distinct rows, shape (m,)."""
        return self.kept[self.rows.first]

    @property
    def order(self):
        """The distinct rows in an order that depends on nothing but their content, shape (m,)."""
        return self.rows.order

    @property
    def weights(self):
        """Weights of the distinct rows in the loss, shape (m,)."""
        return self.rows.total(self.s)

    def problem(self, grams, options, seed=0, cross_fit=None):
        """State what is to be learned on the kernels of the distinct rows.

        Parameters
        ----------
        grams : Grams
        options : LearnerOptions
        seed : int
        cross_fit : dict, default=None
            ``folds`` and ``grams_of_folds`` of a `CrossFittedProblem`.
        """
        kind = Problem if cross_fit is None else CrossFittedProblem
        return kind(
            grams,
            self.Y,
            self.weights,
            options,
            sample_weight=self.sample_weight,
            strata=self.strata,
            contested=self.rows.contested,
            order=self.order,
            seed=seed,
            **(cross_fit or {}),
        )

    def share(self):
        """Share of each row of positive weight in its distinct row, shape (n_fit,)."""
        return self.rows.share(self.s)


def training_set(keys, targets):
    """Merge identical rows.

    Parameters
    ----------
    keys : callable
        From the rows of X of positive weight to their keys, see `distinct_rows`.
    targets : Targets

    Returns
    -------
    TrainingSet
    """
    kept = np.flatnonzero(targets.s)
    Y = targets.Y[kept]
    rows = distinct_rows(keys(kept), Y)
    codes = targets.codes
    return TrainingSet(
        kept=kept,
        rows=rows,
        s=targets.s[kept],
        Y=Y[rows.first],
        sample_weight=rows.total(targets.sample_weight[kept]),
        strata=None if codes is None else codes[kept][rows.first],
    )
