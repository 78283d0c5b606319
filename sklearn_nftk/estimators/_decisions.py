"""Decisions of a fitted estimator, and what predictions and inspection make of its kernels."""

import copy

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..utils._memory import working_memory

# Test rows taken at once: enough for the matrix products to run at full speed, few enough for a
# block to stay small beside the kernels of all test rows.
_BLOCK_ROWS = 1024


def fitted(estimator):
    """Return the `Fitted` machine on distinct rows behind an estimator."""
    check_is_fitted(estimator)
    return estimator._fitted


def validated_test_set(estimator, X):
    """Validate samples to predict, as in fit."""
    check_is_fitted(estimator)
    return estimator._test_set(X)


def kernel_blocks(estimator, X):
    """Yield the kernels of samples with the distinct training rows.

    Parameters
    ----------
    estimator : fitted estimator
    X : ndarray
        What `validated_test_set` returned.

    Yields
    ------
    rows : slice
        Of X; so few that memory does not depend on their number.
    block : ndarray of shape (H, L, len(rows), m)
        Unscaled.
    """
    machine = estimator._fitted
    n_columns = machine.layer_scales.size * machine.dual_coef.shape[1]
    # A block may be copied to float64 for the product with the dual coefficients.
    step = max(1, min(_BLOCK_ROWS, working_memory() // (16 * n_columns)))
    return estimator._blocks(X, step)


def training_columns(estimator):
    """Distinct row of each training row, and its share in it.

    Returns
    -------
    copy_of : ndarray of int, shape (n_fit,)
    share : ndarray of shape (n_fit,)
    """
    training = estimator._training
    return training.rows.copy_of, training.share()


def first_copies(estimator):
    """Training row that stands for each distinct row, ascending, shape (m,)."""
    return estimator._training.rows.first


def training_classes(estimator):
    """Class of each training row of a classifier, an index of ``classes_``, shape (n_fit,)."""
    training = estimator._training
    return training.strata[training.rows.copy_of]


def kernel_diagonals(estimator, X):
    """Kernels of samples with themselves, and of the distinct training rows.

    Parameters
    ----------
    estimator : fitted estimator
    X : ndarray
        What `validated_test_set` returned.

    Returns
    -------
    tuple of ndarray of shape (H, L, n) and (H, L, m)
        Unscaled.

    Raises
    ------
    ValueError
        If kernels are precomputed.
    """
    source = getattr(estimator, "kernel_source_", None)
    if source is None:
        raise ValueError(
            "estimator must make its kernels itself: those that are precomputed lack the kernels "
            "of the samples with themselves."
        )
    return source.diag(source.prepare(X)), source.diag(estimator._training_batch())


def training_weights(estimator):
    """Weight of each training row in means over the training set, shape (n_fit,); sums to 1."""
    s = estimator._training.s
    return s / s.sum()


def contributions(estimator, X):
    """Contribution of each layer to each decision.

    Parameters
    ----------
    estimator : fitted estimator
    X : array-like

    Returns
    -------
    ndarray of shape (n, n_decisions, L)
    """
    X = validated_test_set(estimator, X)
    machine = estimator._fitted
    result = np.empty((len(X), *machine.kernel_weights.shape))
    for rows, block in kernel_blocks(estimator, X):
        result[rows] = machine.contributions(block)
    return result


def decisions(estimator, X):
    """Decision values, shape (n, n_decisions)."""
    known = getattr(estimator, "_known_decisions", None)
    if known is not None:
        return known(X)
    return contributions(estimator, X).sum(axis=2) + estimator._fitted.intercept


def with_decisions(estimator, X, values, temperature=None):
    """View of an estimator whose decisions on X are given: what a scorer may be handed.

    Parameters
    ----------
    estimator : fitted estimator
    X : array
        The samples that the view answers for; any others raise.
    values : ndarray of shape (n, n_decisions)
    temperature : float, default=None
        Of the probabilities; None is that of the estimator.
    """

    def known(asked):
        if asked is not X and not (
            np.shape(asked) == np.shape(X) and np.array_equal(asked, X, equal_nan=True)
        ):
            raise ValueError(
                "scoring: these decisions are known for the samples X that were given alone; the "
                "scorer asked for others."
            )
        return values

    view = copy.copy(estimator)
    view._known_decisions = known
    if temperature is not None:
        view.temperature_ = temperature
    return view


def fitted_problem(estimator):
    """State the problem again that was solved, on the scaled kernels.

    Parameters
    ----------
    estimator : fitted estimator

    Returns
    -------
    problem : Problem
        With one-vs-rest targets of classes.
    targets : ndarray of shape (m, n_decisions)
        As they were learned: those of codes, where classes have some.

    Raises
    ------
    ValueError
        If the kernels of the training set are not known any more.
    """
    machine, training = estimator._fitted, estimator._training
    grams = estimator._training_grams().scaled(machine.layer_scales)
    codes = machine.class_codes
    targets = training.Y if codes is None else codes[training.strata]
    return training.problem(grams, machine.options), targets


def knows_training_kernels(estimator):
    """Tell whether `fitted_problem` can be stated."""
    return hasattr(estimator, "kernel_source_") or hasattr(estimator, "_grams_fit")


def training_problem(estimator, X, y, sample_weight=None):
    """State the learning problem of a training set again, on the fitted kernels.

    Parameters
    ----------
    estimator : fitted estimator
    X, y, sample_weight
        As in `fit`.

    Returns
    -------
    Problem
        With the kernels of all layers in memory.

    Raises
    ------
    ValueError
        If the classes or the number of features are not those of the estimator.
    MemoryError
        If the kernels do not fit into memory.
    """
    check_is_fitted(estimator)
    return copy.copy(estimator)._problem_again(X, y, sample_weight)
