"""Convex weights over the layers: statistics of the layer kernels, and the problems on them.

Every problem sees the statistics alone, so its size is the number of layers, never n.
"""

from ._alignment import AlignmentProblem
from ._level import Cut, LevelMethod, MarginSolution
from ._lp import LpMarginProblem
from ._margin import MarginProblem
from ._methods import fixed_weights, learned_weights
from ._normalize import NORMALIZATIONS, cosine_normalise, layer_scales
from ._statistics import KernelStatistics, StatisticsAccumulator

__all__ = [
    "AlignmentProblem",
    "Cut",
    "NORMALIZATIONS",
    "KernelStatistics",
    "LevelMethod",
    "LpMarginProblem",
    "MarginProblem",
    "MarginSolution",
    "StatisticsAccumulator",
    "cosine_normalise",
    "fixed_weights",
    "layer_scales",
    "learned_weights",
]
