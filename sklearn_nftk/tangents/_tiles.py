"""Tiles of layer kernels from factors: functions of factors alone, for any thread or process."""

from functools import partial

import torch

from ..utils._device import full_precision
from ..utils._tiles import slices

# Tiles on the diagonal, of which half is not needed, are halved as long as the products stay
# nearly as fast.
_SMALLEST_TILE = 128


def kernel_tile(x, y=None, *, per_output):
    """Kernels of two slices of factors.

    Parameters
    ----------
    x, y : Factors of n and m samples
        ``y=None`` is x with itself: half the work, an exactly symmetric result.
    per_output : bool
        One kernel for each head, not one for all.

    Returns
    -------
    ndarray of shape (H, L, n, m), or (1, L, n, m)
    """
    tile = x.room(len(x if y is None else y), per_output)
    for index, parts in enumerate(x.layers):
        layer_tile(parts, None if y is None else y.layers[index], tile[:, index], per_output)
    return tile.cpu().numpy()


def write_tile(planes, mirrored, x, y, *, per_output, add, transfer):
    """Write a tile into its place, layer by layer, and its mirror image.

    Parameters
    ----------
    planes, mirrored : torch.Tensor of shape (H, L, n, m) or (1, L, n, m)
        Parts of the whole; no `mirrored` on the diagonal and where nothing is symmetric.
    x, y, per_output
        As in `kernel_tile`.
    add : bool
        To what is there.
    transfer : Transfer or None
        What brings tiles from the device, where the planes are in host memory.
    """
    for index, parts in enumerate(x.layers):
        plane = planes[:, index]
        image = None if mirrored is None else mirrored[:, index]
        tile = parts[0].gradient_like(plane.shape) if add or transfer else plane
        layer_tile(parts, None if y is None else y.layers[index], tile, per_output)
        deliver = partial(_deliver, plane, image, add)
        if transfer:
            transfer.send(tile, deliver)
        else:
            deliver(tile)


def _deliver(plane, mirrored, add, tile):
    """Put a tile where it belongs, and where its mirror image does."""
    if add:
        plane += tile
    elif tile is not plane:
        plane.copy_(tile)
    if mirrored is not None:
        mirrored.copy_(plane)


def layer_tile(parts, others, out, per_output):
    """Write the kernels of one layer into `out` of shape (H, n, m) or (1, n, m).

    ``others=None`` is the layer with itself.
    """
    with full_precision():
        if others is None:
            _symmetric_gram(parts, out, per_output)
        else:
            _gram(parts, others, out, per_output)
    return out


def _symmetric_gram(parts, out, per_output):
    """Gram of one layer with itself: the half below the diagonal is copied."""
    n = out.shape[-1]
    if n <= _SMALLEST_TILE:
        _gram(parts, parts, out, per_output)
        # Matrix products are symmetric up to rounding only.
        out.copy_((out + out.mT) / 2)
        return
    # Products of whole multiples of the vector width are the fastest.
    middle = -(-n // (2 * _SMALLEST_TILE)) * _SMALLEST_TILE
    first, last = slice(middle), slice(middle, n)
    above, below = [p[first] for p in parts], [p[last] for p in parts]
    _symmetric_gram(above, out[:, first, first], per_output)
    _symmetric_gram(below, out[:, last, last], per_output)
    _gram(above, below, out[:, first, last], per_output)
    out[:, last, first] = out[:, first, last].mT


def _gram(parts, others, out, per_output):
    """Gram of one layer; its parts add up."""
    for position, (mine, other) in enumerate(zip(parts, others, strict=True)):
        term = torch.empty_like(out) if position else out
        if per_output:
            mine.gram_per_head(other, term)
        else:
            mine.gram(other, term[0])
        if position:
            out += term


def matched_slices(X, Y, size):
    """Go through the tiles of a matrix, a row of tiles after the other.

    Parameters
    ----------
    X, Y : sequences whose slices are `Factors`
        Those that make factors when they are sliced may change the plan: factors of an earlier
        version are then taken again. ``Y=None`` is X with itself, the upper tiles of it.
    size : int
        Rows and columns of a tile.

    Yields
    ------
    rows, columns : slice
    x : Factors
    y : Factors or None
        None where it is `x`.
    """
    sides = slices(len(X), size)
    for i, rows in enumerate(sides):
        x = X[rows]
        for columns in sides[i:] if Y is None else slices(len(Y), size):
            if Y is None and columns == rows:
                yield rows, columns, x, None
                continue
            y = (X if Y is None else Y)[columns]
            while x.version != y.version:
                x = X[rows]
                if x.version != y.version:
                    y = (X if Y is None else Y)[columns]
            yield rows, columns, x, y
