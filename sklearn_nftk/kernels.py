"""Layer kernels for any kernel method: as functions, as a transformer, and as a contract.

A *kernel source* is whatever yields layer kernels. Everything downstream - statistics, weights,
solvers, inspection - sees of it what `KernelSource` has: layer names, batches, blocks, diagonals.
A user's own takes the place of a network.
"""

from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted

from .networks import (
    CONSTRAINTS,
    NetworkParameter,
    allow_nd,
    checked,
    make_source,
    specification,
    training_targets,
    validated,
)
from .utils._kernel_source import KernelSource
from .utils._memory import require_memory
from .utils._progress import progress
from .utils._sklearn import StrOptions, check_sample_weight, fit_context
from .utils._tiles import slices

__all__ = ["KernelSource", "LayerKernels", "layer_kernel_diag", "layer_kernels", "layer_names"]

# Seed of networks drawn without a random_state of their own, so that two calls agree.
_DEFAULT_SEED = 0
# Rows of kernels with another batch between two steps of the progress bar.
_ROWS = 1024


def layer_kernels(
    network,
    X,
    Y=None,
    *,
    layers="module",
    outputs="mean",
    device="auto",
    dtype="auto",
    n_jobs=None,
    verbose=0,
):
    """Compute one tangent Gram matrix for each layer of a network.

    ``Theta_l(x, z) = (1/O) sum_o <d f_o(x)/d theta_l, d f_o(z)/d theta_l>``; their sum over the
    layers is the neural tangent kernel [1]_.

    Parameters
    ----------
    network : None, MLP, InfiniteMLP, InfiniteRNN, KernelSource, torch.nn.Module or callable
        None means the default of the estimators; a callable is called as ``network(n_features, 1,
        0)``. Networks drawn here without a `random_state` of their own are drawn with seed 0. Also
        any other object with a method ``kernel_source``.
    X : array-like or torch.Tensor of shape (n, ...)
        Integers reach the network as integers if it looks them up in an embedding, else as floats.
    Y : array-like or torch.Tensor of shape (m, ...), default=None
        None means X.
    layers : {"module", "block"} or dict, default="module"
        Which parameters form a layer: each module that owns parameters, each top-level child, or
        ``{layer name: [parameter-name patterns]}``. Infinitely wide networks have one set of
        layers, which patterns of their names group.
    outputs : {"mean", "sum", "per_class"}, default="mean"
        How several outputs are treated: the mean over outputs as above; the gradient of their sum;
        or each output alone.
    device : str or torch.device, default="auto"
        "auto" is CUDA when there is one, else the CPU.
    dtype : {"auto", "float32", "float64"}, default="auto"
        "auto" is the floating type of X, float64 for integers and for infinitely wide networks.
    n_jobs : int or None, default=None
        Tiles computed at once.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    ndarray of shape (n, m, L), or (H, n, m, L)
        The second for ``outputs="per_class"``, and for sources of several kernels for each layer.
        Samples before layers, so that scikit-learn's pairwise splitting works on it. In memory it
        is contiguous planes (n, m). Symmetric exactly when Y is None.

    Raises
    ------
    ValueError
        If the network has no trainable parameter, does not map (n, ...) to (n, O), mixes the
        samples of a batch, or overflows.

    References
    ----------
    .. [1] Jacot, Gabriel, Hongler. Neural Tangent Kernel: Convergence and Generalization in Neural
       Networks. NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nftk.kernels import layer_kernels, layer_names
    >>> from sklearn_nftk.networks import MLP
    >>> X = np.eye(3)
    >>> layer_kernels(MLP(hidden_layer_sizes=(16, 16)), X).shape
    (3, 3, 3)
    """
    _check_outputs(outputs)
    X = checked(network, X)
    source = make_source(
        network, X, seed=_DEFAULT_SEED, layers=layers, outputs=outputs, device=device, dtype=dtype,
        n_jobs=n_jobs,
    )  # fmt: skip
    batch, report = source.prepare(X), _report(verbose)
    if Y is None:
        planes = source.gram(batch, report)
    else:
        Y = checked(network, Y, "Y")
        try:
            other = source.prepare(Y)
        except ValueError as error:
            raise ValueError(f"Y: {error}") from error
        planes = _between(source, batch, other, report)
    return _handed_out(planes, outputs, 2)


