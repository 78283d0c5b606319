"""Scores of decisions without a layer, and with a layer alone."""

import numpy as np
from sklearn.utils import Bunch

from ..estimators import contributions, fitted, validated_test_set
from ._subsets import decision_scorer, learn_from_subsets, training_again
from ._unwrap import final_estimator, transformed


def layer_ablation(
    estimator,
    X,
    y,
    *,
    scoring=None,
    refit=False,
    training=None,
    sample_weight=None,
    verbose=0,
):
    """Score without each layer, and with each layer alone.

    A large weight is not yet evidence that a layer matters: another may say the same, or what it
    says may not be needed. Ablation asks the score.

    Parameters
    ----------
    estimator : estimator of sklearn_nftk or Pipeline ending in one
        Fitted, and left as it is. X is taken through the earlier steps of a pipeline.
    X : array-like of shape (n_samples, n_features)
        Samples to score on; those of the training set flatter every layer.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
    scoring : str, callable or None, default=None
        As in :func:`sklearn.model_selection.cross_val_score`. None is the estimator's own
        ``score``. Callables get the last step of a pipeline, as a view that knows its decisions on
        these samples alone and raises for others.
    refit : bool, default=False
        False: dual coefficients are kept, and what a layer contributed is replaced by its mean
        over the training set - what the layer does in this machine. True: weights, C and dual
        coefficients are learned again from the other layers, on the same kernels - whether the
        layer is needed at all.
    training : tuple (X, y) or (X, y, sample_weight), default=None
        The training set, for ``refit=True``.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples in the score.
    verbose : int, default=0
        1 shows a progress bar while machines are refitted.

    Returns
    -------
    result : :class:`sklearn.utils.Bunch`
        With the attributes:

        score : float
            With all layers.
        without, alone : ndarray of shape (n_layers,)
            Scores without each layer, and with it alone.
        drop : ndarray of shape (n_layers,)
            ``score - without``.
        layer_names : list of str
            In the order of the arrays.

    Raises
    ------
    ValueError
        If `training` is missing where it is needed, or there is one layer only and nothing to
        refit.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import layer_ablation
    >>> X, X_test, y, y_test = train_test_split(*load_iris(return_X_y=True), random_state=0)
    >>> model = MultiLayerNTKClassifier(random_state=0).fit(X, y)
    >>> ablation = layer_ablation(model, X_test, y_test, refit=True, training=(X, y))
    >>> ablation.without.shape, ablation.alone.shape
    ((3,), (3,))
    """
    machine = final_estimator(estimator)
    X = validated_test_set(machine, transformed(estimator, X))
    learned = fitted(machine)
    n_layers = len(learned.layer_names)
    layers = np.eye(n_layers, dtype=bool)
    subsets = [*~layers, *layers]
    score = decision_scorer(machine, X, y, scoring, sample_weight)
    phi = contributions(machine, X)
    total = score(phi.sum(axis=2) + learned.intercept)
    if refit:
        if training is None:
            raise ValueError("refit=True needs training=(X, y) or (X, y, sample_weight).")
        if n_layers == 1:
            raise ValueError("refit=True needs two layers or more; the estimator has one.")
        normalised = training_again(estimator, training)
        refits = learn_from_subsets(machine, X, normalised, subsets, verbose)
        scores = refits.scores(score)
    else:
        means = learned.mean_contributions
        scores = [
            score(np.where(subset, phi, means).sum(axis=2) + learned.intercept)
            for subset in subsets
        ]
    without, alone = np.reshape(scores, (2, n_layers))
    return Bunch(
        score=total,
        without=without,
        alone=alone,
        drop=total - without,
        layer_names=list(learned.layer_names),
    )
