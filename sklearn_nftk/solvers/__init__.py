"""Kernel machines on one combined kernel: ridge with exact leave-one-out, hinge, and oracles."""

from ._hinge import hinge
from ._leave_one_out import LeaveOneOut
from ._logistic import first_step, logistic
from ._oracles import HingeOracle, RidgeOracle
from ._ridge import C_GRID, anchored_loo_scores, ridge, ridge_coefficients, ridge_path

__all__ = [
    "C_GRID",
    "HingeOracle",
    "LeaveOneOut",
    "RidgeOracle",
    "anchored_loo_scores",
    "first_step",
    "hinge",
    "logistic",
    "ridge",
    "ridge_coefficients",
    "ridge_path",
]
