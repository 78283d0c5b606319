"""``python -m sklearn_nftk``: compare NFT-K with SVMs, or explain its decisions, on data given."""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from ..inspection import LayerWeightsDisplay
from ..utils._progress import progress
from ._compare import candidates, compare
from ._data import BUILT_IN, DataError, load, parse_network
from ._report import report

DEFAULT_FIGURE = "layer_weights.png"
DEFAULT_PAGE = "report.html"


def parser():
    """Build the argument parser."""
    made = argparse.ArgumentParser(
        prog="python -m sklearn_nftk",
        description="Layer-resolved neural tangent kernels. Without a command: compare.",
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--data",
        default="digits",
        metavar="NAME|FILE.csv",
        help=f"{', '.join(BUILT_IN)}, or a CSV file with a header (default: digits)",
    )
    shared.add_argument("--target", metavar="COLUMN", help="column of the CSV file to predict")
    shared.add_argument(
        "--network",
        metavar="SIZES|MODULE:NAME",
        help="hidden layer sizes such as 512,512, or an importable torch module or function "
        "(default: 512,512)",
    )
    shared.add_argument("--random-state", type=int, default=0, metavar="SEED", help="default: 0")
    commands = made.add_subparsers(dest="command", metavar="{compare,explain}")
    comparing = commands.add_parser(
        "compare",
        parents=[shared],
        help="accuracy and fit times beside SVMs",
        description="Cross-validated accuracy and fit times of NFT-K, SVC and a grid-searched SVC "
        "on the same folds; then the weights that NFT-K learned for each class and layer.",
    )
    comparing.add_argument("--cv", type=int, default=5, metavar="FOLDS", help="default: 5")
    comparing.add_argument(
        "--figure",
        type=Path,
        metavar="FILE.png",
        help=f"where to draw the weights (default: {DEFAULT_FIGURE}, if matplotlib is installed)",
    )
    comparing.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers here")
    comparing.set_defaults(run=run_compare)
    explaining = commands.add_parser(
        "explain",
        parents=[shared],
        help="a page that takes decisions apart",
        description="Fits NFT-K on three quarters of the data and writes an HTML page about what "
        "its layers and training examples contributed to decisions on the rest: half of them "
        "wrong ones, where there are so many.",
    )
    explaining.add_argument(
        "--out",
        type=Path,
        default=Path(DEFAULT_PAGE),
        metavar="FILE.html",
        help=f"default: {DEFAULT_PAGE}",
    )
    explaining.add_argument(
        "--samples", type=int, default=4, metavar="N", help="how many decisions (default: 4)"
    )
    explaining.add_argument(
        "--resamples",
        type=int,
        default=50,
        metavar="N",
        help="bootstrap resamples for the intervals of the weights, 0 for none (default: 50)",
    )
    explaining.set_defaults(run=run_explain)
    return made


def main(arguments=None):
    """Run the command; return the exit status, 2 for what the user can mend."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] not in ("compare", "explain", "-h", "--help"):
        arguments.insert(0, "compare")
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (DataError, ValueError, OSError) as error:
        print(f"python -m sklearn_nftk: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def run_explain(options):
    """Fit, choose decisions and write the page about them."""
    check_folder(options.out)
    for package in ("matplotlib", "pandas"):
        if find_spec(package) is None:
            raise DataError(f"explain needs {package}: pip install {package}")
    import matplotlib

    matplotlib.use("Agg")  # a file is wanted, not windows
    dataset = load(options.data, options.target)
    with progress(4, "explaining", terminal_only=True) as bar:
        found = report(
            dataset,
            parse_network(options.network),
            options.out,
            n_samples=options.samples,
            n_resamples=options.resamples,
            random_state=options.random_state,
            advance=bar.update,
        )
    print(
        f"{dataset.name}: accuracy {found.accuracy:.4f} on {found.n_test} samples that were not "
        f"trained on, {found.n_train} training examples"
    )
    print(f"{len(found.rows)} decisions explained in {found.path}")


def check_folder(path):
    """Say at once that a file cannot be written, not after the computation."""
    if not path.absolute().parent.is_dir():
        raise DataError(f"no such folder: {path.absolute().parent}")


def run_compare(options):
    """Compare, then fit on everything and show the weights."""
    if options.cv < 2:
        raise DataError(f"--cv must be at least 2, got {options.cv}")
    for path in (options.figure, options.json):
        if path is not None:
            check_folder(path)
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
