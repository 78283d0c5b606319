"""How an axis is cut into slices, and a symmetric matrix into the tiles of its upper half."""


def slices(n, size):
    """Slices of at most `size` that make up ``range(n)``."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def upper_tiles(n, size):
    """Slices ``(rows, columns)`` of the tiles on and above the diagonal."""
    sides = slices(n, size)
    return [(rows, columns) for i, rows in enumerate(sides) for columns in sides[i:]]
