import copy
import math
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import WhiteKernel
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import shuffle

from sklearn_nftk import MultiLayerNTKClassifier, MultiLayerNTKRegressor
from sklearn_nftk.closed_form._dual import DUALS, Quadrature, dual_activation
from sklearn_nftk.inspection import layer_contributions
from sklearn_nftk.kernels import layer_kernel_diag, layer_kernels, layer_names
from sklearn_nftk.networks import MLP, InfiniteMLP

from . import reference

CLOSED = ["relu", "leaky_relu", "abs", "linear", "erf", "sin", "cos"]
SMOOTH = ["gelu", "silu", "tanh", "sigmoid", "softplus"]
FUNCTIONS = {
    "relu": torch.relu,
    "leaky_relu": lambda u: torch.nn.functional.leaky_relu(u, 0.2),
    "abs": torch.abs,
    "linear": lambda u: 1.0 * u,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
}


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


def with_derivative(function, u):
    values, pull = torch.func.vjp(function, u)
    return values, pull(torch.ones_like(u))[0]


# -- dual activations ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLOSED + SMOOTH)
def test_duals_are_gaussian_expectations(name):
    dual = dual_activation(name, 0.2)
    function = FUNCTIONS.get(name) or dual.function
    p, q, n = 1.2, 0.7, 400_000
    normal = torch.randn(2, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for c in (-0.9, 0.1, 0.8):
        u = p * normal[0]
        v = q * (c * normal[0] + math.sqrt(1 - c * c) * normal[1])
        at_u, at_v = with_derivative(function, u), with_derivative(function, v)
        for found, samples in zip(
            dual(tensor(c), tensor(p), tensor(q)),
            (at_u[0] * at_v[0], at_u[1] * at_v[1]),
            strict=True,
        ):
            error = float(samples.std()) / math.sqrt(n)
            assert_allclose(float(found), float(samples.mean()), atol=4 * error + 1e-12)


@pytest.mark.parametrize("name", CLOSED + SMOOTH)
def test_diagonals_are_the_duals_of_equal_variables(name):
    dual = dual_activation(name, 0.2)
    p = tensor([0.0, 0.1, 1.0, 2.0])
    for exact, found in zip(dual.diagonal(p), dual(torch.ones(4).double(), p, p), strict=True):
        assert_allclose(exact[1:], found[1:], rtol=1e-8)


@pytest.mark.parametrize("name", ["erf", "sin", "cos", "linear"])
def test_quadrature_agrees_with_closed_forms(name):
    p, q = tensor([0.0, 0.3, 1.0, 2.0, 3.0])[:, None, None], tensor([0.5, 1.5, 3.0])[:, None]
    c = tensor([-1.0, -0.95, 0.0, 0.5, 0.999, 1.0])
    for found, exact in zip(
        Quadrature(FUNCTIONS[name])(c, p, q), dual_activation(name)(c, p, q), strict=True
    ):
        assert_allclose(
            found, exact.expand(found.shape), rtol=0, atol=1e-8 * float(exact.abs().max())
        )


def integral(function, c, p, q):
    """V and V' by trapezoidal rules in one or two dimensions, much finer than the quadrature."""
    n, end = (100_001, 12) if c == 1 else (1601, 9)
    x = torch.linspace(-end, end, n, dtype=torch.float64)
    density = torch.exp(-(x**2) / 2)
    density /= density.sum()
    at_x = with_derivative(function, p * x)
    if c == 1:
        at_y = with_derivative(function, q * x)
        return [float(density @ (u * v)) for u, v in zip(at_x, at_y, strict=True)]
    y = c * x[:, None] + math.sqrt(1 - c * c) * x
    at_y = with_derivative(function, q * y)
    return [float((density * u) @ v @ density) for u, v in zip(at_x, at_y, strict=True)]


# Largest deviations of the user guide: V and V' to 1e-8, both to 1e-6, V alone to 1e-8.
STATED = {
    "tanh": (2.5, 3.1, 3.2),
    "gelu": (5.1, 6.0, 6.4),
    "silu": (5.4, 6.9, 7.6),
    "sigmoid": (5.1, 6.3, 6.7),
    "softplus": (6.7, 9.0, 10.3),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_stated_accuracy_of_quadrature(name):
    dual, (fine, coarse, alone) = dual_activation(name), STATED[name]
    for p in (0.1, 1.0, fine):
        one, p = tensor(1.0), tensor(p)
        assert_allclose(dual(one, p, p), integral(dual.function, 1, p, p), rtol=1e-8)
        assert_allclose(torch.cat(dual.diagonal(p[None])), dual(one, p, p), rtol=1e-12)
    p = tensor(coarse)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which begin a little earlier
        assert_allclose(dual(one, p, p), integral(dual.function, 1, p, p), rtol=1e-6)
        p = tensor(alone)
        V = dual(one, p, p)[0]
    assert_allclose(V, integral(dual.function, 1, p, p)[0], rtol=1e-8)
    assert dual.error(2 * coarse) > 1e-5  # which the statement is not shy of
    for c, p, q in [(-0.95, fine, fine), (0.0, 1.0, fine), (0.5, fine, 0.3), (0.99, fine, fine)]:
        scales = [math.sqrt(a * b) for a, b in zip(*(dual.diagonal(tensor(s)) for s in (p, q)),
                                                   strict=True)]  # fmt: skip
        found = dual(tensor(c), tensor(p), tensor(q))
        for value, exact, scale in zip(found, integral(dual.function, c, p, q), scales,
                                       strict=True):  # fmt: skip
            assert abs(float(value) - exact) <= 1e-8 * scale


def test_quadrature_warns_once_where_it_is_not_accurate():
    # relu6 has kinks, tanh of a large variable is a step, and the nodes of sine alias.
    for function, p in [(torch.nn.functional.relu6, 1.0), (torch.tanh, 3.2), (torch.tanh, 300.0),
                        (torch.sin, 32.0)]:  # fmt: skip
        dual = Quadrature(function)
        with pytest.warns(UserWarning, match="activation: the quadrature of"):
            dual(tensor(1.0), tensor(p), tensor(p))
        dual(tensor(1.0), tensor(p), tensor(p))


@pytest.mark.parametrize(
    ("name", "p"), [("relu", 1.0), ("abs", 1.0), ("erf", 4.0), ("erf", 8.0), ("sin", 32.0)]
)
def test_error_of_quadrature_is_bounded_for_every_correlation(name, p):
    quadrature, closed = Quadrature(FUNCTIONS[name]), dual_activation(name)
    bound, p = float(quadrature.error(p)), tensor(p)
    c = torch.linspace(-1, 1, 201, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = quadrature(c, p, p)
    errors = [
        float((value - exact).abs().max() / diagonal)
        for value, exact, diagonal in zip(found, closed(c, p, p), closed.diagonal(p), strict=True)
    ]
    assert bound / 20 <= max(errors) <= 1.1 * bound


def test_names_and_functions_are_recognised():
    X = np.array([[1.0, 0.5], [-0.3, 2.0]])
    by_name = layer_kernels(InfiniteMLP(activation="tanh"), X)
    assert_allclose(layer_kernels(InfiniteMLP(activation=torch.nn.Tanh()), X), by_name)
    for bad in ("sofplus", 3, torch.nn.ReLU, lambda u: u.sum(), lambda u: u.numpy()):
        with pytest.raises(ValueError, match="activation"):
            layer_kernels(InfiniteMLP(activation=bad), X)


# -- layer kernels -------------------------------------------------------------------------------


def test_golden_values():
    X = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 2.0]])
    network = InfiniteMLP(2, "relu", [2, 2, 1], 0.09, split_bias=True)
    kernels = layer_kernels(network, X)
    found = np.array([kernels[0, 1], kernels[0, 2], kernels[1, 2], kernels[0, 0]]).T
    expected = [
        [0.1632358137, -0.1041128958, 0.2292959751, 0.5],
        [0.0244853721, 0.0093701606, 0.0206366378, 0.045],
        [0.2894669104, 0.0979018990, 0.4832694683, 0.545],
        [0.0340932619, 0.0250713835, 0.0315960271, 0.045],
        [0.4531366382, 0.5101331067, 0.8316423026, 0.59],
        [0.09, 0.09, 0.09, 0.09],
    ]
    assert_allclose(found, expected, rtol=0, atol=1e-9)
    total = kernels.sum(axis=2)
    assert_allclose(total[[0, 0, 1, 0], [1, 2, 2, 0]],
                    [1.0544179963, 0.6283636540, 1.6864404109, 1.815],
                    rtol=0, atol=1e-9)  # fmt: skip
    assert_allclose(network.nngp(X)[[0, 0, 1, 0], [1, 2, 2, 0]],
                    [0.5431366382, 0.6001331067, 0.9216423026, 0.68],
                    rtol=0, atol=1e-9)  # fmt: skip


