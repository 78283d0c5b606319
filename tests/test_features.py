"""Contributions of features: identities, limits, invariances, and finite differences."""

import copy
import warnings
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
)
from sklearn_nftk.inspection import FeatureContributionsDisplay, layer_contributions
from sklearn_nftk.inspection import feature_contributions as of_features
from sklearn_nftk.kernels import KernelSource
from sklearn_nftk.networks import MLP, InfiniteMLP, InfiniteRNN

from . import zoo
from .test_displays import assert_readable

# Most tests are about the method that has a sum.
feature_contributions = partial(of_features, method="integrated")


def three_outputs(n_features, n_outputs, random_state):
    torch.manual_seed(random_state)
    return nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, n_outputs)).double()


def classifier(network=three_outputs, **parameters):
    return MultiLayerNTKClassifier(network, **{"random_state": 0, "C": 1.0, **parameters})


class Gaussians(KernelSource):
    """One kernel for each width."""

    layer_names = ("wide", "narrow")

    def block(self, batch, other=None):
        other = batch if other is None else other
        return np.stack([rbf_kernel(batch, other, gamma=gamma) for gamma in (0.05, 0.3)])[None]

    def diag(self, batch):
        return np.ones((1, 2, len(batch)))


KINDS = {
    "mean": classifier(),
    "sum": classifier(outputs="sum"),
    "per class": classifier(outputs="per_class"),
    "trace": classifier(normalize="trace"),
    "none": classifier(normalize="none"),
    "cosine": classifier(normalize="cosine"),
    "cosine, per class": classifier(normalize="cosine", outputs="per_class"),
    "hinge": classifier(loss="hinge"),
    "one group": classifier(layers={"all": ["*"]}),
    "MLP": classifier(MLP((16, 16), activation="gelu")),
    "infinite erf": classifier(InfiniteMLP(activation="erf")),
    "infinite tanh": classifier(InfiniteMLP(depth=1, activation="tanh")),
    "infinite relu": classifier(InfiniteMLP()),
    "infinite groups": classifier(InfiniteMLP(), layers={"all": ["*"]}),
    "infinite parts": classifier(InfiniteMLP(activation="erf", split_bias=True),
                                 kernel_weights="uniform"),
    "infinite cosine": classifier(InfiniteMLP(activation="erf"), normalize="cosine"),
    "recurrent": classifier(InfiniteRNN(activation="erf")),
    "source": classifier(Gaussians()),
    "source, cosine": classifier(Gaussians(), normalize="cosine"),
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    X, y = make_classification(
        60, 5, n_informative=4, n_redundant=0, n_classes=3, class_sep=1.0, random_state=0
    )
    return X, y, X[:4] + 0.1


@pytest.fixture(scope="module")
def fitted(data):
    X, y, _ = data
    models = {}
    for name, model in KINDS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a constant bias kernel
            models[name] = clone(model).fit(X, y)
    return models


def central_differences(value, X, step=1e-5):
    """``d value(X)[i] / d X[i]``, shape (n, n_decisions, L, *features), one entry at a time."""
    columns = []
    for index in np.ndindex(X.shape[1:]):
        ahead, behind = X.copy(), X.copy()
        ahead[(slice(None), *index)] += step
        behind[(slice(None), *index)] -= step
        columns.append((value(ahead) - value(behind)) / (2 * step))
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *X.shape[1:])


def assert_is(actual, expected, rtol):
    assert_allclose(actual, expected, rtol=0, atol=rtol * np.abs(expected).max())


# -- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_those_of_the_public_contributions(name, fitted, data):
    model, (_, _, test) = fitted[name], data
    expected = central_differences(lambda X: layer_contributions(model, X), test)
    by_layer = feature_contributions(model, test, method="gradient", per_layer=True)
    assert_is(by_layer, np.moveaxis(expected, 2, -1) * test[:, None, :, None], 1e-5)
    total = of_features(model, test)
    assert_is(total, expected.sum(axis=2) * test[:, None], 1e-5)


@pytest.mark.parametrize("outputs", ["mean", "per_class"])
def test_gradients_for_two_classes_and_for_targets(outputs, data):
    X, y, test = data
    two = classifier(outputs=outputs).fit(X, y > 0)
    regressor = MultiLayerNTKRegressor(three_outputs, outputs=outputs, random_state=0)
    for model, n_decisions in [(two, 1), (regressor.fit(X, X[:, :2]), 2)]:
        expected = central_differences(lambda X, m=model: layer_contributions(m, X), test)
        found = feature_contributions(model, test, method="gradient", baseline=test[0] * 0 + 3)
        assert found.shape == (4, n_decisions, 5)
        assert_is(found, expected.sum(axis=2) * (test - 3)[:, None], 1e-5)


