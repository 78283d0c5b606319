"""How an axis is cut into slices and a matrix into tiles, and how the tiles are gone through."""

import torch
from joblib import Parallel, delayed, effective_n_jobs

from ._progress import silent


def slices(n, size):
    """Slices of at most `size` that make up ``range(n)``."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def upper_tiles(n, size):
    """Slices ``(rows, columns)`` of the tiles on and above the diagonal."""
    sides = slices(n, size)
    return [(rows, columns) for i, rows in enumerate(sides) for columns in sides[i:]]


def for_each_tile(work, X, n_columns, size, *, symmetric, n_jobs, progress):
    """Call ``work(X[rows], rows, columns)`` for every tile, a row of tiles after the other.

    Parameters
    ----------
    work : callable
    X : batch
        Its rows are those of the matrix.
    n_columns : int
    size : int
        Rows and columns of a tile.
    symmetric : bool
        Whether tiles below the diagonal are left out.
    n_jobs : int or None
        Tiles of a row that are worked on at once, by threads.
    progress : callable
        See `_progress`.
    """
    rows_of_tiles, columns_of_tiles = slices(len(X), size), slices(n_columns, size)
    n_tiles = len(rows_of_tiles) * len(columns_of_tiles)
    if symmetric:
        n_tiles = (n_tiles + len(rows_of_tiles)) // 2
    parallel = Parallel(n_jobs=n_jobs, prefer="threads")
    with progress(n_tiles, "layer kernels") as bar:
        for i, rows in enumerate(rows_of_tiles):
            x = X[rows]
            row_of_tiles = columns_of_tiles[i if symmetric else 0 :]
            parallel(delayed(work)(x, rows, columns) for columns in row_of_tiles)
            bar.update(len(row_of_tiles))


def computed_tiles(compute, X, Y=None, *, size, n_jobs=None, progress=None):
    """Compute a matrix tile by tile: tasks that return their tile, so any joblib backend serves.

    Parameters
    ----------
    compute : callable
        From a batch and another (None for a tile on the diagonal of a symmetric matrix) to a
        tile. Must be picklable for backends of other processes.
    X, Y : batch
        Their rows are those and the columns of the matrix; ``Y=None`` is X with itself, of which
        the tiles on and above the diagonal are computed.
    size : int
        Rows and columns of a tile.
    n_jobs : int or None
        Tiles that are computed at once.
    progress : callable, default=None
        See `_progress`; hears of every tile.

    Yields
    ------
    rows, columns : slice
    tile : what `compute` returned
    """
    symmetric = Y is None
    sides = slices(len(X), size)
    columns_of_tiles = sides if symmetric else slices(len(Y), size)
    n_tiles = len(sides) * len(columns_of_tiles)
    if symmetric:
        n_tiles = (n_tiles + len(sides)) // 2
    at_once = effective_n_jobs(n_jobs)
    parallel = Parallel(n_jobs=n_jobs, prefer="threads")
    with (progress or silent)(n_tiles, "layer kernels") as bar:
        for i, rows in enumerate(sides):
            x = X[rows]
            row_of_tiles = columns_of_tiles[i if symmetric else 0 :]
            for start in range(0, len(row_of_tiles), at_once):
                some = row_of_tiles[start : start + at_once]
                others = (
                    None if symmetric and rows == columns else (X if symmetric else Y)[columns]
                    for columns in some
                )
                if at_once == 1:
                    tiles = map(compute, [x], others)
                else:
                    tiles = parallel(delayed(compute)(x, other) for other in others)
                for columns, tile in zip(some, tiles, strict=True):
                    yield rows, columns, tile
                    bar.update()


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
