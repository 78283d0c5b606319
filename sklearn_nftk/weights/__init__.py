"""Convex weights over the layers: one file for each method, one entry for each in `METHODS`.

The convex problems see statistics of the kernels or cutting planes, so their size is the number of
layers, never n.
"""

from ._aligned import Alignment
from ._alignment import AlignmentProblem
from ._base import LayerWeights, WeightMethod
from ._fixed import Given, Sum, Uniform
from ._level import Cut, LevelMethod, MarginSolution
from ._lp import LpMarginProblem
from ._margin import MarginProblem
from ._margins import LpMargin, Margin

__all__ = [
    "METHODS",
    "AlignmentProblem",
    "Cut",
    "LayerWeights",
    "LevelMethod",
    "LpMarginProblem",
    "MarginProblem",
    "MarginSolution",
    "WeightMethod",
    "weight_method",
]

# name -> method; a new one is a new file and a new entry
METHODS: dict[str, WeightMethod] = {
    method.name: method for method in (Alignment(), Margin(), LpMargin(), Uniform(), Sum())
}


def weight_method(kernel_weights):
    """Find the method that the parameter `kernel_weights` means: a name, or weights themselves."""
    if isinstance(kernel_weights, str):
        return METHODS[kernel_weights]
    return Given(kernel_weights)
