"""Rules: from the uses of a module to the factor of its per-sample gradients.

One registry, one entry per module type. Whatever has no rule, or not the shape its rule needs,
goes by autograd, which is exact for every module and forms the gradients.
"""

from collections.abc import Callable

import torch
from torch import nn

from ._factors import DenseFactor, OuterFactor, PositionFactor
from ._ntk_linear import NTKLinear

_RULES: dict[type, Callable] = {}
# Patches of a convolution are unfolded for so many bytes at a time: they stay in the cache.
_PATCH_BYTES = 2**22


def register_rule(*module_types):
    """Register a rule for module types (exact types: a subclass may compute something else).

    A rule is called as ``rule(module, parameters, uses)``: the module, the set of its own
    parameter names that count, and a non-empty list of its uses, each with ``inputs`` of shape
    (n, ...) and ``gradients`` of shape (n, H, ...) of the H heads at its output. It returns a
    factor, or None where it does not apply.

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
    ...     gradients = sum(use.gradients for use in uses)  # (n, H, 4)
    ...     return DenseFactor(gradients)
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
    """``x -> W x + b`` on (n, d) or (n, ..., d)."""
    return _affine(parameters, uses, weight_scale=1.0, bias_scale=1.0)


@register_rule(NTKLinear)
def ntk_linear(module, parameters, uses):
    """``x -> weight_scale W x + bias_scale b``."""
    return _affine(parameters, uses, module.weight_scale, module.bias_scale)


def _affine(parameters, uses, weight_scale, bias_scale):
    if any(use.inputs.ndim < 2 for use in uses):
        return None
    bias = bias_scale**2 if "bias" in parameters else 0.0
    if len(uses) == 1 and uses[0].inputs.ndim == 2:
        inputs, gradients = uses[0]
        # An empty input stands for a frozen weight: the kernel is then the bias part alone.
        inputs = inputs * weight_scale if "weight" in parameters else inputs[:, :0]
        return OuterFactor(inputs, gradients, bias)
    # (n, T, d) and (n, H, T, h): positions of every use side by side.
    inputs = torch.cat([u.inputs.flatten(1, -2) if u.inputs.ndim > 2 else u.inputs[:, None]
                        for u in uses], dim=1)  # fmt: skip
    gradients = torch.cat([u.gradients.flatten(2, -2) if u.gradients.ndim > 3
                           else u.gradients[:, :, None] for u in uses], dim=2)  # fmt: skip
    if "weight" not in parameters:
        return DenseFactor(gradients.sum(2) * bias_scale)
    return _positions(inputs * weight_scale, gradients, bias)


def _positions(inputs, gradients, bias):
    """Positions one by one or summed up, whichever needs fewer products for a pair of samples."""
    n_heads, n_positions, h = gradients.shape[1:]
    d = inputs.shape[2]
    if n_positions**2 * (d + n_heads * h) < n_heads * h * (d + 1):
        return PositionFactor(inputs, gradients.transpose(1, 2).contiguous(), bias)
    products = gradients.mT @ inputs[:, None]  # (n, H, h, d)
    if bias:
        products = torch.cat([products, gradients.sum(2)[..., None] * bias**0.5], dim=3)
    return DenseFactor(products.flatten(2))


@register_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(module, parameters, uses):
    """Any stride, padding, dilation and groups: per-sample gradients ``sum_p G_p (x) patch_p``."""
    n_spatial = len(module.kernel_size)
    if any(use.inputs.ndim != n_spatial + 2 for use in uses):
        return None
    n, n_heads, c_out = uses[0].gradients.shape[:3]
    n_weight = module.weight.numel() if "weight" in parameters else 0
    n_bias = c_out if "bias" in parameters else 0
    like = uses[0].gradients
    jacobian = like.new_empty((n, n_heads, n_weight + n_bias))
    if n_weight:
        weight = jacobian[:, :, :n_weight].unflatten(2, (c_out, -1))
        for use in uses:
            _convolution_weight(module, use, weight, add=use is not uses[0])
    if n_bias:
        jacobian[:, :, n_weight:] = sum(use.gradients.flatten(3).sum(3) for use in uses)
    return DenseFactor(jacobian)


def _convolution_weight(module, use, out, *, add):
    """Write per-sample gradients of the weight, shape (n, H, C_out, C_in / groups * taps)."""
    inputs, gradients = use
    n, n_heads, c_out = gradients.shape[:3]
    g = module.groups
    per_position = (module.weight[0].numel() * g + n_heads * c_out) * gradients.itemsize
    step = max(1, _PATCH_BYTES // (per_position * gradients[0, 0, 0].numel()))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        patches = _patches(module, inputs[rows].contiguous())  # (b, g, C_in / g * taps, positions)
        grouped = gradients[rows].contiguous().view(len(patches), n_heads, g, c_out // g, -1)
        products = (grouped @ patches[:, None].mT).reshape(len(patches), n_heads, c_out, -1)
        out[rows] = out[rows] + products if add else products


def _patches(module, x):
    """Inputs of each tap of the kernel: (n, groups, C_in / groups * taps, output positions)."""
    padding = module._reversed_padding_repeated_twice
    if any(padding):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = nn.functional.pad(x, padding, mode=mode)
    n_spatial = len(module.kernel_size)
    for axis in range(n_spatial):
        reach = (module.kernel_size[axis] - 1) * module.dilation[axis] + 1
        x = x.unfold(2 + axis, reach, module.stride[axis])[..., :: module.dilation[axis]]
    # (n, C, *positions, *taps) -> (n, C, *taps, *positions)
    axes = list(range(x.ndim))
    order = axes[:2] + axes[2 + n_spatial :] + axes[2 : 2 + n_spatial]
    x = x.permute(order)
    n, channels = x.shape[:2]
    taps = module.weight[0, 0].numel()
    return x.reshape(n, module.groups, channels // module.groups * taps, -1)


@register_rule(nn.LayerNorm, nn.RMSNorm)
def normalisation_of_features(module, parameters, uses):
    """Scale and shift of the last axes after normalisation over them."""
    function = (
        nn.functional.layer_norm if isinstance(module, nn.LayerNorm) else nn.functional.rms_norm
    )
    n_axes = len(module.normalized_shape)

    def normalise(x):
        return function(x, module.normalized_shape, eps=module.eps)

    return _scale_and_shift(
        parameters,
        uses,
        normalise,
        lambda g: g.reshape(*g.shape[:2], -1, *g.shape[-n_axes:]).sum(2),
    )


@register_rule(nn.GroupNorm)
def group_normalisation(module, parameters, uses):
    """Scale and shift of the channels after normalisation within groups of them."""

    def normalise(x):
        return nn.functional.group_norm(x, module.num_groups, eps=module.eps)

    return _scale_and_shift(parameters, uses, normalise, _sum_over_positions)


@register_rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_normalisation(module, parameters, uses):
    """Scale and shift of the channels after normalisation with the stored statistics."""
    if module.running_mean is None:
        return None

    def normalise(x):
        return nn.functional.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)

    return _scale_and_shift(parameters, uses, normalise, _sum_over_positions)


@register_rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def instance_normalisation(module, parameters, uses):
    """Scale and shift of the channels after normalisation of each channel of each sample."""
    n_spatial = int(type(module).__name__[-2])
    if module.track_running_stats or any(use.inputs.ndim != n_spatial + 2 for use in uses):
        return None

    def normalise(x):
        return nn.functional.instance_norm(x, eps=module.eps)

    return _scale_and_shift(parameters, uses, normalise, _sum_over_positions)


def _scale_and_shift(parameters, uses, normalise, collect):
    """Gradients ``sum G o x^`` of the scale and ``sum G`` of the shift."""
    parts = []
    if "weight" in parameters:
        parts.append(sum(collect(use.gradients * normalise(use.inputs)[:, None]) for use in uses))
    if "bias" in parameters:
        parts.append(sum(collect(use.gradients) for use in uses))
    return DenseFactor(torch.cat([part.flatten(2) for part in parts], dim=2))


@register_rule(nn.PReLU)
def prelu(module, parameters, uses):
    """Slope of the negative part, one for each channel or one for all."""
    parts = [_sum_over_positions(use.gradients * use.inputs.clamp(max=0)[:, None]) for use in uses]
    if module.num_parameters == 1:
        parts = [part.flatten(2).sum(2, keepdim=True) for part in parts]
    return DenseFactor(sum(parts))


def _sum_over_positions(products):
    """(n, H, C, *positions) to (n, H, C)."""
    return products.flatten(3).sum(3) if products.ndim > 3 else products


@register_rule(nn.Embedding)
def embedding(module, parameters, uses):
    """Look-ups as positions: two of them interact where they read the same row."""
    if module.scale_grad_by_freq or module.max_norm is not None:
        return None
    # One index for each sample, (n,), is one position.
    inputs = torch.cat([use.inputs.reshape(len(use.inputs), -1) for use in uses], dim=1)
    gradients = torch.cat([use.gradients.flatten(2, -2) if use.gradients.ndim > 3
                           else use.gradients[:, :, None] for use in uses], dim=2)  # fmt: skip
    if module.padding_idx is not None:
        # The padding row takes no part in training.
        gradients = gradients * (inputs != module.padding_idx)[:, None, :, None]
    return PositionFactor(inputs, gradients.transpose(1, 2).contiguous())


@register_rule(nn.EmbeddingBag)
def embedding_bag(module, parameters, uses):
    """Bags of equal size (n, T), summed or averaged; other bags go by autograd."""
    plain = module.mode in ("sum", "mean") and not module.scale_grad_by_freq
    if not plain or module.max_norm is not None or any(u.inputs.ndim != 2 for u in uses):
        return None
    bags, gradients = [], []
    for use in uses:
        counted = torch.ones_like(use.inputs, dtype=use.gradients.dtype)
        if module.padding_idx is not None:
            counted = (use.inputs != module.padding_idx).to(use.gradients.dtype)
        if module.mode == "mean":
            counted = counted / counted.sum(1, keepdim=True).clamp(min=1)
        bags.append(use.inputs)
        gradients.append(use.gradients[:, :, None] * counted[:, None, :, None])
    joined = torch.cat(gradients, dim=2)
    return PositionFactor(torch.cat(bags, dim=1), joined.transpose(1, 2).contiguous())
