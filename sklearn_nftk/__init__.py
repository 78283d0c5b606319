"""Layer-resolved neural tangent kernels for scikit-learn.

One tangent kernel per layer, convex weights over the layers, and predictions that decompose
exactly into what each layer contributed. The way the data goes, which is also the tree::

    X -> network -> layers -> tangent factors -> layer kernels -> statistics -> weights -> dual coefficients -> inspection
         networks/            tangents/          kernels.py       weights/                 solvers/             inspection/

Imports only point to the left.
"""  # noqa: E501 - the drawing is one line

from ._version import __version__
from .estimators import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
    MultipleKernelRegressor,
)

__all__ = [
    "MultiLayerNTKClassifier",
    "MultiLayerNTKRegressor",
    "MultipleKernelClassifier",
    "MultipleKernelRegressor",
    "__version__",
]
