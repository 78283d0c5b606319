"""Labels and real targets, in the form the learner works with, and decisions turned back."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import available_if

from ..utils._sklearn import check_classification_targets, check_sample_weight

# Inverse temperatures that probabilities may have: beyond, they are 0 or 1, or all equal.
_LOG_INVERSE_TEMPERATURES = (-12.0, 12.0)


def _has_probabilities(estimator):
    """Whether leave-one-out scores exist to calibrate on."""
    if estimator.loss != "squared":
        raise AttributeError(
            "predict_proba is calibrated on leave-one-out scores, which loss='squared' has; for "
            f"loss={estimator.loss!r} use sklearn.calibration.CalibratedClassifierCV."
        )
    return True


class KernelClassifierMixin(ClassifierMixin):
    """One-vs-rest targets, class labels and probabilities.

    Needs ``_validated(X, y)``, ``_rows(X, kept)``, ``_contributions(X)``, ``class_weight``.
    """

    def _training_set(self, X, y, sample_weight):
        """Validated rows of positive weight, targets, and both kinds of weights; sets classes_."""
        X, y = self._validated(X, y)
        check_classification_targets(y)
        sample_weight = check_sample_weight(sample_weight, X)
        kept = sample_weight > 0
        classes = np.unique(y[kept])
        s = np.zeros(len(y))
        s[kept] = sample_weight[kept] * class_weights(
            self.class_weight, classes, y[kept], sample_weight[kept]
        )
        kept = s > 0
        self.classes_ = np.unique(y[kept])
        if len(self.classes_) < 2:
            raise ValueError(
                "y must have at least two classes of positive weight; got "
                f"{len(self.classes_)} class(es): {self.classes_.tolist()}."
            )
        Y = one_vs_rest_targets(y[kept], self.classes_)
        return self._rows(X, kept), Y, s[kept], sample_weight[kept]

    def _calibrate(self, Y, sample_weight):
        """Set the temperature of the probabilities, where there are leave-one-out scores."""
        if self.loss == "squared":
            self.temperature_ = fit_temperature(self.loo_scores_, Y, sample_weight)

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
        scores = self._contributions(X).sum(axis=2) + self.intercept_
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
        return log_softmax(_both_sides(self.decision_function(X)) / self.temperature_, axis=1)


class KernelRegressorMixin(RegressorMixin):
    """Real targets, one decision for each.

    Needs ``_validated(X, y, **checks)``, ``_rows(X, kept)``, ``_contributions(X)``.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def _training_set(self, X, y, sample_weight):
        """Validated rows of positive weight, targets, and weights twice."""
        X, y = self._validated(X, y, multi_output=True, y_numeric=True)
        sample_weight = check_sample_weight(sample_weight, X)
        kept = sample_weight > 0
        if not kept.any():
            raise ValueError("sample_weight must be positive for at least one sample.")
        self._is_flat = y.ndim == 1
        Y = np.asarray(y, dtype=float).reshape(len(y), -1)[kept]
        return self._rows(X, kept), Y, sample_weight[kept], sample_weight[kept]

    def predict(self, X):
        """Values of the regression function.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_targets)
        """
        values = self._contributions(X).sum(axis=2) + self.intercept_
        return values.ravel() if self._is_flat else values


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
    scores, Y = _both_sides(scores), _both_sides(Y)
    true = Y.argmax(axis=1)[:, None]

    def log_loss(log_inverse):
        log_probabilities = log_softmax(scores * np.exp(log_inverse), axis=1)
        return -sample_weight @ np.take_along_axis(log_probabilities, true, axis=1).ravel()

    # Convex in the inverse temperature, so unimodal in its logarithm.
    found = minimize_scalar(
        log_loss, bounds=_LOG_INVERSE_TEMPERATURES, method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(-found.x))


def _both_sides(scores):
    """A column for each class: -f and f where there are two."""
    scores = scores.reshape(len(scores), -1)
    return np.column_stack([-scores, scores]) if scores.shape[1] == 1 else scores
