"""Kernel machines in layers, described the scikit-learn way: trained, then their kernels."""

from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state

from ..kernel_networks._network import blocks
from ..kernel_networks._settings import CONSTRAINTS, hidden_widths
from ..kernel_networks._training import trained_network
from ..utils._arrays import check_batch
from ..utils._progress import silent


class KernelMLP(BaseEstimator):
    """Layers of kernel machines, trained one after the other, each of which has a kernel.

    The network of :class:`sklearn_nftk.kernel_networks.KernelMLPClassifier` as a source of layer
    kernels: the kernel of layer l is the Gaussian kernel on what the trained layers below make of
    samples, that of the first layer on the samples themselves [1]_. Weights over the layers then
    tell how deep a class is decided. The kernels were trained on labels: give the estimator `cv`,
    so that weights and C are chosen on rows that are new to the networks.

    Parameters
    ----------
    hidden_layer_sizes, sigmas, centers, objective, learning_rates, weight_decays, epochs, \
            batch_size, penalty, features, train_features, early_stopping, validation_fraction, \
            n_iter_no_change
        As in :class:`sklearn_nftk.kernel_networks.KernelMLPClassifier`.
    loss : {"log_loss", "hinge", "squared"}, default="log_loss"
        Of the output layer, for classes; real targets have squared errors.
    random_state : int, RandomState instance or None, default=None
        Draws centers, first weights and batches. None takes the seed from whoever trains the
        network: the estimator's `random_state`.

    See Also
    --------
    sklearn_nftk.kernel_networks.KernelMLPClassifier : The network itself as a classifier.

    References
    ----------
    .. [1] Duan, Yu, Chen, Principe. On Kernel Method-Based Connectionist Models and Supervised
       Deep Learning Without Backpropagation. Neural Computation 32(1), 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import scale
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.networks import KernelMLP
    >>> X, y = load_iris(return_X_y=True)
    >>> network = KernelMLP(hidden_layer_sizes=(15, 15), epochs=50)
    >>> model = MultiLayerNTKClassifier(network, cv=3, random_state=0).fit(scale(X), y)
    >>> model.layer_names_
    ['layer0', 'layer1', 'layer2']
    >>> model.kernel_weights_.shape  # classes x layers
    (3, 3)
    """

    _parameter_constraints: ClassVar[dict] = CONSTRAINTS

    is_trained = True

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
        loss="log_loss",
        penalty="l2",
        features=None,
        train_features=False,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        random_state=None,
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
        self.random_state = random_state

    @property
    def allow_nd(self):
        """Whether samples may be images: where there are features to take them."""
        return self.features is not None

    def kernel_source(
        self,
        X,
        y=None,
        sample_weight=None,
        seed=0,
        *,
        layers="module",
        device="auto",
        dtype="auto",
        n_jobs=None,
        n_outputs=1,
        progress=silent,
    ):
        """Train the network; kernels (`sklearn_nftk.kernels.KernelSource`) of its layers.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            The training set.
        y : ndarray of int, shape (n,), or of float, shape (n,) or (n, n_targets)
            Class codes, or real targets.
        sample_weight : ndarray of shape (n,), default=None
            Of the rows in training; rows of weight 0 are left out.
        seed : int, default=0
            Used when the specification has no `random_state` of its own.
        layers : {"module", "block"} or dict, default="module"
            A dictionary of patterns of layer names adds kernels up.
        device, dtype, n_jobs
            As in `sklearn_nftk.kernels.layer_kernels`.
        n_outputs : int, default=1
            Number of classes.
        progress : callable
            Told of the epochs of each layer.

        Returns
        -------
        KernelNetworkKernels

        Raises
        ------
        ValueError
            For parameters that are not acceptable, by their names, or without y.
        """
        X = check_batch(X, allow_nd=self.allow_nd)
        self._validate_params()
        if y is None:
            raise ValueError("network: it is trained in fit, and that needs y.")
        y = np.asarray(y)
        if sample_weight is not None:
            rows = np.flatnonzero(sample_weight)
            X, y, sample_weight = X[rows], y[rows], np.asarray(sample_weight)[rows]
        own = self.random_state
        training = trained_network(
            self,
            X,
            y,
            sample_weight,
            check_random_state(seed if own is None else own).randint(np.iinfo(np.int32).max),
            n_classes=n_outputs,
            device=device,
            dtype=dtype,
            progress=progress,
        )
        return training.network.kernel_source(
            X[:1], layers=layers, device=device, dtype=dtype, n_jobs=n_jobs,
            specification=clone(self),
        )  # fmt: skip

    def layer_names(self, layers="module"):
        """Names of the layers, which do not depend on the data."""
        if isinstance(layers, dict):
            return list(layers)
        modules = blocks(self.features) if self.train_features else {}
        return [*modules, *(f"layer{index}" for index in range(len(hidden_widths(self)) + 1))]
