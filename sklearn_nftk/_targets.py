"""Labels and weights of the training set, in the form the learner works with."""

import numpy as np
from sklearn.utils.class_weight import compute_class_weight


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
    """
    codes = np.searchsorted(classes, y)
    if isinstance(class_weight, str):  # "balanced"; scikit-learn < 1.7 ignores sample weights
        per_class = sample_weight.sum() / (
            len(classes) * np.bincount(codes, weights=sample_weight)
        )
    else:
        per_class = compute_class_weight(class_weight, classes=classes, y=y)
    return per_class[codes]


def one_vs_rest_targets(y, classes):
    """Targets -1 and 1, shape (n, 1) for two classes (1 is the second) and (n, n_classes) else."""
    columns = classes[1:] if len(classes) == 2 else classes
    return np.where(y[:, None] == columns, 1.0, -1.0)
