"""Linear models in the tangents of a network at a checkpoint, as scikit-learn estimators."""

from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin
from torch import nn

from ..networks import validated
from ..utils._classes import LogitClassifierMixin, class_codes
from ..utils._sklearn import StrOptions
from ._linear_fit import BaseLinearized, SquaredError


class LinearizedClassifier(LogitClassifierMixin, BaseLinearized):
    """Classifier that is linear in the tangents of a network at a checkpoint.

    ``f_lin(x; w) = f(x; w_0) + J(x) (w - w_0)``, the first-order expansion of a network at its
    present parameters ``w_0`` [1]_, trained from there, without an intercept: the data-dependent
    tangent kernel at work, where ``w_0`` is what some epochs of training left. It predicts as well
    as the network goes on to do once the kernel has stopped to move.

    Both solvers minimise ``sum_i s_i loss(y_i, f_lin(x_i; w)) + alpha ||w - w_0||^2`` with sample
    weights s: "gradient" as far as its epochs go, "closed" exactly.

    Parameters
    ----------
    network : None, torch.nn.Module, skorch.NeuralNet, MLP or callable, default=None
        The checkpoint: as in :class:`sklearn_nftk.MultiLayerNTKClassifier`, with one output for
        each class, or one for two classes. It is copied, put into evaluation mode and otherwise
        left alone.
    solver : {"closed", "gradient"}, default="closed"
        "closed": kernel ridge regression of what the network leaves of the targets. "gradient":
        (stochastic) gradient steps from ``w_0``, by ``torch.func.jvp`` and without any kernel;
        needs skorch.
    loss : {"squared", "log_loss"}, default="squared"
        "squared": squared distance of the outputs from one-hot targets (-1 and 1 for a network
        with one output). A network that was trained on the cross-entropy has outputs on another
        scale, which this loss has to undo first; "log_loss" (gradient steps alone) goes on with
        the cross-entropy.
    kernel : {"trace", "block"}, default="trace"
        Of the closed form. "block": the kernel of pairs of a sample and an output, of
        (n n_outputs)^2 entries, which is where gradient steps lead to. "trace": the mean
        of its diagonal blocks, one kernel for all outputs; equal to it where the blocks are
        multiples of the identity, and for one output.
    alpha : float, default=1.0
        Penalty of the steps. 0 interpolates, with the shortest steps.
    lr : float, default=0.1
        Step size of "gradient".
    momentum : float, default=0.0
        Of "gradient", in [0, 1).
    batch_size : int or None, default=None
        Samples of a gradient step; None takes all of them: gradient descent.
    max_epochs : int, default=100
        Epochs of "gradient"; 0 is the network itself.
    device, dtype, n_jobs
        As in :func:`sklearn_nftk.kernels.layer_kernels`.
    random_state : int, RandomState instance or None, default=None
        Seeds batches, and networks that are drawn.
    verbose : int, default=0
        1 shows progress bars.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    network_ : torch.nn.Module
        The network at the checkpoint.
    n_outputs_ : int
        Its outputs.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        Where X has string columns.

    References
    ----------
    .. [1] Fort, Dziugaite, Paul, Kharaghani, Roy, Ganguli. Deep Learning versus Kernel Learning:
       an Empirical Study of Loss Landscape Geometry and the Time Evolution of the Neural Tangent
       Kernel. NeurIPS 2020.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk.dynamics import LinearizedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3)
    ... )
    >>> LinearizedClassifier(network).fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseLinearized._parameter_constraints,
        "loss": [StrOptions({"squared", "log_loss"})],
    }

    def __init__(
        self,
        network=None,
        *,
        solver="closed",
        loss="squared",
        kernel="trace",
        alpha=1.0,
        lr=0.1,
        momentum=0.0,
        batch_size=None,
        max_epochs=100,
        device="auto",
        dtype="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            network, solver=solver, kernel=kernel, alpha=alpha, lr=lr, momentum=momentum,
            batch_size=batch_size, max_epochs=max_epochs, device=device, dtype=dtype,
            n_jobs=n_jobs, random_state=random_state, verbose=verbose,
        )  # fmt: skip
        self.loss = loss

    # -- targets --------------------------------------------------------------------------------

    def _validated(self, X, y):
        if self.solver == "closed" and self.loss == "log_loss":
            raise ValueError("loss='log_loss' has no closed form; use solver='gradient'.")
        return validated(self.network, self, X, y)

    def _encoded(self, y):
        """Class codes; sets ``classes_``."""
        self.classes_, codes = class_codes(y)
        return codes

    def _accepted(self, codes):
        n_classes = len(self.classes_)
        return (1, 2) if n_classes == 2 else (n_classes,)

    def _targets(self, codes):
        """One-hot codes (n, O), or -1 and 1 for one output."""
        if self.n_outputs_ == 1:
            return 2.0 * codes[:, None] - 1
        return np.eye(self.n_outputs_)[codes]

    def _loss(self, codes):
        """Criterion of gradient steps, and its targets."""
        if self.loss == "squared":
            return SquaredError, self._targets(codes)
        if self.n_outputs_ == 1:
            return nn.BCEWithLogitsLoss, codes[:, None].astype(float)
        return nn.CrossEntropyLoss, codes


class LinearizedRegressor(RegressorMixin, BaseLinearized):
    """Regressor that is linear in the tangents of a network at a checkpoint.

    ``f_lin(x; w) = f(x; w_0) + J(x) (w - w_0)``, trained from ``w_0`` without an intercept, see
    :class:`LinearizedClassifier`: both solvers minimise
    ``sum_i s_i ||y_i - f_lin(x_i; w)||^2 + alpha ||w - w_0||^2``.

    Parameters
    ----------
    network : None, torch.nn.Module, skorch.NeuralNet, MLP or callable, default=None
        The checkpoint, with one output for each target.
    solver : {"closed", "gradient"}, default="closed"
        "closed": kernel ridge regression of what the network leaves of the targets. "gradient":
        (stochastic) gradient steps from ``w_0``, by ``torch.func.jvp`` and without any kernel;
        needs skorch.
    kernel : {"trace", "block"}, default="trace"
        Of the closed form, see :class:`LinearizedClassifier`; the same for one target.
    alpha : float, default=1.0
        Penalty of the steps. 0 interpolates, with the shortest steps.
    lr : float, default=0.1
        Step size of "gradient".
    momentum : float, default=0.0
        Of "gradient", in [0, 1).
    batch_size : int or None, default=None
        Samples of a gradient step; None takes all of them: gradient descent.
    max_epochs : int, default=100
        Epochs of "gradient"; 0 is the network itself.
    device, dtype, n_jobs
        As in :func:`sklearn_nftk.kernels.layer_kernels`.
    random_state : int, RandomState instance or None, default=None
        Seeds batches, and networks that are drawn.
    verbose : int, default=0
        1 shows progress bars.

    Attributes
    ----------
    network_ : torch.nn.Module
        The network at the checkpoint.
    n_outputs_ : int
        Its outputs.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        Where X has string columns.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn_nftk.dynamics import LinearizedRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(
    ...     torch.nn.Linear(10, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)
    ... )
    >>> LinearizedRegressor(network).fit(X, y).score(X, y) > 0.4
    True
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def predict(self, X):
        """Values of the linear model.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_targets)
        """
        outputs = self._outputs(X)
        return outputs.ravel() if self._is_flat else outputs

    # -- targets --------------------------------------------------------------------------------

    def _validated(self, X, y):
        return validated(self.network, self, X, y, multi_output=True, y_numeric=True)

    def _encoded(self, y):
        self._is_flat = y.ndim == 1
        return y.astype(float)

    def _accepted(self, Y):
        return (1 if Y.ndim == 1 else Y.shape[1],)

    def _targets(self, Y):
        return Y.reshape(len(Y), -1)

    def _loss(self, Y):
        return SquaredError, self._targets(Y)
