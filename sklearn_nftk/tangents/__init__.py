"""The tangent engine: layers of a network, what its passes leave behind, and Grams from it.

The way through: `group_layers` says which parameters form a layer; `capture` runs the network and
keeps inputs and output gradients of every use of a module; rules turn these into factors, autograd
does where there is no rule, and a plan remembers which; factors give Grams by matrix products.
`TangentKernels` does all of it, tile by tile; the picture is in its docstring.
"""

from ._capture import HEADS
from ._factors import DenseFactor, OuterFactor, PositionFactor
from ._layers import Layer, group_layers
from ._ntk_linear import NTKLinear
from ._rules import register_rule
from ._source import TangentKernels

__all__ = [
    "HEADS",
    "DenseFactor",
    "Layer",
    "NTKLinear",
    "OuterFactor",
    "PositionFactor",
    "TangentKernels",
    "group_layers",
    "register_rule",
]
