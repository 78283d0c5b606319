"""Specifications of networks, and how any accepted `network` becomes a source of kernels.

A specification is a small object with a method ``kernel_source``; `specification` recognises what
stands for one, and `make_source` asks it for the kernels.
"""

from ..tangents import NTKLinear
from ._build import (
    CONSTRAINTS,
    NetworkParameter,
    allow_nd,
    checked,
    default_network,
    is_trained,
    make_source,
    specification,
    training_targets,
    validated,
)
from ._infinite import InfiniteNetwork
from ._infinite_mlp import InfiniteMLP
from ._infinite_rnn import InfiniteRNN
from ._kernel_mlp import KernelMLP
from ._mlp import MLP

__all__ = [
    "CONSTRAINTS",
    "MLP",
    "InfiniteMLP",
    "InfiniteNetwork",
    "InfiniteRNN",
    "KernelMLP",
    "NTKLinear",
    "NetworkParameter",
    "allow_nd",
    "checked",
    "default_network",
    "is_trained",
    "make_source",
    "specification",
    "training_targets",
    "validated",
]
