"""Layer kernels of a torch network: the first kernel source."""

from functools import partial

import numpy as np
import torch

from ..utils._device import empty, free_memory, full_precision
from ..utils._memory import require_memory
from ..utils._progress import silent
from ..utils._tiles import for_each_tile, slices, with_smaller_tiles
from ._batches import Batch, DeferredBatch
from ._capture import HEADS
from ._check import check_network, failing_layers
from ._layers import group_layers
from ._passes import Part, Passes
from ._transfer import Transfer

# Tiles are wide enough for the matrix products to run at full speed. Those on the diagonal, of
# which half is not needed, are halved as long as the products stay nearly as fast.
_TILE_ROWS = 1024
_SMALLEST_TILE = 128
_CHECKED_SAMPLES = 3
_CHECKED_HEADS = 4


class TangentKernels:
    """Layer kernels of a network: names, blocks and diagonals.

    ``Theta_l(x, z) = sum_h <d f_h(x)/d theta_l, d f_h(z)/d theta_l>`` over heads ``f_h`` made of
    the outputs (Jacot et al. 2018, one layer at a time). Call `check` before anything else.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; used, never modified.
    layers : {"module", "block"} or dict
        See `group_layers`.
    outputs : {"mean", "sum", "per_class", "difference"}
        What is kernelised of several outputs, one entry of `HEADS`.
    device : torch.device
    dtype : torch.dtype
    n_jobs : int or None
        Tiles computed at once, by threads.

    Attributes
    ----------
    layer_names : list of str
    progress : callable
        Who is told how far the tiles have got, see `utils._progress`; nobody at first.
    n_outputs : int
        After `check`.
    """

    def __init__(
        self,
        network,
        *,
        layers="module",
        outputs="mean",
        device="cpu",
        dtype=torch.float64,
        n_jobs=None,
    ):
        self.device = torch.device(device)
        self.dtype = dtype
        self.heads, self.apart = HEADS[outputs]
        self.n_jobs = n_jobs
        self.progress = silent
        self.network = network.to(device=self.device, dtype=dtype)
        self.layers = group_layers(self.network, layers)
        self.layer_names = [layer.name for layer in self.layers]
        self.passes = Passes(self.network, self.layers, self.device, dtype)

    def check(self, X):
        """Settle how each layer is computed, and compare with autograd on a few samples.

        What has not the shape its rule needs, or disagrees with autograd, goes the generic way.

        Raises
        ------
        ValueError
            If the network does not give (n, O), mixes the samples of a batch, or a layer's kernel
            cannot be computed exactly.
        """
        x = self.passes.tensor(X[:_CHECKED_SAMPLES])
        self.n_outputs = check_network(self.network, x)
        self.n_heads = self.heads(x.new_empty((0, self.n_outputs), dtype=self.dtype)).shape[1]
        heads = self._few_heads()
        failing = self._failing(x, heads)
        for vectorise in (True, False):
            for name in failing:
                index = self.layer_names.index(name)
                self.passes.plan[index] = [Part(None, self.layers[index].parameters, vectorise)]
            if failing:
                failing = self._failing(x, heads)
        if failing:
            raise ValueError(
                f"network: the tangent kernel of layer {failing[0]!r} does not agree with "
                "autograd's own gradients, not even the generic way."
            )

    @property
    def generic_layers(self):
        """Names of the layers of which some parameter goes the generic way; after `check`."""
        return [
            name
            for name, parts in zip(self.layer_names, self.passes.plan, strict=True)
            if any(part.module is None for part in parts)
        ]

    def prepare(self, X):
        """Do what is done once per sample; the result stands for X in the other methods."""
        if isinstance(X, Batch | DeferredBatch):
            return X
        if self.passes.affordable_heads(len(X)) < self.n_heads:
            return DeferredBatch(self._batch, X, slice(0, self.n_heads))
        return self._batch(X)

    def block(self, X, Y=None):
        """Layer kernels between two batches.

        Parameters
        ----------
        X, Y : array of shape (n, ...) and (m, ...), or what `prepare` returned
            ``Y=None`` means X with itself: half the work, an exactly symmetric result.

        Returns
        -------
        ndarray of shape (L, n, m), or (H, L, n, m) for heads kept apart
            One contiguous plane for each layer.

        Raises
        ------
        ValueError
            If a kernel value is not finite; the message names the layer.
        MemoryError
            If the result does not fit.
        """
        symmetric = Y is None
        X = self.prepare(X)
        Y = X if symmetric else self.prepare(Y)
        shape = (self.n_heads if self.apart else 1, len(self.layers), len(X), len(Y))
        n_bytes = self.dtype.itemsize * np.prod(shape, dtype=object)
        require_memory(n_bytes, f"A kernel stack of shape {shape if self.apart else shape[1:]}")
        share, sliced = self._share(X, Y)
        out = with_smaller_tiles(
            partial(self._stack, shape, X, Y, symmetric, share, sliced),
            self._tile_rows(share * sliced),
        )
        return (out if self.apart else out[0]).numpy()

    def tiles(self, X):
        """Yield ``(rows, columns, tile)`` of the upper half of the kernels of X with itself.

        Tiles have shape (L, len(rows), len(columns)), or (H, L, ...) for heads kept apart.
        """
        X = self.prepare(X)
        sides = slices(len(X), self._tile_rows(self.n_heads * isinstance(X, DeferredBatch)))
        report, self.progress = self.progress, silent
        try:
            with report(len(sides), "layer kernels") as bar:
                for i, rows in enumerate(sides):
                    x = X[rows]
                    for columns in sides[i:]:
                        yield rows, columns, self.block(x, None if columns == rows else X[columns])
                    bar.update()
        finally:
            self.progress = report

    def diag(self, X):
        """``Theta_l(x, x)``, shape (L, n) or (H, L, n), in O(n) time and memory."""
        X = self.prepare(X)
        diagonals = X.diagonals() if isinstance(X, Batch) else self._deferred_diagonals(X)
        diagonals = diagonals.cpu().numpy()
        return diagonals if self.apart else diagonals.sum(axis=0)

    # -- tiles ----------------------------------------------------------------------------------

    def _stack(self, shape, X, Y, symmetric, share, sliced, size):
        """Kernels in host memory: gathered on the device where they fit, else tile by tile."""
        n_bytes = self.dtype.itemsize * np.prod(shape, dtype=object)
        resident = self._may_stay(n_bytes)
        out = empty(shape, self.dtype, self.device if resident else torch.device("cpu"))
        for heads in slices(self.n_heads, share):
            x = self._factors(X, heads, sliced)
            y = x if symmetric else self._factors(Y, heads, sliced)
            with Transfer(self.device) as transfer:
                self._fill(
                    out[heads] if self.apart else out,
                    x,
                    y,
                    symmetric,
                    size,
                    add=heads.start > 0 and not self.apart,
                    transfer=None if resident else transfer,
                )
        return out.cpu()

    def _may_stay(self, n_bytes):
        return self.device.type == "cpu" or n_bytes <= free_memory(self.device)

    def _share(self, X, Y):
        """How many heads are treated at once, and whether factors are computed in slices."""
        deferred = [isinstance(batch, DeferredBatch) for batch in (X, Y)]
        if not all(deferred):
            return self.n_heads, any(deferred)
        affordable = self.passes.affordable_heads(len(X) + (0 if Y is X else len(Y)))
        return max(1, min(self.n_heads, affordable)), not affordable

    @staticmethod
    def _factors(batch, heads, sliced):
        if isinstance(batch, Batch):
            return batch
        return batch.take_heads(heads) if sliced else batch.take_heads(heads)[:]

    def _fill(self, out, X, Y, symmetric, size, *, add=False, transfer=None):
        def work(x, rows, columns):
            self._tile(x, Y, rows, columns, symmetric, out, add, transfer)

        # Threads that share a deferred batch would each compute it, and hook the same network.
        alone = transfer or isinstance(X, DeferredBatch) or isinstance(Y, DeferredBatch)
        for_each_tile(
            work, X, len(Y), size, symmetric=symmetric, n_jobs=1 if alone else self.n_jobs,
            progress=self.progress,
        )  # fmt: skip

    def _tile(self, x, Y, rows, columns, symmetric, out, add, transfer):
        """One tile of every layer."""
        diagonal = symmetric and rows == columns
        y = x if diagonal else Y[columns]
        for index, (mine, others) in enumerate(zip(x.factors, y.factors, strict=True)):
            plane = out[:, index, rows, columns]
            mirrored = out[:, index, columns, rows].mT if symmetric and not diagonal else None
            deliver = partial(_deliver, plane, mirrored, add)
            tile = self._empty(plane.shape) if add or transfer else plane
            with full_precision():
                if diagonal:
                    self._symmetric_gram(mine, tile)
                else:
                    self._gram(mine, others, tile)
            if transfer:
                transfer.send(tile, deliver)
            else:
                deliver(tile)

    def _symmetric_gram(self, parts, out):
        """Gram of one layer with itself: the half below the diagonal is copied."""
        n = out.shape[-1]
        if n <= _SMALLEST_TILE:
            self._gram(parts, parts, out)
            # Matrix products are symmetric up to rounding only.
            out.copy_((out + out.mT) / 2)
            return
        # Products of whole multiples of the vector width are the fastest.
        middle = -(-n // (2 * _SMALLEST_TILE)) * _SMALLEST_TILE
        first, last = slice(middle), slice(middle, n)
        above, below = [p[first] for p in parts], [p[last] for p in parts]
        self._symmetric_gram(above, out[:, first, first])
        self._symmetric_gram(below, out[:, last, last])
        self._gram(above, below, out[:, first, last])
        out[:, last, first] = out[:, first, last].mT

    def _gram(self, parts, others, out):
        """Gram of one layer; its parts add up."""
        for position, (mine, other) in enumerate(zip(parts, others, strict=True)):
            term = self._empty(out.shape) if position else out
            if self.apart:
                mine.gram_per_head(other, term)
            else:
                mine.gram(other, term[0])
            if position:
                out += term

    def _empty(self, shape):
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _tile_rows(self, sliced_heads):
        """Rows of tiles; `sliced_heads` are those of factors computed in slices, 0 for none."""
        memory = free_memory(self.device)
        # Three tiles are at work at once: the result, and the products it is made of.
        n_planes = 3 * (self.n_heads if self.apart else 1)
        affordable = int((memory / (n_planes * self.dtype.itemsize)) ** 0.5)
        if sliced_heads:
            # Two slices of factors, each for a moment in pieces and whole.
            sample = self.passes.bytes_per_sample(sliced_heads)
            affordable = min(affordable, memory // (4 * sample))
        return max(1, min(_TILE_ROWS, affordable))

    # -- factors --------------------------------------------------------------------------------

    def _few_heads(self):
        """Stand for many heads: gradients are linear, so random combinations tell of all."""
        if self.n_heads <= _CHECKED_HEADS:
            return self.heads
        generator = torch.Generator().manual_seed(0)
        mixture = torch.randn(self.n_heads, _CHECKED_HEADS, generator=generator)
        mixture = mixture.to(dtype=self.dtype, device=self.device)
        return lambda f: self.heads(f) @ mixture

    def _failing(self, x, heads):
        """Names of the layers whose kernels differ from autograd's."""
        n_heads = min(self.n_heads, _CHECKED_HEADS)
        batch = self.passes.settle(x, heads, n_heads)
        shape = (n_heads if self.apart else 1, len(self.layers), len(x), len(x))
        kernels = self._empty(shape)
        self._tile(batch, batch, slice(0, len(x)), slice(0, len(x)), True, kernels, False, None)
        return failing_layers(self.layers, self.network, x, heads, kernels)

    def _deferred_diagonals(self, X):
        n_heads = min(self.n_heads, max(1, self.passes.affordable_heads(_TILE_ROWS)))
        memory = free_memory(self.device)
        size = max(1, min(_TILE_ROWS, memory // self.passes.bytes_per_sample(n_heads)))
        of_heads = []
        for heads in slices(self.n_heads, n_heads):
            x = X.take_heads(heads)
            rows = slices(len(x), size)
            of_heads.append(torch.cat([x[r].diagonals() for r in rows], dim=2))
        return torch.cat(of_heads)

    def _batch(self, X, heads=None):
        """Factors of samples, for all heads or a slice of them."""
        if heads is None or heads == slice(0, self.n_heads):
            return self.passes.factors(X, self.heads, self.n_heads)
        n_heads = heads.stop - heads.start
        return self.passes.factors(X, lambda f: self.heads(f)[:, heads], n_heads)


def _deliver(plane, mirrored, add, tile):
    """Put a tile where it belongs, and where its mirror image does."""
    if add:
        plane += tile
    elif tile is not plane:
        plane.copy_(tile)
    if mirrored is not None:
        mirrored.copy_(plane)
