"""Walks: which steps of two sequences meet, in which order, for all pairs of a tile at once.

A walk takes pairs of sequences through their steps together, one step of each at a time. Steps are
counted from the end where the last state is read out, because what comes back from the read-out is
correlated at equal distance from it alone; the walk then goes down to step 0, the last::

    step       4   3   2   1   0                 walk: 2, 1, 0; state of step 0 is read
    x         x0  x1  x2  x3  x4
    z                 z0  z1  z2

and from the start where the mean of all states is read out::

    step       0   1   2   3   4                 walk: 0, 1, 2; every state is read
    x         x0  x1  x2  x3  x4
    z         z0  z1  z2

For the tied mean every step of x also meets every step of z: one more walk for each shift of the
one against the other, here by (2, 0)::

    step       0   1   2
    x         x2  x3  x4
    z         z0  z1  z2

Rows are sorted by length, the longest first, so the pairs of which both have a step are a
rectangle, the *window* of the step; all others stand still. For lengths (5, 3, 1) and (4, 2)::

               step 0       step 1       step 3
                4  2         4  2         4  2
            5   #  #         #  #         #  .
            3   #  #         #  #         .  .
            1   #  #         .  .         .  .

`PairWalk` has a window of two axes, rows and columns. The diagonal of a kernel needs each sequence
with itself alone: `SelfWalk` has one axis, and `LaterSelfWalk` takes all shifts of a sequence
against itself at once, its second axis.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch

from ._dual import correlation


def longest_first(n_steps):
    """Order of sequences of these lengths in which every window is a rectangle."""
    return np.argsort(-n_steps, kind="stable")


class Side:
    """Sequences of a batch read in one direction, the longest first.

    Attributes
    ----------
    lengths : ndarray of shape (n,)
    values : tensor of shape (T, n, m)
        What is read at each step.
    deviations : tensor of shape (T, depth, n)
        Standard deviations of the pre-activations of every layer.
    """

    def __init__(self, batch, direction, order):
        device = batch.values0.device
        self.lengths = batch.lengths.numpy()[order]
        order = torch.as_tensor(order, device=device)
        self.values = getattr(batch, f"values{direction}")[:, order]
        self.deviations = getattr(batch, f"deviations{direction}")[:, :, order]

    def count(self, step):
        """Count the sequences that have a step: the first ones."""
        return int(np.searchsorted(-self.lengths, -step, side="left"))


class Walk(ABC):
    """Pairs of sequences that are taken through their steps together.

    Attributes
    ----------
    start : tensor
        The recurrent input of the first step of each pair; every tensor that goes along with the
        pairs has its shape.
    steps : range
        In the order of time.
    n_channels : int
    last : bool
        Whether the state of step 0 alone is read out, rather than that of every step.
    """

    start: torch.Tensor
    steps: range
    n_channels: int
    last = False

    @abstractmethod
    def window(self, step):
        """Index of the pairs that have a step."""

    @abstractmethod
    def inner(self, step):
        """Inner products of what the pairs of the window read at a step."""

    @abstractmethod
    def dual(self, dual, S, step, layer):
        """Dual activation V and V' of their covariances S."""

    def take(self, tensor, step):
        """Part of a tensor that belongs to the window of a step."""
        return tensor[self.window(step)]

    def put(self, tensor, step, values):
        """Give the pairs of the window new values; the others keep theirs."""
        if values.shape == tensor.shape:
            return values
        tensor = tensor.clone()
        tensor[self.window(step)] = values
        return tensor

    def add(self, tensor, step, values):
        """Add in place, for the pairs of the window."""
        tensor[self.window(step)] += values

    def is_read(self, step):
        """Tell whether the state of a step is read out."""
        return step == 0 or not self.last


def _in_time(n_steps, last):
    """Steps in the order of time: towards 0 where they are counted from the end."""
    return range(n_steps - 1, -1, -1) if last else range(n_steps)


class PairWalk(Walk):
    """Each sequence of one side with each of the other, whose steps are shifted by `shifts`."""

    def __init__(self, x, y, start, *, last=False, shifts=(0, 0)):
        self.x, self.y, self.start, self.last = x, y, start, last
        self.shifts = shifts
        self.n_channels = x.values.shape[2]
        n_steps = min(x.lengths[0] - shifts[0], y.lengths[0] - shifts[1])
        self.steps = _in_time(n_steps, last)

    def window(self, step):
        return (
            slice(self.x.count(step + self.shifts[0])),
            slice(self.y.count(step + self.shifts[1])),
        )

    def inner(self, step):
        rows, columns = self.window(step)
        a, b = self.shifts
        return self.x.values[step + a, rows] @ self.y.values[step + b, columns].mT

    def dual(self, dual, S, step, layer):
        rows, columns = self.window(step)
        p = self.x.deviations[step + self.shifts[0], layer, rows][:, None]
        q = self.y.deviations[step + self.shifts[1], layer, columns][None]
        return dual(correlation(S, p, q), p, q)


class SelfWalk(Walk):
    """Each sequence with itself, every step with itself."""

    def __init__(self, x, start, *, last):
        self.x, self.start, self.last = x, start, last
        self.n_channels = x.values.shape[2]
        self.steps = _in_time(x.lengths[0], last)

    def window(self, step):
        return slice(self.x.count(step))

    def inner(self, step):
        values = self.x.values[step, self.window(step)]
        return (values * values).sum(dim=1)

    def dual(self, dual, S, step, layer):
        return dual.diagonal(self.x.deviations[step, layer, self.window(step)])


class LaterSelfWalk(Walk):
    """Each sequence with itself, every step with all later ones: pairs are (row, shift - 1)."""

    def __init__(self, x):
        self.x = x
        self.n_channels = x.values.shape[2]
        self.longest = x.lengths[0]
        self.start = x.values.new_zeros((len(x.lengths), self.longest - 1))
        self.steps = range(self.longest - 1)
        self._lengths = torch.as_tensor(x.lengths, device=x.values.device)

    def window(self, step):
        return slice(None), slice(self.longest - 1 - step)

    def inner(self, step):
        later = self.x.values[step + 1 : self.longest]
        return torch.einsum("nc,tnc->nt", self.x.values[step], later)

    def dual(self, dual, S, step, layer):
        p = self.x.deviations[step, layer][:, None]
        q = self.x.deviations[step + 1 : self.longest, layer].mT
        return dual(correlation(S, p, q), p, q)

    def add(self, tensor, step, values):
        # Beyond the end of a sequence there is nothing to read.
        later = torch.arange(step + 1, self.longest, device=values.device)
        tensor[self.window(step)] += torch.where(later < self._lengths[:, None], values, 0.0)
