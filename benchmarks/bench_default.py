"""What should be kernelised by default: candidates beside a grid-searched SVM.

The 67 UCI sets with the test parts of Fernandez-Delgado et al. 2014, and with ``--images`` three
sets of images as tables of pixels; everything is chosen on the training part alone. For each
candidate: the difference in accuracy to ``GridSearchCV(SVC)`` on the same parts with its standard
error over the sets, the time of all fits beside the SVM's, and by how much the scores of held-out
training rows claim more than the tests give. With ``--seeds``, pairs of seeds that agree on the
largest layer of a class; ties are disagreements.

Run: ``python benchmarks/bench_default.py --data FOLDER``, as ``README.md`` describes it. What was
measured before is read from ``results/default.json`` and not measured again.
"""

import json
import time
import warnings
from itertools import combinations

import numpy as np
from _common import RESULTS, data_parser, keep, listed_sets, uci_sets
from scipy.special import log_softmax
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.networks import MLP, InfiniteMLP

GRID = {"C": np.logspace(-1, 3, 5), "gamma": np.logspace(-4, 0, 5)}
DEPTHS = (1, 2, 3, 4)


class DepthByLeaveOneOut:
    """The depth of the smallest leave-one-out log-loss."""

    def __init__(self, **options):
        self.options = options

    def fit(self, X, y):
        models = [MultiLayerNTKClassifier(InfiniteMLP(d), **self.options) for d in DEPTHS]
        self.model = min((model.fit(X, y) for model in models), key=lambda m: _loo_loss(m, y))
        return self

    def score(self, X, y):
        return self.model.score(X, y)

    @property
    def kernel_weights_(self):
        return self.model.kernel_weights_


def _loo_loss(model, y):
    scores = model.loo_scores_ / model.temperature_
    scores = np.column_stack([-scores, scores]) if scores.shape[1] == 1 else scores
    codes = np.searchsorted(model.classes_, y)
    return -log_softmax(scores, axis=1)[np.arange(len(y)), codes].mean()


def _nftk(network, **options):
    return lambda seed, y: MultiLayerNTKClassifier(network, random_state=seed, **options)


WAYS = {
    # as many folds as the largest class has members, in the smallest sets
    "SVC": lambda seed, y: GridSearchCV(SVC(), GRID, cv=min(5, int(np.bincount(y).max()))),
    "the default": _nftk(None),
    "the default, uniform": _nftk(None, kernel_weights="uniform"),
    "the default, shrinkage=0": _nftk(None, shrinkage=0.0),
    "MLP": _nftk(MLP()),
    "MLP, gelu": _nftk(MLP(activation="gelu")),
    "MLP, gelu, bias_variance=1": _nftk(MLP(activation="gelu", bias_variance=1.0)),
    "MLP, gelu, three layers": _nftk(MLP((512,) * 3, "gelu")),
    "MLP, gelu, three layers, bias_variance=1": _nftk(MLP((512,) * 3, "gelu", bias_variance=1.0)),
    **{
        f"MLP, {activation}, {weight:g}, {bias:g}": _nftk(
            MLP(activation=activation, weight_variance=weight, bias_variance=bias)
        )
        for activation, weight, bias in (
            ("softplus", 2.0, 1.0),
            ("softplus", 2.0, 0.1),
            ("softplus", 1.0, 1.0),
            ("gelu", 1.0, 0.3),
            ("silu", 2.0, 1.0),
        )
    },
    "InfiniteMLP(2), sin, 1, 1": _nftk(InfiniteMLP(2, "sin", 1.0, 1.0)),
    "InfiniteMLP(2), sin, 1, 1, shrinkage=0": _nftk(
        InfiniteMLP(2, "sin", 1.0, 1.0), shrinkage=0.0
    ),
    "InfiniteMLP(3), uniform": _nftk(InfiniteMLP(3), kernel_weights="uniform"),
    "InfiniteMLP(3)": _nftk(InfiniteMLP(3)),
    "InfiniteMLP(3), gelu, uniform": _nftk(InfiniteMLP(3, "gelu"), kernel_weights="uniform"),
    "InfiniteMLP, depth by leave-one-out": lambda seed, y: DepthByLeaveOneOut(),
    "trained MLP, cv=4": _nftk(MLP(max_epochs=20), cv=4),
    "trained MLP, cv=4, uniform": _nftk(MLP(max_epochs=20), cv=4, kernel_weights="uniform"),
}


