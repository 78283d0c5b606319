import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.kernels import layer_kernel_diag, layer_kernels, layer_names
from sklearn_nftk.tangents import (
    DenseFactor,
    OuterFactor,
    TangentKernels,
    _assembly,
    _source,
    register_rule,
)
from sklearn_nftk.tangents._passes import Passes
from sklearn_nftk.tangents._rules import _RULES
from sklearn_nftk.tangents._transfer import Transfer

from . import reference, zoo

ZOO = zoo.build()


def groups_by_module(module):
    """Trainable parameters by the module that owns them, without the package's help."""
    groups = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(name.rpartition(".")[0], []).append(name)
    return groups


def relative_error(actual, expected):
    scale = np.abs(expected).max(axis=(1, 2), keepdims=True)
    # A layer that the next one makes useless (a scale before a normalisation) is rounding alone.
    scale = np.maximum(scale, 1e-12 * scale.max())
    return (np.abs(actual - expected) / np.where(scale > 0, scale, 1)).max()


@pytest.mark.parametrize("name", ZOO)
def test_zoo_is_exact_in_every_layer(name):
    module, X = ZOO[name]
    groups = groups_by_module(module)
    assert layer_names(module) == list(groups)
    expected = reference.one_gradient_at_a_time(module, X, groups.values())
    exact = np.moveaxis(layer_kernels(module, X), -1, 0)
    assert relative_error(exact, expected) <= 1e-9
    rectangular = np.moveaxis(layer_kernels(module, X[:2], X), -1, 0)
    assert relative_error(rectangular, expected[:, :2]) <= 1e-9
    diagonal = np.einsum("lii->il", expected)
    assert_allclose(layer_kernel_diag(module, X), diagonal, rtol=1e-8, atol=1e-12)
    single = np.moveaxis(layer_kernels(module, X, dtype="float32"), -1, 0)
    assert relative_error(single, expected) <= 1e-4


# Layers without a product rule. A rule that went wrong would be caught in the check and replaced,
# exactly and slowly; so that it does not go unnoticed, all others must go by their rule.
BY_AUTOGRAD = {
    "outside forward": ["leave"],
    "never called": ["leave"],
    "tied": ["encoder"],
    "bare parameters": [""],
    "spectral norm": ["0", "0.parametrizations.weight"],
    "weight norm": ["0", "0.parametrizations.weight"],
    "time first": ["mix"],
    "transposed": ["0"],
    "attention": ["attention", "attention.out_proj"],
    "transformer": ["layer.self_attn", "layer.self_attn.out_proj"],
    "lstm": ["recurrent"],
    "gru": ["recurrent"],
    "rnn": ["recurrent"],
    "bag max": ["table"],
}


@pytest.mark.parametrize("name", ZOO)
def test_rules_are_used_where_there_are_rules(name):
    module, X = ZOO[name]
    source = TangentKernels(copy.deepcopy(module))
    source.check(X)
    assert source.autograd_layers == BY_AUTOGRAD.get(name, [])


@pytest.mark.parametrize("name", ZOO)
def test_outputs_can_be_summed_or_taken_alone(name):
    module, X = ZOO[name]
    groups = groups_by_module(module).values()
    jacobian = reference.gradients(module, X)
    for outputs, pick in [
        ("sum", lambda j: [j.sum(axis=1)]),
        ("per_class", lambda j: [j[:, o] for o in range(j.shape[1])]),
    ]:
        actual = layer_kernels(module, X, outputs=outputs)
        heads = actual[None] if outputs == "sum" else actual
        for layer, names in enumerate(groups):
            parts = [pick(jacobian[name]) for name in names]
            for o in range(len(heads)):
                expected = sum(part[o] @ part[o].T for part in parts)
                assert_allclose(heads[o][..., layer], expected, rtol=1e-8, atol=1e-10)
        diagonal = layer_kernel_diag(module, X, outputs=outputs)
        assert_allclose(diagonal, np.einsum("...iil->...il", actual), rtol=1e-8, atol=1e-10)


