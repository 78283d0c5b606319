"""The infinitely wide fully connected network as a kernel of scikit-learn's Gaussian processes."""

from numbers import Real

import numpy as np
import torch
from sklearn.gaussian_process.kernels import Hyperparameter, Kernel

from ..utils._arrays import check_batch
from ..utils._tiles import upper_tiles
from ._dual import NEARLY_ONE, dual_activation, snapped
from ._mlp import InfiniteMLPKernels, embed, layer_planes, propagate, standard_deviations
from ._parameters import layer_variances

_TILE_ROWS = 256


class InfiniteMLPKernel(Kernel):
    """Kernel of an `InfiniteMLP`, with its variances as hyperparameters.

    Parameters
    ----------
    depth, activation, weight_variance, bias_variance, negative_slope
        As in `InfiniteMLP`. Sequences of variances are vectors of hyperparameters; variances of 0
        are fixed.
    kind : {"ntk", "nngp"}, default="ntk"
        The neural tangent kernel, or the covariance of the outputs at initialisation.
    weight_variance_bounds : pair of float > 0 or "fixed", default=(1e-2, 1e2)
    bias_variance_bounds : pair of float > 0 or "fixed", default=(1e-5, 1e2)

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.gaussian_process import GaussianProcessClassifier
    >>> from sklearn_nftk.networks import InfiniteMLP
    >>> X, y = load_iris(return_X_y=True)
    >>> kernel = InfiniteMLP(depth=1).to_gp_kernel(bias_variance_bounds="fixed")
    >>> model = GaussianProcessClassifier(kernel=kernel).fit(X[::3], y[::3])
    >>> model.score(X, y) > 0.9
    True
    """

    def __init__(
        self,
        depth=2,
        activation="relu",
        weight_variance=2.0,
        bias_variance=0.1,
        *,
        negative_slope=0.01,
        kind="ntk",
        weight_variance_bounds=(1e-2, 1e2),
        bias_variance_bounds=(1e-5, 1e2),
    ):
        self.depth = depth
        self.activation = activation
        self.weight_variance = weight_variance
        self.bias_variance = bias_variance
        self.negative_slope = negative_slope
        self.kind = kind
        self.weight_variance_bounds = weight_variance_bounds
        self.bias_variance_bounds = bias_variance_bounds

    @property
    def hyperparameter_weight_variance(self):
        """Coordinates of `theta` for the variances of the weights."""
        return self._hyperparameter("weight_variance")

    @property
    def hyperparameter_bias_variance(self):
        """Coordinates of `theta` for the variances of the biases."""
        return self._hyperparameter("bias_variance")

    def _hyperparameter(self, name):
        value = getattr(self, name)
        bounds = getattr(self, f"{name}_bounds")
        if not np.all(np.asarray(value) > 0):
            bounds = "fixed"  # theta is a logarithm
        n_elements = 1 if isinstance(value, Real) else len(value)
        return Hyperparameter(name, "numeric", bounds, n_elements)

    def __call__(self, X, Y=None, eval_gradient=False):
        """Kernel of two batches, and its gradient.

        Parameters
        ----------
        X : array-like of shape (n, d)
        Y : array-like of shape (m, d), default=None
            None means X.
        eval_gradient : bool, default=False
            Whether to return the gradient with respect to `theta` too, for Y=None alone.

        Returns
        -------
        ndarray of shape (n, m), or that and one of shape (n, n, n_theta)
        """
        if eval_gradient and Y is not None:
            raise ValueError("Gradient can only be evaluated when Y is None.")
        X = check_batch(X, allow_nd=False)
        source = self._source(X)
        batch = source.prepare(X)
        K = self._of_layers(source.block(batch, None if Y is None else source.prepare(Y))[0])
        return (K, self._gradient(X)) if eval_gradient else K

    def diag(self, X):
        """``K(x, x)``, shape (n,)."""
        X = check_batch(X, allow_nd=False)
        source = self._source(X)
        return self._of_layers(source.diag(source.prepare(X))[0])

    def is_stationary(self):
        """Return False: the kernel does not depend on differences alone."""
        return False

    def _source(self, X):
        if self.kind not in ("ntk", "nngp"):
            raise ValueError(f"kind must be 'ntk' or 'nngp', got {self.kind!r}.")
        weights, biases = self._fixed_variances()
        return InfiniteMLPKernels(X.shape[1], weights, biases, self._dual())

    def _dual(self):
        return dual_activation(self.activation, self.negative_slope)

    def _fixed_variances(self):
        return layer_variances(self.depth, self.weight_variance, self.bias_variance)

    def _of_layers(self, planes):
        """Plane of the read-out for the NNGP, sum of all planes for the NTK."""
        return planes[-1] if self.kind == "nngp" else sum(planes)

    # -- gradient: the closed form itself, differentiated ---------------------------------------

    def _gradient(self, X):
        """``dK / d theta``, shape (n, n, n_theta), tile by tile."""
        n, n_theta = len(X), len(self.theta)
        gradient = np.empty((n_theta, n, n))
        with torch.inference_mode(False):  # in which derivatives would be wrong without a word
            self._fill(gradient, X)
        return np.moveaxis(gradient, 0, -1)

    def _fill(self, gradient, X):
        X = torch.tensor(X, dtype=torch.float64)
        for index, plane in enumerate(gradient):
            for rows, columns in upper_tiles(len(X), _TILE_ROWS):
                tile = self._derivative(X[rows], X[columns], index)
                plane[rows, columns] = tile
                plane[columns, rows] = tile.T

    def _derivative(self, x, z, index):
        """Derivative of the kernel of x and z along one coordinate of `theta`, by autograd."""
        theta = torch.as_tensor(self.theta)
        direction = torch.zeros_like(theta)
        direction[index] = 1
        return torch.autograd.functional.jvp(
            lambda theta: self._pairs(x, z, *self._variances(theta)), theta, direction
        )[1].numpy()

    def _variances(self, theta):
        """Variances of weights and biases, one tensor for each layer, as functions of theta."""
        names = ("weight_variance", "bias_variance")
        fixed = dict(zip(names, self._fixed_variances(), strict=True))
        start = 0
        for parameter in self.hyperparameters:
            if parameter.fixed:
                continue
            free = theta[start : start + parameter.n_elements].exp()
            start += parameter.n_elements
            fixed[parameter.name] = list(free.expand(self.depth + 1))
        return fixed["weight_variance"], fixed["bias_variance"]

    def _pairs(self, x, z, weights, biases):
        dual = self._dual()
        sides = [embed(rows, weights[0], biases[0]) for rows in (x, z)]
        p, q = (standard_deviations(first, weights, biases, dual) for _, first in sides)
        c = snapped(sides[0][0] @ sides[1][0].mT, NEARLY_ONE)
        sums, slopes = propagate(c, p[:, :, None], q[:, None], weights, biases, dual, NEARLY_ONE)
        return sums[-1] if self.kind == "nngp" else sum(layer_planes(sums, slopes))
