"""A finite fully connected network, described the scikit-learn way."""

import math
from collections import OrderedDict
from numbers import Integral, Real
from typing import cast

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from torch import nn

from ..closed_form._parameters import per_layer
from ..tangents import NTKLinear, group_layers
from ..utils._arrays import check_batch
from ..utils._progress import silent
from ._mlp_training import trained_mlp
from ._tangents import tangent_kernels

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
    """Fully connected network at random initialisation, or trained from there.

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
        parameters carry the variances; the kernel of a layer then grows with its fan-in and its
        bias part fades.
    max_epochs : int, default=0
        Epochs of training before the network is kernelised: on the classes by their cross-entropy,
        on real targets by squared errors, with AdamW. 0 is an untrained network; a trained one has
        an output for each class or target and needs skorch. Whatever the `parametrization`,
        training moves the effective weights, as that of a "standard" network does (Adam takes
        steps of one size for all parameters, which hardly move those of unit variance), and the
        function that was learned is then written in the `parametrization`.
    lr : float, default=1e-3
        Step size.
    batch_size : int, default=128
        Samples of a step.
    weight_decay : float, default=0.0
        Share of the effective weights, times `lr`, that each step takes away.
    early_stopping : bool, default=False
        Whether a tenth of the training rows is held out, training stops after ten epochs that did
        not improve their loss, and the best epoch is taken.
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

    allow_nd = False

    def __init__(
        self,
        hidden_layer_sizes=(512, 512),
        activation="relu",
        *,
        weight_variance=2.0,
        bias_variance=0.1,
        parametrization="ntk",
        max_epochs=0,
        lr=1e-3,
        batch_size=128,
        weight_decay=0.0,
        early_stopping=False,
        random_state=None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.weight_variance = weight_variance
        self.bias_variance = bias_variance
        self.parametrization = parametrization
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.random_state = random_state

    @property
    def is_trained(self):
        """Whether the network is made from targets: kernels of rows it saw know their labels."""
        return self.max_epochs > 0

    def build(self, n_features, n_outputs, random_state=None):
        """Draw the network, which is not trained.

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
        standard = self.parametrization == "standard"
        with torch.inference_mode(False), torch.no_grad():
            network = self._undrawn(sizes)
            for index, deviations in enumerate(self.deviations(sizes)):
                layer = cast(nn.Linear, network.get_submodule(f"layer{index}"))
                draw = _orthogonal_gaussian if index < len(sizes) - 2 else _signs
                layer.weight.copy_(draw(layer.out_features, layer.in_features, generator))
                layer.bias.copy_(_gaussian(layer.out_features, 1, generator).ravel())
                if standard:
                    layer.weight.mul_(deviations[0])
                    layer.bias.mul_(deviations[1])
        return network

    def restore(self, arrays):
        """Build the network that has these parameters.

        Parameters
        ----------
        arrays : dict of str to ndarray
            Values of ``named_parameters()`` of a network that `build` returned; the sizes are
            theirs.

        Returns
        -------
        torch.nn.Sequential
            As `build` returns it, in the precision of the arrays.

        Raises
        ------
        ValueError
            If parameters are missing, or do not fit together.
        """
        self._validate()
        weights = [values for name, values in arrays.items() if name.endswith(".weight")]
        sizes = [*(W.shape[1] for W in weights[:1]), *(W.shape[0] for W in weights)]
        with torch.inference_mode(False):
            network = self._undrawn(sizes)
            tensors = {name: torch.as_tensor(np.array(values)) for name, values in arrays.items()}
            try:
                network.load_state_dict(tensors, assign=True)
            except RuntimeError as error:
                raise ValueError(
                    f"arrays are not those of parameters of an MLP: {error}"
                ) from error
        return network

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
        """Tangent kernels (`sklearn_nftk.kernels.KernelSource`) of a network for data like X.

        Parameters
        ----------
        X : array-like of shape (n, d)
            The training set.
        y : ndarray of int, shape (n,), or of float, shape (n,) or (n, n_targets), default=None
            Class codes, or real targets, that the network is trained on.
        sample_weight : ndarray of shape (n,), default=None
            Of the rows in training.
        n_outputs : int, default=1
            Of a trained network. An untrained one has one output, because in the infinite limit
            all outputs share one kernel.
        progress : callable
            Told of each epoch.
        seed : int, default=0
            Used when the specification has no `random_state` of its own.
        layers, outputs, device, dtype, n_jobs
            As in `sklearn_nftk.kernels.layer_kernels`.

        Returns
        -------
        TangentKernels
        """
        X = check_batch(X, allow_nd=False)
        self._validate()
        return tangent_kernels(
            trained_mlp(self, X, y, sample_weight, seed, n_outputs, device, progress)
            if self.is_trained
            else self.build(X.shape[1], 1, seed),
            X,
            layers=layers,
            outputs=outputs,
            device=device,
            dtype=dtype,
            n_jobs=n_jobs,
            specification=clone(self),
        )

    def layer_names(self, layers="module"):
        """Names of the layers, which do not depend on the data."""
        return [layer.name for layer in group_layers(self.build(1, 1, 0), layers)]

    def _undrawn(self, sizes):
        """The network, whose parameters have no values yet."""
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (weight_std, bias_std) in enumerate(self.deviations(sizes)):
            if index:
                modules[f"activation{index - 1}"] = ACTIVATIONS[self.activation]()
            fans = sizes[index : index + 2]
            # torch would draw values, from a generator that other threads use too.
            layer = (
                NTKLinear(*fans, weight_scale=weight_std, bias_scale=bias_std, device="meta")
                if self.parametrization == "ntk"
                else nn.Linear(fans[0], fans[1], device="meta")
            )
            for name, parameter in list(layer.named_parameters()):
                values = torch.empty(parameter.shape, dtype=torch.float64)
                setattr(layer, name, nn.Parameter(values))
            modules[f"layer{index}"] = layer
        return nn.Sequential(modules).eval()

    def deviations(self, sizes):
        """Standard deviations ``(weight, bias)`` of each parameter layer, for widths of layers."""
        n_layers = len(sizes) - 1
        weights = per_layer(self.weight_variance, n_layers, "weight_variance")
        biases = per_layer(self.bias_variance, n_layers, "bias_variance")
        return [
            (math.sqrt(weight / fan_in), math.sqrt(bias))
            for weight, bias, fan_in in zip(weights, biases, sizes, strict=False)
        ]

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
        for name, least in (("max_epochs", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if not (isinstance(value, Integral) and int(value) >= least):
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}.")
        if not (isinstance(self.lr, Real) and float(self.lr) > 0):
            raise ValueError(f"lr must be a number > 0, got {self.lr!r}.")
        if not (isinstance(self.weight_decay, Real) and float(self.weight_decay) >= 0):
            raise ValueError(f"weight_decay must be a number >= 0, got {self.weight_decay!r}.")
        if not isinstance(self.early_stopping, (bool, np.bool_)):
            raise ValueError(f"early_stopping must be a bool, got {self.early_stopping!r}.")


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
