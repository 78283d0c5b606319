"""Convex weights over the layers: statistics of the layer kernels, and the problems on them.

Every problem sees the statistics alone, so its size is the number of layers, never n.
"""

from ._alignment import AlignmentProblem
from ._level import Cut, LevelMethod, MarginSolution
from ._lp import LpMarginProblem
from ._margin import MarginProblem
from ._methods import fixed_weights, learned_weights

__all__ = [
    "AlignmentProblem",
    "Cut",
    "LevelMethod",
    "LpMarginProblem",
    "MarginProblem",
    "MarginSolution",
    "fixed_weights",
    "learned_weights",
]
