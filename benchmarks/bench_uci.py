"""Weight methods beside a default SVM on the small UCI sets, and the certificates of "margin".

Accuracy on the four test parts of Fernandez-Delgado et al. 2014, everything chosen on the training
part alone, averaged over sets. Layer kernels of ``MLP()`` are computed once for each part and
seed, and given to `MultipleKernelClassifier` with every weight method: the same learner that
`MultiLayerNTKClassifier` is.

Run: ``python benchmarks/bench_uci.py --data FOLDER``, as ``README.md`` describes it.
"""

import warnings

import numpy as np
from _common import data_parser, keep, uci_sets
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_nftk import MultipleKernelClassifier
from sklearn_nftk.kernels import layer_kernels
from sklearn_nftk.networks import MLP

METHODS = {
    "uniform": {"kernel_weights": "uniform"},
    "alignment": {"shrinkage": 0.0},
    "alignment, shrinkage": {},
    "margin": {"kernel_weights": "margin"},
    "lp": {"kernel_weights": "lp"},
}


def accuracies(X, y, splits, seeds):
    """Percent right on the test parts, for the SVM and each method."""
    percents = {name: [] for name in ("SVC", *METHODS)}
    for train, test in splits:
        scaler = StandardScaler().fit(X[train])
        known, new = scaler.transform(X[train]), scaler.transform(X[test])
        percents["SVC"].append(SVC().fit(known, y[train]).score(new, y[test]))
        for seed in range(seeds):
            network = MLP(random_state=seed)
            stack, rows = layer_kernels(network, known), layer_kernels(network, new, known)
            for name, parameters in METHODS.items():
                model = MultipleKernelClassifier(**parameters).fit(stack, y[train])
                percents[name].append(model.score(rows, y[test]))
    return {name: 100 * float(np.mean(values)) for name, values in percents.items()}


def certificates(folder, max_samples):
    """Largest duality gap of "margin" on all rows of each set, and the sets that warned."""
    results = {}
    for loss in ("squared", "hinge"):
        gaps, iterations, warned = {}, [], []
        for name, X, y, _ in uci_sets(folder, max_samples):
            stack = layer_kernels(MLP(random_state=0), StandardScaler().fit_transform(X))
            model = MultipleKernelClassifier(kernel_weights="margin", loss=loss)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                model.fit(stack, y)
            if any(issubclass(w.category, ConvergenceWarning) for w in caught):
                warned.append(name)
            gaps[name] = model.dual_gap_
            iterations.append(model.n_iter_)
        results[loss] = {
            "sets": len(gaps),
            "largest_gap": max(gaps.values()),
            "most_iterations": max(iterations),
            "warned": warned,
        }
        print(loss, results[loss], flush=True)
    return results


def wins(table, method, other):
    """Sets where a method is better, equal, worse."""
    differences = np.array([row[method] - row[other] for row in table.values()])
    return [int(np.sum(np.sign(differences) == sign)) for sign in (1, 0, -1)]


def main():
    options = data_parser(__doc__.splitlines()[0])
    options.add_argument("--max-samples", type=int, default=600)
    options.add_argument("--max-certified", type=int, default=1000)
    options.add_argument("--seeds", type=int, default=3)
    arguments = options.parse_args()
    warnings.simplefilter("ignore")  # constant columns and kernels of single sets
    table = {}
    for name, X, y, splits in uci_sets(arguments.data, arguments.max_samples):
        table[name] = accuracies(X, y, splits, arguments.seeds)
        print(f"{name:32s}", *(f"{value:6.2f}" for value in table[name].values()), flush=True)
    columns = list(table[name])
    means = {c: float(np.mean([row[c] for row in table.values()])) for c in columns}
    against_uniform = {c: wins(table, c, "uniform") for c in columns}
    print(f"\n{len(table)} sets, {arguments.seeds} seeds")
    print(f"{'':24s}{'accuracy':>10s}{'better/equal/worse than uniform':>34s}")
    for c in columns:
        print(f"{c:24s}{means[c]:10.2f}{'/'.join(map(str, against_uniform[c])):>34s}")
    keep(
        "uci",
        {
            "accuracy_percent": table,
            "mean": means,
            "better_equal_worse_than_uniform": against_uniform,
            "seeds": arguments.seeds,
            "margin_certificates": certificates(arguments.data, arguments.max_certified),
        },
    )


if __name__ == "__main__":
    main()
