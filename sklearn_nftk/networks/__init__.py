"""What is kernelised: specifications, and how any accepted `network` becomes one of our own."""

from ._build import build_network
from ._closed_form import group_names
from ._infinite import InfiniteNetwork
from ._infinite_mlp import InfiniteMLP
from ._infinite_rnn import InfiniteRNN
from ._mlp import MLP, NTKLinear
from ._sequences import validate_sequences

__all__ = [
    "MLP",
    "InfiniteMLP",
    "InfiniteNetwork",
    "InfiniteRNN",
    "NTKLinear",
    "build_network",
    "group_names",
    "validate_sequences",
]
