"""The exact split of a decision over the layers."""

from ..estimators import contributions
from ._unwrap import final_estimator, transformed


def layer_contributions(estimator, X, *, baseline="intercept"):
    """Contribution of each layer to each decision.

    ``phi_cl(x) = w_cl sum_i a_ci K_l(x, x_i)``, so that the sum over the layers plus
    ``intercept_`` is ``decision_function(X)``, exactly.

    Parameters
    ----------
    estimator : estimator of sklearn_nftk, Pipeline ending in one, or search over them
        Fitted. X is taken through the earlier steps of a pipeline.
    X : array-like of shape (n_samples, n_features)
    baseline : {"intercept", "mean"}, default="intercept"
        "mean" subtracts each layer's mean contribution over the training set
        (``mean_contributions_``), so that layers can be compared with each other; the sum over the
        layers is then the decision minus the mean decision on the training set.

    Returns
    -------
    ndarray of shape (n_samples, n_decisions, n_layers)
        n_decisions is 1 for two classes.

    Raises
    ------
    ValueError
        If `baseline` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import layer_contributions
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MultiLayerNTKClassifier(random_state=0).fit(X, y)
    >>> contributions = layer_contributions(model, X)
    >>> contributions.shape
    (150, 3, 3)
    >>> total = contributions.sum(axis=2) + model.intercept_
    >>> bool(np.allclose(total, model.decision_function(X)))
    True
    """
    if baseline not in ("intercept", "mean"):
        raise ValueError(f"baseline must be 'intercept' or 'mean', got {baseline!r}.")
    machine = final_estimator(estimator)
    phi = contributions(machine, transformed(estimator, X))
    return phi - machine.mean_contributions_ if baseline == "mean" else phi
