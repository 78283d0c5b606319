"""``python -m sklearn_nftk compare``: NFT-K beside SVMs on one data set, same folds."""

import json
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from ..utils._progress import progress
from ..utils._random import global_generators
from ..utils._threads import one_torch_thread
from ._data import UsageError, check_folder, load
from ._evidence import as_json, draw, gather, print_evidence, take
from ._networks import is_trained, make_classifier, parse_network

DEFAULT_FIGURE = "layers.png"
# 5 x 5, the usual decades around the defaults for standardised features.
GRID = {"C": np.logspace(-1, 3, 5), "gamma": np.logspace(-4, 0, 5)}


def run_compare(options):
    """Compare, then show what the machine of the first fold tells about its layers."""
    if options.cv < 2:
        raise UsageError(f"--cv must be at least 2, got {options.cv}")
    for path in (options.figure, options.json):
        if path is not None:
            check_folder(path)
    if options.figure is not None and find_spec("matplotlib") is None:
        raise UsageError("--figure needs matplotlib: pip install matplotlib")
    dataset = load(options.data, options.target)
    classifiers = candidates(parse_network(options.network, dataset), options.random_state)
    n_samples, n_features = dataset.X.shape
    classes = np.unique(dataset.y)
    print(
        f"{dataset.name}: {n_samples} samples, {n_features} features, {len(classes)} classes; "
        f"{options.cv}-fold cross-validation\n"
    )
    with progress(len(classifiers) * options.cv + 1, "comparing", terminal_only=True) as bar:

        def advance(name):
            bar.set_description(name)
            bar.update()

        results, first = compare(
            dataset, classifiers, cv=options.cv, random_state=options.random_state, advance=advance
        )
        evidence = gather(first.model, dataset, first.train, first.test, options.random_state)
        bar.update()
    print_results(results)
    print_evidence(evidence)
    if options.json:
        write_json(options.json, dataset, options, results, evidence)
        print(f"\nnumbers written to {options.json}")
    if find_spec("matplotlib") is not None:
        path = options.figure or Path(DEFAULT_FIGURE)
        X, y = take(dataset.X, first.test), dataset.y[first.test]
        print(f"\npicture of the {draw(evidence, first.model, X, y, path)} written to {path}")


class FirstFold(NamedTuple):
    """The NFT-K pipeline of the first fold, and rows it was trained and tested on."""

    model: Any
    train: np.ndarray
    test: np.ndarray


def candidates(network, random_state):
    """The classifiers that are compared, by name; a network that is trained is one of them."""
    trained = is_trained(network) and hasattr(network, "fit")
    network_alone = {"network": network} if trained else {}
    return {
        "NFT-K": make_classifier(network, random_state),
        **network_alone,
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
    results : dict of str to dict
        For each classifier, lists over the folds: "accuracy" and "fit_time" in seconds.
    first : FirstFold

    Raises
    ------
    UsageError
        If a class is too small for the folds.
    """
    labels, counts = np.unique(dataset.y, return_counts=True)
    if len(labels) < 2:
        raise UsageError(f"{dataset.name}: the target has only one class, {labels[0]!r}")
    if counts.min() < cv:
        raise UsageError(
            f"{dataset.name}: class {labels[counts.argmin()]!r} has {counts.min()} sample(s), "
            f"fewer than the {cv} folds; choose a smaller --cv or merge classes"
        )
    folds = StratifiedKFold(cv, shuffle=True, random_state=random_state)
    results: dict[str, dict[str, list]] = {
        name: {"accuracy": [], "fit_time": []} for name in classifiers
    }
    first = None
    # One fold after the other, so that all classifiers meet the same state of the machine.
    for split in folds.split(dataset.X, dataset.y):
        for name, classifier in classifiers.items():
            pipeline = make_pipeline(clone(dataset.preparation), classifier)
            # As in the fit of NFT-K: networks are trained on one thread.
            alone = one_torch_thread() if name == "network" else nullcontext()
            with global_generators(random_state), alone:
                scores = cross_validate(
                    pipeline,
                    dataset.X,
                    dataset.y,
                    cv=[split],
                    error_score="raise",
                    return_estimator=True,
                )
            results[name]["accuracy"].append(float(scores["test_score"][0]))
            results[name]["fit_time"].append(float(scores["fit_time"][0]))
            if first is None and name == "NFT-K":
                first = FirstFold(scores["estimator"][0], *split)
            advance(name)
    return results, first


def print_results(results):
    """Print accuracy and fit time of each classifier, as a Markdown table."""
    baseline = np.mean(results["NFT-K"]["fit_time"])
    print("| classifier        | accuracy          | fit time | times NFT-K |")
    print("|-------------------|-------------------|---------:|------------:|")
    for name, result in results.items():
        accuracy, seconds = np.array(result["accuracy"]), np.mean(result["fit_time"])
        print(
            f"| {name:17s} | {accuracy.mean():.4f} +- {accuracy.std():.4f}  "
            f"| {seconds:6.2f} s | {seconds / baseline:11.2f} |"
        )


def write_json(path, dataset, options, results, evidence):
    """Write everything that was printed, and each fold."""
    path.write_text(
        json.dumps(
            {
                "data": dataset.name,
                "n_samples": int(dataset.X.shape[0]),
                "n_features": int(dataset.X.shape[1]),
                "cv": options.cv,
                "random_state": options.random_state,
                "results": results,
                **as_json(evidence),
            },
            indent=1,
        )
        + "\n"
    )
