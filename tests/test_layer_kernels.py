"""The transformer from samples to layer kernels."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags, shuffle
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier, MultipleKernelClassifier
from sklearn_nftk.closed_form import ClosedFormKernels, InfiniteMLPKernels
from sklearn_nftk.kernels import LayerKernels, layer_kernels
from sklearn_nftk.networks import MLP, InfiniteMLP, InfiniteRNN

SMALL = MLP((32, 32), random_state=0)


def expected_failed_checks(estimator):
    kernels = "columns are training samples, so repeated rows are more columns"
    return {
        "check_sample_weight_equivalence_on_dense_data": kernels,
        "check_sample_weight_equivalence_on_sparse_data": kernels,
    }


@parametrize_with_checks(
    [LayerKernels(SMALL), LayerKernels(InfiniteMLP()), LayerKernels(InfiniteRNN())],
    expected_failed_checks=expected_failed_checks,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.fixture
def iris():
    return shuffle(*load_iris(return_X_y=True), random_state=0)


@pytest.mark.parametrize("network", [SMALL, InfiniteMLP(), lambda d, o, seed: nn.Linear(d, o)])
@pytest.mark.parametrize("verbose", [0, 1])
def test_kernels_are_those_of_the_function(network, verbose, iris, capsys):
    X = iris[0]
    model = LayerKernels(network, verbose=verbose, random_state=0)
    K = model.fit_transform(X[:50])
    assert_array_equal(K, K.transpose(1, 0, 2))
    assert_allclose(model.transform(X[:50]), K, rtol=1e-9)
    assert_allclose(clone(model).fit(X[:50]).transform(X), model.transform(X), rtol=1e-12)
    if not callable(network):  # which would be drawn from another seed
        assert_allclose(K, layer_kernels(network, X[:50]), rtol=1e-12)
        assert_allclose(
            model.transform(X[50:]), layer_kernels(network, X[50:], X[:50]), rtol=1e-12
        )
    assert model.layer_names_ == model._source.layer_names
    assert ("layer kernels" in capsys.readouterr().err) == bool(verbose)


def test_random_state_draws_the_network(iris):
    X = iris[0]
    one, same, other = (
        LayerKernels(MLP((8,)), random_state=seed).fit_transform(X) for seed in (0, 0, 1)
    )
    assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_types_names_and_many_dimensions(iris, rng):
    X = iris[0].astype(np.float32)
    model = LayerKernels(SMALL)
    assert model.fit_transform(X).dtype == model.transform(X).dtype == np.float32
    assert LayerKernels(SMALL, dtype="float64").fit_transform(X).dtype == np.float64
    frame = pd.DataFrame(iris[0], columns=list("abcd"))
    model.fit(frame)
    assert_array_equal(model.feature_names_in_, list("abcd"))
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame[list("dcba")])
    # There is no table of kernels, so there is none in pandas.
    assert not hasattr(model, "get_feature_names_out")
    assert not hasattr(model, "set_output")
    images = rng.standard_normal((6, 2, 4, 4))
    convolution = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 1))
    model = LayerKernels(convolution, layers={"all": ["*"]})
    assert model.fit_transform(images).shape == (6, 6, 1)
    assert get_tags(model).input_tags.three_d_array
    assert not get_tags(LayerKernels()).input_tags.three_d_array
    sequences = [rng.standard_normal((length, 2)) for length in (2, 5, 1)]
    model = LayerKernels(InfiniteRNN()).fit(sequences)
    assert model.transform([*sequences, np.zeros((7, 2))]).shape == (4, 3, 2)


def test_what_is_kept_is_not_pickled_but_computed_again(iris, monkeypatch):
    X = iris[0]
    model = LayerKernels(InfiniteMLP()).fit(X)
    prepared, prepare = [], ClosedFormKernels.prepare
    monkeypatch.setattr(
        ClosedFormKernels, "prepare", lambda self, X: prepared.append(len(X)) or prepare(self, X)
    )
    expected = model.transform(X[:3])
    assert prepared == [3]
    loaded = pickle.loads(pickle.dumps(model))
    assert_array_equal(loaded.transform(X[:3]), expected)
    loaded.transform(X[:2])
    assert prepared == [3, 3, 150, 2]
    assert_array_equal(clone(model).fit(X).transform(X[:3]), expected)


def test_parameters_are_refused_by_name(iris):
    X = iris[0]
    for parameters in ({"outputs": "per_class"}, {"layers": 3}, {"n_jobs": 1.5}):
        with pytest.raises(ValueError, match=next(iter(parameters))):
            LayerKernels(**parameters).fit(X)
    with pytest.raises(ValueError, match="network must be None"):
        LayerKernels("network").fit(X)
    with pytest.raises(NotFittedError):
        LayerKernels().transform(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        LayerKernels().fit(X, np.zeros(3))


def test_training_kernels_are_computed_once_for_each_fold(iris, tmp_path, monkeypatch):
    X, y = iris
    computed, gram = [], InfiniteMLPKernels.gram

    def counted(self, batch, progress=None):
        computed.append(len(batch))
        return gram(self, batch, progress)

    monkeypatch.setattr(InfiniteMLPKernels, "gram", counted)
    steps = [("kernels", LayerKernels(InfiniteMLP())), ("mkl", MultipleKernelClassifier())]
    grid = {"mkl__C": ["auto", 1.0], "mkl__kernel_weights": ["alignment", "uniform"]}
    search = GridSearchCV(Pipeline(steps, memory=str(tmp_path)), grid, cv=3).fit(X, y)
    assert computed == [100, 100, 100, 150]
    assert search.best_score_ > 0.93
    assert search.score(X, y) > 0.95
    # The same as with the classifier on networks, which computes them for each candidate.
    directly = {name.removeprefix("mkl__"): values for name, values in grid.items()}
    plain = GridSearchCV(MultiLayerNTKClassifier(InfiniteMLP()), directly, cv=3).fit(X, y)
    assert_allclose(
        search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], atol=1e-12
    )
    assert_allclose(
        search.best_estimator_.decision_function(X), plain.decision_function(X), rtol=1e-6
    )


def test_grid_over_the_network_and_processes(iris):
    X, y = iris
    model = Pipeline(
        [("kernels", LayerKernels(random_state=0)), ("mkl", MultipleKernelClassifier())]
    )
    grid = {"kernels__network__hidden_layer_sizes": [(64,), (32, 32)]}
    search = GridSearchCV(model, grid, cv=2, n_jobs=2).fit(X, y)
    assert search.best_score_ > 0.9
    assert cross_val_score(search.best_estimator_, X, y, cv=2).mean() > 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("network", [SMALL, InfiniteMLP(), InfiniteRNN()])
def test_fitted_on_cuda_serves_the_cpu(network, iris, monkeypatch):
    X = iris[0]
    model = LayerKernels(network, device="cuda").fit(X[:90])
    expected = model.transform(X)
    stored = pickle.dumps(model)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert_allclose(pickle.loads(stored).transform(X), expected, rtol=1e-6)
