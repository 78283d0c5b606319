"""Targets and weights of all rows of a training set."""

from typing import NamedTuple

import numpy as np


class Targets(NamedTuple):
    """Targets of n rows.

    Attributes
    ----------
    Y : ndarray of shape (n, n_decisions)
    s : ndarray of shape (n,)
        Weights of the loss; rows of weight 0 do not count.
    sample_weight : ndarray of shape (n,)
        The same without the weights of classes.
    codes : ndarray of int, shape (n,), or None
        Classes, where there are some.
    """

    Y: np.ndarray
    s: np.ndarray
    sample_weight: np.ndarray
    codes: np.ndarray | None = None
