"""The Gaussian kernel, and the width that distances suggest."""

import torch

from ..utils._device import free_memory
from ..utils._tiles import slices

# Rows whose distances tell the median of all.
_MEDIAN_ROWS = 1000


def exponent(x, z, sigma):
    """``-||x - z||^2 / (2 sigma^2)``, the logarithm of the Gaussian kernel.

    Parameters
    ----------
    x : tensor of shape (n, d)
    z : tensor of shape (m, d)
    sigma : float

    Returns
    -------
    tensor of shape (n, m)
    """
    # Distances do not know the origin: near it, their products cancel less.
    origin = z.detach().mean(dim=0) if len(z) else 0.0
    x, z = x - origin, z - origin
    squared = (x**2).sum(dim=1)[:, None] + (z**2).sum(dim=1) - 2 * x @ z.T
    return squared.clamp(min=0) / (-2 * sigma**2)


def gaussian(x, z, sigma):
    """Gaussian kernel ``exp(-||x - z||^2 / (2 sigma^2))``, tensor of shape (n, m)."""
    return exponent(x, z, sigma).exp_()


def machines(x, centers, sigma, weight, bias):
    """Kernel machines ``W k(C, x) + b``, some rows at a time: (n, m) kernels are never formed.

    Parameters
    ----------
    x : tensor of shape (n, d)
    centers : tensor of shape (p, d)
    sigma : float
    weight : tensor of shape (h, p)
    bias : tensor of shape (h,)

    Returns
    -------
    tensor of shape (n, h)
    """
    out = x.new_empty(len(x), len(weight))
    for rows in slices(len(x), rows_at_once(len(centers), x)):
        out[rows] = torch.addmm(bias, gaussian(x[rows], centers, sigma), weight.T)
    return out


def rows_at_once(n_centers, x):
    """Rows whose kernels with so many centers fit the memory for temporary arrays."""
    # The exponent, its parts and the kernel itself.
    return max(1, free_memory(x.device) // (4 * max(1, n_centers) * x.element_size()))


def median_distance(x):
    """Median of the distances between rows that differ, and 1 where none do.

    Parameters
    ----------
    x : tensor of shape (n, d)
        Of more than a thousand rows, a thousand spread over them are compared.

    Returns
    -------
    float
    """
    if len(x) > _MEDIAN_ROWS:
        x = x[torch.linspace(0, len(x) - 1, _MEDIAN_ROWS).long()]
    distances = torch.pdist(x.double())
    distances = distances[distances > 0]
    return float(distances.median()) if len(distances) else 1.0
