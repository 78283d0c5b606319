"""The training examples that are nearest to a sample in the learned kernel."""

import numpy as np
from sklearn.utils import Bunch, check_scalar

from ..estimators import (
    first_copies,
    fitted,
    kernel_blocks,
    kernel_diagonals,
    training_columns,
    training_weights,
    validated_test_set,
)
from ._top import largest
from ._unwrap import final_estimator, transformed


def nearest_examples(estimator, X, n_neighbors=5):
    """Training examples that are most alike to each sample in the eyes of the learned kernel.

    Similarity is the cosine of the angle between sample and example, seen from the mean of the
    training set, in the feature space of the combined kernel ``sum_l w_l K_l``; where decisions
    have weights or kernels of their own, of the mean of their combined kernels. Targets do not
    enter but through the weights: it tells what the machine takes for similar, not what it decides
    by, which is what :func:`training_influence` is for.

    Parameters
    ----------
    estimator : estimator of sklearn_nftk, Pipeline ending in one, or search over them
        Fitted. X is taken through the earlier steps of a pipeline. Kernels that are precomputed
        lack those of the samples with themselves.
    X : array-like of shape (n_samples, ...)
    n_neighbors : int, default=5
        At most the number of distinct training rows.

    Returns
    -------
    result : :class:`sklearn.utils.Bunch`
        With the attributes:

        indices : ndarray of int, shape (n_samples, n_neighbors)
            Training rows of positive weight, the most similar first; of copies the first.
        similarities : ndarray of shape (n_samples, n_neighbors)
            Between -1 and 1.
        index : ndarray of shape (n_samples, n_neighbors)
            Their ids in the table of the user, ``index_fit_[indices]``; only where the estimator
            has that attribute.

    Raises
    ------
    ValueError
        If `n_neighbors` is not positive or more than there are, or kernels are precomputed.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import nearest_examples
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MultiLayerNTKClassifier(random_state=0).fit(X, y)
    >>> nearest = nearest_examples(model, X[:2], n_neighbors=3)
    >>> nearest.indices[:, 0].tolist()
    [0, 1]
    >>> y[nearest.indices].tolist()
    [[0, 0, 0], [0, 0, 0]]
    """
    machine = final_estimator(estimator)
    first = first_copies(machine)
    check_scalar(n_neighbors, "n_neighbors", target_type=int, min_val=1, max_val=len(first))
    X = validated_test_set(machine, transformed(estimator, X))
    of_samples, of_examples = kernel_diagonals(machine, X)  # (H, L, n), (H, L, m)
    learned = fitted(machine)
    coefficients = _mean_coefficients(learned)
    means = learned.row_means * learned.layer_scales[..., None]
    copy_of, _ = training_columns(machine)
    p = np.bincount(copy_of, weights=training_weights(machine))
    mean = np.einsum("hl,hln->n", coefficients, means)  # of the kernels with each example
    norms = _norms(coefficients, of_examples, mean, p @ mean)
    shape = (len(X), n_neighbors)
    found = Bunch(indices=np.empty(shape, dtype=np.intp), similarities=np.empty(shape))
    for rows, block in kernel_blocks(machine, X):
        kernels = np.einsum("hl,hlbn->bn", coefficients, block, optimize=True)
        own_mean = kernels @ p
        cosines = (kernels - own_mean[:, None] - mean + p @ mean) * norms
        cosines *= _norms(coefficients, of_samples[..., rows], own_mean, p @ mean)[:, None]
        nearest = largest(cosines + 2, n_neighbors)  # all positive
        found.indices[rows] = first[nearest]
        found.similarities[rows] = np.take_along_axis(cosines, nearest, axis=1).clip(-1, 1)
    if hasattr(machine, "index_fit_"):
        found["index"] = machine.index_fit_[found.indices]
    return found


def _mean_coefficients(learned):
    """Coefficients of the layer kernels in the mean over the decisions, (H, L)."""
    n_kernels = len(learned.layer_scales)
    if n_kernels == 1:
        return learned.coefficients.mean(axis=0, keepdims=True)
    return learned.coefficients / n_kernels


def _norms(coefficients, diagonals, means, mean):
    """Inverse distances from the mean of the training set, 0 where there is none."""
    squares = np.einsum("hl,hln->n", coefficients, diagonals) - 2 * means + mean
    positive = squares > np.finfo(float).eps * np.abs(mean)
    return np.divide(1, np.sqrt(squares.clip(0)), out=np.zeros(len(squares)), where=positive)
