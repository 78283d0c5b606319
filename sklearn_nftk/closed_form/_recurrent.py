"""Layer kernels of the infinitely wide recurrent network, in closed form.

The way of two batches through it::

    prepare    sequences -> values and standard deviations of every step     (`_batch`)
    _planes    both sides sorted by length -> walks through their steps      (`_walks`)
               each walk -> kernels of the groups                            (`_recursion`)
               sum over the walks, norm of the read-out, order as it was
    _diagonal  the same for each sequence with itself
"""

import numpy as np
import torch

from ._dual import dual_activation
from ._parameters import check_width
from ._recursion import Recursion
from ._sequences import check_sequences, lengths, time_first
from ._source import ClosedFormKernels, RowBatch
from ._walks import LaterSelfWalk, PairWalk, SelfWalk, Side, longest_first


class InfiniteRNNKernels(ClosedFormKernels):
    """Kernel source of an `InfiniteRNN`.

    Parameters
    ----------
    network : InfiniteRNN
    names : list of str
        Of its layers, see there.
    n_channels : int
    **options
        As in `ClosedFormKernels`.
    """

    cpu_tile_rows = 256

    def __init__(self, network, names, n_channels, **options):
        super().__init__(names, network=network, **options)
        self.n_channels = n_channels
        self.recursion = Recursion(
            network.depth,
            dual_activation(network.activation, network.negative_slope),
            *(float(sigma) ** 2 for sigma in (network.sigma_w, network.sigma_u, network.sigma_b)),
        )
        self.readout = float(network.sigma_v) ** 2
        state = 0.0 if network.initial_state == "zero" else float(network.sigma_h) ** 2
        self.state = state
        self.shared = network.initial_state == "shared"
        self.pooling = network.pooling
        self.layout = network.layout
        self.directions = 2 if network.bidirectional else 1
        self.by_time = network.groups == "time"
        parts = ("sum",) if network.groups == "layer" else ("recurrent", "input", "bias")
        self.groups = [(layer, part) for layer in range(network.depth) for part in parts]
        self.n_steps = len(names) // self.directions - 1

    # -- samples --------------------------------------------------------------------------------

    def _checked(self, X):
        X = check_sequences(X, layout=self.layout)
        check_width(time_first(X, self.layout).shape[2], self.n_channels, "channels")
        return X

    def _batch(self, X):
        X = np.asarray(time_first(X, self.layout), dtype=np.float64)
        n_steps = lengths(X)
        fields = {"lengths": (torch.as_tensor(n_steps), 0)}
        for direction in range(self.directions):
            values = np.nan_to_num(X if direction == 0 else _reversed(X, n_steps))
            values = torch.as_tensor(values, device=self.device)
            deviations = self._deviations(values)
            if self.pooling == "last":
                # Steps count from the end.
                slots = np.maximum(n_steps[:, None] - 1 - np.arange(X.shape[1]), 0)
                slots = torch.as_tensor(slots, device=self.device)
                values = values.gather(1, slots[:, :, None].expand_as(values))
                deviations = deviations.gather(2, slots.expand_as(deviations))
            fields[f"values{direction}"] = (values.movedim(1, 0).contiguous(), 1)
            fields[f"deviations{direction}"] = (deviations.movedim(2, 0).contiguous(), 2)
        return RowBatch(**fields)

    def _deviations(self, values):
        """Standard deviations of the pre-activations at every step, shape (depth, n, T)."""
        depth, dual, recurrent, input_, bias = self.recursion
        n, n_steps, n_channels = values.shape
        inputs = (values * values).sum(dim=2) * (input_ / n_channels)
        states = [torch.full_like(inputs[:, 0], self.state)] * depth
        deviations = values.new_empty((depth, n, n_steps))
        for step in range(n_steps):
            below = inputs[:, step]
            for layer in range(depth):
                p = (recurrent * states[layer] + below + bias).sqrt()
                states[layer] = dual.diagonal(p)[0]
                below = input_ * states[layer]
                deviations[layer, :, step] = p
        return deviations

    # -- kernels --------------------------------------------------------------------------------

    def _planes(self, x, y):
        orders = [longest_first(side.lengths.numpy()) for side in (x, y)]
        rows, columns = (self._index(np.argsort(order)) for order in orders)
        planes = []
        for direction in range(self.directions):
            sides = [Side(b, direction, order) for b, order in zip((x, y), orders, strict=True)]
            norm = self._norm(sides[0].lengths[:, None], sides[1].lengths[None])
            total = _added(self._kernels(walk) for walk in self._walks(*sides))
            planes += [(norm * plane)[rows][:, columns] for plane in total]
        return planes

    def _walks(self, x, y):
        """Walks of two sides whose kernels add up, see the diagrams of `_walks`."""
        start = self.recursion.recurrent * self.state if self.shared else 0.0
        if self.pooling == "last":
            # Two sequences meet their initial states at once if they are of one length.
            same = self._index(x.lengths[:, None] == y.lengths[None])
            yield PairWalk(x, y, start * same.double(), last=True)
            return
        shape = (len(x.lengths), len(y.lengths))
        yield PairWalk(x, y, x.values.new_full(shape, start))
        if self.pooling == "mean-tied":
            shifts = [(shift, 0) for shift in range(1, x.lengths[0])]
            shifts += [(0, shift) for shift in range(1, y.lengths[0])]
            for each in shifts:
                yield PairWalk(x, y, x.values.new_zeros(shape), shifts=each)

    def _diagonal(self, batch):
        order = longest_first(batch.lengths.numpy())
        back = self._index(np.argsort(order))
        planes = []
        for direction in range(self.directions):
            side = Side(batch, direction, order)
            start = side.values.new_full((len(order),), self.recursion.recurrent * self.state)
            total = self._kernels(SelfWalk(side, start, last=self.pooling == "last"))
            if self.pooling == "mean-tied" and side.lengths[0] > 1:
                later = self._kernels(LaterSelfWalk(side))
                # Each step meets the later ones and is met by the earlier ones.
                total = [t + 2 * plane.sum(dim=1) for t, plane in zip(total, later, strict=True)]
            norm = self._norm(side.lengths, side.lengths)
            planes += [(norm * plane)[back] for plane in total]
        return planes

    def _kernels(self, walk):
        if self.by_time:
            return self.recursion.by_steps(walk, self.n_steps)
        return self.recursion.by_parameters(walk, self.groups)

    def _norm(self, n_x, n_y):
        """Variance of the read-out, divided by the lengths of means."""
        if self.pooling == "last":
            return self.readout
        product = self._index(n_x * n_y).double()
        return self.readout / (product.sqrt() if self.pooling == "mean-untied" else product)

    def _index(self, values):
        return torch.as_tensor(values, device=self.device)

    def _bytes_per_pair(self, x, y):
        depth, n_layers = self.recursion.depth, len(self.layer_names)
        if self.by_time:
            n_steps = min(x.values0.shape[0], y.values0.shape[0])
            return 8 * (3 * depth * n_steps + 3 * n_layers + 12)
        return 8 * (2 * len(self.groups) * depth + 3 * n_layers + 12)


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
