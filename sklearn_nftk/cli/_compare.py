"""The study behind ``python -m sklearn_nftk``: NFT-K beside SVMs on one data set, same folds."""

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from ..estimators import MultiLayerNTKClassifier
from ._data import DataError

# 5 x 5, the usual decades around the defaults for standardised features.
GRID = {"C": np.logspace(-1, 3, 5), "gamma": np.logspace(-4, 0, 5)}


def candidates(network, random_state):
    """The three classifiers that are compared, by name."""
    return {
        "NFT-K": MultiLayerNTKClassifier(network, random_state=random_state),
        "SVC": SVC(),
        "GridSearchCV(SVC)": GridSearchCV(SVC(), GRID, cv=5),
    }


def compare(dataset, classifiers, *, cv, random_state, advance):
    """Cross-validate each classifier on the same folds.

    Parameters
    ----------
    dataset : Dataset
    classifiers : dict of str to estimator
    cv : int
        Number of folds.
    random_state : int
        Shuffles the folds.
    advance : callable
        Called with the name of the classifier after each fold.

    Returns
    -------
    dict of str to dict
        For each classifier, lists over the folds: "accuracy" and "fit_time" in seconds.

    Raises
    ------
    DataError
        If a class is too small for the folds.
    """
    labels, counts = np.unique(dataset.y, return_counts=True)
    if len(labels) < 2:
        raise DataError(f"{dataset.name}: the target has only one class, {labels[0]!r}")
    if counts.min() < cv:
        raise DataError(
            f"{dataset.name}: class {labels[counts.argmin()]!r} has {counts.min()} sample(s), "
            f"fewer than the {cv} folds; choose a smaller --cv or merge classes"
        )
    folds = StratifiedKFold(cv, shuffle=True, random_state=random_state)
    results: dict[str, dict[str, list]] = {
        name: {"accuracy": [], "fit_time": []} for name in classifiers
    }
    # One fold after the other, so that all classifiers meet the same state of the machine.
    for split in folds.split(dataset.X, dataset.y):
        for name, classifier in classifiers.items():
            pipeline = make_pipeline(clone(dataset.preparation), classifier)
            scores = cross_validate(
                pipeline, dataset.X, dataset.y, cv=[split], error_score="raise"
            )
            results[name]["accuracy"].append(float(scores["test_score"][0]))
            results[name]["fit_time"].append(float(scores["fit_time"][0]))
            advance(name)
    return results
