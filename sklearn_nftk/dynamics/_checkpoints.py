"""Checkpoints of one network as what is kernelised: times and layers to weight together."""

from sklearn.base import BaseEstimator

from ..grams import AverageKernels, StackedKernels
from ..kernels import layer_names
from ..networks import make_source
from ..utils._arrays import check_batch
from ._models import given_module


class CheckpointNTK(BaseEstimator):
    """Tangent kernels of a network at several times of its training.

    Takes the place of a network in the estimators, which then weight T x L kernels: the layers at
    each of T checkpoints. Its decisions are sums over times and layers, and contributions say what
    each of both gave.

    Networks that were trained on the rows that an estimator learns from know their labels, and
    leave-one-out on these rows is optimistic; better are checkpoints of a training on other rows.

    Parameters
    ----------
    networks : list of torch.nn.Module or fitted skorch.NeuralNet
        The checkpoints, with the same layers.
    epochs : list of float, default=None
        Their times, for the names of the layers, ``"epoch 0.4, conv1"``; None numbers them.
    average : bool, default=False
        Whether ``Theta_l`` is the mean over the checkpoints: L kernels instead of T x L, the
        kernel along the path of the training [1]_ for each layer.

    References
    ----------
    .. [1] Domingos. Every Model Learned by Gradient Descent Is Approximately a Kernel Machine.
       arXiv 2012.00152, 2020.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.dynamics import CheckpointNTK
    >>> X, y = load_iris(return_X_y=True)
    >>> networks = []
    >>> for seed in (0, 1):  # of a training: the network at two times
    ...     _ = torch.manual_seed(seed)
    ...     networks.append(torch.nn.Sequential(
    ...         torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    ...     ).double())
    >>> model = MultiLayerNTKClassifier(CheckpointNTK(networks, epochs=[0, 5])).fit(X, y)
    >>> model.layer_names_
    ['epoch 0, 0', 'epoch 0, 2', 'epoch 5, 0', 'epoch 5, 2']
    """

    allow_nd = True

    def __init__(self, networks, *, epochs=None, average=False):
        self.networks = networks
        self.epochs = epochs
        self.average = average

    def kernel_source(
        self,
        X,
        *,
        layers="module",
        outputs="mean",
        device="auto",
        dtype="auto",
        n_jobs=None,
    ):
        """Layer kernels of all checkpoints (`sklearn_nftk.kernels.KernelSource`).

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Samples, on some of which each network is checked.
        layers, outputs, device, dtype, n_jobs
            As in `sklearn_nftk.kernels.layer_kernels`.

        Returns
        -------
        KernelSource
        """
        X = check_batch(X)
        times = self._times(layers)
        sources = [
            make_source(
                network, X, layers=layers, outputs=outputs, device=device, dtype=dtype,
                n_jobs=n_jobs,
            )
            for network in self.networks
        ]  # fmt: skip
        return AverageKernels(sources) if self.average else StackedKernels(sources, times)

    def layer_names(self, layers="module"):
        """Names of the layers."""
        times = self._times(layers)
        names = layer_names(self.networks[0], layers=layers)
        if self.average:
            return names
        return StackedKernels.joined(times, [names] * len(times))

    def _times(self, layers):
        """Validate the parameters; a name for each checkpoint."""
        if isinstance(self.networks, str) or not len(self.networks):
            raise ValueError(f"networks must be a list of torch modules, got {self.networks!r}.")
        names = [
            layer_names(given_module(network, f"networks[{i}]"), layers=layers)
            for i, network in enumerate(self.networks)
        ]
        for i, of_network in enumerate(names):
            if of_network != names[0]:
                raise ValueError(
                    f"networks must have the same layers: those of networks[0] are {names[0]}, of "
                    f"networks[{i}] {of_network}."
                )
        if self.epochs is None:
            return [f"checkpoint {i}" for i in range(len(names))]
        if len(self.epochs) != len(names):
            raise ValueError(
                f"epochs must have one entry for each of the {len(names)} networks, got "
                f"{len(self.epochs)}."
            )
        return [f"epoch {epoch:g}" for epoch in self.epochs]
