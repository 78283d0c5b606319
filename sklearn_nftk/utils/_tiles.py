"""Slices of an axis, tiles of a matrix, and the way through them."""

from contextlib import closing

import torch
from sklearn.utils import gen_batches

from ._memory import working_memory
from ._progress import silent
from ._threads import computed, in_flight, n_workers


def slices(n, size):
    """Slices of at most `size` that make up ``range(n)``."""
    if n <= size:  # without the validation that gen_batches has, which a predicted row waits for
        return [slice(0, n)] if n else []
    return list(gen_batches(n, size))


def upper_tiles(n, size):
    """Slices ``(rows, columns)`` of the tiles on and above the diagonal."""
    sides = slices(n, size)
    return [(rows, columns) for i, rows in enumerate(sides) for columns in sides[i:]]


def computed_tiles(compute, X, Y=None, *, size, n_jobs=None, progress=None):
    """Compute a matrix tile by tile, several at a time: see `computed`.

    Parameters
    ----------
    compute : callable
        From a batch and another (None for a tile on the diagonal of a symmetric matrix) to a
        tile. Called by several threads, on one thread of BLAS and torch each. Must be picklable
        for joblib backends of other processes.
    X, Y : batch
        Their rows are those and the columns of the matrix; ``Y=None`` is X with itself, of which
        the tiles on and above the diagonal are computed. Sliced by the caller's thread.
    size : int
        Rows and columns of a tile, see `tile_rows`.
    n_jobs : int or None
        Tiles that are computed at once, see `n_workers`.
    progress : callable, default=None
        See `_progress`; hears of every tile.

    Yields
    ------
    rows, columns : slice
        Row by row, whatever the number of threads: sums over tiles are the same to the last bit.
    tile : what `compute` returned
    """
    symmetric = Y is None
    sides = slices(len(X), size)
    places = [(sides[i:] if symmetric else slices(len(Y), size)) for i, _ in enumerate(sides)]

    def batches():
        for rows, row_of_tiles in zip(sides, places, strict=True):
            x = X[rows]
            for columns in row_of_tiles:
                if symmetric:
                    yield x, None if rows == columns else X[columns]
                else:
                    yield x, Y[columns]

    with (
        (progress or silent)(sum(map(len, places)), "layer kernels") as bar,
        closing(computed(compute, batches(), n_jobs)) as tiles,
    ):
        for rows, row_of_tiles in zip(sides, places, strict=True):
            for columns in row_of_tiles:
                yield rows, columns, next(tiles)
                bar.update()


def tile_rows(bytes_per_entry, *, n_jobs=None, most=512):
    """Rows of square tiles of which all that are in flight fit `working_memory`.

    Parameters
    ----------
    bytes_per_entry : int
        That an entry of a tile takes while it is computed, temporary arrays included.
    n_jobs : int or None
        Of `computed_tiles`.
    most : int
        Rows beyond which nothing is gained. On one thread, products of 256 rows run at full
        speed; small tiles are shared more evenly.
    """
    affordable = int((working_memory() / (in_flight(n_workers(n_jobs)) * bytes_per_entry)) ** 0.5)
    return max(1, min(most, affordable))


def with_smaller_tiles(compute, size):
    """``compute(size)``, with tiles half as large as often as they do not fit on the device."""
    while True:
        try:
            return compute(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            torch.cuda.empty_cache()
            size = size // 2
