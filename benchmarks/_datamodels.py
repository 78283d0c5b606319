"""Retrained networks: what an attribution of decisions to training examples is to predict.

The linear datamodeling score (Park et al., ICML 2023): networks are trained anew on random halves
of the training set, with several seeds each; a good attribution, summed over the examples of a
half, ranks the halves as the margins of their networks do, sample by sample.
"""

from typing import NamedTuple

import numpy as np
import torch
from _common import RESULTS, existing
from bench_trained import SmallCNN
from joblib import Parallel, delayed
from scipy.special import logsumexp
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

N_TRAIN, N_TEST = 1200, 100
N_SUBSETS, N_SEEDS = 100, 5
EPOCHS = 20
SHIFT = 6  # pixels, of "MNIST, shifted"
IMAGES = {
    "MNIST": "mnist_5k.npz",
    "MNIST, shifted": "mnist_5k.npz",
    "Fashion-MNIST": "fashion_mnist_5k2k.npz",
    "PneumoniaMNIST": "pneumonia_mnist.npz",
}
TABLES = {"statlog-image": "tabular/statlog-image.npz"}
REGRESSIONS = ["diabetes"]
SETS = [*IMAGES, *TABLES, *REGRESSIONS]


class SmallMLP(nn.Sequential):
    """Two hidden layers and the read-out."""

    def __init__(self, n_features, n_outputs):
        super().__init__(
            nn.Linear(n_features, 128), nn.ReLU(),
            nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, n_outputs),
        )  # fmt: skip


