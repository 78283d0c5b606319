import pickle
import sys
import threading

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from threadpoolctl import threadpool_limits
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier, MultiLayerNTKRegressor
from sklearn_nftk.inspection import network_fidelity
from sklearn_nftk.kernels import LayerKernels, layer_kernels, layer_names
from sklearn_nftk.networks import MLP, NTKLinear, make_source
from sklearn_nftk.networks._training import repetitions
from sklearn_nftk.utils import _sklearn

skorch = pytest.importorskip("skorch")


def module(n_outputs=3):
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, n_outputs))


class Classes(nn.Module):
    """Class of a module, which a net makes itself."""

    def __init__(self, n_outputs=3, interrupt=False):
        super().__init__()
        self.layers = module(n_outputs)
        self.interrupt = interrupt

    def forward(self, x):
        if self.interrupt and self.training:
            raise KeyboardInterrupt
        return self.layers(x)


def net(kind="NeuralNetClassifier", module=Classes, **parameters):
    parameters = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.Adam,
        "lr": 0.01,
        "max_epochs": 8,
        "train_split": None,
        "verbose": 0,
        **parameters,
    }
    return getattr(skorch, kind)(module, **parameters)


def trained(X, y, network, seed=0, **parameters):
    model = MultiLayerNTKClassifier(network, random_state=seed, **parameters)
    return model.fit(X, y)


def cross_entropy(network, X, y):
    with torch.no_grad():
        outputs = network(torch.as_tensor(X).to(next(network.parameters()).dtype))
    return float(nn.functional.cross_entropy(outputs, torch.as_tensor(y)))


# -- MLP -----------------------------------------------------------------------------------------


def test_training_learns(three_classes):
    X, y = three_classes
    losses = [
        cross_entropy(trained(X, y, MLP((32,), max_epochs=n, lr=1e-2)).network_, X, y)
        for n in (1, 10, 60)
    ]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.3


def test_the_same_function_in_both_parametrisations(three_classes):
    X, y = three_classes
    ntk, standard = (
        trained(X, y, MLP((32, 16), max_epochs=5, parametrization=name))
        for name in ("ntk", "standard")
    )
    x = torch.as_tensor(X)
    assert isinstance(ntk.network_[0], NTKLinear)
    assert type(standard.network_[0]) is nn.Linear
    assert_allclose(ntk.network_(x).detach(), standard.network_(x).detach(), rtol=1e-6, atol=1e-7)
    # A tangent with respect to a parameter that is multiplied by its scale has that factor.
    a, b = layer_kernels(ntk.network_, X), layer_kernels(standard.network_, X)
    variance, of_bias = 2 / 5, 0.1
    products = X @ X.T + of_bias / variance
    assert_allclose(a[..., 0] * (X @ X.T + 1), variance * products * b[..., 0], rtol=1e-6)


def test_training_begins_where_the_untrained_network_is(three_classes):
    X, y = three_classes
    slow = trained(X, y, MLP((16,), max_epochs=1, lr=1e-9)).network_
    drawn = MLP((16,), random_state=None)
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)
    drawn = drawn.build(5, 3, np.random.RandomState(seed).randint(np.iinfo(np.int32).max))
    assert_allclose(
        slow(torch.as_tensor(X)).detach(), drawn(torch.as_tensor(X)).detach(), atol=1e-5
    )


def test_outputs_of_a_trained_network_are_the_classes(three_classes, two_classes):
    for X, y in (three_classes, two_classes):
        model = trained(X, np.array(["a", "b", "c"])[y], MLP((16,), max_epochs=2))
        assert model.network_[-1].out_features == len(model.classes_)
        assert model.kernel_source_.n_outputs == len(model.classes_)


