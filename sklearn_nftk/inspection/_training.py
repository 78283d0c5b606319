"""The exact split of a decision over the training examples."""

from typing import Any

import numpy as np
from sklearn.utils import Bunch, check_scalar

from ..utils._memory import require_memory
from ._unwrap import final_estimator, transformed


def training_contributions(estimator, X, *, per_layer=False, top=None):
    """How much each training example spoke for or against each decision.

    ``psi_ci(x) = a_ci sum_l w_cl K_l(x, x_i)``, so that the sum over the training examples plus
    ``intercept_`` is ``decision_function(X)``, exactly. It is a statement about this machine, not
    about what would have been learned without the example: the coefficients ``a_ci`` depend on
    all of them.

    Parameters
    ----------
    estimator : estimator of sklearn_nftk or Pipeline ending in one
        Fitted. X is taken through the earlier steps of a pipeline.
    X : array-like of shape (n_samples, n_features)
    per_layer : bool, default=False
        Split each contribution over the layers too: ``w_cl a_ci K_l(x, x_i)``.
    top : int, default=None
        Return the `top` contributions of the largest absolute value alone; the array of all is
        then never built.

    Returns
    -------
    contributions : ndarray or :class:`sklearn.utils.Bunch`
        Array of shape (n_samples, n_decisions, n_fit), or (n_samples, n_decisions, n_fit,
        n_layers) with `per_layer`. n_decisions is 1 for two classes; n_fit counts the training
        rows of positive weight, in the order of ``X_fit_``. With `top` a Bunch of:

        indices : ndarray of int, shape (n_samples, n_decisions, top)
            Training rows, the largest absolute contribution first.
        contributions : ndarray of shape (n_samples, n_decisions, top[, n_layers])
            What they contributed.

    Raises
    ------
    ValueError
        If `top` is not positive.
    MemoryError
        If the result would not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import training_contributions
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MultiLayerNTKClassifier(random_state=0).fit(X, y)
    >>> total = training_contributions(model, X[:2]).sum(axis=2) + model.intercept_
    >>> bool(np.allclose(total, model.decision_function(X[:2])))
    True
    >>> training_contributions(model, X[:2], top=5).indices.shape
    (2, 3, 5)
    """
    machine = final_estimator(estimator)
    if top is not None:
        check_scalar(top, "top", target_type=int, min_val=1)
    X = machine._test_set(transformed(estimator, X))
    n_decisions, n_fit = machine.dual_coef_.shape
    n_kept = n_fit if top is None else min(top, n_fit)
    layers = machine.kernel_weights_.shape[1:] if per_layer else ()
    shape = (len(X), n_decisions, n_kept, *layers)
    require_memory(
        8 * np.prod(shape, dtype=float),
        f"Training contributions of shape {shape}",
        advice="Ask for fewer samples, or for the largest contributions alone by `top`.",
    )
    contributions = np.empty(shape)
    indices: Any = None if top is None else np.empty(shape[:3], dtype=np.intp)
    for rows, block in machine._blocks(X):
        for c in range(n_decisions):
            planes = block[c] if block.ndim == 4 else block  # (L, b, n_fit)
            dual_coef = machine.dual_coef_[c]
            if top is not None:
                found = _largest(_contributions(machine, c, planes, dual_coef), n_kept)
                indices[rows, c] = found
                planes = np.take_along_axis(planes, found[None], axis=2)
                dual_coef = dual_coef[found]
            contributions[rows, c] = _contributions(
                machine, c, planes, dual_coef, per_layer=per_layer
            )
    return contributions if top is None else Bunch(indices=indices, contributions=contributions)


def _contributions(machine, c, planes, dual_coef, *, per_layer=False):
    """``w_cl a_ci K_l(x, x_i)`` of decision c, with the layers last or summed.

    `planes` (L, b, k) and `dual_coef` (k,) or (b, k) are those of k training rows.
    """
    scales = np.broadcast_to(machine.layer_scales_, machine.kernel_weights_.shape)
    coefficients = machine.kernel_weights_[c] / scales[c]
    if per_layer:
        return np.moveaxis(planes, 0, -1) * coefficients * dual_coef[..., None]
    return np.tensordot(coefficients, planes, axes=1) * dual_coef


def _largest(contributions, k):
    """Columns of the k largest absolute values of each row, in descending order."""
    sizes = -np.abs(contributions)
    found = np.argpartition(sizes, k - 1, axis=1)[:, :k]
    order = np.argsort(np.take_along_axis(sizes, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)