def layer_kernel_diag(network, X, *, layers="module", outputs="mean", device="auto", dtype="auto"):
    """Compute ``Theta_l(x, x)`` for each sample and layer, without any Gram matrix.

    Parameters
    ----------
    network, X, layers, device, dtype
        As in `layer_kernels`.
    outputs : {"mean", "sum", "per_class"}, default="mean"

    Returns
    -------
    ndarray of shape (n, L), or (H, n, L)
        As in `layer_kernels`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nftk.kernels import layer_kernel_diag
    >>> from sklearn_nftk.networks import MLP
    >>> layer_kernel_diag(MLP(hidden_layer_sizes=(16,)), np.eye(4)).shape
    (4, 2)
    """
    _check_outputs(outputs)
    X = checked(network, X)
    source = make_source(
        network, X, seed=_DEFAULT_SEED, layers=layers, outputs=outputs, device=device, dtype=dtype
    )
    return _handed_out(source.diag(source.prepare(X)), outputs, 1)


def _check_outputs(outputs):
    accepted = ["mean", "sum", "per_class"]
    if outputs not in accepted:
        raise ValueError(f"outputs must be one of {accepted}, got {outputs!r}.")


def _handed_out(planes, outputs, n_axes):
    """At the public edge: samples before layers, and no axis for H where there is one kernel."""
    planes = np.moveaxis(planes, 1, 1 + n_axes)
    return planes if outputs == "per_class" or len(planes) > 1 else planes[0]


def _report(verbose):
    return progress if verbose else None


def _between(source, batch, other, report):
    """Kernels of two batches, (H, L, n, m), some rows at a time where somebody is told."""
    if report is None:
        return source.block(batch, other)
    shape = (*source.diag(batch[:1]).shape[:2], len(batch), len(other))
    n_bytes = source.dtype.itemsize * np.prod(shape, dtype=object)
    require_memory(n_bytes, f"A kernel stack of shape {shape}")
    rows_of_tiles = slices(len(batch), _ROWS)
    planes = np.empty(shape, source.dtype)
    with report(len(rows_of_tiles), "layer kernels") as bar:
        for rows in rows_of_tiles:
            planes[:, :, rows] = source.block(batch[rows], other)
            bar.update()
    return planes


def layer_names(network, *, layers="module"):
    """List the layers of a network, in the order of the kernels.

    Parameters
    ----------
    network : None, MLP, InfiniteMLP, InfiniteRNN, KernelSource, torch.nn.Module or callable
        As in `layer_kernels`.
    layers : {"module", "block"} or dict, default="module"

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If the layers depend on data.

    Examples
    --------
    >>> from sklearn_nftk.kernels import layer_names
    >>> from sklearn_nftk.networks import MLP
    >>> layer_names(MLP(hidden_layer_sizes=(64, 64)))
    ['layer0', 'layer1', 'layer2']
    """
    chosen = specification(network)
    names = getattr(chosen, "layer_names", None)
    if isinstance(names, list) and layers == "module":
        return list(names)
    if not callable(names):
        raise ValueError(
            f"network: the layers of {type(chosen).__name__} are those of "
            "kernel_source(X).layer_names."
        )
    return names(layers)


