"""Labels in the form the learner works with, and the temperature of probabilities."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.utils.class_weight import compute_class_weight

# Inverse temperatures that probabilities may have: beyond, they are 0 or 1, or all equal.
_LOG_INVERSE_TEMPERATURES = (-12.0, 12.0)


def class_weights(class_weight, classes, y, sample_weight):
    """Weight of each sample through its class.

    Parameters
    ----------
    class_weight : None, "balanced" or dict
        "balanced" counts with the sample weights: ``sum(w) / (n_classes * sum of w in class)``.
    classes : ndarray of shape (n_classes,)
    y : ndarray of shape (n,)
    sample_weight : ndarray of shape (n,)

    Returns
    -------
    ndarray of shape (n,)

    Raises
    ------
    ValueError
        If a weight is negative or not finite.
    """
    codes = np.searchsorted(classes, y)
    if isinstance(class_weight, str):  # "balanced"; scikit-learn < 1.7 ignores sample weights
        per_class = sample_weight.sum() / (
            len(classes) * np.bincount(codes, weights=sample_weight)
        )
    else:
        per_class = compute_class_weight(class_weight, classes=classes, y=y)
    if not np.isfinite(per_class).all() or (per_class < 0).any():
        raise ValueError(
            f"class_weight must be finite and non-negative, got {class_weight!r}; 0 leaves the "
            "samples of a class out."
        )
    return per_class[codes]


def one_vs_rest_targets(codes, n_classes):
    """Targets -1 and 1: (n, 1) for two classes (1 is the second), else one column for each."""
    columns = [1] if n_classes == 2 else range(n_classes)
    return np.where(codes[:, None] == columns, 1.0, -1.0)


def fit_temperature(scores, Y, sample_weight):
    """Temperature of smallest log-loss.

    Parameters
    ----------
    scores : ndarray of shape (n, n_decisions)
        Leave-one-out decision values.
    Y : ndarray of shape (n, n_decisions)
        Targets -1 and 1.
    sample_weight : ndarray of shape (n,)

    Returns
    -------
    float
        Positive. Class weights do not enter: probabilities are those of the data as sampled.
    """
    scores, Y = both_sides(scores), both_sides(Y)
    true = Y.argmax(axis=1)[:, None]

    def log_loss(log_inverse):
        log_probabilities = log_softmax(scores * np.exp(log_inverse), axis=1)
        return -sample_weight @ np.take_along_axis(log_probabilities, true, axis=1).ravel()

    # Convex in the inverse temperature, so unimodal in its logarithm.
    best = minimize_scalar(
        log_loss, bounds=_LOG_INVERSE_TEMPERATURES, method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(-best.x))


def both_sides(scores):
    """A column for each class: -f and f where there are two."""
    scores = scores.reshape(len(scores), -1)
    return np.column_stack([-scores, scores]) if scores.shape[1] == 1 else scores
