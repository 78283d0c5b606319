"""From options to data; what is wrong with them is a `UsageError`."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

BUILT_IN = {
    "digits": datasets.load_digits,
    "breast_cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "iris": datasets.load_iris,
}


class UsageError(ValueError):
    """Something about the user's data or arguments, said in one line."""


class Dataset(NamedTuple):
    """Features, labels, the unfitted preparation of the features, and the shape of images.

    `feature_names` are those of an array; a table has its own.
    """

    name: str
    X: Any
    y: np.ndarray
    preparation: Any
    image_shape: tuple | None = None
    feature_names: Any = None


def load(name, target=None):
    """Load a built-in data set or a CSV file.

    Parameters
    ----------
    name : str
        A key of ``BUILT_IN``, or the path of a CSV file with a header.
    target : str, default=None
        Column to predict; needed for a CSV file.

    Returns
    -------
    Dataset

    Raises
    ------
    UsageError
        If the file or the column is missing or cannot be read.
    """
    if name in BUILT_IN:
        if target is not None:
            raise UsageError(f"--target goes with a CSV file; {name} has its own.")
        bunch = BUILT_IN[name]()
        y = np.asarray(bunch.target_names)[bunch.target]
        names = list(bunch.feature_names)
        if "images" not in bunch:
            return Dataset(name, bunch.data, y, StandardScaler(), feature_names=names)
        # Single precision is what networks on pictures are trained in.
        X = bunch.data.astype(np.float32)
        return Dataset(name, X, y, StandardScaler(), bunch.images.shape[1:], names)
    return _load_csv(Path(name), target)


def _load_csv(path, target):
    try:
        import pandas as pd
    except ImportError as error:
        raise UsageError("reading a CSV file needs pandas: pip install pandas") from error
    if not path.is_file():
        raise UsageError(f"no such file: {path} (built-in data: {', '.join(BUILT_IN)})")
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path} cannot be read as CSV: {error}") from error
    if target is None:
        raise UsageError(f"--target is needed for {path}; its columns are {list(table.columns)}")
    if target not in table.columns:
        raise UsageError(f"{path} has no column {target!r}; its columns are {list(table.columns)}")
    table = table.dropna(subset=[target])
    X = table.drop(columns=target)
    # A column without any value tells nothing, and has no median to fill in.
    X = X.dropna(axis="columns", how="all")
    if X.shape[1] == 0:
        raise UsageError(f"{path} has no column besides {target!r} to predict it from")
    numeric = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    categorical = make_pipeline(
        SimpleImputer(strategy="most_frequent"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=2, sparse_output=False),
    )
    preparation = make_column_transformer(
        (numeric, make_column_selector(dtype_include=["number", "bool"])),
        (categorical, make_column_selector(dtype_exclude=["number", "bool"])),
        verbose_feature_names_out=False,
    )
    return Dataset(path.stem, X, table[target].to_numpy(), preparation)


def check_folder(path):
    """Refuse a file that could not be written, before the computation."""
    if not path.absolute().parent.is_dir():
        raise UsageError(f"no such folder: {path.absolute().parent}")
