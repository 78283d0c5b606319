"""Networks that take another way for each batch, and networks without a tangent kernel."""

import copy
import pickle
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name
from torch.utils.checkpoint import checkpoint

from sklearn_nftk.tangents import TangentKernels
from sklearn_nftk.tangents._tiles import kernel_tile

from . import reference

N, M = 40, 13


class Experts(nn.Module):
    """Each sample goes to one of two experts: a Linear sees some of the rows, all, or none."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(5, 2), nn.Linear(5, 2)])

    def forward(self, x):
        out = x.new_zeros(len(x), 2)
        for k, expert in enumerate(self.experts):
            mine = (x[:, 0] > 0.3) == k
            out[mine] = torch.tanh(expert(x[mine]))
        return out


class ExpertsOfSteps(nn.Module):
    """Experts for the steps of sequences: a Linear sees any number of rows, at times all n."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])
        self.leave = nn.Linear(3, 2)

    def forward(self, x):
        steps = x.flatten(0, 1)
        out = steps.new_zeros(len(steps), 3)
        for k, expert in enumerate(self.experts):
            mine = (steps[:, 0] > 0.8) == k
            out[mine] = torch.tanh(expert(steps[mine]))
        return self.leave(out.unflatten(0, x.shape[:2]).sum(1))


class Sorted(nn.Module):
    """Rows in the order of their first feature, where a batch is large enough."""

    def __init__(self, smallest=0):
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 4), nn.Linear(4, 2)
        self.smallest = smallest

    def forward(self, x):
        order = x[:, 0].argsort() if len(x) > self.smallest else torch.arange(len(x))
        h = torch.tanh(self.enter(x[order]))
        return self.leave(h[order.argsort()])


class Repeated(nn.Module):
    """A Linear used as often as the sample of the batch that needs it most often needs it."""

    def __init__(self):
        super().__init__()
        self.again, self.leave = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        times = x[:, :1].abs().mul(2).ceil()
        h = x
        for turn in range(int(times.max())):
            h = torch.where(times > turn, torch.tanh(self.again(h)), h)
        return self.leave(h)


class OutsideForSome(nn.Module):
    """A weight used outside of its module, for samples that ask for it."""

    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.enter(x))
        out = self.leave(h)
        some = x[:, 0] > 0.5
        if some.any():
            extra = torch.zeros_like(out)
            extra[some] = F.linear(h[some], self.leave.weight).square()
            out = out + extra
        return out


NETWORKS = {
    "experts": (Experts, (5,)),
    "experts of steps": (ExpertsOfSteps, (3, 4)),
    "sorted": (Sorted, (5,)),
    "sorted when large": (lambda: Sorted(20), (5,)),
    "repeated": (Repeated, (5,)),
    "outside for some": (OutsideForSome, (5,)),
}


def case(name, seed):
    """A network, n + m samples of which the first take the ordinary way, and their kernels."""
    build, shape = NETWORKS[name]
    torch.manual_seed(seed)
    module = build().double()
    X = np.random.default_rng(seed).standard_normal((N + M, *shape))
    X[:6] = np.sort(-np.abs(X[:6]) / 4, axis=0)
    groups = {}
    for parameter, _ in module.named_parameters():
        groups.setdefault(parameter.rpartition(".")[0], []).append(parameter)
    return module, X, reference.one_gradient_at_a_time(module, torch.tensor(X), groups.values())


