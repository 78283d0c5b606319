"""Stability of the kernel weights under resampling of the data."""

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import Bunch, check_random_state, check_scalar

from ..estimators import training_problem
from ..learner import normalise
from ..utils._progress import progress
from ..weights import weight_method
from ._unwrap import decision_names, final_estimator, transformed


def weight_stability(
    estimator,
    X,
    y,
    *,
    sample_weight=None,
    n_resamples=100,
    confidence_level=0.95,
    random_state=None,
    verbose=0,
):
    """Bootstrap intervals of the layer weights.

    The training set is resampled with replacement, within each class, and the weights are learned
    again by the method of the estimator with all its choices (shrinkage, C) [1]_. The kernels
    are computed once and their statistics resampled; the network stays as it is, so the intervals
    know nothing of another initialisation or training.

    Parameters
    ----------
    estimator : estimator of sklearn_nftk or Pipeline ending in one
        Fitted. X is taken through the earlier steps of a pipeline.
    X : array-like of shape (n_samples, n_features)
        The training set, or another sample that weights could be learned from.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
    sample_weight : array-like of shape (n_samples,), default=None
    n_resamples : int, default=100
    confidence_level : float in (0, 1), default=0.95
    random_state : int, RandomState instance or None, default=None
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    result : :class:`sklearn.utils.Bunch`
        With the attributes:

        weights : ndarray of shape (n_resamples, n_decisions, n_layers)
            Of each resample.
        mean, std : ndarray of shape (n_decisions, n_layers)
            Over the resamples.
        low, high : ndarray of shape (n_decisions, n_layers)
            Percentile interval.
        layer_names, decision_names : list of str
            In the order of the arrays.

    Raises
    ------
    ValueError
        If y has other classes than the estimator, or X other features.
    MemoryError
        If the layer kernels of X would not fit into memory.

    References
    ----------
    .. [1] Efron, Tibshirani. An Introduction to the Bootstrap. Chapman & Hall 1993.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import weight_stability
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MultiLayerNTKClassifier(random_state=0).fit(X, y)
    >>> stability = weight_stability(model, X, y, n_resamples=20, random_state=0)
    >>> bool((stability.low <= stability.high).all()), stability.weights.shape
    (True, (20, 3, 3))
    """
    check_scalar(n_resamples, "n_resamples", target_type=int, min_val=1)
    check_scalar(
        confidence_level,
        "confidence_level",
        target_type=float,
        min_val=0,
        max_val=1,
        include_boundaries="neither",
    )
    machine = final_estimator(estimator)
    problem = training_problem(machine, transformed(estimator, X), y, sample_weight)
    method = weight_method(problem.options.kernel_weights)
    random_state = check_random_state(random_state)
    strata = _strata(problem.Y, is_classifier(machine))
    weights = np.empty((n_resamples, *machine.kernel_weights_.shape))
    with progress(n_resamples, "resamples", enabled=verbose) as bar:
        for resample in weights:
            counts = np.zeros(len(problem.Y))
            for rows in strata:
                counts[rows] = random_state.multinomial(
                    len(rows), np.full(len(rows), 1 / len(rows))
                )
            resampled, statistics, _, mask = normalise(problem.resampled(counts))
            resample[:] = method.weights(resampled, statistics, mask).weights
            bar.update()
    tail = 50 * (1 - confidence_level)
    low, high = np.percentile(weights, [tail, 100 - tail], axis=0)
    return Bunch(
        weights=weights,
        mean=weights.mean(axis=0),
        std=weights.std(axis=0),
        low=low,
        high=high,
        layer_names=list(machine.layer_names_),
        decision_names=decision_names(machine),
    )


def _strata(Y, by_class):
    """The rows that are exchanged for each other: those of a class, so that none gets lost."""
    if not by_class:
        return [np.arange(len(Y))]
    _, codes = np.unique(Y, axis=0, return_inverse=True)
    codes = codes.ravel()
    return [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
