"""The multi-layer NTK regressor: network, layer kernels, statistics, weights, coefficients."""

from typing import ClassVar

from ..learner import KernelRegressorMixin
from ..utils._progress import fit_progress
from ..utils._sklearn import fit_context
from ._multi_layer import BaseMultiLayerNTK
from ._parameters import LEARNER, NETWORK, REGRESSOR


class MultiLayerNTKRegressor(KernelRegressorMixin, BaseMultiLayerNTK):
    """Kernel ridge regression on a learned convex combination of one tangent kernel per layer.

    The same learner as :class:`MultiLayerNTKClassifier` on real targets, one or several; its
    predictions are sums of what each layer and each training example contributed.

    Parameters
    ----------
    network : None, MLP, InfiniteMLP, InfiniteRNN, torch.nn.Module or callable, default=None
        As in :class:`MultiLayerNTKClassifier`; a callable gets the number of targets.
    layers, normalize, kernel_weights, p, shrinkage, tol, max_iter
        As in :class:`MultiLayerNTKClassifier`.
    C : float or "auto", default="auto"
        As there. One C serves all targets: scale them alike.
    device, dtype, n_jobs, random_state, verbose
        As in :class:`MultiLayerNTKClassifier`.
    outputs : {"mean", "sum", "per_class"}, default="mean"
        "per_class": each target uses the kernels of its own output alone.
    per_class : bool, default=True
        Whether each target learns weights of its own. False: one set for all.
    loss : {"squared"}, default="squared"

    Attributes
    ----------
    n_features_in_, feature_names_in_, network_, X_fit_
        As in :class:`MultiLayerNTKClassifier`.
    layer_names_, layer_scales_, kernel_weights_, dual_coef_, intercept_, C_, loo_scores_
        Likewise, with targets for decisions.
    layer_alignment_, target_alignment_, mean_contributions_, dual_gap_, n_iter_
        Likewise.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_nftk import MultiLayerNTKRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), MultiLayerNTKRegressor(random_state=0))
    >>> model.fit(X[:300], y[:300]).score(X[300:], y[300:]) > 0.4
    True
    """

    _parameter_constraints: ClassVar[dict] = {**NETWORK, **LEARNER, **REGRESSOR}

    def __init__(
        self,
        network=None,
        *,
        layers="module",
        outputs="mean",
        normalize="variance",
        kernel_weights="alignment",
        p=2.0,
        shrinkage="auto",
        per_class=True,
        loss="squared",
        C="auto",
        tol=1e-3,
        max_iter=100,
        device="auto",
        dtype="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.network = network
        self.layers = layers
        self.outputs = outputs
        self.normalize = normalize
        self.kernel_weights = kernel_weights
        self.p = p
        self.shrinkage = shrinkage
        self.per_class = per_class
        self.loss = loss
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.device = device
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit the regressor.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            As in :class:`MultiLayerNTKClassifier`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A weight of k means the same as k repetitions of the row; rows of weight
            0 are dropped first.

        Returns
        -------
        MultiLayerNTKRegressor
            The fitted estimator itself.

        Raises
        ------
        ValueError
            For invalid data or parameters, a network without exact tangent kernels, a device that
            is not there, or kernel values that overflow.
        MemoryError
            If the kernels would not fit into memory.
        """
        X, Y, s, sample_weight = self._training_set(X, y, sample_weight)
        self._check_parameters(len(X))
        with fit_progress(self, X, y, sample_weight) as report:
            self._fit_layers(X, Y, s, sample_weight, Y.shape[1], report)
        return self
