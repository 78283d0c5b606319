"""The scikit-learn estimators: thin, one for networks and one for precomputed kernels."""

from ._base import BaseMultipleKernelMachine
from ._classifier import MultiLayerNTKClassifier
from ._multiple_kernel import MultipleKernelClassifier, MultipleKernelRegressor
from ._regressor import MultiLayerNTKRegressor

__all__ = [
    "BaseMultipleKernelMachine",
    "MultiLayerNTKClassifier",
    "MultiLayerNTKRegressor",
    "MultipleKernelClassifier",
    "MultipleKernelRegressor",
]
