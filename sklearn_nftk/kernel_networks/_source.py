"""Kernels of a trained kernel network, one for each layer: a kernel source."""

import torch

from ..closed_form._source import ClosedFormKernels, RowBatch
from ._gaussian import gaussian


class KernelNetworkKernels(ClosedFormKernels):
    """Gaussian kernels ``k_l(u, u')`` on the inputs u of each trained layer, the first included.

    What layers make of samples is computed once for each of them, and the kernels are closed forms
    of that, in float64.

    Parameters
    ----------
    names : list of str
        Of the layers.
    network : KernelNetwork
    initial : bool, default=False
        See `KernelNetwork.images`.
    specification : object, default=None
        What the network was made from.
    **options
        ``layers, device, dtype, n_jobs`` of `ClosedFormKernels`.
    """

    def __init__(self, names, *, network, initial=False, specification=None, **options):
        super().__init__(names, network=network, **options)
        self.initial = initial
        self.specification = specification
        self.n_outputs = network.n_outputs

    def network_outputs(self, X):
        """Outputs of the network, (n, n_outputs)."""
        return self.network.outputs(self.network.check_batch(X), self.device)

    def _checked(self, X):
        return self.network.check_batch(X)

    def _batch(self, X):
        images = self.network.images(X, device=self.device, initial=self.initial)
        inputs = [u.flatten(1).double() for u, _ in zip(images, self.network.layers, strict=False)]
        return RowBatch(**{f"u{layer}": (u, 0) for layer, u in enumerate(inputs)})

    def _planes(self, x, y):
        return [
            gaussian(getattr(x, f"u{index}"), getattr(y, f"u{index}"), layer.sigma)
            for index, layer in enumerate(self.network.layers)
        ]

    def _diagonal(self, batch):
        return [torch.ones(len(batch), dtype=torch.float64) for _ in self.network.layers]
