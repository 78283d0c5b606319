"""Time and memory of inspection: 10,000 samples against 5,000 training examples, three layers.

An estimator is fitted on random features and taken apart in fresh processes. Memory is the peak
above what the process held before (Linux), beside the bytes of the result and those of an array
of all contributions, samples x training examples x layers, which must never be held; influence
needs an inverse, training examples squared, for each machine; ablation refitted and stability
need the kernels of the training set besides. With a small working memory the factors of the
training set are computed again for each block of samples. Run:
``python benchmarks/bench_inspection.py``.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sklearn
from _common import high_water_mark, keep

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.inspection import (
    layer_ablation,
    layer_contributions,
    training_contributions,
    training_influence,
    weight_stability,
)

WAYS = {
    "decision_function": lambda model, X, y, train: model.decision_function(X),
    "layer_contributions": lambda model, X, y, train: layer_contributions(model, X),
    "training_contributions, top=10": lambda model, X, y, train: (
        training_contributions(model, X, top=10).contributions
    ),
    "training_contributions, top=10, per_layer": lambda model, X, y, train: (
        training_contributions(model, X, top=10, per_layer=True).contributions
    ),
    "training_influence, top=10": lambda model, X, y, train: (
        training_influence(model, X, top=10).influence
    ),
    "training_influence, top=10, per_layer": lambda model, X, y, train: (
        training_influence(model, X, top=10, per_layer=True).influence
    ),
    "layer_ablation": lambda model, X, y, train: layer_ablation(model, X, y).drop,
    "layer_ablation, refit": lambda model, X, y, train: (
        layer_ablation(model, X, y, refit=True, training=train).drop
    ),
    "weight_stability, 100 resamples": lambda model, X, y, train: (
        weight_stability(model, *train, n_resamples=100, random_state=0).weights
    ),
}


SMALL = 64  # MiB
IN_SMALL_MEMORY = [way for way in WAYS if "contributions" in way or "influence" in way]


def data(n, n_train):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n + n_train, 20))
    y = (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 2] > 0)
    return (X[n_train:], y[n_train:]), (X[:n_train], y[:n_train])


def measure(path, way, working_memory, n, n_train):
    """Print seconds, and MiB at the peak and of the result; for a fresh process."""
    sklearn.set_config(working_memory=int(working_memory))
    model = pickle.loads(Path(path).read_bytes())
    test, train = data(n, n_train)
    before, start = high_water_mark(), time.perf_counter()
    result = WAYS[way](model, *test, train)
    seconds = time.perf_counter() - start
    peak = high_water_mark() - before
    print(json.dumps({"seconds": seconds, "peak": peak, "result": result.nbytes / 2**20}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--train", type=int, default=5_000)
    measured = ("MODEL", "WAY", "MIB")
    parser.add_argument("--measure", nargs=3, metavar=measured, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(*options.measure, options.samples, options.train)
    _, train = data(options.samples, options.train)
    start = time.perf_counter()
    model = MultiLayerNTKClassifier(random_state=0).fit(*train)
    fit_seconds = time.perf_counter() - start
    n_decisions, n_layers = model.kernel_weights_.shape
    whole = 8 * options.samples * options.train * n_layers / 2**20
    print(f"fit {fit_seconds:.1f} s; samples x training examples x layers: {whole:.0f} MiB")
    print(f"{'':52}{'seconds':>9}{'peak MiB':>10}{'result':>8}")
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pickle"
        path.write_bytes(pickle.dumps(model))
        usual = sklearn.get_config()["working_memory"]
        for way, memory in [(w, usual) for w in WAYS] + [(w, SMALL) for w in IN_SMALL_MEMORY]:
            sizes = ["--samples", str(options.samples), "--train", str(options.train)]
            command = [sys.executable, __file__, "--measure", str(path), way, str(memory)]
            run = subprocess.run([*command, *sizes], check=True, capture_output=True, text=True)
            row = json.loads(run.stdout.splitlines()[-1])
            name = way if memory == usual else f"{way}, {memory} MiB"
            print(
                f"{name:52}{row['seconds']:9.1f}{row['peak']:10.0f}{row['result']:8.1f}",
                flush=True,
            )
            rows[name] = row
    sizes = {"samples": options.samples, "train": options.train, "decisions": n_decisions}
    keep("inspection", {**sizes, "fit_seconds": fit_seconds, "whole_mib": whole, "ways": rows})


if __name__ == "__main__":
    main()
