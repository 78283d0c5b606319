"""How an axis is cut into slices and a matrix into tiles, and how the tiles are gone through."""

import torch
from joblib import Parallel, delayed


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
