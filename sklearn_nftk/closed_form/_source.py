"""Base of kernel sources in closed form: tile by tile, in torch and float64."""

from abc import abstractmethod

import numpy as np
import torch

from ..utils._device import free_memory, full_precision, resolve_device
from ..utils._groups import check_layers, group_by_patterns
from ..utils._kernel_source import KernelSource
from ..utils._memory import require_memory
from ..utils._tiles import computed_tiles, tile_rows

# GPUs want more at once than what stays in the caches of a CPU.
_GPU_TILE_ROWS = 4096


class ClosedFormKernels(KernelSource):
    """Layer kernels of an infinitely wide network.

    The recursions run in float64, because derivatives of dual activations are singular where rows
    are parallel; `dtype` is that of the results. All outputs share one kernel, H = 1. Subclasses
    know which samples are accepted (`_checked`), what is computed once for each of them
    (`_batch`), the kernels of two batches (`_planes`) and of samples with themselves
    (`_diagonal`).

    Parameters
    ----------
    names : list of str
        Of all planes that `_planes` computes.
    network : specification, default=None
        Kept for whoever asks what the kernels are of.
    layers : {"module", "block"} or dict
        A dictionary of patterns of names adds planes up.
    device : str or torch.device
        A source that is loaded where there is no such device computes on the CPU.
    dtype : numpy.dtype
    n_jobs : int or None
        Tiles computed at once.

    Attributes
    ----------
    layer_names : list of str
    """

    cpu_tile_rows = 512  # the intermediates of a tile stay in cache, and calls cost little

    def __init__(
        self, names, *, network=None, layers="module", device="cpu", dtype=np.float64, n_jobs=None
    ):
        check_layers(layers)
        self.network = network
        self.device = torch.device(device)
        self.dtype = np.dtype(dtype)
        # A tile on a GPU takes what memory there is.
        self.n_jobs = n_jobs if self.device.type == "cpu" else 1
        groups = (
            group_by_patterns(names, layers)
            if isinstance(layers, dict)
            else {name: [name] for name in names}
        )
        self.layer_names = list(groups)
        # For each layer the planes that are added.
        self.members = [[names.index(name) for name in group] for group in groups.values()]

    def __getstate__(self):
        return {**self.__dict__, "device": str(self.device)}  # no object of torch

    def __setstate__(self, state):
        self.__dict__ |= state
        self.device = resolve_device(self.device, fallback=True)

    @abstractmethod
    def _checked(self, X):
        """Validate samples."""

    @abstractmethod
    def _batch(self, X):
        """Compute the `RowBatch` of validated samples."""

    @abstractmethod
    def _planes(self, x, y):
        """List of kernels of two batches, one tensor (n, m) for each name."""

    @abstractmethod
    def _diagonal(self, batch):
        """List of kernels of each sample with itself, one tensor (n,) for each name."""

    def _bytes_per_pair(self, x, y):
        """Bytes that a pair of samples takes while its kernels are computed."""
        return 8 * (3 * len(self.layer_names) + 8)

    def prepare(self, X):
        """Validate samples and compute the quantities that belong to each of them.

        Returns
        -------
        RowBatch

        Raises
        ------
        ValueError
            If samples are not accepted, or a kernel value overflows; the message names the layer.
        """
        X = self._checked(X)
        with torch.no_grad():
            batch = self._batch(X)
            batch.diagonal = torch.stack(self._grouped(self._diagonal(batch)))
        # |Theta(x, z)|^2 <= Theta(x, x) Theta(z, z): finite diagonals are enough.
        finite = np.isfinite(self.diag(batch)[0]).all(axis=1)
        for name, ok in zip(self.layer_names, finite, strict=True):
            if not ok:
                raise ValueError(
                    f"layer {name!r} has kernel values that are NaN or infinite: the network "
                    "overflows on X; scale X or the variances down."
                )
        return batch

    def block(self, batch, other=None):
        """Layer kernels of two batches, shape (1, L, n, m), each layer a contiguous plane.

        ``other=None`` is the batch with itself: half the work, exactly symmetric planes with exact
        diagonals.

        Raises
        ------
        MemoryError
            If the result does not fit.
        """
        return self._assembled(batch, other)

    def gram(self, batch, progress=None):
        """Kernels of a batch with itself, see `block`; `progress` hears of the tiles."""
        return self._assembled(batch, progress=progress)

    def tiles(self, batch, progress=None):
        """Yield ``(rows, columns, tile)`` of the upper half of the kernels of a batch."""
        size = self._tile_rows(batch, batch)
        for rows, columns, planes in computed_tiles(
            self._tile, batch, size=size, n_jobs=self.n_jobs, progress=progress
        ):
            yield rows, columns, np.stack(planes)[None]

    def diag(self, batch):
        """``Theta_l(x, x)``, shape (1, L, n)."""
        return self._delivered(batch.diagonal)[None]

    # -- tiles ----------------------------------------------------------------------------------

    def _assembled(self, x, y=None, *, size=None, n_jobs=None, progress=None):
        """All tiles, and their mirror images, where they belong."""
        others = x if y is None else y
        shape = (1, len(self.layer_names), len(x), len(others))
        n_bytes = self.dtype.itemsize * np.prod(shape, dtype=object)
        require_memory(n_bytes, f"A kernel stack of shape {shape[1:]}")
        out = np.empty(shape, self.dtype)
        for rows, columns, tile in computed_tiles(
            self._tile,
            x,
            y,
            size=size or self._tile_rows(x, others),
            n_jobs=n_jobs or self.n_jobs,
            progress=progress,
        ):
            for whole, plane in zip(out[0], tile, strict=True):
                whole[rows, columns] = plane
                if y is None and rows != columns:
                    whole[columns, rows] = plane.T
        return out

    def _tile(self, x, y=None):
        """Kernels of two batches at once, or in smaller tiles where the device has no room.

        Returns
        -------
        sequence of L ndarrays of shape (n, m)
            Not put together, which would be one copy more.
        """
        try:
            return self._at_once(x, y)
        except torch.OutOfMemoryError:
            size = max(len(x), 0 if y is None else len(y)) // 2
            if not size:
                raise
        torch.cuda.empty_cache()
        return self._assembled(x, y, size=size, n_jobs=1)[0]

    def _at_once(self, x, y):
        with torch.no_grad(), full_precision():
            planes = self._grouped(self._planes(x, x if y is None else y))
        if y is None:
            # Rounding in products is not symmetric, and on the diagonal it would be amplified.
            planes = [(plane + plane.mT) / 2 for plane in planes]
            for plane, diagonal in zip(planes, x.diagonal, strict=True):
                plane.diagonal().copy_(diagonal)
        return [self._delivered(plane) for plane in planes]

    def _delivered(self, values):
        return values.to(getattr(torch, self.dtype.name)).cpu().numpy()

    def _grouped(self, planes):
        return [
            planes[members[0]] if len(members) == 1 else sum(planes[k] for k in members)
            for members in self.members
        ]

    def _tile_rows(self, x, y):
        per_pair = self._bytes_per_pair(x, y)
        if self.device.type == "cpu":
            return tile_rows(per_pair, n_jobs=self.n_jobs, most=self.cpu_tile_rows)
        affordable = int((free_memory(self.device) / per_pair) ** 0.5)
        return max(1, min(_GPU_TILE_ROWS, affordable))


class RowBatch:
    """Samples of a batch as the recursions see them: tensors, each with an axis for the samples.

    Parameters
    ----------
    **fields : tensor
        Given as ``name=(tensor, axis of the samples)``.

    Attributes
    ----------
    diagonal : tensor of shape (L, n)
        The kernels of each sample with itself.
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

    @property
    def nbytes(self):
        """Bytes of all tensors."""
        tensors = [getattr(self, name) for name in self._axes]
        return sum(t.nbytes for t in (*tensors, self.diagonal) if t is not None)
