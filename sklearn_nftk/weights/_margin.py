"""Kernel weights of l1-norm multiple kernel learning: the best margin over the simplex."""

import numpy as np

from ._level import LevelMethod

# In units of the largest weight: what an interior-point method leaves of an inactive one.
_INACTIVE = 1e-7


class MarginProblem(LevelMethod):
    """``min_w J(w)`` over the simplex (Lanckriet et al., JMLR 2004; Xu et al., NeurIPS 2008).

    Equivalent to ``min 1/2 (sum_l ||f_l||)^2 + C sum_i s_i loss_i``, hence sparse.

    Parameters
    ----------
    n_layers : int
    max_cuts : int, default=100
    """

    def __init__(self, n_layers, max_cuts=100):
        super().__init__(Simplex(), n_layers, max_cuts)


class Simplex:
    """``w >= 0, sum(w) = 1``."""

    def constraints(self, w):
        """For cvxpy."""
        import cvxpy as cp

        return [w >= 0, cp.sum(w) == 1]

    def support(self, q):
        """``max_w w @ q``."""
        return q.max()

    def clean(self, w):
        """True zeros, and the sum 1."""
        w = active(w)
        return w / w.sum()


def active(w):
    """Weights with true zeros for the inactive ones."""
    w = np.asarray(w, dtype=float)
    return np.where(w > _INACTIVE * w.max(), w, 0.0)
