"""Layer-resolved neural tangent kernels for scikit-learn.

One tangent kernel per layer, convex weights over the layers, and predictions that decompose
exactly into what each layer contributed. The way the data goes, which is also the tree::

    X -> network -> tangent factors -> layer kernels -> statistics -> weights -> dual coefficients -> inspection
         networks/  tangents/          kernels.py       grams/        weights/   solvers/             inspection/
                    closed_form/                                                 learner/

`estimators/` walks this way in one screen. Imports go one way too: a specification of a network
yields its own source of kernels, so that `networks/` stands on `tangents/` and `closed_form/`;
everything else imports from its left.
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
