"""Kernels of trained networks: what weights and cross-fitting give at 0, 1, 3 and 10 epochs.

A small convolutional network on 2000 training images, several seeds (of the training images, the
networks and the folds). Beside the network itself, trained on all of them: the plain neural
tangent kernel, uniform and learned weights, and the last layer's kernel alone, all cross-fitted
with ``cv=4``. What out-of-fold scores claim; what leave-one-out claims with ``cv=None``, and what
that gives; and how well the machine stands for its networks.

Run: ``python benchmarks/bench_trained.py --data FOLDER``, as ``README.md`` describes it. What was
measured before is read from ``results/trained.json`` and not measured again.
"""

import json
import time
from dataclasses import replace

import numpy as np
import torch
from _common import RESULTS, data_parser, existing, keep
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.estimators import _multi_layer, kernel_blocks
from sklearn_nftk.inspection import network_fidelity
from sklearn_nftk.learner import learn

SETS = {
    "MNIST": "mnist_5k.npz",
    "Fashion-MNIST": "fashion_mnist_5k2k.npz",
    "PneumoniaMNIST": "pneumonia_mnist.npz",
}
N_TRAIN, N_TEST, N_COMPARED = 2000, 2000, 500
WEIGHTS = {"plain NTK": "sum", "uniform": "uniform", "learned": "alignment"}


class SmallCNN(nn.Sequential):
    """Two convolutions, a hidden layer and the read-out."""

    def __init__(self, n_outputs):
        super().__init__(
            nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 49, 64), nn.ReLU(), nn.Linear(64, n_outputs),
        )  # fmt: skip


def net(n_classes, epochs):
    return NeuralNetClassifier(
        SmallCNN,
        module__n_outputs=n_classes,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=32,
        max_epochs=epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


def drawn(data, seed):
    """Training and test images of one seed; the official parts where there are some."""
    rng = np.random.default_rng(seed)
    X, y = data["X"][:, None], data["y"]
    X = X / np.abs(X).max()
    train = rng.permutation(data["train"] if "train" in data else len(y))
    test = data["test"] if "test" in data else train[N_TRAIN:]
    train, test = train[:N_TRAIN], test[:N_TEST]
    X = (X - X[train].mean()) / X[train].std()
    return [array.astype(np.float32) for array in (X[train], X[test])], y[train], y[test]


def fitted(X, y, network, **parameters):
    """A classifier, and the problem that its fit solved, for other weights on the same kernels."""
    problems, original = [], _multi_layer.learn

    def remembering(problem, report):
        problems.append(problem)
        return original(problem, report)

    _multi_layer.learn = remembering
    try:
        return MultiLayerNTKClassifier(network, **parameters).fit(X, y), problems[0]
    finally:
        _multi_layer.learn = original


def measured(data, epochs, seed):
    """Accuracies in percent of all ways, and what is known of the learned one."""
    (X, new), y, true = drawn(data, seed)
    network = net(int(y.max()) + 1, epochs)
    start = time.perf_counter()
    model, problem = fitted(X, y, network, cv=4, random_state=seed)
    seconds = time.perf_counter() - start
    single, _ = fitted(X, y, network, kernel_weights="uniform", random_state=seed)
    weights = {**WEIGHTS, "last layer": np.eye(len(model.layer_names_))[-1]}
    machines = {
        way: learn(problem._with(options=replace(problem.options, kernel_weights=w)))
        for way, w in weights.items()
    }
    decisions = {way: [] for way in machines}
    for _, block in kernel_blocks(model, new):
        for way, machine in machines.items():
            decisions[way].append(machine.contributions(block).sum(axis=2) + machine.intercept)
    figures = {"network": _accuracy(single.kernel_source_.network_outputs(new), true)}
    figures |= {way: _accuracy(np.concatenate(parts), true) for way, parts in decisions.items()}
    figures["claimed"] = _accuracy(model.oof_scores_, y)
    figures["cv=None"] = 100 * float(single.score(new, true))
    figures["claimed, cv=None"] = _accuracy(single.loo_scores_, y)
    fidelity = network_fidelity(model, new[:N_COMPARED])
    return {
        **figures,
        "kendall_tau": float(fidelity.kendall_tau),
        "agreement": 100 * float(fidelity.agreement),
        "weights": model.kernel_weights_.mean(axis=0).tolist(),
        "C": model.C_,
        "seconds": seconds,
    }


def _accuracy(scores, true):
    scores = np.column_stack([-scores, scores]) if scores.shape[1] == 1 else scores
    return 100 * float((scores.argmax(axis=1) == true).mean())


def summary(results):
    """Mean and standard error over the seeds: {set: {epochs: {figure: [mean, error]}}}."""
    table = {}
    for name, by_epochs in results.items():
        for epochs, by_seed in by_epochs.items():
            runs = list(by_seed.values())
            table.setdefault(name, {})[epochs] = {
                figure: [
                    float(np.mean([run[figure] for run in runs])),
                    float(np.std([run[figure] for run in runs], ddof=1) / np.sqrt(len(runs)))
                    if len(runs) > 1
                    else None,
                ]
                for figure in runs[0]
                if figure not in ("weights", "seconds", "C")
            }
    return table


def main():
    parser = data_parser(__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 1, 3, 10])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    path = RESULTS / "trained.json"
    results = json.loads(path.read_text())["results"] if path.is_file() else {}
    for seed in range(options.seeds):
        for name in options.sets:
            data = dict(np.load(existing(options.data / "images" / SETS[name])))
            for epochs in options.epochs:
                known = results.setdefault(name, {}).setdefault(str(epochs), {})
                if str(seed) in known:
                    continue
                known[str(seed)] = measured(data, epochs, seed)
                cells = {k: np.round(v, 2) for k, v in known[str(seed)].items()}
                print(f"{name}, {epochs} epochs, seed {seed}:", cells, flush=True)
                keep("trained", {"means": summary(results), "results": results})
    for name, by_epochs in summary(results).items():
        for epochs, row in by_epochs.items():
            shown = " | ".join(
                f"{way} {mean:.2f} +- {se or 0:.2f}" for way, (mean, se) in row.items()
            )
            print(f"{name:15s} {epochs:>2} epochs | {shown}")


if __name__ == "__main__":
    main()
