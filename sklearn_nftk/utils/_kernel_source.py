"""The contract of whatever yields layer kernels; `sklearn_nftk.kernels` hands it out."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from ._arrays import check_batch
from ._expansion import DifferencedExpansion
from ._memory import require_memory
from ._progress import silent
from ._tiles import computed_tiles, tile_rows


class KernelSource(ABC):
    """Whatever yields layer kernels: all that statistics, weights, solvers and inspection see.

    A source has L layers and H kernels for each of them: H = 1 where all decisions share their
    kernels, or one for each decision function (``outputs="per_class"``). Raw data are seen by
    `prepare` alone; the other methods take what it returned, a *batch*: anything with a length
    and slices ``batch[start:stop]``.

    Subclasses define `block` and `diag`, and set ``layer_names``. `prepare`, `tiles`, `gram`
    and `expansion` have defaults that serve arrays.

    Attributes
    ----------
    layer_names : list of str
        L names.
    dtype : numpy.dtype
        Of the kernels; float64 unless a source says otherwise.
    n_jobs : int or None
        Tiles computed at once: `block` is called by as many threads. None is all that joblib,
        torch and BLAS may use; a source that is not made for threads says 1.
    n_outputs : int or None
        Outputs of the network, None where outputs have no meaning. A source that has a method
        ``network_outputs(X)``, of shape (n, n_outputs), can be compared with its network
        (`sklearn_nftk.inspection.network_fidelity`).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.kernels import KernelSource
    >>> class Polynomials(KernelSource):
    ...     layer_names = ["linear", "quadratic"]
    ...     def block(self, batch, other=None):
    ...         products = batch @ (batch if other is None else other).T
    ...         return np.stack([products, products**2])[None]
    ...     def diag(self, batch):
    ...         norms = np.sum(batch**2, axis=1)
    ...         return np.stack([norms, norms**2])[None]
    >>> X, y = load_iris(return_X_y=True)
    >>> MultiLayerNTKClassifier(Polynomials()).fit(X, y).kernel_weights_.shape
    (3, 2)
    """

    layer_names: list[str]
    dtype: np.dtype = np.dtype(np.float64)
    n_jobs: int | None = None
    n_outputs: int | None = None

    def prepare(self, X: Any) -> Any:
        """Validate samples and do what is done once for each of them.

        Parameters
        ----------
        X : array-like of shape (n, ...)

        Returns
        -------
        batch
            What stands for X in the other methods.
        """
        return check_batch(X)

    @abstractmethod
    def block(self, batch: Any, other: Any = None) -> np.ndarray:
        """Layer kernels of two batches.

        Parameters
        ----------
        batch : batch of n samples
        other : batch of m samples, default=None
            None is the batch with itself: exactly symmetric planes.

        Returns
        -------
        ndarray of shape (H, L, n, m)
        """

    @abstractmethod
    def diag(self, batch: Any) -> np.ndarray:
        """Kernels of each sample with itself, without any Gram matrix.

        Returns
        -------
        ndarray of shape (H, L, n)
        """

    def tiles(self, batch: Any, progress: Any = None):
        """Yield the upper half of the kernels of a batch with itself, tile by tile.

        Parameters
        ----------
        batch : batch of n samples
        progress : callable, default=None
            Called as ``progress(n_tiles, description)``; a context manager with ``update(n)``.

        Yields
        ------
        rows, columns : slice
            On or above the diagonal, each tile once, in any order.
        tile : ndarray of shape (H, L, len(rows), len(columns))
        """
        n_planes = self.diag(batch[:1]).shape[0] * len(self.layer_names)
        size = tile_rows(3 * n_planes * self.dtype.itemsize, n_jobs=self.n_jobs)
        yield from computed_tiles(
            self.block, batch, size=size, n_jobs=self.n_jobs, progress=progress
        )

    def gram(self, batch: Any, progress: Any = None) -> np.ndarray:
        """Kernels of a batch with itself, in memory.

        Parameters
        ----------
        batch : batch of n samples
        progress : callable, default=None
            As in `tiles`.

        Returns
        -------
        ndarray of shape (H, L, n, n)
            Contiguous, exactly symmetric planes.

        Raises
        ------
        MemoryError
            If they do not fit.
        """
        shape = (*self.diag(batch[:1]).shape[:2], len(batch), len(batch))
        n_bytes = self.dtype.itemsize * np.prod(shape, dtype=float)
        require_memory(n_bytes, f"A kernel stack of shape {shape}")
        planes = np.empty(shape, dtype=self.dtype)
        for rows, columns, tile in self.tiles(batch, progress or silent):
            planes[:, :, rows, columns] = tile
            if rows != columns:
                planes[:, :, columns, rows] = tile.swapaxes(-1, -2)
        return planes

    def expansion(
        self, X: Any, dual_coef: np.ndarray, coefficients: np.ndarray, *, normed: bool = False
    ) -> Any:
        """Return kernel expansions that can be differentiated with respect to x.

        ``phi_cl(x) = w_cl sum_i a_cli Theta_l(x, x_i)`` for n_decisions of them. The default takes
        central differences; sources that know derivatives override it.

        Parameters
        ----------
        X : ndarray of shape (n, ...)
            The samples ``x_i``.
        dual_coef : ndarray of shape (n_decisions, 1, n) or (n_decisions, L, n)
            The coefficients ``a_cli``.
        coefficients : ndarray of shape (n_decisions, L)
            The factors ``w_cl`` of the layers.
        normed : bool, default=False
            Divide by ``sqrt(Theta_l(x, x))``, where that is not 0.

        Returns
        -------
        object
            Its method ``gradients(X, *, per_layer=False)`` takes samples of shape (m, ...)
            and returns an ndarray of shape (m, n_decisions, L, ...), or with 1 for L where
            layers are summed.
        """
        return DifferencedExpansion(self, X, dual_coef, coefficients, normed=normed)