def test_regression_has_targets_of_any_unit():
    X, y = load_diabetes(return_X_y=True)
    X = X / X.std(axis=0)
    network = MLP((32,), max_epochs=30, lr=1e-2)
    one = MultiLayerNTKRegressor(network, random_state=0).fit(X, y)
    other = MultiLayerNTKRegressor(network, random_state=0).fit(X, 1e4 * y - 7)
    outputs = one.kernel_source_.network_outputs(X)[:, 0]
    assert 1 - np.mean((outputs - y) ** 2) / y.var() > 0.5  # in units of y
    assert_allclose(other.kernel_source_.network_outputs(X)[:, 0], 1e4 * outputs - 7, rtol=1e-3)
    assert network_fidelity(one, X).agreement > 0.5
    several = MultiLayerNTKRegressor(network, random_state=0).fit(X, np.c_[y, -3 * y])
    assert several.network_[-1].out_features == 2
    constant = MultiLayerNTKRegressor(network, random_state=0).fit(X, np.ones(len(X)))
    assert_allclose(constant.predict(X[:3]), 1, atol=1e-6)


def test_without_biases(three_classes):
    X, y = three_classes
    network = trained(X, y, MLP((16,), bias_variance=0.0, max_epochs=5)).network_
    assert all((layer.bias_scale == 0) for layer in network if isinstance(layer, NTKLinear))
    assert_allclose(network(torch.zeros(1, 5, dtype=torch.float64)).detach(), 0, atol=1e-12)


def test_weight_decay_and_early_stopping(three_classes):
    X, y = three_classes

    def norm(**parameters):
        network = trained(X, y, MLP((64,), lr=1e-2, **parameters)).network_
        return float(network[0].weight.detach().norm())

    assert norm(max_epochs=20, weight_decay=5.0) < 0.7 * norm(max_epochs=20)
    stopped = trained(X, y, MLP((64,), max_epochs=500, lr=1e-2, early_stopping=True)).network_
    to_the_end = trained(X, y, MLP((64,), max_epochs=500, lr=1e-2)).network_
    assert cross_entropy(stopped, X, y) > 2 * cross_entropy(to_the_end, X, y)


def test_the_seed_decides_and_the_order_of_the_rows_does_not(three_classes):
    X, y = three_classes
    network = MLP((16,), max_epochs=3, batch_size=8)
    one, same, other = (trained(X, y, network, seed) for seed in (0, 0, 1))
    assert_array_equal(one.decision_function(X), same.decision_function(X))
    assert not np.allclose(one.decision_function(X), other.decision_function(X), rtol=1e-3)
    order = np.random.RandomState(0).permutation(60)
    permuted = trained(X[order], y[order], network)
    assert_allclose(permuted.decision_function(X), one.decision_function(X), rtol=1e-6)


def test_training_leaves_the_global_generators_alone(three_classes):
    X, y = three_classes
    torch.manual_seed(7)
    of_numpy = check_random_state(None)  # numpy's global generator
    of_numpy.seed(7)
    before = torch.get_rng_state(), of_numpy.get_state()[1].copy()
    for network in (MLP((8,), max_epochs=2), net()):
        trained(X, y, network)
    assert_array_equal(torch.get_rng_state(), before[0])
    assert_array_equal(of_numpy.get_state()[1], before[1])


def test_training_where_gradients_are_off(three_classes):
    X, y = three_classes
    expected = trained(X, y, MLP((8,), max_epochs=2)).decision_function(X)
    with torch.inference_mode():
        assert_allclose(trained(X, y, MLP((8,), max_epochs=2)).decision_function(X), expected)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_epochs": -1}, "max_epochs must be an integer >= 0"),
        ({"max_epochs": 1.5}, "max_epochs must be an integer >= 0"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"lr": 0.0}, "lr must be a number > 0"),
        ({"weight_decay": -1.0}, "weight_decay must be a number >= 0"),
        ({"early_stopping": "yes"}, "early_stopping must be a bool"),
    ],
)
def test_parameters_of_training(parameters, message, three_classes):
    with pytest.raises(ValueError, match=message):
        trained(*three_classes, MLP((8,), **{"max_epochs": 1, **parameters}))


def test_training_that_diverges(three_classes):
    with pytest.raises(ValueError, match=r"training diverged.*smaller lr"):
        trained(*three_classes, net(lr=1e30, optimizer=torch.optim.SGD))


