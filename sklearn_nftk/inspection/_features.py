"""Where in the input: contributions of the features to the decisions, by derivatives."""

import warnings

import numpy as np
from sklearn.utils import Bunch, check_scalar

from ..estimators import fitted, kernel_blocks, training_weights, validated_test_set
from ..utils._memory import require_memory, working_memory
from ._unwrap import final_estimator, transformed

# Points on the paths of several samples that are differentiated together.
_POINTS = 1024
# Part of the change of a decision beyond which the user is told what features do not explain.
_TOLERANCE = 1e-3


def feature_contributions(
    estimator,
    X,
    *,
    per_layer=False,
    method="gradient",
    baseline=None,
    n_steps=64,
    return_residual=False,
):
    """Contribution of each feature of a sample to each decision.

    With ``f_c(x) = sum_l w_cl sum_i a_ci K_l(x, x_i) + b_c`` and a baseline ``x'``, that of
    feature j is

    - "gradient": ``(x_j - x'_j) d f_c / d x_j (x)``, a linear approximation at x;
    - "integrated": ``(x_j - x'_j) int_0^1 d f_c / d x_j (x' + t (x - x')) dt``, the integrated
      gradients [1]_, which sum to ``f_c(x) - f_c(x')``.

    Tangent kernels are continuous in x where the derivative of the activation is. Those of finite
    networks of rectifiers jump, and no derivative sees it: the sum misses the jumps on the path.
    What is missing is the residual.

    Derivatives of torch networks and of `InfiniteMLP` are exact. A decision is a product of the
    gradient of the network with one vector for each layer, so the cost of a sample does not depend
    on the size of the training set. Other kernels are differentiated by central differences.

    Parameters
    ----------
    estimator : estimator of sklearn_nftk on networks, Pipeline ending in one, or search over them
        Fitted. X is taken through the earlier steps of a pipeline, and features are those of its
        last step.
    X : array-like of shape (n_samples, ...)
        Real numbers. Indices that a network looks up in an embedding have no derivative.
    per_layer : bool, default=False
        Split each contribution over the layers too.
    method : {"gradient", "integrated"}, default="gradient"
    baseline : array-like of the shape of a sample or of X, default=None
        What samples are compared with, in the features of the last step of a pipeline; one for
        all, or one for each. None is the mean of the training set, weighted as in `fit`, for
        "integrated", and zeros, which is gradient times input, for "gradient".
    n_steps : int, default=64
        Nodes of the Gauss-Legendre rule for the integral.
    return_residual : bool, default=False
        Return the residual too, and do not warn of it.

    Returns
    -------
    contributions : ndarray or :class:`sklearn.utils.Bunch`
        Array of shape (n_samples, n_decisions, ...), or (n_samples, n_decisions, ..., n_layers)
        with `per_layer`. n_decisions is 1 for two classes. With `return_residual` a
        Bunch of:

        contributions : ndarray
            This array.
        residual : ndarray of shape (n_samples, n_decisions[, n_layers])
            ``f_c(x) - f_c(x')``, or its part by each layer, less the sum over the features.

    Raises
    ------
    ValueError
        If X is not of finite numbers, the estimator is one on precomputed kernels, a network
        cannot be differentiated twice, or a parameter is not acceptable.
    MemoryError
        If the result would not fit into memory.

    Warns
    -----
    UserWarning
        If integrated gradients miss more than a thousandth of a decision's change, relative to
        it or to the sum of the absolute contributions, whichever is larger.

    References
    ----------
    .. [1] Sundararajan, Taly, Yan. Axiomatic Attribution for Deep Networks. ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import feature_contributions
    >>> from sklearn_nftk.networks import MLP
    >>> X, y = load_iris(return_X_y=True)
    >>> network = MLP((64, 64), activation="tanh")
    >>> model = MultiLayerNTKClassifier(network, random_state=0).fit(X, y)
    >>> contributions = feature_contributions(model, X[:5], method="integrated")
    >>> contributions.shape
    (5, 3, 4)
    >>> change = model.decision_function(X[:5]) - model.decision_function([X.mean(axis=0)])
    >>> bool(np.allclose(contributions.sum(axis=2), change))
    True
    """
    if method not in ("gradient", "integrated"):
        raise ValueError(f"method must be 'gradient' or 'integrated', got {method!r}.")
    check_scalar(n_steps, "n_steps", target_type=int, min_val=1)
    machine = final_estimator(estimator)
    if not hasattr(machine, "kernel_source_"):
        raise ValueError(
            "estimator must be one on networks: precomputed kernels know nothing of the features "
            f"of samples, so {type(machine).__name__} has no contributions of features."
        )
    X = _real(validated_test_set(machine, transformed(estimator, X)))
    baseline = _baseline(machine, X, baseline, method)
    coefficients = fitted(machine).coefficients
    kept = coefficients.shape[: 2 if per_layer else 1]
    shape = (len(X), *kept, *X.shape[1:])
    require_memory(
        2 * 8 * np.prod(shape, dtype=float),
        f"Feature contributions of shape {shape}",
        advice="Ask for fewer samples.",
    )
    expansion = machine.kernel_source_.expansion(
        machine.X_fit_, machine.dual_coef_[:, None], coefficients
    )
    if method == "gradient":
        gradients = expansion.gradients(X, per_layer=per_layer)
    else:
        n_gradients = int(np.prod(kept))
        gradients = _mean_gradients(
            expansion, X, baseline, n_steps, n_gradients, per_layer=per_layer
        )
    result = gradients * (X - baseline)[:, None, None]
    result = np.moveaxis(result, 2, -1) if per_layer else result[:, :, 0]
    if method == "gradient" and not return_residual:
        return result
    change = decisions_by_layer(machine, X) - decisions_by_layer(machine, baseline)
    features = tuple(range(2, 1 + X.ndim))
    if return_residual:
        total = change if per_layer else change.sum(axis=2)
        return Bunch(contributions=result, residual=total - result.sum(axis=features))
    summed = result.sum(axis=-1) if per_layer else result
    _warn_of_residual(change.sum(axis=2), summed, features)
    return result


