"""Kernel networks trained layer by layer beside a grid-searched SVM and a network by gradients.

Accuracy and time to fit of `KernelMLPClassifier` (two layers, defaults; three layers), of its
layer kernels under learned weights (`MultiLayerNTKClassifier`, cross-fitted), of ``GridSearchCV``
over an SVC and of ``MLPClassifier``: on the small UCI sets with the test parts of
Fernandez-Delgado et al. 2014, everything chosen on the training part alone; on MNIST, 4000 images
to learn from and 1000 to test on; and on iris, breast cancer and digits, halves (450 rows of
digits). Hidden alignments are those of batches in the first and the last epoch, and of test rows.

Run: ``python benchmarks/bench_kernel_networks.py --data FOLDER``, as ``README.md`` describes it.
What was measured before is read from ``results/kernel_networks.json`` and not measured again.
"""

import json
import time
import warnings

import numpy as np
from _common import RESULTS, data_parser, existing, keep, uci_sets
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.kernel_networks import KernelMLPClassifier
from sklearn_nftk.networks import KernelMLP

GRID = {"C": np.logspace(-1, 3, 5), "gamma": np.logspace(-4, 0, 5)}
WAYS = {
    "two layers": KernelMLPClassifier(),
    "three layers": KernelMLPClassifier((15, 15)),
    "layer kernels": MultiLayerNTKClassifier(KernelMLP((15, 15)), cv=4),
    "SVC grid": GridSearchCV(SVC(), GRID, cv=5),
    "MLPClassifier": MLPClassifier(max_iter=500),
}
# Fewer candidates and folds: each SVM takes seconds.
IMAGE_GRID = {"C": [1, 10, 100], "gamma": [0.0005, 0.001, 0.002]}
IMAGE_WAYS = {
    "two layers": KernelMLPClassifier((100,), epochs=60),
    "two layers, 1000 centers": KernelMLPClassifier((100,), centers=1000, epochs=60),
    "the same, sigmas by grid": GridSearchCV(
        KernelMLPClassifier((100,), centers=1000, epochs=60),
        {"sigmas": [[8.0, 1.0], [16.0, 1.0], [32.0, 1.0]]},
        cv=3,
    ),
    "three layers": KernelMLPClassifier((100, 100), epochs=60),
    "SVC grid": GridSearchCV(SVC(), IMAGE_GRID, cv=3),
    "MLPClassifier": MLPClassifier((100,)),
}
BUNDLED = {
    "iris": (load_iris, 75),
    "breast cancer": (load_breast_cancer, 284),
    "digits": (load_digits, 450),
}
SEEDS = 3


def measured(model, X, y, new, true, seed):
    """Accuracy in percent, seconds to fit, and what else the model tells."""
    model = clone(model)
    for name in ("random_state", "estimator__random_state"):
        if name in model.get_params():
            model.set_params(**{name: seed})
    start = time.perf_counter()
    model.fit(X, y)
    figures = {
        "seconds": time.perf_counter() - start,
        "accuracy": 100 * float(model.score(new, true)),
    }
    if hasattr(model, "best_params_"):
        figures["chosen"] = {name: np.ravel(v).tolist() for name, v in model.best_params_.items()}
    if hasattr(model, "score_hidden"):
        curves = model.alignment_curve_
        figures["alignment"] = model.score_hidden(new, true).tolist()
        figures["training_alignment"] = [[float(a[0]), float(a[-1])] for a in curves]
    if hasattr(model, "kernel_weights_"):
        figures["weights"] = model.kernel_weights_.mean(axis=0).tolist()
    return figures


def scaled(X, train, test, dtype=np.float64):
    scaler = StandardScaler().fit(X[train])
    return [scaler.transform(X[rows]).astype(dtype) for rows in (train, test)]


def tabular_tasks(folder, max_samples, parts):
    """Yield (name, part, X, y, new, true) of the UCI sets."""
    for part in range(parts):
        for name, X, y, splits in uci_sets(folder, max_samples):
            train, test = splits[part]
            if np.bincount(y[train]).max() < 5:  # no five folds of any class
                continue
            known, new = scaled(X, train, test)
            yield name, part, known, y[train], new, y[test]


def bundled_tasks():
    for name, (load, size) in BUNDLED.items():
        X, y = load(return_X_y=True)
        for seed in range(SEEDS):
            train, test = train_test_split(
                np.arange(len(y)), train_size=size, stratify=y, random_state=seed
            )
            known, new = scaled(X, train, test)
            yield name, seed, known, y[train], new, y[test]


def image_tasks(folder):
    data = np.load(existing(folder / "images" / "mnist_5k.npz"))
    X, y = data["X"].reshape(len(data["y"]), -1).astype(np.float32), data["y"]
    for seed in range(SEEDS):
        train, test = train_test_split(
            np.arange(len(y)), test_size=1000, stratify=y, random_state=seed
        )
        mean, deviation = X[train].mean(), X[train].std()
        known, new = ((X[rows] - mean) / deviation for rows in (train, test))
        yield "MNIST", seed, known, y[train], new, y[test]


def summary(results):
    """Means over parts, and over sets: {group: {set or "mean": {way: {figure: value}}}}."""
    table = {}
    for group, sets in results.items():
        rows = table[group] = {}
        for name, runs in sets.items():
            rows[name] = {
                way: {
                    figure: float(np.mean([run[way][figure] for run in runs.values()]))
                    for figure in ("accuracy", "seconds")
                }
                for way in next(iter(runs.values()))
                if all(way in run for run in runs.values())
            }
        ways = [
            way for way in next(iter(rows.values())) if all(way in row for row in rows.values())
        ]
        rows["mean"] = {
            way: {
                figure: float(np.mean([row[way][figure] for row in rows.values()]))
                for figure in ("accuracy", "seconds")
            }
            for way in ways
        }
    return table


def main():
    parser = data_parser(__doc__.splitlines()[0])
    parser.add_argument("--max-samples", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=4, choices=range(1, 5))
    parser.add_argument(
        "--groups", nargs="+", default=["bundled", "images", "uci"],
        choices=["bundled", "images", "uci"],
    )  # fmt: skip
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # rare classes, constant columns, steps of MLPClassifier
    groups = {
        "bundled": (bundled_tasks, WAYS),
        "images": (lambda: image_tasks(options.data), IMAGE_WAYS),
        "uci": (lambda: tabular_tasks(options.data, options.max_samples, options.parts), WAYS),
    }
    path = RESULTS / "kernel_networks.json"
    results = json.loads(path.read_text())["results"] if path.is_file() else {}
    for group in options.groups:
        tasks, ways = groups[group]
        for name, part, *data in tasks():
            known = results.setdefault(group, {}).setdefault(name, {}).setdefault(str(part), {})
            if known.keys() >= ways.keys():
                continue
            for way, model in ways.items():
                if way not in known:
                    known[way] = measured(model, *data, seed=part)
            shown = " ".join(
                f"{of['accuracy']:6.2f} ({of['seconds']:.1f} s)" for of in known.values()
            )
            print(f"{name:30s} {part} {shown}", flush=True)
            keep("kernel_networks", {"means": summary(results), "results": results})
    for group, rows in summary(results).items():
        print(f"\n{group}, {len(rows) - 1} set(s): accuracy in percent (seconds to fit)")
        for name in rows if group != "uci" else ["mean"]:
            for way, figures in rows[name].items():
                print(f"{name:16s} {way:26s}{figures['accuracy']:8.2f} ({figures['seconds']:.2f})")


if __name__ == "__main__":
    main()
