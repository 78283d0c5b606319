"""The contract of methods that weight the layers."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np


class LayerWeights(NamedTuple):
    """Weights over the layers.

    Attributes
    ----------
    weights : ndarray of shape (n_decisions, L)
        Non-negative, each row sums to 1.
    basis : ndarray of shape (n_decisions, L)
        The weights that C is chosen with: other ones, where the weights depend on C.
    n_iter : int
        Kernel machines solved, the most of any decision; 1 where none had to be.
    dual_gap : float or None
        Certified relative gap, the largest of the decisions.
    """

    weights: np.ndarray
    basis: np.ndarray
    n_iter: int = 1
    dual_gap: float | None = None


class WeightMethod(ABC):
    """One way to weight the layers, an entry of `METHODS`.

    Attributes
    ----------
    name : str
        The value of the parameter `kernel_weights` that means it.
    constraints : dict
        Parameters of the estimators that it alone reads, and what they may be.
    """

    name: ClassVar[str]
    constraints: ClassVar[dict] = {}

    @abstractmethod
    def weights(self, problem, statistics, mask):
        """Weight the active layers.

        Parameters
        ----------
        problem : Problem
            Kernel machines on the scaled kernels, for any weights; its ``options`` hold the
            parameters, its ``kernels`` say which of the H kernels a decision uses.
        statistics : list of H KernelStatistics
            Of the scaled kernels.
        mask : ndarray of bool, shape (H, L)
            The active layers; the others get weight 0.

        Returns
        -------
        LayerWeights
        """


def on_simplex(rows):
    """Rows divided by their sums; uniform where nothing is left."""
    rows = np.where(rows.any(axis=1, keepdims=True), rows, 1.0)
    return rows / rows.sum(axis=1, keepdims=True)


def uniform_weights(problem, mask):
    """Equal weights of the active layers, shape (n_decisions, L)."""
    return on_simplex(mask[problem.kernels].astype(float))