@pytest.mark.parametrize(("memory", "seed"), [(1024, 0), (1024, 1), (5e-3, 0)])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_look_at_their_batch_are_exact(name, memory, seed):
    """Whatever was prepared before, also where factors are made slice by slice."""
    module, X, expected = case(name, seed)
    source = TangentKernels(copy.deepcopy(module))
    with config_context(working_memory=memory):
        source.check(X[:6])
        few, x, z = (source.prepare(X[rows]) for rows in (slice(6), slice(N), slice(N, N + M)))
        assert (x.nbytes == 0) == (memory < 1)
        tolerance = {"rtol": 1e-9, "atol": 1e-12}
        between = source.block(x, z)[0]
        assert_allclose(between, expected[:, :N, N:], **tolerance)
        assert_allclose(source.block(few, x)[0], expected[:, :6, :N], **tolerance)
        assert_allclose(source.block(x[30:], few)[0], expected[:, 30:N, :6], **tolerance)
        gram = source.gram(x)[0]
        assert_allclose(gram, expected[:, :N, :N], **tolerance)
        assert_array_equal(gram, gram.swapaxes(1, 2))
        assert_allclose(source.diag(x)[0], np.einsum("lii->li", expected[:, :N, :N]), **tolerance)
        for rows, columns, tile in source.tiles(x):
            assert_allclose(tile[0], expected[:, rows, columns], **tolerance)
        for i in range(N, N + M):
            one = source.block(source.prepare(X[i : i + 1]), x)[0]
            assert_allclose(one, expected[:, i : i + 1, :N], **tolerance)


@pytest.mark.parametrize("method", ["gram", "block", "tiles"])
@pytest.mark.parametrize("name", ["sorted", "repeated", "experts"])
def test_a_plan_may_change_from_slice_to_slice(name, method):
    """Factors of rows that were made before the change are made again."""
    module, X, expected = case(name, 3)
    source = TangentKernels(copy.deepcopy(module))
    source.check(X[:4])
    version = source.passes.plan.version
    X, expected = X[:28], expected[:, :28, :28]
    with config_context(working_memory=4e-3):
        x, z = source.prepare(X), source.prepare(X)
        assert x.nbytes == z.nbytes == 0
        if method == "tiles":
            for rows, columns, tile in source.tiles(x):
                assert_allclose(tile[0], expected[:, rows, columns], rtol=1e-9, atol=1e-12)
        else:
            kernels = source.gram(x) if method == "gram" else source.block(x, z)
            assert_allclose(kernels[0], expected, rtol=1e-9, atol=1e-12)
    assert source.passes.plan.version > version or name == "experts"


@pytest.mark.parametrize("name", NETWORKS)
def test_batches_of_an_older_plan_are_made_again(name):
    """Those that estimators keep, and their slices: a plan that changes may not mix factors."""
    module, X, expected = case(name, 2)
    source = TangentKernels(copy.deepcopy(module), outputs="per_class")
    source.check(X[:6])
    kept = source.prepare(X[:6])
    piece = kept[2:5]
    z = source.prepare(X[N:])
    for batch, rows in [(kept, slice(6)), (piece, slice(2, 5))]:
        block = source.block(batch, z)
        assert block.shape[0] == 2
        assert_allclose(block.mean(0), expected[:, rows, N:], rtol=1e-9, atol=1e-12)
        assert_allclose(
            source.diag(batch).mean(0), np.einsum("lii->li", expected)[:, rows], rtol=1e-9
        )


class MixesLater(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 2)

    def forward(self, x):
        later = x[10:]
        return self.linear(torch.cat([x[:10], later - later.mean(0)]) if len(later) else x)


@pytest.mark.parametrize("memory", [1024, 0.02])
def test_samples_that_later_rows_mix_are_refused(memory, rng):
    X = rng.standard_normal((1000, 5))
    source = TangentKernels(MixesLater())
    source.check(X)
    source.prepare(X[:10])
    with (
        config_context(working_memory=memory),
        pytest.raises(ValueError, match=r"mixes the samples of a batch: .* sample \d+ depends"),
    ):
        source.diag(source.prepare(X))


def test_checked_samples_are_spread_over_the_data(rng):
    """The last samples are among them, so that a plan is right before the first batch."""
    X = rng.standard_normal((200, 5))
    X[:, 0] = np.linspace(-3, 3, 200)
    source = TangentKernels(OutsideForSome())
    source.check(X)
    assert source.autograd_layers == ["leave"]


def test_uses_outside_of_a_module_are_seen_in_the_graph(rng):
    """One sample of a thousand, which is not among those that are compared."""
    X = -np.abs(rng.standard_normal((1000, 5)))
    source = TangentKernels(OutsideForSome())
    source.check(X)
    assert source.autograd_layers == []
    X[501, 0] = 1
    batch = source.prepare(X)
    assert source.autograd_layers == ["leave"]
    module = copy.deepcopy(source.network)
    names = [["enter.weight", "enter.bias"], ["leave.weight", "leave.bias"]]
    expected = reference.one_gradient_at_a_time(module, torch.tensor(X[499:503]), names)
    assert_allclose(source.block(batch[499:503])[0], expected, rtol=1e-9, atol=1e-12)


