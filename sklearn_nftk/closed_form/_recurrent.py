"""The recurrent neural tangent kernel: recursions over time for all pairs of a tile at once.

What is a step of two sequences depends on the read-out. For the last state, steps are counted from
the ends, because what comes back from the read-out is correlated at equal distance from it alone;
else from the start. A `_Walk` says which steps are met in which order; pairs of which one sequence
has no such step stand still: with rows sorted by length, the others are a rectangle.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from ._dual import correlation, dual_activation
from ._sequences import lengths, time_first
from ._source import ClosedFormKernels, RowBatch


class InfiniteRNNKernels(ClosedFormKernels):
    """Kernel source of an `InfiniteRNN`."""

    cpu_tile_rows = 256

    def __init__(self, network, X, **options):
        names = network.layer_names(X)
        super().__init__(names, **options)
        self.depth = network.depth
        self.dual = dual_activation(network.activation, network.negative_slope)
        self.recurrent, self.input, self.bias, self.readout = (
            float(sigma) ** 2
            for sigma in (network.sigma_w, network.sigma_u, network.sigma_b, network.sigma_v)
        )
        self.state = 0.0 if network.initial_state == "zero" else float(network.sigma_h) ** 2
        self.shared = network.initial_state == "shared"
        self.pooling = network.pooling
        self.layout = network.layout
        self.directions = 2 if network.bidirectional else 1
        self.by_time = network.groups == "time"
        # The groups of parameters, (layer, what of its pre-activations they made).
        parts = ("sum",) if network.groups == "layer" else ("recurrent", "input", "bias")
        self.owners = [(layer, part) for layer in range(self.depth) for part in parts]
        self.n_steps = len(names) // self.directions - 1

    def _batch(self, X):
        X = np.asarray(time_first(X, self.layout), dtype=np.float64)
        n_steps = lengths(X)
        fields = {"lengths": (torch.as_tensor(n_steps), 0)}
        for direction in range(self.directions):
            values = np.nan_to_num(X if direction == 0 else _reversed(X, n_steps))
            deviations = self._deviations(torch.as_tensor(values, device=self.device))
            values = torch.as_tensor(values, device=self.device)
            if self.pooling == "last":
                # Slots count from the end.
                slots = np.maximum(n_steps[:, None] - 1 - np.arange(X.shape[1]), 0)
                slots = torch.as_tensor(slots, device=self.device)
                values = values.gather(1, slots[:, :, None].expand_as(values))
                deviations = deviations.gather(
                    2, slots.expand(self.depth, -1, -1).to(deviations.device)
                )
            fields[f"values{direction}"] = (values.movedim(1, 0).contiguous(), 1)
            fields[f"deviations{direction}"] = (deviations.movedim(2, 0).contiguous(), 2)
        return RowBatch(**fields)

    def _deviations(self, values):
        """Standard deviations of the pre-activations at every step, shape (depth, n, T)."""
        n, n_steps, n_channels = values.shape
        inputs = (values * values).sum(dim=2) * (self.input / n_channels)
        states = [torch.full((n,), self.state, dtype=torch.float64, device=self.device)]
        states = states * self.depth
        found = values.new_empty((self.depth, n, n_steps))
        for step in range(n_steps):
            below = inputs[:, step]
            for layer in range(self.depth):
                p = (self.recurrent * states[layer] + below + self.bias).sqrt()
                states[layer] = self.dual.diagonal(p)[0]
                below = self.input * states[layer]
                found[layer, :, step] = p
        return found

    def _bytes_per_pair(self, x, y):
        if self.by_time:
            n_steps = min(x.values0.shape[0], y.values0.shape[0])
            return 8 * (3 * self.depth * n_steps + 3 * len(self.groups) + 12)
        return 8 * (2 * len(self.owners) * self.depth + 3 * len(self.groups) + 12)

    # -- which pairs, which steps ---------------------------------------------------------------

    def _planes(self, x, y):
        n_x, n_y = x.lengths.numpy(), y.lengths.numpy()
        rows, columns = _longest_first(n_x), _longest_first(n_y)
        steps = n_x[rows][:, None], n_y[columns][None]
        norm = self._norm(*(torch.as_tensor(n, device=self.device) for n in steps))
        back = [torch.as_tensor(np.argsort(k), device=self.device) for k in (rows, columns)]
        planes = []
        for direction in range(self.directions):
            sides = [
                _Side(batch, direction, torch.as_tensor(order))
                for batch, order in ((x, rows), (y, columns))
            ]
            total = _added(self._kernels(walk) for walk in self._walks(*sides))
            planes += [(norm * plane)[back[0]][:, back[1]] for plane in total]
        return planes

    def _walks(self, x, y):
        start = self.recurrent * self.state if self.shared else 0.0
        if self.pooling == "last":
            # Two sequences meet their initial states at once if they are of one length.
            same = torch.as_tensor(x.lengths[:, None] == y.lengths[None]).to(self.device)
            yield _Outer(x, y, start * same.double(), last=True)
            return
        everywhere = torch.full((len(x.lengths), len(y.lengths)), start, dtype=torch.float64)
        everywhere = everywhere.to(self.device)
        yield _Outer(x, y, everywhere)
        if self.pooling == "mean-tied":
            # Every step of one meets every step of the other: one walk for each shift.
            for shift in range(1, x.lengths[0]):
                yield _Outer(x, y, 0 * everywhere, shifts=(shift, 0))
            for shift in range(1, y.lengths[0]):
                yield _Outer(x, y, 0 * everywhere, shifts=(0, shift))

    def _diagonal(self, batch):
        order = _longest_first(batch.lengths.numpy())
        n_steps = batch.lengths[torch.as_tensor(order)].to(self.device)
        norm = self._norm(n_steps, n_steps)
        back = torch.as_tensor(np.argsort(order), device=self.device)
        start = torch.full(
            (len(batch),), self.recurrent * self.state, dtype=torch.float64, device=self.device
        )
        planes = []
        for direction in range(self.directions):
            side = _Side(batch, direction, torch.as_tensor(order))
            total = self._kernels(_Same(side, start, last=self.pooling == "last"))
            if self.pooling == "mean-tied" and side.lengths[0] > 1:
                both_ways = self._kernels(_Shifted(side))
                total = [t + 2 * s.sum(dim=1) for t, s in zip(total, both_ways, strict=True)]
            planes += [(norm * plane)[back] for plane in total]
        return planes

    def _norm(self, n_x, n_y):
        if self.pooling == "last":
            return torch.as_tensor(self.readout, dtype=torch.float64, device=self.device)
        product = (n_x * n_y).double()
        return self.readout / (product.sqrt() if self.pooling == "mean-untied" else product)

    # -- the recursion --------------------------------------------------------------------------

    def _kernels(self, walk):
        """Kernel of each group, the read-out last, without `sigma_v` and the norm of the mean."""
        return self._backward(walk) if self.by_time else self._forward(walk)

    def _visit(self, walk):
        """Yield for each step of a walk ``(recurrent, input, sum, V, V')`` of every layer."""
        recurrent = [walk.start.clone() for _ in range(self.depth)]
        for step in walk.steps:
            below = walk.inner(step) * (self.input / walk.n_channels)
            layers = []
            for layer in range(self.depth):
                above = walk.take(recurrent[layer], step)
                S = above + below + self.bias
                V, slope = walk.dual(self.dual, S, step, layer)
                recurrent[layer] = walk.put(recurrent[layer], step, self.recurrent * V)
                layers.append((above, below, S, V, slope))
                below = self.input * V
            yield step, layers

    def _forward(self, walk):
        """Tangent kernels that go along with the states: O(1) memory in time."""
        totals = [torch.zeros_like(walk.start) for _ in range(len(self.owners) + 1)]
        # What each group contributes to the recurrent input of each layer.
        carried = [
            {layer: torch.zeros_like(walk.start) for layer in range(owner, self.depth)}
            for owner, _ in self.owners
        ]
        for step, layers in self._visit(walk):
            below: list[Any] = [None] * len(self.owners)
            for layer, (recurrent, inputs, S, _, slope) in enumerate(layers):
                for group, (owner, part) in enumerate(self.owners):
                    if owner > layer:
                        continue
                    tangent = walk.take(carried[group][layer], step)
                    if owner == layer:
                        own = {"sum": S, "recurrent": recurrent, "input": inputs}
                        tangent = tangent + own.get(part, self.bias)
                    if below[group] is not None:
                        tangent = tangent + self.input * below[group]
                    tangent = slope * tangent
                    below[group] = tangent
                    carried[group][layer] = walk.put(
                        carried[group][layer], step, self.recurrent * tangent
                    )
            if walk.is_read(step):
                for total, tangent in zip(totals, [*below, layers[-1][3]], strict=True):
                    walk.add(total, step, tangent)
        return totals

    def _backward(self, walk):
        """What comes back from the read-out to each step, times what came in there."""
        totals = [torch.zeros_like(walk.start) for _ in range(self.n_steps + 1)]
        visited = []
        for step, layers in self._visit(walk):
            visited.append((step, [(S, slope) for _, _, S, _, slope in layers]))
            if walk.is_read(step):
                walk.add(totals[-1], step, layers[-1][3])
        following = [torch.zeros_like(walk.start) for _ in range(self.depth)]
        for step, layers in reversed(visited):
            group = totals[min(step, self.n_steps - 1)]
            above = float(walk.is_read(step))
            for layer in range(self.depth - 1, -1, -1):
                S, slope = layers[layer]
                back = slope * (self.recurrent * walk.take(following[layer], step) + above)
                following[layer] = walk.put(following[layer], step, back)
                walk.add(group, step, back * S)
                above = self.input * back
        return totals


class _Side:
    """One direction of the rows of a batch, the longest first."""

    def __init__(self, batch, direction, order):
        device = batch.values0.device
        self.lengths = batch.lengths.numpy()[order.numpy()]
        order = order.to(device)
        self.values = getattr(batch, f"values{direction}")[:, order]
        self.deviations = getattr(batch, f"deviations{direction}")[:, :, order]

    def count(self, step):
        """How many rows have a step."""
        return int(np.searchsorted(-self.lengths, -step, side="left"))


class _Walk(ABC):
    """Pairs of rows that are taken through their steps together.

    Attributes
    ----------
    start : tensor
        The recurrent input of the first step of each pair.
    steps : sequence of int
        In the order of time.
    """

    last = False
    start: torch.Tensor
    steps: range
    n_channels: int

    @abstractmethod
    def window(self, step):
        """Index of the pairs that have a step."""

    @abstractmethod
    def inner(self, step):
        """Inner products of what they read at a step."""

    @abstractmethod
    def dual(self, dual, S, step, layer):
        """Take V and V' of their covariances S."""

    def take(self, tensor, step):
        """What a tensor says of the pairs that have a step."""
        return tensor[self.window(step)]

    def put(self, tensor, step, values):
        """Give the pairs that have a step new values; the others keep theirs."""
        if values.shape == tensor.shape:
            return values
        tensor = tensor.clone()
        tensor[self.window(step)] = values
        return tensor

    def add(self, tensor, step, values):
        """Add in place, for the pairs that have a step."""
        tensor[self.window(step)] += values

    def is_read(self, step):
        """Whether the state of a step is read out."""
        return step == 0 or not self.last


class _Outer(_Walk):
    """Each row of one side with each of the other, whose steps are shifted against each other."""

    def __init__(self, x, y, start, *, last=False, shifts=(0, 0)):
        self.x, self.y, self.start, self.last = x, y, start, last
        self.shifts = shifts
        self.n_channels = x.values.shape[2]
        n_steps = min(x.lengths[0] - shifts[0], y.lengths[0] - shifts[1])
        self.steps = range(n_steps - 1, -1, -1) if last else range(n_steps)

    def window(self, step):
        return slice(self.x.count(step + self.shifts[0])), slice(
            self.y.count(step + self.shifts[1])
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


class _Same(_Walk):
    """Each row with itself."""

    def __init__(self, x, start, *, last):
        self.x, self.start, self.last = x, start, last
        self.n_channels = x.values.shape[2]
        n_steps = x.lengths[0]
        self.steps = range(n_steps - 1, -1, -1) if last else range(n_steps)

    def window(self, step):
        return slice(self.x.count(step))

    def inner(self, step):
        values = self.x.values[step, self.window(step)]
        return (values * values).sum(dim=1)

    def dual(self, dual, S, step, layer):
        return dual.diagonal(self.x.deviations[step, layer, self.window(step)])


class _Shifted(_Walk):
    """Each row with itself at all later steps at once: pairs are (row, shift - 1)."""

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
        # Beyond the end of a row there is nothing to read.
        later = torch.arange(step + 1, self.longest, device=values.device)
        tensor[self.window(step)] += torch.where(later < self._lengths[:, None], values, 0.0)


def _longest_first(n_steps):
    return np.argsort(-n_steps, kind="stable")


def _added(stacks):
    stacks = iter(stacks)
    totals = next(stacks)
    for planes in stacks:
        for total, plane in zip(totals, planes, strict=True):
            total += plane
    return totals


def _reversed(X, n_steps):
    """Sequences read from their ends, padded at the end as before."""
    index = n_steps[:, None] - 1 - np.arange(X.shape[1])
    backwards = np.take_along_axis(X, np.maximum(index, 0)[:, :, None], axis=1)
    return np.where(index[:, :, None] >= 0, backwards, np.nan)
