"""Which training examples does a decision depend on? Attributions against retrained networks.

The linear datamodeling score of `_datamodels`: 100 random halves of at most 1200 training
examples, five networks each, the margins of 100 test samples. Attributions come from one network
that is trained on all examples, or from five: by `training_influence` on the tangent kernels of
these networks; by `training_contributions`; by TRAK and EK-FAC (``traker`` 0.3.2 and
``kronfluence`` 1.0.1, where they are installed) and by formulas. Two controls never see a trained
network: the tangent kernels of the same network untrained, and an RBF kernel of the pixels. Where
a value is chosen by the score itself ("best ..."), this favours the way that it is chosen for.

Each way runs in a fresh process on one thread, after the networks are trained: its seconds, and
its memory at the peak above what the process held before (Linux). Intervals are half-widths of
95 % bootstrap intervals over test samples and halves, of the score and of its difference to that
of `training_influence` with the same number of networks.

Run: ``python benchmarks/bench_attribution.py --data FOLDER``, as ``README.md`` describes it.
Retrained networks are kept in ``results/attribution``; what was measured before is read from
``results/attribution.json`` and not measured again.
"""

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _attribution_packages as packages
import numpy as np
import torch
from _common import RESULTS, data_parser, high_water_mark, keep
from _datamodels import (
    IMAGES,
    REGRESSIONS,
    SETS,
    ceiling,
    interval,
    network_path,
    task,
    trained,
    truth,
)
from sklearn.base import clone
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import KFold

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
    MultipleKernelRegressor,
)
from sklearn_nftk.inspection import training_contributions, training_influence

