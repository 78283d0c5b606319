"""The largest entries of rows."""

import numpy as np


def largest(values, k):
    """Columns of the k largest absolute values of each row, in descending order."""
    sizes = -np.abs(values)
    largest = np.argpartition(sizes, k - 1, axis=1)[:, :k]
    order = np.argsort(np.take_along_axis(sizes, largest, axis=1), axis=1, kind="stable")
    return np.take_along_axis(largest, order, axis=1)