class LayerKernels(NetworkParameter, TransformerMixin, BaseEstimator):
    """Layer kernels of samples with the training set, as a step of a pipeline.

    In front of :class:`sklearn_nftk.MultipleKernelClassifier`, in a pipeline with ``memory``, it
    lets a grid go over the parameters of the learner while the kernels of each training fold are
    computed once. (scikit-learn keeps what steps make of training folds; kernels of test folds
    are computed for each candidate.)

    Parameters
    ----------
    network : None, MLP, InfiniteMLP, InfiniteRNN, KernelSource, torch.nn.Module or callable
        See `layer_kernels`; a callable is called as ``network(n_features, 1, seed)``.
    layers : {"module", "block"} or dict, default="module"
    outputs : {"mean", "sum"}, default="mean"
    device : str or torch.device, default="auto"
    dtype : {"auto", "float32", "float64"}, default="auto"
    n_jobs : int or None, default=None
        As in `layer_kernels`.
    random_state : int, RandomState instance or None, default=None
        Draws the network.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    layer_names_ : list of str
        L names.
    network_ : torch.nn.Module or specification
        Of which the kernels are.
    X_fit_ : ndarray of shape (n, ...)
        The training set.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        Where X has names of features.

    See Also
    --------
    layer_kernels : The same as a function.

    Notes
    -----
    What is computed once for each training sample is kept between calls of `transform`, but not
    when the estimator is pickled. The result has three axes, so there are no names of features
    (`get_feature_names_out`): the last axis is that of `layer_names_`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import Pipeline
    >>> from sklearn_nftk import MultipleKernelClassifier
    >>> from sklearn_nftk.kernels import LayerKernels
    >>> from sklearn_nftk.networks import InfiniteMLP
    >>> X, y = load_iris(return_X_y=True)
    >>> LayerKernels(InfiniteMLP(depth=2)).fit(X[:100]).transform(X).shape
    (150, 100, 3)
    >>> model = Pipeline([("kernels", LayerKernels()), ("mkl", MultipleKernelClassifier())])
    >>> grid = {"kernels__network__activation": ["relu", "gelu"], "mkl__C": ["auto", 1.0]}
    >>> bool(GridSearchCV(model, grid, cv=3).fit(X, y).best_score_ > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        **CONSTRAINTS,
        "outputs": [StrOptions({"mean", "sum"})],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        network=None,
        *,
        layers="module",
        outputs="mean",
        device="auto",
        dtype="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.network = network
        self.layers = layers
        self.outputs = outputs
        self.device = device
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = allow_nd(self.network)
        return tags

    def __getstate__(self):
        state = super().__getstate__().copy()
        state.pop("_batch", None)
        return state

    def fit(self, X, y=None, sample_weight=None):
        """Draw the network and keep the training set.

        Parameters
        ----------
        X : array-like of shape (n, ...)
        y : array-like of n targets, default=None
            For networks that are trained.
        sample_weight : array-like of shape (n,), default=None
            For networks that are trained.

        Returns
        -------
        self : LayerKernels
        """
        self._fit_source(X, y, sample_weight)
        return self

    def fit_transform(self, X, y=None, sample_weight=None):
        """Fit, and compute the kernels of the training set: symmetric exactly.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        ndarray of shape (n, n, L)
        """
        self._fit_source(X, y, sample_weight)
        return _handed_out(self._source.gram(self._batch, _report(self.verbose)), self.outputs, 2)

    def transform(self, X):
        """Compute the kernels of samples with the training set.

        Parameters
        ----------
        X : array-like of shape (m, ...)

        Returns
        -------
        ndarray of shape (m, n, L)
        """
        check_is_fitted(self)
        X = validated(self.network, self, X, reset=False)
        batch = self._source.prepare(X)
        planes = _between(self._source, batch, self._training_batch(), _report(self.verbose))
        return _handed_out(planes, self.outputs, 2)

    @fit_context(prefer_skip_nested_validation=True)
    def _fit_source(self, X, y, sample_weight):
        X = validated(self.network, self, X)
        check_consistent_length(X, y)
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, X)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        y, n_outputs = training_targets(y)
        source = make_source(
            self.network, X, y, sample_weight, int(seed), layers=self.layers, outputs=self.outputs,
            device=self.device, dtype=self.dtype, n_jobs=self.n_jobs, n_outputs=n_outputs,
            **({"progress": progress} if self.verbose else {}),
        )  # fmt: skip
        self._source, self._batch = source, source.prepare(X)
        self.layer_names_ = list(source.layer_names)
        self.network_ = getattr(source, "network", source)
        self.X_fit_ = X

    def _training_batch(self):
        batch = getattr(self, "_batch", None)
        if batch is None:
            batch = self._batch = self._source.prepare(self.X_fit_)
        return batch
