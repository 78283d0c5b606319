"""The largest entries of rows."""

import numpy as np
import torch


def largest(values, k):
    """Columns of the k largest absolute values of each row, in descending order."""
    sizes = np.abs(values)
    # Several times as fast as a partition, which moves all of a row.
    found = torch.topk(torch.from_numpy(sizes), k, sorted=False).indices.numpy()
    found.sort(axis=1)
    order = np.argsort(-np.take_along_axis(sizes, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)
