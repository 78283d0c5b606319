import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.datasets import load_iris
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier, MultiLayerNTKRegressor, MultipleKernelClassifier
from sklearn_nftk.grams import AverageKernels
from sklearn_nftk.inspection import feature_contributions, layer_contributions
from sklearn_nftk.kernels import layer_kernels
from sklearn_nftk.networks import MLP, InfiniteMLP

X, y = load_iris(return_X_y=True)
TRAIN, TEST = slice(0, None, 2), slice(1, None, 2)


def smooth(n_features, n_outputs, random_state):
    torch.manual_seed(random_state)
    layers = nn.Linear(n_features, 12), nn.Tanh(), nn.Linear(12, n_outputs)
    return nn.Sequential(*layers).double()


def fitted(network=None, n_networks=3, **parameters):
    network = MLP((24, 24)) if network is None else network
    model = MultiLayerNTKClassifier(network, n_networks=n_networks, random_state=0, **parameters)
    return model.fit(X[TRAIN], y[TRAIN])


def test_the_machine_is_that_of_the_mean_kernels():
    model = fitted()
    assert len(model.networks_) == 3
    known, new = (
        np.mean([layer_kernels(f, some, X[TRAIN]) for f in model.networks_], axis=0)
        for some in (X[TRAIN], X[TEST])
    )
    expected = MultipleKernelClassifier().fit(known, y[TRAIN])
    assert_allclose(model.kernel_weights_, expected.kernel_weights_, atol=1e-7)
    assert_allclose(model.decision_function(X[TEST]), expected.decision_function(new), rtol=1e-6)
    phi = layer_contributions(model, X[TEST])
    assert_allclose(
        phi.sum(axis=2) + model.intercept_, model.decision_function(X[TEST]), rtol=1e-9
    )


def test_one_network_is_the_first_of_several():
    one, several = fitted(n_networks=1), fitted()
    assert len(one.networks_) == 1
    for a, b in zip(one.network_.parameters(), several.network_.parameters(), strict=True):
        assert_array_equal(a.detach(), b.detach())
    same = MultiLayerNTKClassifier(MLP((24, 24)), random_state=0).fit(X[TRAIN], y[TRAIN])
    assert_array_equal(one.decision_function(X), same.decision_function(X))


def test_the_variance_falls_with_the_number_of_networks():
    infinite = layer_kernels(InfiniteMLP(2), X[:20])

    def squared_distance(n_networks):
        """From the kernels of infinite width, the mean over random states."""
        total = 0.0
        for seed in range(8):
            model = MultiLayerNTKClassifier(
                MLP((24, 24)), n_networks=n_networks, random_state=seed
            ).fit(X[::15], y[::15])
            mean = np.mean([layer_kernels(f, X[:20]) for f in model.networks_], axis=0)
            total += np.sum((mean - infinite) ** 2)
        return total / 8

    assert squared_distance(8) < squared_distance(1) / 4


@pytest.mark.parametrize("parameters", [{"outputs": "per_class"}, {"normalize": "cosine"}, {}])
def test_derivatives_are_those_of_the_mean(parameters):
    model = fitted(smooth, C=1.0, **parameters)
    assert len(model.networks_) == 3
    found = feature_contributions(model, X[:2], per_layer=True, baseline=X[:2] - 1)
    step = 1e-5
    for j in range(4):
        ahead, behind = X[:2].copy(), X[:2].copy()
        ahead[:, j] += step
        behind[:, j] -= step
        slope = (layer_contributions(model, ahead) - layer_contributions(model, behind)) / 2 / step
        assert_allclose(found[:, :, j], slope, rtol=1e-5, atol=1e-7)


def test_weights_of_rows_are_repetitions():
    weights = np.arange(75) % 3 + 1
    weighted = MultiLayerNTKClassifier(MLP((24,)), n_networks=2, random_state=0)
    repeated = copy.deepcopy(weighted)
    weighted.fit(X[TRAIN], y[TRAIN], sample_weight=weights)
    repeated.fit(X[TRAIN].repeat(weights, axis=0), y[TRAIN].repeat(weights))
    assert_allclose(
        weighted.decision_function(X), repeated.decision_function(X), rtol=1e-6, atol=1e-8
    )


def test_stored_and_loaded():
    model = fitted()
    loaded = pickle.loads(pickle.dumps(model))
    assert_allclose(loaded.decision_function(X), model.decision_function(X), rtol=1e-12)
    assert len(loaded.networks_) == 3


def test_regression():
    model = MultiLayerNTKRegressor(MLP((24,)), n_networks=2, random_state=0)
    assert model.fit(X[TRAIN, :3], X[TRAIN, 3]).score(X[TEST, :3], X[TEST, 3]) > 0.9


@pytest.mark.parametrize("network", [InfiniteMLP(), smooth(4, 3, 0), MLP((8,), random_state=0)])
def test_what_is_not_drawn_has_no_mean(network):
    with pytest.raises(ValueError, match="n_networks=3 averages over networks that are drawn"):
        fitted(network)


@pytest.mark.parametrize("n_networks", [0, 1.5])
def test_numbers_of_networks(n_networks):
    with pytest.raises(ValueError, match="'n_networks' parameter"):
        fitted(n_networks=n_networks)


def test_the_factors_of_all_networks_fit_into_working_memory():
    sources = [MLP((512,)).kernel_source(X, seed=seed) for seed in range(4)]
    one = sources[0].prepare(X).nbytes
    with config_context(working_memory=2.5 * one / 2**20):  # room for two, so that none is kept
        assert sources[0].prepare(X).nbytes == one
        assert AverageKernels(sources).prepare(X).nbytes == 0
        kernels = AverageKernels(sources).block(AverageKernels(sources).prepare(X[:5]))
    expected = np.mean([source.gram(source.prepare(X[:5])) for source in sources], axis=0)
    assert_allclose(kernels, expected, rtol=1e-10)
