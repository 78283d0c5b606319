"""Kernels of infinitely wide networks: recursions over layers and time, tile by tile."""

from ._mlp import InfiniteMLPKernels
from ._recurrent import InfiniteRNNKernels
from ._source import ClosedFormKernels, RowBatch, group_names

__all__ = [
    "ClosedFormKernels",
    "InfiniteMLPKernels",
    "InfiniteRNNKernels",
    "RowBatch",
    "group_names",
]
