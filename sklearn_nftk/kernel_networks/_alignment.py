"""Alignment of the Grams of a network with the ideal kernel matrix, tile by tile."""

import numpy as np
import torch

from ._objectives import ideal_kernel


def ideal_alignments(source, batch, targets, *, classes, weights):
    """Weighted cosine between each layer kernel and the ideal kernel matrix.

    Parameters
    ----------
    source : KernelNetworkKernels
    batch : batch of n samples
    targets : ndarray of shape (n, k)
        As hidden layers see them.
    classes : bool
        See `ideal_kernel`.
    weights : ndarray of shape (n,)

    Returns
    -------
    ndarray of shape (L,)
    """
    of_rows = torch.tensor(targets)
    KG, KK, GG = 0.0, 0.0, 0.0
    for rows, columns, tile in source.tiles(batch):
        # A tile off the diagonal stands for its mirror image too.
        P = (2 - (rows == columns)) * np.outer(weights[rows], weights[columns])
        G = ideal_kernel(of_rows[rows], of_rows[columns], classes=classes).numpy()
        K = tile[0]
        KG = KG + np.einsum("lij,ij->l", K, P * G)
        KK = KK + np.einsum("lij,lij,ij->l", K, K, P)
        GG = GG + np.sum(P * G**2)
    return KG / np.sqrt(KK * GG)
