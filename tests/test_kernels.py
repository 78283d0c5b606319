import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from torch import nn

from sklearn_nftk.kernels import layer_kernel_diag, layer_kernels, layer_names
from sklearn_nftk.networks import MLP

from . import reference

GROUPS = [["0.weight", "0.bias"], ["2.weight"], ["4.weight", "4.bias"]]


def test_each_layer_and_their_sum_equal_the_reference(network, rng):
    X, Z = rng.standard_normal((9, 5)), rng.standard_normal((4, 5))
    actual = layer_kernels(network, X, Z)
    expected = reference.layer_kernels(network, X, Z, GROUPS)
    assert_allclose(np.moveaxis(actual, -1, 0), expected, rtol=1e-10, atol=1e-12)
    full = reference.layer_kernels(network, X, Z, [[name for names in GROUPS for name in names]])[
        0
    ]
    assert_allclose(actual.sum(axis=-1), full, rtol=1e-10)


def test_mlp_equals_the_reference_on_its_own_parameters(rng):
    X = rng.standard_normal((6, 3))
    for parametrization in ("ntk", "standard"):
        mlp = MLP(hidden_layer_sizes=(8, 8), parametrization=parametrization, random_state=3)
        module = mlp.build(3, 1)
        groups = [[f"layer{i}.weight", f"layer{i}.bias"] for i in range(3)]
        expected = reference.layer_kernels(module, X, X, groups)
        actual = np.moveaxis(layer_kernels(mlp, X), -1, 0)
        assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)


def test_frozen_parameters_do_not_count(network, rng):
    X = rng.standard_normal((5, 5))
    network[0].weight.requires_grad_(False)
    network[4].bias.requires_grad_(False)
    actual = np.moveaxis(layer_kernels(network, X), -1, 0)
    groups = [["0.bias"], ["2.weight"], ["4.weight"]]
    assert_allclose(actual, reference.layer_kernels(network, X, X, groups), rtol=1e-10)


def test_float32_is_close_and_keeps_its_type(network, rng):
    X = rng.standard_normal((8, 5))
    exact, single = layer_kernels(network, X), layer_kernels(network, X.astype(np.float32))
    assert single.dtype == np.float32
    assert_allclose(single, exact, rtol=1e-4, atol=1e-5)
    assert layer_kernels(network, X, dtype="float32").dtype == np.float32


def test_memory_layout_is_one_contiguous_plane_per_layer(network, rng):
    kernels = layer_kernels(network, rng.standard_normal((6, 5)), rng.standard_normal((3, 5)))
    assert kernels.shape == (6, 3, 3)
    assert np.moveaxis(kernels, -1, 0).flags.c_contiguous


def test_diag_is_the_diagonal(network, rng):
    X = rng.standard_normal((7, 5))
    diagonal = np.einsum("iil->il", layer_kernels(network, X))
    assert_allclose(layer_kernel_diag(network, X), diagonal, rtol=1e-12)


def test_layers_can_be_blocks_or_patterns(rng):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 1)
    ).double()
    assert layer_names(module) == ["0.0", "0.2", "2"]
    assert layer_names(module, layers="block") == ["0", "2"]
    X = rng.standard_normal((5, 5))
    by_module = layer_kernels(module, X)
    by_block = layer_kernels(module, X, layers="block")
    assert_allclose(by_block[..., 0], by_module[..., :2].sum(-1), rtol=1e-12)
    split = layer_kernels(module, X, layers={"w": ["*weight"], "b": ["*bias"]})
    assert_allclose(split.sum(-1), by_module.sum(-1), rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 30),
    seed=st.integers(0, 2**20),
    hidden=st.lists(st.integers(1, 9), min_size=0, max_size=3),
    activation=st.sampled_from(["relu", "tanh", "gelu", "softplus"]),
)
def test_kernels_are_symmetric_psd_and_equivariant(n, seed, hidden, activation):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    mlp = MLP(tuple(hidden), activation, random_state=seed)
    kernels = layer_kernels(mlp, X)
    assert_array_equal(kernels, kernels.transpose(1, 0, 2))
    for K in np.moveaxis(kernels, -1, 0):
        eigenvalues = np.linalg.eigvalsh(K)
        assert eigenvalues[0] >= -1e-12 * eigenvalues[-1]
    order = rng.permutation(n)
    permuted = layer_kernels(mlp, X[order])
    assert_allclose(permuted, kernels[np.ix_(order, order)], rtol=1e-10, atol=1e-12)
    # however X is batched
    cut = n // 2
    parts = np.concatenate([layer_kernels(mlp, X[:cut], X), layer_kernels(mlp, X[cut:], X)])
    assert_allclose(parts, kernels, rtol=1e-10, atol=1e-12)


def test_tiles_do_not_change_the_result(network, rng):
    X = rng.standard_normal((37, 5))
    whole = layer_kernels(network, X)
    with config_context(working_memory=24 * 7**2 / 2**20):  # tiles of 7 x 7
        tiled = layer_kernels(network, X)
        rectangular = layer_kernels(network, X[:20], X)
    assert_allclose(tiled, whole, rtol=1e-12)
    assert_allclose(rectangular, whole[:20], rtol=1e-12)


