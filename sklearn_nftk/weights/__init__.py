"""Convex weights over the layers: one file for each method, one entry for each in `METHODS`.

The convex problems see statistics of the kernels or cutting planes, so their size is the number of
layers, never n.
"""

from ._alignment import Alignment
from ._alignment_problem import AlignmentProblem
from ._base import LayerWeights, WeightMethod
from ._given import Given
from ._level import CuttingPlane, LevelMethod, MarginSolution
from ._lp import LpMargin, LpMarginProblem
from ._margin import Margin, MarginProblem
from ._sum import Sum
from ._uniform import Uniform

__all__ = [
    "METHODS",
    "AlignmentProblem",
    "CuttingPlane",
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