SMOOTH = ["conv2d same grouped", "tokens", "batch norm 1d", "layer norm", "attention",
          "transformer", "lstm", "gru", "used twice", "outside forward", "tied", "frozen",
          "dropout", "spectral norm", "weight norm", "conv1d", "table"]  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_networks_of_every_kind(name):
    network, X = zoo.build()[name]
    X = np.concatenate([X.numpy(), X.numpy() * 0.7 + 0.05, -X.numpy()])
    y = np.arange(len(X)) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels that are constant
        model = classifier(network).fit(X, y)
    before = copy.deepcopy(model.network_.state_dict())
    expected = central_differences(lambda X: layer_contributions(model, X), X[:3])
    found = feature_contributions(model, X[:3], method="gradient", per_layer=True)
    assert_is(found, np.moveaxis(expected, 2, -1) * X[:3, None, ..., None], 1e-5)
    for key, value in model.network_.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter.grad is None for parameter in model.network_.parameters())


# -- integrated gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("baseline", [None, "one", "each"])
def test_integrated_gradients_sum_to_the_change_of_the_decision(name, baseline, fitted, data):
    model, (X, _, test) = fitted[name], data
    baseline = {None: None, "one": X[7] + 0.2, "each": test[::-1].copy()}[baseline]
    origin = X.mean(axis=0) if baseline is None else baseline
    phi = layer_contributions(model, np.broadcast_to(origin, test.shape).copy())
    change = layer_contributions(model, test) - phi
    found = feature_contributions(model, test, baseline=baseline, per_layer=True)
    assert found.shape == (*change.shape[:2], 5, change.shape[2])
    rtol = 1e-3 if name.startswith("infinite relu") else 1e-4
    assert_is(found.sum(axis=2), change, rtol)
    assert_is(feature_contributions(model, test, baseline=baseline), found.sum(axis=-1), 1e-7)


def test_contributions_of_a_linear_decision_are_known():
    rng = np.random.default_rng(0)
    X, test = rng.standard_normal((30, 4)), rng.standard_normal((3, 4))
    network = nn.Linear(4, 1).double()
    model = MultiLayerNTKRegressor(network, random_state=0).fit(X, X @ [1.0, -2.0, 0.0, 3.0])
    slope = model.predict(np.eye(4)) - model.predict(np.zeros((1, 4)))
    assert_allclose(
        feature_contributions(model, test)[:, 0], slope * (test - X.mean(axis=0)), atol=1e-10
    )
    gradients = feature_contributions(model, test, method="gradient")
    assert_allclose(gradients[:, 0], slope * test, atol=1e-10)


def test_a_feature_that_does_not_move_contributes_nothing(fitted, data):
    X, _, test = data
    test = test.copy()
    test[:, 2] = X[0, 2]
    found = feature_contributions(fitted["mean"], test, baseline=X[0])
    assert_array_equal(found[:, :, 2], 0)
    assert np.all(found[:, :, [0, 1, 3, 4]] != 0)


def test_weights_are_repetitions():
    rng = np.random.default_rng(0)
    X, test = rng.standard_normal((20, 3)), rng.standard_normal((3, 3))
    y, weight = X[:, 0] * X[:, 1] > 0, rng.integers(0, 4, 20)
    rows = np.repeat(np.arange(20), weight)
    weighted = classifier().fit(X, y, weight)
    repeated = classifier().fit(X[rows], y[rows])
    assert_is(feature_contributions(weighted, test), feature_contributions(repeated, test), 1e-6)


def test_more_nodes_change_nothing_where_few_are_enough(fitted, data):
    few, many = (feature_contributions(fitted["mean"], data[2], n_steps=n) for n in (20, 200))
    assert_is(few, many, 1e-8)


# -- what is missing ------------------------------------------------------------------------------


def test_kernels_that_jump_leave_a_residual_and_a_warning(data):
    X, y, test = data
    model = classifier(MLP((16, 16))).fit(X, y)
    with pytest.warns(UserWarning, match=r"miss up to \d+\.\d%.*return_residual=True"):
        contributions = feature_contributions(model, test)
    found = feature_contributions(model, test, return_residual=True)
    assert_array_equal(found.contributions, contributions)
    change = model.decision_function(test) - model.decision_function(X.mean(axis=0)[None])
    assert_allclose(contributions.sum(axis=2) + found.residual, change, atol=1e-10)
    split = feature_contributions(model, test, return_residual=True, per_layer=True)
    assert split.residual.shape == layer_contributions(model, test).shape
    assert_allclose(split.residual.sum(axis=2), found.residual, atol=1e-10)


