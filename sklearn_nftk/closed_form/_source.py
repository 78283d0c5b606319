"""Kernel sources in closed form: what all of them share, tile by tile, in torch and float64."""

from abc import ABC, abstractmethod
from fnmatch import fnmatchcase
from functools import partial

import numpy as np
import torch

from ..utils._device import empty, free_memory, full_precision
from ..utils._memory import require_memory
from ..utils._progress import silent
from ..utils._tiles import for_each_tile, slices, with_smaller_tiles

# GPUs want more at once than what stays in the caches of a CPU.
_GPU_TILE_ROWS = 4096


class ClosedFormKernels(ABC):
    """Layer kernels of an infinitely wide network: names, blocks and diagonals.

    The recursions run in float64, because derivatives of dual activations are singular where rows
    are parallel; `dtype` is that of the results. Subclasses know what is computed once for each
    row (`_batch`), the kernels of two batches (`_planes`) and of rows with themselves
    (`_diagonal`).

    Parameters
    ----------
    names : list of str
        Of all planes that `_planes` computes.
    layers : {"module", "block"} or dict
        A dictionary of patterns of names adds planes up.
    device : torch.device
    dtype : torch.dtype
    n_jobs : int or None
        Tiles computed at once, by threads.

    Attributes
    ----------
    layer_names : list of str
    progress : callable
        Who is told how far the tiles have got, see `utils._progress`; nobody at first.
    """

    n_outputs = 1
    cpu_tile_rows = 512  # the intermediates of a tile stay in cache, and calls cost little

    def __init__(self, names, *, layers="module", device="cpu", dtype=torch.float64, n_jobs=None):
        self.device = torch.device(device)
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.progress = silent
        self.groups = group_names(names, layers)
        self.layer_names = list(self.groups)

    @abstractmethod
    def _batch(self, X):
        """What is known of each row: a `RowBatch`."""

    @abstractmethod
    def _planes(self, x, y):
        """List of kernels of two batches, one tensor (n, m) for each name."""

    @abstractmethod
    def _diagonal(self, batch):
        """List of kernels of each row with itself, one tensor (n,) for each name."""

    def _bytes_per_pair(self, x, y):
        """Bytes that a pair of rows takes while its kernels are computed."""
        return 8 * (3 * len(self.groups) + 8)

    def prepare(self, X):
        """Do what is done once per sample; the result stands for X in the other methods.

        Raises
        ------
        ValueError
            If a kernel value overflows; the message names the layer.
        """
        if isinstance(X, RowBatch):
            return X
        batch = self._batch(X)
        batch.diagonal = torch.stack(self._grouped_planes(self._diagonal(batch)))
        # |Theta(x, z)|^2 <= Theta(x, x) Theta(z, z): finite diagonals are enough.
        finite = batch.diagonal.to(self.dtype).isfinite().all(1).tolist()
        for name, ok in zip(self.layer_names, finite, strict=True):
            if not ok:
                raise ValueError(
                    f"layer {name!r} has kernel values that are NaN or infinite: the network "
                    "overflows on X; scale X or the variances down."
                )
        return batch

    def block(self, X, Y=None):
        """Layer kernels between two batches.

        Parameters
        ----------
        X, Y : array of shape (n, ...) and (m, ...), or what `prepare` returned
            ``Y=None`` means X with itself: half the work, an exactly symmetric result with exact
            diagonals.

        Returns
        -------
        ndarray of shape (L, n, m)
            One contiguous plane for each layer.

        Raises
        ------
        MemoryError
            If the result does not fit.
        """
        symmetric = Y is None
        X = self.prepare(X)
        Y = X if symmetric else self.prepare(Y)
        shape = (len(self.groups), len(X), len(Y))
        n_bytes = self.dtype.itemsize * np.prod(shape, dtype=object)
        require_memory(n_bytes, f"A kernel stack of shape {shape}")
        out = empty(shape, self.dtype, torch.device("cpu"))
        with_smaller_tiles(partial(self._fill, out, X, Y, symmetric), self._tile_rows(X, Y))
        return out.numpy()

    def tiles(self, X):
        """Yield ``(rows, columns, tile)`` of the upper half of the kernels of X with itself.

        Tiles have shape (L, len(rows), len(columns)).
        """
        X = self.prepare(X)
        sides = slices(len(X), self._tile_rows(X, X))
        with self.progress(len(sides), "layer kernels") as bar:
            for i, rows in enumerate(sides):
                for columns in sides[i:]:
                    tile = torch.stack(self._tile(X[rows], X[columns], rows == columns))
                    yield rows, columns, tile.to(self.dtype).cpu().numpy()
                bar.update()

    def diag(self, X):
        """``Theta_l(x, x)``, shape (L, n), in O(n) time and memory."""
        return self.prepare(X).diagonal.to(self.dtype).cpu().numpy()

    # -- tiles ----------------------------------------------------------------------------------

    def _fill(self, out, X, Y, symmetric, size):
        """Compute tiles and put each, and its mirror image, where they belong."""

        def deliver(x, rows, columns):
            on_diagonal = symmetric and rows == columns
            for plane, tile in zip(out, self._tile(x, Y[columns], on_diagonal), strict=True):
                plane[rows, columns] = tile
                if symmetric and not on_diagonal:
                    plane[columns, rows] = tile.mT

        for_each_tile(
            deliver, X, len(Y), size, symmetric=symmetric, n_jobs=self.n_jobs,
            progress=self.progress,
        )  # fmt: skip

    def _tile(self, x, y, on_diagonal):
        with torch.no_grad(), full_precision():
            planes = self._grouped_planes(self._planes(x, y))
        if on_diagonal:
            # Rounding in products is not symmetric, and on the diagonal it would be amplified.
            planes = [(plane + plane.mT) / 2 for plane in planes]
            for plane, diagonal in zip(planes, x.diagonal, strict=True):
                plane.diagonal().copy_(diagonal)
        return planes

    def _grouped_planes(self, planes):
        return [
            planes[members[0]] if len(members) == 1 else sum(planes[k] for k in members)
            for members in self.groups.values()
        ]

    def _tile_rows(self, x, y):
        per_pair = self._bytes_per_pair(x, y)
        preferred = self.cpu_tile_rows if self.device.type == "cpu" else _GPU_TILE_ROWS
        affordable = int((free_memory(self.device) / per_pair) ** 0.5)
        return max(1, min(preferred, affordable))


