"""`networks.KernelMLP`: a trained kernel network as the source of layer kernels."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier, MultiLayerNTKRegressor
from sklearn_nftk.inspection import (
    AlignmentCurvesDisplay,
    FeatureContributionsDisplay,
    KernelAlignmentDisplay,
    LayerContributionsDisplay,
    LayerGramsDisplay,
    LayerWeightsDisplay,
    TrainingContributionsDisplay,
    explain,
    feature_contributions,
    kernel_similarity,
    layer_ablation,
    layer_contributions,
    layer_values,
    network_fidelity,
    training_contributions,
    weight_stability,
)
from sklearn_nftk.kernel_networks import KernelMLPClassifier, KernelMLPRegressor
from sklearn_nftk.kernels import LayerKernels, layer_kernels, layer_names
from sklearn_nftk.networks import KernelMLP

from . import reference

pytest.importorskip("skorch")

NETWORK = KernelMLP((6, 4), epochs=15)


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return train_test_split(StandardScaler().fit_transform(X), y, random_state=0)


@pytest.fixture(scope="module")
def fitted(iris):
    X, _, y, _ = iris
    return MultiLayerNTKClassifier(NETWORK, cv=3, random_state=0).fit(X, y)


# -- kernels


def test_kernels_are_those_of_the_trained_layers(iris):
    X, new, y, _ = iris
    source = NETWORK.kernel_source(X, y, seed=3, n_outputs=3)
    network = source.network
    layers = [(layer.sigma, layer.weight, layer.bias) for layer in network.layers]
    images = reference.kernel_network(new, network.centers, layers)
    batch, other = source.prepare(new), source.prepare(X[:9])
    others = reference.kernel_network(X[:9], network.centers, layers)
    for index, (sigma, *_) in enumerate(layers):
        expected = reference.gaussian_kernel(images[index], others[index], sigma)
        assert_allclose(source.block(batch, other)[0, index], expected, rtol=1e-7, atol=1e-10)
    assert source.layer_names == layer_names(NETWORK) == ["layer0", "layer1", "layer2"]
    assert_allclose(source.network_outputs(new), images[-1], rtol=1e-8, atol=1e-10)


def test_the_network_is_that_of_the_classifier(iris):
    X, new, y, _ = iris
    X, first = np.unique(X, axis=0, return_index=True)
    y = y[first]
    classifier = KernelMLPClassifier((6, 4), epochs=15, random_state=0).fit(X, y)
    machine = MultiLayerNTKClassifier(NETWORK, random_state=0).fit(X, y)
    network = machine.network_
    assert [layer.weight.shape for layer in network.layers] == [
        layer.weight.shape for layer in classifier.network_.layers
    ]
    assert_allclose(network.sigmas[0], classifier.sigmas_[0])
    given = clone(NETWORK).set_params(random_state=1)
    one, two = (given.kernel_source(X, y, seed=seed) for seed in (0, 1))
    assert_array_equal(one.gram(one.prepare(new)), two.gram(two.prepare(new)))


def test_patterns_group_layers(iris):
    X, _, y, _ = iris
    layers = {"input": "layer0", "trained": ["layer[12]"]}
    machine = MultiLayerNTKClassifier(NETWORK, layers=layers, random_state=0).fit(X, y)
    assert machine.layer_names_ == ["input", "trained"] == layer_names(NETWORK, layers=layers)
    single = MultiLayerNTKClassifier(NETWORK, random_state=0).fit(X, y)
    kernels = [m.kernel_source_ for m in (machine, single)]
    grouped, apart = (source.gram(source.prepare(X))[0] for source in kernels)
    assert_allclose(grouped[1], apart[1] + apart[2])


# -- cross-fitting


def test_networks_are_cross_fitted_as_trained_networks_are(fitted, iris):
    X, new, _, true = iris
    assert len(fitted.networks_) == 3
    assert fitted.oof_scores_.shape == (len(X), 3)
    assert not hasattr(fitted, "loo_scores_")
    # Each network knows the rows of the other folds alone: they are its centers.
    distinct = {row.tobytes() for row in fitted.X_fit_}
    for fold, network in enumerate(fitted.networks_):
        known = {row.tobytes() for row in network.centers}
        own = {
            row.tobytes()
            for row in fitted.X_fit_[fitted._training.rows.first][fitted._folds == fold]
        }
        assert known < distinct
        assert not known & own
    assert fitted.score(new, true) > 0.85
    assert_allclose(fitted.kernel_weights_.sum(axis=1), 1)
    loaded = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(loaded.decision_function(new), fitted.decision_function(new))
    assert b"torch" not in pickle.dumps(fitted.kernel_source_)


def test_kernels_of_known_labels_are_optimistic_and_cross_fitted_ones_are_not(rng):
    X, y = rng.standard_normal((80, 5)), np.tile([0, 1], 40)  # nothing to be learned
    network = KernelMLP((10,), epochs=100, weight_decays=0.0)
    known = MultiLayerNTKClassifier(network, random_state=0).fit(X, y)
    honest = MultiLayerNTKClassifier(network, cv=4, random_state=0).fit(X, y)
    signs = 2 * y[:, None] - 1
    claimed = [np.mean(scores * signs > 0) for scores in (known.loo_scores_, honest.oof_scores_)]
    assert claimed[0] > claimed[1] + 0.15
    assert claimed[1] < 0.65


# -- inspection


def test_contributions_and_all_inspection(fitted, iris, tmp_path):
    X, new, y, true = iris
    few = new[:3]
    phi = layer_contributions(fitted, few)
    assert phi.shape == (3, 3, 3)
    assert_allclose(phi.sum(axis=2) + fitted.intercept_, fitted.decision_function(few))
    of_examples = training_contributions(fitted, few)
    assert_allclose(of_examples.sum(axis=2), phi.sum(axis=2), atol=1e-8)
    assert network_fidelity(fitted, new, true).agreement > 0.8
    assert kernel_similarity(fitted).layers.shape == (3, 3)
    assert layer_ablation(fitted, new, true) is not None
    assert layer_values(fitted, new, true, training=(X, y)) is not None
    assert weight_stability(fitted, X, y, n_resamples=3) is not None
    features = feature_contributions(fitted, few)
    assert features is not None
    for display in (
        LayerWeightsDisplay.from_estimator(fitted),
        KernelAlignmentDisplay.from_estimator(fitted),
        LayerContributionsDisplay.from_estimator(fitted, few),
        TrainingContributionsDisplay.from_estimator(fitted, few[:1]),
        FeatureContributionsDisplay.from_estimator(fitted, few[:2]),
    ):
        assert len(display.frame())
    assert "layer2" in explain(fitted, few, path=tmp_path / "page.html").read_text()


def test_real_targets_and_grids(iris):
    X, new, y, _ = iris
    model = MultiLayerNTKRegressor(NETWORK, cv=2, random_state=0).fit(X, X[:, 2] * 30)
    assert model.score(new, new[:, 2] * 30) > 0.9
    assert model.kernel_source_.n_outputs == 1
    grid = {"network__hidden_layer_sizes": [(3,), (5, 5)]}
    search = GridSearchCV(MultiLayerNTKClassifier(NETWORK), grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.8
    kernels = LayerKernels(NETWORK, random_state=0).fit(X, y, sample_weight=1.0 * (y > 0))
    assert kernels.transform(new).shape == (len(new), len(X), 3)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (KernelMLP(objective="none"), {}, "'objective' parameter"),
        (KernelMLP(epochs=[1, 2, 3]), {}, "epochs must be a number or one number for each"),
        (NETWORK, {"outputs": "per_class"}, "outputs has no meaning for network=KernelMLP"),
        (NETWORK, {"layers": {"first": "layer0"}}, "layer1"),
    ],
)
def test_errors_name_the_parameter(network, options, message, iris):
    X, _, y, _ = iris
    with pytest.raises(ValueError, match=message):
        MultiLayerNTKClassifier(network, **options).fit(X, y)


def test_kernels_need_targets(iris):
    with pytest.raises(ValueError, match="needs y"):
        layer_kernels(NETWORK, iris[0])


def test_kernels_of_images_need_features():
    X, y = np.random.default_rng(0).standard_normal((20, 1, 4, 4)), np.tile([0, 1], 10)
    features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
    network = KernelMLP((3,), features=features, train_features=True, epochs=3)
    machine = MultiLayerNTKClassifier(network, cv=2, random_state=0).fit(X, y)
    assert machine.layer_names_ == ["features.0", "layer0", "layer1"] == layer_names(network)
    assert machine.decision_function(X).shape == (20,)
    with pytest.raises(ValueError, match="dim 4"):
        MultiLayerNTKClassifier(NETWORK).fit(X, y)


# -- displays


@pytest.fixture(scope="module")
def trained(iris):
    X, _, y, _ = iris
    model = make_pipeline(StandardScaler(), KernelMLPClassifier((6, 4), epochs=[20, 30, 10]))
    return model.fit(X, np.array(["a", "b", "c"])[y])


def test_grams_sorted_by_class(trained, iris):
    _, new, _, true = iris
    labels = np.array(["a", "b", "c"])[true]
    display = LayerGramsDisplay.from_estimator(trained, new, labels)
    order = np.argsort(labels, kind="stable")
    expected = trained[-1].layer_grams(trained[:-1].transform(new[order]))
    assert_allclose(display.after, np.moveaxis(expected, 2, 0), rtol=1e-9, atol=1e-12)
    assert_array_equal(display.before[0], display.after[0])
    frame = display.frame()
    assert frame.index.tolist() == ["layer0", "layer1", "layer2"]
    scores = trained[-1].score_hidden(trained[:-1].transform(new), labels)
    assert_allclose(frame["after"].iloc[1:], scores)
    ones = np.ones(len(true))
    for layer in range(3):
        first = reference.ideal_alignment(display.before[layer], labels[order], ones)
        assert_allclose(frame["before"].iloc[layer], first)
    same = labels[order][:, None] == labels[order]
    assert_allclose(frame["between"], [K[~same].mean() for K in display.after])
    display.plot()
    assert len(display.images_) == 5
    assert display.axes_[0, 0] is display.axes_[1, 0]
    assert_array_equal(display.images_[-1].get_array(), display.after[2])
    few = LayerGramsDisplay.from_estimator(trained, new, labels, max_samples=10)
    assert few.after.shape == (3, 10, 10)


def test_curves_of_alignment(trained):
    display = AlignmentCurvesDisplay.from_estimator(trained)
    frame = display.plot().frame()
    assert frame.shape == (30, 2)
    assert frame["layer0"].isna().sum() == 10
    for line, curve in zip(display.lines_, trained[-1].alignment_curve_, strict=True):
        assert_array_equal(line.get_ydata(), curve)


def test_grams_sorted_by_target(iris):
    X = iris[0]
    model = KernelMLPRegressor((5,), epochs=5).fit(X, X[:, 0])
    display = LayerGramsDisplay.from_estimator(model, X, X[:, 0])
    assert (np.diff(display.y) >= 0).all()
    assert list(display.plot().frame()) == ["before", "after"]


def test_displays_refuse_other_estimators(fitted, iris):
    X, _, y, _ = iris
    for display in (AlignmentCurvesDisplay, LayerGramsDisplay):
        data = () if display is AlignmentCurvesDisplay else (X, y)
        with pytest.raises(TypeError, match="KernelMLPClassifier"):
            display.from_estimator(fitted, *data)
    flat = KernelMLPClassifier((), epochs=2).fit(X, y)
    with pytest.raises(ValueError, match="no hidden layer"):
        AlignmentCurvesDisplay.from_estimator(flat)
    with pytest.raises(ValueError, match="max_samples"):
        LayerGramsDisplay.from_estimator(flat, X, y, max_samples=0)
