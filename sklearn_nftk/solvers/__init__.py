"""Kernel machines on one combined kernel: ridge with exact leave-one-out, hinge, and oracles."""

from ._hinge import hinge
from ._oracles import HingeOracle, RidgeOracle
from ._ridge import C_GRID, loo_errors, loo_scores, ridge, ridge_coefficients

__all__ = [
    "C_GRID",
    "HingeOracle",
    "RidgeOracle",
    "hinge",
    "loo_errors",
    "loo_scores",
    "ridge",
    "ridge_coefficients",
]
