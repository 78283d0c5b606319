"""Evidence that finds a planted layer: weights, ablation, Shapley values, alignment.

The layer kernels of a network on scikit-learn's digits are taken as they are; then targets are
drawn from a Gaussian process whose covariance is the kernel of one layer alone, centred and of
variance 1, plus noise. Evidence finds the layer where its largest value, and no other, is that of
the layer planted: the weight, the drop of the held-out score without the layer (coefficients kept
or refitted), the Shapley value of the layer (refitted from all subsets), the score of the layer
alone, and the centred alignment of its kernel with the targets. Each layer of each network is
planted in turn.

Run: ``python benchmarks/bench_planted.py``.
"""

import argparse
import os
import warnings

import numpy as np
import torch
from _common import keep
from joblib import Parallel, delayed
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_nftk import MultipleKernelClassifier, MultipleKernelRegressor
from sklearn_nftk.inspection import kernel_similarity, layer_ablation, layer_values
from sklearn_nftk.kernels import layer_kernels, layer_names
from sklearn_nftk.networks import MLP

METHODS = {
    "alignment, shrinkage=0": {"shrinkage": 0.0},
    "alignment (the default)": {},
    "margin": {"kernel_weights": "margin"},
    "lp, p=1.2": {"kernel_weights": "lp", "p": 1.2},
    "lp, p=2": {"kernel_weights": "lp"},
    "uniform": {"kernel_weights": "uniform"},
    "sum": {"kernel_weights": "sum"},
}
TASKS = {
    "regression": (MultipleKernelRegressor, {}),
    "two classes, squared": (MultipleKernelClassifier, {}),
    "two classes, hinge": (MultipleKernelClassifier, {"loss": "hinge"}),
}
ANY = "whatever the weights"
NOISE = 0.1  # variance, beside a signal of variance 1
N_TRAIN = N_TEST = 400


class Branches(nn.Module):
    """The sum of three networks, each of which sees a part of the features of its own."""

    def __init__(self, n_features):
        super().__init__()
        self.parts = torch.arange(n_features).tensor_split(3)
        self.upper, self.middle, self.lower = (
            nn.Sequential(nn.Linear(len(part), 256), nn.ReLU(), nn.Linear(256, 1))
            for part in self.parts
        )

    def forward(self, X):
        branches = (self.upper, self.middle, self.lower)
        return sum(branch(X[:, part]) for branch, part in zip(branches, self.parts, strict=True))


