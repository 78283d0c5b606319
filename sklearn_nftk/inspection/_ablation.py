"""How well decisions do without a layer, and with a layer alone."""

import copy

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.utils import Bunch

from ..utils._progress import progress, silent
from ._unwrap import final_estimator, training_problem, transformed


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
        ``score``. Callables get the last step of a pipeline.
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
    found : :class:`sklearn.utils.Bunch`
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
    >>> found = layer_ablation(model, X_test, y_test, refit=True, training=(X, y))
    >>> found.without.shape, found.alone.shape
    ((3,), (3,))
    """
    machine = final_estimator(estimator)
    X = machine._test_set(transformed(estimator, X))
    n_layers = len(machine.layer_names_)
    layers = np.eye(n_layers, dtype=bool)
    subsets = [*~layers, *layers]
    scorer = check_scoring(machine, scoring)
    weighting = {} if sample_weight is None else {"sample_weight": sample_weight}

    def score(sums, of):
        """Score of decisions that are known already, through all that a scorer may call."""
        decided = copy.copy(of)
        decided._contributions = lambda X: sums[:, :, None]
        return scorer(decided, X, y, **weighting)

    contributions = machine._contributions(X)
    total = score(contributions.sum(axis=2), machine)
    if refit:
        if training is None or len(training) not in (2, 3):
            raise ValueError("refit=True needs training=(X, y) or (X, y, sample_weight).")
        if n_layers == 1:
            raise ValueError("refit=True needs two layers or more; the estimator has one.")
        machines = _refitted(estimator, training, subsets, verbose)
        sums = np.empty((len(subsets), *contributions.shape[:2]))
        for rows, block in machine._blocks(X):
            for decisions, refitted in zip(sums, machines, strict=True):
                decisions[rows] = refitted._block_contributions(block).sum(axis=2)
        scores = [score(found, of) for found, of in zip(sums, machines, strict=True)]
    else:
        means = machine.mean_contributions_
        scores = [
            score(np.where(subset, contributions, means).sum(axis=2), machine)
            for subset in subsets
        ]
    without, alone = np.array(scores).reshape(2, n_layers)
    return Bunch(
        score=total,
        without=without,
        alone=alone,
        drop=total - without,
        layer_names=list(machine.layer_names_),
    )


def _refitted(estimator, training, subsets, verbose):
    """Copies of the machine that have learned from some of the layers each."""
    machine, problem = training_problem(estimator, *training)
    statistics, alive = machine._statistics(problem, machine.layer_names_)
    machines = []
    with progress(len(subsets), "refits", enabled=verbose) as bar:
        for subset in subsets:
            refitted = copy.copy(machine)
            refitted._learn(problem, statistics, alive & subset, machine.layer_names_, silent)
            machines.append(refitted)
            bar.update()
    return machines