N_NETWORKS = 1, 5
DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # in units of the mean eigenvalue
EKFAC_DAMPINGS = (None, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # None is the heuristic of the package
C_GRID = 10.0 ** np.arange(-2, 3.5, 0.5)
OURS = "training_influence"


# -- own ways: from networks and a task to {variant: attributions (n_test, n_train)} -------------


def machine(networks, of_task, **parameters):
    """Uniform weights on the mean of the tangent kernels of these networks."""
    of_classes = of_task.is_classification
    kind = MultiLayerNTKClassifier if of_classes else MultiLayerNTKRegressor
    parameters = {"kernel_weights": "uniform", "C": 1.0, **parameters}
    next_one = itertools.cycle(networks)

    def network(n_features, n_outputs, random_state):
        return next(next_one)

    several = {} if len(networks) == 1 else {"n_networks": len(networks)}
    y = of_task.y if of_classes else of_task.y[:, 0]
    first = networks[0] if len(networks) == 1 else network
    return kind(first, **several, **parameters).fit(of_task.X, y)


def of_own_class(values, of_task):
    """Values (n_test, n_decisions, n) of the true class, or of the only target."""
    if not of_task.is_classification:
        return values[:, 0]
    if values.shape[1] == 1:
        return values[:, 0] * np.where(of_task.y_test == 1, 1, -1)[:, None]
    return values[np.arange(len(values)), of_task.y_test]


def influence(model, of_task, X_test, loss=None, C="attribution"):
    if not of_task.is_classification:
        return training_influence(model, X_test, loss="squared", C=C)[:, 0]
    loss = loss or "log_loss"
    values = training_influence(model, X_test, loss=loss, C=C, output="margin")
    return of_own_class(values, of_task)


def by_influence(networks, of_task, loss=None):
    return {"": influence(machine(networks, of_task), of_task, of_task.X_test, loss)}


def by_influence_of_squares(networks, of_task):
    return by_influence(networks, of_task, "squared")


def by_influence_of_best_C(networks, of_task):
    model = machine(networks, of_task)
    return {f"C={C:.2g}": influence(model, of_task, of_task.X_test, C=C) for C in C_GRID}


def by_influence_of_squares_of_best_C(networks, of_task):
    model = machine(networks, of_task)
    return {f"C={C:.2g}": influence(model, of_task, of_task.X_test, "squared", C) for C in C_GRID}


def by_influence_at_C(networks, of_task):
    model = machine(networks, of_task, C="auto")
    values = training_influence(model, of_task.X_test, loss="squared")
    return {f"C={model.C_:.2g}": of_own_class(values, of_task)}


def by_contributions(networks, of_task):
    model = machine(networks, of_task, C="auto")
    return {
        f"C={model.C_:.2g}": of_own_class(training_contributions(model, of_task.X_test), of_task)
    }


def by_last_layer(networks, of_task):
    weights = np.eye(sum(1 for m in networks[0] if list(m.parameters())))[-1]
    model = machine(networks, of_task, kernel_weights=weights)
    return {"": influence(model, of_task, of_task.X_test)}


def by_untrained(networks, of_task):
    drawn = []
    for seed in range(len(networks)):
        torch.manual_seed(1000 + seed)
        drawn.append(clone(of_task.net).initialize().module_)
    return {"": influence(machine(drawn, of_task), of_task, of_task.X_test)}


def by_pixels(networks, of_task):
    X, X_test = (Z.reshape(len(Z), -1).astype(float) for Z in (of_task.X, of_task.X_test))
    gamma = 1 / (X.shape[1] * X.var())
    kind = MultipleKernelClassifier if of_task.is_classification else MultipleKernelRegressor
    y = of_task.y if of_task.is_classification else of_task.y[:, 0]
    model = kind(kernel_weights="uniform", C=1.0).fit(rbf_kernel(X, gamma=gamma), y)
    return {"": influence(model, of_task, rbf_kernel(X_test, X, gamma=gamma))}


# -- others ---------------------------------------------------------------------------------------


def by_exact_trak(networks, of_task, dampings=DAMPINGS):
    return _named(packages.exact_trak(networks, of_task, dampings))


def by_exact_trak_out_of_fold(networks, of_task, dampings=DAMPINGS):
    """With residuals of networks that have not seen the example: four more are trained."""
    outputs = np.empty((len(of_task.y), networks[0][-1].out_features))
    folds = KFold(4, shuffle=True, random_state=0).split(of_task.X)
    for seed, (seen, new) in enumerate(folds):
        torch.manual_seed(2000 + seed)
        net = clone(of_task.net).fit(of_task.X[seen], of_task.y[seen])
        outputs[new] = net.forward(of_task.X[new]).double().numpy()
    residuals = packages.residuals(outputs, of_task.y)
    return _named(packages.exact_trak(networks, of_task, dampings, residuals))


def by_traker(networks, of_task):
    return {"": packages.traker(networks, of_task, 256)}


def by_ekfac(networks, of_task, dampings=EKFAC_DAMPINGS):
    return _named(packages.kronfluence(networks, of_task, dampings))


def by_gradient_product(networks, of_task):
    return {"": packages.gradient_product(networks, of_task)}


def by_representation(networks, of_task):
    return {"": packages.representation_similarity(networks, of_task)}


def _named(by_damping):
    return {f"damping={damping}": values for damping, values in by_damping.items()}


WAYS = {
    OURS: by_influence,
    "training_influence, squared loss": by_influence_of_squares,
    "training_influence, squared loss, C auto": by_influence_at_C,
    "training_influence, best C": by_influence_of_best_C,
    "training_influence, squared loss, best C": by_influence_of_squares_of_best_C,
    "training_influence, last layer alone": by_last_layer,
    "training_contributions, C auto": by_contributions,
    "control: untrained network": by_untrained,
    "control: RBF kernel of the inputs": by_pixels,
    "EK-FAC (kronfluence), best damping": by_ekfac,
    "TRAK (traker), 256 projections": by_traker,
    "TRAK, exact gradients, best damping": by_exact_trak,
    "TRAK, exact, out of fold, best damping": by_exact_trak_out_of_fold,
    "inner product of gradients": by_gradient_product,
    "similarity of representations": by_representation,
}
# Those that are timed with one value of what is chosen.
TIMED = {by_ekfac: (None,), by_exact_trak: (1.0,), by_exact_trak_out_of_fold: (1.0,)}
NEEDS = {by_ekfac: "kronfluence", by_traker: "trak"}


def applicable(way, name):
    """Whether a way can be asked: installed, and made for the kind of task."""
    package = NEEDS.get(WAYS[way])
    if package and importlib.util.find_spec(package) is None:
        return False
    for_classes = package == "trak" or ("squared loss" in way and "auto" not in way)
    return name not in REGRESSIONS or not for_classes


def measure(folder, name, way, n_networks, path):
    """Print seconds and MiB at the peak, and keep the attributions; for a fresh process."""
    of_task = task(name, Path(folder))
    networks = trained(name, of_task, N_NETWORKS[-1])[: int(n_networks)]
    function = WAYS[way]
    timed = {"dampings": TIMED[function]} if function in TIMED else {}
    by_gradient_product(networks[:1], _few(of_task))  # what torch loads at first use
    before, start = high_water_mark(), time.perf_counter()
    found = function(networks, of_task, **timed)
    seconds, peak = time.perf_counter() - start, high_water_mark() - before
    if timed:
        found = function(networks, of_task)
    np.savez(path, **found)
    print(json.dumps({"seconds": seconds, "peak": peak}))


def _few(of_task):
    return of_task._replace(X=of_task.X[:50], y=of_task.y[:50])


def measured(options, name, way, n_networks, known):
    """Score, interval, seconds and memory of a way, and its attributions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "attributions.npz"
        command = [sys.executable, __file__, "--data", str(options.data), "--measure", name, way]
        command += [str(n_networks), str(path)]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment = {**os.environ, **threads}
        run = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
        found = dict(np.load(path))
    row = json.loads(run.stdout.splitlines()[-1])
    scores = {variant: interval(values, known) for variant, values in found.items()}
    best = max(scores, key=lambda variant: scores[variant][0])
    score, half_width = scores[best]
    return {"variant": best, "score": score, "half_width": half_width, **row}, found[best]


def main():
    parser = data_parser(__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--again", action="store_true", help="measure what is known, too")
    kept = ("SET", "WAY", "NETWORKS", "FILE")
    parser.add_argument("--measure", nargs=4, metavar=kept, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.data, *options.measure)
    path = RESULTS / "attribution.json"
    results = json.loads(path.read_text())["results"] if path.is_file() else {}
    for name in options.sets:
        of_task = task(name, options.data)
        known = truth(name, of_task)
        trained(name, of_task, N_NETWORKS[-1])
        rows = results.setdefault(name, {"ceiling": float(ceiling(known).mean())})
        for n_networks in N_NETWORKS:
            ours = None
            for way in [w for w in options.ways if applicable(w, name)]:
                of_way = rows.setdefault(way, {})
                if str(n_networks) in of_way and not options.again:
                    continue
                row, values = measured(options, name, way, n_networks, known)
                if way == OURS:
                    ours = values
                    np.save(network_path(name).with_suffix(f".ours{n_networks}.npy"), values)
                else:
                    ours = np.load(network_path(name).with_suffix(f".ours{n_networks}.npy"))
                    row["behind"] = interval(ours, known, than=values)
                of_way[str(n_networks)] = row
                print(f"{name}, {n_networks} network(s), {way}: {_shown(row)}", flush=True)
                keep("attribution", {"results": results})
    table(results)


def _shown(row):
    behind = "" if "behind" not in row else " | behind {:+.3f} +- {:.3f}".format(*row["behind"])
    return (
        f"{row['score']:.3f} +- {row['half_width']:.3f} {row['variant']} | "
        f"{row['seconds']:.1f} s, {row['peak']:.0f} MiB{behind}"
    )


def table(results):
    for name, rows in results.items():
        what = "images" if name in IMAGES else "rows"
        print(f"\n{name} ({what}): ceiling {rows['ceiling']:.3f}")
        for way, of_way in rows.items():
            if way != "ceiling":
                for n_networks, row in of_way.items():
                    print(f"  {way:42s} {n_networks} network(s)  {_shown(row)}")


if __name__ == "__main__":
    main()
