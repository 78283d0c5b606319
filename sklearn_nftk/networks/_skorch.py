"""Specification of what the user trains with: a skorch net that is not fitted yet."""

import sys

import torch
from sklearn.base import clone

from ..tangents import group_layers
from ..utils._arrays import check_batch
from ..utils._progress import silent
from ._drawing import private_copy, seeded
from ._tangents import tangent_kernels
from ._training import train


class SkorchSpecification:
    """An unfitted ``skorch.NeuralNet``, of which clones are trained."""

    allow_nd = True
    is_trained = True

    def __init__(self, net):
        self.net = net

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
        progress=silent,
    ):
        """Tangent kernels of the trained network, see `MLP.kernel_source`."""
        X = check_batch(X)
        with torch.inference_mode(False):
            network = train(clone(self.net), X, y, sample_weight, seed, progress)
        return tangent_kernels(
            private_copy(network),
            X,
            layers=layers,
            outputs=outputs,
            device=device,
            dtype=dtype,
            n_jobs=n_jobs,
        )

    def layer_names(self, layers="module"):
        """Names of the layers of a network that is not trained."""
        with seeded(0):
            return [a.name for a in group_layers(clone(self.net).initialize().module_, layers)]


def unwrapped(network):
    """Return what a skorch net stands for; anything else is returned as it is.

    A fitted net is its module, which is used as it is. skorch is not loaded for the question.
    """
    skorch = sys.modules.get("skorch")
    if skorch is None or not isinstance(network, skorch.NeuralNet):
        return network
    return network.module_ if network.initialized_ else SkorchSpecification(network)
