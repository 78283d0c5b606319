"""The tangent kernel during training, by layers: velocities, barriers, kernels of checkpoints.

After Fort et al. (NeurIPS 2020), on a small scale, several seeds each (of the rows, the networks
and the batches):

- motion: kernel distance and velocity of each layer after each epoch, alignment with the labels,
  and the weights that alignment alone gives the layers;
- barriers: between two networks of independent origins, and between two children of one parent,
  by the epoch at which they were spawned, on test rows, beside the distances of their kernels,
  functions and patterns;
- onsets: test errors of the kernel machine on the tangent kernel after some epochs (plain: the sum
  of the layers; learned weights), of the linear model trained from there for the epochs that are
  left, with the same loss and steps, and of the network there;
- cost: what records of 500 probes add to the training of two convolutional networks.

Run: ``python benchmarks/bench_dynamics.py --data FOLDER``, as ``README.md`` describes it; without
--data on the digits alone. What was measured before is read from ``results/dynamics.json`` and not
measured again.
"""

import argparse
import copy
import itertools
import json
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _common import RESULTS, existing, keep
from scipy.stats import t as student
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_nftk import MultipleKernelClassifier
from sklearn_nftk.dynamics import (
    KernelTrajectory,
    LinearizedClassifier,
    error_barrier,
    function_distance,
    kernel_distance,
    relu_distance,
    spawn_children,
)
from sklearn_nftk.kernels import layer_kernels

N_PROBES = 300


def mlp(widths):
    sizes = [64, *widths]
    hidden = [
        part for a, b in zip(sizes, widths, strict=False) for part in (nn.Linear(a, b), nn.ReLU())
    ]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], 10))


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def larger_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


class Setting(NamedTuple):
    """One training, which the studies look at: SGD without momentum, batches of 32."""

    network: object
    n_train: int
    n_test: int
    lr: float
    epochs: int
    onsets: tuple
    studies: tuple = ("motion", "barriers", "onsets")
    data: str = "digits"
    standardised: bool = True


WIDE = (128, 128, 128)
ONSETS, FEWER = (0, 1, 2, 5, 10, 20), (0, 1, 3, 20)
SETTINGS = {
    "digits": Setting(lambda: mlp(WIDE), 1000, 797, 0.2, 30, ONSETS, ("motion", "barriers")),
    "digits / 16": Setting(
        lambda: mlp(WIDE), 1000, 797, 0.2, 30, ONSETS, ("motion",), standardised=False
    ),
    "digits, 300 rows": Setting(
        lambda: mlp((64, 64, 64, 64)), 300, 800, 0.1, 60, (0, 2, 5, 10, 30, 60), ("onsets",)
    ),
    "MNIST": Setting(small_cnn, 2000, 2000, 0.1, 20, FEWER, data="mnist_5k.npz"),
    "Fashion-MNIST": Setting(small_cnn, 2000, 2000, 0.1, 20, FEWER, data="fashion_mnist_5k2k.npz"),
}


def drawn(setting, folder, seed):
    """Training rows, test rows and their labels of one seed."""
    rng = np.random.default_rng(seed)
    if setting.data == "digits":
        X, y = load_digits(return_X_y=True)
        train = test = rng.permutation(len(y))
        X = X / 16
    else:
        data = np.load(existing(folder / "images" / setting.data))
        X, y = data["X"][:, None] / 255, data["y"]
        train = rng.permutation(data["train"] if "train" in data else len(y))
        test = rng.permutation(data["test"]) if "test" in data else train
    train, test = train[: setting.n_train], test[::-1][: setting.n_test]
    if setting.standardised:
        # each feature of a table; all pixels of images alike
        axes = 0 if X.ndim == 2 else None
        deviation = X[train].std(axis=axes)
        X = (X - X[train].mean(axis=axes)) / np.where(deviation > 0, deviation, 1)
    X = X.astype(np.float32)
    return X[train], y[train], X[test], y[test]


def net(setting, seed, epochs, callbacks=()):
    torch.manual_seed(seed)
    return NeuralNetClassifier(
        setting.network(),
        criterion=nn.CrossEntropyLoss,
        lr=setting.lr,
        batch_size=32,
        max_epochs=epochs,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=list(callbacks) or None,
        verbose=0,
    )


