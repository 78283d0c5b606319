"""The scale of each layer's kernel: the one place that decides how kernels are normalised."""

import warnings

import numpy as np

# name -> scales from the statistics; "cosine" is a transformation and leaves nothing to scale
NORMALIZATIONS = {
    "variance": lambda statistics: statistics.variances,
    "trace": lambda statistics: statistics.mean_diagonal,
    "cosine": lambda statistics: np.ones_like(statistics.means),
    "none": lambda statistics: np.ones_like(statistics.means),
}


def layer_scales(statistics, normalize, dtype, layer_names):
    """Scale ``s_l`` of each layer, and which layers say anything.

    Parameters
    ----------
    statistics : list of H KernelStatistics
        One for each family of kernels.
    normalize : {"variance", "trace", "cosine", "none"}
    dtype : numpy.dtype
        The precision the kernels were computed in: what is below it counts as constant.
    layer_names : list of str

    Returns
    -------
    scales : ndarray of shape (H, L)
        Positive; 1 for kernels that are zero or constant.
    alive : ndarray of bool, shape (H, L)
        False for kernels that are zero or constant: they get weight 0.

    Warns
    -----
    UserWarning
        Naming the layers whose kernel is zero or constant.
    """
    variances = np.array([found.variances for found in statistics])
    diagonals = np.array([found.mean_diagonal for found in statistics])
    eps = 64 * np.finfo(dtype).eps
    # A gradient that vanishes exactly (of a shift before a normalisation, say) leaves rounding of
    # the other gradients behind.
    noise = eps**2 * diagonals.max(axis=1, keepdims=True)
    alive = (variances > eps * np.abs(diagonals)) & (diagonals > noise)
    if not alive.all():
        names = [name for name, ok in zip(layer_names, alive.all(axis=0), strict=True) if not ok]
        every = alive.any(axis=1).all()
        consequence = "they get weight 0" if every else "so the weights are uniform"
        warnings.warn(
            f"The kernels of these layers are zero or constant on the training set: {names}; "
            f"{consequence}.",
            UserWarning,
            stacklevel=2,
        )
    scales = np.array([NORMALIZATIONS[normalize](found) for found in statistics])
    return np.where(alive, scales, 1.0), alive


def cosine_normalise(block, row_diagonal, column_diagonal):
    """Divide ``Theta_l(x, z)`` by ``sqrt(Theta_l(x, x) Theta_l(z, z))``, in place.

    Parameters
    ----------
    block : ndarray of shape (..., n, m)
    row_diagonal, column_diagonal : ndarray of shape (..., n) and (..., m)

    Returns
    -------
    ndarray of shape (..., n, m)
        `block`; samples whose gradient is zero have kernel value 0.
    """
    for diagonal, axis in ((row_diagonal, -1), (column_diagonal, -2)):
        norms = np.sqrt(diagonal)
        inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        block *= np.expand_dims(inverse, axis)
    return block