def test_total_and_nngp_of_neural_tangents():
    data = np.load(Path(__file__).parent / "data" / "neural_tangents_mlp.npz")
    network = InfiniteMLP(3, "relu", [1.3**2] * 3 + [0.9**2], 0.4**2)
    assert_allclose(layer_kernels(network, data["X"]).sum(axis=2), data["ntk"], rtol=1e-6)
    assert_allclose(network.nngp(data["X"]), data["nngp"], rtol=1e-6)


@pytest.mark.parametrize(("activation", "dual"),
                         [("relu", reference.relu_dual), ("erf", reference.erf_dual)])  # fmt: skip
def test_layers_are_those_of_a_double_loop(activation, dual, rng):
    X, Z = rng.standard_normal((7, 3)), rng.standard_normal((4, 3))
    w, b = [1.5, 2.0, 0.7, 1.0], [0.3, 0.0, 0.2, 0.1]
    network = InfiniteMLP(3, activation, w, b)
    expected = np.moveaxis(reference.infinite_mlp(X, Z, w, b, dual), 0, -1)
    assert_allclose(layer_kernels(network, X, Z), expected, rtol=1e-12)
    diagonal = np.moveaxis(reference.infinite_mlp(X, X, w, b, dual), 0, -1)
    assert_allclose(layer_kernel_diag(network, X), diagonal[range(7), range(7)], rtol=1e-7)


