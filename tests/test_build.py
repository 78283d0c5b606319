"""Networks are recognised, drawn, and turned into sources of kernels."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.nn.parameter import is_lazy

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.closed_form._dual import _rule
from sklearn_nftk.kernels import KernelSource, LayerKernels, layer_kernels, layer_names
from sklearn_nftk.networks import (
    MLP,
    InfiniteMLP,
    InfiniteRNN,
    allow_nd,
    checked,
    default_network,
    make_source,
    specification,
    validated,
)


def drawn_by_torch(n_features, n_outputs, random_state):
    layers = [nn.Linear(n_features, 4)]
    for _ in range(30):
        layers += [nn.Tanh(), nn.Linear(4, 4)]
    return nn.Sequential(*layers, nn.Linear(4, n_outputs))


def drawn_by_numpy(n_features, n_outputs, random_state):
    network = nn.Linear(n_features, n_outputs)
    for _ in range(30):
        values = np.random.standard_normal(network.weight.shape)  # noqa: NPY002 - users do
        network.weight.data += torch.as_tensor(values)
    return nn.Sequential(network, nn.Tanh(), nn.Linear(n_outputs, 1))


def lazy(n_features, n_outputs, random_state):
    hidden = [part for _ in range(10) for part in (nn.LazyLinear(4), nn.Tanh())]
    return nn.Sequential(*hidden, nn.LazyLinear(n_outputs))


def global_generators():
    state = np.random.get_state()  # noqa: NPY002 - of others, who may use it
    return torch.get_rng_state().tolist(), state[1].tolist(), *state[2:]


# -- drawing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network",
    [drawn_by_torch, drawn_by_numpy, lazy, lazy(5, 1, 0), MLP((8, 8))],
    ids=["torch", "numpy", "lazy function", "lazy module", "MLP"],
)
def test_threads_draw_the_network_of_the_seed_and_leave_no_trace(network, rng):
    X = rng.standard_normal((6, 5))
    expected = make_source(network, X, seed=3).diag(make_source(network, X, seed=3).prepare(X))

    def diagonal(_):
        source = make_source(network, X, seed=3)
        return source.diag(source.prepare(X))

    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - must not decide anything
    before, interval = global_generators(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            diagonals = list(pool.map(diagonal, range(40)))
    finally:
        sys.setswitchinterval(interval)
    for each in diagonals:
        assert_array_equal(each, expected)
    assert global_generators() == before
    other = make_source(network, X, seed=4)
    assert not np.allclose(other.diag(other.prepare(X)), expected)


def test_generators_are_put_back_when_a_function_fails(rng):
    def failing(n_features, n_outputs, random_state):
        torch.rand(3)
        np.random.rand(3)  # noqa: NPY002 - a function that draws and fails
        raise RuntimeError("out of order")

    before = global_generators()
    with pytest.raises(RuntimeError, match="out of order"):
        layer_kernels(failing, rng.standard_normal((6, 5)))
    assert global_generators() == before


def test_lazy_module_is_initialised_on_a_copy(rng):
    X = rng.standard_normal((6, 5))
    module = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))
    kernels = layer_kernels(module, X)
    assert kernels.shape == (6, 6, 3)
    assert all(is_lazy(p) for p in module.parameters())
    assert layer_names(module) == ["0", "1", "3"]
    one, same, other = (
        MultiLayerNTKClassifier(module, random_state=seed)
        .fit(X, [0, 1] * 3)
        .network_.state_dict()["0.weight"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_lazy_module_looks_integers_up(rng):
    module = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.LazyLinear(2))
    assert layer_kernels(module, rng.integers(0, 7, (6, 5))).shape == (6, 6, 2)


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.LazyLinear(2), nn.LazyLinear(2)

    def forward(self, x):
        return self.used(x)


class OfThree(nn.Module):
    """A constructor that is none of a function of (n_features, n_outputs, random_state)."""

    def __init__(self, n_features):
        super().__init__()


class FailsOnThree(nn.Module):
    def __init__(self, a, b, c):
        raise RuntimeError("no such widths")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.LazyConv2d(2, 3)), r"lazy modules cannot be initialised on X of .*n, 5"),
        (Unused(), "network: 'unused.weight' is of a lazy module and still not initialised"),
        (OfThree, r"OfThree\(n_features=5.*too many .*Pass a module, OfThree\(\.\.\.\)"),
        (FailsOnThree, r"failed: no such widths. Pass a module, FailsOnThree\(\.\.\.\)"),
        (lambda d: nn.Linear(d, 1), r"too many positional.*Pass a function \(n_features"),
        (lambda d, o, r, more: nn.Linear(d, 1), "missing a required argument: 'more'"),
        (lambda d, o, r: None, "the function returned NoneType, not a torch.nn.Module"),
        (MLP, r"network must be None, an MLP.*Did you mean MLP\(\)\?"),
        ("mlp", "network must be None, an MLP"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(network, message, rng):
    X, y = rng.standard_normal((6, 5)), [0, 1] * 3
    for use in (layer_kernels, lambda net, X: MultiLayerNTKClassifier(net).fit(X, y)):
        with pytest.raises(ValueError, match=message) as caught:
            use(network, X)
        assert "\n" not in str(caught.value)


# -- specifications ------------------------------------------------------------------------------


class Products(KernelSource):
    layer_names = ["all"]  # noqa: RUF012 - as short as users write it

    def __init__(self, power=1):
        self.power = power

    def block(self, batch, other=None):
        return (batch @ (batch if other is None else other).T)[None, None] ** self.power

    def diag(self, batch):
        return (batch * batch).sum(1)[None, None] ** self.power


class Few(BaseEstimator):
    """A specification that takes few options."""

    def __init__(self, power=1):
        self.power = power

    def kernel_source(self, X, seed, device="auto"):
        self.seen_ = seed, device
        return Products(self.power)


class Everything(Few):
    def kernel_source(self, X, **options):
        self.seen_ = options
        return Products(self.power)


def test_specification_is_given_what_it_takes(rng):
    X, few, everything = rng.standard_normal((6, 5)), Few(), Everything()
    options = {"layers": "module", "outputs": "mean", "dtype": "auto", "n_jobs": 2, "n_outputs": 3}
    assert isinstance(make_source(few, X, seed=7, device="cpu", **options), Products)
    assert few.seen_ == (7, "cpu")
    make_source(everything, X, "y", "weights", 7, **options)
    assert everything.seen_ == {"y": "y", "sample_weight": "weights", "seed": 7, **options}


@pytest.mark.parametrize("network", [Few(), Products()])
@pytest.mark.parametrize(
    ("name", "value"),
    [("layers", "block"), ("layers", {"a": "*"}), ("outputs", "sum"), ("dtype", "float32")],
)
def test_options_that_would_be_ignored_are_refused_by_name(network, name, value, rng):
    message = f"{name} has no meaning for network={type(network).__name__}"
    X, y = rng.standard_normal((6, 5)), [0, 1] * 3
    with pytest.raises(ValueError, match=message):
        layer_kernels(network, X, **{name: value})
    with pytest.raises(ValueError, match=message):
        MultiLayerNTKClassifier(network, **{name: value}).fit(X, y)


def test_specification_must_yield_a_source(rng):
    class Wrong:
        def kernel_source(self, X):
            return X

    with pytest.raises(ValueError, match="kernel_source of Wrong must return a KernelSource, got"):
        layer_kernels(Wrong(), rng.standard_normal((6, 5)))
    with pytest.raises(ValueError, match=r"layers of Wrong are those of kernel_source\(X\)"):
        layer_names(Wrong())


def test_networks_are_recognised():
    assert specification(None).get_params() == default_network().get_params()
    for network in (MLP(), InfiniteMLP(), InfiniteRNN(), Few(), Products()):
        assert specification(network) is network
    for network in (nn.Linear(2, 1), drawn_by_torch, nn.Linear):
        assert hasattr(specification(network), "kernel_source")
    takes_rows_alone = [n for n in (None, MLP(), InfiniteMLP()) if not allow_nd(n)]
    assert len(takes_rows_alone) == 3
    assert all(map(allow_nd, (InfiniteRNN(), nn.Linear(2, 1), drawn_by_torch, Few(), Products())))


def test_a_specification_may_validate_data_itself(rng):
    class Words(Few):
        def validate_data(self, estimator, X, y="no_validation", **checks):
            return [len(x) for x in X] if isinstance(y, str) else ([len(x) for x in X], y)

        def check_batch(self, X, name="X"):
            return np.array([[len(x)] for x in X])

    assert validated(Words(), None, ["a", "bcd"]) == [1, 3]
    assert_array_equal(checked(Words(), ["a", "bcd"]), [[1], [3]])
    assert_array_equal(layer_kernels(Words(), ["a", "bcd"])[..., 0], [[1, 3], [3, 9]])
    X = rng.standard_normal((4, 3))
    assert_array_equal(validated(Few(), MultiLayerNTKClassifier(), X[:, :, None]), X[:, :, None])
    with pytest.raises(ValueError, match="dim 3"):
        validated(MLP(), MultiLayerNTKClassifier(), X[:, :, None])


# -- MLP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mlp_is_restored_from_arrays(parametrization, dtype, rng):
    mlp = MLP((6, 5), "tanh", weight_variance=[1, 2, 3], parametrization=parametrization)
    network = mlp.build(4, 2, 0).to(getattr(torch, dtype))
    arrays = {name: p.detach().numpy().copy() for name, p in network.named_parameters()}
    for values in arrays.values():
        values.flags.writeable = False
    restored = clone(mlp).restore(arrays)
    x = torch.as_tensor(rng.standard_normal((3, 4)), dtype=getattr(torch, dtype))
    assert torch.equal(restored(x), network(x))
    assert repr(restored) == repr(network)
    assert not restored.training
    assert all(p.requires_grad for p in restored.parameters())
    restored.layer0.weight.data.zero_()
    assert arrays["layer0.weight"].any()
    for broken in (dict(list(arrays.items())[1:]), {**arrays, "layer1.bias": np.zeros(9)}):
        with pytest.raises(ValueError, match=r"arrays|weight_variance"):
            mlp.restore(broken)


def test_mlp_draws_from_no_global_generator():
    before = global_generators()
    with torch.inference_mode():
        network = MLP((6, 5), parametrization="standard").build(4, 1, 0)
    assert global_generators() == before
    assert not any(p.is_inference() for p in network.parameters())


@pytest.mark.parametrize("network", [MLP((4, 4)), InfiniteMLP(), drawn_by_torch])
@pytest.mark.parametrize("make", [MultiLayerNTKClassifier, LayerKernels])
def test_default_network_is_made_explicit_by_its_parameters(network, make):
    model = make().set_params(network__hidden_layer_sizes=(3,), network__activation="tanh")
    expected = default_network().set_params(hidden_layer_sizes=(3,), activation="tanh")
    assert model.network.get_params() == expected.get_params()
    assert make().get_params()["network"] is None
    assert clone(make()).network is None
    # ... of the network that is set along with them, or before
    model = make(network).set_params(network=None, network__activation="tanh")
    assert model.network.activation == "tanh"
    if hasattr(network, "activation"):
        model = make().set_params(network=clone(network), network__activation="tanh")
        assert type(model.network) is type(network)
        assert model.network.activation == "tanh"
    with pytest.raises(ValueError, match="Invalid parameter 'depht' for estimator MLP"):
        make().set_params(network__depht=2)


def test_grids_over_the_default_network():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(MultiLayerNTKClassifier(random_state=0))
    grid = {"multilayerntkclassifier__network__hidden_layer_sizes": [(64,), (32, 32)]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert search.best_estimator_[-1].network.hidden_layer_sizes in ((64,), (32, 32))
    assert pipeline[-1].network is None


# -- closed forms --------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [InfiniteMLP(2, "tanh"), InfiniteRNN(2, "gelu")])
def test_closed_forms_do_not_mind_what_surrounds_them(network, rng):
    X = rng.standard_normal((5, 3))
    expected = layer_kernels(network, X)
    for surroundings in (torch.inference_mode, torch.no_grad):
        with surroundings():
            assert_array_equal(layer_kernels(network, X), expected)
    with torch.inference_mode():
        source = network.kernel_source(X)
        batch = source.prepare(X)
    assert_array_equal(source.gram(batch)[0], np.moveaxis(expected, 2, 0))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradients_do_not_mind_what_surrounds_them(activation, rng):
    X, kernel = rng.standard_normal((5, 3)), InfiniteMLP(2, activation).to_gp_kernel()
    _rule.cache_clear()
    gradients = []
    for surroundings in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with surroundings():
            gradients.append(kernel(X, eval_gradient=True)[1])
    assert_array_equal(gradients[0], gradients[2])
    assert_array_equal(gradients[1], gradients[2])


def test_closed_forms_carry_their_specification(monkeypatch, rng):
    X, network = rng.standard_normal((5, 3)), InfiniteMLP(1, weight_variance=1.5)
    source = network.kernel_source(X)
    assert source.n_outputs is None
    assert source.network.get_params() == network.get_params()
    network.set_params(weight_variance=3.0)
    assert source.network.weight_variance == 1.5
    # As if it had been fitted where there is another device.
    source.device = torch.device("cuda", 99)
    loaded = pickle.loads(pickle.dumps(source))
    assert loaded.device.type == "cpu"
    assert_allclose(loaded.gram(loaded.prepare(X))[0, -1], source.network.nngp(X))


@pytest.mark.parametrize("network", [InfiniteMLP(1), MLP((4,))])
@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("modules", "layers must be 'module', 'block' or a dict"),
        ({"a": ["layer7*"]}, r"layers\['a'\]: pattern 'layer7\*' matches no parameter"),
        ({"a": ["*"], "b": ["layer0*"]}, r"'layer0.*' is matched by two patterns, '\*' and"),
        ({"a": ["layer0*"]}, "'layer1.*' is matched by no pattern"),
        ({"a": ["*"], "b": []}, r"layers\['b'\] has no trainable parameter: no pattern"),
        ({}, "'layer0.*' is matched by no pattern"),
    ],
)
def test_closed_forms_and_networks_refuse_the_same_layers(network, layers, message, rng):
    with pytest.raises(ValueError, match=message):
        layer_kernels(network, rng.standard_normal((6, 5)), layers=layers)
    with pytest.raises(ValueError, match=message):
        layer_names(network, layers=layers)
