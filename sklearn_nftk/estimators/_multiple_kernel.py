"""The learner on precomputed kernels: stacks (n, m, L) from anywhere, with the pairwise tag."""

from typing import ClassVar

import numpy as np

from ..grams import StoredGrams
from ..learner import KernelClassifierMixin, KernelRegressorMixin
from ..utils._memory import require_memory
from ..utils._progress import fit_progress
from ..utils._sklearn import fit_context, validate_data
from ..utils._tiles import upper_tiles
from ._base import BaseMultipleKernelMachine
from ._parameters import CLASSIFIER, LEARNER, REGRESSOR

# Of the largest diagonal entry: what counts as asymmetry and not as rounding.
_ASYMMETRY = 1e-5
_TILE_ROWS = 512


class _BaseMultipleKernel(BaseMultipleKernelMachine):
    """Adds to the learner the validation of kernel stacks."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = True
        tags.input_tags.three_d_array = True
        return tags

    def _validated(self, X, y, **checks):
        X, y = validate_data(self, X, y, allow_nd=True, **checks)
        X = _stack(X)
        if X.shape[0] != X.shape[1]:
            raise ValueError(
                "X must hold the kernels of the training set with itself, shape (n, n, L) or "
                f"(n, n); got shape {X.shape}."
            )
        return X, y

    def _rows(self, X, kept):
        self._columns = None if kept.all() else np.flatnonzero(kept)
        return X if kept.all() else X[np.ix_(kept, kept)]

    def _check_parameters(self, n_rows):
        super()._check_parameters(n_rows)
        if self.normalize == "cosine":
            raise ValueError(
                "normalize='cosine' needs the diagonal of the kernels at test points, which a "
                "stack does not have; divide the kernels before, or use another normalize."
            )

    def _fit_stack(self, X, Y, s, sample_weight, report):
        """Fit on a validated stack (n, n, L)."""
        grams = self._training_grams(X, Y.shape[1])
        names = [f"kernel{index}" for index in range(X.shape[2])]
        return self._fit_grams(grams, names, Y, s, sample_weight, report)

    def _training_grams(self, X, n_decisions):
        """The kernels of a stack, which all decisions share."""
        _check_symmetric(X)
        planes = np.moveaxis(X, -1, 0)
        if not planes.flags.c_contiguous:
            require_memory(planes.nbytes, f"A copy of the kernel stack of shape {X.shape}")
            planes = np.ascontiguousarray(planes)
        return StoredGrams(planes)

    def _test_set(self, X):
        X = _stack(validate_data(self, X, allow_nd=True, reset=False))
        n_layers = self.kernel_weights_.shape[1]
        if X.shape[2] != n_layers:
            raise ValueError(
                f"X must hold {n_layers} kernels on its last axis as in fit, got shape {X.shape}."
            )
        return X

    def _blocks(self, X):
        """Yield ``(rows, kernels with the training set)``, shape (L, b, n_fit)."""
        step = self._rows_per_block(X.itemsize)
        for start in range(0, len(X), step):
            rows = slice(start, start + step)
            block = X[rows] if self._columns is None else X[rows][:, self._columns]
            # Matrix products want contiguous planes.
            yield rows, np.ascontiguousarray(np.moveaxis(block, -1, 0))


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
        How many one-vs-rest problems of the hinge loss are solved at once by threads.
    verbose : int, default=0
        1 shows progress where there is some to show.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
        Number of training rows, with those of weight 0.
    layer_names_ : list of str
        "kernel0", "kernel1", ...
    layer_scales_, kernel_weights_, dual_coef_, intercept_, C_, loo_scores_, temperature_
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

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit the classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_samples, n_kernels) or (n_samples, n_samples)
            Kernels of the training set with itself; two dimensions are one kernel.
        y : array-like of shape (n_samples,)
            Class labels, of any type.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A weight of k means the same as k repetitions of the row; rows of weight
            0 are dropped first.

        Returns
        -------
        MultipleKernelClassifier
            The fitted estimator itself.

        Raises
        ------
        ValueError
            For invalid data or parameters, or kernels that are not square and symmetric.
        MemoryError
            If there is no room to solve for a combined kernel.
        """
        X, Y, s, sample_weight = self._training_set(X, y, sample_weight)
        self._check_parameters(len(X))
        with fit_progress(self, X, y, sample_weight) as report:
            self._fit_stack(X, Y, s, sample_weight, report)
        return self


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
    layer_names_, layer_scales_, kernel_weights_, dual_coef_, intercept_, C_, loo_scores_
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

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit the regressor.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_samples, n_kernels) or (n_samples, n_samples)
            Kernels of the training set with itself; two dimensions are one kernel.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A weight of k means the same as k repetitions of the row; rows of weight
            0 are dropped first.

        Returns
        -------
        MultipleKernelRegressor
            The fitted estimator itself.

        Raises
        ------
        ValueError
            For invalid data or parameters, or kernels that are not square and symmetric.
        MemoryError
            If there is no room to solve for a combined kernel.
        """
        X, Y, s, sample_weight = self._training_set(X, y, sample_weight)
        self._check_parameters(len(X))
        with fit_progress(self, X, y, sample_weight) as report:
            self._fit_stack(X, Y, s, sample_weight, report)
        return self


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
