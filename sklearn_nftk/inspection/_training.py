"""The exact split of a decision over the training examples."""

from typing import Any

import numpy as np
from sklearn.utils import Bunch, check_scalar

from ..estimators import fitted, kernel_blocks, training_columns, validated_test_set
from ..utils._memory import require_memory
from ._top import largest
from ._unwrap import final_estimator, transformed


def training_contributions(estimator, X, *, per_layer=False, top=None, baseline="intercept"):
    """Contributions of the training examples for or against each decision.

    ``psi_ci(x) = a_ci sum_l w_cl K_l(x, x_i)``, so that the sum over the training examples plus
    ``intercept_`` is ``decision_function(X)``, exactly. It is a statement about this machine, not
    about what would have been learned without the example, which :func:`training_influence`
    tells: the coefficients ``a_ci`` depend on all of them, and where C is large, contributions of
    similar examples cancel.

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
    baseline : {"intercept", "mean"}, default="intercept"
        "mean" subtracts what each example contributes on average over the training set; the sum
        over the training examples is then the decision minus the mean decision on the training
        set.

    Returns
    -------
    contributions : ndarray or :class:`sklearn.utils.Bunch`
        Array of shape (n_samples, n_decisions, n_fit), or (n_samples, n_decisions, n_fit,
        n_layers) with `per_layer`. n_decisions is 1 for two classes; n_fit counts the training
        rows of positive weight, in the order of ``X_fit_``. With `top` a Bunch of:

        indices : ndarray of int, shape (n_samples, n_decisions, top)
            Training rows, the largest absolute contribution first.
        index : ndarray of shape (n_samples, n_decisions, top)
            Their ids in the table of the user, ``index_fit_[indices]``; only where the estimator
            has that attribute.
        contributions : ndarray of shape (n_samples, n_decisions, top[, n_layers])
            What they contributed.

    Raises
    ------
    ValueError
        If `top` is not positive, or `baseline` is unknown.
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
    if baseline not in ("intercept", "mean"):
        raise ValueError(f"baseline must be 'intercept' or 'mean', got {baseline!r}.")
    machine = final_estimator(estimator)
    if top is not None:
        check_scalar(top, "top", target_type=int, min_val=1)
    X = validated_test_set(machine, transformed(estimator, X))
    n_decisions, n_fit = machine.dual_coef_.shape
    n_kept = n_fit if top is None else min(top, n_fit)
    layers = machine.kernel_weights_.shape[1:] if per_layer else ()
    shape = (len(X), n_decisions, n_kept, *layers)
    require_memory(
        8 * np.prod(shape, dtype=float),
        f"Training contributions of shape {shape}",
        advice="Ask for fewer samples, or for the largest contributions alone by `top`.",
    )
    result = np.empty(shape)
    indices: Any = None if top is None else np.empty(shape[:3], dtype=np.intp)
    learned = fitted(machine)
    coefficients = learned.coefficients
    columns, _ = training_columns(machine)
    if len(columns) == learned.dual_coef.shape[1]:  # no copies, and none of the kernels
        columns = slice(None)
    means = learned.row_means * learned.layer_scales[..., None]  # of the kernels as they come
    for rows, block in kernel_blocks(machine, X):
        for c in range(n_decisions):
            h = c if len(block) > 1 else 0
            planes = block[h][..., columns]  # (L, b, n_fit)
            if baseline == "mean":
                planes = planes - means[h][:, None, columns]
            dual_coef = machine.dual_coef_[c]
            if top is not None:
                chosen = largest(_contributions(planes, coefficients[c], dual_coef), n_kept)
                indices[rows, c] = chosen
                planes = np.take_along_axis(planes, chosen[None], axis=2)
                dual_coef = dual_coef[chosen]
            result[rows, c] = _contributions(
                planes, coefficients[c], dual_coef, per_layer=per_layer
            )
    if top is None:
        return result
    found = Bunch(indices=indices, contributions=result)
    if hasattr(machine, "index_fit_"):
        found["index"] = machine.index_fit_[indices]
    return found


def _contributions(planes, coefficients, dual_coef, *, per_layer=False):
    """``w_cl a_ci K_l(x, x_i)`` of a decision c, with the layers last or summed.

    `planes` (L, b, k) and `dual_coef` (k,) or (b, k) are those of k training rows, `coefficients`
    (L,) are ``w_cl / s_l``.
    """
    if per_layer:
        return np.moveaxis(planes, 0, -1) * coefficients * dual_coef[..., None]
    return np.tensordot(coefficients, planes, axes=1) * dual_coef
