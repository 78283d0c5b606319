"""Gradients of kernel expansions by central differences: for sources that know no other way."""

import numpy as np

from ._memory import working_memory
from ._tiles import slices


class DifferencedExpansion:
    """``phi_cl(x) = sum_i A_cli Theta_l(x, x_i)`` of any kernel source.

    Derivatives are central differences, whose steps are the cube root of the precision of the
    kernels, in standard deviations of the features.

    Parameters
    ----------
    source : KernelSource
    X : ndarray of shape (n, ...)
        Of numbers.
    dual_coef : ndarray of shape (n_decisions, 1 or L, n)
    coefficients : ndarray of shape (n_decisions, L)
        ``A_cli`` is their product.
    normed : bool
        Whether each sample's gradients are divided by their norms, see `KernelSource.expansion`.
    """

    def __init__(self, source, X, dual_coef, coefficients, *, normed=False):
        self.source = source
        self.batch = source.prepare(X)
        self.coefficients = dual_coef * coefficients[:, :, None]
        self.normed = normed
        self._deviations = np.nanstd(X, axis=0)
        self._deviation = np.nanstd(X) or 1.0
        self._precision = np.finfo(source.dtype).eps ** (1 / 3)

    def gradients(self, X, *, per_layer=False):
        """Gradients with respect to samples.

        Parameters
        ----------
        X : ndarray of shape (n, *features)
        per_layer : bool, default=False
            Whether to keep the layers apart.

        Returns
        -------
        ndarray of shape (n, n_decisions, L or 1, *features)
        """
        features = X.shape[1:]
        steps = self._steps(features).ravel()
        n_decisions, n_layers, _ = self.coefficients.shape
        result = np.empty((len(X), n_decisions, n_layers if per_layer else 1, steps.size))
        per_point = 16 * len(self.batch) * n_layers * n_decisions
        size = max(1, working_memory() // (2 * per_point))
        for x, gradient in zip(X.reshape(len(X), -1).astype(float), result, strict=True):
            for some in slices(steps.size, size):
                moved = np.arange(some.start, some.stop)
                ahead, behind = (np.repeat(x[None], len(moved), axis=0) for _ in range(2))
                ahead[range(len(moved)), moved] += steps[some]
                behind[range(len(moved)), moved] -= steps[some]
                taken = (ahead - behind)[range(len(moved)), moved]  # steps as they were rounded
                values = self._values(np.concatenate([ahead, behind]).reshape(-1, *features))
                differences = values[: len(moved)] - values[len(moved) :]
                if not per_layer:
                    differences = differences.sum(axis=2, keepdims=True)
                gradient[..., some] = np.moveaxis(differences, 0, -1) / taken
        return result.reshape(*result.shape[:3], *features)

    def _steps(self, features):
        """Steps of the differences, of the shape of a sample."""
        deviations = self._deviations
        if deviations.shape != features:  # sequences of other lengths than those of the training
            deviations = np.zeros(features)
        return self._precision * np.where(deviations > 0, deviations, self._deviation)

    def _values(self, X):
        """Values of the expansion, shape (n, n_decisions, L)."""
        batch, n_decisions = self.source.prepare(X), len(self.coefficients)
        block = self.source.block(batch, self.batch)
        kernels = np.broadcast_to(block, (n_decisions, *block.shape[1:]))
        values = np.einsum("clnm,clm->ncl", kernels, self.coefficients, dtype=float)
        if not self.normed:
            return values
        norms = np.sqrt(self.source.diag(batch)).transpose(2, 0, 1)  # (n, H, L)
        return np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
