"""Factors of batches as the products of kernels take them: whole, or made slice by slice."""

from functools import partial

from ..utils._tiles import slices
from ._tiles import matched_slices


class Slices:
    """A batch whose slices are factors, made or taken when they are asked for.

    Parameters
    ----------
    batch : Batch
    current : callable
        From a batch to its factors by the plan as it is now, None for a deferred batch.
    made : callable
        From samples to their factors, which may change the plan.
    """

    def __init__(self, batch, current, made):
        self.batch = batch
        self._current = current
        self._made = made

    def __len__(self):
        return len(self.batch)

    def __getitem__(self, rows):
        if self.batch.deferred:
            return self._made(self.batch.X[rows])
        return self._current(self.batch)[rows]


class Operands:
    """Factors of a batch or two by one plan, all heads or a share of them at a time.

    Parameters
    ----------
    batch, other : Batch
        ``other=None`` is the batch with itself.
    current, made : callable
        As in `Slices`; `made` takes a slice of the heads too.
    sizes : Sizes
    n_heads : int

    Attributes
    ----------
    shares : list of slice
        Heads that are treated together: all of them, unless there is no room for their factors.
    made_heads : int
        Heads of factors that are made again for each tile; 0 where none are.
    symmetric : bool
        The batch with itself.
    """

    def __init__(self, batch, other, current, made, sizes, n_heads):
        self._batches = [batch] if other is None else [batch, other]
        self._current = current
        self._made = made
        self.symmetric = other is None
        deferred = [current(batch) is None for batch in self._batches]
        share, self._sliced = n_heads, any(deferred)
        if all(deferred):
            affordable = sizes.heads_at_once(sum(map(len, self._batches)))
            share, self._sliced = max(1, min(n_heads, affordable)), not affordable
        self.shares = slices(n_heads, share)
        self.made_heads = share * self._sliced

    def kept(self):
        """Factors of each batch; None where a batch is deferred."""
        if any(batch.deferred for batch in self._batches):
            return None
        return self._by_one_plan(self._current)

    def pairs(self, heads, size):
        """Go through the factors of the tiles, see `matched_slices`."""
        made = partial(self._made, heads=heads)
        if self._sliced:
            sides = [Slices(batch, self._current, made) for batch in self._batches]
        else:
            sides = self.kept() or self._by_one_plan(lambda batch: made(batch.X))
        return matched_slices(sides[0], None if self.symmetric else sides[1], size)

    def _by_one_plan(self, factors_of):
        while True:
            factors = [factors_of(batch) for batch in self._batches]
            if len({x.version for x in factors}) == 1:
                return factors
