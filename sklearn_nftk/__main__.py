"""``python -m sklearn_nftk``: compare NFT-K with SVMs on built-in or the user's own data."""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from ._compare import BUILT_IN, DataError, candidates, compare, load, parse_network
from .inspection import LayerWeightsDisplay
from .utils._progress import progress

DEFAULT_FIGURE = "layer_weights.png"


def parser():
    """Build the argument parser; ``compare`` is the command when none is named."""
    made = argparse.ArgumentParser(
        prog="python -m sklearn_nftk",
        description="Cross-validated accuracy and fit times of NFT-K, SVC and a grid-searched SVC "
        "on the same folds; then the weights that NFT-K learned for each class and layer.",
    )
    made.add_argument("command", nargs="?", choices=["compare"], default="compare")
    made.add_argument(
        "--data",
        default="digits",
        metavar="NAME|FILE.csv",
        help=f"{', '.join(BUILT_IN)}, or a CSV file with a header (default: digits)",
    )
    made.add_argument("--target", metavar="COLUMN", help="column of the CSV file to predict")
    made.add_argument(
        "--network",
        metavar="SIZES|MODULE:NAME",
        help="hidden layer sizes such as 512,512, or an importable torch module or function "
        "(default: 512,512)",
    )
    made.add_argument("--cv", type=int, default=5, metavar="FOLDS", help="default: 5")
    made.add_argument("--random-state", type=int, default=0, metavar="SEED", help="default: 0")
    made.add_argument(
        "--figure",
        type=Path,
        metavar="FILE.png",
        help=f"where to draw the weights (default: {DEFAULT_FIGURE}, if matplotlib is installed)",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers here")
    return made


def main(arguments=None):
    """Run the command; return the exit status, 2 for what the user can mend."""
    options = parser().parse_args(arguments)
    try:
        run_compare(options)
    except (DataError, ValueError, OSError) as error:
        print(f"python -m sklearn_nftk: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def run_compare(options):
    """Compare, then fit on everything and show the weights."""
    if options.cv < 2:
        raise DataError(f"--cv must be at least 2, got {options.cv}")
    for path in (options.figure, options.json):
        if path is not None and not path.absolute().parent.is_dir():
            raise DataError(f"no such folder: {path.absolute().parent}")
    if options.figure is not None and find_spec("matplotlib") is None:
        raise DataError("--figure needs matplotlib: pip install matplotlib")
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


if __name__ == "__main__":
    sys.exit(main())