def test_factors_say_what_they_take():
    with pytest.raises(ValueError, match=r"\(n_samples, n_heads, ...\), got shape \(3, 8\)"):
        DenseFactor(torch.zeros(3, 8))


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_random_networks_are_exact(data, seed):
    """Chains of parts that keep (n, 4, 4, 4) images as they are, or flatten them."""
    torch.manual_seed(seed)
    parts = {
        "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
        "grouped": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False),
        "dilated": lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2, padding_mode="circular"),
        "linear": lambda: nn.Linear(4, 4),
        "group norm": lambda: nn.GroupNorm(2, 4),
        "layer norm": lambda: nn.LayerNorm(4),
        "prelu": lambda: nn.PReLU(4),
        "in-place": lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)),
        "tanh": nn.Tanh,
    }
    chosen = data.draw(st.lists(st.sampled_from(sorted(parts)), min_size=1, max_size=5))
    modules = [parts[name]() for name in chosen]
    if data.draw(st.booleans()):
        modules.append(modules[0])  # used twice
    outputs = data.draw(st.integers(1, 3))
    module = nn.Sequential(*modules, nn.Tanh(), nn.Flatten(), nn.Linear(64, outputs)).double()
    X = torch.randn(3, 4, 4, 4, dtype=torch.float64)
    groups = groups_by_module(module)
    expected = reference.one_gradient_at_a_time(module, X, groups.values())
    actual = np.moveaxis(layer_kernels(module, X), -1, 0)
    assert relative_error(actual, expected) <= 1e-9


@pytest.mark.parametrize("name", ["mlp", "conv2d", "wide tokens", "embedding", "transformer"])
def test_factors_that_do_not_fit_are_computed_in_slices(name):
    module, X = ZOO[name]
    whole = layer_kernels(module, X)
    with config_context(working_memory=2e-4):
        sliced = layer_kernels(module, X)
        rectangular = layer_kernels(module, X[:3], X)
        diagonal = layer_kernel_diag(module, X)
    assert_allclose(sliced, whole, rtol=1e-9, atol=1e-12)
    assert_allclose(rectangular, whole[:3], rtol=1e-9, atol=1e-12)
    assert_allclose(diagonal, np.einsum("iil->il", whole), rtol=1e-9, atol=1e-12)


def test_network_that_begins_in_place_leaves_X_alone():
    torch.manual_seed(0)
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 2)).double()
    X = ZOO["mlp"][1].numpy().copy()
    before = X.copy()
    kernels = layer_kernels(module, X)
    assert_allclose(X, before, rtol=0)
    assert_allclose(kernels[..., 0], X.clip(0) @ X.clip(0).T + 1, rtol=1e-12)


def test_network_that_reuses_a_buffer_does_not_mix_passes(rng):
    class Buffered(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 2)
            self.register_buffer("room", torch.zeros(40, 5))

        def forward(self, x):
            room = self.room[: len(x)]
            room.copy_(x)
            return self.linear(room)

    X = rng.standard_normal((9, 5))
    source = TangentKernels(Buffered())
    source.check(X)
    first, second = source.prepare(X), source.prepare(2 * X)
    assert_allclose(source.block(first, second)[0, 0], 2 * X @ X.T + 1, rtol=1e-12)


