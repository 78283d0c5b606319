"""Linear models in the tangents of a network at a checkpoint."""

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_nftk.dynamics import LinearizedClassifier, LinearizedRegressor
from sklearn_nftk.dynamics._linearization import Linearization
from sklearn_nftk.networks import MLP, InfiniteMLP

from . import reference, zoo

WORLD = zoo.build()
X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
TARGET = X[:, 3] * X[:, 2] + y


def network(n_outputs=3, seed=0, width=12):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, n_outputs)).double()


def outputs(module, samples):
    with torch.no_grad():
        return module(torch.as_tensor(samples)).numpy()


def step(module, seed=0, size=0.3):
    """A random step in parameters: by names, flat."""
    rng = np.random.default_rng(seed)
    return {
        name: size * rng.standard_normal(p.numel())
        for name, p in module.named_parameters()
        if p.requires_grad
    }


def linearised(module, by_names):
    linear = Linearization(module)
    with torch.no_grad():
        for name, p in zip(linear.names, linear.steps, strict=True):
            p.copy_(torch.tensor(by_names[name]).reshape(p.shape))
    return linear


# -- the expansion ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in WORLD if not name.startswith("bag")])
def test_the_expansion_is_that_of_the_jacobian(name):
    module, samples = WORLD[name]
    by_names = step(module)
    actual = outputs(linearised(module, by_names), samples)
    expected = reference.linear_outputs(module, samples, by_names)
    assert_allclose(actual, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["mlp", "group norm", "resnet", "transformer", "tied", "frozen"])
def test_at_the_checkpoint_values_and_derivatives_are_the_networks(name):
    module, samples = copy.deepcopy(WORLD[name])
    linear = Linearization(module)
    assert_allclose(outputs(linear, samples), outputs(module, samples), rtol=1e-12)
    loss = linear(samples).square().sum()
    loss.backward()
    module(samples).square().sum().backward()
    by_name = dict(module.named_parameters())
    assert linear.names == [name for name, p in by_name.items() if p.requires_grad]
    for parameter, of_step in zip(linear.names, linear.steps, strict=True):
        assert_allclose(of_step.grad, by_name[parameter].grad, rtol=1e-8, atol=1e-10)


def test_networks_that_are_linear_in_their_parameters_are_their_expansion():
    module = nn.Linear(4, 3).double()
    by_names = step(module)
    there = copy.deepcopy(module)
    with torch.no_grad():
        for name, p in there.named_parameters():
            p.add_(torch.tensor(by_names[name]).reshape(p.shape))
    assert_allclose(outputs(linearised(module, by_names), X), outputs(there, X), rtol=1e-12)


def test_the_expansion_is_of_first_order():
    module = network()
    errors = []
    for size in (1e-2, 1e-3):
        by_names = step(module, size=size)
        there = copy.deepcopy(module)
        with torch.no_grad():
            for name, p in there.named_parameters():
                p.add_(torch.tensor(by_names[name]).reshape(p.shape))
        errors.append(np.abs(outputs(linearised(module, by_names), X) - outputs(there, X)).max())
    assert 70 < errors[0] / errors[1] < 130  # ten times smaller, a hundred times closer


def test_operations_without_derivatives_are_refused():
    module, samples = WORLD["bag mean"]
    samples, labels = samples.numpy(), [0, 1, 0, 1, 1]
    with pytest.raises(ValueError, match="torch does not know its derivative along parameters"):
        LinearizedClassifier(module, solver="gradient", max_epochs=1).fit(samples, labels)
    assert (
        LinearizedClassifier(module, alpha=1e-3).fit(samples, labels).score(samples, labels) == 1
    )


def test_training_does_not_reach_the_network():
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    linear = Linearization(module.double()).train()
    assert not any(part.training for part in linear.network.modules())
    assert_array_equal(outputs(linear, X), outputs(linear, X))
    assert all(p.requires_grad for p in module.parameters())


# -- closed form --------------------------------------------------------------------------------


def ridge_in_weights(module, alpha, targets, sample_weight=None):
    """Predictions of ridge regression on the Jacobian: the definition, in parameter space."""
    gradients = reference.gradients(module, torch.as_tensor(X))
    J = np.concatenate(list(gradients.values()), axis=2).reshape(targets.size, -1)
    residuals = (targets - outputs(module, X)).ravel()
    if sample_weight is not None:
        sample_weight = np.repeat(sample_weight, targets.shape[1])
    ridge = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky")
    ridge.fit(J, residuals, sample_weight=sample_weight)
    return outputs(module, X) + (J @ ridge.coef_).reshape(targets.shape)


