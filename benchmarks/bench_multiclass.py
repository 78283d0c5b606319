"""Codes of the classes beside one-vs-rest targets and a grid-searched SVM: are classes masked?

The UCI sets with the test parts of Fernandez-Delgado et al. 2014, everything chosen on the
training part alone, and a made set: a smooth function of four of eight features, cut into nine
classes. For each: accuracy, balanced accuracy, log-loss, calibration error (of the largest
probability, ten bins) and fit time of the default, of the same machine with one-vs-rest targets,
and of ``GridSearchCV(SVC)``.

Run: ``python benchmarks/bench_multiclass.py --data FOLDER``, as ``README.md`` describes it; with
``--max-samples`` and ``--parts`` it takes less time.
"""

import time
import warnings

import numpy as np
from _common import data_parser, keep, uci_sets
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.learner import _machine

GRID = {"C": np.logspace(-1, 3, 5), "gamma": np.logspace(-4, 0, 5)}
WAYS = ("default", "one-vs-rest", "SVC")
FIGURES = ("accuracy", "balanced", "log_loss", "calibration", "fit_time")


def made_set(seed):
    """Nine classes in a row: 750 training and 250 test samples."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((1000, 8))
    f = np.tanh(0.3 * X[:, :4] @ rng.standard_normal((4, 3))).sum(axis=1)
    y = np.digitize(f, np.quantile(f, np.arange(1, 9) / 9))
    return X, rng.permutation(9)[y], [(np.arange(750), np.arange(750, 1000))]


def fitted(way, X, y, seed=0):
    """The model of one way, and how long its fit took."""
    codes = _machine._coded
    model = MultiLayerNTKClassifier(random_state=seed)
    if way == "SVC":
        # as many folds as the largest class has members, in the smallest sets
        model = GridSearchCV(SVC(), GRID, cv=min(5, int(np.bincount(y).max())))
    if way == "one-vs-rest":
        _machine._coded = lambda problem, chosen, C: None
    start = time.perf_counter()
    try:
        return model.fit(X, y), time.perf_counter() - start
    finally:
        _machine._coded = codes


def calibration_error(probabilities, right):
    """Mean distance between confidence and accuracy, over ten bins of confidence."""
    confidence = probabilities.max(axis=1)
    bins = np.minimum((10 * confidence).astype(int), 9)
    gaps = np.bincount(bins, weights=confidence - right, minlength=10)
    return float(np.abs(gaps).sum() / len(right))


def figures(way, X, y, train, test, seed=0):
    """Figures of one way on one test part."""
    scaler = StandardScaler().fit(X[train])
    known, new = scaler.transform(X[train]), scaler.transform(X[test])
    model, seconds = fitted(way, known, y[train], seed)
    predicted = model.predict(new)
    right = predicted == y[test]
    values = {"accuracy": 100 * float(right.mean()), "fit_time": seconds}
    values["balanced"] = 100 * float(balanced_accuracy_score(y[test], predicted))
    if way != "SVC":
        probabilities = model.predict_proba(new)
        seen = np.isin(y[test], model.classes_)
        values["log_loss"] = float(
            log_loss(y[test][seen], probabilities[seen], labels=model.classes_)
        )
        values["calibration"] = calibration_error(probabilities, right)
    return values


def study(X, y, parts, ways, seeds=1):
    """Means over the test parts, and over networks: {way: {figure: value}}."""
    table = {}
    for way in ways:
        drawn = 1 if way == "SVC" else seeds
        rows = [
            figures(way, X, y, train, test, seed) for train, test in parts for seed in range(drawn)
        ]
        table[way] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return table


def shown(name, table):
    """One line: each figure of each way."""
    cells = [
        f"{figure} "
        + " ".join(f"{table[way][figure]:7.3f}" for way in table if figure in table[way])
        for figure in FIGURES
    ]
    print(f"{name:32s}" + " | ".join(cells), flush=True)


def means(tables):
    """Over the sets: {way: {figure: mean}}."""
    return {
        way: {
            figure: float(np.mean([table[way][figure] for table in tables if way in table]))
            for figure in FIGURES
            if figure in tables[0][way]
        }
        for way in tables[0]
    }


def main():
    parser = data_parser(__doc__.splitlines()[0])
    parser.add_argument("--max-samples", type=int, default=2500, help="default: 2500")
    parser.add_argument("--parts", type=int, default=2, help="test parts of each set, at most 4")
    parser.add_argument("--largest-svc", type=int, default=2500, help="more samples: no SVM")
    parser.add_argument("--seeds", type=int, default=1, help="networks that are averaged over")
    parser.add_argument("--only", nargs="+", help="sets that are shown; nothing is kept")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="y_pred contains classes|The least populated")
    if options.only:
        for name, X, y, parts in uci_sets(options.data, options.max_samples):
            if name in options.only:
                shown(name, study(X, y, parts[: options.parts], WAYS, options.seeds))
        return
    made = {f"made {seed}": study(*made_set(seed), WAYS) for seed in range(3)}
    for name, table in made.items():
        shown(name, table)
    tables, minority = {}, {}
    for name, X, y, parts in uci_sets(options.data, options.max_samples):
        ways = WAYS if len(X) <= options.largest_svc else WAYS[:2]
        tables[name] = study(X, y, parts[: options.parts], ways, options.seeds)
        counts = np.bincount(y)
        if len(counts) == 2 and counts.min() < 0.35 * len(y):
            minority[name] = tables[name]
        shown(name, tables[name])
    with_svc = [table for table in tables.values() if "SVC" in table]
    summary = {
        "made": means(list(made.values())),
        "uci": means(with_svc),
        "all, without SVC": means([{w: t[w] for w in WAYS[:2]} for t in tables.values()]),
        "two classes, minority under 35 %": means([t for t in minority.values() if "SVC" in t]),
    }
    for name, table in summary.items():
        shown(name, table)
    chosen = {name: value for name, value in vars(options).items() if name != "data"}
    keep("multiclass", {**chosen, "sets": {**made, **tables}, "means": summary})


if __name__ == "__main__":
    main()