def test_scalars_stand_for_every_layer_the_readout_included(rng):
    X = rng.standard_normal((4, 3))
    assert_array_equal(layer_kernels(InfiniteMLP(2, "erf", 1.7, 0.2), X),
                       layer_kernels(InfiniteMLP(2, "erf", [1.7] * 3, (0.2,) * 3), X))  # fmt: skip


def test_groupings_add_up(rng):
    X = rng.standard_normal((6, 3))
    whole = layer_kernels(InfiniteMLP(2), X)
    parts = layer_kernels(InfiniteMLP(2, split_bias=True), X)
    assert_allclose(parts[..., ::2] + parts[..., 1::2], whole, rtol=1e-12)
    groups = {"biases": ["*.bias"], "rest": ["*.weight"]}
    network = InfiniteMLP(2, split_bias=True)
    assert layer_names(network, layers=groups) == ["biases", "rest"]
    grouped = layer_kernels(network, X, layers=groups)
    assert_allclose(grouped[..., 0], parts[..., 1::2].sum(axis=2), rtol=1e-12)
    assert_allclose(grouped.sum(axis=2), whole.sum(axis=2), rtol=1e-12)
    for groups in ({"a": ["layer0*"]}, {"a": ["*"], "b": ["layer1*"]}, {"a": ["*"], "b": "x"}, {}):
        with pytest.raises(ValueError, match="layers"):
            layer_kernels(network, X, layers=groups)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_finite_networks_converge_to_every_layer(activation, rng):
    X = rng.standard_normal((10, 4))
    limit = layer_kernels(InfiniteMLP(2, activation, 2.0, 0.1), X)
    widths = [32, 128, 512]
    errors = np.zeros((len(widths), 3))
    for k, (width, n_seeds) in enumerate(zip(widths, [32, 16, 12], strict=True)):
        for seed in range(n_seeds):  # narrow networks are cheap, and vary more
            finite = MLP((width, width), activation, bias_variance=0.1, random_state=seed)
            difference = layer_kernels(finite, X) - limit
            errors[k] += np.linalg.norm(difference, axis=(0, 1)) / n_seeds
    slopes = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert ((slopes > -0.7) & (slopes < -0.35)).all(), slopes


