"""Parameters of kernel networks, which estimators and the specification share."""

import math
from numbers import Integral, Real
from typing import Any, NamedTuple

from torch import nn

from ..closed_form._parameters import per_layer
from ..utils._sklearn import Interval, StrOptions
from ._losses import LOSSES
from ._objectives import OBJECTIVES

_POSITIVE = Interval(Real, 0, None, closed="neither")
_AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")

CONSTRAINTS: dict[str, Any] = {
    "hidden_layer_sizes": ["array-like", _AT_LEAST_ONE],
    "sigmas": [StrOptions({"median"}), _POSITIVE, "array-like"],
    "centers": [_AT_LEAST_ONE, None],
    "objective": [StrOptions(set(OBJECTIVES))],
    "learning_rates": [_POSITIVE, "array-like"],
    "weight_decays": [Interval(Real, 0, None, closed="left"), "array-like"],
    "epochs": [_AT_LEAST_ONE, "array-like"],
    "batch_size": [_AT_LEAST_ONE],
    "loss": [StrOptions(set(LOSSES))],
    "penalty": [StrOptions({"l2", "rkhs"})],
    "features": [nn.Module, None],
    "train_features": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [_AT_LEAST_ONE],
    "random_state": ["random_state"],
}


class LayerSettings(NamedTuple):
    """What belongs to one trained layer."""

    sigma: float | str
    learning_rate: float
    weight_decay: float
    epochs: int


def hidden_widths(settings):
    """Numbers of kernel machines of the hidden layers, a list of int.

    Raises
    ------
    ValueError
        If they are not positive integers.
    """
    sizes = settings.hidden_layer_sizes
    sizes = [sizes] if isinstance(sizes, Integral) else list(sizes)
    if not all(isinstance(size, Integral) and int(size) >= 1 for size in sizes):
        raise ValueError(
            "hidden_layer_sizes must be an integer or a sequence of integers >= 1, "
            f"got {settings.hidden_layer_sizes!r}."
        )
    return [int(size) for size in sizes]


def layer_settings(settings, n_layers):
    """Settings of each of so many trained layers, a list of `LayerSettings`.

    Raises
    ------
    ValueError
        If a parameter has not one value for each layer, or one that is not accepted.
    """
    sigmas = settings.sigmas
    if isinstance(sigmas, str):
        sigmas = [sigmas] * n_layers
    else:
        sigmas = _per_layer(sigmas, n_layers, "sigmas", above=0)
    rates = _per_layer(settings.learning_rates, n_layers, "learning_rates", above=0)
    decays = _per_layer(settings.weight_decays, n_layers, "weight_decays")
    epochs = _per_layer(settings.epochs, n_layers, "epochs", above=0)
    if not all(isinstance(number, Integral) for number in epochs):
        raise ValueError(f"epochs must be integers >= 1, got {settings.epochs!r}.")
    return [
        LayerSettings(*of_layer) for of_layer in zip(sigmas, rates, decays, epochs, strict=True)
    ]


def _per_layer(value, n_layers, name, above=-math.inf):
    values = per_layer(value, n_layers, name, "trained layers")
    if not all(v > above for v in values):
        raise ValueError(f"{name} must be > {above}, got {value!r}.")
    return values
