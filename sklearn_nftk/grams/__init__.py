"""The n x n layer kernels of a training set: stored or streamed, statistics, normalisation."""

from ._average import AverageKernels, StackedKernels
from ._cosine import CosineKernels
from ._grams import Grams, StoredGrams
from ._normalize import NORMALIZATIONS, scale
from ._statistics import KernelStatistics, StatisticsAccumulator, pooled
from ._streamed import StreamedGrams, fold_grams, layer_grams

__all__ = [
    "NORMALIZATIONS",
    "AverageKernels",
    "CosineKernels",
    "Grams",
    "KernelStatistics",
    "StatisticsAccumulator",
    "StackedKernels",
    "StoredGrams",
    "StreamedGrams",
    "fold_grams",
    "layer_grams",
    "pooled",
    "scale",
]