def test_tiles_diagonals_and_threads_agree(monkeypatch, rng):
    X = rng.standard_normal((23, 3))
    network = InfiniteMLP(2)
    source = network.kernel_source(X)
    whole = source.gram(source.prepare(X))
    assert_array_equal(whole, whole.swapaxes(2, 3))
    source = network.kernel_source(X, n_jobs=2)
    source.cpu_tile_rows = 5
    batch = source.prepare(X)
    tiled = source.gram(batch)
    assert_allclose(tiled, whole, rtol=1e-12)
    assert_array_equal(tiled, tiled.swapaxes(2, 3))
    assert_array_equal(source.block(batch), tiled)
    assert_allclose(source.block(batch, batch[:4]), whole[..., :4], rtol=1e-12)
    assert_array_equal(source.diag(batch), whole.diagonal(axis1=2, axis2=3))
    seen = np.zeros(whole.shape)
    for rows, columns, tile in source.tiles(batch):
        seen[:, :, rows, columns] = tile
        seen[:, :, columns, rows] = tile.swapaxes(2, 3)
    assert_array_equal(seen, tiled)


def test_tiles_that_do_not_fit_are_halved(monkeypatch, rng):
    X = rng.standard_normal((21, 3))
    source = InfiniteMLP(2).kernel_source(X)
    batch, tried, planes = source.prepare(X), [], source._planes
    whole = source.gram(batch)

    def short_of_memory(x, y):
        tried.append((len(x), len(y)))
        if len(x) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return planes(x, y)

    monkeypatch.setattr(source, "_planes", short_of_memory)
    assert_allclose(source.gram(batch), whole, rtol=1e-12)
    assert_allclose(source.block(batch, batch[:9]), whole[..., :9], rtol=1e-9)
    assert {(21, 21), (10, 10), (5, 5)} <= set(tried)


def test_only_the_upper_half_is_computed(monkeypatch, rng):
    X = rng.standard_normal((20, 3))
    source = InfiniteMLP().kernel_source(X)
    source.cpu_tile_rows = 5
    calls, planes = [], source._planes
    batch = source.prepare(X)
    monkeypatch.setattr(source, "_planes", lambda x, y: calls.append(1) or planes(x, y))
    source.gram(batch)
    assert len(calls) == 10


# -- hostile rows --------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "abs", "erf", "sin", "tanh"])
@pytest.mark.parametrize("bias_variance", [0.0, 0.1])
def test_zero_duplicated_and_opposite_rows(activation, bias_variance, rng):
    X = np.vstack([np.zeros((2, 300)), rng.standard_normal((3, 300))])
    X = np.vstack([X, X[2:], -X[2:], 2 * X[2:]])
    network = InfiniteMLP(3, activation, 1.0, bias_variance)
    kernels = layer_kernels(network, X)
    assert np.isfinite(kernels).all()
    # Equal rows are equal to every kernel, on the diagonal or off it.
    diagonal = layer_kernel_diag(network, X)
    assert_allclose(kernels[2:5, 5:8][range(3), range(3)], diagonal[2:5], rtol=1e-13, atol=1e-300)
    assert_allclose(kernels[0, 1], diagonal[0], rtol=1e-13, atol=1e-300)
    assert_allclose(layer_kernels(network, X, X), kernels, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20, 1e140])
def test_relu_kernels_scale_with_their_rows(scale, rng):
    X = rng.standard_normal((6, 3))
    network = InfiniteMLP(2, bias_variance=0.0)
    assert_allclose(
        layer_kernels(network, scale * X), scale**2 * layer_kernels(network, X), rtol=1e-9
    )


