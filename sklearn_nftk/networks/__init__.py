"""What is kernelised: specifications, and how any accepted `network` becomes one of our own."""

from ..tangents import NTKLinear
from ._build import build_network
from ._infinite import InfiniteNetwork
from ._infinite_mlp import InfiniteMLP
from ._infinite_rnn import InfiniteRNN
from ._mlp import MLP

__all__ = [
    "MLP",
    "InfiniteMLP",
    "InfiniteNetwork",
    "InfiniteRNN",
    "NTKLinear",
    "build_network",
]
