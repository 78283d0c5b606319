"""Greedy training of a kernel network: one layer after the other, each on frozen ones below.

Duan, Yu, Chen, Principe. On Kernel Method-Based Connectionist Models and Supervised Deep Learning
Without Backpropagation. Neural Computation 32(1), 2020.
"""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.utils import check_random_state

from ..utils._device import full_precision, resolve_device, resolve_dtype
from ..utils._progress import silent
from ..utils._random import global_generators
from ..utils._threads import one_torch_thread
from ._gaussian import exponent
from ._layer_training import Rows, train_head
from ._layers import KernelLayer, ModuleLayer
from ._losses import OutputLoss, Penalty
from ._network import KernelNetwork, blocks, private, suggested_width
from ._objectives import HiddenObjective
from ._samples import Targets, center_rows, divided
from ._settings import LayerSettings, hidden_widths, layer_settings


class Training(NamedTuple):
    """A trained network, and how its layers got there.

    Attributes
    ----------
    network : KernelNetwork
    loss_curves : list of L ndarrays of shape (n_epochs,)
    alignment_curves : list of L - 1 ndarrays of shape (n_epochs,)
        Of the hidden layers.
    """

    network: KernelNetwork
    loss_curves: list
    alignment_curves: list


class Plan(NamedTuple):
    """A layer that is to be trained.

    Attributes
    ----------
    name : str
    head : int or torch.nn.Module
        Number of kernel machines, or what is trained in their place.
    settings : LayerSettings
    seed : int
    is_output : bool
    """

    name: str
    head: int | torch.nn.Module
    settings: LayerSettings
    seed: int
    is_output: bool


def trained_network(
    settings,
    X,
    y,
    weights=None,
    seed=0,
    *,
    n_classes=None,
    device="auto",
    dtype="auto",
    progress=silent,
    previous=None,
):
    """Train a kernel network layer by layer.

    Hidden layer l is trained towards the ideal kernel matrix, by the kernel of layer l + 1 on its
    outputs; the output layer towards the targets. No gradient crosses a layer, and each layer
    draws from a seed of its own: what comes after it changes nothing in it.

    Parameters
    ----------
    settings : object
        Has the attributes of `CONSTRAINTS`.
    X : ndarray of shape (n, ...)
    y : ndarray of int, shape (n,), or of float, shape (n,) or (n, n_targets)
        Class codes, or real targets.
    weights : ndarray of shape (n,), default=None
        Positive; a common factor changes nothing.
    seed : int, default=0
    n_classes : int, default=None
        None is what the codes say.
    device, dtype
        As in `sklearn_nftk.kernels.layer_kernels`.
    progress : callable
        Told of the epochs of each layer.
    previous : KernelNetwork, default=None
        Whose centers are taken, and whose layers are gone on from where they fit.

    Returns
    -------
    Training
    """
    with torch.inference_mode(False), one_torch_thread(), full_precision():
        return _Greedy(settings, X, y, weights, seed, n_classes, device, dtype, previous).train(
            progress
        )


