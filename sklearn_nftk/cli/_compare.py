"""``python -m sklearn_nftk compare``: NFT-K beside SVMs on one data set, same folds."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from ..estimators import MultiLayerNTKClassifier
from ..inspection import LayerWeightsDisplay
from ..utils._progress import progress
from ._data import UsageError, check_folder, load, parse_network

DEFAULT_FIGURE = "layer_weights.png"
# 5 x 5, the usual decades around the defaults for standardised features.
GRID = {"C": np.logspace(-1, 3, 5), "gamma": np.logspace(-4, 0, 5)}


def run_compare(options):
    """Compare, then fit on everything and show the weights."""
    if options.cv < 2:
        raise UsageError(f"--cv must be at least 2, got {options.cv}")
    for path in (options.figure, options.json):
        if path is not None:
            check_folder(path)
    if options.figure is not None and find_spec("matplotlib") is None:
        raise UsageError("--figure needs matplotlib: pip install matplotlib")
    dataset = load(options.data, options.target)
    classifiers = candidates(parse_network(options.network), options.random_state)
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

        results = compare(
            dataset, classifiers, cv=options.cv, random_state=options.random_state, advance=advance
        )
        final = make_pipeline(clone(dataset.preparation), classifiers["NFT-K"])
        final.fit(dataset.X, dataset.y)
        bar.update()
    print_results(results)
    display = LayerWeightsDisplay.from_estimator(final)
    print_weights(display)
    if options.json:
        write_json(options.json, dataset, options, results, display)
        print(f"\nnumbers written to {options.json}")
    draw(display, options.figure)


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


def print_weights(display):
    """Print the learned weights, one line for each class."""
    names = display.layer_names
    width = max(10, *(len(name) + 1 for name in names))
    first = max(len("class"), *(len(name) for name in display.decision_names))
    print(f"\nlayer weights learned on all samples (normalize={display.normalize}):")
    print("class".ljust(first) + "".join(name.rjust(width) for name in names))
    for name, row in zip(display.decision_names, display.weights, strict=True):
        print(name.ljust(first) + "".join(f"{weight:.3f}".rjust(width) for weight in row))
    if np.allclose(display.weights, 1 / len(names)):
        print("(uniform: leave-one-out gave no reason to prefer a layer)")


def write_json(path, dataset, options, results, display):
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
                "weights": {
                    "normalize": display.normalize,
                    "layers": display.layer_names,
                    "classes": display.decision_names,
                    "values": display.weights.tolist(),
                },
            },
            indent=1,
        )
        + "\n"
    )


def draw(display, path):
    """Draw the weights, where matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        return
    path = path or Path(DEFAULT_FIGURE)
    matplotlib.use("Agg")  # a file is wanted, not a window
    display.plot().figure_.savefig(path, dpi=150)
    print(f"\npicture written to {path}")