@pytest.mark.parametrize("alpha", [0.01, 3.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_block_kernel_is_ridge_regression_on_the_jacobian(alpha, weighted):
    module = network()
    weights = np.random.default_rng(0).uniform(0.2, 2, len(X)) if weighted else None
    model = LinearizedClassifier(module, kernel="block", alpha=alpha).fit(X, y, weights)
    expected = ridge_in_weights(module, alpha, np.eye(3)[y], weights)
    assert_allclose(model.decision_function(X), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kernel", ["trace", "block"])
def test_one_output_has_one_kernel(kernel):
    module = network(1)
    model = LinearizedRegressor(module, kernel=kernel, alpha=0.1).fit(X, TARGET)
    expected = ridge_in_weights(module, 0.1, TARGET[:, None])
    assert_allclose(model.predict(X), expected[:, 0], rtol=1e-6, atol=1e-8)


def test_the_trace_kernel_is_the_mean_of_the_diagonal_blocks():
    module, new = network(), X[::7] + 0.1
    model = LinearizedClassifier(module, alpha=0.5).fit(X, y)
    K, K_new = (reference.block_kernel(module, Z, X) for Z in (X, new))
    K, K_new = (
        np.einsum("iojo->ij", K.reshape(len(K) // 3, 3, len(X), 3)) / 3 for K in (K, K_new)
    )
    dual = np.linalg.solve(K + 0.5 * np.eye(len(X)), np.eye(3)[y] - outputs(module, X))
    assert_allclose(model.decision_function(new), outputs(module, new) + K_new @ dual, rtol=1e-6)


def test_the_trace_is_exact_where_blocks_are_one_kernel_for_all_outputs():
    """Outputs that share no parameter and are copies: the blocks are K times the identity."""

    class Copies(nn.Module):
        def __init__(self):
            super().__init__()
            first = network(1)
            self.parts = nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(2))])

        def forward(self, x):
            return torch.cat([part(x) for part in self.parts], dim=1)

    module = Copies()
    trace, block = (
        LinearizedClassifier(module, kernel=kernel, alpha=0.1).fit(X, y).decision_function(X)
        for kernel in ("trace", "block")
    )
    assert_allclose(trace, block, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["group norm", "resnet", "transformer"])
def test_any_network_is_linearised(name):
    module, samples = WORLD[name]
    samples, labels = samples.numpy(), [0, 1, 0, 1, 1]
    for options in ({}, {"kernel": "block"}, {"solver": "gradient", "max_epochs": 3, "lr": 1e-3}):
        model = LinearizedClassifier(module, alpha=1e-3, **options).fit(samples, labels)
        assert model.decision_function(samples).shape == (5,)
        if "solver" not in options:
            assert_array_equal(model.predict(samples), labels)


def test_pairs_of_samples_and_outputs_keep_the_shape_of_images():
    module, samples = WORLD["conv2d"]
    samples, labels = samples.numpy(), [0, 1, 0, 1, 1]
    K = reference.block_kernel(module, samples, samples)
    model = LinearizedClassifier(module, kernel="block", alpha=1.0).fit(samples, labels)
    residuals = np.eye(2)[labels] - outputs(module, samples)
    dual = np.linalg.solve(K + np.eye(10), residuals.ravel())
    expected = outputs(module, samples) + (K @ dual).reshape(5, 2)
    assert_allclose(model.decision_function(samples), expected @ [-1, 1], rtol=1e-6)


# -- gradient steps -----------------------------------------------------------------------------


@pytest.mark.parametrize("max_epochs", [0])
def test_without_steps_it_is_the_network(max_epochs):
    module = network()
    options = {"solver": "gradient", "max_epochs": max_epochs}
    model = LinearizedClassifier(module, loss="log_loss", **options).fit(X, y)
    assert_array_equal(model.decision_function(X), outputs(module, X))
    assert_allclose(model.predict_proba(X), softmax(outputs(module, X), axis=1))
    assert_allclose(model.predict_log_proba(X), log_softmax(outputs(module, X), axis=1))
    regressor = LinearizedRegressor(network(1), **options).fit(X, TARGET)
    assert_array_equal(regressor.predict(X), outputs(network(1), X)[:, 0])


def test_one_step_is_that_of_the_network():
    module = network()
    model = LinearizedClassifier(module, solver="gradient", alpha=0, lr=0.1, max_epochs=1)
    model.set_params(loss="log_loss").fit(X, y)
    there = copy.deepcopy(module)
    nn.functional.cross_entropy(there(torch.tensor(X)), torch.tensor(y)).backward()
    by_names = {name: -0.1 * p.grad.numpy().ravel() for name, p in there.named_parameters()}
    expected = reference.linear_outputs(module, X, by_names)
    assert_allclose(model.decision_function(X), expected, rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_steps_of_one_output_lead_to_the_closed_form(alpha):
    rng = np.random.default_rng(0)
    few, target = rng.standard_normal((6, 4)), rng.standard_normal(6)
    new = rng.standard_normal((5, 4))
    module = network(1, width=40)
    largest = np.linalg.eigvalsh(reference.block_kernel(module, few, few))[-1]
    steps = LinearizedRegressor(
        module,
        solver="gradient",
        alpha=alpha,
        lr=6 / (2 * largest),
        momentum=0.95,
        max_epochs=3000,
    ).fit(few, target)
    closed = LinearizedRegressor(module, alpha=max(alpha, 1e-10)).fit(few, target)
    assert_allclose(steps.predict(new), closed.predict(new), rtol=1e-5, atol=1e-6)
    if not alpha:
        assert_allclose(steps.predict(few), target, rtol=1e-6)


def test_steps_of_several_outputs_lead_to_the_block_kernel_and_not_to_its_trace():
    rng = np.random.default_rng(1)
    few, labels, new = rng.standard_normal((5, 4)), [0, 1, 2, 1, 0], rng.standard_normal((5, 4))
    module = network(3, width=40)
    largest = np.linalg.eigvalsh(reference.block_kernel(module, few, few))[-1]
    options = {"alpha": 0.5, "lr": 5 / (2 * largest), "momentum": 0.95, "max_epochs": 800}
    steps, block, trace = (
        LinearizedClassifier(module, **options, **way).fit(few, labels).decision_function(new)
        for way in ({"solver": "gradient"}, {"kernel": "block"}, {"kernel": "trace"})
    )
    assert_allclose(steps, block, rtol=1e-5, atol=1e-6)
    assert np.abs(block - trace).max() > 1e-2


def test_weights_are_repetitions_in_both_solvers():
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    repeated = np.repeat(np.arange(len(X)), counts)
    for options in ({"solver": "gradient", "max_epochs": 20}, {}, {"kernel": "block"}):
        model = LinearizedClassifier(network(), lr=0.02, **options)
        weighted = clone(model).fit(X, y, sample_weight=counts).decision_function(X)
        longer = clone(model).fit(X[repeated], y[repeated]).decision_function(X)
        assert_allclose(weighted, longer, rtol=1e-6, atol=1e-8)


def test_batches_are_drawn_from_random_state():
    options = {"solver": "gradient", "loss": "log_loss", "batch_size": 10, "max_epochs": 3}
    first, same, other = (
        LinearizedClassifier(network(), random_state=seed, **options)
        .fit(X, y)
        .decision_function(X)
        for seed in (0, 0, 1)
    )
    assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_steps_that_are_too_long_are_refused():
    model = LinearizedRegressor(network(1), solver="gradient", lr=1e3, max_epochs=500)
    with pytest.raises(ValueError, match="training diverged"):
        model.fit(X, TARGET)


# -- networks -----------------------------------------------------------------------------------


def test_whatever_has_parameters_is_linearised():
    def function(n_features, n_outputs, random_state):
        return network(n_outputs, random_state)

    net = NeuralNetClassifier(
        function(4, 3, 0).float(), criterion=nn.CrossEntropyLoss, max_epochs=3, train_split=None,
        verbose=0,
    )  # fmt: skip
    fitted = copy.deepcopy(net).fit(X.astype(np.float32), y)
    for chosen in (None, MLP((16,)), MLP((16,), max_epochs=2), function, net, fitted):
        model = LinearizedClassifier(chosen, random_state=0, alpha=0.1).fit(X, y)
        assert model.n_outputs_ == 3
        assert model.score(X, y) > 0.9
    assert_allclose(outputs(model.network_.float(), X.astype(np.float32)),
                    fitted.forward(X.astype(np.float32)).numpy(), rtol=1e-5)  # fmt: skip


def test_networks_are_left_alone():
    module = network().train()
    before = copy.deepcopy(module.state_dict())
    for options in ({"solver": "gradient"}, {"kernel": "block"}, {}):
        LinearizedClassifier(module, **options).fit(X, y)
    assert module.training
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    for name, value in module.state_dict().items():
        assert_array_equal(value, before[name])


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("loss", ["squared", "log_loss"])
def test_two_classes_take_one_output_or_two(n_outputs, loss):
    labels = np.where(y == 2, "b", "a")
    options = {"solver": "gradient", "max_epochs": 200, "lr": 0.03, "momentum": 0.9}
    model = LinearizedClassifier(network(n_outputs), loss=loss, alpha=0.1, **options)
    model.fit(X, labels)
    decisions = model.decision_function(X)
    assert decisions.shape == (150,)
    assert_array_equal(model.predict(X), np.where(decisions > 0, "b", "a"))
    assert model.score(X, labels) > 0.9
    if loss == "log_loss":
        assert_allclose(model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-decisions)))
        assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))
    else:
        assert not hasattr(model, "predict_proba")


