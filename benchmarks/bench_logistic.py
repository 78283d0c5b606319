"""Is the logistic loss worth a place among the losses of the estimators?

On the UCI sets of at most 1000 rows: the default classifier (squared loss, probabilities by one
temperature from leave-one-out scores), and one-vs-rest kernel logistic regression on the same
kernels and weights, with C of the smallest approximate leave-one-out log-loss. Accuracy, log-loss
and expected calibration error (15 bins) on test parts, of probabilities as they are and divided by
a temperature. Run: ``python benchmarks/bench_logistic.py --data FOLDER``, as ``README.md``
describes it; what was measured before is not measured again.
"""

import json
import time
import warnings

import numpy as np
from _common import RESULTS, data_parser, keep, uci_sets
from scipy.special import log_softmax

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.estimators import fitted, fitted_problem, kernel_blocks
from sklearn_nftk.learner._targets import fit_temperature
from sklearn_nftk.solvers import LeaveOneOut, logistic

GRID = 10.0 ** np.arange(-1, 4.5, 0.5)
FIGURES = "accuracy", "log-loss", "calibration error"


def both(f):
    """A logit for each class: ``-f / 2`` and ``f / 2`` of two."""
    return np.column_stack([-f / 2, f / 2]) if f.shape[1] == 1 else f


def figures(log_p, y):
    p = np.exp(log_p)
    sure, right = p.max(axis=1), p.argmax(axis=1) == y
    bins = np.minimum((15 * sure).astype(int), 14)
    gaps = [abs((right - sure)[bins == b].sum()) for b in range(15)]
    return [right.mean(), -log_p[np.arange(len(y)), y].mean(), sum(gaps) / len(y)]


def logistic_decisions(model, X):
    """Decisions on X of the logistic machine, and its leave-one-out decisions."""
    problem, _ = fitted_problem(model)
    learned, best = fitted(model), None
    kernels = list(problem.grams.combined(learned.kernel_weights, problem.kernels))
    for C in GRID / problem.s.mean():
        columns = list(zip(kernels, problem.Y.T, strict=True))
        solutions = [logistic(K, y, problem.s, C) for K, y in columns]
        machines = [
            LeaveOneOut(K.copy(), solution.curvatures, solution.responses[:, None])
            for K, solution in zip(kernels, solutions, strict=True)
        ]
        f = np.column_stack([K @ a + b for K, (a, b, *_) in zip(kernels, solutions, strict=True)])
        own = np.column_stack(
            [(1 - loo.H.diagonal()) * loo.factors(0) / loo.q for loo in machines]
        )
        log_p = log_softmax(both(f - own), axis=1)
        loss = -problem.sample_weight @ log_p[np.arange(len(f)), problem.strata]
        if best is None or loss < best[0]:
            best = loss, solutions, f - own
    blocks = np.concatenate([b for _, b in kernel_blocks(model, model._test_set(X))], axis=2)
    decided = [
        np.tensordot(w, blocks[0], axes=1) @ a + b
        for w, (a, b, *_) in zip(learned.coefficients, best[1], strict=True)
    ]
    temperature = fit_temperature(best[2], problem.Y, problem.sample_weight)
    return np.column_stack(decided), temperature


def main():
    parser = data_parser(__doc__.splitlines()[0])
    parser.add_argument("--max-samples", type=int, default=1000)
    options = parser.parse_args()
    path = RESULTS / "logistic.json"
    results = json.loads(path.read_text())["sets"] if path.is_file() else {}
    warnings.simplefilter("ignore")
    for name, X, y, splits in uci_sets(options.data, options.max_samples):
        if name in results:
            continue
        rows = []
        for train, test in splits[:2]:
            classes = np.unique(y[train])
            test = test[np.isin(y[test], classes)]
            true = np.searchsorted(classes, y[test])
            start = time.perf_counter()
            model = MultiLayerNTKClassifier(random_state=0).fit(X[train], y[train])
            seconds = [time.perf_counter() - start]
            start = time.perf_counter()
            f, temperature = logistic_decisions(model, X[test])
            seconds.append(time.perf_counter() - start)
            squared = model.predict_log_proba(X[test])
            divided = np.column_stack([-f, f]) if f.shape[1] == 1 else f
            rows.append(
                [
                    figures(squared, true),
                    figures(log_softmax(both(f), axis=1), true),
                    figures(log_softmax(divided / temperature, axis=1), true),
                    [*seconds, 0],
                ]
            )
        results[name] = np.mean(rows, axis=0).tolist()
        keep("logistic", {"means": summary(results), "sets": results})
    for way, row in summary(results).items():
        print(way, row)


def summary(results):
    """Mean and standard error over the sets, of the ways and of differences to the first."""
    values = np.array(list(results.values()))  # (sets, ways, figures)
    ways = {"squared": values[:, 0], "logistic": values[:, 1], "with temperature": values[:, 2]}
    ways["logistic - squared"] = values[:, 1] - values[:, 0]
    ways["with temperature - squared"] = values[:, 2] - values[:, 0]
    error = np.sqrt(len(values))
    table = {
        way: {
            figure: [float(of.mean()), float(of.std() / error)]
            for figure, of in zip(FIGURES, columns.T, strict=True)
        }
        for way, columns in ways.items()
    }
    seconds = values[:, 3].sum(axis=0)
    return {**table, "sets": len(values), "seconds besides the fit / fit": seconds[1] / seconds[0]}


if __name__ == "__main__":
    main()