class _Greedy:
    """Training in progress: what the layers so far make of samples and of centers."""

    def __init__(self, settings, X, y, weights, seed, n_classes, device, dtype, previous):
        self.settings, self.previous = settings, previous
        self.device, self.dtype = resolve_device(device), resolve_dtype(dtype, X.dtype)
        features = None if settings.features is None else private(settings.features, self.dtype)
        modules = blocks(features) if settings.train_features else {}
        self.targets = Targets.of(y, weights, n_classes, self.dtype, self.device)
        first, self.plans = self._plans(modules, seed)
        self.seen, self.new = divided(settings, self.targets, first)
        self.network = network = KernelNetwork(
            X.shape[1:], str(self.dtype).removeprefix("torch."), None if modules else features
        )
        centers = (
            X[center_rows(settings.centers, self.targets, self.seen, first)]
            if previous is None
            else previous.centers
        )
        network.centers = centers
        self.u, self.centers = (network.inputs(A, self.device) for A in (X, centers))

    def _plans(self, modules, seed):
        """Seed of what layers share, and all layers in the order of training."""
        machines = [*hidden_widths(self.settings), self.targets.n_outputs]
        names = [*modules, *(f"layer{index}" for index in range(len(machines)))]
        of_layers = layer_settings(self.settings, len(names))
        first, *seeds = check_random_state(seed).randint(
            np.iinfo(np.int32).max, size=len(names) + 1
        )
        outputs = [False] * (len(names) - 1) + [True]
        columns = names, [*modules.values(), *machines], of_layers, map(int, seeds), outputs
        return int(first), [Plan(*row) for row in zip(*columns, strict=True)]

    def train(self, progress):
        """Train all layers."""
        loss_curves, alignment_curves = [], []
        sigma = self._width(0, self.u)
        for index, plan in enumerate(self.plans):
            with global_generators(plan.seed):
                layer, head = self._begun(plan, index, sigma)
                if not plan.is_output:
                    sigma = self._width(index + 1, layer(self.u))
                with progress(plan.settings.epochs, f"training of {plan.name}") as bar:
                    losses, alignments = self._trained(plan, layer, head, sigma, bar)
            layer.take(head)
            self.network.layers.append(layer)
            self.network.layer_names.append(plan.name)
            loss_curves.append(losses)
            if not plan.is_output:
                alignment_curves.append(alignments)
                self.u, self.centers = layer(self.u), layer(self.centers)
        self.targets.in_units(self.network.layers[-1])
        self.network.target_center = self.targets.center
        self.network.target_unit = self.targets.unit
        return Training(self.network, loss_curves, alignment_curves)

    def _width(self, index, u):
        """Width of the kernel on the inputs u of a layer: a network that goes on keeps its own."""
        sigma = self.plans[index].settings.sigma
        before = self._before(index)
        if before is not None and isinstance(sigma, str):
            return before.sigma
        return suggested_width(sigma, u)

    def _before(self, index):
        """The layer of the previous network in this place, if there is one."""
        layers = [] if self.previous is None else self.previous.layers
        if index >= len(layers) or (index == len(layers) - 1) != self.plans[index].is_output:
            return None
        return layers[index]

    def _begun(self, plan, index, sigma):
        """Layer before its training, and its head."""
        layer: KernelLayer | ModuleLayer
        head: torch.nn.Module
        if isinstance(plan.head, torch.nn.Module):
            layer, head = ModuleLayer(plan.head, sigma), plan.head
        else:
            self.u, self.centers = self.u.flatten(1), self.centers.flatten(1)
            layer = machines = KernelLayer(self.centers.cpu().numpy(), sigma)
            draw = machines.zeros if plan.is_output else machines.drawn
            head = draw(plan.head, self.dtype)
        before = self._before(index)
        if before is not None and layer.fits(before, plan.head):
            head = layer.again(before, self.dtype)
            if plan.is_output:
                self.targets.standardise(head)
        layer.begin(head)
        return layer, head

    def _trained(self, plan, layer, head, sigma, bar):
        """Curves of the training of a head, for which its layer stays as it is."""
        classes = self.targets.classes
        criterion: torch.nn.Module
        if plan.is_output:
            criterion = OutputLoss(self.settings.loss if classes else "squared")
        else:
            criterion = HiddenObjective(
                self.settings.objective,
                lambda F: exponent(F.flatten(1), F.flatten(1), sigma),
                classes=classes,
            )
        product = None
        if self.settings.penalty == "rkhs" and isinstance(layer, KernelLayer):
            product = layer.kernel_product(self.u)
        penalty = Penalty(plan.settings.weight_decay, product)
        targets = self.targets.output if plan.is_output else self.targets.hidden
        rows, *held_out = (
            Rows(layer, self.u[some], targets[some]) for some in (self.seen, self.new) if len(some)
        )
        with torch.enable_grad():
            return train_head(
                head.to(self.device), rows, criterion, penalty, *held_out,
                settings=plan.settings, common=self.settings, bar=bar,
            )  # fmt: skip