class RowBatch:
    """What is known of the rows of a batch: tensors, each with an axis for the rows.

    Parameters
    ----------
    **fields : tensor
        Given as ``name=(tensor, axis of the rows)``.

    Attributes
    ----------
    diagonal : tensor of shape (L, n)
        The kernels of each row with itself.
    """

    def __init__(self, **fields):
        self._axes = {name: axis for name, (_, axis) in fields.items()}
        for name, (tensor, _) in fields.items():
            setattr(self, name, tensor)
        self.diagonal = None

    def __len__(self):
        name, axis = next(iter(self._axes.items()))
        return getattr(self, name).shape[axis]

    def __getitem__(self, rows):
        some = RowBatch(
            **{
                name: (getattr(self, name)[(slice(None),) * axis + (rows,)], axis)
                for name, axis in self._axes.items()
            }
        )
        if self.diagonal is not None:
            some.diagonal = self.diagonal[:, rows]
        return some


def group_names(names, layers):
    """``{layer: indices of the planes that are added}``."""
    if not isinstance(layers, dict):
        return {name: [k] for k, name in enumerate(names)}
    if not layers:
        raise ValueError("layers must not be an empty dictionary.")
    groups = {}
    for layer, patterns in layers.items():
        patterns = [patterns] if isinstance(patterns, str) else patterns
        groups[layer] = [
            k for k, name in enumerate(names) if any(fnmatchcase(name, p) for p in patterns)
        ]
        if not groups[layer]:
            raise ValueError(f"layers: {patterns!r} of layer {layer!r} match none of {names}.")
    for k, name in enumerate(names):
        owners = [layer for layer, members in groups.items() if k in members]
        if len(owners) != 1:
            found = f"matched by {owners}" if owners else "matched by no pattern"
            raise ValueError(f"layers: {name!r} must be in exactly one layer, but is {found}.")
    return groups