def _real(X):
    """Finite floating-point numbers."""
    if X.dtype.kind not in "fiu":
        raise ValueError(f"X must be an array of real numbers, got one of {X.dtype}.")
    if X.dtype.kind == "f" and not np.isfinite(X).all():
        raise ValueError(
            "X must be finite: the steps that shorter sequences lack have no derivative; give "
            "sequences of one length at a time."
        )
    return X


def _baseline(machine, X, baseline, method):
    """What samples are compared with, shape (1 or n, *features)."""
    if baseline is None and method == "gradient":
        return np.zeros((1, *X.shape[1:]))
    if baseline is None:
        baseline = np.tensordot(training_weights(machine), _real(machine.X_fit_), axes=1)
    baseline = np.asarray(baseline)
    if baseline.shape == X.shape[1:]:
        baseline = baseline[None]
    is_real = baseline.dtype.kind in "fiu" and np.isfinite(baseline).all()
    if not is_real or baseline.shape not in (X.shape, (1, *X.shape[1:])):
        raise ValueError(
            f"baseline must be None or finite numbers of shape {X.shape[1:]}, one for all "
            f"samples, or {X.shape}, one for each; got {baseline.dtype} of shape {baseline.shape}."
        )
    return baseline.astype(float)


def _mean_gradients(expansion, X, baseline, n_steps, n_gradients, *, per_layer):
    """Mean gradients on the paths to samples, shape (n, n_decisions, L or 1, *features).

    By Gauss-Legendre quadrature, exact for polynomials of degree ``2 n_steps - 1``. `n_gradients`
    is how many there are of each sample.
    """
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    times = ((1 + nodes) / 2).reshape(-1, *[1] * (X.ndim - 1))
    baseline = np.broadcast_to(baseline, X.shape)
    per_point = 8 * X[0].size * n_gradients
    size = max(1, min(_POINTS, working_memory() // per_point) // n_steps)
    means = []
    for start in range(0, len(X), size):
        ends = zip(X[start : start + size], baseline[start : start + size], strict=True)
        points = np.concatenate([origin + times * (x - origin) for x, origin in ends])
        gradients = expansion.gradients(points, per_layer=per_layer)
        by_sample = gradients.reshape(-1, n_steps, *gradients.shape[1:])
        means.append(np.tensordot(weights / 2, by_sample, axes=(0, 1)))
    return np.concatenate(means)


def decisions_by_layer(machine, X):
    """Contributions of the layers on samples that are validated, (n, n_decisions, L)."""
    machine_on_rows = fitted(machine)
    blocks = kernel_blocks(machine, X)
    return np.concatenate([machine_on_rows.contributions(block) for _, block in blocks])


def _warn_of_residual(change, contributions, features):
    """Say how much of the change of the decisions the features do not explain, if it is much."""
    residual = np.abs(change - contributions.sum(axis=features))
    scale = np.maximum(np.abs(change), np.abs(contributions).sum(axis=features))
    share = float(np.max(np.divide(residual, scale, out=np.zeros_like(scale), where=scale > 0)))
    if share > _TOLERANCE:
        warnings.warn(
            f"The contributions of the features miss up to {share:.1%} of a decision's change "
            "between baseline and sample: kernels that jump on the way, as those of finite "
            "networks of rectifiers do, or too few n_steps. return_residual=True returns what "
            "is missing.",
            UserWarning,
            stacklevel=3,
        )
