"""Checks of a module before it has seen any sample."""

import torch
from torch import nn

from ._ntk_linear import NTKLinear


def check_module(network):
    """Refuse modules that cannot be differentiated for real parameters, before any pass.

    Raises
    ------
    ValueError
        For complex or uninitialised parameters and buffers, and for TorchScript.
    """
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"network: {name or 'the module itself'!r} is scripted or traced by torch.jit, "
                "which hides its layers; give the module that it was made of."
            )
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ValueError(
                f"network: {name!r} is not initialised yet; apply the network (its Lazy modules) "
                "to a batch once."
            )
        if tensor.is_complex():
            raise ValueError(
                f"network: {name!r} is complex; tangent kernels are defined for real parameters "
                "and buffers."
            )


def takes_one_way(network):
    """Recognise networks that do the same to every batch, so that a few samples tell of all.

    That holds for torch's own modules as long as nobody adds to them. Anything else may look at
    its samples and decide.
    """
    return all(
        (type(module).__module__.startswith("torch.nn.modules.") or type(module) is NTKLinear)
        and "forward" not in vars(module)
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
        for module in network.modules()
    )


def replace_inference_tensors(network):
    """Replace tensors that were made in inference mode, which autograd cannot use."""
    replaced: dict[int, torch.Tensor] = {}
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None or not tensor.is_inference():
                    continue
                if id(tensor) not in replaced:
                    clone = tensor.clone()
                    if isinstance(tensor, nn.Parameter):
                        clone = nn.Parameter(clone, requires_grad=tensor.requires_grad)
                    replaced[id(tensor)] = clone
                tensors[name] = replaced[id(tensor)]