def test_training_needs_targets(three_classes):
    X, _ = three_classes
    for network in (MLP((8,), max_epochs=1), net()):
        with pytest.raises(ValueError, match="trained in fit, and that needs y"):
            layer_kernels(network, X)


def test_training_needs_skorch(three_classes, monkeypatch):
    monkeypatch.setitem(sys.modules, "skorch", None)
    with pytest.raises(ImportError, match=r"needs skorch: pip install 'sklearn-nftk\[train\]'"):
        trained(*three_classes, MLP((8,), max_epochs=1))
    trained(*three_classes, MLP((8,)))


# -- weights of rows -----------------------------------------------------------------------------


def test_rows_are_repeated_by_their_weights():
    assert_array_equal(repetitions(np.full(5, 0.3), 0), np.arange(5))
    assert_array_equal(repetitions(np.array([0.5, 1.5, 1.0]), 0), [0, 1, 1, 1, 2, 2])
    weights = np.random.RandomState(0).uniform(0.1, 1, 50)
    rows = np.bincount(repetitions(weights, 3), minlength=50)
    assert len(rows) == 50
    assert rows.sum() == 200  # at most four of each, on average
    assert (np.abs(rows - weights / weights.sum() * 200) < 1).all()


def test_weights_matter_in_training(three_classes):
    X, y = three_classes
    weights = np.where(y == 0, 50.0, 1.0)
    for network in (MLP((16,), max_epochs=15, lr=1e-2), net(max_epochs=30)):
        model = MultiLayerNTKClassifier(network, random_state=0)
        even = model.fit(X, y).network_
        uneven = model.fit(X, y, sample_weight=weights).network_
        own = [cross_entropy(f, X[y == 0], y[y == 0]) for f in (even, uneven)]
        assert own[1] < 0.5 * own[0]


# -- nets of skorch ------------------------------------------------------------------------------


def test_an_unfitted_net_is_trained_on_a_clone(three_classes):
    X, y = three_classes
    given = module()
    for mine in (net(max_epochs=20), net(module=given, max_epochs=20)):
        before = [p.clone() for p in given.parameters()]
        model = trained(X, np.array(["a", "b", "c"])[y], mine, outputs="per_class")
        assert not mine.initialized_
        assert model.network is mine
        assert all((p == q).all() for p, q in zip(given.parameters(), before, strict=True))
        assert cross_entropy(model.network_, X, y) < 0.9
        assert b"skorch" not in pickle.dumps(model.kernel_source_)
    assert layer_names(net()) == ["layers.0", "layers.2"]


def test_a_fitted_net_is_used_as_it_is(three_classes):
    X, y = three_classes
    fitted = net(max_epochs=3).fit(X.astype(np.float32), y)
    expected = layer_kernels(fitted.module_, X)
    assert_array_equal(layer_kernels(fitted, X), expected)
    frozen = MultiLayerNTKClassifier(FrozenEstimator(fitted), cv=3)
    for model in (MultiLayerNTKClassifier(fitted), clone(frozen)):
        model.fit(X, y)
        assert not hasattr(model, "oof_scores_")  # nothing is trained
        same = zip(model.network_.parameters(), fitted.module_.parameters(), strict=True)
        assert all((p == q).all() for p, q in same)


def test_nets_of_other_kinds(three_classes, two_classes):
    X, y = two_classes
    binary = net(
        "NeuralNetBinaryClassifier", nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)),
        criterion=nn.BCEWithLogitsLoss,
    )  # fmt: skip
    assert trained(X, y, binary).score(X, y) > 0.8
    X, y = three_classes
    regressor = net("NeuralNetRegressor", module(1), criterion=nn.MSELoss, max_epochs=40)
    model = MultiLayerNTKRegressor(regressor, cv=2, random_state=0).fit(X, X[:, 0])
    assert model.score(X, X[:, 0]) > 0.9
    images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    pictures = np.random.RandomState(0).standard_normal((60, 1, 5, 5)).astype(np.float32)
    assert trained(pictures, y, net(module=images), cv=2).layer_names_ == ["0", "3"]