def test_kernels_that_rules_and_autograd_disagree_on_for_good_are_refused(rng, monkeypatch):
    """Nothing computes them exactly: not reached by a real network, so autograd is broken here."""
    from sklearn_nftk.tangents import _passes
    from sklearn_nftk.tangents._factors import DenseFactor

    def broken(network, x, groups, heads, *, vectorise):
        return [DenseFactor(torch.ones(len(x), 2, 3, dtype=x.dtype)) for _ in groups]

    monkeypatch.setattr(_passes, "autograd_factors", broken)
    source = TangentKernels(OutsideForSome())
    X = rng.standard_normal((N, 5))
    X[:, 0] = 1
    with pytest.raises(ValueError, match="layer 'leave' does not agree with autograd's own"):
        source.check(X)


class Applied(nn.Module):
    """A Linear in a forward of its own."""

    def __init__(self, forward, module=None):
        super().__init__()
        self.linear = module or nn.Linear(5, 2)
        self._forward = forward

    def forward(self, x):
        return self._forward(self.linear, x)


def raises_on(size):
    def forward(linear, x):
        if len(x) == size:
            raise RuntimeError("shape '[-1, 2]' is invalid\nfor this input")
        return linear(x)

    return forward


@torch.no_grad()
def without_gradients(linear, x):
    return linear(x)


def flex(linear, x):
    from torch.nn.attention.flex_attention import flex_attention

    tokens = linear(x)[:, None, None].expand(-1, 1, 3, -1)
    return flex_attention(tokens, tokens, tokens)[:, 0, 0]


def complex_module(kind):
    module = nn.Linear(5, 2)
    if kind == "buffer":
        module.register_buffer("phase", torch.ones(2, dtype=torch.complex64))
    else:
        module.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    return module


REFUSED = {
    "complex parameter": (lambda: complex_module("parameter"), "'phase' is complex"),
    "complex buffer": (lambda: complex_module("buffer"), "'phase' is complex"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(2)), "'0.weight' is not initialised yet"),
    "scripted": (lambda: torch.jit.script(nn.Linear(5, 2)), "scripted or traced by torch.jit"),
    "traced part": (
        lambda: nn.Sequential(torch.jit.trace(nn.Linear(5, 2), torch.ones(1, 5))),
        "'0' is scripted or traced",
    ),
    "no_grad": (lambda: Applied(without_gradients), "output without a gradient"),
    "detached": (
        lambda: Applied(lambda linear, x: linear(x).detach()),
        "output without a gradient",
    ),
    "argmax": (
        lambda: Applied(lambda linear, x: linear(x).argmax(1, keepdim=True)),
        "output without a gradient",
    ),
    "tuple": (
        lambda: Applied(lambda linear, x: (linear(x), x)),
        r"must have shape .* it is a tuple",
    ),
    "dictionary": (lambda: Applied(lambda linear, x: {"logits": linear(x)}), r"it is a dict"),
    "vector": (lambda: Applied(lambda linear, x: linear(x)[:, 0]), r"it is \(\d+,\)"),
    "no outputs": (
        lambda: Applied(lambda linear, x: linear(x)[:, :0]),
        r"n_outputs > 0; .* \(\d+, 0\)",
    ),
    "reentrant": (
        lambda: Applied(lambda linear, x: checkpoint(linear, x, use_reentrant=True)),
        r"checkpoint\(..., use_reentrant=True\)",
    ),
    "flex attention": (lambda: Applied(flex), r"cannot be .* X of shape \(n, 5\): FlexAttention"),
    "raises on one": (
        lambda: Applied(raises_on(1)),
        r"batches of any size; .* for 1: .* is invalid$",
    ),
    "raises on three": (
        lambda: Applied(raises_on(3)),
        r"batches of any size; .* for 3: .* is invalid$",
    ),
    "squeezed": (
        lambda: Applied(lambda linear, x: linear(x).squeeze()),
        r"any size; .* it is \(2,\)",
    ),
    "float to embedding": (
        lambda: nn.Sequential(nn.Embedding(3, 2), nn.Flatten()),
        "looks up|indices",
    ),
    "other features": (lambda: nn.Linear(4, 2), r"cannot be applied to X of shape \(n, 5\)"),
    "key error": (
        lambda: Applied(lambda linear, x: {}["missing"]),
        "cannot be applied .* 'missing'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings(
    "ignore:None of the inputs have requires_grad", "ignore:.*torch.jit", "ignore:flex_attention"
)
def test_networks_without_a_tangent_kernel_are_refused_in_one_line(name, rng):
    build, message = REFUSED[name]
    network = build()
    with pytest.raises(ValueError, match=message) as caught:
        TangentKernels(network).check(rng.standard_normal((9, 5)))
    assert "\n" not in str(caught.value)


