"""The scikit-learn estimators: thin, on networks and on precomputed kernels."""

from ._base import BaseKernelMachine
from ._classifier import MultiLayerNTKClassifier
from ._decisions import (
    contributions,
    decisions,
    first_copies,
    fitted,
    fitted_problem,
    kernel_blocks,
    kernel_diagonals,
    knows_training_kernels,
    training_classes,
    training_columns,
    training_problem,
    training_weights,
    validated_test_set,
    with_decisions,
)
from ._multiple_kernel import MultipleKernelClassifier, MultipleKernelRegressor
from ._regressor import MultiLayerNTKRegressor

__all__ = [
    "BaseKernelMachine",
    "MultiLayerNTKClassifier",
    "MultiLayerNTKRegressor",
    "MultipleKernelClassifier",
    "MultipleKernelRegressor",
    "contributions",
    "decisions",
    "first_copies",
    "fitted",
    "fitted_problem",
    "kernel_blocks",
    "kernel_diagonals",
    "knows_training_kernels",
    "training_classes",
    "training_columns",
    "training_problem",
    "training_weights",
    "validated_test_set",
    "with_decisions",
]
