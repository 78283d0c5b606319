"""Kernels from tiles: gathered from several threads, or each written into its place in turn."""

from contextlib import nullcontext
from functools import partial

from ..utils._threads import n_workers, one_torch_thread
from ..utils._tiles import computed_tiles, slices, tile_rows
from ._tiles import kernel_tile, write_tile
from ._transfer import Transfer

_SMALLEST_TILE = 128


def shared_tiles(x, y=None, *, per_output, n_jobs=None, progress=None):
    """Tiles of the kernels of two batches, several at a time: see `computed_tiles`.

    Parameters
    ----------
    x, y : Factors of n and m samples
        On the CPU; ``y=None`` is x with itself.
    per_output : bool
        One kernel for each head, not one for all.
    n_jobs, progress
        As in `computed_tiles`.
    """
    plane_of_pair = x[:1].room(1, per_output)[:, 0]
    # Tiles that are handed around hold all layers, beside the products they are made of.
    size = tile_rows(plane_of_pair.nbytes * (len(x.layers) + 2), n_jobs=n_jobs)
    # Few samples make more and smaller tiles, so that no thread is without one.
    longest = max(len(x), len(x if y is None else y))
    size = min(size, max(_SMALLEST_TILE, -(-longest // n_workers(n_jobs))))
    tile = partial(kernel_tile, per_output=per_output)
    return computed_tiles(tile, x, y, size=size, n_jobs=n_jobs, progress=progress)


def gathered(x, y=None, *, per_output, n_jobs=None, progress=None):
    """Kernels from `shared_tiles`, an ndarray of shape (H, L, n, m) or (1, L, n, m)."""
    out = x.room(len(x if y is None else y), per_output).numpy()
    n_jobs = n_workers(n_jobs)  # before this thread is limited to one of torch
    with one_torch_thread():  # others would be in the way of those that compute
        for rows, columns, tile in shared_tiles(
            x, y, per_output=per_output, n_jobs=n_jobs, progress=progress
        ):
            out[:, :, rows, columns] = tile
            if y is None and rows != columns:
                out[:, :, columns, rows] = tile.swapaxes(-1, -2)
    return out


def write_in_turn(out, operands, size, *, per_output, streamed, progress):
    """Write kernels tile by tile, a share of the heads at a time.

    Parameters
    ----------
    out : torch.Tensor of shape (H, L, n, m) or (1, L, n, m)
    operands : Operands
    size : int
        Rows and columns of a tile.
    per_output : bool
        One kernel for each head, not one for all.
    streamed : torch.device or None
        The device of the tiles, where `out` is in host memory; None where they are in one place.
    progress : callable
        See `utils._progress`; hears of every tile.
    """
    n_rows, n_columns = (len(slices(n, size)) for n in out.shape[2:])
    n_tiles = n_rows * (n_rows + 1) // 2 if operands.symmetric else n_rows * n_columns
    transferring = nullcontext() if streamed is None else Transfer(streamed)
    with (
        progress(len(operands.shares) * n_tiles, "layer kernels") as bar,
        transferring as transfer,
    ):
        for heads in operands.shares:
            planes = out[heads] if per_output else out
            add = heads.start > 0 and not per_output
            for rows, columns, x, y in operands.pairs(heads, size):
                mirror = operands.symmetric and y is not None
                mirrored = planes[:, :, columns, rows].mT if mirror else None
                write_tile(
                    planes[:, :, rows, columns], mirrored, x, y,
                    per_output=per_output, add=add, transfer=transfer,
                )  # fmt: skip
                bar.update()
