"""Parameters that specifications of networks share, and what they may be."""

import math
from numbers import Integral, Real


def check_depth(depth):
    """Refuse what is not a number of hidden layers."""
    if isinstance(depth, bool) or not isinstance(depth, Integral) or depth < 1:
        raise ValueError(f"depth must be an integer >= 1, got {depth!r}.")


def per_layer(value, n_layers, name, layers="parameter layers"):
    """One non-negative value for each layer; `layers` says for messages what they are."""
    values = [value] * n_layers if isinstance(value, Real) else list(value)
    if len(values) != n_layers:
        raise ValueError(
            f"{name} must be a number or one number for each of the {n_layers} {layers}, "
            f"got {len(values)} values."
        )
    if not all(isinstance(v, Real) and 0 <= float(v) < math.inf for v in values):
        raise ValueError(f"{name} must be finite and >= 0, got {value!r}.")
    return values


def layer_variances(depth, weight_variance, bias_variance):
    """Variances of weights and biases, two lists of depth + 1 floats."""
    check_depth(depth)
    weights = per_layer(weight_variance, depth + 1, "weight_variance")
    biases = per_layer(bias_variance, depth + 1, "bias_variance")
    return [float(w) for w in weights], [float(b) for b in biases]


def check_width(width, expected, what="features"):
    """Refuse samples that are not like those which the kernels were made for."""
    if width != expected:
        raise ValueError(
            f"samples have {width} {what}, but the kernels are of samples with {expected}."
        )
