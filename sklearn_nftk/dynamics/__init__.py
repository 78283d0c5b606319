"""The tangent kernel while a network is trained, after Fort et al. (NeurIPS 2020), layer by layer.

How far and how fast the kernels of the layers move (`KernelTrajectory`), when the basin of the
solution is decided (`spawn_children`, `error_barrier`), how different two networks are
(`kernel_distance`, `function_distance`, `relu_distance`), and how well the kernel of a checkpoint
does (`LinearizedClassifier`, `LinearizedRegressor`; `CheckpointNTK` for the estimators). ::

    training -> records -> distances, velocities, weights -> frame, display
                   |
                   +-> checkpoints -> a kernel source -> the estimators
"""

from ._barrier import error_barrier
from ._checkpoints import CheckpointNTK
from ._display import KernelTrajectoryDisplay
from ._distances import function_distance, kernel_distance, relu_distance
from ._linearized import LinearizedClassifier, LinearizedRegressor
from ._spawn import spawn_children
from ._trajectory import KernelTrajectory

__all__ = [
    "CheckpointNTK",
    "KernelTrajectory",
    "KernelTrajectoryDisplay",
    "LinearizedClassifier",
    "LinearizedRegressor",
    "error_barrier",
    "function_distance",
    "kernel_distance",
    "relu_distance",
    "spawn_children",
]
