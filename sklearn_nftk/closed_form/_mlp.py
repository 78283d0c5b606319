"""Layer kernels of the infinitely wide fully connected network, in closed form."""

import numpy as np
import torch

from ..utils._arrays import check_batch
from ._dual import NEARLY_ONE, correlation, reciprocal, root, snapped
from ._expansion import RecursionExpansion
from ._parameters import check_width
from ._source import ClosedFormKernels, RowBatch


class InfiniteMLPKernels(ClosedFormKernels):
    """Kernel source of a fully connected network.

    Parameters
    ----------
    n_features : int
    weights, biases : list of float
        Variances of each parameter layer, the read-out last.
    dual : callable
        Dual activation, see `_dual`.
    split_bias : bool
        Whether weights and biases are layers of their own.
    **options
        As in `ClosedFormKernels`.
    """

    def __init__(self, n_features, weights, biases, dual, *, split_bias=False, **options):
        super().__init__(layer_names(len(weights), split_bias), **options)
        self.n_features = n_features
        self.weights, self.biases = weights, biases
        self.dual = dual
        self.split_bias = split_bias

    def _checked(self, X):
        X = check_batch(X, allow_nd=False)
        check_width(X.shape[1], self.n_features)
        return X

    def _batch(self, X):
        return self._rows(self._tensor(X))

    def _tensor(self, X):
        X = np.require(X, requirements="W")  # torch warns of arrays that it may not write to
        return torch.as_tensor(X, dtype=torch.float64, device=self.device)

    def _rows(self, X):
        unit, first = embed(X, self.weights[0], self.biases[0])
        deviations = standard_deviations(first, self.weights, self.biases, self.dual)
        return RowBatch(unit=(unit, 0), deviations=(deviations, 1))

    def _planes(self, x, y, bound=1.0):
        c = snapped(x.unit @ y.unit.mT, bound)
        p, q = x.deviations[:, :, None], y.deviations[:, None, :]
        sums, slopes = propagate(c, p, q, self.weights, self.biases, self.dual, bound)
        return self._layers(sums, slopes)

    def _diagonal(self, batch):
        slopes = [
            w * self.dual.diagonal(p)[1]
            for w, p in zip(self.weights[1:], batch.deviations[:-1], strict=True)
        ]
        return self._layers([p * p for p in batch.deviations], slopes)

    def expansion(self, X, dual_coef, coefficients, *, normed=False):
        """Kernel expansions that autograd differentiates, see `KernelSource.expansion`."""
        return RecursionExpansion(self, X, dual_coef, coefficients, normed=normed)

    def differentiable(self, X):
        """Tensor of samples with respect to which `kernels` can be differentiated, and a batch."""
        X = self._tensor(X).clone().requires_grad_()
        return X, self._rows(X)

    def kernels(self, x, y):
        """Kernels (L, n, m) of two batches of `differentiable`, and (L, n) of the first's rows."""
        planes = self._grouped(self._planes(x, y, NEARLY_ONE))
        return torch.stack(planes), torch.stack(self._grouped(self._diagonal(x)))

    def _layers(self, sums, slopes):
        return layer_planes(sums, slopes, self.biases if self.split_bias else None)


def layer_names(n_layers, split_bias=False):
    """Names of the parameter layers, or of their weights and biases."""
    layers = [f"layer{index}" for index in range(n_layers)]
    if not split_bias:
        return layers
    return [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]


# -- the recursion, which autograd can differentiate ---------------------------------------------


def embed(X, weight_variance, bias_variance):
    """Vectors whose inner products are S_0: unit rows (n, d + 1) and their lengths (n,)."""
    ones = torch.ones_like(X[:, :1])
    scale = (weight_variance / X.shape[1]) ** 0.5
    rows = torch.cat([scale * X, bias_variance**0.5 * ones], dim=1)
    norms = root((rows * rows).sum(dim=1))
    return rows * reciprocal(norms)[:, None], norms


def standard_deviations(first, weights, biases, dual):
    """Standard deviations of the pre-activations of every layer, shape (depth + 1, n)."""
    deviations = [first]
    for w, b in zip(weights[1:], biases[1:], strict=True):
        deviations.append(root(w * dual.diagonal(deviations[-1])[0] + b))
    return torch.stack(deviations)


def propagate(c, p, q, weights, biases, dual, bound=1.0):
    """``[S_0, ..., S_L]`` and ``[D_1, ..., D_L]`` of pairs.

    Parameters
    ----------
    c : tensor (...)
        Correlations of the pairs in the first layer.
    p, q : tensors (L + 1, ...)
        Standard deviations of both sides, broadcastable with c.
    weights, biases : sequences of L + 1 variances
    dual : callable
    bound : float
        Correlations are kept within; below 1 their derivatives are finite.
    """
    sums, slopes = [c * p[0] * q[0]], []
    for layer in range(1, len(weights)):
        V, derivative = dual(c, p[layer - 1], q[layer - 1])
        sums.append(V.mul(weights[layer]).add_(biases[layer]))
        slopes.append(derivative.mul(weights[layer]))
        if layer < len(weights) - 1:
            c = correlation(sums[-1], p[layer], q[layer], bound)
    return sums, slopes


def layer_planes(sums, slopes, biases=None):
    """``Theta_l = S_l * prod_(j>l) D_j``; with `biases`, a plane each for weights and biases."""
    planes, factor = [], torch.ones_like(sums[-1])
    for layer in range(len(sums) - 1, -1, -1):
        if biases is None:
            planes.append(sums[layer] * factor)
        else:
            planes += [biases[layer] * factor, (sums[layer] - biases[layer]) * factor]
        if layer:
            factor = factor * slopes[layer - 1]
    return planes[::-1]
