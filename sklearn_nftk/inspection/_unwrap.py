"""The fitted machine behind what the user has: an estimator, or a pipeline that ends in one."""

import copy

import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ..estimators import BaseMultipleKernelMachine
from ..learner import Problem
from ..utils._groups import layer_label


def final_estimator(estimator):
    """Return the fitted machine itself, taken out of its pipeline.

    Raises
    ------
    TypeError
        If there is none.
    """
    machine = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(machine, BaseMultipleKernelMachine):
        raise TypeError(
            "estimator must be a fitted estimator of sklearn_nftk or a pipeline that ends in one; "
            f"got {type(machine).__name__}."
        )
    check_is_fitted(machine)
    return machine


def transformed(estimator, X):
    """Take X through the earlier steps of a pipeline."""
    if isinstance(estimator, Pipeline) and len(estimator) > 1:
        return estimator[:-1].transform(X)
    return X


def training_problem(estimator, X, y, sample_weight=None):
    """The kernels of a training set under a fitted estimator, to learn from them again.

    Returns
    -------
    machine : BaseMultipleKernelMachine
        A copy, for the caller to change.
    problem : Problem
        With the kernels of all layers in memory.

    Raises
    ------
    ValueError
        If the classes or the number of features are not those of the estimator.
    MemoryError
        If the kernels do not fit into memory.
    """
    fitted = final_estimator(estimator)
    machine = copy.copy(fitted)
    X, Y, s, sample_weight = machine._training_set(transformed(estimator, X), y, sample_weight)
    if machine.n_features_in_ != fitted.n_features_in_:
        raise ValueError(
            f"X has {machine.n_features_in_} features, but the estimator was fitted on "
            f"{fitted.n_features_in_}."
        )
    if is_classifier(fitted) and not np.array_equal(machine.classes_, fitted.classes_):
        raise ValueError(
            f"y must have the classes of the estimator, {fitted.classes_.tolist()}; got "
            f"{machine.classes_.tolist()}."
        )
    grams = machine._training_grams(X, Y.shape[1]).stored()
    return machine, Problem(grams, Y, s, sample_weight)


def decision_names(machine):
    """One name for each decision function: a class, both of two classes, or a target."""
    if is_classifier(machine):
        classes = [str(label) for label in machine.classes_]
        return [f"{classes[1]} against {classes[0]}"] if len(classes) == 2 else classes
    n_targets = len(machine.intercept_)
    return ["target"] if n_targets == 1 else [f"target {index}" for index in range(n_targets)]


def decision_kind(machine):
    """What the decision functions decide about."""
    return "class" if is_classifier(machine) else "target"


def layer_labels(machine):
    """Names of the layers for a reader: the network itself has an empty one."""
    return [layer_label(name) for name in machine.layer_names_]
