"""The learner on precomputed kernels: stacks (n, m, L) from anywhere, with the pairwise tag."""

from typing import ClassVar

import numpy as np

from ..grams import StoredGrams
from ..learner import kernel_keys, learn
from ..utils._memory import require_memory
from ..utils._progress import fit_progress
from ..utils._row_ids import row_ids
from ..utils._sklearn import fit_context, validate_data
from ..utils._tiles import upper_tiles
from ._base import BaseKernelMachine
from ._classification import KernelClassifierMixin
from ._parameters import CLASSIFIER, LEARNER, REGRESSOR
from ._regression import KernelRegressorMixin

# Of the largest diagonal entry: what counts as asymmetry and not as rounding.
_ASYMMETRY = 1e-5
_TILE_ROWS = 512


class _BaseMultipleKernel(BaseKernelMachine):
    """Adds to the learner the validation of kernel stacks."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = True
        tags.input_tags.three_d_array = True
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Learn from the kernels of a training set.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_samples, n_kernels) or (n_samples, n_samples)
            Kernels of the training set with itself; two dimensions are one kernel.
        y : array-like of shape (n_samples,), or (n_samples, n_targets) for a regressor
            Class labels of any type, or real targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A weight of k means the same as k repetitions of the row; a factor
            common to all changes nothing but ``C_``. Rows of weight 0 are dropped first.

        Returns
        -------
        estimator
            The fitted estimator itself.

        Raises
        ------
        ValueError
            For invalid data or parameters, or kernels that are not square and symmetric.
        MemoryError
            If there is no room to solve for a combined kernel.
        """
        stack, targets = self._validated(X, y)
        training = self._training_set(stack, targets, sample_weight)
        self._check_parameters(training)
        with fit_progress(self, X, y, sample_weight) as report:
            grams = self._grams(stack, training)  # layer kernels
            problem = training.problem(grams, self._options())
            fitted = learn(problem, report)  # -> statistics -> weights -> dual coefficients
            self._columns = None if len(training.first) == len(stack) else training.first
            self._grams_fit = grams
            self._keep(fitted, training, row_ids(X, y))
        return self

    def _check_parameters(self, training):
        super()._check_parameters(training)
        if self.normalize == "cosine":
            raise ValueError(
                "normalize='cosine' needs the diagonal of the kernels at test points, which a "
                "stack does not have; divide the kernels before, or use another normalize."
            )

    def _validated(self, X, y, **checks):
        _check_layout(X)
        X, y = validate_data(self, X, y, allow_nd=True, **checks)
        X = _stack(X)
        if X.shape[0] != X.shape[1]:
            raise ValueError(
                "X must hold the kernels of the training set with itself, shape (n, n, L) or "
                f"(n, n); got shape {X.shape}."
            )
        return X, y

    def _test_set(self, X):
        _check_layout(X, self.n_features_in_)
        X = _stack(validate_data(self, X, allow_nd=True, reset=False))
        n_layers = self.kernel_weights_.shape[1]
        if X.shape[2] != n_layers:
            raise ValueError(
                f"X must hold {n_layers} kernels on its last axis as in fit, got shape {X.shape}."
            )
        return X

    def _keys(self, X, rows):
        return kernel_keys(np.moveaxis(X, -1, 0), rows)

    def _grams(self, X, training):
        """Kernels of the distinct rows, which all decisions share."""
        _check_symmetric(X)
        first = training.first
        planes = np.moveaxis(X, -1, 0)
        if len(first) != len(X) or not planes.flags.c_contiguous:
            shape = (len(planes), len(first), len(first))
            n_bytes = planes.itemsize * np.prod(shape, dtype=float)
            require_memory(n_bytes, f"A copy of the kernel stack of shape {shape}")
            planes = np.ascontiguousarray(
                planes if len(first) == len(X) else planes[:, first[:, None], first]
            )
        return StoredGrams(planes[None], [f"kernel{index}" for index in range(len(planes))])

    def _problem_of(self, X, training):
        """State what is to be learned from another training set."""
        return training.problem(self._grams(X, training), self._fitted.options)

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_grams_fit", None)  # too large to be kept for what may be asked
        return state

    def _training_grams(self):
        grams = getattr(self, "_grams_fit", None)
        if grams is None:
            raise ValueError(
                "estimator does not know the kernels of its training set: they are not pickled "
                "with an estimator on precomputed kernels. Fit it again on them."
            )
        return grams

    def _blocks(self, X, step):
        """Yield ``(rows, kernels with the distinct training rows)``, (1, L, b, m)."""
        for start in range(0, len(X), step):
            rows = slice(start, start + step)
            block = X[rows] if self._columns is None else X[rows][:, self._columns]
            # Matrix products want contiguous planes.
            yield rows, np.ascontiguousarray(np.moveaxis(block, -1, 0))[None]


