"""A whole fit: the shares of its parts, beside a grid-searched SVM, and in cross-validation.

Each is measured quiet and with two busy loops of equal priority beside it. Shares are medians over
fits in one process, of seconds in which nothing else was measured; ratios are medians over rounds
in which the ways take turns.

Run: ``python benchmarks/bench_fit.py``.
"""

import time
from contextlib import contextmanager
from functools import wraps

import numpy as np
import torch
from _common import busy_loops, keep
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.estimators import _multi_layer
from sklearn_nftk.learner import _learn, _machine, _problem
from sklearn_nftk.tangents import TangentKernels
from sklearn_nftk.weights import METHODS

GRID = {"C": np.logspace(-1, 3, 5), "gamma": np.logspace(-4, 0, 5)}
# What is called once or more in a fit, and the part of the fit that it is.
PARTS = [
    (_multi_layer, "make_source", "network and its checks"),
    (TangentKernels, "prepare", "passes"),
    (_multi_layer, "layer_grams", "Grams"),
    (_learn, "normalise", "statistics"),
    (type(METHODS["alignment"]), "weights", "weights and shrinkage"),
    (_problem.Problem, "choose_C", "C"),
    (_machine, "_coded", "class codes"),
    (_learn, "solve_machine", "dual coefficients"),
]


class Shares:
    """Seconds of the parts of a fit, each without the parts that it calls."""

    def __init__(self):
        self.seconds = {}
        self._inner = [0.0]

    @contextmanager
    def of(self, part):
        start = time.perf_counter()
        self._inner.append(0.0)
        yield
        total = time.perf_counter() - start
        self.seconds[part] = self.seconds.get(part, 0.0) + total - self._inner.pop()
        self._inner[-1] += total

    def watch(self, owner, name, part):
        function = getattr(owner, name)

        @wraps(function)
        def timed(*arguments, **keywords):
            with self.of(part):
                return function(*arguments, **keywords)

        setattr(owner, name, timed)


def digits():
    X, y = load_digits(return_X_y=True)
    return None, StandardScaler().fit_transform(X), y


def mlp():
    torch.manual_seed(0)
    modules = []
    for width in (784, 1024, 1024):
        modules += [nn.Linear(width, 1024), nn.ReLU()]
    return nn.Sequential(*modules, nn.Linear(1024, 1)), *made((4000, 784))


def cnn():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 1),
    )  # fmt: skip
    return network, *made((1000, 1, 28, 28))


def made(shape):
    """Ten classes, of a linear map."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape).astype(np.float32)
    flat = X.reshape(len(X), -1)
    return X, (flat @ rng.standard_normal((flat.shape[1], 10))).argmax(axis=1)


def parts_of_fit(shares, problem, rounds=3):
    """Median seconds of each part of a fit, the first one not counted."""
    network, X, y = problem
    rows = []
    for _ in range(rounds + 1):
        shares.seconds = {}
        with shares.of("rest"):
            MultiLayerNTKClassifier(network, random_state=0, device="cpu").fit(X, y)
        rows.append(shares.seconds)
    parts = sorted({part for row in rows for part in row})
    return {part: float(np.median([row.get(part, 0.0) for row in rows[1:]])) for part in parts}


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def median_ratio(ours, other, rounds=5):
    """Median over rounds of the ratio of seconds, the first round not counted."""
    ratios = [seconds(ours) / seconds(other) for _ in range(rounds + 1)]
    return float(np.median(ratios[1:]))


def ratios():
    """Of the default fit to a grid search, and of two processes to one."""
    _, X, y = digits()
    model = MultiLayerNTKClassifier(random_state=0)
    grid = GridSearchCV(SVC(), GRID, cv=5)
    yield (
        "digits, default fit / GridSearchCV(SVC)",
        lambda: median_ratio(lambda: model.fit(X, y), lambda: grid.fit(X, y)),
    )

    def cross_validated(n_jobs):
        return lambda: cross_val_score(model, X, y, cv=5, n_jobs=n_jobs)

    yield (
        "digits, cross_val_score n_jobs=2 / n_jobs=1",
        lambda: median_ratio(cross_validated(2), cross_validated(1)),
    )


def main():
    results = {"ratios": {}, "seconds": {}}
    for n_loops in (0, 2):
        with busy_loops(n_loops):
            for name, ratio in ratios():
                name = f"{name}, {n_loops} busy loops"
                results["ratios"][name] = ratio()
                print(f"{name:64s} {results['ratios'][name]:.3f}", flush=True)
    # Watching costs nothing that could be measured, but ratios are taken without.
    shares = Shares()
    for part in PARTS:
        shares.watch(*part)
    for name, problem in {"digits": digits(), "mlp n=4000": mlp(), "cnn n=1000": cnn()}.items():
        for n_loops in (0, 2):
            with busy_loops(n_loops):
                table = parts_of_fit(shares, problem)
            total = sum(table.values())
            cells = [f"{part} {100 * value / total:.0f} %" for part, value in table.items()]
            name_of = f"{name}, {n_loops} busy loops"
            results["seconds"][name_of] = table
            print(f"{name_of:28s} {total:6.2f} s: {', '.join(cells)}", flush=True)
    keep("fit", results)


if __name__ == "__main__":
    main()
