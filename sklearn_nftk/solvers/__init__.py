"""Kernel machines on one combined kernel: ridge with exact leave-one-out, and hinge."""

from ._hinge import hinge
from ._ridge import C_GRID, loo_errors, ridge

__all__ = ["C_GRID", "hinge", "loo_errors", "ridge"]
