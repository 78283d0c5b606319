"""The multi-layer NTK regressor: network, layer kernels, statistics, weights, coefficients."""

from typing import ClassVar

from ._multi_layer import BaseMultiLayerNTK
from ._parameters import KERNELISED, LEARNER, REGRESSOR
from ._regression import KernelRegressorMixin


class MultiLayerNTKRegressor(KernelRegressorMixin, BaseMultiLayerNTK):
    """Kernel ridge regression on a learned convex combination of one tangent kernel per layer.

    The same learner as :class:`MultiLayerNTKClassifier` on real targets, one or several; its
    predictions are sums of what each layer and each training example contributed.

    Parameters
    ----------
    network : None, MLP, InfiniteMLP, InfiniteRNN, KernelSource, torch.nn.Module, \
            skorch.NeuralNet or callable, default=None
        As in :class:`MultiLayerNTKClassifier`; a callable gets the number of targets.
    layers, n_networks, cv, normalize, kernel_weights, p, shrinkage, tol, max_iter
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
    n_features_in_, feature_names_in_, network_, networks_, X_fit_, index_fit_
        As in :class:`MultiLayerNTKClassifier`.
    layer_names_, layer_scales_, kernel_weights_, dual_coef_, intercept_, C_, loo_scores_, \
            oof_scores_
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

    _parameter_constraints: ClassVar[dict] = {**KERNELISED, **LEARNER, **REGRESSOR}

    def __init__(
        self,
        network=None,
        *,
        layers="module",
        outputs="mean",
        n_networks=1,
        cv=None,
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
        self.n_networks = n_networks
        self.cv = cv
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