def test_tiles_on_the_diagonal_are_halved_exactly(rng):
    """More rows than the smallest tile, and no power of two."""
    module, _ = ZOO["conv used twice"]
    X = rng.standard_normal((301, 1, 6, 6))
    whole, rectangular = layer_kernels(module, X), layer_kernels(module, X, X)
    assert_array_equal(whole, whole.transpose(1, 0, 2))
    assert_allclose(whole, rectangular, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("outputs", ["mean", "per_class"])
def test_many_outputs_take_bounded_memory(outputs, rng):
    """Factors that are computed at once never take more than they may."""
    torch.manual_seed(0)
    n_outputs = 200 if outputs == "mean" else 50
    module = nn.Sequential(nn.Linear(8, 512), nn.Tanh(), nn.Linear(512, n_outputs))
    X = rng.standard_normal((40, 8))
    sizes = []

    class Watched(TangentKernels):
        def _factors_of(self, X, heads=None):
            factors = super()._factors_of(X, heads)
            sizes.append(sum(factors.n_bytes))
            return factors

    whole = layer_kernels(module, X, outputs=outputs, dtype="float64")
    source = Watched(copy.deepcopy(module), outputs=outputs)
    source.check(X)
    with config_context(working_memory=1):
        batch = source.prepare(X)
        limited = source.block(batch)
        diagonal = source.diag(batch)
    assert 1 < len(sizes) < 2000
    assert max(sizes) <= 2**20
    whole = np.moveaxis(whole if outputs == "per_class" else whole[None], -1, 1)
    assert_allclose(limited, whole, rtol=1e-9, atol=1e-12)
    assert_allclose(diagonal, np.einsum("hlii->hli", whole), rtol=1e-9, atol=1e-12)


def test_batch_that_fits_meets_one_that_does_not(rng):
    module, _ = ZOO["wide tokens"]
    X, Z = rng.standard_normal((40, 3, 4)), rng.standard_normal((2, 3, 4))
    source = TangentKernels(copy.deepcopy(module))
    source.check(X)
    whole = source.block(source.prepare(X), source.prepare(Z))
    with config_context(working_memory=0.02):
        x, z = source.prepare(X), source.prepare(Z)
        assert x.nbytes == 0 < z.nbytes
        assert_allclose(source.block(x, z), whole, rtol=1e-9, atol=1e-12)
        assert_allclose(source.block(z, x).swapaxes(-1, -2), whole, rtol=1e-9, atol=1e-12)


def test_tile_is_halved_when_memory_runs_out(monkeypatch, rng):
    X = rng.standard_normal((30, 5))
    module = ZOO["mlp"][0]
    expected = layer_kernels(module, X)
    gram, tried = OuterFactor.gram, []

    def short_of_memory(self, other, out):
        tried.append(len(out))
        if len(out) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return gram(self, other, out)

    source = TangentKernels(copy.deepcopy(module))
    source.check(X)
    monkeypatch.setattr(OuterFactor, "gram", short_of_memory)
    with config_context(working_memory=24 * 16**2 / 2**20):  # tiles of 16 x 16
        actual = source.block(source.prepare(X))
    assert_allclose(np.moveaxis(actual[0], 0, -1), expected, rtol=1e-12)
    assert max(tried) == 16
    assert 8 in tried


@pytest.mark.parametrize("outputs", ["mean", "per_class"])
def test_streamed_tiles_arrive(outputs, monkeypatch, rng):
    module, X = ZOO["mlp"][0], rng.standard_normal((16, 5))
    expected = layer_kernels(module, X, outputs=outputs)
    monkeypatch.setattr(TangentKernels, "_may_stay", lambda self, n_bytes: False)
    sent, send = [], Transfer.send

    def counted(self, tile, deliver):
        sent.append(tile.shape[-2:])
        send(self, tile, deliver)

    monkeypatch.setattr(Transfer, "send", counted)
    with config_context(working_memory=24 * 7**2 / 2**20):
        for Y, columns in [(None, slice(None)), (X[:9], slice(9))]:
            streamed = layer_kernels(module, X, Y, outputs=outputs)
            assert_allclose(streamed, expected[..., columns, :], rtol=1e-12)
    assert len(sent) > 30
    assert max(map(max, sent)) <= 7


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
@pytest.mark.parametrize("name", ZOO)
def test_cuda_agrees_with_the_cpu(name, dtype, tolerance, streamed, monkeypatch):
    module, X = ZOO[name]
    on_cpu = np.moveaxis(layer_kernels(module, X, dtype=dtype, device="cpu"), -1, 0)
    if streamed:
        monkeypatch.setattr(TangentKernels, "_may_stay", lambda self, n_bytes: False)
    for Y, columns in [(None, slice(None)), (X[:3], slice(3))]:
        kernels = layer_kernels(module, X, Y, dtype=dtype, device="cuda")
        expected = on_cpu[:, :, columns]
        assert relative_error(np.moveaxis(kernels, -1, 0), expected) <= tolerance


@needs_cuda
def test_estimator_fitted_on_cuda_predicts_on_the_cpu(monkeypatch, three_classes):
    X, y = three_classes
    fitted = MultiLayerNTKClassifier(device="cuda", random_state=0).fit(X, y)
    expected = fitted.decision_function(X)
    pickled = pickle.dumps(fitted)
    with monkeypatch.context() as without_cuda:
        without_cuda.setattr(torch.cuda, "is_available", lambda: False)
        without_cuda.setattr(torch.cuda, "device_count", lambda: 0)
        loaded = pickle.loads(pickled)
        assert_allclose(loaded.decision_function(X), expected, rtol=1e-6, atol=1e-8)


def in_two_threads(monkeypatch, owner, name):
    """Have the first two calls of a function wait for each other; returns who called it."""
    function, threads, both = getattr(owner, name), [], threading.Barrier(2, timeout=30)

    def waiting(*args, **kwargs):
        threads.append(threading.get_ident())
        if len(threads) <= 2:
            both.wait()
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, waiting)
    return threads


