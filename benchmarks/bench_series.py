"""Accuracy on time series of the UCR archive: recurrent kernel, InfiniteMLP and RBF.

The archive's own training and test parts. Every hyperparameter is chosen on the training part
alone, by accuracy in stratified 5-fold cross-validation (fewer folds where a class is smaller; by
leave-one-out where it is a single series), from the same grid of C for all three machines:

- RNTK: `InfiniteRNN`, one or both directions, last state or mean, and sigma_w;
- InfiniteMLP: its depth, on the series as vectors;
- RBF: `SVC` with gamma as multiples of "scale", on the series as vectors.

All of them get series that are z-normalised one by one; vectors of shorter series end in zeros.
The errors of one nearest neighbour with Euclidean distance and dynamic time warping (learned
window) are those published with the archive, where it has them. Ranks are means over the sets that
all five have. Large sets are left out (``--max-pairs``), and said so.

Run: ``python benchmarks/bench_series.py --data FOLDER``, as ``README.md`` describes it.
"""

import csv
import warnings

import numpy as np
from _common import data_parser, existing, keep, listed_sets
from joblib import Parallel, delayed
from scipy.stats import rankdata
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from sklearn_nftk.kernels import layer_kernel_diag, layer_kernels
from sklearn_nftk.networks import InfiniteMLP, InfiniteRNN

COSTS = [0.01, 1.0, 100.0, 1e4]
RNNS = [
    InfiniteRNN(sigma_w=sigma_w, sigma_b=0.1, sigma_h=0.0, pooling=pooling, bidirectional=both)
    for sigma_w in (1.34, 1.41)
    for pooling in ("last", "mean-untied")
    for both in (False, True)
]
MLPS = [InfiniteMLP(depth) for depth in (1, 2, 4)]
COLUMNS = ["RNTK", "InfiniteMLP", "RBF", "1NN-ED", "1NN-DTW"]


def sets(folder):
    """Yield (name, X, y, train, test), z-normalised, NaN at the ends."""
    for row, data in listed_sets(folder, "task_group", "series"):
        X = data["X"].astype(np.float64)
        scale = np.nanstd(X, axis=1, keepdims=True)
        X = (X - np.nanmean(X, axis=1, keepdims=True)) / np.where(scale > 0, scale, 1)
        yield row["name"], X, data["y"], data["train"], data["test"]


def published(folder):
    """Accuracies in percent that the archive publishes, by the names of sets."""
    with existing(folder / "ucr_published_error.csv").open() as lines:
        table = {row["Name"].strip(): row for row in csv.DictReader(lines)}
    return {
        name: {
            "1NN-ED": 100 * (1 - float(row["ED (w=0)"])),
            "1NN-DTW": 100 * (1 - float(row["DTW (learned_w) "].split()[0])),
        }
        for name, row in table.items()
    }


def folds(y):
    """Stratified folds, or leave-one-out where a class has one series."""
    smallest = np.bincount(y)[np.unique(y)].min()
    if smallest < 2:
        return [(np.delete(np.arange(len(y)), i), [i]) for i in range(len(y))]
    return list(StratifiedKFold(min(5, smallest), shuffle=True, random_state=0).split(y, y))


def kernel_machine(networks, X, y, train, test):
    """Test accuracy of the network and cost that are best in cross-validation."""
    splits = folds(y[train])
    best = (-1.0,)
    for network in networks:
        K, K_test = cosine_kernels(network, X[train], X[test])
        search = GridSearchCV(SVC(kernel="precomputed"), {"C": COSTS}, cv=splits)
        search.fit(K, y[train])
        if search.best_score_ > best[0]:
            best = search.best_score_, search.score(K_test, y[test])
    return 100 * best[1]


def cosine_kernels(network, X, Z):
    """Total kernels of X with itself and of Z with X, of rows scaled to norm 1."""
    total = [layer_kernels(network, X).sum(axis=2), layer_kernels(network, Z, X).sum(axis=2)]
    x, z = (np.sqrt(layer_kernel_diag(network, A).sum(axis=1)) for A in (X, Z))
    return total[0] / np.outer(x, x), total[1] / np.outer(z, x)


def rbf(X, y, train, test):
    gamma = 1 / (X.shape[1] * X[train].var())
    grid = {"C": COSTS, "gamma": [gamma * 4.0**k for k in range(-2, 3)]}
    search = GridSearchCV(SVC(), grid, cv=folds(y[train])).fit(X[train], y[train])
    return 100 * search.score(X[test], y[test])


def compare(name, X, y, train, test, known):
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # folds without a class
        vectors = np.nan_to_num(X)
        accuracies = {
            "RNTK": kernel_machine(RNNS, X, y, train, test),
            "InfiniteMLP": kernel_machine(MLPS, vectors, y, train, test),
            "RBF": rbf(vectors, y, train, test),
            **known.get(name, {}),
        }
    text = "".join(
        f"{accuracies[column]:12.1f}" if column in accuracies else f"{'':12s}"
        for column in COLUMNS
    )
    print(f"{name:30s}{text}", flush=True)
    return accuracies


def main():
    options = data_parser(__doc__.splitlines()[0])
    options.add_argument(
        "--max-pairs",
        type=float,
        default=1e8,
        help="leave out sets with more pairs of series times steps (default: 1e8)",
    )
    options.add_argument("--n-jobs", type=int, default=1)
    arguments = options.parse_args()
    known = published(arguments.data)
    print(f"{'accuracy in percent':30s}" + "".join(f"{column:>12s}" for column in COLUMNS))
    tasks, left_out = [], []
    for name, X, y, train, test in sets(arguments.data):
        pairs = len(train) * (len(train) / 2 + len(test)) * X.shape[1]
        if pairs > arguments.max_pairs:
            left_out.append(name)
        else:
            tasks.append((name, X, y, train, test))
    rows = Parallel(n_jobs=arguments.n_jobs)(delayed(compare)(*task, known) for task in tasks)
    table = {task[0]: percents for task, percents in zip(tasks, rows, strict=True)}
    complete = [[row[column] for column in COLUMNS] for row in rows if "1NN-ED" in row]
    ranks = np.mean([rankdata(-np.array(values)) for values in complete], axis=0)
    means = np.mean(complete, axis=0)
    print(f"{'mean of ' + str(len(complete)):30s}" + "".join(f"{v:12.1f}" for v in means))
    print(f"{'mean rank':30s}" + "".join(f"{v:12.2f}" for v in ranks))
    print(f"left out for their size: {', '.join(left_out) or 'none'}")
    keep(
        "series",
        {
            "accuracy_percent": table,
            "mean": dict(zip(COLUMNS, means.tolist(), strict=True)),
            "mean_rank": dict(zip(COLUMNS, ranks.tolist(), strict=True)),
            "sets_with_published_errors": len(complete),
            "left_out": left_out,
        },
    )


if __name__ == "__main__":
    main()