def test_the_residual_of_a_gradient_is_that_of_the_linear_approximation(fitted, data):
    model, test = fitted["mean"], data[2]
    near = test + 1e-4
    found = feature_contributions(
        model, near, baseline=test, method="gradient", return_residual=True
    )
    assert np.abs(found.residual).max() < 1e-3 * np.abs(found.contributions).max()


# -- what estimators and samples are taken --------------------------------------------------------


def test_pipelines_and_searches(data):
    X, y, test = data
    pipeline = make_pipeline(StandardScaler(), classifier())
    search = GridSearchCV(pipeline, {"multilayerntkclassifier__C": [1.0]}, cv=2).fit(X, y)
    inner = search.best_estimator_
    expected = feature_contributions(inner[-1], inner[:-1].transform(test))
    assert_array_equal(feature_contributions(search, test), expected)


def test_data_frames(data):
    pd = pytest.importorskip("pandas")
    X, y, test = data
    names = list("abcde")
    model = classifier().fit(pd.DataFrame(X, columns=names), y)
    found = feature_contributions(model, pd.DataFrame(test, columns=names))
    assert_array_equal(found, feature_contributions(classifier().fit(X, y), test))


def test_single_precision_and_integers(data):
    X, y, test = data
    model, single = classifier().fit(X, y), classifier().fit(X.astype(np.float32), y)
    expected = feature_contributions(model, test)
    assert_is(feature_contributions(single, test.astype(np.float32)), expected, 1e-3)
    whole = np.round(3 * X).astype(int)
    of_ints, of_floats = (classifier().fit(Z, y) for Z in (whole, whole.astype(float)))
    assert_allclose(
        feature_contributions(of_ints, whole[:3]), feature_contributions(of_floats, whole[:3] / 1)
    )


def test_batches_do_not_matter(fitted, data):
    X = data[0]
    for name in ("mean", "infinite erf", "source"):
        expected = feature_contributions(fitted[name], X, n_steps=16)
        with config_context(working_memory=0.01):
            assert_is(feature_contributions(fitted[name], X[:5], n_steps=16), expected[:5], 1e-9)


@pytest.mark.parametrize("name", ["mean", "infinite erf", "cosine"])
def test_in_inference_mode(name, fitted, data):
    X, y, test = data
    expected = feature_contributions(fitted[name], test)
    with torch.inference_mode():
        model = clone(KINDS[name]).fit(X, y)
        assert_is(feature_contributions(model, test), expected, 1e-9)
    with torch.no_grad():
        assert_array_equal(feature_contributions(fitted[name], test), expected)


def test_sequences():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 6, 2))
    model = classifier(InfiniteRNN(activation="erf")).fit(X, np.arange(20) % 2)
    found = feature_contributions(model, X[:2] + 0.1, n_steps=16)
    assert found.shape == (2, 1, 6, 2)
    longer = rng.standard_normal((2, 8, 2))
    at_zero = feature_contributions(
        model, longer, n_steps=16, baseline=np.zeros((8, 2)), return_residual=True
    )
    assert np.abs(at_zero.residual).max() < 1e-4 * np.abs(at_zero.contributions).sum()
    with pytest.raises(ValueError, match=r"baseline must be .* of shape \(8, 2\)"):
        feature_contributions(model, longer)
    ragged = [rng.standard_normal((length, 2)) for length in (3, 5)]
    with pytest.raises(ValueError, match="X must be finite"):
        feature_contributions(model, ragged)


