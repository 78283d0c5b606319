"""Default NFT-K beside a default SVM on the small UCI sets.

Accuracy on the four test parts of Fernandez-Delgado et al. 2014, everything chosen on the training
part alone, averaged over sets. Run: ``python benchmarks/bench_uci.py``.
"""

import warnings

import numpy as np
from _common import keep, parser, uci_sets
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_nftk import MultiLayerNTKClassifier


def models(seed):
    return {
        "SVC": SVC(),
        "NFT-K": MultiLayerNTKClassifier(random_state=seed),
        "NFT-K, uniform": MultiLayerNTKClassifier(kernel_weights="uniform", random_state=seed),
        "NFT-K, shrinkage=0": MultiLayerNTKClassifier(shrinkage=0.0, random_state=seed),
    }


def main():
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--max-samples", type=int, default=600)
    options.add_argument("--seeds", type=int, default=3)
    arguments = options.parse_args()
    warnings.simplefilter("ignore")  # constant columns and kernels of single sets
    table = {}
    for name, X, y, splits in uci_sets(arguments.data_dir, arguments.max_samples):
        accuracies = {}
        for seed in range(arguments.seeds):
            for train, test in splits:
                for label, model in models(seed).items():
                    if label == "SVC" and seed:
                        continue  # it does not depend on the seed
                    pipeline = make_pipeline(StandardScaler(), model).fit(X[train], y[train])
                    accuracies.setdefault(label, []).append(pipeline.score(X[test], y[test]))
        table[name] = {label: 100 * float(np.mean(a)) for label, a in accuracies.items()}
        print(f"{name:32s}", *(f"{value:6.2f}" for value in table[name].values()), flush=True)
    means = {
        label: float(np.mean([row[label] for row in table.values()])) for label in table[name]
    }
    print(f"{'mean of ' + str(len(table)) + ' sets':32s}", *(f"{v:6.2f}" for v in means.values()))
    print(f"{'':32s}", ", ".join(means))
    keep("uci", {"accuracy_percent": table, "mean": means, "seeds": arguments.seeds})


if __name__ == "__main__":
    main()
