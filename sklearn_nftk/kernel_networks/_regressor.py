"""The regressor of kernel machines in layers."""

from typing import ClassVar

import numpy as np
from sklearn.base import RegressorMixin

from ..utils._sklearn import StrOptions
from ._base import BaseKernelMLP


class KernelMLPRegressor(RegressorMixin, BaseKernelMLP):
    """Kernel machines in layers for real targets, trained one layer after the other.

    As :class:`KernelMLPClassifier`, with squared errors, and an ideal kernel matrix of its own:
    ``G_ij = exp(-||y_i - y_j||^2 / (2 * 0.25^2))`` of targets standardised to variance 1. It is 1
    for equal targets and near 0 for those more than half a standard deviation apart. (The
    published method is for classes; this continues it.)

    Parameters
    ----------
    hidden_layer_sizes, sigmas, centers, objective, learning_rates, weight_decays, epochs, \
            batch_size, penalty, features, train_features, early_stopping, validation_fraction, \
            n_iter_no_change, warm_start, device, dtype, random_state, verbose
        As in :class:`KernelMLPClassifier`; centers are chosen at random, and "cross-class" weighs
        pairs by ``1 - G_ij``.
    loss : {"squared"}, default="squared"
        Of the output layer, on standardised targets: penalties do not depend on their unit.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        Where X had string column names.
    network_, layer_names_, sigmas_, loss_curve_, alignment_curve_
        As in :class:`KernelMLPClassifier`.

    See Also
    --------
    KernelMLPClassifier : The same for classes.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_nftk.kernel_networks import KernelMLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), KernelMLPRegressor(random_state=0))
    >>> model.fit(X[:300], y[:300]).score(X[300:], y[300:]) > 0.4
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseKernelMLP._parameter_constraints,
        "loss": [StrOptions({"squared"})],
    }
    _validation: ClassVar[dict] = {"multi_output": True, "y_numeric": True}

    def __init__(
        self,
        hidden_layer_sizes=(15,),
        *,
        sigmas="median",
        centers=None,
        objective="alignment",
        learning_rates=0.03,
        weight_decays=1e-3,
        epochs=200,
        batch_size=600,
        loss="squared",
        penalty="l2",
        features=None,
        train_features=False,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        device="auto",
        dtype="auto",
        random_state=None,
        verbose=0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.sigmas = sigmas
        self.centers = centers
        self.objective = objective
        self.learning_rates = learning_rates
        self.weight_decays = weight_decays
        self.epochs = epochs
        self.batch_size = batch_size
        self.loss = loss
        self.penalty = penalty
        self.features = features
        self.train_features = train_features
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

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
        outputs = self._outputs(X)
        return outputs[:, 0] if self._is_flat else outputs

    def _targets(self, y, previous):
        """Targets as they are."""
        y = np.asarray(y, dtype=float)
        n_targets = 1 if y.ndim == 1 else y.shape[1]
        if previous is not None and n_targets != previous.n_outputs:
            raise ValueError(
                f"warm_start=True needs the {previous.n_outputs} target(s) of the last fit; got "
                f"{n_targets}."
            )
        self._is_flat = y.ndim == 1
        return y

    def _compared(self, y):
        center, unit = self.network_.target_center, self.network_.target_unit
        return (y.reshape(len(y), -1).astype(float) - center) / unit, False
