"""From the layer kernels of a training set to a machine, in five steps."""

from typing import NamedTuple

import numpy as np

from ..grams import scale
from ..utils._progress import silent
from ..weights import LayerWeights, weight_method
from ._fitted import Fitted
from ._machine import solve_machine
from ._problem import Problem


class NormalisedProblem(NamedTuple):
    """A problem on scaled kernels, and what is known of them.

    Attributes
    ----------
    problem : Problem
    statistics : list of H KernelStatistics
        Of the scaled kernels.
    scales : ndarray of shape (H, L)
    mask : ndarray of bool, shape (H, L)
        The active layers.
    """

    problem: Problem
    statistics: list
    scales: np.ndarray
    mask: np.ndarray


def learn(problem, progress=silent):
    """Learn weights over the layers, and the kernel machine on their combination.

    Parameters
    ----------
    problem : Problem
        With the `LearnerOptions`.
    progress : callable
        See `utils._progress`.

    Returns
    -------
    Fitted
    """
    with progress(1, "statistics") as task:
        normalised = normalise(problem)
        task.update()
    with progress(1, "kernel weights") as task:
        chosen = _weights(normalised)
        task.update()
    with progress(1, "dual coefficients") as task:
        fitted = _solved(normalised, chosen)
        task.update()
    return fitted


def normalise(problem):
    """Statistics of the kernels, and the kernels in units of their scales."""
    statistics = problem.statistics()
    grams, scales, mask = scale(problem.grams, statistics, problem.options.normalize)
    scaled = [of_kernel.scaled(row) for of_kernel, row in zip(statistics, scales, strict=True)]
    return NormalisedProblem(problem.on(grams, scaled), scaled, scales, mask)


def learn_from_layers(normalised, subset):
    """Learn from some of the layers alone; of a decision without any, its intercept.

    Parameters
    ----------
    normalised : NormalisedProblem
    subset : ndarray of bool, shape (L,)
        Where ``kernel_weights`` are given, layers of weight 0 do not count.

    Returns
    -------
    Fitted
        Weights of the other layers are 0.
    """
    problem, statistics = normalised.problem, normalised.statistics
    # A problem remembers what was solved, and there are many subsets.
    problem = problem.on(problem.grams, statistics)
    restricted = normalised._replace(problem=problem, mask=normalised.mask & subset)
    chosen = _weights(restricted)
    # A fit has uniform weights where nothing is left, here of layers that are not to be used.
    given = problem.options.kernel_weights
    usable = isinstance(given, str) or np.asarray(given) > 0
    some = (restricted.mask[problem.kernels] & usable).any(axis=1, keepdims=True)
    chosen = chosen._replace(weights=chosen.weights * some, basis=chosen.basis * some)
    return _solved(restricted, chosen)


def _weights(normalised) -> LayerWeights:
    """Weights of the active layers."""
    problem, statistics, _, mask = normalised
    return weight_method(problem.options.kernel_weights).weights(problem, statistics, mask)


def _solved(normalised, chosen):
    """C and dual coefficients at these weights, and what inspection asks of them."""
    problem, statistics, scales, _ = normalised
    machine = solve_machine(problem, chosen)
    row_means = np.array([of_kernel.row_means for of_kernel in statistics])
    means = np.einsum("cn,cln->cl", machine.dual_coef, row_means[problem.kernels])
    return Fitted(
        options=problem.options,
        layer_names=problem.grams.layer_names,
        layer_scales=scales,
        kernel_weights=chosen.weights,
        **machine._asdict(),
        cross_fitted=problem.folds is not None,
        n_iter=chosen.n_iter,
        dual_gap=chosen.dual_gap,
        layer_alignment=np.array([of_kernel.layer_alignment for of_kernel in statistics]),
        target_alignment=np.concatenate([of_kernel.target_alignment for of_kernel in statistics]),
        mean_contributions=chosen.weights * means,
        row_means=row_means,
    )
