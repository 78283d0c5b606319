"""Layer kernels of a network while it is trained."""

from numbers import Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from ..kernels import layer_kernels, layer_names
from ..utils._groups import layer_label
from ._callback import RecordingCallback
from ._checkpoints import CheckpointNTK
from ._distances import distance_matrix
from ._measures import Facts, distances, facts, probe_targets
from ._models import given_module, own_copy, samples

TOTAL = "total"


class KernelTrajectory(RecordingCallback, BaseEstimator):
    """Layer kernels of a network on the same probe samples, at several times of its training.

    A callback of skorch (``callbacks=[trajectory]``), or for a training loop of one's own the
    method `record`. The kernels are those of the network as it is, in evaluation mode; neither the
    network nor any random generator is touched, so training is the same with and without it.

    How far the kernel of layer l has moved is its `kernel_distance` from the first record, and its
    velocity at a record the distance from the record before, divided by the epochs between [1]_.

    Parameters
    ----------
    X_probe : array-like of shape (m, ...)
        The samples, at least 2.
    y_probe : array-like of shape (m,) or (m, n_targets), default=None
        Their labels, or real targets, for alignments and learned weights.
    layers : {"module", "block"} or dict, default="module"
        As in :func:`sklearn_nftk.kernels.layer_kernels`.
    every : float, default=0.4
        Epochs between two records of the callback, which also records the beginning and the end
        of the training. Records fall on the first batch after each multiple of it.
    store : {"grams", "products"}, default="grams"
        "grams" keeps the layers' Grams and copies of the network of every record, for `distances`
        between any two of them and for `checkpoints`. "products" keeps the Grams of the first and
        the last record, and a few numbers of each: memory does not grow with their number.
    outputs : {"mean", "sum"}, default="mean"
        As in :func:`sklearn_nftk.kernels.layer_kernels`.
    device, dtype, n_jobs
        As in :func:`sklearn_nftk.kernels.layer_kernels`.

    Attributes
    ----------
    epochs_ : ndarray of shape (T,)
        Times of the records.
    layer_names_ : list of str
        L names.
    grams_ : ndarray of shape (T, L, m, m)
        With ``store="grams"``.
    networks_ : list of torch.nn.Module
        The network at each record, with ``store="grams"``.

    References
    ----------
    .. [1] Fort, Dziugaite, Paul, Kharaghani, Roy, Ganguli. Deep Learning versus Kernel Learning:
       an Empirical Study of Loss Landscape Geometry and the Time Evolution of the Neural Tangent
       Kernel. NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn_nftk.dynamics import KernelTrajectory
    >>> X, y = load_iris(return_X_y=True)
    >>> X = X.astype(np.float32)
    >>> trajectory = KernelTrajectory(X[::5], y[::5], every=0.5)
    >>> network = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
    ... )
    >>> net = NeuralNetClassifier(
    ...     network, criterion=torch.nn.CrossEntropyLoss, max_epochs=2, batch_size=15, lr=0.1,
    ...     train_split=None, callbacks=[trajectory], verbose=0,
    ... ).fit(X, y)
    >>> trajectory.epochs_
    array([0. , 0.5, 1. , 1.5, 2. ])
    >>> trajectory.grams_.shape
    (5, 2, 30, 30)
    >>> trajectory.frame().columns.tolist()
    ['epoch', 'layer', 'kernel_distance', 'kernel_velocity', 'alignment', 'effective_rank', 'weight']
    """  # noqa: E501 - the output of the example cannot be wrapped

    epochs_: np.ndarray
    layer_names_: list[str]
    networks_: list
    _X: np.ndarray
    _targets: np.ndarray  # (m, n_decisions)
    _facts: list[Facts]
    _moved: list[np.ndarray]
    _velocities: list[np.ndarray]
    _ends: tuple  # Grams of the first and of the last record
    _grams: list[np.ndarray]

    def __init__(
        self,
        X_probe,
        y_probe=None,
        *,
        layers="module",
        every=0.4,
        store="grams",
        outputs="mean",
        device="auto",
        dtype="auto",
        n_jobs=None,
    ):
        self.X_probe = X_probe
        self.y_probe = y_probe
        self.layers = layers
        self.every = every
        self.store = store
        self.outputs = outputs
        self.device = device
        self.dtype = dtype
        self.n_jobs = n_jobs

    # -- records --------------------------------------------------------------------------------

    def record(self, module, epoch):
        """Measure the kernels of a network now.

        Parameters
        ----------
        module : torch.nn.Module or fitted skorch.NeuralNet
            Not modified. The same network, or one with the same layers, at each record.
        epoch : float
            When this is, later than the record before; any unit of time will do.

        Returns
        -------
        KernelTrajectory
            Itself.

        Raises
        ------
        ValueError
            For invalid parameters, times that do not grow, a network with other layers than
            before, or one without exact tangent kernels.
        """
        module = given_module(module, "module")
        if not hasattr(self, "epochs_"):
            self._begin(module)
        epoch = float(epoch)
        if len(self.epochs_) and not epoch > self.epochs_[-1]:
            raise ValueError(
                f"epoch must be larger than that of the record before, {self.epochs_[-1]:g}; got "
                f"{epoch:g}. initialize() forgets all records."
            )
        names = [layer_label(name) for name in layer_names(module, layers=self.layers)]
        if names != self.layer_names_:
            raise ValueError(
                f"module must have the layers of the first record, {self.layer_names_}; got "
                f"{names}."
            )
        planes = self._planes(module)
        measured = facts(planes, self._targets, self.layer_names_)
        moved, velocity = self._motion(planes, epoch)
        copied = own_copy(module, "module") if self.store == "grams" else None
        # All of a record, or where something failed nothing of it.
        self._facts.append(measured)
        self._moved.append(moved)
        self._velocities.append(velocity)
        self._ends = (self._ends[0] if self._ends else planes, planes)
        if copied is not None:
            self._grams.append(planes)
            self.networks_.append(copied)
        self.epochs_ = np.append(self.epochs_, epoch)
        return self

    def _begin(self, module):
        """Validate the parameters, before the first record."""
        if self.store not in ("grams", "products"):
            raise ValueError(f"store must be 'grams' or 'products', got {self.store!r}.")
        if self.outputs not in ("mean", "sum"):
            raise ValueError(f"outputs must be 'mean' or 'sum', got {self.outputs!r}.")
        if not (isinstance(self.every, Real) and float(self.every) > 0):
            raise ValueError(f"every must be a number of epochs > 0, got {self.every!r}.")
        X = samples(self.X_probe, "X_probe")
        if len(X) < 2:
            raise ValueError(
                f"X_probe must have at least 2 rows, got {len(X)}: the kernel of one sample has "
                "no direction to move in."
            )
        targets = probe_targets(self.y_probe, len(X))
        names = [layer_label(name) for name in layer_names(module, layers=self.layers)]
        if TOTAL in names:
            raise ValueError(
                f"layers: {TOTAL!r} stands for the sum of all layers; give that layer another "
                "name by layers={name: patterns}."
            )
        self._X, self._targets, self.layer_names_ = X, targets, names
        self._facts, self._moved, self._velocities, self._ends = [], [], [], ()
        if self.store == "grams":
            self._grams, self.networks_ = [], []
        self.epochs_ = np.empty(0)  # last: the mark that all of it is there

    def _planes(self, module):
        """Layer kernels of the probe, contiguous planes (L, m, m)."""
        kernels = layer_kernels(
            module, self._X, layers=self.layers, outputs=self.outputs, device=self.device,
            dtype=self.dtype, n_jobs=self.n_jobs,
        )  # fmt: skip
        return np.ascontiguousarray(np.moveaxis(kernels, -1, 0))

    def _motion(self, planes, epoch):
        """Distances from the first record, and velocities since the last one, (L + 1,) each."""
        if not self._ends:
            return distances(planes, planes), np.full(len(planes) + 1, np.nan)
        first, previous = self._ends
        elapsed = epoch - self.epochs_[-1]
        return distances(first, planes), distances(previous, planes) / elapsed

    # -- results ----------------------------------------------------------------------------------

    @property
    def grams_(self):
        """The layers' Grams at each record, (T, L, m, m)."""
        if not hasattr(self, "_grams"):
            raise AttributeError(
                "grams_ is there after the first record, with store='grams'; store='products' "
                "does not keep them."
            )
        return np.stack(self._grams)

    def distances(self, layer=TOTAL):
        """Distances of the kernels of all records from each other.

        Parameters
        ----------
        layer : str, default="total"
            One of ``layer_names_``, or "total", the sum of all layers.

        Returns
        -------
        ndarray of shape (T, T)
            `kernel_distance` of each pair; nan where a kernel is zero.

        Raises
        ------
        ValueError
            With ``store="products"``, or if there is no such layer.
        """
        index = self._index(layer)
        self._require_grams("distances")
        if layer == TOTAL:
            return distance_matrix(np.stack([K.sum(axis=0, dtype=float) for K in self._grams]))
        return distance_matrix(np.stack([planes[index] for planes in self._grams]))

    def velocity(self, layer=TOTAL):
        """Velocity of the kernel at each record since the one before.

        Parameters
        ----------
        layer : str, default="total"
            One of ``layer_names_``, or "total", the sum of all layers.

        Returns
        -------
        ndarray of shape (T,)
            In distances per epoch; nan at the first record.
        """
        return np.array(self._velocities)[:, self._index(layer)]

    def frame(self):
        """Return all measurements in long form.

        Returns
        -------
        pandas.DataFrame
            A row for each record and layer, the sum "total" last, with the columns

            - epoch, layer,
            - kernel_distance: from the first record,
            - kernel_velocity: from the record before, per epoch; nan at the first one,
            - alignment: centred, with the targets of all classes together; nan without y_probe,
            - effective_rank: ``tr(K^c)^2 / ||K^c||_F^2`` of the centred kernel, between 1 and
              m - 1,
            - weight: learned by alignment on kernels of variance 1 (``kernel_weights="alignment",
              normalize="variance", shrinkage=0``), the mean over the classes; nan for "total".
        """
        import pandas as pd

        self._require_records()
        names = [*self.layer_names_, TOTAL]
        columns = {
            "epoch": np.repeat(self.epochs_, len(names)),
            "layer": np.tile(np.array(names, dtype=object), len(self.epochs_)),
            "kernel_distance": np.ravel(self._moved),
            "kernel_velocity": np.ravel(self._velocities),
        }
        for name in ("alignment", "effective_rank", "weight"):
            columns[name] = np.ravel([getattr(of_record, name) for of_record in self._facts])
        return pd.DataFrame(columns)

    def checkpoints(self, epochs=None, *, average=False):
        """The recorded networks as what is kernelised, for the estimators.

        Parameters
        ----------
        epochs : array-like of float, default=None
            Times, for each of which the nearest record is taken, once; None is all records.
        average : bool, default=False
            As of :class:`CheckpointNTK`.

        Returns
        -------
        CheckpointNTK

        Raises
        ------
        ValueError
            With ``store="products"``.
        """
        self._require_records()
        self._require_grams("checkpoints")
        chosen = np.arange(len(self.epochs_))
        if epochs is not None:
            apart = np.abs(self.epochs_ - np.reshape(np.asarray(epochs, dtype=float), (-1, 1)))
            chosen = np.unique(apart.argmin(axis=1))
        return CheckpointNTK(
            [self.networks_[i] for i in chosen],
            epochs=self.epochs_[chosen].tolist(),
            average=average,
        )

    def _require_records(self):
        if not len(getattr(self, "epochs_", ())):
            raise NotFittedError(
                "This KernelTrajectory has no records yet; give it to a net of skorch as a "
                "callback, or call record."
            )

    def _require_grams(self, what):
        if self.store != "grams":
            raise ValueError(f"{what} needs store='grams'; store='products' keeps no Grams.")

    def _index(self, layer):
        self._require_records()
        names = [*self.layer_names_, TOTAL]
        if layer not in names:
            raise ValueError(f"layer must be one of {names}, got {layer!r}.")
        return names.index(layer)
