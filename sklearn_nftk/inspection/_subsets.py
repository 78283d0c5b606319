"""Machines that learn again from some of the layers, and scores of what they decide."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import check_scoring

from ..estimators import kernel_blocks, training_problem, with_decisions
from ..learner import learn_from_layers, normalise
from ..utils._memory import require_memory
from ..utils._progress import progress
from ._unwrap import final_estimator, transformed


def decision_scorer(machine, X, y, scoring, sample_weight=None):
    """From decisions on X that are known already to their score.

    Parameters
    ----------
    machine : fitted estimator
    X : ndarray
        What `validated_test_set` returned.
    y, scoring, sample_weight
        As in `layer_ablation`.

    Returns
    -------
    score : callable
        Of decisions (n, n_decisions), and the temperature of their probabilities if it is not that
        of the estimator.
    """
    scorer = check_scoring(machine, scoring)
    weighting = {} if sample_weight is None else {"sample_weight": sample_weight}

    def score(decisions, temperature=None):
        return scorer(with_decisions(machine, X, decisions, temperature), X, y, **weighting)

    return score


class Refits(NamedTuple):
    """What machines decide that learned from some of the layers each.

    Attributes
    ----------
    decisions : ndarray of shape (n_machines, n, n_decisions)
        Of the machines, which are fewer than the subsets where some have the same active layers.
    temperatures : list of n_machines float or None
    of_subset : ndarray of int, shape (n_subsets,)
        The machine of each subset.
    """

    decisions: np.ndarray
    temperatures: list
    of_subset: np.ndarray

    def scores(self, score, rows=slice(None)):
        """Score of each subset, shape (n_subsets,), by a `decision_scorer` on some rows of X."""
        decided = zip(self.decisions, self.temperatures, strict=True)
        return np.array([score(values[rows], t) for values, t in decided])[self.of_subset]


def training_again(estimator, training):
    """Kernels and targets of a training set, ready to learn from again.

    Parameters
    ----------
    estimator : fitted estimator, Pipeline or search
    training : tuple (X, y) or (X, y, sample_weight)

    Returns
    -------
    NormalisedProblem

    Raises
    ------
    ValueError
        If `training` is something else.
    """
    if not isinstance(training, (tuple, list)) or len(training) not in (2, 3):
        raise ValueError(
            "training must be a tuple (X, y) or (X, y, sample_weight), the training set; got "
            f"{type(training).__name__}."
        )
    X, *rest = training
    problem = training_problem(final_estimator(estimator), transformed(estimator, X), *rest)
    return normalise(problem)


def learn_from_subsets(machine, X, normalised, subsets, verbose=0):
    """Learn weights, C and dual coefficients from subsets of the layers, and decide on X.

    Parameters
    ----------
    machine : fitted estimator
    X : ndarray
        What `validated_test_set` returned.
    normalised : NormalisedProblem
        Of the training set, from `training_again`.
    subsets : sequence of ndarray of bool, shape (L,)
        The empty one is the machine of the intercept alone.
    verbose : int
        1 shows a progress bar.

    Returns
    -------
    Refits

    Raises
    ------
    MemoryError
        If there is no room for the decisions.
    """
    # Layers whose kernel is zero or constant make no difference.
    keys = [(normalised.mask & subset).tobytes() for subset in subsets]
    distinct = dict(zip(keys, subsets, strict=True))
    place = {key: index for index, key in enumerate(distinct)}
    of_subset = np.array([place[key] for key in keys])
    shape = (len(distinct), len(X), normalised.problem.Y.shape[1])
    n_bytes = 8 * np.prod(shape, dtype=float)
    require_memory(n_bytes, f"Decisions of shape {shape}", advice="Score on fewer samples.")
    machines = []
    with progress(len(distinct), "refits", enabled=verbose) as bar:
        for subset in distinct.values():
            machines.append(learn_from_layers(normalised, subset))
            bar.update()
    decisions = np.empty(shape)
    for rows, block in kernel_blocks(machine, X):
        for values, refitted in zip(decisions, machines, strict=True):
            values[rows] = refitted.contributions(block).sum(axis=2) + refitted.intercept
    return Refits(decisions, [refitted.temperature for refitted in machines], of_subset)
