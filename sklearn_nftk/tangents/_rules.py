"""Rules: from the uses of a module to the factor of its per-sample gradients.

One registry, one entry per module type. Whatever has no rule, or not the shape its rule needs,
takes the generic way, which is exact for every module and forms the gradients.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from ..networks import NTKLinear
from ._factors import DenseFactor, OuterFactor

_RULES: dict[type, Callable] = {}


def register_rule(*module_types):
    """Register a rule for module types (exact types: a subclass may compute something else).

    A rule is called as ``rule(module, parameters, uses)``: the module, the set of its own
    parameter names that count, and its list of :class:`~sklearn_nftk.tangents._capture.Use`. It
    returns a factor.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nftk.tangents import DenseFactor, register_rule
    >>> class Shift(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.shift = torch.nn.Parameter(torch.zeros(4))
    ...     def forward(self, x):
    ...         return x + self.shift
    >>> @register_rule(Shift)
    ... def shift_rule(module, parameters, uses):
    ...     gradients = sum(use.gradients for use in uses)  # (n, O, 4)
    ...     return DenseFactor(gradients.flatten(1) / gradients.shape[1] ** 0.5)
    """

    def register(rule):
        for module_type in module_types:
            _RULES[module_type] = rule
        return rule

    return register


def rule_for(module):
    """Return the rule registered for the exact type of `module`, or None."""
    return _RULES.get(type(module))


@register_rule(nn.Linear)
def linear(module, parameters, uses):
    """Factor of ``x -> W x + b``."""
    return _affine(parameters, uses, weight_scale=1.0, bias_scale=1.0)


@register_rule(NTKLinear)
def ntk_linear(module, parameters, uses):
    """Factor of ``x -> weight_scale W x + bias_scale b``."""
    return _affine(parameters, uses, module.weight_scale, module.bias_scale)


def _affine(parameters, uses, weight_scale, bias_scale):
    """A map used once on (n, d) is an outer product; more positions or uses add up."""
    n, n_outputs = uses[0].gradients.shape[:2]
    scale = 1.0 / math.sqrt(n_outputs)
    if len(uses) == 1 and uses[0].inputs.ndim == 2:
        inputs, gradients = uses[0]
        return OuterFactor(
            inputs * weight_scale if "weight" in parameters else None,
            gradients.flatten(1) * scale,
            bias_scale**2 if "bias" in parameters else 0.0,
        )
    # (n, positions, d) and (n, O, positions, h): positions of every use side by side.
    inputs = torch.cat([use.inputs.reshape(n, -1, use.inputs.shape[-1]) for use in uses], dim=1)
    gradients = torch.cat(
        [use.gradients.reshape(n, n_outputs, -1, use.gradients.shape[-1]) for use in uses], dim=2
    )
    parts = []
    if "weight" in parameters:
        products = torch.einsum("noth,ntd->nohd", gradients, inputs)
        parts.append(products.reshape(n, -1) * (scale * weight_scale))
    if "bias" in parameters:
        parts.append(gradients.sum(2).reshape(n, -1) * (scale * bias_scale))
    return DenseFactor(torch.cat(parts, dim=1))
