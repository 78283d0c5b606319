"""The n x n layer kernels of a training set: stored or streamed, statistics, normalisation."""

from ._grams import FamilyView, LayerGrams, StoredGrams, StreamedGrams
from ._normalize import NORMALIZATIONS, cosine_normalise, layer_scales
from ._statistics import KernelStatistics, StatisticsAccumulator

__all__ = [
    "NORMALIZATIONS",
    "FamilyView",
    "KernelStatistics",
    "LayerGrams",
    "StatisticsAccumulator",
    "StoredGrams",
    "StreamedGrams",
    "cosine_normalise",
    "layer_scales",
]