def test_several_targets_are_learned_together():
    targets = np.column_stack([TARGET, X[:, 0]])
    for kernel in ("trace", "block"):
        model = LinearizedRegressor(network(2), kernel=kernel, alpha=0.01).fit(X, targets)
        assert model.predict(X).shape == (150, 2)
        assert model.score(X, targets) > 0.95
    assert LinearizedRegressor(network(1)).fit(X, TARGET[:, None]).predict(X).shape == (150, 1)


# -- scikit-learn -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"kernel": "block"}, {"solver": "gradient", "max_epochs": 5}]
)
def test_fitted_models_travel(options):
    model = LinearizedClassifier(network(), **options).fit(X, y)
    loaded = pickle.loads(pickle.dumps(model))
    assert_allclose(loaded.decision_function(X), model.decision_function(X), rtol=1e-12)
    again = clone(model).fit(X, y)
    assert_allclose(again.decision_function(X), model.decision_function(X), rtol=1e-12)


def test_in_pipelines_and_grids():
    pipeline = make_pipeline(StandardScaler(), LinearizedClassifier(network(width=32)))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.9
    grid = GridSearchCV(LinearizedClassifier(random_state=0), {"network__hidden_layer_sizes": [8]})
    assert grid.fit(X, y).best_estimator_.network_[0].out_features == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "newton"}, "'solver' parameter"),
        ({"kernel": "sum"}, "'kernel' parameter"),
        ({"alpha": -1}, "'alpha' parameter"),
        ({"lr": 0}, "'lr' parameter"),
        ({"momentum": 1.0}, "'momentum' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"max_epochs": -1}, "'max_epochs' parameter"),
        ({"loss": "hinge"}, "'loss' parameter"),
        ({"loss": "log_loss"}, "loss='log_loss' has no closed form; use solver='gradient'"),
        ({"network": network(2)}, r"network must have 3 output\(s\) for these targets, got 2"),
        ({"network": InfiniteMLP()}, "network must have parameters to expand in"),
        ({"network": "mlp"}, "network must be None, an MLP"),
        ({"device": "tpu"}, "device='tpu' is not known to torch"),
    ],
)
def test_what_cannot_be_linearised_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LinearizedClassifier(**{"network": network(), **options}).fit(X, y)


