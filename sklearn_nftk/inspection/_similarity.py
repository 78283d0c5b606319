"""Alignment between layers, and groups of layers that weights cannot distinguish."""

import numpy as np
from sklearn.utils import Bunch

from ._unwrap import decision_names, final_estimator


def kernel_similarity(estimator, *, threshold=0.95):
    """Centred alignment between the layers' kernels, and of each with each class.

    ``<K_k^c, K_l^c> / (||K_k^c|| ||K_l^c||)`` on the training set [1]_. Layers whose kernels are
    nearly the same are interchangeable: moving weight from one to the other changes the decision
    little, so how the weight is divided between them says nothing about the layers.

    Parameters
    ----------
    estimator : estimator of sklearn_nftk or Pipeline ending in one
        Fitted.
    threshold : float in [0, 1], default=0.95
        Layers are reported as interchangeable where each pair of them is at least so aligned, for
        every decision.

    Returns
    -------
    result : :class:`sklearn.utils.Bunch`
        With the attributes:

        layers : ndarray of shape (n_layers, n_layers) or (n_decisions, n_layers, n_layers)
            ``layer_alignment_``; one for each decision with ``outputs="per_class"``.
        targets : ndarray of shape (n_decisions, n_layers)
            ``target_alignment_``.
        groups : list of lists of int
            Interchangeable layers, two or more in each group.
        layer_names, decision_names : list of str
            In the order of the arrays.

    References
    ----------
    .. [1] Cortes, Mohri, Rostamizadeh. Algorithms for Learning Kernels Based on Centered
       Alignment. JMLR 2012.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import kernel_similarity
    >>> from sklearn_nftk.networks import InfiniteMLP
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MultiLayerNTKClassifier(InfiniteMLP(depth=2)).fit(X, y)
    >>> kernel_similarity(model, threshold=0.9).groups  # weights cannot distinguish them
    [[0, 1, 2]]
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold!r}.")
    machine = final_estimator(estimator)
    layers = machine.layer_alignment_
    # A layer must be as good as the other in every decision to be interchangeable with it.
    smallest = layers.min(axis=0) if layers.ndim == 3 else layers
    return Bunch(
        layers=layers,
        targets=machine.target_alignment_,
        groups=_groups(smallest, threshold),
        layer_names=list(machine.layer_names_),
        decision_names=decision_names(machine),
    )


def _groups(alignment, threshold):
    """Groups within which every pair is aligned: a layer joins the first group that takes it."""
    groups: list[list[int]] = []
    for layer in range(len(alignment)):
        for group in groups:
            if np.all(alignment[layer, group] >= threshold):
                group.append(layer)
                break
        else:
            groups.append([layer])
    return [group for group in groups if len(group) > 1]
