"""What is kernelised: network specifications, and how any accepted `network` becomes a module."""

from ._build import build_network
from ._mlp import MLP, NTKLinear

__all__ = ["MLP", "NTKLinear", "build_network"]
