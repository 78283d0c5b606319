"""The study behind ``python -m sklearn_nftk``: NFT-K beside SVMs on one data set, same folds."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from ._classifier import MultiLayerNTKClassifier
from .networks import MLP

BUILT_IN = {
    "digits": datasets.load_digits,
    "breast_cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "iris": datasets.load_iris,
}

# 5 x 5, the usual decades around the defaults for standardised features.
GRID = {"C": np.logspace(-1, 3, 5), "gamma": np.logspace(-4, 0, 5)}


class DataError(ValueError):
    """Something about the user's data or arguments, said in one line."""


class Dataset(NamedTuple):
    """Features, labels, label names, and the unfitted preparation of the features."""

    name: str
    X: Any
    y: np.ndarray
    preparation: Any


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
    DataError
        If the file or the column is missing or cannot be read.
    """
    if name in BUILT_IN:
        if target is not None:
            raise DataError(f"--target goes with a CSV file; {name} has its own.")
        bunch = BUILT_IN[name]()
        y = np.asarray(bunch.target_names)[bunch.target]
        return Dataset(name, bunch.data, y, StandardScaler())
    return _load_csv(Path(name), target)


def _load_csv(path, target):
    try:
        import pandas as pd
    except ImportError as error:
        raise DataError("reading a CSV file needs pandas: pip install pandas") from error
    if not path.is_file():
        raise DataError(f"no such file: {path} (built-in data: {', '.join(BUILT_IN)})")
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    if target is None:
        raise DataError(f"--target is needed for {path}; its columns are {list(table.columns)}")
    if target not in table.columns:
        raise DataError(f"{path} has no column {target!r}; its columns are {list(table.columns)}")
    table = table.dropna(subset=[target])
    X = table.drop(columns=target)
    # A column without any value tells nothing, and has no median to fill in.
    X = X.dropna(axis="columns", how="all")
    if X.shape[1] == 0:
        raise DataError(f"{path} has no column besides {target!r} to predict it from")
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


def parse_network(text):
    """Turn ``--network`` into a network.

    Parameters
    ----------
    text : str
        Hidden layer sizes ("512,512"), or "package.module:name" of a module or function.

    Raises
    ------
    DataError
        If it is neither.
    """
    if text is None:
        return None
    if ":" in text:
        module, _, attribute = text.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise DataError(f"--network {text}: {error}") from error
    try:
        return MLP(hidden_layer_sizes=tuple(int(size) for size in text.split(",")))
    except ValueError as error:
        raise DataError(
            f"--network {text}: give hidden layer sizes such as 512,512, or package.module:name"
        ) from error


def candidates(network, random_state):
    """The three classifiers that are compared, by name."""
    return {
        "NFT-K": MultiLayerNTKClassifier(network, random_state=random_state),
        "SVC": SVC(),
        "GridSearchCV(SVC)": GridSearchCV(SVC(), GRID, cv=5),
    }


def compare(dataset, classifiers, *, cv, random_state, advance):
    """Cross-validate each classifier on the same folds.

    Parameters
    ----------
    dataset : Dataset
    classifiers : dict of str to estimator
    cv : int
        Number of folds.
    random_state : int
        Shuffles the folds.
    advance : callable
        Called with the name of the classifier after each fold.

    Returns
    -------
    dict of str to dict
        For each classifier, lists over the folds: "accuracy" and "fit_time" in seconds.

    Raises
    ------
    DataError
        If a class is too small for the folds.
    """
    labels, counts = np.unique(dataset.y, return_counts=True)
    if len(labels) < 2:
        raise DataError(f"{dataset.name}: the target has only one class, {labels[0]!r}")
    if counts.min() < cv:
        raise DataError(
            f"{dataset.name}: class {labels[counts.argmin()]!r} has {counts.min()} sample(s), "
            f"fewer than the {cv} folds; choose a smaller --cv or merge classes"
        )
    folds = StratifiedKFold(cv, shuffle=True, random_state=random_state)
    results: dict[str, dict[str, list]] = {
        name: {"accuracy": [], "fit_time": []} for name in classifiers
    }
    # One fold after the other, so that all classifiers meet the same state of the machine.
    for split in folds.split(dataset.X, dataset.y):
        for name, classifier in classifiers.items():
            pipeline = make_pipeline(clone(dataset.preparation), classifier)
            scores = cross_validate(
                pipeline, dataset.X, dataset.y, cv=[split], error_score="raise"
            )
            results[name]["accuracy"].append(float(scores["test_score"][0]))
            results[name]["fit_time"].append(float(scores["fit_time"][0]))
            advance(name)
    return results
