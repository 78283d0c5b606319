"""Samples as pictures: given, or what an estimator takes and keeps."""

import numpy as np
from torch import nn


def own_pictures(machine, X):
    """Samples where they may be pictures, else None."""
    if not hasattr(machine, "X_fit_") or not hasattr(X, "shape"):
        return None  # stacks of kernels, and lists
    # Samples of two axes are pictures to a torch module, and sequences to other networks.
    return X if np.ndim(X) != 3 or isinstance(machine.network_, nn.Module) else None


def pictures(given, default, n, image_shape, name):
    """Pictures with channels last, or None where there are none; `name` is for errors."""
    found = default if given is None else given
    if found is None:
        return None
    found = np.asarray(found)
    if len(found) != n:
        raise ValueError(f"{name} must be {n} pictures, got {len(found)}.")
    if image_shape is not None and found.ndim == 2:
        n_features = found.shape[1]
        if n_features != np.prod(image_shape):
            raise ValueError(
                f"image_shape {tuple(image_shape)} does not fit the {n_features} features of "
                f"{name}; give {name}."
            )
        found = found.reshape(n, *image_shape)
    if found.ndim == 4 and found.shape[1] in (1, 3):
        found = np.moveaxis(found, 1, -1)
        return found[..., 0] if found.shape[-1] == 1 else _unit_range(found)
    if found.ndim == 3:
        return found
    if given is None:
        return None
    raise ValueError(
        f"{name} must have shape (n, height, width) or (n, channels, height, width) with 1 or 3 "
        f"channels, got {found.shape}."
    )


def _unit_range(pictures):
    """Colours between 0 and 1, as matplotlib wants them."""
    low, high = pictures.min(), pictures.max()
    return (pictures - low) / (high - low or 1)
