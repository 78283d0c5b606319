"""What is kernelised: specifications, and how any accepted `network` becomes one of our own."""

from ._build import build_network
from ._closed_form import group_names
from ._infinite import InfiniteNetwork
from ._infinite_mlp import InfiniteMLP
from ._mlp import MLP, NTKLinear

__all__ = [
    "MLP",
    "InfiniteMLP",
    "InfiniteNetwork",
    "NTKLinear",
    "build_network",
    "group_names",
]
