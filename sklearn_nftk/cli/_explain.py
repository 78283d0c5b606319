"""``python -m sklearn_nftk explain``: a fit, and a page about some of its decisions."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_random_state

from ..inspection import explain, layer_ablation, network_fidelity, weight_stability
from ..inspection._explain import MOST_SAMPLES
from ..inspection._fidelity import fidelity_sentence, has_network
from ..utils._progress import progress
from ._data import UsageError, check_folder, load
from ._networks import make_classifier, parse_network

DEFAULT_PAGE = "report.html"


class Report(NamedTuple):
    """Path of the page, accuracy on the samples not trained on, and the rows explained.

    `rows` are those of the data as they were read, from 0: the first one below the header of a
    CSV file. `fidelity` is a sentence on how well the machine stands for its network; empty
    without one.
    """

    path: Path
    accuracy: float
    n_train: int
    n_test: int
    rows: np.ndarray
    fidelity: str


def run_explain(options):
    """Fit, choose decisions and write the page about them."""
    check_folder(options.out)
    for package in ("matplotlib", "pandas"):
        if find_spec(package) is None:
            raise UsageError(f"explain needs {package}: pip install {package}")
    import matplotlib

    matplotlib.use("Agg")  # a file is wanted, not windows
    dataset = load(options.data, options.target)
    with progress(4, "explaining", terminal_only=True) as bar:
        report = write_report(
            dataset,
            parse_network(options.network, dataset),
            options.out,
            n_samples=options.samples,
            n_resamples=options.resamples,
            random_state=options.random_state,
            advance=bar.update,
        )
    print(
        f"{dataset.name}: accuracy {report.accuracy:.4f} on {report.n_test} samples that were not "
        f"trained on, {report.n_train} training examples"
    )
    if report.fidelity:
        print(report.fidelity)
    rows = ", ".join(map(str, report.rows))
    print(f"{len(report.rows)} decisions explained in {report.path}: rows {rows}, from 0")


def write_report(dataset, network, path, *, n_samples, n_resamples, random_state, advance):
    """Fit on three quarters of the data and explain decisions on the rest.

    Parameters
    ----------
    dataset : Dataset
    network : what `parse_network` returned
    path : pathlib.Path
    n_samples : int
        How many decisions; half of them wrong ones, where there are so many.
    n_resamples : int
        Bootstrap resamples for the intervals of the weights; 0 for none.
    random_state : int
    advance : callable
        Called after each of four steps.

    Returns
    -------
    Report

    Raises
    ------
    UsageError
        If there is one class only or a class of one sample, or `n_samples` or `n_resamples` is
        out of range.
    """
    _check(dataset, n_samples, n_resamples)
    train, test = train_test_split(
        np.arange(len(dataset.y)), stratify=dataset.y, random_state=random_state
    )
    table = _table(dataset)
    X, y = table.iloc[train], dataset.y[train]
    X_test, y_test = table.iloc[test], dataset.y[test]
    classifier = make_classifier(network, random_state)
    model = make_pipeline(clone(dataset.preparation), classifier).fit(X, y)
    advance()
    ablation = layer_ablation(model, X_test, y_test)
    fidelity = network_fidelity(model, X_test) if has_network(model) else None
    advance()
    stability = None
    if n_resamples:
        stability = weight_stability(
            model, X, y, n_resamples=n_resamples, random_state=random_state
        )
    advance()
    right = model.predict(X_test) == y_test
    chosen = _some_of_each(right, n_samples, check_random_state(random_state))
    pictures = {}
    if dataset.image_shape is not None:
        pictures = {
            "images": X_test.iloc[chosen].to_numpy().reshape(-1, *dataset.image_shape),
            "train_images": X.to_numpy().reshape(-1, *dataset.image_shape),
        }
    explain(
        model,
        X_test.iloc[chosen],
        path,
        X_train=X,
        y=y_test[chosen],
        labels=y,
        ablation=ablation,
        fidelity=fidelity,
        stability=stability,
        title=f"{dataset.name}: what layers and training examples contributed (rows from 0)",
        **pictures,
    )
    advance()
    sentence = "" if fidelity is None else fidelity_sentence(model, fidelity)
    rows = X_test.index[chosen].to_numpy()
    return Report(path, float(right.mean()), len(train), len(test), rows, sentence)


def _check(dataset, n_samples, n_resamples):
    """Refuse what cannot be explained, before the fit."""
    labels, counts = np.unique(dataset.y, return_counts=True)
    if len(labels) < 2:
        raise UsageError(f"{dataset.name}: the target has only one class, {labels[0]!r}")
    if counts.min() < 2:
        raise UsageError(
            f"{dataset.name}: class {labels[counts.argmin()]!r} has one sample only, which cannot "
            "be both trained on and explained"
        )
    if n_samples < 1:
        raise UsageError(f"--samples must be at least 1, got {n_samples}")
    if n_samples > MOST_SAMPLES:
        raise UsageError(f"--samples must be at most {MOST_SAMPLES}, got {n_samples}")
    if n_resamples < 0:
        raise UsageError(f"--resamples must not be negative, got {n_resamples}")


def _table(dataset):
    """Features as a DataFrame, whose index is the number of the row where it was read."""
    import pandas as pd

    if isinstance(dataset.X, pd.DataFrame):
        return dataset.X
    return pd.DataFrame(dataset.X, columns=dataset.feature_names)


def _some_of_each(right, n, random_state):
    """Indices of n decisions, wrong ones last: half of them, or as many as there are."""
    good, bad = (random_state.permutation(np.flatnonzero(of)) for of in (right, ~right))
    n_bad = max(min(len(bad), n // 2), n - len(good))
    return np.concatenate([good[: n - n_bad], bad[:n_bad]])
