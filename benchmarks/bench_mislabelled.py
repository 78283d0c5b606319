"""Wrong labels found by `mislabelled`: 10 % of the labels of 1200 training images are changed.

Three seeds of the images, the labels and the networks. Ranked by margins: of leave-one-out with
the default network, which is not trained; of cross-fitting with a small convolutional network; of
leave-one-out on the kernels of the same network trained on all labels, which has seen them; and by
the loss of this network on its own training set. Area under the ROC curve, and share of wrong
labels among the first 120 beside what `mislabelled` expects.

Run: ``python benchmarks/bench_mislabelled.py --data FOLDER``, as ``README.md`` describes it.
"""

import numpy as np
from _common import data_parser, existing, keep
from _datamodels import IMAGES, N_TRAIN, task
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.inspection import mislabelled

SHARE = 0.1
SETS = [name for name in IMAGES if "shifted" not in name]


def flipped(y, rng):
    """Labels of which some are those of another class, and which."""
    n_classes = int(y.max()) + 1
    wrong = rng.permutation(len(y))[: int(SHARE * len(y))]
    y = y.copy()
    y[wrong] = (y[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    return y, np.isin(np.arange(len(y)), wrong)


def figures(found, wrong):
    k = int(wrong.sum())
    suspicion = np.empty(len(wrong))
    suspicion[found.indices] = -found.margins
    return {
        "auroc": roc_auc_score(wrong, suspicion),
        "precision": float(wrong[found.indices[:k]].mean()),
        "expected": float(found.expected_precision[k - 1]),
    }


def measured(name, data, seed):
    rng = np.random.default_rng(seed)
    of_task = task(name, data)
    y, wrong = flipped(of_task.y[:N_TRAIN], rng)
    X = of_task.X
    trained = MultiLayerNTKClassifier(of_task.net, random_state=seed).fit(X, y)
    outputs = trained.kernel_source_.network_outputs(X).astype(float)
    losses = -log_softmax(outputs, axis=1)[np.arange(len(y)), y]
    flat = X.reshape(len(X), -1)
    cross_fitted = MultiLayerNTKClassifier(of_task.net, cv=4, random_state=seed).fit(X, y)
    return {
        "default network": figures(
            mislabelled(MultiLayerNTKClassifier(random_state=seed).fit(flat, y)), wrong
        ),
        "trained, cv=4": figures(mislabelled(cross_fitted), wrong),
        "trained, cv=None": figures(mislabelled(trained), wrong),
        "loss of the network": {"auroc": roc_auc_score(wrong, losses)},
    }


def main():
    parser = data_parser(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    existing(options.data / "images" / IMAGES[SETS[0]])
    results = {}
    for name in SETS:
        runs = [measured(name, options.data, seed) for seed in range(options.seeds)]
        results[name] = {
            way: {
                figure: [float(np.mean(of)), float(np.std(of))]
                for figure in runs[0][way]
                for of in [[run[way][figure] for run in runs]]
            }
            for way in runs[0]
        }
        for way, row in results[name].items():
            cells = " ".join(f"{figure} {m:.3f} +- {s:.3f}" for figure, (m, s) in row.items())
            print(f"{name:16s} {way:20s} {cells}", flush=True)
        keep("mislabelled", {"share": SHARE, "sets": results})


if __name__ == "__main__":
    main()
