"""The fitted machine behind what the user has: an estimator, or a pipeline that ends in one."""

from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._base import BaseMultipleKernelMachine


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


def decision_names(machine):
    """One name for each decision function."""
    classes = [str(label) for label in machine.classes_]
    return [f"{classes[1]} against {classes[0]}"] if len(classes) == 2 else classes


def decision_kind(machine):
    """What a decision function decides about."""
    return "class" if is_classifier(machine) else "target"


def layer_labels(machine):
    """Names of the layers for a reader; parameters of the network itself have none of their own."""
    return [name or "(root)" for name in machine.layer_names_]
