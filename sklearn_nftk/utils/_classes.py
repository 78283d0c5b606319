"""Classes: their codes, and labels and probabilities from logits."""

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if

from ._sklearn import check_classification_targets


def require_two_classes(classes):
    """Refuse a training set of one class.

    Raises
    ------
    ValueError
    """
    if len(classes) < 2:
        raise ValueError(
            "y must have at least two classes of positive weight; got "
            f"{len(classes)} class(es): {classes.tolist()}."
        )


def class_codes(y):
    """Classes (n_classes,) of labels, sorted, and the place of each label (n,) among them.

    Raises
    ------
    ValueError
        If labels are no classes, or fewer than two of them.
    """
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    require_two_classes(classes)
    return classes, codes.ravel()


def logits(outputs):
    """A column for each class: 0 and the output where there is one, the logit of the second."""
    if outputs.shape[1] > 1:
        return outputs
    return np.column_stack([np.zeros(len(outputs)), outputs])


def _has_probabilities(estimator):
    if estimator.loss != "log_loss":
        raise AttributeError(
            f"predict_proba needs loss='log_loss', not {estimator.loss!r}; see "
            "sklearn.calibration.CalibratedClassifierCV."
        )
    return True


class LogitClassifierMixin(ClassifierMixin):
    """Decisions, labels and probabilities from outputs.

    Subclasses have the parameter ``loss``, and ``_outputs(X)`` of shape (n, n_classes), or (n, 1)
    for two classes.
    """

    def decision_function(self, X):
        """Logits of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes, the logit of ``classes_[1]`` against ``classes_[0]``.
        """
        scores = logits(self._outputs(X))
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X):
        """Class of the largest logit.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        codes = logits(self._outputs(X)).argmax(axis=1)
        return self.classes_[codes]

    @available_if(_has_probabilities)
    def predict_proba(self, X):
        """Probabilities of the classes, the softmax of the logits (``loss="log_loss"`` only).

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        return softmax(logits(self._outputs(X)), axis=1)

    @available_if(_has_probabilities)
    def predict_log_proba(self, X):
        """Logarithm of `predict_proba`, without its underflow.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        return log_softmax(logits(self._outputs(X)), axis=1)
