"""A finite fully connected network, described the scikit-learn way."""

import math
from collections import OrderedDict
from itertools import pairwise
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from torch import nn

from ..tangents import NTKLinear

# name -> module; a new activation is a new entry
ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "leaky_relu": nn.LeakyReLU,
    "identity": nn.Identity,
}


class MLP(BaseEstimator):
    """Fully connected network at random initialisation.

    Its effective weights are He-initialised (variance ``weight_variance / fan_in``) and its biases
    small and random, so that its layer kernels approach those of an infinitely wide network of the
    same depth and variances as it widens [1]_. Two couplings that leave each weight's mean and
    variance as they are bring it closer to that limit at a given width: the weight vectors of a
    hidden layer are orthogonal to each other, in blocks of fan-in, with each vector alone still
    Gaussian [2]_, and read-out weights have equal magnitudes and random signs.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, default=(512, 512)
        Widths of the hidden layers.
    activation : str, default="relu"
        One of "relu", "tanh", "gelu", "silu", "sigmoid", "softplus", "leaky_relu", "identity".
    weight_variance : float or sequence of float, default=2.0
        Variance of the weights times fan-in; one value, or one for each parameter layer, the
        read-out included.
    bias_variance : float or sequence of float, default=0.1
        Variance of the biases; one value, or one for each parameter layer.
    parametrization : {"ntk", "standard"}, default="ntk"
        "ntk": parameters are standard normal and the variances multiply them in the forward pass,
        so layer kernels have a finite limit. "standard": plain ``torch.nn.Linear`` layers whose
        parameters carry the variances, as networks are usually trained; the kernel of a layer then
        grows with its fan-in and its bias part fades.
    random_state : int, RandomState instance or None, default=None
        Seeds the parameters. None takes the seed from whoever builds the network: the estimator's
        `random_state`.

    References
    ----------
    .. [1] Jacot, Gabriel, Hongler. Neural Tangent Kernel: Convergence and Generalization in Neural
       Networks. NeurIPS 2018.
    .. [2] Yu, Suresh, Choromanski, Holtmann-Rice, Kumar. Orthogonal Random Features. NeurIPS 2016.

    Examples
    --------
    >>> from sklearn_nftk.networks import MLP
    >>> MLP(hidden_layer_sizes=(8,)).build(3, 1, random_state=0)
    Sequential(
      (layer0): NTKLinear(in_features=3, out_features=8, bias=True, weight_scale=0.8165, bias_scale=0.3162)
      (activation0): ReLU()
      (layer1): NTKLinear(in_features=8, out_features=1, bias=True, weight_scale=0.5, bias_scale=0.3162)
    )
    """  # noqa: E501 - the output of the example cannot be wrapped

    def __init__(
        self,
        hidden_layer_sizes=(512, 512),
        activation="relu",
        *,
        weight_variance=2.0,
        bias_variance=0.1,
        parametrization="ntk",
        random_state=None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.weight_variance = weight_variance
        self.bias_variance = bias_variance
        self.parametrization = parametrization
        self.random_state = random_state

    def build(self, n_features, n_outputs, random_state=None):
        """Draw the network.

        Parameters
        ----------
        n_features : int
            Width of the input.
        n_outputs : int
            Width of the output.
        random_state : int, RandomState instance or None
            Used when the specification has none of its own.

        Returns
        -------
        torch.nn.Sequential
            Modules ``layer0, activation0, layer1, ...`` in float64 on the CPU.
        """
        self._validate()
        rng = check_random_state(random_state if self.random_state is None else self.random_state)
        generator = torch.Generator().manual_seed(int(rng.randint(np.iinfo(np.int32).max)))
        sizes = [n_features, *self._hidden_layer_sizes(), n_outputs]
        n_layers = len(sizes) - 1
        weight_variances = per_layer(self.weight_variance, n_layers, "weight_variance")
        bias_variances = per_layer(self.bias_variance, n_layers, "bias_variance")
        modules = OrderedDict()
        for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            weight_std = math.sqrt(weight_variances[index] / fan_in)
            bias_std = math.sqrt(bias_variances[index])
            draw = _orthogonal_gaussian if index < n_layers - 1 else _signs
            layer = self._layer(fan_in, fan_out, weight_std, bias_std)
            with torch.no_grad():
                layer.weight.mul_(draw(fan_out, fan_in, generator))
                layer.bias.mul_(_gaussian(fan_out, 1, generator).ravel())
            modules[f"layer{index}"] = layer
            if index < n_layers - 1:
                modules[f"activation{index}"] = ACTIVATIONS[self.activation]()
        return nn.Sequential(modules).eval()

    def _layer(self, fan_in, fan_out, weight_std, bias_std):
        """A layer whose parameters are all equal to their standard deviation."""
        layer: nn.Linear
        # torch draws parameters of its own, which are replaced; its generator is left as it was.
        with torch.random.fork_rng(devices=[]):
            if self.parametrization == "ntk":
                layer = NTKLinear(
                    fan_in, fan_out, weight_scale=weight_std, bias_scale=bias_std
                ).double()
                weight_std = bias_std = 1.0
            else:
                layer = nn.Linear(fan_in, fan_out).double()
        nn.init.constant_(layer.weight, weight_std)
        nn.init.constant_(layer.bias, bias_std)
        return layer

    def _hidden_layer_sizes(self):
        sizes = self.hidden_layer_sizes
        return (sizes,) if isinstance(sizes, Integral) else tuple(sizes)

    def _validate(self):
        sizes = self._hidden_layer_sizes()
        if not all(isinstance(size, Integral) and int(size) >= 1 for size in sizes):
            raise ValueError(
                "hidden_layer_sizes must be a sequence of integers >= 1, "
                f"got {self.hidden_layer_sizes!r}."
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}."
            )
        if self.parametrization not in ("ntk", "standard"):
            raise ValueError(
                f"parametrization must be 'ntk' or 'standard', got {self.parametrization!r}."
            )


def _gaussian(n_rows, n_columns, generator):
    return torch.randn(n_rows, n_columns, generator=generator, dtype=torch.float64)


def _orthogonal_gaussian(n_rows, n_columns, generator):
    """Standard normal rows, orthogonal within blocks of n_columns rows."""
    blocks = []
    for start in range(0, n_rows, n_columns):
        size = min(n_columns, n_rows - start)
        directions, triangle = torch.linalg.qr(_gaussian(n_columns, size, generator))
        # Signs make the directions uniform over the sphere, lengths make the rows Gaussian.
        directions = directions * triangle.diagonal().sign()
        lengths = _gaussian(size, n_columns, generator).norm(dim=1, keepdim=True)
        blocks.append(directions.T * lengths)
    return torch.cat(blocks)


def _signs(n_rows, n_columns, generator):
    return _gaussian(n_rows, n_columns, generator).sign()


def per_layer(value, n_layers, name):
    """One non-negative value for each parameter layer."""
    values = [value] * n_layers if isinstance(value, Real) else list(value)
    if len(values) != n_layers:
        raise ValueError(
            f"{name} must be a number or one number for each of the {n_layers} parameter layers, "
            f"got {len(values)} values."
        )
    if not all(isinstance(v, Real) and 0 <= float(v) < math.inf for v in values):
        raise ValueError(f"{name} must be finite and >= 0, got {value!r}.")
    return values