class MultipleKernelClassifier(KernelClassifierMixin, _BaseMultipleKernel):
    """Multiple kernel classifier on precomputed kernels.

    Learns convex weights over L kernels of any kind - RBF of several widths, graph or string
    kernels, layer kernels kept from before - and a kernel machine on their combination. It is what
    :class:`MultiLayerNTKClassifier` does once its layer kernels are there.

    Parameters
    ----------
    normalize : {"variance", "trace", "none"}, default="variance"
        Scale of each kernel: its variance in feature space over the training set, its mean
        diagonal, or 1. The choice decides the learned weights.
    kernel_weights, p, shrinkage, per_class, loss, C, class_weight, tol, max_iter
        As in :class:`MultiLayerNTKClassifier`.
    n_jobs : int or None, default=None
        Threads that the machines of the decisions are shared among; None means all cores that are
        there to be used, and one inside a worker of joblib.
    verbose : int, default=0
        1 shows progress where there is some to show.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
        Number of training rows, with those of weight 0.
    layer_names_ : list of str
        "kernel0", "kernel1", ...
    layer_scales_, kernel_weights_, dual_coef_, intercept_, C_, loo_scores_, temperature_, \
            class_codes_, index_fit_
        As in :class:`MultiLayerNTKClassifier`, with kernels for layers.
    layer_alignment_, target_alignment_, mean_contributions_, dual_gap_, n_iter_
        Likewise.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.metrics.pairwise import rbf_kernel
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn_nftk import MultipleKernelClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> stack = np.stack([rbf_kernel(X, gamma=gamma) for gamma in (0.01, 0.1, 1.0)], axis=-1)
    >>> bool(cross_val_score(MultipleKernelClassifier(), stack, y).mean() > 0.95)
    True
    """

    _parameter_constraints: ClassVar[dict] = {**LEARNER, **CLASSIFIER}

    def __init__(
        self,
        *,
        normalize="variance",
        kernel_weights="alignment",
        p=2.0,
        shrinkage="auto",
        per_class=True,
        loss="squared",
        C="auto",
        class_weight=None,
        tol=1e-3,
        max_iter=100,
        n_jobs=None,
        verbose=0,
    ):
        self.normalize = normalize
        self.kernel_weights = kernel_weights
        self.p = p
        self.shrinkage = shrinkage
        self.per_class = per_class
        self.loss = loss
        self.C = C
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.verbose = verbose


class MultipleKernelRegressor(KernelRegressorMixin, _BaseMultipleKernel):
    """Multiple kernel ridge regression on precomputed kernels.

    The same learner as :class:`MultipleKernelClassifier` on real targets, one or several.

    Parameters
    ----------
    normalize, kernel_weights, p, shrinkage, C, tol, max_iter, n_jobs, verbose
        As in :class:`MultipleKernelClassifier`. One C serves all targets: scale them alike.
    per_class : bool, default=True
        Whether each target learns weights of its own. False: one set for all.
    loss : {"squared"}, default="squared"

    Attributes
    ----------
    n_features_in_ : int
    layer_names_, layer_scales_, kernel_weights_, dual_coef_, intercept_, C_, loo_scores_, \
            index_fit_
        As in :class:`MultipleKernelClassifier`, with targets for decisions.
    layer_alignment_, target_alignment_, mean_contributions_, dual_gap_, n_iter_
        Likewise.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.metrics.pairwise import rbf_kernel
    >>> from sklearn_nftk import MultipleKernelRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> stack = np.stack([rbf_kernel(X, gamma=gamma) for gamma in (1.0, 10.0)], axis=-1)
    >>> MultipleKernelRegressor().fit(stack, y).kernel_weights_.shape
    (1, 2)
    """

    _parameter_constraints: ClassVar[dict] = {**LEARNER, **REGRESSOR}

    def __init__(
        self,
        *,
        normalize="variance",
        kernel_weights="alignment",
        p=2.0,
        shrinkage="auto",
        per_class=True,
        loss="squared",
        C="auto",
        tol=1e-3,
        max_iter=100,
        n_jobs=None,
        verbose=0,
    ):
        self.normalize = normalize
        self.kernel_weights = kernel_weights
        self.p = p
        self.shrinkage = shrinkage
        self.per_class = per_class
        self.loss = loss
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.verbose = verbose


def _check_layout(X, n_fit=None):
    """Refuse kernels along the first axis: lists of kernels, and stacks (L, n, m).

    `n_fit` is the number of training samples, None in fit.
    """
    shape = _shape(X)
    if shape is None or len(shape) != 3:
        return
    n_samples, n_columns, last = shape
    kernels_first = n_samples != n_columns == last if n_fit is None else n_columns != n_fit == last
    if kernels_first:
        raise ValueError(
            "X must have shape (n, n, L) in fit and (n_test, n, L) in predict, the kernels along "
            f"the last axis; got shape {shape}, a list of kernels or a stack that has them "
            "first. Use np.stack(kernels, axis=-1) or np.moveaxis(X, 0, -1)."
        )


def _shape(X):
    try:
        return np.shape(X)
    except (TypeError, ValueError):  # no array at all, or ragged: validation says it better
        return None


def _stack(X):
    """A stack (n, m, L) of floats; two dimensions are one kernel."""
    if X.ndim > 3:
        raise ValueError(f"X must have shape (n, m, L) or (n, m), got shape {X.shape}.")
    X = X if X.ndim == 3 else X[:, :, None]
    return X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)


def _check_symmetric(X):
    scale = np.abs(np.einsum("iil->il", X)).max(axis=0)
    for rows, columns in upper_tiles(len(X), _TILE_ROWS):
        difference = np.abs(X[rows, columns] - X[columns, rows].swapaxes(0, 1)).max(axis=(0, 1))
        if (difference > _ASYMMETRY * scale).any():
            index = int((difference > _ASYMMETRY * scale).argmax())
            raise ValueError(
                f"X must be symmetric in its first two axes; X[:, :, {index}] is not."
            )
