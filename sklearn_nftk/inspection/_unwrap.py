"""The fitted machine behind what the user has: an estimator, a pipeline, or a search over them."""

from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ..estimators import BaseKernelMachine
from ..utils._groups import layer_label


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
