"""Rows and targets of a training: which rows are centers or held out, and targets in two forms."""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from ..utils._sklearn import one_at_a_time
from ._losses import signs


class Targets(NamedTuple):
    """Targets of n rows, each with its weight in the last column.

    Attributes
    ----------
    hidden : tensor of shape (n, k + 1)
        For hidden layers: class codes, or standardised real targets.
    output : tensor of shape (n, n_outputs + 1)
        For the output layer: -1 and 1, or standardised real targets.
    codes : ndarray of int, shape (n,), or None
    center, unit : ndarray of shape (n_outputs,)
        Of real targets.
    """

    hidden: torch.Tensor
    output: torch.Tensor
    codes: np.ndarray | None
    center: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(cls, y, weights, n_classes, dtype, device):
        """Targets from class codes or real values, see `trained_network`."""
        weights = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=float)
        weights = weights / weights.mean()
        codes = None
        if np.issubdtype(y.dtype, np.integer):
            codes, hidden = y, torch.tensor(y)[:, None]
            output = signs(hidden[:, 0], max(n_classes or 0, int(y.max()) + 1))
            center, unit = np.zeros(output.shape[1]), np.ones(output.shape[1])
        else:
            y = y.reshape(len(y), -1)
            center = np.average(y, axis=0, weights=weights)
            unit = np.sqrt(np.average((y - center) ** 2, axis=0, weights=weights))
            unit = np.where(unit > 0, unit, 1.0)
            hidden = output = torch.tensor((y - center) / unit)
        columns = torch.tensor(weights)[:, None]
        hidden, output = (
            torch.cat([values.double(), columns], dim=1).to(device, dtype)
            for values in (hidden, output)
        )
        return cls(hidden, output, codes, center, unit)

    @property
    def classes(self):
        """Whether the targets are classes."""
        return self.codes is not None

    @property
    def n_outputs(self):
        """Outputs of a network for them."""
        return self.output.shape[1] - 1

    def in_units(self, layer):
        """Give outputs of a trained output layer the units of the targets."""
        layer.weight = (layer.weight * self.unit[:, None]).astype(layer.weight.dtype)
        layer.bias = (layer.bias * self.unit + self.center).astype(layer.bias.dtype)

    def standardise(self, head):
        """Undo `in_units` for a head that is to go on."""
        center, unit = (torch.as_tensor(values) for values in (self.center, self.unit))
        with torch.no_grad():
            head.weight.div_(unit[:, None])
            head.bias.sub_(center).div_(unit)


def divided(settings, targets, seed):
    """Rows that are trained on, and those that are held out for early stopping.

    Returns
    -------
    seen, new : ndarray of int
        Ascending; the second is empty without early stopping.
    """
    rows = np.arange(len(targets.output))
    if not settings.early_stopping:
        return rows, rows[:0]
    n_new = max(1, round(settings.validation_fraction * len(rows)))
    codes = targets.codes
    if codes is not None:
        counts = np.bincount(codes)
        counts = counts[counts > 0]
        if counts.min() < 2 or len(counts) > min(n_new, len(rows) - n_new):
            codes = None  # too few rows to deal out by class
    split = one_at_a_time(train_test_split)(
        rows, test_size=n_new, stratify=codes, random_state=seed
    )
    return tuple(map(np.sort, split))


def center_rows(count, targets, rows, seed):
    """Rows that become centers: all, or so many of each class as there are of others.

    Parameters
    ----------
    count : int or None
        None, or more than there are, is all.
    targets : Targets
    rows : ndarray of int
        That may be chosen.
    seed : int

    Returns
    -------
    ndarray of int, shape (min(count, len(rows)),)
        Ascending.
    """
    if count is None or count >= len(rows):
        return rows
    shuffled = check_random_state(seed).permutation(rows)
    if targets.codes is not None:  # the first of each class, the second of each, ...
        codes = targets.codes[shuffled]
        by_class = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[by_class], codes[by_class])
        turn = np.empty(len(rows), dtype=int)
        turn[by_class] = np.arange(len(rows)) - starts
        shuffled = shuffled[np.argsort(turn, kind="stable")]
    return np.sort(shuffled[:count])
