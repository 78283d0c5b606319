"""Kernel weights by centred alignment with the targets (ALIGNF; Cortes et al., JMLR 2012)."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ._solve import one_at_a_time, solve

# Ridge on the correlation matrix of the kernels: decides between interchangeable layers.
_RIDGE = 1e-8
# An interior-point method leaves inactive weights at about its tolerance.
_ACTIVE = 1e-6
# To which the optimality conditions must hold, in units of the largest alignment.
_TOLERANCE = 1e-6


class AlignmentProblem:
    """``min_{v >= 0} v' M v - 2 a' v``, compiled once and solved for every decision.

    As ``sum_squares(R v)`` with R a parameter and ``R' R = M`` the problem follows cvxpy's rules
    for parametrised programs; ``quad_form(v, M)`` with M a parameter would not.

    Parameters
    ----------
    n_layers : int
    """

    @one_at_a_time
    def __init__(self, n_layers):
        import cvxpy as cp

        self._v = cp.Variable(n_layers, nonneg=True)
        self._root = cp.Parameter((n_layers, n_layers))
        self._a = cp.Parameter(n_layers)
        objective = cp.sum_squares(self._root @ self._v) - 2 * self._a @ self._v
        self._problem = cp.Problem(cp.Minimize(objective))

    def solve(self, inner_products, target_products):
        """Weights on the simplex for one decision.

        M and a are scaled to correlations (v in units of ``1 / sqrt(M_ll)``), which changes the
        conditioning and not the solution.

        Parameters
        ----------
        inner_products : ndarray of shape (L, L)
            ``M_kl = <K_k^c, K_l^c>_F``, centred kernels, positive diagonal.
        target_products : ndarray of shape (L,)
            ``a_l = y' K_l^c y``.

        Returns
        -------
        ndarray of shape (L,) or None
            ``v / sum(v)``; None if no kernel is aligned with the targets at all.
        """
        norms = np.sqrt(inner_products.diagonal())
        a = target_products / norms
        if not a.max() > 1e-12 * np.abs(a).max():
            return None
        a = a / a.max()  # v scales with a, and is normalised in the end
        correlation = inner_products / np.outer(norms, norms) + _RIDGE * np.eye(len(a))
        # Cholesky would refuse what rounding made indefinite; the eigenvectors do not.
        eigenvalues, eigenvectors = np.linalg.eigh(correlation)
        self._root.value = np.sqrt(eigenvalues.clip(_RIDGE))[:, None] * eigenvectors.T
        self._a.value = a
        # What comes back is judged below, by the optimality conditions themselves.
        # Without any iterate, each kernel's own alignment is where the conditions are checked.
        iterate = np.asarray(self._v.value) if solve(self._problem) else a
        v, violation = _polish(np.maximum(iterate, 0.0), correlation, a)
        if violation > _TOLERANCE:
            warnings.warn(
                "alignment weights: the solver did not converge; the optimality conditions hold "
                f"to {violation:.1e} only, not to {_TOLERANCE:.0e}.",
                ConvergenceWarning,
                stacklevel=2,
            )
        v = v / norms
        return v / v.sum()


def _polish(v, correlation, a):
    """Solve the optimality conditions on the support of v: exact to rounding, with true zeros.

    The solver is within 1e-8 of the optimum, which weights would inherit; equal problems stated
    differently (repeated rows, say) must give equal weights. Returns the better of the two and by
    how much it violates the conditions.
    """
    support = v > _ACTIVE * v.max()
    while True:
        exact = np.zeros_like(v)
        exact[support] = np.linalg.solve(correlation[np.ix_(support, support)], a[support])
        if exact.min() >= 0:
            break
        support &= exact > 0  # what the solver had not quite pushed to zero
    candidates = [(_violation(u, correlation, a), u) for u in (exact, v)]
    violation, best = min(candidates, key=lambda pair: pair[0])
    return best, violation


def _violation(v, correlation, a):
    """Of ``v >= 0, M v - a >= 0, v o (M v - a) = 0``; infinite for an infeasible v."""
    if v.min() < 0:
        return np.inf
    gradient = correlation @ v - a
    return max(-gradient.min(), np.abs(v * gradient).max())
