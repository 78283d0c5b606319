"""Layer kernels of a torch network: the first kernel source."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import nn

from ..utils._device import free_memory, full_precision
from ..utils._memory import require_memory
from ..utils._progress import silent
from ._batches import Batch, DeferredBatch
from ._capture import HEADS, capture
from ._check import check_network, failing_layers
from ._generic import generic_factors
from ._layers import group_layers
from ._rules import rule_for

# Wide enough for the matrix products to run at full speed, small enough that the tiles on the
# diagonal, of which half is not needed, are few.
_TILE_ROWS = 512
# What one forward and backward pass may hold on the CPU: more is no faster there.
_PASS_BYTES = 2**27
_CHECKED_SAMPLES = 3


class Part(NamedTuple):
    """Parameters of a layer that are treated together: by the rule of a module, or generically."""

    module: str | None  # None: the generic way
    names: tuple  # of the module's own parameters, or full names
    vectorise: bool = True  # all samples at once, on the generic way


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
        self._looks_up = any(
            isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in network.modules()
        )
        self._modules, self._plan = _plan(self.network, self.layers)
        self._sample_bytes = self._work_bytes = 1

    def check(self, X):
        """Settle how each layer is computed, and compare with autograd on a few samples.

        What has not the shape its rule needs, or disagrees with autograd, goes the generic way.

        Raises
        ------
        ValueError
            If the network does not give (n, O), mixes the samples of a batch, or a layer's kernel
            cannot be computed exactly.
        """
        x = self._tensor(X[:_CHECKED_SAMPLES])
        self.n_outputs = check_network(self.network, x)
        self.n_heads = self.heads(x.new_empty((0, self.n_outputs), dtype=self.dtype)).shape[1]
        self._settle(x)
        failing = failing_layers(self, x)
        for vectorise in (True, False):
            for name in failing:
                index = self.layer_names.index(name)
                self._plan[index] = [Part(None, self.layers[index].parameters, vectorise)]
            if failing:
                self._settle(x)
                failing = failing_layers(self, x)
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
            for name, parts in zip(self.layer_names, self._plan, strict=True)
            if any(part.module is None for part in parts)
        ]

    def prepare(self, X):
        """Do what is done once per sample; the result stands for X in the other methods."""
        if isinstance(X, Batch | DeferredBatch):
            return X
        if len(X) * self._sample_bytes > free_memory(self.device):
            return DeferredBatch(self._batch, X, self._capture_rows())
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
        for batch in (X,) if symmetric else (X, Y):
            self._require_finite(batch)
        shape = (self.n_heads if self.apart else 1, len(self.layers), len(X), len(Y))
        n_bytes = self.dtype.itemsize * np.prod(shape, dtype=object)
        require_memory(n_bytes, f"A kernel stack of shape {shape if self.apart else shape[1:]}")
        out = torch.empty(shape, dtype=self.dtype)
        size = self._tile_rows(isinstance(X, DeferredBatch) or isinstance(Y, DeferredBatch))
        while True:
            try:
                self._fill(out, X, Y, symmetric, size)
                return (out if self.apart else out[0]).numpy()
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                torch.cuda.empty_cache()
                size = size // 2

    def tiles(self, X):
        """Yield ``(rows, columns, tile)`` of the upper half of the kernels of X with itself.

        Tiles have shape (L, len(rows), len(columns)), or (H, L, ...) for heads kept apart.
        """
        X = self.prepare(X)
        slices = _slices(len(X), self._tile_rows(isinstance(X, DeferredBatch)))
        report, self.progress = self.progress, silent
        try:
            with report(len(slices), "layer kernels") as bar:
                for i, rows in enumerate(slices):
                    x = X[rows]
                    for columns in slices[i:]:
                        y = None if columns == rows else X[columns]
                        yield rows, columns, self.block(x, y)
                    bar.update()
        finally:
            self.progress = report

    def diag(self, X):
        """``Theta_l(x, x)``, shape (L, n) or (H, L, n), in O(n) time and memory."""
        X = self.prepare(X)
        self._require_finite(X)
        diagonals = X.diagonals().cpu().numpy()
        return diagonals if self.apart else diagonals.sum(axis=0)

    # -- tiles ----------------------------------------------------------------------------------

    def _fill(self, out, X, Y, symmetric, size):
        rows_of_tiles = _slices(len(X), size)
        columns_of_tiles = _slices(len(Y), size)
        n_tiles = len(rows_of_tiles) * len(columns_of_tiles)
        if symmetric:
            n_tiles = (n_tiles + len(rows_of_tiles)) // 2
        # Threads that share a deferred batch would each compute it, and hook the same network.
        deferred = isinstance(X, DeferredBatch) or isinstance(Y, DeferredBatch)
        parallel = Parallel(n_jobs=1 if deferred else self.n_jobs, prefer="threads")
        with self.progress(n_tiles, "layer kernels") as bar:
            for i, rows in enumerate(rows_of_tiles):
                x = X[rows]
                row_of_tiles = columns_of_tiles[i if symmetric else 0 :]
                parallel(
                    delayed(self._tile)(x, Y, rows, columns, symmetric, out)
                    for columns in row_of_tiles
                )
                bar.update(len(row_of_tiles))

    def _tile(self, x, Y, rows, columns, symmetric, out):
        """One tile of every layer; parts of a layer add up."""
        y = x if symmetric and rows == columns else Y[columns]
        for index, parts in enumerate(zip(x.factors, y.factors, strict=True)):
            planes = out[:, index, rows, columns]
            total = planes if self.device.type == "cpu" else self._empty(planes.shape)
            with full_precision():
                for position, (mine, other) in enumerate(zip(*parts, strict=True)):
                    if position == 0:
                        self._gram(mine, other, total)
                    else:
                        total += self._gram(mine, other, self._empty(planes.shape))
            if symmetric and rows == columns:
                # Matrix products are symmetric up to rounding only.
                planes.copy_((total + total.mT) / 2)
            elif total is not planes:
                planes.copy_(total)
            if symmetric and rows != columns:
                out[:, index, columns, rows] = planes.mT

    def _gram(self, mine, other, out):
        if self.apart:
            mine.gram_per_head(other, out)
        else:
            mine.gram(other, out[0])
        return out

    def _empty(self, shape):
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _tile_rows(self, deferred):
        memory = free_memory(self.device)
        # Three tiles are at work at once: the result, and the products it is made of.
        affordable = int((memory / (3 * self.dtype.itemsize)) ** 0.5)
        if deferred:
            # Two slices of factors, each for a moment in pieces and whole.
            affordable = min(affordable, memory // (4 * self._sample_bytes))
        return max(1, min(_TILE_ROWS, affordable))

    # -- factors --------------------------------------------------------------------------------

    def _settle(self, x):
        """Drop rules that do not apply to what the network does, and measure a sample's memory."""
        uses = capture(self.network, x, self._modules, self.heads)
        for index, parts in enumerate(self._plan):
            self._plan[index] = [
                part if self._by_rule(part, uses, len(x)) else Part(None, self._full_names(part))
                for part in parts
            ]
        kept = sum(t.nbytes for module in uses.values() for use in module for t in use)
        self._sample_bytes = -(-self._factors(x).n_bytes // len(x))
        self._work_bytes = -(-3 * kept // len(x)) + 2 * self._sample_bytes

    def _batch(self, X):
        """Factors of samples, a few at a time where their passes are large."""
        step = self._capture_rows()
        pieces = [self._factors(self._tensor(X[rows])) for rows in _slices(len(X), step)]
        return Batch.concatenate(pieces)

    def _factors(self, x):
        """One forward pass and one backward pass per head."""
        with full_precision():
            uses = capture(self.network, x, self._modules, self.heads)
            made = {
                part: self._by_rule(part, uses, len(x)) for parts in self._plan for part in parts
            }
            for vectorise in (True, False):
                rest = [
                    p for p, factor in made.items() if factor is None and p.vectorise == vectorise
                ]
                names = [self._full_names(part) for part in rest]
                factors = generic_factors(self.network, x, names, self.heads, vectorise=vectorise)
                made.update(zip(rest, factors, strict=True))
        return Batch([[made[part] for part in parts] for parts in self._plan])

    def _by_rule(self, part, uses, n):
        """Factor of a part by its module's rule; None where that does not apply."""
        if part.module is None or not uses[part.module]:
            return None
        if any(len(use.inputs) != n or len(use.gradients) != n for use in uses[part.module]):
            return None  # the first axis is not the samples
        module = self._modules[part.module]
        return rule_for(module)(module, set(part.names), uses[part.module])

    def _full_names(self, part):
        prefix = f"{part.module}." if part.module else ""
        return tuple(prefix + name for name in part.names)

    def _capture_rows(self):
        memory = free_memory(self.device) // 2
        if self.device.type == "cpu":
            memory = min(memory, _PASS_BYTES)
        return int(max(1, min(_TILE_ROWS, memory // self._work_bytes)))

    def _require_finite(self, batch):
        # |Theta(x, z)|^2 <= Theta(x, x) Theta(z, z): finite diagonals are enough.
        finite = batch.diagonals().isfinite().all(2).all(0).tolist()
        for name, ok in zip(self.layer_names, finite, strict=True):
            if not ok:
                raise ValueError(
                    f"layer {name!r} has kernel values that are NaN or infinite: the network "
                    "overflows on X; scale X or use dtype='float64'."
                )

    def _tensor(self, X):
        x = X if isinstance(X, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(X))
        indices = self._looks_up and not x.is_floating_point()
        return x.to(device=self.device, dtype=torch.int64 if indices else self.dtype)


def _plan(network, layers):
    """Modules to watch, and for each layer its parts.

    Parameters that several modules share go the generic way, where their gradients add up by
    themselves.
    """
    modules = dict(network.named_modules())
    owners: dict[torch.Tensor, int] = {}
    for module in modules.values():
        for parameter in module.parameters(recurse=False):
            owners[parameter] = owners.get(parameter, 0) + 1
    by_name = dict(network.named_parameters())
    watched, plan = {}, []
    for layer in layers:
        by_rule: dict[str, list[str]] = {}
        by_hand = []
        for full_name in layer.parameters:
            module_name, _, name = full_name.rpartition(".")
            if rule_for(modules[module_name]) and owners[by_name[full_name]] == 1:
                by_rule.setdefault(module_name, []).append(name)
                watched[module_name] = modules[module_name]
            else:
                by_hand.append(full_name)
        parts = [Part(name, tuple(names)) for name, names in by_rule.items()]
        plan.append(parts + ([Part(None, tuple(by_hand))] if by_hand else []))
    return watched, plan


def _slices(n, size):
    return [slice(a, b) for a, b in pairwise([*range(0, n, size), n])]
