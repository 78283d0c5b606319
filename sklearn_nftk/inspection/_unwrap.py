"""The fitted machine behind what the user has: an estimator, a pipeline, or a search over them."""

import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ..estimators import BaseKernelMachine
from ..kernel_networks import KernelMLPClassifier, KernelMLPRegressor
from ..utils._groups import layer_label
from ..utils._row_ids import given_ids, row_ids


def final_estimator(estimator):
    """Return the fitted machine itself, taken out of its search and its pipeline.

    Raises
    ------
    TypeError
        If there is none.
    NotFittedError
        If it is not fitted.
    """
    estimator = _best(estimator)
    machine = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(machine, BaseKernelMachine):
        raise TypeError(
            "estimator must be a fitted estimator of sklearn_nftk or a pipeline that ends in one, "
            f"or a search with a best_estimator_ of this kind; got {type(machine).__name__}."
        )
    check_is_fitted(machine)
    return machine


def final_network(estimator):
    """Return the fitted kernel network itself, taken out of its search and its pipeline.

    Raises
    ------
    TypeError
        If there is none.
    NotFittedError
        If it is not fitted.
    """
    estimator = _best(estimator)
    network = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(network, KernelMLPClassifier | KernelMLPRegressor):
        raise TypeError(
            "estimator must be a fitted KernelMLPClassifier or KernelMLPRegressor, a pipeline "
            "that ends in one, or a search with a best_estimator_ of this kind; got "
            f"{type(network).__name__}."
        )
    check_is_fitted(network)
    return network


def transformed(estimator, X):
    """Take X through the earlier steps of a pipeline."""
    estimator = _best(estimator)
    if isinstance(estimator, Pipeline) and len(estimator) > 1:
        return estimator[:-1].transform(X)
    return X


def _best(estimator):
    """Best estimator of a fitted search such as GridSearchCV; others as they are."""
    return getattr(estimator, "best_estimator_", estimator)


def decision_names(machine):
    """One name for each decision function: a class, both of two classes, or a target."""
    if is_classifier(machine):
        classes = [str(label) for label in machine.classes_]
        return [f"{classes[1]} against {classes[0]}"] if len(classes) == 2 else classes
    n_targets = len(machine.intercept_)
    return ["target"] if n_targets == 1 else [f"target {index}" for index in range(n_targets)]


def decision_kind(machine):
    """Kind of the decisions: "class" or "target"."""
    return "class" if is_classifier(machine) else "target"


def layer_labels(machine):
    """Names of the layers for a reader: the network itself has an empty one."""
    return [layer_label(name) for name in machine.layer_names_]


def input_names(estimator, X):
    """Names of the features of samples X (n, n_features) as the user has them, a list of str."""
    fitted_names = getattr(_best(estimator), "feature_names_in_", None)
    return _names(getattr(X, "columns", fitted_names), np.shape(X)[1])


def feature_names(estimator, n_features):
    """Names of the features that the last step of a pipeline sees, a list of str.

    Its own, those that the steps before it hand out, or "x0", "x1", ... as scikit-learn has them.
    """
    names = getattr(final_estimator(estimator), "feature_names_in_", None)
    estimator = _best(estimator)
    if names is None and isinstance(estimator, Pipeline) and len(estimator) > 1:
        try:
            names = estimator[:-1].get_feature_names_out()
        except (AttributeError, ValueError):  # a step does not tell
            names = None
    return _names(names, n_features)


def _names(names, n_features):
    if names is None or len(names) != n_features:
        return [f"x{j}" for j in range(n_features)]
    return [str(name) for name in names]


def sample_ids(X, n_samples, index=None):
    """Ids of the samples asked about, shape (n_samples,): given, of their table, or positions.

    Raises
    ------
    ValueError
        If `index` has another length.
    """
    if index is not None:
        return given_ids(index, n_samples, "index")
    known = row_ids(X)
    return np.arange(n_samples) if known is None else known


def training_ids(estimator, *tables, train_index=None):
    """Ids of the training rows of positive weight, shape (n_fit,), or None where nothing has any.

    Those given, those that the estimator remembers, or those of one of the tables of these rows.

    Raises
    ------
    ValueError
        If they have another length.
    """
    machine = final_estimator(estimator)
    n_fit = machine.dual_coef_.shape[1]
    if train_index is not None:
        return given_ids(train_index, n_fit, "train_index")
    known = getattr(machine, "index_fit_", None)
    return row_ids(*tables) if known is None else known