def test_what_is_refused(fitted, data):
    X, y, test = data
    model = fitted["mean"]
    for parameters, message in [
        ({"method": "shap"}, "method must be 'gradient' or 'integrated', got 'shap'"),
        ({"n_steps": 0}, "n_steps == 0, must be >= 1"),
        (
            {"baseline": test[0, :3]},
            r"baseline must be .*shape \(5,\).*got float64 of shape \(3,\)",
        ),
        ({"baseline": test[0] * np.nan}, "baseline must be None or finite"),
        ({"baseline": "zero"}, "baseline must be None or finite"),
        ({"baseline": test[:2]}, r"\(4, 5\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            feature_contributions(model, test, **parameters)
    with pytest.raises(ValueError, match="3 features"):
        feature_contributions(model, test[:, :3])
    kernels = MultipleKernelClassifier().fit(rbf_kernel(X), y)
    with pytest.raises(ValueError, match="precomputed kernels know nothing of the features"):
        feature_contributions(kernels, rbf_kernel(test, X))
    with pytest.raises(TypeError, match="estimator must be a fitted estimator"):
        feature_contributions(StandardScaler().fit(X), test)


def test_indices_have_no_derivative():
    network, words = zoo.build()["embedding"]
    words = np.concatenate([words.numpy(), (words.numpy() + 1) % 7])
    model = classifier(network).fit(words, np.arange(10) % 2)
    for method in ("integrated", "gradient"):
        with pytest.raises(ValueError, match="looks integers up in an embedding"):
            feature_contributions(model, words[:2], method=method)


class Once(torch.autograd.Function):
    """A function whose derivative cannot be differentiated again."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class OnceDifferentiable(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.leave(torch.tanh(Once.apply(self.enter(x))))


def test_networks_that_cannot_be_differentiated_twice_are_named(data):
    X, y, test = data
    torch.manual_seed(0)
    model = classifier(OnceDifferentiable().double()).fit(X, y)
    with pytest.raises(ValueError, match="network cannot be differentiated twice"):
        feature_contributions(model, test)


# -- the Display ----------------------------------------------------------------------------------


@pytest.fixture
def close_figures():
    yield
    plt.close("all")


def test_bars_of_the_predicted_class(fitted, data, close_figures):
    model, test = fitted["mean"], data[2]
    display = FeatureContributionsDisplay.from_estimator(model, test, method="integrated").plot(
        max_features=2
    )
    chosen = model.decision_function(test).argmax(axis=1)
    expected = feature_contributions(model, test)[range(4), chosen]
    assert_allclose(display.frame(), expected)
    assert display.frame().index.get_level_values("decision").tolist() == [*map(str, chosen)]
    for panel, phi in zip(display.axes_, expected, strict=True):
        largest = np.sort(np.abs(phi))[::-1][:2]
        widths = [bar.get_width() for bar in panel.patches]
        assert_allclose(np.abs(widths[:2]), largest)
        assert_allclose(sum(widths), phi.sum())
        assert panel.get_yticklabels()[2].get_text() == "3 others"
    assert_readable(display.figure_)
    other = FeatureContributionsDisplay.from_estimator(
        model, test, method="integrated", decision=1
    ).plot(sample=2)
    assert_allclose(other.frame(), feature_contributions(model, test)[:, 1])
    assert len(other.axes_) == 1


def test_names_of_columns_are_shown(data, close_figures):
    pd = pytest.importorskip("pandas")
    X, y, test = data
    names = ["height", "width", "depth", "weight", "age"]
    model = classifier().fit(pd.DataFrame(X, columns=names), y)
    frame = pd.DataFrame(test, columns=names)
    display = FeatureContributionsDisplay.from_estimator(model, frame, method="integrated").plot()
    assert display.frame().columns.tolist() == names
    texts = {label.get_text() for label in display.axes_[0].get_yticklabels()}
    assert f"depth = {test[0, 2]:.3g}" in texts


@pytest.mark.parametrize("shape", [(6, 7), (1, 6, 7), (3, 6, 7)])
def test_pictures_lie_below_contributions(shape, close_figures):
    rng = np.random.default_rng(0)
    X, contributions = rng.uniform(size=(7, *shape)), rng.normal(size=(7, 2, *shape))
    known = FeatureContributionsDisplay.from_contributions
    display = known(contributions, X, decision=1, decision_names=["cat", "dog"]).plot()
    assert_readable(display.figure_)
    below, above = (image.get_array() for image in display.axes_[3].images)
    assert_allclose(above, contributions[3, 1].reshape(-1, 6, 7).sum(axis=0))
    assert_allclose(below, X[3].reshape(-1, 6, 7).mean(axis=0))
    low, high = display.axes_[3].images[1].get_clim()
    assert low == -high
    assert "dog" in display.axes_[3].get_title()
    if len(shape) == 2:
        flat = known(contributions.reshape(7, 2, -1), X.reshape(7, -1), image_shape=shape)
        assert_array_equal(flat.contributions, contributions[:, 0])
        _, grid = plt.subplots(1, 2)
        assert flat.plot(grid[0], sample=2).axes_.shape == (1,)


def test_what_the_display_refuses():
    X, contributions = np.zeros((2, 6)), np.zeros((2, 3, 6))
    for parameters, message in [
        ({"contributions": contributions[:, :, :5]}, r"\(2, 3, 5\) for \(2, 6\)"),
        ({"decision": 3}, "decision must be in 0 to 2, got 3"),
        ({"image_shape": (2, 2)}, r"image_shape \(2, 2\) does not fit samples of 6 features"),
        ({"image_shape": (1, 1, 2, 3)}, "one to three axes"),
        ({"feature_names": ["a"]}, "feature_names has 1 entries for 6 features"),
    ]:
        with pytest.raises(ValueError, match=message):
            FeatureContributionsDisplay.from_contributions(
                **{"contributions": contributions, "X": X, **parameters}
            )
    with pytest.raises(ValueError, match="max_features"):
        FeatureContributionsDisplay.from_contributions(contributions, X).plot(max_features=0)
