"""From the name of a weight method to weights: one entry per method."""

import numpy as np

from ._alignment import AlignmentProblem


def fixed_weights(kernel_weights, scales, alive):
    """Weights that do not look at the targets.

    Parameters
    ----------
    kernel_weights : {"uniform", "sum"} or array-like of shape (L,) or (n_decisions, L)
        "sum" is proportional to the scales: the plain sum of unnormalised kernels, the NTK.
        Arrays are normalised to the simplex.
    scales : ndarray of shape (n_decisions, L)
    alive : ndarray of bool, shape (n_decisions, L)
        Layers whose kernel is not constant; the others get weight 0.

    Returns
    -------
    ndarray of shape (n_decisions, L)

    Raises
    ------
    ValueError
        If an array has the wrong shape, negative or non-finite entries, or a row of zeros.
    """
    if isinstance(kernel_weights, str):
        rows = np.ones_like(scales) if kernel_weights == "uniform" else scales
    else:
        rows = _checked_array(kernel_weights, *scales.shape)
    return _on_simplex(rows * alive)


def learned_weights(statistics, alive, *, per_class=True):
    """Alignment weights.

    Parameters
    ----------
    statistics : list of KernelStatistics
        Of the normalised kernels: one for each decision that has kernels of its own, or a single
        one with the targets of all decisions.
    alive : ndarray of bool, shape (n_decisions, L)
    per_class : bool
        False: one problem, the sum of those of all decisions, and equal rows.

    Returns
    -------
    ndarray of shape (n_decisions, L)
        Rows without any aligned kernel are uniform over the layers that are alive.
    """
    problems = [(found.inner_products, a) for found in statistics for a in found.target_products]
    alive = np.asarray(alive)
    if not per_class:
        problems = [tuple(sum(terms) for terms in zip(*problems, strict=True))]
        rows = _aligned(problems, alive.any(axis=0, keepdims=True))
        return np.tile(rows, (len(alive), 1))
    return _aligned(problems, alive)


def _aligned(problems, alive):
    """Weights for each ``(M, a)`` on the layers that are alive."""
    compiled: dict[int, AlignmentProblem] = {}
    weights = np.zeros(alive.shape)
    for row, used, (M, a) in zip(weights, alive, problems, strict=True):
        size = int(np.count_nonzero(used))
        if not size:
            continue
        if size not in compiled:
            compiled[size] = AlignmentProblem(size)
        solution = compiled[size].solve(M[np.ix_(used, used)], a[used])
        row[used] = 1.0 if solution is None else solution
    return _on_simplex(weights)


def _on_simplex(rows):
    """Rows divided by their sums; uniform where nothing is left."""
    rows = np.where(rows.any(axis=1, keepdims=True), rows, 1.0)
    return rows / rows.sum(axis=1, keepdims=True)


def _checked_array(kernel_weights, n_decisions, n_layers):
    rows = np.asarray(kernel_weights, dtype=float)
    if rows.shape not in ((n_layers,), (n_decisions, n_layers)):
        raise ValueError(
            f"kernel_weights as an array must have shape ({n_layers},), one for each layer, or "
            f"({n_decisions}, {n_layers}), one row for each decision function; got shape "
            f"{rows.shape}."
        )
    rows = np.broadcast_to(rows, (n_decisions, n_layers))
    if not np.isfinite(rows).all() or (rows < 0).any() or not rows.any(axis=1).all():
        raise ValueError(
            "kernel_weights as an array must be finite and non-negative, with at least one "
            f"positive weight for each decision function; got {kernel_weights!r}."
        )
    return rows