def at_onsets(setting, X, y, seed):
    """Yield (epoch, the net trained so far) for each onset of one training."""
    network, done = net(setting, seed, 0).initialize(), 0
    for onset in setting.onsets:
        network.set_params(max_epochs=onset - done)
        network.partial_fit(X, y)
        done = onset
        yield onset, network


# -- the studies ------------------------------------------------------------------------------


def motion(setting, X, y, new, true, seed):
    """Measurements after each epoch: {layer: {quantity: [value of each epoch]}}."""
    probes = slice(0, N_PROBES)
    trajectory = KernelTrajectory(new[probes], true[probes], every=1.0, store="products")
    network = net(setting, seed, setting.epochs, [trajectory]).fit(X, y)
    frame = trajectory.frame().drop(columns="epoch").groupby("layer", sort=False)
    measured = {
        layer: {
            name: [float(f"{value:.6g}") for value in rows[name]]
            for name in rows.columns.drop("layer")
        }
        for layer, rows in frame
    }
    return {"layers": measured, "error": 1 - float(network.score(new, true))}


def between(a, b, new, true):
    """How far two trained nets are from each other."""
    probes = new[:N_PROBES]
    kernels = [layer_kernels(model.module_, probes).sum(axis=2) for model in (a, b)]
    return {
        "error barrier": error_barrier(a, b, new, true),
        "loss barrier": error_barrier(a, b, new, true, metric="loss"),
        "kernel distance": kernel_distance(*kernels),
        "disagreement": function_distance(a, b, new).disagreement,
        "ReLU distance": relu_distance(a, b, probes),
    }


def barriers(setting, X, y, new, true, seed):
    """Distances between networks of independent origins, and of children by their onset."""
    ends = [net(setting, 1000 * origin + seed, setting.epochs).fit(X, y) for origin in (1, 2)]
    results = {"independent": between(*ends, new, true)}
    for onset, parent in at_onsets(setting, X, y, seed):
        if onset < setting.epochs:
            left = setting.epochs - onset
            children = spawn_children(parent, X, y, epochs=left, random_state=seed)
            results[str(onset)] = between(*children, new, true)
    return results


MACHINES = {
    "plain NTK": {"kernel_weights": "sum"},
    "uniform weights": {"kernel_weights": "uniform"},
    "learned weights": {"shrinkage": 0.0},
}


def onsets(setting, X, y, new, true, seed):
    """Test errors by the epoch at which the network is taken."""
    results = {}
    for onset, network in at_onsets(setting, X, y, seed):
        frozen = copy.deepcopy(network.module_)
        errors = {"network there": 1 - float(network.score(new, true))}
        known, unknown = (layer_kernels(frozen, *rows) for rows in ((X,), (new, X)))
        for way, options in MACHINES.items():
            machine = MultipleKernelClassifier(**options).fit(known, y)
            errors[way] = 1 - machine.score(unknown, true)
        learned = machine.kernel_weights_.mean(axis=0).tolist()
        linear = LinearizedClassifier(
            frozen, solver="gradient", loss="log_loss", alpha=0.0, lr=setting.lr, batch_size=32,
            max_epochs=setting.epochs - onset, random_state=seed,
        )  # fmt: skip
        try:
            errors["linear model"] = 1 - linear.fit(X, y).score(new, true)
        except ValueError:  # steps that are too long for a model that cannot bend
            errors["linear model"] = None
        results[str(onset)] = {**errors, "weights": learned}
    return results


STUDIES = {"motion": motion, "barriers": barriers, "onsets": onsets}


CNNS = {"8-16 channels": small_cnn, "32-64 channels": larger_cnn}


def cost(folder, epochs=10, names=CNNS, n_records=20, n_train=4000, n_probes=500):
    """Seconds of a training without records, and of 20 records in it."""
    data = np.load(existing(folder / "images" / "mnist_5k.npz"))
    rows = np.random.default_rng(0).permutation(len(data["y"]))
    X, y = (data["X"][rows, None] / 255).astype(np.float32), data["y"][rows]
    probes = slice(n_train, n_train + n_probes)
    results = {}
    for name in names:
        setting = SETTINGS["MNIST"]._replace(network=CNNS[name], lr=0.05)
        start = time.perf_counter()
        net(setting, 0, epochs).fit(X[:n_train], y[:n_train])
        training = time.perf_counter() - start
        key = f"{name}, {epochs} epochs"
        results[key] = {"training": training, "images": epochs * n_train}
        for outputs in ("mean", "sum"):
            trajectory = KernelTrajectory(
                X[probes], y[probes], every=epochs / (n_records - 1), store="products",
                outputs=outputs,
            )  # fmt: skip
            start = time.perf_counter()
            net(setting, 0, epochs, [trajectory]).fit(X[:n_train], y[:n_train])
            assert len(trajectory.epochs_) == n_records
            added = time.perf_counter() - start - training
            results[key][outputs] = {
                "added": added,
                "share": added / training,
                "images for a share of 0.2": added / 0.2 / training * epochs * n_train,
            }
    return results


