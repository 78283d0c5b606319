"""Losses of the output layer."""

import torch
from torch import nn
from torch.nn import functional


def _log_loss(outputs, targets):
    if outputs.shape[1] == 1:
        return functional.softplus(-targets * outputs)[:, 0]
    return functional.cross_entropy(outputs, targets.argmax(dim=1), reduction="none")


def _hinge(outputs, targets):
    return (1 - targets * outputs).clamp(min=0).sum(dim=1)


def _squared(outputs, targets):
    return ((outputs - targets) ** 2).sum(dim=1)


# name -> loss of each row, (b,), from outputs and targets (b, n_outputs); classes are -1 and 1
LOSSES = {"log_loss": _log_loss, "hinge": _hinge, "squared": _squared}


class OutputLoss(nn.Module):
    """Weighted mean loss of a batch of decisions.

    Parameters
    ----------
    loss : str
        One of `LOSSES`.
    """

    def __init__(self, loss):
        super().__init__()
        self.loss = LOSSES[loss]

    def forward(self, outputs, targets):
        """Loss of outputs for targets and, in their last column, weights of mean 1."""
        return (targets[:, -1] * self.loss(outputs, targets[:, :-1])).mean()


def signs(codes, n_classes):
    """Targets -1 and 1: (n, 1) for two classes (1 is the second), else one column for each."""
    if n_classes <= 2:
        return 2.0 * (codes[:, None] == 1) - 1
    return 2.0 * functional.one_hot(codes.long(), n_classes) - 1


class Penalty:
    """``weight_decay / 2`` times the squared norm of the weights of kernel machines.

    Parameters
    ----------
    weight_decay : float
    kernel : callable or None
        From weights W (h, p) to ``W k(C, C)``: the norm is that of the reproducing kernel Hilbert
        space, ``tr(W k(C, C) W')``. None is the Euclidean norm.
    """

    def __init__(self, weight_decay, kernel=None):
        self.weight_decay = weight_decay
        self.kernel = kernel

    def __call__(self, head):
        """Penalty of all weights of a module; biases are free."""
        if not self.weight_decay:
            return 0.0
        return 0.5 * self.weight_decay * sum(map(self._squared_norm, _weights(head)))

    def _squared_norm(self, W):
        if self.kernel is None:
            return (W**2).sum()
        with torch.no_grad():
            smoothed = self.kernel(W)
            half = (W * smoothed).sum()
        # The value of tr(W K W') and its gradient 2 W K, without a graph through the kernel.
        return 2 * (W * smoothed).sum() - half


def _weights(head):
    return [p for p in head.parameters() if p.requires_grad and p.ndim > 1]
