"""Base of the estimators: rows -> greedy training -> outputs, images and Grams of the layers."""

from typing import ClassVar

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted

from ..learner import array_keys, distinct_rows
from ..utils._device import resolve_device
from ..utils._progress import fit_progress
from ..utils._sklearn import CallbackSupportMixin, check_sample_weight, fit_context, validate_data
from ._alignment import ideal_alignments
from ._settings import CONSTRAINTS
from ._training import trained_network


class BaseKernelMLP(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator
):
    """Kernel machines in layers, trained one layer after the other.

    Subclasses provide ``_targets(y, sample_weight)``, which sets what they need to predict and
    returns class codes or real targets (n, ...), ``_validation`` of targets, and ``_compared(y)``,
    targets as hidden layers see them.
    """

    _parameter_constraints: ClassVar[dict] = {
        **CONSTRAINTS,
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "dtype": "no_validation",  # names, numpy and torch types: utils/_device.py
        "verbose": ["verbose"],
    }
    _validation: ClassVar[dict] = {}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = self.features is not None
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Train all layers, the first at first.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            More than two dimensions where `features` takes them.
        y : array-like of shape (n_samples,), or (n_samples, n_targets) for a regressor
            Class labels of any type, or real targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A weight of k means the same as k repetitions of the row; a common factor
            changes nothing. Rows of weight 0 are dropped first.

        Returns
        -------
        estimator
            The fitted estimator itself.

        Raises
        ------
        ValueError
            For invalid data or parameters, a device that is not there, or training that diverges.
        ImportError
            Without skorch.
        """
        previous = getattr(self, "network_", None) if self.warm_start else None
        X, y = self._validated(X, y, reset=previous is None, **self._validation)
        sample_weight = check_sample_weight(sample_weight, y)
        kept = np.flatnonzero(sample_weight)
        if not len(kept):
            raise ValueError("sample_weight must be positive for at least one sample.")
        targets = self._targets(y[kept], previous)
        # One row is one distinct (x, y), in an order that is not that of the rows as they came.
        rows = distinct_rows(array_keys(X[kept]), targets.reshape(len(kept), -1))
        weights = rows.total(sample_weight[kept])[rows.order]
        first = rows.first[rows.order]
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        with fit_progress(self, X, y, sample_weight) as report:
            training = trained_network(
                self,
                X[kept][first],
                targets[first],
                weights,
                seed,
                n_classes=len(getattr(self, "classes_", ())),
                device=self.device,
                dtype=self.dtype,
                progress=report,
                previous=previous,
            )
        self.network_ = network = training.network
        self.layer_names_ = list(network.layer_names)
        self.sigmas_ = network.sigmas
        self.loss_curve_ = training.loss_curves
        self.alignment_curve_ = training.alignment_curves
        self._n_features_out = self._width_of_images(network, X)
        return self

    def transform(self, X, layer=-1):
        """Images of samples under a hidden layer.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As in `fit`.
        layer : int, default=-1
            0 is the first hidden layer, -1 the last; trained modules of `features` are the first.
            Without hidden layers the only one is 0 or -1, what the output layer takes.

        Returns
        -------
        ndarray of shape (n_samples, n_machines)

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        X = self._test_set(X)
        n_hidden = max(1, len(self.layer_names_) - 1)
        if not -n_hidden <= layer < n_hidden:
            raise ValueError(
                f"layer must be in [{-n_hidden}, {n_hidden - 1}], one of {n_hidden} hidden "
                f"layers, got {layer!r}."
            )
        index = layer % n_hidden if len(self.layer_names_) > 1 else -1
        images = self.network_.image(X, index, self._device())
        return images.reshape(len(images), -1)

    def layer_grams(self, X):
        """Gram matrices of the kernels on the inputs of all trained layers.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_samples, L)
            The first is that of the samples (or of what frozen `features` make of them), the one
            of layer l + 1 is what layer l was trained for. In memory it is L contiguous planes.

        Raises
        ------
        MemoryError
            If they do not fit.
        """
        source, batch = self._kernels(self._test_set(X))
        return np.moveaxis(source.gram(batch)[0], 0, 2)

    def score_hidden(self, X, y, sample_weight=None):
        """Alignment of each hidden layer with the ideal kernel matrix.

        ``<K, G> / (||K|| ||G||)`` (not centred), where K is the Gram of the layer's images under
        the kernel of the layer after it, and G is 1 for pairs of one class and 0 for others (of
        real targets, a Gaussian kernel of them).

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            As in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Labels or targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Pairs count by the products of their weights.

        Returns
        -------
        ndarray of shape (n_hidden,)
            Between 0 and 1.
        """
        X = self._test_set(X)
        check_consistent_length(X, y)
        weights = check_sample_weight(sample_weight, X)
        source, batch = self._kernels(X)
        return self._alignments(source, batch, y, weights)[1:]

    # -- data and kernels ------------------------------------------------------------------------

    def _validated(self, X, y="no_validation", *, allow_nd=None, **checks):
        # Features may look integers up.
        allow_nd = self.features is not None if allow_nd is None else allow_nd
        dtype = [np.float64, np.float32] if self.features is None else "numeric"
        return validate_data(self, X, y, allow_nd=allow_nd, dtype=dtype, **checks)

    def _test_set(self, X):
        check_is_fitted(self)
        return self._validated(X, reset=False, allow_nd=self.network_.allow_nd)

    def _outputs(self, X):
        X = self._test_set(X)
        return self.network_.outputs(X, self._device())

    def _device(self):
        return resolve_device(self.device, fallback=True)

    def _kernels(self, X, *, initial=False):
        """Kernels of the layers, or what they were before their training, and prepared samples."""
        source = self.network_.kernel_source(
            X, device=self._device(), dtype="float64", initial=initial
        )
        return source, source.prepare(X)

    def _alignments(self, source, batch, y, weights=None):
        """Alignments (L,) of all kernels with the ideal kernel matrix."""
        weights = np.ones(len(batch)) if weights is None else weights
        targets, classes = self._compared(np.asarray(y))
        return ideal_alignments(source, batch, targets, classes=classes, weights=weights)

    def _width_of_images(self, network, X):
        index = max(0, len(network.layers) - 1) - 1
        return int(np.prod(network.image(X[:1], index).shape[1:]))
