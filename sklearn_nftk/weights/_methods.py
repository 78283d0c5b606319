"""From the name of a weight method to weights: one entry per method."""

import numpy as np

from ._alignment import AlignmentProblem


def fixed_weights(kernel_weights, scales, alive, n_decisions):
    """Weights that do not look at the targets.

    Parameters
    ----------
    kernel_weights : {"uniform", "sum"} or array-like of shape (L,) or (n_decisions, L)
        "sum" is proportional to the scales: the plain sum of unnormalised kernels, the NTK.
        Arrays are normalised to the simplex.
    scales : ndarray of shape (L,)
    alive : ndarray of bool, shape (L,)
        Layers whose kernel is not constant; the others get weight 0.
    n_decisions : int

    Returns
    -------
    ndarray of shape (n_decisions, L)

    Raises
    ------
    ValueError
        If an array has the wrong shape, negative or non-finite entries, or a row of zeros.
    """
    n_layers = len(scales)
    if isinstance(kernel_weights, str):
        rows = np.ones(n_layers) if kernel_weights == "uniform" else np.asarray(scales)
        rows = np.tile(rows, (n_decisions, 1))
    else:
        rows = _checked_array(kernel_weights, n_decisions, n_layers)
    return _on_simplex(rows * alive)


def learned_weights(statistics, alive, *, per_class=True):
    """Alignment weights.

    Parameters
    ----------
    statistics : KernelStatistics
        Of the normalised kernels.
    alive : ndarray of bool, shape (L,)
    per_class : bool
        False: one problem with ``a_l = tr(Y' K_l^c Y)``, and equal rows.

    Returns
    -------
    ndarray of shape (n_decisions, L)
        Rows without any aligned kernel are uniform over the layers that are alive.
    """
    targets = statistics.target_products
    n_decisions, n_layers = targets.shape
    weights = np.zeros((n_decisions, n_layers))
    if alive.any():
        problem = AlignmentProblem(np.count_nonzero(alive))
        inner_products = statistics.inner_products[np.ix_(alive, alive)]
        for rows in range(n_decisions) if per_class else [slice(None)]:
            target_products = np.atleast_2d(targets[rows]).sum(0)[alive]
            solution = problem.solve(inner_products, target_products)
            if solution is not None:
                weights[rows, alive] = solution
    unaligned = ~weights.any(axis=1)
    weights[unaligned] = alive
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
