"""Kernels of infinitely wide networks: recursions over layers and time, tile by tile."""

from ._dual import dual_activation
from ._mlp import InfiniteMLPKernels
from ._recurrent import InfiniteRNNKernels
from ._source import ClosedFormKernels, RowBatch

__all__ = [
    "ClosedFormKernels",
    "InfiniteMLPKernels",
    "InfiniteRNNKernels",
    "RowBatch",
    "dual_activation",
]
