"""Labels as targets, and decisions as labels and probabilities."""

import numpy as np
from scipy.special import expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if

from ..learner import both_sides, class_weights, one_vs_rest_targets
from ..utils._classes import require_two_classes
from ..utils._sklearn import check_classification_targets, check_sample_weight
from ._decisions import decisions
from ._targets import Targets


def _has_probabilities(estimator):
    """Refuse probabilities where there are no leave-one-out scores to calibrate on."""
    learned = getattr(estimator, "_fitted", None)
    loss = estimator.loss if learned is None else learned.options.loss
    if loss != "squared":
        raise AttributeError(
            "predict_proba is calibrated on leave-one-out scores, which loss='squared' has; for "
            f"loss={loss!r} use sklearn.calibration.CalibratedClassifierCV."
        )
    return True


class KernelClassifierMixin(ClassifierMixin):
    """One-vs-rest targets, class labels and probabilities; needs ``class_weight``."""

    def _targets(self, y, sample_weight):
        """Targets -1 and 1, and weights; sets ``classes_``."""
        check_classification_targets(y)
        sample_weight = check_sample_weight(sample_weight, y)
        kept = sample_weight > 0
        classes = np.unique(y[kept])
        s = np.zeros(len(y))
        s[kept] = sample_weight[kept] * class_weights(
            self.class_weight, classes, y[kept], sample_weight[kept]
        )
        kept = s > 0
        self.classes_ = np.unique(y[kept])
        require_two_classes(self.classes_)
        codes = np.zeros(len(y), dtype=int)
        codes[kept] = np.searchsorted(self.classes_, y[kept])
        Y = one_vs_rest_targets(codes, len(self.classes_))
        return Targets(Y, s, sample_weight, codes)

    def _n_outputs(self, targets):
        """Outputs of a network that is made for these targets."""
        return len(self.classes_)

    def decision_function(self, X):
        """Decision values.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes, positive values speak for ``classes_[1]``.
        """
        scores = decisions(self, X)
        return scores.ravel() if len(self.classes_) == 2 else scores

    def predict(self, X):
        """Class of the largest decision value.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        scores = self.decision_function(X)
        winners = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[winners]

    @available_if(_has_probabilities)
    def predict_proba(self, X):
        """Probabilities of the classes (squared loss only).

        The softmax of the decision values divided by one temperature, which minimises the
        log-loss of the exact leave-one-out scores of the training set: no extra fits, and the most
        probable class is always what `predict` says [1]_. Two classes have the decision values
        ``-f`` and ``f``.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.

        References
        ----------
        .. [1] Guo, Pleiss, Sun, Weinberger. On Calibration of Modern Neural Networks. ICML 2017.
        """
        scores = self.decision_function(X) / self.temperature_
        if scores.ndim == 1:
            positive = expit(2 * scores)
            return np.column_stack([1 - positive, positive])
        return softmax(scores, axis=1)

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
        return log_softmax(both_sides(self.decision_function(X)) / self.temperature_, axis=1)