def measured(way, X, y, parts):
    """Accuracy on each test part in percent, and the seconds of all fits."""
    accuracies, claimed, seconds = [], [], 0.0
    for train, test in parts:
        scaler = StandardScaler().fit(X[train])
        known, new = scaler.transform(X[train]), scaler.transform(X[test])
        start = time.perf_counter()
        model = WAYS[way](0, y[train]).fit(known, y[train])
        seconds += time.perf_counter() - start
        accuracies.append(100 * float(model.score(new, y[test])))
        scores = getattr(model, "oof_scores_", getattr(model, "loo_scores_", None))
        if scores is not None:
            scores = np.column_stack([-scores, scores]) if scores.shape[1] == 1 else scores
            right = model.classes_[scores.argmax(axis=1)] == y[train]
            claimed.append(100 * float(right.mean()))
    return {"accuracy": accuracies, "fit_time": seconds, "claimed": claimed}


def agreement(way, X, y, train, seeds):
    """Share of pairs of seeds, over the classes, that agree on one largest layer."""
    scaler = StandardScaler().fit(X[train])
    known = scaler.transform(X[train])
    largest = []
    for seed in range(seeds):
        weights = WAYS[way](seed, y[train]).fit(known, y[train]).kernel_weights_
        top = np.sort(weights, axis=1)
        tied = np.isclose(top[:, -1], top[:, -2])
        largest.append(np.where(tied, np.nan, weights.argmax(axis=1)))
    return float(np.mean([np.mean(a == b) for a, b in combinations(largest, 2)]))


def summary(sets):
    """Figures of each candidate over the sets that it and the SVM were measured on."""
    rows = {}
    for way in WAYS:
        mine = [s[way] for s in sets.values() if way in s]
        if not mine:
            continue
        excess = [np.mean(s["claimed"]) - np.mean(s["accuracy"]) for s in mine if s.get("claimed")]
        agreements = [s["agreement"] for s in mine if "agreement" in s]
        row = rows[way] = {
            "claimed": [float(np.mean(excess)), _standard_error(excess)] if excess else None,
            "agreement": float(np.mean(agreements)) if agreements else None,
        }
        both = [s for s in sets.values() if way in s and "SVC" in s]
        if not both:
            continue
        gains = [np.mean(s[way]["accuracy"]) - np.mean(s["SVC"]["accuracy"]) for s in both]
        times = np.array([[s[w]["fit_time"] for w in (way, "SVC")] for s in both])
        row |= {
            "sets": len(both),
            "accuracy": float(np.mean([np.mean(s[way]["accuracy"]) for s in both])),
            "difference": [float(np.mean(gains)), _standard_error(gains)],
            "time": float(times[:, 0].sum() / times[:, 1].sum()),
            "median_time": float(np.median(times[:, 0] / times[:, 1])),
        }
    return rows


def _standard_error(values):
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def image_sets(folder):
    """Yield (name, X, y, [(train, test)]): 2000 training rows, the official test part if any."""
    for row, data in listed_sets(folder, "task_group", "image"):
        rows = data["train"] if "train" in data else np.arange(len(data["y"]))
        rows = np.random.RandomState(0).permutation(rows)
        test = data["test"] if "test" in data else rows[2000:]
        yield row["name"], data["X"].reshape(len(data["y"]), -1), data["y"], [(rows[:2000], test)]


def main():
    parser = data_parser(__doc__.splitlines()[0])
    parser.add_argument("--max-samples", type=int, default=100000)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=0, help="for agreement; default: none")
    parser.add_argument("--again", action="store_true", help="measure again what is known")
    parser.add_argument(
        "--claims",
        action="store_true",
        help="random parts in place of those of the study, whose test rows are easier than the "
        "training rows: what held-out scores claim can be compared with these alone",
    )
    parser.add_argument("--images", action="store_true", help="the sets of images instead")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="y_pred contains classes|The least populated")
    path = RESULTS / "default.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    kept = {name: kept.get(name, {}) for name in ("sets", "images", "claims")}
    sets = kept["images" if options.images else "claims" if options.claims else "sets"]
    folder, largest = options.data, options.max_samples
    for name, X, y, parts in image_sets(folder) if options.images else uci_sets(folder, largest):
        if options.claims:
            if np.bincount(y).min() < 8 or len(y) < 100:
                continue
            parts = list(StratifiedShuffleSplit(3, test_size=0.25, random_state=0).split(X, y))
        known = sets.setdefault(name, {})
        new = [way for way in options.ways if options.again or way not in known]
        for way in new:
            known[way] = measured(way, X, y, parts)
        for way in options.ways if options.seeds else ():
            if way != "SVC" and "agreement" not in known[way]:
                known[way]["agreement"] = agreement(way, X, y, parts[0][0], options.seeds)
        cells = [f"{way} {np.mean(known[way]['accuracy']):5.1f}" for way in options.ways]
        print(f"{name:32s}" + " | ".join(cells), flush=True)
        if new or options.seeds:
            keep("default", {"means": {key: summary(kept[key]) for key in kept}, **kept})
    for way, row in summary(sets).items():
        print(f"{way:42s}", {key: np.round(v, 3) for key, v in row.items() if v is not None})


if __name__ == "__main__":
    main()
