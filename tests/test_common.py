import torch
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
    MultipleKernelRegressor,
)
from sklearn_nftk.dynamics import LinearizedClassifier, LinearizedRegressor
from sklearn_nftk.kernel_networks import KernelMLPClassifier, KernelMLPRegressor
from sklearn_nftk.networks import MLP, InfiniteMLP, InfiniteRNN, KernelMLP

# Narrow networks: these checks are about the interface. One instance has the default network.
SMALL = MLP(hidden_layer_sizes=(32, 32))
# Trained in fit; the net takes any number of features, and has outputs for more classes than any
# check has. Its module is a class: instances of it are compared by identity.
TRAINED = MLP(hidden_layer_sizes=(16,), max_epochs=2, lr=1e-2)


class AnyFeatures(nn.Sequential):
    def __init__(self):
        super().__init__(nn.LazyLinear(12), nn.ReLU(), nn.Linear(12, 8))


NET = NeuralNetClassifier(
    AnyFeatures, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.SGD, train_split=None,
    max_epochs=2, verbose=0,
)  # fmt: skip
INSTANCES = [
    MultiLayerNTKClassifier(),
    MultiLayerNTKClassifier(SMALL, per_class=False),
    MultiLayerNTKClassifier(SMALL, loss="hinge"),
    MultiLayerNTKClassifier(SMALL, kernel_weights="margin"),
    MultiLayerNTKClassifier(SMALL, kernel_weights="lp"),
    MultiLayerNTKRegressor(SMALL),
    MultiLayerNTKRegressor(SMALL, per_class=False),
    MultiLayerNTKClassifier(InfiniteMLP()),
    MultiLayerNTKRegressor(InfiniteMLP()),
    MultiLayerNTKClassifier(TRAINED),
    MultiLayerNTKRegressor(TRAINED, cv=2),
    MultiLayerNTKClassifier(NET, cv=2),
    MultiLayerNTKClassifier(KernelMLP(epochs=5), cv=2),
    MultiLayerNTKClassifier(InfiniteRNN()),
    MultiLayerNTKRegressor(InfiniteRNN()),
    MultipleKernelClassifier(),
    # A small C, because libsvm takes long on the linear kernels of these checks.
    MultipleKernelClassifier(loss="hinge", kernel_weights="margin", C=0.01),
    MultipleKernelRegressor(),
    LinearizedClassifier(SMALL),
    LinearizedClassifier(SMALL, kernel="block", alpha=0.1),
    LinearizedClassifier(
        SMALL, solver="gradient", loss="log_loss", lr=0.03, momentum=0.9, max_epochs=60
    ),
    LinearizedRegressor(SMALL),
    LinearizedRegressor(SMALL, solver="gradient", lr=0.01, momentum=0.9, max_epochs=60),
    KernelMLPClassifier(epochs=20),
    KernelMLPClassifier(epochs=20, loss="hinge", centers=20, early_stopping=True),
    KernelMLPRegressor(epochs=20),
]


def expected_failed_checks(estimator):
    if isinstance(estimator, MultipleKernelClassifier) and estimator.loss == "squared":
        reason = "the check fits on features (80, 2) whatever the pairwise tag says"
        return {"check_decision_proba_consistency": reason}
    return {}


@parametrize_with_checks(INSTANCES, expected_failed_checks=expected_failed_checks)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