def test_what_the_network_raised_is_kept_as_the_cause(rng):
    with pytest.raises(ValueError, match="batches of any size") as caught:
        TangentKernels(Applied(raises_on(1))).check(rng.standard_normal((9, 5)))
    assert "for this input" in str(caught.value.__cause__.__cause__)


def test_a_network_that_fails_on_a_later_batch_says_so(rng):
    source = TangentKernels(Applied(raises_on(20)))
    source.check(rng.standard_normal((9, 5)))
    with pytest.raises(ValueError, match=r"cannot be applied to X of shape \(n, 5\): shape"):
        source.prepare(rng.standard_normal((20, 5)))


def test_other_checkpointing_is_exact(rng):
    torch.manual_seed(0)
    linear = nn.Linear(5, 2).double()
    X = rng.standard_normal((9, 5))
    for network in (
        Applied(lambda linear, x: checkpoint(linear, x, use_reentrant=False), linear),
        linear,
    ):
        source = TangentKernels(copy.deepcopy(network))
        source.check(X)
        kernel = source.gram(source.prepare(X))
        assert_allclose(kernel[0, 0], X @ X.T + 1, rtol=1e-12)


class Table(nn.Module):
    """The usual network for tables: one column is looked up, one index for each sample."""

    def __init__(self):
        super().__init__()
        self.table, self.leave = nn.Embedding(4, 3), nn.Linear(5, 2)

    def forward(self, x):
        return self.leave(torch.cat([torch.tanh(self.table(x[:, 0].long())), x[:, 1:]], dim=1))


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_gradients_are_there_whatever_surrounds_the_call(context, rng):
    X = np.column_stack([rng.integers(0, 4, 12), rng.standard_normal((12, 2))])
    torch.manual_seed(0)
    expected = TangentKernels(Table())
    expected.check(X)
    expected = expected.gram(expected.prepare(X))
    with context():
        torch.manual_seed(0)
        source = TangentKernels(Table())  # its parameters are made here, too
        source.check(torch.tensor(X))
        batch = source.prepare(torch.tensor(X))
        assert_array_equal(source.gram(batch), expected)
        assert_allclose(source.block(source.prepare(X[:3]), batch), expected[:, :, :3], rtol=1e-12)
    assert_array_equal(source.gram(source.prepare(X)), expected)
    assert_array_equal(source.gram(batch), expected)


class Seeded(nn.Module):
    """Draws the same numbers in each pass."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 2)

    def forward(self, x):
        torch.manual_seed(0)
        return self.linear(x * torch.rand(5, dtype=x.dtype))


def test_global_generator_and_warning_filters_are_left_alone(rng):
    X = rng.standard_normal((9, 5))
    before = torch.random.get_rng_state(), warnings.filters[:]
    source = TangentKernels(Seeded())
    state = torch.random.get_rng_state()
    source.check(X)
    source.gram(source.prepare(X))
    assert_array_equal(torch.random.get_rng_state(), state)
    assert warnings.filters == before[1]


class Restored:
    """Stands in for a specification: builds its network from arrays."""

    def restore(self, arrays):
        network = Experts().double()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(torch.tensor(arrays[name]))
        return network


def leaves(state):
    if isinstance(state, dict):
        state = list(state.values())
    if isinstance(state, list | tuple):
        for value in state:
            yield from leaves(value)
    else:
        yield state


class Cumulative(nn.Module):
    """An operation that torch cannot vectorise, and says so."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x):
        return torch.cummax(self.scale * x, dim=1).values


