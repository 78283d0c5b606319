from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.inspection import layer_contributions
from sklearn_nftk.networks import MLP

# More tasks than threads, of different lengths, so that they start and end at all times.
N_THREADS, N_TASKS = 4, 24


def convolutional(n_features, n_outputs, random_state):
    torch.manual_seed(random_state)
    return nn.Sequential(
        nn.Conv2d(n_features, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(64, n_outputs),
    ).double()  # fmt: skip


@pytest.fixture(params=["mlp", "convolutional"])
def fitted(request, rng):
    X, y = rng.normal(size=(60, 1, 6, 6)), np.arange(60) % 3
    X += y[:, None, None, None]
    network = convolutional
    if request.param == "mlp":
        X, network = X.reshape(60, 36), MLP((16, 16), random_state=0)
    model = MultiLayerNTKClassifier(network, random_state=0).fit(X, y)
    batches = [rng.normal(size=(5 + 3 * i, *X.shape[1:])) for i in range(N_TASKS)]
    return model, batches


@pytest.mark.parametrize(
    "ask",
    [MultiLayerNTKClassifier.decision_function, layer_contributions],
    ids=["decisions", "contributions"],
)
def test_threads_predict_what_one_thread_predicts(fitted, ask):
    model, batches = fitted
    expected = [ask(model, X) for X in batches]
    with ThreadPoolExecutor(N_THREADS) as threads:
        for values, alone in zip(
            threads.map(lambda X: ask(model, X), batches), expected, strict=True
        ):
            assert_allclose(values, alone, rtol=0, atol=1e-12 * np.abs(alone).max())