def test_a_net_in_float64_and_one_that_looks_integers_up(three_classes):
    X, y = three_classes
    assert trained(X, y, net(module=module().double())).score(X, y) > 0.5
    words = np.random.RandomState(0).randint(0, 9, (60, 4))
    embedding = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(12, 3))
    assert trained(words, y, net(module=embedding)).score(words, y) > 0.3


def test_what_goes_wrong_in_training_is_said(three_classes):
    X, y = three_classes
    with pytest.raises(ValueError, match="network: training failed with IndexError"):
        trained(X, y, net(module__n_outputs=2))
    with pytest.raises(ValueError, match="network: training failed with RuntimeError"):
        trained(X[:, :3], y, net())


def test_an_interrupt_is_the_users(three_classes):
    with pytest.raises(KeyboardInterrupt):
        trained(*three_classes, net(module__interrupt=True))


def test_a_split_for_validation_keeps_other_threads_from_validating(three_classes):
    """Those of skorch are of scikit-learn, which changes the filters of warnings meanwhile."""
    X, y = three_classes
    seen = []

    def split(dataset, y=None, **fit_params):
        started = threading.Event()

        def validate():
            started.set()
            _sklearn.check_array(np.zeros((2, 2)))

        other = threading.Thread(target=validate)
        other.start()
        started.wait()
        other.join(0.3)
        seen.append(other.is_alive())
        threads.append(other)
        return dataset, dataset

    threads = []
    trained(X, y, net(train_split=split, max_epochs=1))
    for thread in threads:
        thread.join()
    assert seen == [True]


def test_the_number_of_torch_threads_does_not_change_a_training():
    """Of products so large that torch shares them among its threads."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:600].astype(np.float32) / 16, y[:600]
    network = MLP((512, 512), max_epochs=3)
    before = torch.get_num_threads()
    outputs = []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            with threadpool_limits(n_threads):
                source = make_source(network, X, y, n_outputs=10)
            outputs.append([p.detach().numpy() for p in source.network.parameters()])
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*outputs, strict=True):
        assert_array_equal(one, other)


def test_callbacks_may_end_the_training(three_classes):
    X, y = three_classes

    class Enough(skorch.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, net, **kwargs):
            Enough.epochs += 1
            if Enough.epochs == 3:
                raise KeyboardInterrupt

    trained(X, y, net(max_epochs=50, callbacks=[Enough()]))
    assert Enough.epochs == 3


def test_layer_kernels_as_a_step_of_a_pipeline(three_classes):
    X, y = three_classes
    kernels = LayerKernels(MLP((16,), max_epochs=40, lr=1e-2), random_state=0)
    planes = kernels.fit_transform(X, np.array(["a", "b", "c"])[y])
    assert planes.shape == (60, 60, 2)
    assert kernels.network_[-1].out_features == 3
    assert cross_entropy(kernels.network_, X, y) < 0.7
    assert_allclose(planes, layer_kernels(kernels.network_, X), rtol=1e-9)
    real = LayerKernels(MLP((16,), max_epochs=2), random_state=0).fit(X, X[:, 0])
    assert real.network_[-1].out_features == 1


def test_trained_networks_of_a_source(three_classes):
    X, y = three_classes
    source = make_source(MLP((8,), max_epochs=2), X, y, np.ones(60), 0, n_outputs=3)
    assert source.n_outputs == 3
    assert pickle.loads(pickle.dumps(source)).network_outputs(X).shape == (60, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu(three_classes):
    X, y = three_classes
    network = MLP((32,), max_epochs=60, lr=1e-2)
    model = trained(X, y, network, device="cuda", cv=2)
    assert all(p.device.type == "cpu" for f in model.networks_ for p in f.parameters())
    assert cross_entropy(trained(X, y, network, device="cuda").network_, X, y) < 0.4
    assert_allclose(
        pickle.loads(pickle.dumps(model)).decision_function(X),
        model.decision_function(X),
        rtol=1e-4,
        atol=1e-5,
    )
    on_card = net(module=module(), device="cuda", max_epochs=20)
    assert cross_entropy(trained(X, y, on_card, device="cuda").network_, X, y) < 0.9
