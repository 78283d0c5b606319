"""Support vector machine on one combined kernel, by libsvm."""

from ..utils._sklearn import libsvm

# Contributions and sample-weight equivalence are read off the solution: solve it well.
_TOL = 1e-8
_CACHE_MB = 500


def hinge(K, y, s, C):
    """Solve ``min 1/2 ||f||^2 + C sum_i s_i max(0, 1 - y_i (f(x_i) + b))``.

    Parameters
    ----------
    K : ndarray of shape (n, n)
        Combined kernel, float64.
    y : ndarray of shape (n,)
        -1 and 1.
    s : ndarray of shape (n,)
        Positive sample weights of the loss.
    C : float

    Returns
    -------
    dual_coef : ndarray of shape (n,)
        ``alpha_i y_i``, summing to 0.
    intercept : float
    """
    dual_coef, intercept, _ = libsvm(K, y, C, s, tol=_TOL, cache_size=_CACHE_MB)
    return dual_coef, intercept