# -- summaries --------------------------------------------------------------------------------


def interval(values):
    """Mean and half the width of the 95 % interval over the seeds; None without any."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return [mean, None]
    return [mean, float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))]


def over_seeds(runs):
    """Intervals of nested results: dictionaries of dictionaries and at last of numbers."""
    first = runs[0]
    if isinstance(first, dict):
        return {key: over_seeds([run[key] for run in runs]) for key in first}
    if isinstance(first, list):
        return [over_seeds(values) for values in zip(*runs, strict=True)]
    return interval(runs)


def collapse(measured):
    """Of each layer: how its velocity falls to that of the last epoch, and shares of its way."""
    facts = {}
    for layer, values in measured["layers"].items():
        velocity, distance = values["kernel_velocity"], np.array(values["kernel_distance"])
        facts[layer] = {
            "velocity at epoch 1 over last": velocity[1] / velocity[-1],
            "largest of epochs 1-3 over last": max(velocity[1:4]) / velocity[-1],
            "largest velocity at epoch": int(np.nanargmax(velocity)),
            "distance at the end": float(distance[-1]),
            "share of it after 1 epoch": float(distance[1] / distance[-1]),
            "share of it after 3 epochs": float(distance[3] / distance[-1]),
            "weight at first": values["weight"][0],
            "weight after 3 epochs": values["weight"][3],
            "weight at the end": values["weight"][-1],
        }
    return facts


def summary(results):
    table = {}
    for name, studies in results.items():
        for study, by_seed in studies.items():
            runs = list(by_seed.values())
            if not runs:
                continue
            if study == "motion":
                runs = [{"collapse": collapse(run), "error": run["error"]} for run in runs]
            table.setdefault(name, {})[study] = over_seeds(runs)
    return table


def shown(cell):
    if cell is None:
        return "      -"
    mean, half = cell
    if mean != mean:
        return "      -"
    return f"{mean:.4g}" if half is None else f"{mean:.4g} +- {half:.2g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="as in benchmarks/README.md")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--sets", nargs="+", choices=SETTINGS)
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--cost", action="store_true", help="measure the time of records alone")
    parser.add_argument("--epochs", type=int, default=10, help="of 4000 images, for --cost")
    parser.add_argument("--networks", nargs="+", choices=CNNS, default=list(CNNS))
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    path = RESULTS / "dynamics.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    results = known.get("results", {})
    costs = known.get("cost") or {}
    if options.cost:
        costs |= cost(options.data, options.epochs, options.networks)
        keep("dynamics", {"means": summary(results), "cost": costs, "results": results})
    names = options.sets or [
        name for name, setting in SETTINGS.items() if options.data or setting.data == "digits"
    ]
    runs = itertools.product(options.studies, range(0 if options.cost else options.seeds), names)
    for study, seed, name in runs:
        setting = SETTINGS[name]
        by_seed = results.setdefault(name, {}).setdefault(study, {})
        if study not in setting.studies or str(seed) in by_seed:
            continue
        start = time.perf_counter()
        by_seed[str(seed)] = STUDIES[study](setting, *drawn(setting, options.data, seed), seed)
        print(f"{name}, {study}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
        keep("dynamics", {"means": summary(results), "cost": costs, "results": results})
    for name, studies in summary(results).items():
        for study, table in studies.items():
            print(f"\n{name}: {study}")
            rows = table["collapse"] if study == "motion" else table
            for row, cells in rows.items():
                print(f"  {row:12s}", " | ".join(
                    f"{key} {shown(cell)}" for key, cell in cells.items() if key != "weights"
                ))  # fmt: skip
    for name, row in costs.items():
        print(f"\ncost, {name}:", json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
