"""Folds of a training set, in each of which one network is new to the rows."""

from numbers import Integral

import numpy as np
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)
from sklearn.utils import check_consistent_length

from ..utils._sklearn import one_at_a_time


@one_at_a_time
def folds_of(training, cv, X, y, groups, seed):
    """Fold of each distinct row.

    An integer deals the distinct rows out, in an order of their content, by class where there are
    classes and by group where there are groups; a splitter sees the rows as they were given. All
    copies of a row are in the fold of the first.

    Parameters
    ----------
    training : TrainingSet
    cv : int, splitter or iterable of (train, test)
    X, y : array of n rows
    groups : array-like of shape (n,), default=None
    seed : int

    Returns
    -------
    ndarray of int, shape (m,)

    Raises
    ------
    ValueError
        If the folds are no partition of the rows, or there are fewer than two.
    """
    if groups is not None:
        groups = np.asarray(groups)
        check_consistent_length(X, groups)
    if not isinstance(cv, Integral):
        splits = list(check_cv(cv).split(X, y, groups))
        folds = _numbered(splits, len(X))[training.first]
        return np.unique(folds, return_inverse=True)[1].ravel()  # of rows of positive weight
    rows = training.order
    labels = None if training.strata is None else training.strata[rows]
    of_rows = None if groups is None else groups[training.first][rows]
    shuffled = {"n_splits": cv, "shuffle": True, "random_state": seed}
    if groups is None:
        splitter = KFold(**shuffled) if labels is None else StratifiedKFold(**shuffled)
    else:
        splitter = GroupKFold(cv) if labels is None else StratifiedGroupKFold(**shuffled)
    folds = np.empty(len(rows), dtype=int)
    folds[rows] = _numbered(list(splitter.split(rows, labels, of_rows)), len(rows))
    return folds


def _numbered(splits, n):
    """Number of the split that each row is tested in."""
    folds = np.full(n, -1)
    for number, (train, test) in enumerate(splits):
        if (folds[test] >= 0).any() or len(train) + len(test) != n:
            break
        folds[test] = number
    if len(splits) < 2 or (folds < 0).any():
        raise ValueError(
            "cv must split the rows into two folds or more, with each row in one test part and in "
            f"all other training parts; {len(splits)} split(s) that do not were given."
        )
    return folds