@pytest.mark.parametrize("outputs", ["mean", "per_class"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_threads_give_the_same_tiles(symmetric, outputs, monkeypatch, rng):
    module, X = ZOO["mlp"][0], rng.standard_normal((40, 5))
    Y = None if symmetric else X[:30]
    expected = layer_kernels(module, X, Y, outputs=outputs, n_jobs=1)
    monkeypatch.setattr(_source, "_SHARED_PAIRS", 1)
    monkeypatch.setattr(_assembly, "tile_rows", lambda *args, **kwargs: 8)
    threads = in_two_threads(monkeypatch, _assembly, "kernel_tile")
    kernels = layer_kernels(module, X, Y, outputs=outputs, n_jobs=2)
    assert_allclose(kernels, expected, rtol=1e-12)
    assert len(threads) == (15 if symmetric else 20)
    assert len(set(threads) - {threading.get_ident()}) == 2


def test_passes_in_threads_make_the_same_factors(monkeypatch, rng):
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)
    )
    alone, shared = (
        TangentKernels(copy.deepcopy(module), outputs="per_class", n_jobs=n) for n in (1, 2)
    )
    X = rng.standard_normal((300, 1, 6, 6))
    for source in (alone, shared):
        source.check(X)
    expected = alone.prepare(X).factors.layers
    threads = in_two_threads(monkeypatch, Passes, "_piece")
    factors = shared.prepare(X).factors.layers
    assert len(set(threads) - {threading.get_ident()}) == 2
    for parts, others in zip(factors, expected, strict=True):
        for part, other in zip(parts, others, strict=True):
            assert part.layout == other.layout
            for name in part.fields:
                assert_allclose(getattr(part, name), getattr(other, name), rtol=1e-12, atol=1e-14)
    before, after = module.state_dict(), shared.network.state_dict()
    assert all(torch.equal(before[name].to(after[name]), after[name]) for name in before)
    assert not any(
        len(hooks)
        for part in shared.network.modules()
        for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks)
    )


def test_users_register_rules_of_their_own():
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(4, dtype=torch.float64))

        def forward(self, x):
            return x + self.shift

    calls = []

    @register_rule(Shift)
    def shift(module, parameters, uses):
        calls.append(parameters)
        return DenseFactor(sum(use.gradients for use in uses))

    try:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(5, 4), Shift(), nn.Tanh(), nn.Linear(4, 2)).double()
        X = ZOO["mlp"][1]
        expected = reference.one_gradient_at_a_time(module, X, groups_by_module(module).values())
        assert relative_error(np.moveaxis(layer_kernels(module, X), -1, 0), expected) <= 1e-9
        assert calls[0] == {"shift"}
    finally:
        del _RULES[Shift]


def test_wrong_rules_are_caught_and_replaced():
    class Odd(nn.Linear):
        pass

    @register_rule(Odd)
    def odd(module, parameters, uses):
        return DenseFactor(uses[0].gradients)  # forgets the input

    try:
        torch.manual_seed(0)
        module = nn.Sequential(Odd(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        X = ZOO["mlp"][1]
        expected = reference.one_gradient_at_a_time(module, X, groups_by_module(module).values())
        assert relative_error(np.moveaxis(layer_kernels(module, X), -1, 0), expected) <= 1e-9
    finally:
        del _RULES[Odd]


def test_modules_of_two_names_keep_their_parameters():
    torch.manual_seed(0)
    first = nn.Linear(4, 4)
    module = nn.Sequential(first, nn.Tanh(), first, nn.ConvTranspose1d(4, 4, 1), nn.Flatten())
    module = nn.Sequential(nn.Unflatten(1, (4, 4)), module, nn.Linear(16, 1)).double()
    X = torch.randn(5, 16, dtype=torch.float64)
    source = TangentKernels(copy.deepcopy(module))
    source.check(X)
    assert source.autograd_layers
    before = {name: p.data_ptr() for name, p in source.network.named_parameters()}
    source.block(source.prepare(X))
    parameters = dict(source.network.named_parameters())
    assert {name: p.data_ptr() for name, p in parameters.items()} == before
    assert all(p.requires_grad for p in parameters.values())
