"""Real targets, one decision for each."""

import numpy as np
from sklearn.base import RegressorMixin

from ..utils._sklearn import check_sample_weight
from ._decisions import decisions
from ._targets import Targets


class KernelRegressorMixin(RegressorMixin):
    """Real targets, one or several."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def _validated(self, X, y="no_validation", **checks):
        if not isinstance(y, str):
            checks = {"multi_output": True, "y_numeric": True, **checks}
        return super()._validated(X, y, **checks)

    def _targets(self, y, sample_weight):
        """Targets as columns, and weights."""
        sample_weight = check_sample_weight(sample_weight, y)
        if not sample_weight.any():
            raise ValueError("sample_weight must be positive for at least one sample.")
        self._is_flat = y.ndim == 1
        Y = np.asarray(y, dtype=float).reshape(len(y), -1)
        return Targets(Y, sample_weight, sample_weight)

    def _n_outputs(self, targets):
        """Outputs of a network that is made for these targets."""
        return targets.Y.shape[1]

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
        values = decisions(self, X)
        return values.ravel() if self._is_flat else values
