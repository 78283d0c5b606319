"""The scale of each layer's kernel: the one place that decides how kernels are normalised."""

import warnings

import numpy as np

# name -> scales from the statistics; "cosine" is a kernel source of its own (`_cosine`), which
# leaves nothing to scale
NORMALIZATIONS = {
    "variance": lambda statistics: statistics.variances,
    "trace": lambda statistics: statistics.mean_diagonal,
    "cosine": lambda statistics: np.ones_like(statistics.means),
    "none": lambda statistics: np.ones_like(statistics.means),
}


def scale(grams, statistics, normalize):
    """Divide each layer's kernel by its scale ``s_l``.

    Parameters
    ----------
    grams : Grams
    statistics : list of H KernelStatistics
        Those of `grams`.
    normalize : {"variance", "trace", "cosine", "none"}

    Returns
    -------
    grams : Grams
        The scaled kernels.
    scales : ndarray of shape (H, L)
        Positive; 1 for kernels that are zero or constant.
    mask : ndarray of bool, shape (H, L)
        The active layers: False for kernels that are zero or constant, which get weight 0.

    Warns
    -----
    UserWarning
        Naming the layers whose kernel is zero or constant.
    """
    mask = _active(statistics, grams.dtype)
    if not mask.all():
        constant = [
            name for name, ok in zip(grams.layer_names, mask.all(axis=0), strict=True) if not ok
        ]
        some_active = mask.any(axis=1).all()
        consequence = "they get weight 0" if some_active else "so the weights are uniform"
        warnings.warn(
            f"The kernels of these layers are zero or constant on the training set: {constant}; "
            f"{consequence}.",
            UserWarning,
            stacklevel=2,
        )
    scales = np.array([NORMALIZATIONS[normalize](of_kernel) for of_kernel in statistics])
    scales = np.where(mask, scales, 1.0)
    return grams.scaled(scales), scales, mask


def _active(statistics, dtype):
    """Mask (H, L) of the kernels that are more than a constant and rounding."""
    variances = np.array([of_kernel.variances for of_kernel in statistics])
    diagonals = np.array([of_kernel.mean_diagonal for of_kernel in statistics])
    eps = 64 * np.finfo(dtype).eps
    # A gradient that vanishes exactly (of a shift before a normalisation, say) leaves rounding of
    # the other gradients behind.
    noise = eps**2 * diagonals.max(axis=1, keepdims=True)
    return (variances > eps * np.abs(diagonals)) & (diagonals > noise)
