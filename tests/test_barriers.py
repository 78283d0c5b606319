"""Distances between trained networks, the barrier between them, and children of a checkpoint."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss, zero_one_loss
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_nftk.dynamics import error_barrier, function_distance, relu_distance, spawn_children

from . import reference, zoo

DIGITS = load_digits(return_X_y=True)
X = StandardScaler().fit_transform(DIGITS[0])
y = DIGITS[1]
TRAIN, TEST = slice(0, 800), slice(800, 1300)
WORLD = zoo.build()


def mlp(seed=0, width=32, n_outputs=10):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, n_outputs),
    ).double()  # fmt: skip


def net(module, max_epochs, **options):
    defaults = {
        "criterion": nn.CrossEntropyLoss, "lr": 0.2, "batch_size": 32, "train_split": None,
        "iterator_train__shuffle": True, "verbose": 0,
    }  # fmt: skip
    return NeuralNetClassifier(module, max_epochs=max_epochs, **{**defaults, **options})


def trained(seed, max_epochs=10, **options):
    torch.manual_seed(seed)
    return net(mlp(seed), max_epochs, **options).fit(X[TRAIN], y[TRAIN])


@pytest.fixture(scope="module")
def pair():
    """Two networks of independent origins."""
    return trained(0), trained(1)


def permuted(network, orders):
    """The same function with the units of both hidden layers in other orders."""
    network = copy.deepcopy(network)
    pairs = ((network[0], network[2]), (network[2], network[4]))
    for (below, above), order in zip(pairs, orders, strict=True):
        with torch.no_grad():
            below.weight.copy_(below.weight[order])
            below.bias.copy_(below.bias[order])
            above.weight.copy_(above.weight[:, order])
    return network


def outputs(network, samples):
    with torch.no_grad():
        return network(torch.as_tensor(samples)).numpy()


# -- error_barrier ------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["error", "loss"])
@pytest.mark.parametrize("n_points", [2, 3, 11])
def test_the_barrier_is_what_lies_on_the_line(pair, metric, n_points):
    a, b = (model.module_ for model in pair)

    def value(network):
        scores = outputs(network, X[TEST])
        if metric == "error":
            return zero_one_loss(y[TEST], scores.argmax(axis=1))
        return log_loss(y[TEST], softmax(scores, axis=1), labels=range(10))

    alphas = np.linspace(0, 1, n_points)
    values = reference.values_on_line(a, b, alphas, value)
    options = {"metric": metric, "n_points": n_points}
    barrier = error_barrier(a, b, X[TEST], y[TEST], **options)
    assert_allclose(barrier, values.max() - (values[0] + values[-1]) / 2, rtol=1e-6, atol=1e-12)
    assert barrier >= abs(values[0] - values[-1]) / 2 - 1e-12
    linear = error_barrier(a, b, X[TEST], y[TEST], baseline="linear", **options)
    line = (1 - alphas) * values[0] + alphas * values[-1]
    assert_allclose(linear, (values - line).max(), rtol=1e-6, atol=1e-12)
    assert_allclose(error_barrier(b, a, X[TEST], y[TEST], **options), barrier, atol=1e-9)


@pytest.mark.parametrize("metric", ["error", "loss"])
def test_there_is_no_barrier_between_a_network_and_itself(pair, metric):
    assert error_barrier(pair[0], pair[0].module_, X[TEST], y[TEST], metric=metric) == 0


def test_permuted_units_are_one_function_with_a_barrier(pair):
    network = pair[0].module_
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(32), (2, 1)), axis=1)
    other = permuted(network, orders)
    distance = function_distance(network, other, X[TEST])
    assert distance["disagreement"] == 0
    assert distance.total_variation < 1e-12
    assert error_barrier(network, other, X[TEST], y[TEST]) > 0.1
    assert relu_distance(network, other, X[TEST]) > 0.1
    back = permuted(other, orders.argsort(axis=1))
    assert error_barrier(network, back, X[TEST], y[TEST]) == 0


@pytest.mark.parametrize("kind", ["classes", "targets"])
def test_convex_problems_have_no_barrier_above_the_straight_line(kind):
    torch.manual_seed(0)
    a, b = nn.Linear(64, 10).double(), nn.Linear(64, 10).double()
    targets = y[TEST] if kind == "classes" else np.eye(10)[y[TEST]] + 0.5
    options = {"metric": "loss", "baseline": "linear"}
    assert error_barrier(a, b, X[TEST], targets, **options) == 0


def test_barriers_of_own_metrics_and_real_targets():
    torch.manual_seed(0)
    a, b = nn.Linear(64, 1).double(), nn.Linear(64, 1).double()
    targets = X[TEST, 20] + 0.5
    squared = error_barrier(a, b, X[TEST], targets, metric="loss", n_points=5)
    own = error_barrier(
        a, b, X[TEST], targets, n_points=5,
        metric=lambda true, predicted: np.mean((predicted[:, 0] - true) ** 2),
    )  # fmt: skip
    assert_allclose(own, squared)
    with pytest.raises(ValueError, match="metric='error' needs y of class codes"):
        error_barrier(a, b, X[TEST], targets)


def test_one_output_is_the_logit_of_the_second_class():
    torch.manual_seed(0)
    single, other = nn.Linear(64, 1).double(), nn.Linear(64, 1).double()

    def doubled(network):
        network_of_two = nn.Linear(64, 2).double()
        with torch.no_grad():
            for name, parameter in network_of_two.named_parameters():
                parameter.zero_()
                parameter[1:] = getattr(network, name)
        return network_of_two

    labels = (y[TEST] > 4).astype(int)
    for metric in ("error", "loss"):
        of_one, of_two = (
            error_barrier(*networks, X[TEST], labels, metric=metric)
            for networks in ((single, other), (doubled(single), doubled(other)))
        )
        assert_allclose(of_one, of_two)
    of_one = function_distance(single, other, X[TEST])
    of_two = function_distance(doubled(single), doubled(other), X[TEST])
    assert_allclose(list(of_one.values()), list(of_two.values()))


class BatchNormed(nn.Sequential):
    def __init__(self, seed):
        torch.manual_seed(seed)
        super().__init__(
            nn.Linear(64, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(16, 10),
        )  # fmt: skip
        self.double()


def test_statistics_of_batch_norm_are_estimated_at_every_point():
    a, b = BatchNormed(0), BatchNormed(1)
    for network in (a, b):
        network.train()(torch.tensor(X[TRAIN]))  # running statistics of a tenth
    before = copy.deepcopy(a.state_dict())
    data, seen = X[:500], []

    def metric(true, scores):
        seen.append(scores)
        return 0.0

    error_barrier(a, b, X[TEST], y[TEST], n_points=3, metric=metric, batch_norm_data=data)
    for alpha, scores in zip((0, 0.5, 1), seen, strict=True):
        weight, gamma, beta, leave, bias = (
            (1 - alpha) * p.detach().numpy() + alpha * q.detach().numpy()
            for p, q in zip(a.parameters(), b.parameters(), strict=True)
        )
        h = data @ weight.T
        mean, variance = h.mean(axis=0), h.var(axis=0, ddof=1)
        h = (X[TEST] @ weight.T - mean) / np.sqrt(variance + 1e-5) * gamma + beta
        assert_allclose(scores, np.maximum(h, 0) @ leave.T + bias, rtol=1e-9, atol=1e-9)
    assert a.training
    for name, value in a.state_dict().items():
        assert_array_equal(value, before[name])
    with pytest.raises(ValueError, match="batch_norm_data must have at least 2 rows"):
        error_barrier(a, b, X[TEST], y[TEST], batch_norm_data=data[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_b": mlp(width=16)}, r"'0.weight' is \(32, 64\) in model_a and \(16, 64\) in"),
        ({"model_b": nn.Linear(64, 10)}, r"'0.weight' is \(32, 64\) in model_a and not there"),
        ({"model_a": "net"}, "model_a must be a torch.nn.Module or a fitted skorch.NeuralNet"),
        ({"model_a": net(mlp(), 1)}, "model_a must be a torch.nn.Module or a fitted skorch"),
        ({"n_points": 1}, "n_points must be an integer >= 2, got 1"),
        ({"metric": "accuracy"}, "metric must be 'error', 'loss' or a callable"),
        ({"baseline": "none"}, "baseline must be 'mean' or 'linear'"),
        ({"y": y[:3]}, "y must have one entry for each of the 20 samples"),
        ({"y": y[:20] + 1}, "y must be class codes 0 to 9 for 10 output"),
        ({"y": y[:20].astype(str)}, "y must be class codes 0 to 9"),
        ({"X": X[:20, :7]}, r"model_a cannot be applied to X of shape \(20, 7\)"),
        ({"X": np.full((20, 64), np.inf)}, "X contains infinity"),
    ],
)
def test_what_has_no_barrier_is_refused(options, message):
    arguments = {"model_a": mlp(0), "model_b": mlp(1), "X": X[:20], "y": y[:20], **options}
    with pytest.raises(ValueError, match=message):
        error_barrier(**arguments)


# -- distances of functions and patterns --------------------------------------------------------


def test_function_distance_is_its_definition(pair):
    of_a, of_b = (outputs(model.module_, X[TEST]) for model in pair)
    result = function_distance(*pair, X[TEST])
    assert result.disagreement == np.mean(of_a.argmax(axis=1) != of_b.argmax(axis=1))
    p, q = softmax(of_a, axis=1), softmax(of_b, axis=1)
    assert_allclose(result.total_variation, np.maximum(p - q, 0).sum(axis=1).mean())
    assert 0 < result.disagreement <= 1
    with pytest.raises(ValueError, match="equally many outputs, got 10 and 3"):
        function_distance(mlp(), mlp(n_outputs=3), X[:3])
    with pytest.raises(ValueError, match=r"a must map \(n, ...\) to \(n, O\)"):
        function_distance(nn.Flatten(0), mlp(), X[:3])


def test_relu_distance_is_its_definition(pair):
    a, b = (model.module_ for model in pair)
    differing = reference.relu_patterns(a, X[TEST]) != reference.relu_patterns(b, X[TEST])
    assert relu_distance(a, b, X[TEST]) == differing.mean()
    assert relu_distance(a, a, X[TEST]) == 0
    assert relu_distance(a, b, X[:1500]) > 0  # more than one pass


def test_rectifiers_are_found_however_they_are_called():
    class Called(nn.Module):
        def __init__(self, network, way):
            super().__init__()
            self.network, self.way = network, way

        def forward(self, x):
            for part in self.network:
                x = self.way(x) if isinstance(part, nn.ReLU) else part(x)
            return x

    a, b = mlp(0), mlp(1)
    expected = relu_distance(a, b, X[:50])
    for way in (
        nn.functional.relu,
        torch.relu,
        torch.Tensor.relu,
        nn.ReLU(inplace=True),
        lambda x: nn.functional.relu(x, inplace=True),
        lambda x: x.relu_(),
    ):
        assert relu_distance(Called(a, way), Called(b, way), X[:50]) == expected


@pytest.mark.parametrize("name", ["residual", "resnet", "transformer", "conv2d"])
def test_rectifiers_of_any_network_are_found(name):
    network, samples = WORLD[name]
    assert relu_distance(network, network, samples) == 0


def test_a_unit_is_on_where_it_is_positive():
    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(2, 5, bias=False), nn.ReLU()) for _ in range(2))
    assert relu_distance(a, b, np.zeros((3, 2))) == 0
    with torch.no_grad():
        a[0].weight.fill_(1)
        b[0].weight.fill_(-1)
    assert relu_distance(a, b, np.ones((3, 2))) == 1


def test_networks_without_patterns_to_compare_are_refused():
    smooth = nn.Sequential(nn.Linear(64, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    with pytest.raises(ValueError, match="a has no ReLU"):
        relu_distance(smooth, mlp(), X[:3])
    with pytest.raises(ValueError, match="b has no ReLU"):
        relu_distance(mlp(), smooth, X[:3])
    with pytest.raises(ValueError, match=r"same rectifiers in the same order.*\(32,\).*\(16,\)"):
        relu_distance(mlp(), mlp(width=16), X[:3])


# -- spawn_children -----------------------------------------------------------------------------


def parameters(model):
    return [p.detach().numpy().copy() for p in model.module_.parameters()]


def test_children_go_on_from_their_parent():
    options = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 0.02}
    parent = trained(0, 2, **options)
    before = parameters(parent)
    momentum = [copy.deepcopy(s) for s in parent.optimizer_.state.values()]
    first, second = spawn_children(parent, X[TRAIN], y[TRAIN], epochs=2, random_state=0)
    assert_array_equal(np.concatenate([p.ravel() for p in parameters(parent)]),
                       np.concatenate([p.ravel() for p in before]))  # fmt: skip
    assert [len(model.history) for model in (parent, first, second)] == [2, 4, 4]
    assert any((p != q).any() for p, q in zip(*map(parameters, (first, second)), strict=True))
    again = spawn_children(parent, X[TRAIN], y[TRAIN], epochs=2, random_state=0)
    for p, q in zip(parameters(first), parameters(again[0]), strict=True):
        assert_array_equal(p, q)
    (still,) = spawn_children(parent, X[TRAIN], y[TRAIN], epochs=0, n_children=1)
    for p, q in zip(parameters(still), before, strict=True):
        assert_array_equal(p, q)
    for state, expected in zip(still.optimizer_.state.values(), momentum, strict=True):
        assert_array_equal(state["momentum_buffer"], expected["momentum_buffer"])


def test_children_have_the_optimiser_of_their_parent():
    """One child in batches of everything is the parent trained on: there is one order alone."""
    options = {"optimizer": torch.optim.Adam, "lr": 1e-3, "batch_size": -1}
    parent = trained(0, 3, **options)
    (child,) = spawn_children(parent, X[TRAIN], y[TRAIN], epochs=2, n_children=1, random_state=0)
    parent.set_params(max_epochs=2).partial_fit(X[TRAIN], y[TRAIN])
    for p, q in zip(parameters(child), parameters(parent), strict=True):
        assert_allclose(p, q, rtol=1e-6, atol=1e-9)


def test_spawning_leaves_global_generators_alone():
    parent = trained(0, 1)
    state = torch.get_rng_state()
    spawn_children(parent, X[TRAIN], y[TRAIN], epochs=1, n_children=1)
    assert_array_equal(torch.get_rng_state(), state)


def test_parents_that_cannot_have_different_children_are_refused():
    with pytest.raises(ValueError, match=r"net must be a skorch.NeuralNet that was fitted"):
        spawn_children(mlp(), X, y, epochs=1)
    with pytest.raises(ValueError, match=r"net must be a skorch.NeuralNet that was fitted"):
        spawn_children(net(mlp(), 1), X, y, epochs=1)
    in_order = net(mlp(), 1, iterator_train__shuffle=False).initialize()
    with pytest.raises(ValueError, match="iterator_train__shuffle=True"):
        spawn_children(in_order, X, y, epochs=1)
    parent = net(mlp(), 1).initialize()
    with pytest.raises(ValueError, match="epochs must be an integer >= 0, got -1"):
        spawn_children(parent, X, y, epochs=-1)
    with pytest.raises(ValueError, match="n_children must be an integer >= 1, got 0"):
        spawn_children(parent, X, y, epochs=1, n_children=0)


def test_networks_of_independent_origins_are_further_apart_than_children():
    """Standardised digits, SGD of batches of 32 with lr 0.2."""
    options = {"metric": "loss"}
    parent, other = trained(0, 0), trained(1, 15)
    children = spawn_children(parent, X[TRAIN], y[TRAIN], epochs=15, random_state=0)
    within = error_barrier(*children, X[TEST], y[TEST], **options)
    between = error_barrier(children[0], other, X[TEST], y[TEST], **options)
    assert between >= 10 * within
    assert relu_distance(children[0], other, X[TEST]) > 2 * relu_distance(*children, X[TEST])
