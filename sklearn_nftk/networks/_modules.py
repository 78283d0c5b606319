"""Specifications of what the user has: a module, a net of skorch, or a function that makes one."""

import inspect
import sys

import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn

from ..tangents import group_layers
from ..utils._arrays import check_batch
from ..utils._progress import silent
from ._drawing import initialise_lazy_modules, private_copy, seeded
from ._tangents import tangent_kernels
from ._training import train


class ModuleSpecification:
    """A module of the user, which is copied and not touched."""

    allow_nd = True

    def __init__(self, module):
        self.module = module

    def kernel_source(
        self,
        X,
        y=None,
        sample_weight=None,
        seed=0,
        *,
        layers="module",
        outputs="mean",
        device="auto",
        dtype="auto",
        n_jobs=None,
        n_outputs=1,
        progress=silent,
    ):
        """Tangent kernels of the network, see `MLP.kernel_source`."""
        X = check_batch(X)
        network = self._network(X, y, sample_weight, seed, n_outputs, progress)
        return tangent_kernels(
            network, X, layers=layers, outputs=outputs, device=device, dtype=dtype, n_jobs=n_jobs
        )

    def _network(self, X, y, sample_weight, seed, n_outputs, progress):
        """Return a network of our own for data like X."""
        with seeded(seed):
            network = self.build(X.shape[1], n_outputs, seed)
            initialise_lazy_modules(network, X)
        return network

    def build(self, n_features, n_outputs, seed):
        """Return a network of our own, in evaluation mode on the CPU."""
        return private_copy(self.module)

    def layer_names(self, layers="module"):
        """Names of the layers."""
        return [layer.name for layer in group_layers(self.module, layers)]


class FunctionSpecification(ModuleSpecification):
    """A function ``(n_features, n_outputs, random_state) -> torch.nn.Module``, or a class."""

    def __init__(self, function):
        self.function = function

    def build(self, n_features, n_outputs, seed):
        """Call the function; torch's and numpy's global generators are those of `seeded`."""
        name = getattr(self.function, "__qualname__", repr(self.function))
        call = f"{name}(n_features={n_features}, n_outputs={n_outputs}, random_state={seed})"
        try:
            inspect.signature(self.function).bind(n_features, n_outputs, seed)
        except TypeError as error:
            raise ValueError(f"network: {call} is not possible: {error}. {self._advice}") from None
        except ValueError:  # a function that has no signature
            pass
        try:
            module = self.function(n_features, n_outputs, seed)
        except Exception as error:
            if not isinstance(self.function, type):
                raise
            raise ValueError(f"network: {call} failed: {error}. {self._advice}") from error
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"network: the function returned {type(module).__name__}, not a torch.nn.Module."
            )
        return private_copy(module)

    @property
    def _advice(self):
        if isinstance(self.function, type):
            return f"Pass a module, {self.function.__name__}(...), instead of its class."
        return "Pass a function (n_features, n_outputs, random_state) -> torch.nn.Module."

    def layer_names(self, layers="module"):
        """Names of the layers of a network of one feature and one output."""
        with seeded(0):
            return [layer.name for layer in group_layers(self.build(1, 1, 0), layers)]


class SkorchSpecification(ModuleSpecification):
    """An unfitted ``skorch.NeuralNet``, of which clones are trained."""

    is_trained = True

    def __init__(self, net):
        self.net = net

    def _network(self, X, y, sample_weight, seed, n_outputs, progress):
        with torch.inference_mode(False):
            return private_copy(train(clone(self.net), X, y, sample_weight, seed, progress))

    def layer_names(self, layers="module"):
        """Names of the layers of a network that is not trained."""
        with seeded(0):
            module = clone(self.net).initialize().module_
            return [layer.name for layer in group_layers(module, layers)]


def recognised(network):
    """Return the specification of a module, a net or a function, None for anything else."""
    if isinstance(network, FrozenEstimator):  # which keeps a fitted net fitted in clones
        network = network.estimator
    skorch = sys.modules.get("skorch")  # not loaded for the question
    if skorch is not None and isinstance(network, skorch.NeuralNet):
        if not network.initialized_:
            return SkorchSpecification(network)
        network = network.module_
    if isinstance(network, nn.Module):
        return ModuleSpecification(network)
    if callable(network) and (not isinstance(network, type) or issubclass(network, nn.Module)):
        return FunctionSpecification(network)
    return None
