"""What is measured on the layer kernels of one checkpoint, and between those of two."""

from typing import NamedTuple

import numpy as np

from ..grams import StoredGrams
from ..learner import LearnerOptions, Problem, normalise, one_vs_rest_targets
from ..networks import training_targets
from ..utils._sklearn import type_of_target
from ..weights import weight_method
from ._distances import direction_distance


class Facts(NamedTuple):
    """Of the L layers and of their sum, shape (L + 1,) each.

    Attributes
    ----------
    norm : ndarray
        Frobenius norms of the kernels.
    alignment : ndarray
        Centred alignment with all targets; nan without any.
    effective_rank : ndarray
        ``tr(K^c)^2 / ||K^c||_F^2`` of the centred kernels; nan of constant ones.
    weight : ndarray
        Learned weights, the mean over the decisions; nan of the sum, and without targets.
    """

    norm: np.ndarray
    alignment: np.ndarray
    effective_rank: np.ndarray
    weight: np.ndarray


def probe_targets(y, n):
    """Targets (n, n_decisions) of the probe: -1 and 1, or real; no column where y is None.

    Raises
    ------
    ValueError
        If y has another length, or does not vary.
    """
    if y is None:
        return np.empty((n, 0))
    y = np.asarray(y)
    if len(y) != n:
        raise ValueError(f"y_probe must have one entry for each of the {n} rows of X_probe.")
    codes, n_classes = training_targets(y)
    if type_of_target(y) in ("binary", "multiclass"):
        if n_classes < 2:
            raise ValueError("y_probe must have at least two classes.")
        return one_vs_rest_targets(codes, n_classes)
    return codes.reshape(n, -1)


def with_total(planes):
    """Yield the layers' kernels, and then their sum."""
    yield from planes
    yield planes.sum(axis=0, dtype=np.float64)


def distances(planes, others):
    """`kernel_distance` of each layer, and of the sum, shape (L + 1,)."""
    pairs = zip(with_total(planes), with_total(others), strict=True)
    return np.array([direction_distance(*pair) for pair in pairs])


def facts(planes, Y, layer_names):
    """Measure the kernels of one checkpoint.

    Parameters
    ----------
    planes : ndarray of shape (L, m, m)
    Y : ndarray of shape (m, n_decisions)
        As of `probe_targets`.
    layer_names : list of str

    Returns
    -------
    Facts
    """
    n_layers, m = planes.shape[:2]
    problem = Problem(
        StoredGrams(planes[None], layer_names), Y, np.ones(m), LearnerOptions(shrinkage=0.0)
    )
    problem, (statistics,), (scales,), mask = normalise(problem)
    weight = alignment = np.full(n_layers + 1, np.nan)
    # Statistics are of the scaled kernels, and linear or bilinear in what they are multiplied by.
    combinations = np.vstack([np.eye(n_layers), scales])
    squares = np.einsum("kl,lm,km->k", combinations, statistics.inner_products, combinations).clip(
        min=0
    )
    norms = np.sqrt(squares)
    if Y.shape[1]:
        centred = Y - Y.mean(axis=0)
        of_targets = np.linalg.norm(centred.T @ centred / m)
        products = combinations @ statistics.target_products.sum(axis=0)
        alignment = _divide(products, norms * of_targets)
        learned = weight_method("alignment").weights(problem, [statistics], mask)
        weight = np.append(learned.weights.mean(axis=0), np.nan)
    return Facts(
        norm=np.array([np.linalg.norm(K.astype(np.float64)) for K in with_total(planes)]),
        alignment=alignment,
        effective_rank=_divide((combinations @ statistics.variances) ** 2, squares),
        weight=weight,
    )


def _divide(numerator, denominator):
    nothing = np.full_like(numerator, np.nan)
    return np.divide(numerator, denominator, out=nothing, where=denominator > 0)
