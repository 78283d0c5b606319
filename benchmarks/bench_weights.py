"""Time and memory of learning kernel weights, beside MKLpy where that is installed.

MKLpy 0.6 needs an environment of its own: ``pip install MKLpy cvxopt "numpy<2"`` and this package
without its pins. Times are the best of a few rounds in which the ways take turns, shares of a fit
the medians; memory is the peak of a fresh process (Linux) above what it held before, the stack of
kernels included.

Run: ``python benchmarks/bench_weights.py``.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from _common import high_water_mark, keep
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, make_classification
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_nftk import MultiLayerNTKClassifier, MultipleKernelClassifier

METHODS = ("uniform", "alignment", "margin", "lp")
BASE = {"n": 1000, "kernels": 5, "classes": 5}
GROWTH = [{}, {"n": 2000}, {"kernels": 20}, {"classes": 20}]


def problem(n, kernels, classes):
    """RBF kernels of widths around the usual one, as contiguous planes."""
    X, y = make_classification(
        n, 30, n_informative=15, n_classes=classes, n_clusters_per_class=1, random_state=0
    )
    stack = np.empty((kernels, n, n))
    for plane, gamma in zip(stack, np.geomspace(0.001, 0.3, kernels), strict=True):
        plane[:] = rbf_kernel(X, gamma=gamma)
    return np.moveaxis(stack, 0, -1), y


def fit(method, stack, y):
    MultipleKernelClassifier(kernel_weights=method, C=10.0).fit(stack, y)


def measure_memory(method, *sizes):
    stack, y = problem(**dict(zip(BASE, map(int, sizes), strict=True)))
    fit(method, stack[:50, :50], y[:50])  # libraries load on first use
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = high_water_mark()
    fit(method, stack, y)
    print(high_water_mark() - before + stack.nbytes / 2**20)


def peak(method, sizes):
    command = [sys.executable, __file__, "--memory-of", method, *map(str, sizes.values())]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def growth(rounds):
    rows = []
    for changed in GROWTH:
        sizes = BASE | changed
        stack, y = problem(**sizes)
        best = dict.fromkeys(METHODS, np.inf)
        for _ in range(rounds):
            for method in METHODS:
                start = time.perf_counter()
                fit(method, stack, y)
                best[method] = min(best[method], time.perf_counter() - start)
        for method in METHODS:
            memory = peak(method, sizes) / (stack.nbytes / 2**20)
            rows.append({**sizes, "method": method, "seconds": best[method],
                         "over_uniform": best[method] / best["uniform"],
                         "memory_over_stack": memory})  # fmt: skip
            print("n={n:5d} L={kernels:3d} C={classes:3d} {method:10s} {seconds:7.3f} s  "
                  "{over_uniform:5.2f} x uniform   memory {memory_over_stack:4.2f} x the stack"
                  .format(**rows[-1]), flush=True)  # fmt: skip
    return rows


class Clock:
    """Callback that adds up the seconds of each task of a fit."""

    def __init__(self):
        self.seconds = {}

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        name = context.task_name
        self.seconds[name] = self.seconds.get(name, 0.0) - time.perf_counter()

    def on_fit_task_end(self, estimator, context):
        self.seconds[context.task_name] += time.perf_counter()

    def teardown(self, estimator, context):
        pass


def shares(rounds, n_rows=(2000, 4000)):
    """Shares of a default fit that go into each step: medians over the rounds."""
    tasks = ("layer kernels", "statistics", "kernel weights", "dual coefficients")
    rows = []
    for n in n_rows:
        for classes in (2, 10):
            X, y = make_classification(
                n, 64, n_informative=20, n_classes=classes, n_clusters_per_class=1, random_state=0
            )
            fits = []
            for _ in range(rounds):
                seconds = clocked(X, y)
                fit = {"fit_seconds": seconds["fit"]}
                fit |= {task: seconds[task] / seconds["fit"] for task in tasks}
                fit["statistics and weights"] = fit["statistics"] + fit["kernel weights"]
                fit["alignment alone, seconds"] = clocked(X, y, shrinkage=0.0)["kernel weights"]
                fits.append(fit)
            row = {"n": n, "classes": classes}
            row |= {name: float(np.median([fit[name] for fit in fits])) for name in fits[0]}
            print({name: round(value, 4) for name, value in row.items()}, flush=True)
            rows.append(row)
    return rows


def clocked(X, y, **parameters):
    """Seconds of each task of a fit."""
    clock = Clock()
    MultiLayerNTKClassifier(random_state=0, **parameters).set_callbacks(clock).fit(X, y)
    return clock.seconds


def probabilities():
    """Log-loss on the digits, five folds, each scaled on its own training part."""
    X, y = load_digits(return_X_y=True)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    losses = {}
    for name, model in {
        "NFT-K": MultiLayerNTKClassifier(random_state=0),
        "CalibratedClassifierCV(SVC())": CalibratedClassifierCV(SVC()),
    }.items():
        pipeline = make_pipeline(StandardScaler(), model)
        predicted = cross_val_predict(pipeline, X, y, cv=folds, method="predict_proba")
        losses[name] = log_loss(y, predicted)
        print(f"log-loss on the digits  {name:32s} {losses[name]:.4f}", flush=True)
    return losses


def beside_mklpy(rounds):
    """EasyMKL and AverageMKL on 1000 digits and ten RBF kernels."""
    import torch
    from MKLpy.algorithms import AverageMKL, EasyMKL

    X, y = load_digits(return_X_y=True)
    X = X / 16
    gammas = np.geomspace(0.01, 10, 10) / 8
    train, test = slice(0, 1000), slice(1000, None)
    planes = [rbf_kernel(X[train], gamma=gamma) for gamma in gammas]
    rows = [rbf_kernel(X[test], X[train], gamma=gamma) for gamma in gammas]
    tensors, test_tensors = [torch.tensor(K) for K in planes], [torch.tensor(K) for K in rows]
    stack, test_stack = np.moveaxis(np.array(planes), 0, -1), np.moveaxis(np.array(rows), 0, -1)
    ways = {
        "MKLpy EasyMKL": (EasyMKL, tensors, test_tensors),
        "MKLpy AverageMKL": (AverageMKL, tensors, test_tensors),
    }
    for method in METHODS:
        make = partial(MultipleKernelClassifier, kernel_weights=method)
        ways[f"ours, {method}"] = (make, stack, test_stack)
    results = {name: {"fit_seconds": np.inf} for name in ways}
    for _ in range(rounds):
        for name, (make, known, new) in ways.items():
            start = time.perf_counter()
            model = make().fit(known, y[train])
            seconds = time.perf_counter() - start
            results[name]["fit_seconds"] = min(results[name]["fit_seconds"], seconds)
            results[name]["accuracy"] = float(np.mean(model.predict(new) == y[test]))
    for name, row in results.items():
        print(f"{name:20s} {row['fit_seconds']:7.3f} s   {row['accuracy']:.4f}", flush=True)
    return results


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--memory-of", nargs=4, help=argparse.SUPPRESS)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument(
        "--only-mklpy", action="store_true", help="only the comparison with MKLpy"
    )
    arguments = options.parse_args()
    warnings.simplefilter("ignore")
    if arguments.memory_of:
        measure_memory(*arguments.memory_of)
        return
    if arguments.only_mklpy:
        keep("weights_mklpy", {"digits": beside_mklpy(arguments.rounds)})
        return
    keep(
        "weights",
        {
            "shares": shares(arguments.rounds),
            "log_loss": probabilities(),
            "growth": growth(arguments.rounds),
        },
    )


if __name__ == "__main__":
    main()