@pytest.mark.parametrize("activation", [*CLOSED, *SMOOTH])
@pytest.mark.parametrize("scale", [1e-160, 1e150])
def test_no_nan_for_huge_and_tiny_rows(activation, scale, rng):
    X = np.vstack([scale * rng.standard_normal((3, 2)), rng.standard_normal((2, 2))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(layer_kernels(InfiniteMLP(2, activation), X)).all()


def test_overflow_names_the_layer():
    with pytest.raises(ValueError, match=r"layer 'layer0'.*overflows"):
        layer_kernels(InfiniteMLP(), np.full((2, 2), 1e200))
    with pytest.raises(ValueError, match="layer 'layer0'"):
        layer_kernels(InfiniteMLP(), np.full((2, 2), 1e25), dtype="float32")


rows = arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 4)),
    elements=st.floats(-5, 5, allow_subnormal=False),
)


@settings(max_examples=40, deadline=None)
@given(X=rows, depth=st.integers(1, 3), name=st.sampled_from(["relu", "abs", "erf", "cos"]))
def test_kernels_are_positive_semidefinite_and_permute_with_rows(X, depth, name):
    network = InfiniteMLP(depth, name)
    kernels = np.moveaxis(layer_kernels(network, X), -1, 0)
    assert np.isfinite(kernels).all()
    values = np.linalg.eigvalsh(kernels)
    assert (values[:, 0] >= -1e-8 * values[:, -1]).all()
    order = np.arange(len(X))[::-1]
    permuted = np.moveaxis(layer_kernels(network, X[order]), -1, 0)
    assert_allclose(permuted, kernels[:, order][:, :, order], rtol=1e-6, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(X=rows, depth=st.integers(1, 3), name=st.sampled_from(["relu", "leaky_relu", "erf"]))
def test_repeated_and_zero_rows_change_no_other(X, depth, name):
    network = InfiniteMLP(depth, name)
    kernels = layer_kernels(network, X)
    n, X = len(X), np.vstack([X, X, np.zeros_like(X[:1])])
    more = layer_kernels(network, X)
    assert np.isfinite(more).all()
    assert_allclose(more[:-1, :-1], np.tile(kernels, (2, 2, 1)), rtol=1e-6, atol=1e-12)
    # A zero row is one with the biases alone, whatever the number of features.
    alone = layer_kernels(network, np.zeros((1, 1)))
    assert_allclose(more[-1, -1], alone[0, 0], rtol=1e-13)
    assert_allclose(layer_kernels(network, X[n:])[-1], more[-1, n:], rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    X=rows,
    power=st.integers(-60, 60),
    slope=st.floats(-1, 1).map(lambda slope: round(slope, 6)),
    depth=st.integers(1, 3),
)
def test_rectifiers_without_biases_scale(X, power, slope, depth):
    X, slope = X.round(6), round(slope, 6)  # squares of 1e-155 and less are subnormal numbers
    network = InfiniteMLP(depth, "leaky_relu", bias_variance=0.0, negative_slope=slope)
    scaled = layer_kernels(network, 2.0**power * X) / 4.0**power
    assert_allclose(scaled, layer_kernels(network, X), rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(X=rows)
def test_float32_input_is_only_rounded(X):
    X = X.astype(np.float32)
    kernels = layer_kernels(InfiniteMLP(), X)
    assert kernels.dtype == np.float64
    assert_array_equal(kernels, layer_kernels(InfiniteMLP(), X.astype(np.float64)))
    assert layer_kernels(InfiniteMLP(), X, dtype="float32").dtype == np.float32


# -- specification and estimators ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"depth": 0}, "depth"),
        ({"depth": 2.0}, "depth"),
        ({"depth": True}, "depth"),
        ({"activation": "rely"}, "activation.*'relu'"),
        ({"weight_variance": -1.0}, "weight_variance"),
        ({"weight_variance": [1.0, 2.0]}, "weight_variance.*3 parameter layers"),
        ({"bias_variance": np.inf}, "bias_variance"),
        ({"negative_slope": "steep"}, "negative_slope"),
    ],
)
def test_parameters_are_refused_by_name_when_used(parameters, match, three_classes):
    network = InfiniteMLP(**parameters)
    with pytest.raises(ValueError, match=match):
        layer_kernels(network, np.eye(2))
    with pytest.raises(ValueError, match=match):
        MultiLayerNTKClassifier(network).fit(*three_classes)


