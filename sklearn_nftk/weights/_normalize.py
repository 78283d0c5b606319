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
    statistics : KernelStatistics
    normalize : {"variance", "trace", "cosine", "none"}
    dtype : numpy.dtype
        The precision the kernels were computed in: what is below it counts as constant.
    layer_names : list of str

    Returns
    -------
    scales : ndarray of shape (L,)
        Positive; 1 for kernels that are zero or constant.
    alive : ndarray of bool, shape (L,)
        False for kernels that are zero or constant: they get weight 0.

    Warns
    -----
    UserWarning
        Naming the layers whose kernel is zero or constant.
    """
    rounding = 32 * np.finfo(dtype).eps * np.abs(statistics.mean_diagonal)
    alive = statistics.variances > rounding
    if not alive.all():
        names = [name for name, ok in zip(layer_names, alive, strict=True) if not ok]
        consequence = "get weight 0" if alive.any() else "so the weights are uniform"
        warnings.warn(
            f"The kernels of these layers are zero or constant on the training set: {names}; "
            f"they {consequence}.",
            UserWarning,
            stacklevel=2,
        )
    return np.where(alive, NORMALIZATIONS[normalize](statistics), 1.0), alive


def cosine_normalise(block, row_diagonal, column_diagonal):
    """Divide ``Theta_l(x, z)`` by ``sqrt(Theta_l(x, x) Theta_l(z, z))``, in place.

    Parameters
    ----------
    block : ndarray of shape (L, n, m)
    row_diagonal, column_diagonal : ndarray of shape (L, n) and (L, m)

    Returns
    -------
    ndarray of shape (L, n, m)
        `block`; samples whose gradient is zero have kernel value 0.
    """
    for diagonal, shape in ((row_diagonal, (-1, 1)), (column_diagonal, (1, -1))):
        norms = np.sqrt(diagonal)
        inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        for plane, factors in zip(block, inverse, strict=True):
            plane *= factors.reshape(shape)
    return block
