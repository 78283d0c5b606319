"""Sequences of any lengths: whatever holds them becomes one array, padded with NaN at the end."""

import numpy as np
import torch

from ..utils._sklearn import check_array, validate_data

LAYOUTS = ("time_first", "channels_first")


def check_sequences(X, name="X", *, layout="time_first"):
    """Validate sequences.

    Parameters
    ----------
    X : array-like
        A list or object array of sequences of shape (T_i, m), or (T_i,) for one channel; an array
        (n, T, m); or an array (n, T) of univariate sequences. NaN after the last step of a
        sequence marks its end.
    name : str
        For messages.
    layout : {"time_first", "channels_first"}
        The second is (m, T_i) and (n, m, T), as aeon and sktime have it.

    Returns
    -------
    ndarray of shape (n, T), or (n, T, m) or (n, m, T) as `layout` says
        Floats; shorter sequences end in NaN.

    Raises
    ------
    ValueError
        For infinite values, NaN before the end, sequences without a step, or of different numbers
        of channels.
    """
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().numpy()
    if holds_sequences(X):
        X = _padded([_sequence(x, f"{name}[{i}]") for i, x in enumerate(X)], name, layout)
    X = check_array(X, allow_nd=True, ensure_all_finite="allow-nan", input_name=name)
    if X.ndim > 3:
        raise ValueError(
            f"Found array with dim {X.ndim}, while sequences have dim 2 (n, T) or dim 3; "
            f"{name} has shape {X.shape}."
        )
    if X.dtype != np.float32:
        X = X.astype(np.float64, copy=False)
    lengths(time_first(X, layout), name)
    return X


def validate_sequences(estimator, X, y="no_validation", *, layout, **checks):
    """Validate sequences, and targets, for an estimator: `validate_data` of scikit-learn.

    The tags of estimators do not say ``allow_nan``, because NaN is accepted at the ends alone.
    `n_features_in_` is the number of columns of arrays (n, T), else the number of channels.
    """
    checks = {"allow_nd": True, "ensure_all_finite": "allow-nan", **checks}
    nested = isinstance(X, list | tuple)
    three_dimensional = (
        holds_sequences(X) or (np.ndim(X) if nested else getattr(X, "ndim", 2)) == 3
    )
    if three_dimensional:
        X = check_sequences(X, layout=layout)
        three_dimensional = X.ndim == 3
    if three_dimensional:
        # scikit-learn takes the second axis for features.
        X = time_first(X, layout).swapaxes(1, 2)
    if isinstance(y, str) and y == "no_validation":
        X = validate_data(estimator, X, **checks)
    else:
        X, y = validate_data(estimator, X, y, **checks)
    if three_dimensional:
        X = time_first(X.swapaxes(1, 2), layout)
    X = check_sequences(X, layout=layout)
    return X if isinstance(y, str) and y == "no_validation" else (X, y)


def holds_sequences(X):
    """Recognise a list, tuple or object array of sequences of several shapes."""
    if isinstance(X, np.ndarray):
        return X.dtype == object and X.ndim == 1 and len(X) > 0 and _is_sequence(X[0])
    if not isinstance(X, list | tuple) or not len(X) or not all(_is_sequence(x) for x in X):
        return False
    return isinstance(X[0], np.ndarray) or len({_shape(x) for x in X}) > 1


def _is_sequence(x):
    return not isinstance(x, str | bytes) and hasattr(x, "__len__")


def _shape(x):
    try:
        return np.shape(x)
    except ValueError:  # ragged inside
        return None


def _sequence(x, name):
    x = check_array(
        x, ensure_2d=False, allow_nd=True, ensure_all_finite="allow-nan", input_name=name,
        ensure_min_samples=0, ensure_min_features=0,
    )  # fmt: skip
    if x.ndim > 2:
        raise ValueError(f"Found array with dim {x.ndim}, while {name} must have dim 1 or dim 2.")
    return x


def _padded(sequences, name, layout):
    """One array of the sequences; univariate ones of one length stay two-dimensional."""
    if all(x.ndim == 1 for x in sequences) and len({len(x) for x in sequences}) == 1:
        return np.stack(sequences)
    columns = [x[:, None] if x.ndim == 1 else time_first(x[None], layout)[0] for x in sequences]
    widths = [x.shape[1] for x in columns]
    for i, width in enumerate(widths):
        if width != widths[0]:
            raise ValueError(
                f"{name}[{i}] has {width} channels, but {name}[0] has {widths[0]}: sequences may "
                f"differ in length alone (layout={layout!r})."
            )
    for i, x in enumerate(columns):
        if not len(x):
            raise ValueError(f"Found sequence with 0 time steps: {name}[{i}] needs at least 1.")
    dtype = np.result_type(np.float32, *(x.dtype for x in columns))
    padded = np.full((len(columns), max(map(len, columns)), widths[0]), np.nan, dtype=dtype)
    for row, x in zip(padded, columns, strict=True):
        row[: len(x)] = x
    return time_first(padded, layout)


def time_first(X, layout):
    """View of shape (n, T, m), or back."""
    if X.ndim == 2:
        return X[:, :, None]
    return X if layout == "time_first" else X.swapaxes(1, 2)


def lengths(X, name="X"):
    """Lengths of NaN-padded sequences of shape (n, T, m).

    Raises
    ------
    ValueError
        If NaN is anywhere else than in whole steps at the end.
    """
    present = ~np.isnan(X)
    steps = present.any(axis=2)
    n_steps = steps.sum(axis=1)
    if not n_steps.all():
        raise ValueError(
            f"Found sequence with 0 time steps: {name}[{int(n_steps.argmin())}] is NaN throughout."
        )
    if not np.array_equal(present.all(axis=2), np.arange(X.shape[1]) < n_steps[:, None]):
        raise ValueError(
            f"Input {name} contains NaN. NaN may only mark the end of a sequence: all channels of "
            "the steps after its last."
        )
    return n_steps
