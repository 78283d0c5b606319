"""What a hidden layer is trained towards: the ideal kernel matrix, and how near a Gram is to it.

A hidden layer is judged by the kernel of the layer after it, ``K_ij = k(F(x_i), F(x_j))``. Its
target is the ideal kernel matrix G: the largest value of the kernel for pairs of one class, the
smallest for pairs of different classes, 1 and 0 for the Gaussian kernel.
"""

import torch
from torch import nn

# Width, in standard deviations, within which real targets count as the same.
TARGET_WIDTH = 0.25


def ideal_kernel(targets, others, *, classes):
    """Ideal kernel matrix of two batches of targets.

    Parameters
    ----------
    targets : tensor of shape (n, k)
        Class codes, k = 1, or standardised real targets.
    others : tensor of shape (m, k)
    classes : bool
        Whether the targets are classes. Real ones have the Gaussian kernel of width
        `TARGET_WIDTH`, which is that of classes where targets are equal or far apart.

    Returns
    -------
    tensor of shape (n, m)
    """
    differences = targets[:, None] - others[None]
    if classes:
        return (differences == 0).all(dim=2).to(targets.dtype)
    return (-(differences**2).sum(dim=2) / (2 * TARGET_WIDTH**2)).exp()


def weighted_cosine(K, G, P):
    """Alignment ``<K, G> / (||K|| ||G||)``, not centred, with weights P of the pairs."""
    return (P * K * G).sum() / ((P * K**2).sum() * (P * G**2).sum()).sqrt()


def _alignment(exponents, G, P):
    return 1 - weighted_cosine(exponents.exp(), G, P)


def _upper(exponents, G, P):
    """Of pairs of different rows; a batch of one row has none."""
    P = P.triu(1)
    return _alignment(exponents, G, P) if P.any() else exponents.sum() * 0


def _l2(exponents, G, P):
    return (P * (exponents.exp() - G) ** 2).sum() / P.sum()


def _l1(exponents, G, P):
    return (P * (exponents.exp() - G).abs()).sum() / P.sum()


def _cross_class(exponents, G, P):
    """Mean kernel of pairs that should have none: what the bound on the loss needs."""
    P = P * (1 - G)
    return (P * exponents.exp()).sum() / P.sum().clamp(min=torch.finfo(P.dtype).tiny)


def _contrastive(exponents, G, P):
    """Share of each row's kernel mass on rows like it, as a log-loss.

    That of neighbourhood components analysis and of supervised contrastive learning, with the
    kernel as the similarity.
    """
    weights = P.diagonal().sqrt()
    P = P - P.diagonal().diag()
    rows = (P * G).sum(dim=1) > 0  # those that have one like them
    if not rows.any():
        return exponents.sum() * 0
    exponents, G, P, weights = exponents[rows], G[rows], P[rows], weights[rows]
    alike = torch.logsumexp(exponents + (P * G).log(), dim=1)
    any_other = torch.logsumexp(exponents + P.log(), dim=1)
    return weights @ (any_other - alike) / weights.sum()


# name -> loss of (logarithm of the kernel, ideal kernel, weights of the pairs), (b, b) each; a new
# objective is a new entry
OBJECTIVES = {
    "alignment": _alignment,
    "upper": _upper,
    "l2": _l2,
    "l1": _l1,
    "cross-class": _cross_class,
    "contrastive": _contrastive,
}


class HiddenObjective(nn.Module):
    """Loss of a batch of outputs of a hidden layer, under the kernel of the layer after it.

    Parameters
    ----------
    objective : str
        One of `OBJECTIVES`.
    log_kernel : callable
        From outputs (b, ...) to the logarithm of their Gram matrix (b, b).
    classes : bool
        See `ideal_kernel`.

    Attributes
    ----------
    alignment : float
        Of the last batch with its ideal kernel, whatever the objective.
    """

    def __init__(self, objective, log_kernel, *, classes):
        super().__init__()
        self.objective = OBJECTIVES[objective]
        self.log_kernel = log_kernel
        self.classes = classes
        self.alignment = float("nan")

    def forward(self, outputs, targets):
        """Loss of outputs (b, ...) for targets and, in their last column, weights (b, k + 1)."""
        targets, weights = targets[:, :-1], targets[:, -1]
        exponents = self.log_kernel(outputs)
        G, P = ideal_kernel(targets, targets, classes=self.classes), torch.outer(weights, weights)
        with torch.no_grad():
            self.alignment = float(weighted_cosine(exponents.exp(), G, P))
        return self.objective(exponents, G, P)
