"""Ids of rows: the index of the user's table, by which reports name samples."""

import numpy as np


def row_ids(*tables):
    """Index of the first of these tables that has one.

    Parameters
    ----------
    *tables : object
        Of the same rows: DataFrames and Series of pandas have an index; arrays, lists and frames
        of polars have none.

    Returns
    -------
    ndarray of shape (n,) or None
        Entries are what the index holds, tuples for one of several levels.
    """
    for table in tables:
        index = getattr(table, "index", None)  # a method of lists
        to_numpy = getattr(index, "to_numpy", None)
        if to_numpy is not None:
            return to_numpy()
    return None


def given_ids(ids, n, name):
    """Ids that the user gave for n rows; `name` of the parameter is for errors.

    Raises
    ------
    ValueError
        If they are not n.
    """
    if hasattr(ids, "to_numpy"):
        ids = ids.to_numpy()
    elif not isinstance(ids, np.ndarray):
        ids = np.fromiter(ids, dtype=object)  # which leaves tuples and mixed types as they are
    if ids.shape != (n,):
        raise ValueError(f"{name} must have one id for each of {n} rows, got shape {ids.shape}.")
    return ids


def id_text(row_id):
    """Write an id for a reader: datetimes without empty parts, levels with commas."""
    if isinstance(row_id, tuple):
        return ", ".join(map(id_text, row_id))
    if isinstance(row_id, np.datetime64):
        return str(np.datetime_as_string(row_id, unit="auto"))
    return str(row_id)