class Task(NamedTuple):
    """Training and test set, and the unfitted skorch net that is trained on them."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    net: object

    @property
    def is_classification(self):
        return self.y.dtype.kind == "i"


def task(name, folder):
    """The task of a set; data that the repository does not hold are read from a folder."""
    rng = np.random.default_rng(0)
    if name in REGRESSIONS:
        X, y = load_diabetes(return_X_y=True)
        order = rng.permutation(len(y))
        train, test = order[N_TEST:], order[:N_TEST]
        y = (y - y[train].mean()) / y[train].std()
        y = y[:, None].astype(np.float32)
    else:
        data = np.load(existing(folder / (TABLES.get(name) or f"images/{IMAGES[name]}")))
        X, y = data["X"].astype(np.float64), data["y"].astype(np.int64)
        official = name in IMAGES and "train" in data
        train = rng.permutation(data["train"] if official else len(y))
        test = rng.permutation(data["test"]) if official else train[N_TRAIN:]
        train, test = train[:N_TRAIN], test[:N_TEST]
    if name.endswith("shifted"):
        X = _shifted(X, rng)
    of_train = X[train]
    axis = None if name in IMAGES else 0
    X = (X - of_train.mean(axis)) / np.maximum(of_train.std(axis), 1e-6)
    if name in IMAGES:
        X = X[:, None]
    X = X.astype(np.float32)
    return Task(X[train], y[train], X[test], y[test], _net(name, X.shape[1], y))


def _shifted(X, rng):
    """Move each image by up to `SHIFT` pixels to each side: pixels tell little of what it is."""
    n, height, width = X.shape
    padded = np.pad(X, [(0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)])
    corners = rng.integers(0, 2 * SHIFT + 1, (n, 2))
    return np.array(
        [
            image[i : i + height, j : j + width]
            for image, (i, j) in zip(padded, corners, strict=True)
        ]
    )


def _net(name, n_features, y):
    classes = y.dtype.kind == "i"
    n_outputs = int(y.max()) + 1 if classes else 1
    kind, criterion = (
        (NeuralNetClassifier, nn.CrossEntropyLoss) if classes else (NeuralNetRegressor, nn.MSELoss)
    )
    module = {"module": SmallCNN, "module__n_outputs": n_outputs}
    if name not in IMAGES:
        module = {**module, "module": SmallMLP, "module__n_features": n_features}
    return kind(
        **module,
        criterion=criterion,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=32,
        max_epochs=EPOCHS,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


def margins(outputs, y):
    """What attributions are asked about: log-odds of the true class, or the output itself."""
    if y.dtype.kind != "i":
        return outputs[:, 0]
    own = np.arange(outputs.shape[1]) == y[:, None]
    return outputs[own] - logsumexp(np.where(own, -np.inf, outputs), axis=1)


def subsets(n):
    """Random halves of n examples, a mask (N_SUBSETS, n)."""
    rng = np.random.default_rng(1)
    return rng.permuted(np.tile(np.arange(n) < n // 2, (N_SUBSETS, 1)), axis=1)


def network_path(name):
    """Where trained networks of a set are kept; files of other endings lie beside it."""
    path = RESULTS / "attribution" / f"{name.replace(', ', '-').lower()}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def trained(name, of_task, n_networks):
    """Networks that are trained on all examples, from seeds 0, 1, ..."""
    path = network_path(name)
    if not path.is_file():
        states = []
        for seed in range(n_networks):
            torch.manual_seed(seed)
            states.append(clone(of_task.net).fit(of_task.X, of_task.y).module_.state_dict())
        torch.save(states, path)
    networks = []
    for state in torch.load(path):
        network = clone(of_task.net).initialize().module_
        network.load_state_dict(state)
        networks.append(network.eval())
    return networks


def truth(name, of_task, n_jobs=2):
    """Margins (N_SUBSETS, N_SEEDS, N_TEST) of networks that were trained on the halves.

    Kept beside the results, a file for each set that grows by ten halves at a time.
    """
    path = network_path(name).with_suffix(".npy")
    known = np.load(path) if path.is_file() else np.empty((0, N_SEEDS, len(of_task.y_test)))
    masks = subsets(len(of_task.y))
    while len(known) < N_SUBSETS:
        some = range(len(known), min(len(known) + 10, N_SUBSETS))
        runs = Parallel(n_jobs=n_jobs)(
            delayed(_retrained)(of_task, masks[i], N_SEEDS * i + seed)
            for i in some
            for seed in range(N_SEEDS)
        )
        known = np.concatenate([known, np.reshape(runs, (len(some), N_SEEDS, -1))])
        np.save(path, known)
        print(f"{name}: networks of {len(known)} halves", flush=True)
    return known


def _retrained(of_task, mask, seed):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    net = clone(of_task.net).fit(of_task.X[mask], of_task.y[mask])
    net.module_.eval()
    with torch.no_grad():
        outputs = net.module_(torch.as_tensor(of_task.X_test)).double().numpy()
    return margins(outputs, of_task.y_test)


def datamodeling_scores(attributions, known):
    """Rank correlation over the halves of each test sample, shape (N_TEST,).

    Parameters
    ----------
    attributions : ndarray of shape (N_TEST, n)
    known : ndarray of shape (N_SUBSETS, N_SEEDS, N_TEST)
        What `truth` returned.
    """
    predicted = subsets(attributions.shape[1]) @ attributions.T
    return _rank_correlations(predicted, known.mean(axis=1))


def _rank_correlations(a, b):
    """Spearman's correlation of the columns of both, 0 where one is constant."""
    a, b = (rankdata(x, axis=0) for x in (a, b))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    sizes = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), sizes, out=np.zeros(len(sizes)), where=sizes > 0)


def ceiling(known):
    """What the mean margin over all seeds of a half would score, were it predicted exactly.

    The reliability of a mean over the seeds from the variance between them (one-way analysis of
    variance), and its square root: the largest correlation with means that are noisy themselves.
    """
    within = known.var(axis=1, ddof=1).mean(axis=0) / known.shape[1]
    total = known.mean(axis=1).var(axis=0, ddof=1)
    return np.sqrt(np.clip(1 - within / np.maximum(total, 1e-300), 0, 1))


def interval(attributions, known, than=None, n_resamples=200):
    """Mean score and its half-width: a bootstrap (95 %) over test samples and over halves.

    With other attributions `than`, of the difference to their score on the same resamples.
    """
    rng = np.random.default_rng(2)
    masks = subsets(attributions.shape[1])
    predicted = [masks @ values.T for values in (attributions, than) if values is not None]
    true = known.mean(axis=1)
    n_subsets, n_test = true.shape

    def score(rows=slice(None), columns=slice(None)):
        first, *second = (
            _rank_correlations(sums[rows][:, columns], true[rows][:, columns]).mean()
            for sums in predicted
        )
        return first - sum(second)

    means = [
        score(rng.integers(n_subsets, size=n_subsets), rng.integers(n_test, size=n_test))
        for _ in range(n_resamples)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(score()), float((high - low) / 2)