def test_bias_of_the_readout_gets_no_weight(two_classes):
    model = MultiLayerNTKClassifier(InfiniteMLP(1, split_bias=True))
    with pytest.warns(
        UserWarning, match=r"zero or constant.*\['layer1.bias'\]; they get weight 0"
    ):
        model.fit(*two_classes)
    assert model.kernel_weights_[0, 3] == 0


def test_per_class_outputs_are_refused(three_classes):
    with pytest.raises(ValueError, match=r"outputs='per_class'.*share one kernel"):
        MultiLayerNTKClassifier(InfiniteMLP(), outputs="per_class").fit(*three_classes)


def test_estimators_take_it_like_any_network(three_classes):
    X, y = three_classes
    network = InfiniteMLP(depth=1)
    model = MultiLayerNTKClassifier(network).fit(X, y)
    assert model.network_ is not network
    assert model.network_.get_params() == network.get_params()
    assert model.layer_names_ == ["layer0", "layer1"] == layer_names(network)
    assert model.score(X, y) > 0.7
    phi = layer_contributions(model, X)
    assert_allclose(phi.sum(axis=2) + model.intercept_, model.decision_function(X), rtol=1e-10)
    loaded = pickle.loads(pickle.dumps(model))
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    # A repeated row is a row of weight two.
    weight = np.ones(len(y))
    weight[:20] = 2
    repeated = clone(model).fit(np.vstack([X, X[:20]]), np.concatenate([y, y[:20]]))
    weighted = clone(model).fit(X, y, sample_weight=weight)
    assert_allclose(
        weighted.decision_function(X), repeated.decision_function(X), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("normalize", ["variance", "cosine"])
def test_decisions_come_from_the_kernels(normalize, two_classes):
    X, y = two_classes
    network = InfiniteMLP(2, "erf")
    model = MultiLayerNTKClassifier(network, normalize=normalize).fit(X[:40], y[:40])
    kernels = layer_kernels(network, X[40:], X[:40])
    if normalize == "cosine":
        a, b = layer_kernel_diag(network, X[40:]), layer_kernel_diag(network, X[:40])
        kernels = kernels / np.sqrt(a[:, None] * b[None])
    weights = model.kernel_weights_[0] / model.layer_scales_
    decisions = kernels @ weights @ model.dual_coef_[0] + model.intercept_
    assert_allclose(model.decision_function(X[40:]), decisions, rtol=1e-9)


def test_streamed_and_stored_fits_agree(three_classes, monkeypatch):
    X, y = three_classes
    stored = MultiLayerNTKClassifier(InfiniteMLP()).fit(X, y)
    monkeypatch.setattr("sklearn_nftk.grams._streamed.fits", lambda n_bytes: False)
    monkeypatch.setattr("sklearn_nftk.grams._streamed.StoredGrams", None)  # cannot be made
    streamed = MultiLayerNTKClassifier(InfiniteMLP()).fit(X, y)
    assert_allclose(streamed.decision_function(X), stored.decision_function(X), rtol=1e-6)


def test_grids_pipelines_and_regression():
    X, y = shuffle(*load_iris(return_X_y=True), random_state=0)
    model = make_pipeline(StandardScaler(), MultiLayerNTKClassifier(InfiniteMLP()))
    grid = {
        "multilayerntkclassifier__network__depth": [1, 3],
        "multilayerntkclassifier__network__activation": ["relu", "erf"],
    }
    search = GridSearchCV(model, grid, cv=3, n_jobs=2).fit(X, y)
    assert search.best_score_ > 0.93
    regressor = make_pipeline(StandardScaler(), MultiLayerNTKRegressor(InfiniteMLP()))
    assert cross_val_score(regressor, X[:, :3], X[:, 3], cv=3).min() > 0.85
    assert regressor.fit(X[:, :3], X[:, 3]).score(X[:, :3], X[:, 3]) > 0.9


def test_specification_is_cloned_and_copied(rng):
    network = InfiniteMLP(3, "leaky_relu", [1.0, 2.0, 2.0, 1.0], 0.3, negative_slope=0.2)
    X = rng.standard_normal((3, 2))
    for other in (clone(network), copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert_array_equal(layer_kernels(other, X), layer_kernels(network, X))
    assert not np.allclose(
        layer_kernels(network, X), layer_kernels(clone(network).set_params(negative_slope=0.5), X)
    )


def test_every_dual_is_listed_in_the_message():
    with pytest.raises(ValueError, match="activation must be one of") as caught:
        dual_activation("none")
    assert all(repr(name) in str(caught.value) for name in DUALS)


# -- Gaussian processes --------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "erf", "sin", "tanh"])
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("variances", [(1.5, 0.2), ([1.5, 2.0, 0.7], [0.1, 0.2, 0.3]), (1.5, 0.0)])
def test_gradient_is_that_of_finite_differences(activation, kind, variances, rng):
    # A repeated row and a zero one: correlations of 1, and of the bias alone.
    X = rng.standard_normal((6, 3))
    X = np.vstack([X, X[:1], np.zeros((1, 3))])
    kernel = InfiniteMLP(2, activation, *variances).to_gp_kernel(kind=kind)
    K, gradient = kernel(X, eval_gradient=True)
    assert_array_equal(K, kernel(X))
    assert_allclose(np.diagonal(K), kernel.diag(X), rtol=1e-12)
    assert gradient.shape == (8, 8, len(kernel.theta))
    assert np.isfinite(gradient).all()
    for k in range(len(kernel.theta)):
        step = np.zeros(len(kernel.theta))
        step[k] = 1e-5
        up, down = (kernel.clone_with_theta(kernel.theta + s)(X) for s in (step, -step))
        assert_allclose(gradient[..., k], (up - down) / 2e-5, rtol=1e-4, atol=1e-6)


def test_theta_and_bounds():
    kernel = InfiniteMLP(1, weight_variance=[1.0, 2.0], bias_variance=0.5).to_gp_kernel()
    assert [h.name for h in kernel.hyperparameters] == ["bias_variance", "weight_variance"]
    assert_allclose(np.exp(kernel.theta), [0.5, 1.0, 2.0])
    assert_allclose(np.exp(kernel.bounds), [[1e-5, 1e2], [1e-2, 1e2], [1e-2, 1e2]])
    fixed = InfiniteMLP(bias_variance=0.0).to_gp_kernel(weight_variance_bounds="fixed")
    assert len(fixed.theta) == 0
    assert fixed(np.eye(2), eval_gradient=True)[1].shape == (2, 2, 0)
    assert clone(kernel) == kernel
    with pytest.raises(ValueError, match="kind"):
        InfiniteMLP().to_gp_kernel(kind="gp")(np.eye(2))
    with pytest.raises(ValueError, match="Y is None"):
        kernel(np.eye(2), np.eye(2), eval_gradient=True)


def test_gradient_in_tiles(monkeypatch, rng):
    X = rng.standard_normal((11, 2))
    kernel = InfiniteMLP().to_gp_kernel()
    whole = kernel(X, eval_gradient=True)[1]
    monkeypatch.setattr("sklearn_nftk.closed_form._gp_kernel._TILE_ROWS", 4)
    assert_allclose(kernel(X, eval_gradient=True)[1], whole, rtol=1e-10, atol=1e-13)


def test_gaussian_processes_optimise_it(rng):
    X, y = load_iris(return_X_y=True)
    kernel = InfiniteMLP(1).to_gp_kernel(bias_variance_bounds="fixed")
    classifier = GaussianProcessClassifier(kernel).fit(X[::3], y[::3])
    assert classifier.score(X, y) > 0.93
    X = rng.uniform(-2, 2, (40, 1))
    kernel = InfiniteMLP(2, "erf").to_gp_kernel(bias_variance_bounds="fixed") + WhiteKernel(0.1)
    y = np.sin(3 * X[:, 0]) + 0.1 * rng.standard_normal(40)
    start = GaussianProcessRegressor(kernel, optimizer=None).fit(X, y)
    fitted = GaussianProcessRegressor(kernel).fit(X, y)
    assert fitted.log_marginal_likelihood_value_ > start.log_marginal_likelihood_value_ + 1
    assert fitted.score(X, y) > 0.95
