"""Everything the weights need to know of n x n kernels, in one pass over tiles."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class KernelStatistics:
    """Second-order statistics of L kernels and C targets under sample probabilities p.

    With ``<A, B> = sum_ij p_i p_j A_ij B_ij`` and ``K^c`` the kernel centred with p.

    Attributes
    ----------
    mean_diagonal : ndarray of shape (L,)
        ``sum_i p_i K_l(x_i, x_i)``.
    row_means : ndarray of shape (L, n)
        ``K_l p``.
    means : ndarray of shape (L,)
        ``p' K_l p``.
    inner_products : ndarray of shape (L, L)
        ``<K_k^c, K_l^c>``.
    target_products : ndarray of shape (C, L)
        ``<K_l^c, y_c y_c'>``.
    target_norms : ndarray of shape (C,)
        ``sqrt(<y_c y_c', y_c y_c'>)`` of the centred targets.
    """

    mean_diagonal: np.ndarray
    row_means: np.ndarray
    means: np.ndarray
    inner_products: np.ndarray
    target_products: np.ndarray
    target_norms: np.ndarray

    @property
    def variances(self):
        """Variance in feature space, ``sum_i p_i K_l(x_i, x_i) - p' K_l p``, shape (L,)."""
        return self.mean_diagonal - self.means

    @property
    def layer_alignment(self):
        """Centred alignment between layers, in [-1, 1], shape (L, L); 0 for constant kernels."""
        norms = np.sqrt(self.inner_products.diagonal())
        return _divide(self.inner_products, np.outer(norms, norms))

    @property
    def target_alignment(self):
        """Centred alignment of each layer with each decision's targets, shape (C, L)."""
        norms = np.sqrt(self.inner_products.diagonal())
        return _divide(self.target_products, np.outer(self.target_norms, norms))

    def scaled(self, scales):
        """Statistics of ``K_l / scales_l``."""
        scales = np.asarray(scales, dtype=float)
        return KernelStatistics(
            self.mean_diagonal / scales,
            self.row_means / scales[:, None],
            self.means / scales,
            self.inner_products / np.outer(scales, scales),
            self.target_products / scales,
            self.target_norms,
        )


def pooled(overall, parts, shares):
    """Statistics of kernels whose products are known block by block.

    Parameters
    ----------
    overall : KernelStatistics
        Of the kernels of all samples: their means.
    parts : sequence of KernelStatistics
        Of the blocks, each under its own probabilities: their products, centred in each block.
    shares : ndarray of shape (n_blocks,)
        Probability of the samples of each block.
    """
    of_pairs = np.square(shares)

    def total(name):
        return np.tensordot(of_pairs, [getattr(part, name) for part in parts], axes=1)

    squares = [part.target_norms**2 for part in parts]
    return replace(
        overall,
        inner_products=total("inner_products"),
        target_products=total("target_products"),
        target_norms=np.sqrt(np.tensordot(of_pairs, squares, axes=1)),
    )


class StatisticsAccumulator:
    """Collects the statistics from tiles, in float64, keeping no kernel.

    Parameters
    ----------
    p : ndarray of shape (n,)
        Sample probabilities, summing to 1.
    targets : ndarray of shape (n, C)
    n_layers : int
    """

    def __init__(self, p, targets, n_layers):
        n, n_targets = targets.shape
        self.p = p
        # Centred targets make centring the kernel unnecessary: y' H K H y = (Hy)' K (Hy).
        self.weighted_targets = p[:, None] * (targets - p @ targets)
        self.target_norms = np.einsum("nc,nc->c", self.weighted_targets, targets)
        self.shift = np.zeros(n_layers)
        self.is_empty = True
        self.buffer = np.empty(0)  # of one tile: fresh memory costs more than what is done in it
        self.diagonal = np.zeros(n_layers)
        self.row_means = np.zeros((n_layers, n))
        self.squares = np.zeros((n_layers, n_layers))
        self.target_products = np.zeros((n_targets, n_layers))

    def add(self, rows, columns, tile):
        """Take in a tile of the symmetric kernels; off the diagonal it counts for its mirror too.

        Parameters
        ----------
        rows, columns : slice
        tile : ndarray of shape (L, len(rows), len(columns))
            Left as it is.
        """
        p, q = self.p[rows], self.p[columns]
        mirrored = rows != columns
        if self.is_empty:
            # A kernel may be a large constant plus little else: without it, squares keep their
            # digits. Centring is linear, so any constant will do.
            self.shift = np.asarray(tile[:, 0, 0], dtype=np.float64)
            self.is_empty = False
        if self.buffer.size < tile.size:
            self.buffer = np.empty(tile.size)
        room = self.buffer[: tile.size].reshape(tile.shape)
        tile = np.subtract(tile, self.shift[:, None, None], out=room)
        if not mirrored:
            self.diagonal += np.einsum("lii,i->l", tile, p)
        self.row_means[:, rows] += tile @ q
        targets = self.weighted_targets
        products = np.einsum("nc,lnc->cl", targets[rows], tile @ targets[columns])
        self.target_products += (1 + mirrored) * products
        if mirrored:
            self.row_means[:, columns] += p @ tile
        weights = (1 + mirrored) * np.outer(p, q)
        for layer, kernel in enumerate(tile):  # one at a time: a GEMM of so few rows is slow
            self.squares[layer, layer:] += np.tensordot(tile[layer:], kernel * weights, axes=2)

    def result(self):
        """Return the `KernelStatistics` of all that was added."""
        means = self.row_means @ self.p
        deviations = self.row_means - means[:, None]
        squares = np.triu(self.squares) + np.triu(self.squares, 1).T
        # Frobenius products of the centred kernels, without centring them.
        inner = squares - np.outer(means, means)
        inner -= 2 * (deviations * self.p) @ deviations.T
        # What rounding leaves of a constant kernel is no direction at all.
        constant = inner.diagonal() <= 8 * np.finfo(float).eps * squares.diagonal()
        inner[constant] = inner[:, constant] = 0.0
        return KernelStatistics(
            mean_diagonal=self.diagonal + self.shift,
            row_means=self.row_means + self.shift[:, None],
            means=means + self.shift,
            inner_products=(inner + inner.T) / 2,
            target_products=self.target_products,
            target_norms=self.target_norms,
        )


def _divide(numerator, denominator):
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