def trained(network, X, y, steps=150):
    """Train a network in place."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(torch.tensor(X)), torch.tensor(y)).backward()
        optimizer.step()
    return network


def networks():
    """Yield (name, kernels of the layers on the same digits for all, names of the layers)."""
    X, y = load_digits(return_X_y=True)
    Z = StandardScaler().fit_transform(X)
    used, others = slice(0, N_TRAIN + N_TEST), slice(N_TRAIN + N_TEST, None)
    images = X[used].reshape(-1, 1, 8, 8) / 16
    torch.manual_seed(0)
    branches = Branches(64).double()
    wide, steep = MLP(), MLP(activation="tanh", weight_variance=(20.0, 20.0, 2.0))
    deep = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
        nn.Linear(64, 10),
    ).double()  # fmt: skip
    convolutional = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    ).double()  # fmt: skip
    for name, network, inputs, layers in [
        ("three branches, random", branches, Z[used], "block"),
        ("steep tanh MLP, random", steep.build(64, 1, random_state=0), Z[used], "module"),
        ("MLP, trained", trained(deep, Z[others], y[others]), Z[used], "module"),
        ("CNN, random", convolutional, images, "module"),
        ("MLP(), random", wide.build(64, 1, random_state=0), Z[used], "module"),
    ]:
        stack = layer_kernels(network, inputs, layers=layers, dtype="float64", device="cpu")
        yield name, stack, layer_names(network, layers=layers)


def gaussian_process(kernel, seeds):
    """Draws from the centred kernel, scaled to variance 1, with noise: (seeds, n)."""
    centred = kernel - kernel.mean(axis=0) - kernel.mean(axis=1)[:, None] + kernel.mean()
    values, vectors = np.linalg.eigh(centred / np.trace(centred) * len(centred))
    root = vectors * np.sqrt(values.clip(min=0))
    for seed in range(seeds):
        random_state = np.random.default_rng(seed)
        signal = root @ random_state.normal(size=len(kernel))
        yield signal + np.sqrt(NOISE) * random_state.normal(size=len(kernel))


def finds(values, planted):
    """True where the largest value is that of the planted layer, and no other."""
    values = np.asarray(values)
    return bool((values[planted] > np.delete(values, planted)).all())


def trial(stack, targets, planted):
    """Evidence that finds the planted layer: {task: {method: {evidence: bool}}}."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    train, test = np.arange(N_TRAIN), np.arange(N_TRAIN, N_TRAIN + N_TEST)
    known, new = stack[np.ix_(train, train)], stack[np.ix_(test, train)]
    results = {}
    for task, (estimator, fixed) in TASKS.items():
        y = targets if estimator is MultipleKernelRegressor else np.sign(targets)
        results[task] = {}
        for method, parameters in METHODS.items():
            model = estimator(**fixed, **parameters).fit(known, y[train])
            kept = layer_ablation(model, new, y[test])
            again = layer_ablation(model, new, y[test], refit=True, training=(known, y[train]))
            values = layer_values(model, new, y[test], training=(known, y[train]), n_resamples=1)
            weight, drop = finds(model.kernel_weights_[0], planted), finds(kept.drop, planted)
            results[task][method] = {
                "weight": weight,
                "drop": drop,
                "weight and drop": weight and drop,
                "drop, refitted": finds(again.drop, planted),
                "Shapley value": finds(values.values, planted),
            }
        # These two know nothing of weights, so the last of the models will do.
        results[task][ANY] = {
            "alone": finds(again.alone, planted),
            "target alignment": finds(kernel_similarity(model).targets[0], planted),
        }
    return results


def count(trials_of_layers):
    """Successful trials: {task: {method: {evidence: [count for each layer]}}}."""
    return {
        task: {
            method: {
                name: [
                    sum(one[task][method][name] for one in trials) for trials in trials_of_layers
                ]
                for name in evidence
            }
            for method, evidence in methods.items()
        }
        for task, methods in trials_of_layers[0][0].items()
    }


def mean_alignment(stack):
    """Centred alignment of the layers with each other, without those with themselves."""
    y = np.arange(len(stack)) % 2
    between = kernel_similarity(MultipleKernelClassifier().fit(stack, y)).layers
    return between, float(between[~np.eye(len(between), dtype=bool)].mean())


def show(name, row, seeds):
    print(f"\n{name}: layers {row['layers']}, mean alignment {row['mean_alignment']:.2f}")
    for task, methods in row["found"].items():
        print(f"  {task}: times found of {seeds}, for each layer planted")
        for method, evidence in methods.items():
            cells = (f"{key} " + "/".join(map(str, counts)) for key, counts in evidence.items())
            print(f"    {method:24s}" + "".join(f"{cell:30s}" for cell in cells), flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=20)
    options.add_argument("--n-jobs", type=int, default=os.cpu_count())
    arguments = options.parse_args()
    results = {}
    with Parallel(n_jobs=arguments.n_jobs) as parallel:
        for name, stack, names in networks():
            between, mean = mean_alignment(stack)
            row = results[name] = {
                "layers": names,
                "alignment": between.round(3).tolist(),
                "mean_alignment": mean,
            }
            trials = [
                parallel(
                    delayed(trial)(stack, targets, planted)
                    for targets in gaussian_process(stack[..., planted], arguments.seeds)
                )
                for planted in range(len(names))
            ]
            row["found"] = count(trials)
            show(name, row, arguments.seeds)
    keep(
        "planted",
        {"seeds": arguments.seeds, "n_train": N_TRAIN, "noise": NOISE, "networks": results},
    )


if __name__ == "__main__":
    main()
