"""Kernel expansions of infinitely wide networks, differentiated through the recursion."""

import numpy as np
import torch

from ..utils._device import free_memory, full_precision
from ..utils._tiles import slices, with_smaller_tiles
from ._dual import reciprocal, root

# Bytes of a pair and layer of the recursion that autograd keeps: about sixteen float64.
_BYTES = 128
_MOST_ROWS = 512


class RecursionExpansion:
    """``phi_cl(x) = w_cl sum_i a_cli Theta_l(x, x_i)`` of a fully connected network.

    Kernels of rectifiers have a kink where x is a multiple of a training row: their derivative
    there is one of those around it.

    Parameters
    ----------
    source : InfiniteMLPKernels
    X, dual_coef, coefficients, normed
        As in `KernelSource.expansion`.
    """

    def __init__(self, source, X, dual_coef, coefficients, *, normed=False):
        self.source, self.normed = source, normed
        values = dual_coef * coefficients[:, :, None]
        with torch.inference_mode(False), torch.no_grad():
            self.coefficients = torch.as_tensor(values, device=source.device)
            _, self.batch = source.differentiable(X)

    def gradients(self, X, *, per_layer=False):
        """Gradients with respect to samples, shape (n, n_decisions, L or 1, *features)."""
        n_layers = len(self.source.weights)
        per_row = _BYTES * len(self.batch) * n_layers
        size = int(max(1, min(_MOST_ROWS, free_memory(self.source.device) // per_row)))
        with torch.inference_mode(False), torch.enable_grad(), full_precision():
            return with_smaller_tiles(lambda size: self._gradients(X, size, per_layer), size)

    def _gradients(self, X, size, per_layer):
        n_decisions, n_layers, _ = self.coefficients.shape
        n_kept = n_layers if per_layer else 1
        result = np.empty((len(X), n_decisions, n_kept, X.shape[1]))
        for rows in slices(len(X), size):
            x, batch = self.source.differentiable(X[rows])
            planes, diagonals = self.source.kernels(batch, self.batch)
            values = torch.einsum("lnm,clm->cln", planes, self.coefficients)
            if self.normed:
                values = values * reciprocal(root(diagonals))
            sums = values.sum(dim=2) if per_layer else values.sum(dim=(1, 2))[:, None]
            for (c, k), total in zip(np.ndindex(*sums.shape), sums.flatten(), strict=True):
                found = torch.autograd.grad(total, x, retain_graph=True)[0]
                result[rows, c, k] = found.cpu().numpy()
        return result
