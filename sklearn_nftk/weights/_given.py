"""Weights from the user, where `kernel_weights` is an array."""

import numpy as np

from ._base import LayerWeights, WeightMethod, on_simplex


class Given(WeightMethod):
    """Weights from the user.

    Parameters
    ----------
    kernel_weights : array-like of shape (L,) or (n_decisions, L)
    """

    name = "given"

    def __init__(self, kernel_weights):
        self.kernel_weights = kernel_weights

    def weights(self, problem, statistics, mask):
        """Normalise the given weights of the active layers to the simplex.

        Raises
        ------
        ValueError
            If they have the wrong shape, negative or non-finite entries, or a row of zeros.
        """
        active = mask[problem.kernels]
        weights = on_simplex(self._checked(*active.shape) * active)
        return LayerWeights(weights, weights)

    def _checked(self, n_decisions, n_layers):
        rows = np.asarray(self.kernel_weights, dtype=float)
        if rows.shape not in ((n_layers,), (n_decisions, n_layers)):
            raise ValueError(
                f"kernel_weights as an array must have shape ({n_layers},), one for each layer, "
                f"or ({n_decisions}, {n_layers}), one row for each decision function; got shape "
                f"{rows.shape}."
            )
        rows = np.broadcast_to(rows, (n_decisions, n_layers))
        if not np.isfinite(rows).all() or (rows < 0).any() or not rows.any(axis=1).all():
            raise ValueError(
                "kernel_weights as an array must be finite and non-negative, with at least one "
                f"positive weight for each decision function; got {self.kernel_weights!r}."
            )
        return rows