def state(module):
    """Whatever of a module a fit could change."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "tensors": {name: tensor.clone() for name, tensor in module.state_dict().items()},
        "gradients": {
            name: None if p.grad is None else p.grad.clone()
            for name, p in module.named_parameters()
        },
        "trainable": [p.requires_grad for p in module.parameters()],
        "modes": [m.training for m in module.modules()],
        "hooks": [list(getattr(m, name)) for m in module.modules() for name in hooks],
        "attributes": [sorted(vars(m)) for m in module.modules()],
        "identities": [id(tensor) for tensor in (*module.parameters(), *module.buffers())],
    }


class FailsMidway(nn.Module):
    """Takes a few samples and fails on a batch."""

    def forward(self, x):
        if len(x) > 3:
            raise RuntimeError("more than three samples")
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_users_module_is_left_as_it_was(fails, rng):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4, 3),
        FailsMidway() if fails else nn.Identity(), nn.Linear(3, 2),
    )  # fmt: skip
    module[1].eval()
    module[0].weight.grad = torch.ones_like(module[0].weight)
    module[4].weight.requires_grad_(False)
    module[0].register_forward_hook(lambda module, args, output: 2 * output)
    module[1].register_forward_pre_hook(lambda module, args: None)
    module[4].register_full_backward_hook(lambda *args: None)
    before = state(module)
    X = rng.standard_normal((6, 5))
    if fails:
        with pytest.raises(ValueError, match=r"batches of any size.*more than three samples"):
            layer_kernels(module, X, dtype="float64")
    else:
        layer_kernels(module, X, dtype="float64")
    after = state(module)
    for name in ("tensors", "gradients"):
        old, new = before.pop(name), after.pop(name)
        assert old.keys() == new.keys()
        for key, tensor in old.items():
            assert (tensor is None and new[key] is None) or torch.equal(tensor, new[key])
    assert after == before


def test_hooks_that_change_outputs_are_part_of_the_network(network, rng):
    X = rng.standard_normal((5, 5))
    network[0].register_forward_hook(lambda module, args, output: 2 * output)
    network[2].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    network[4].register_full_backward_hook(lambda *args: None)
    actual = np.moveaxis(layer_kernels(network, X), -1, 0)
    expected = reference.one_gradient_at_a_time(network, torch.from_numpy(X), GROUPS)
    assert_allclose(actual, expected, rtol=1e-10)


def test_network_that_cannot_be_copied_is_refused(rng):
    module = nn.Linear(5, 2)
    module.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"copy.deepcopy failed with TypeError: .*lock"):
        layer_kernels(module, rng.standard_normal((6, 5)))


class BatchSoftmax(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 2)

    def forward(self, x):
        return torch.softmax(self.linear(x), dim=0)


class Noise(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 2)

    def forward(self, x):
        return self.linear(x * torch.rand(1, dtype=x.dtype))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.ReLU()), "no trainable parameter"),
        (nn.Sequential(nn.Linear(5, 2), nn.Flatten(0)), r"output must have shape .* is \(6,\)"),
        (nn.Sequential(nn.Linear(5, 4), nn.Unflatten(1, (2, 2))), r"is \(3, 2, 2\)"),
        (nn.Linear(4, 2), r"cannot be applied to X of shape \(n, 5\)"),
        (BatchSoftmax(), "mixes .* the output of sample 0 depends on sample [12]"),
        (Noise(), "gives different outputs for the same X"),
        (lambda d, o, seed: "no module", "returned str"),
        (3, "network must be None, an MLP, an InfiniteMLP"),
    ],
)  # fmt: skip
def test_networks_without_tangent_kernels_are_refused(network, message, rng):
    with pytest.raises(ValueError, match=message):
        layer_kernels(network, rng.standard_normal((6, 5)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("modules", "layers must be 'module', 'block' or a dict"),
        ({"a": ["7.*"]}, "pattern '7.*' matches no parameter"),
        ({"a": ["*"], "b": ["0.bias"]}, "'0.bias' is matched by two patterns"),
        ({"a": ["0.*", "2.*"]}, "'4.weight' is matched by no pattern"),
    ],
)
def test_impossible_layers_are_refused(network, layers, message, rng):
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        layer_kernels(network, rng.standard_normal((6, 5)), layers=layers)


def test_overflow_names_the_layer(rng):
    module = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 1))
    with pytest.raises(ValueError, match="layer '0' has kernel values that are NaN or infinite"):
        layer_kernels(module, np.full((4, 5), 1e30, dtype=np.float32))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"device": "gpu"}, "device='gpu' is not known to torch"),
        ({"dtype": "float16"}, "dtype='float16' is not accepted"),
    ],
)
def test_unknown_device_and_dtype_are_refused(network, parameters, message, rng):
    with pytest.raises(ValueError, match=message):
        layer_kernels(network, rng.standard_normal((6, 5)), **parameters)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_refused(network, rng):
    with pytest.raises(ValueError, match="device='cuda' was asked for, but torch finds 0 CUDA"):
        layer_kernels(network, rng.standard_normal((6, 5)), device="cuda")


def test_other_features_in_Y_are_refused(network, rng):
    with pytest.raises(ValueError, match=r"^Y: .*4"):
        layer_kernels(network, rng.standard_normal((6, 5)), rng.standard_normal((6, 4)))
