"""Kernel logistic regression with unpenalised intercept and sample weights, by Newton steps.

The problem is ``min 1/2 ||f||^2 + C sum_i s_i log(1 + exp(-y_i (f(x_i) + b)))`` with y of -1 and
1. Its conditions are ``f = K a``, ``a_i = C s_i y_i sigma(-u_i)``, ``1' a = 0`` with
``u_i = y_i (f(x_i) + b)``; a Newton step is a ridge regression of the working responses
``f + b + y / sigma(u)`` with the curvatures ``C s sigma(u) sigma(-u)`` for weights (Rasmussen &
Williams 2006, section 3.4).
"""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning

from ._ridge import ridge_coefficients

# Largest difference of the coefficients from what they must be, in units of the largest C s.
_TOL = 1e-6
_SHORTEST_STEP = 1e-9
_MAX_ITER = 100


class LogisticSolution(NamedTuple):
    """Solution for one target.

    Attributes
    ----------
    dual_coef : ndarray of shape (n,)
    intercept : float
    curvatures, responses : ndarray of shape (n,)
        Of the ridge regression that has the same solution.
    """

    dual_coef: np.ndarray
    intercept: float
    curvatures: np.ndarray
    responses: np.ndarray


def first_step(K, Y, s, C):
    """The first Newton step from zero, which is the same ridge regression for all targets.

    Parameters
    ----------
    K : ndarray of shape (n, n)
        Combined kernel, float64. Overwritten.
    Y : ndarray of shape (n, k)
        Targets -1 and 1.
    s, C
        As in `logistic`.

    Returns
    -------
    dual_coef : ndarray of shape (n, k)
    intercept : ndarray of shape (k,)
    """
    return ridge_coefficients(K, 2 * Y, C * s / 4, 0.5)


def logistic(K, y, s, C, start=None):
    """Solve for one target.

    Parameters
    ----------
    K : ndarray of shape (n, n)
        Combined kernel, float64; left as it is.
    y : ndarray of shape (n,)
        Targets -1 and 1, of both kinds.
    s : ndarray of shape (n,)
        Positive sample weights of the loss.
    C : float
    start : tuple (dual_coef, intercept), default=None
        Of this target from `first_step`, which is taken where there is none.

    Returns
    -------
    LogisticSolution

    Warns
    -----
    ConvergenceWarning
        If Newton steps end before the conditions hold.
    """
    if start is None:
        coefficients, intercepts = first_step(K.copy(), y[:, None], s, C)
        start = coefficients[:, 0], intercepts[0]
    a, b = start
    f = K @ a
    value = _objective(a, f, b, y, s, C)
    for _ in range(_MAX_ITER):
        curvatures, responses, error = _expanded(a, f, b, y, s, C)
        if error <= _TOL * C * s.max():
            break
        target, constant = ridge_coefficients(K.copy(), responses[:, None], curvatures, 0.5)
        steps = target[:, 0] - a, constant[0] - b
        change = K @ steps[0]
        t = 1.0
        while t > _SHORTEST_STEP:  # Newton steps of this loss may go too far
            tried = a + t * steps[0], f + t * change, b + t * steps[1]
            smaller = _objective(*tried, y, s, C)
            if smaller <= value:
                break
            t /= 2
        if t <= _SHORTEST_STEP:  # rounding
            break
        a, f, b = tried
        value = smaller
    else:
        warnings.warn(
            f"Newton steps of the logistic loss did not converge: coefficients are {error:.1e} "
            f"from their conditions after {_MAX_ITER} steps, C is {C:.3g}.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return LogisticSolution(a, b, curvatures, responses)


def _objective(a, f, b, y, s, C):
    return a @ f / 2 + C * s @ np.logaddexp(0, -y * (f + b))


def _expanded(a, f, b, y, s, C):
    """Curvatures and working responses at a point, and how far it is from a solution."""
    u = y * (f + b)
    right, wrong = expit(u), expit(-u)
    curvatures = np.maximum(C * s * right * wrong, np.finfo(float).tiny)
    error = np.abs(a - C * s * y * wrong).max()
    return curvatures, f + b + y / right, error