def test_data_that_say_nothing_are_refused():
    with pytest.raises(ValueError, match="at least two classes of positive weight"):
        LinearizedClassifier(network()).fit(X, y, sample_weight=(y == 1).astype(float))
    with pytest.raises(ValueError, match="at least one"):
        LinearizedRegressor(network(1)).fit(X, TARGET, sample_weight=np.zeros(150))
    with pytest.raises(ValueError, match=r"network must have 2 output\(s\)"):
        LinearizedRegressor(network(1)).fit(X, X[:, :2])
    with pytest.raises(NotFittedError):
        LinearizedClassifier(network()).predict(X)
    with pytest.raises(ValueError, match="expecting 4 features"):
        LinearizedClassifier(network()).fit(X, y).predict(X[:, :3])


def test_block_kernels_beyond_memory_are_refused(monkeypatch):
    monkeypatch.setattr("sklearn_nftk.utils._memory.available_memory", lambda: 2**20)
    with pytest.raises(
        MemoryError, match=r"block kernel of 150 rows and 3 outputs.*kernel='trace'"
    ):
        LinearizedClassifier(network(), kernel="block").fit(X, y)


def test_training_brings_the_kernel_of_a_checkpoint_forward():
    """The linear model at a trained network predicts better than at the one it began with."""
    digits, labels = load_digits(return_X_y=True)
    digits = StandardScaler().fit_transform(digits)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(),
                           nn.Linear(32, 10)).double()  # fmt: skip
    train, test = slice(0, 600), slice(600, None)
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, lr=0.1, batch_size=32, train_split=None, verbose=0,
    )  # fmt: skip
    scores = []
    for max_epochs in (0, 40):
        checkpoint = clone(net).set_params(max_epochs=max_epochs)
        checkpoint.fit(digits[train], labels[train])
        model = LinearizedClassifier(
            checkpoint, solver="gradient", loss="log_loss", alpha=0.0, lr=0.05, batch_size=32,
            max_epochs=5, random_state=0,
        )  # fmt: skip
        scores.append(model.fit(digits[train], labels[train]).score(digits[test], labels[test]))
    assert scores[1] > scores[0] + 0.02
