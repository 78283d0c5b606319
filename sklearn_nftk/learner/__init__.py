"""From the layer kernels of a training set to weights, coefficients and decisions."""

from ._problem import Problem
from ._targets import KernelClassifierMixin, KernelRegressorMixin

__all__ = ["KernelClassifierMixin", "KernelRegressorMixin", "Problem"]
