"""Kernel machines on one combined kernel: ridge with exact leave-one-out, and hinge."""

from ._hinge import hinge
from ._oracles import HingeOracle, RidgeOracle
from ._ridge import C_GRID, choose_C, ridge

__all__ = ["C_GRID", "HingeOracle", "RidgeOracle", "choose_C", "hinge", "ridge"]
