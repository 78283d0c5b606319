"""Support vector machine on one combined kernel, by libsvm."""

import numpy as np
from sklearn.svm import SVC

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
    # Nothing is drawn, but without a random state numpy's global generator would move on.
    svc = SVC(C=C, kernel="precomputed", tol=_TOL, cache_size=_CACHE_MB, random_state=0)
    svc.fit(K, y, sample_weight=s)
    dual_coef = np.zeros(len(y))
    dual_coef[svc.support_] = svc.dual_coef_[0]
    return dual_coef, float(svc.intercept_[0])