def test_loops_of_torch_are_not_announced(rng):
    source = TangentKernels(Cumulative())
    with warnings.catch_warnings(record=True) as announced:
        warnings.simplefilter("always")
        X = rng.standard_normal((9, 5))
        source.check(X)
        source.prepare(X)
        assert not announced
        # The switch is torch's own, and is on again afterwards.
        gradient = torch.func.jacrev(lambda x: torch.cummax(x, dim=0).values.sum())
        torch.func.vmap(gradient)(torch.ones(2, 3))
    assert "performance drop" in str(announced[0].message)


@pytest.mark.parametrize("specification", [None, Restored()])
def test_pickled_sources_give_the_same_kernels(specification, monkeypatch):
    module, X, expected = case("experts", 0)
    source = TangentKernels(copy.deepcopy(module), specification=specification)
    source.check(X)
    batch = source.prepare(X[:N])
    state = source.__getstate__()
    state["device"] = "cuda:7"  # as if fitted elsewhere
    monkeypatch.setattr(TangentKernels, "__getstate__", lambda self: state)
    loaded = pickle.loads(pickle.dumps(source))
    assert loaded.device.type == "cpu"
    assert loaded.autograd_layers == source.autograd_layers
    assert not loaded.network.training
    block = loaded.block(loaded.prepare(X[N:]), pickle.loads(pickle.dumps(batch)))
    assert_allclose(block[0], expected[:, N:, :N], rtol=1e-9, atol=1e-12)
    if specification is not None:
        accepted = (str, int, float, bool, type(None), np.ndarray, Restored)
        assert all(isinstance(leaf, accepted) for leaf in leaves(state))


def test_threads_share_a_source(rng):
    """A pass puts hooks on the one network, which would see the passes of other threads."""
    torch.manual_seed(0)
    module = Sorted()
    source = TangentKernels(copy.deepcopy(module))
    X = rng.standard_normal((N, 5))
    source.check(X[:6])
    training = source.prepare(X)
    expected = source.block(training)
    errors = []

    def predict(first):
        for i in range(30):
            rows = slice(first, first + 1 + i % 5)
            block = source.block(source.prepare(X[rows]), training)
            errors.append(np.abs(block - expected[:, :, rows]).max())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(predict, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert max(errors) < 1e-9
    assert source.autograd_layers == ["enter"]


@pytest.mark.parametrize("outputs", ["mean", "per_class"])
def test_tiles_are_tasks_for_other_processes(outputs, rng):
    """They need factors alone: the network stays where it is."""
    X = rng.standard_normal((9, 5))
    source = TangentKernels(Experts(), outputs=outputs)
    source.check(X)
    batch = source.prepare(X)
    task = pickle.dumps((partial(kernel_tile, per_output=source.per_output), batch.factors))
    assert b"Experts" not in task
    tile, factors = pickle.loads(task)
    assert_array_equal(tile(factors), source.gram(batch))
    expected = source.block(batch[:4], batch[4:])
    assert_allclose(tile(factors[:4], factors[4:]), expected, rtol=1e-12)


def test_batches_are_what_prepare_returned(rng):
    X = rng.standard_normal((9, 5))
    source = TangentKernels(nn.Linear(5, 2))
    source.check(X)
    with pytest.raises(TypeError, match="A batch is what `prepare` returned, got ndarray"):
        source.block(X)
    with pytest.raises(ValueError, match="NaN"):
        source.prepare(np.full((2, 5), np.nan))
    X.flags.writeable = False
    batch = source.prepare(X)
    assert batch.X is X
    assert batch.nbytes == X.nbytes + 8 * 9 * 4  # inputs, and gradients of two heads
    assert len(batch[2:5]) == 3
    assert source.dtype == np.dtype("float64")
