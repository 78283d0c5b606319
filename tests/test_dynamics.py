import copy
import pickle
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier, MultipleKernelClassifier
from sklearn_nftk.dynamics import (
    CheckpointNTK,
    KernelTrajectory,
    KernelTrajectoryDisplay,
    kernel_distance,
    spawn_children,
)
from sklearn_nftk.inspection import (
    feature_contributions,
    kernel_similarity,
    layer_contributions,
    network_fidelity,
)
from sklearn_nftk.kernels import layer_kernels, layer_names

from . import reference, zoo

DIGITS = load_digits(return_X_y=True)
X = StandardScaler().fit_transform(DIGITS[0])
y = DIGITS[1]
TRAIN, TEST = slice(0, 1000), slice(1000, None)
PROBE = slice(1000, 1040)
MEASUREMENTS = ["kernel_distance", "kernel_velocity", "alignment", "effective_rank", "weight"]
WORLD = zoo.build()


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def mlp(seed=0, width=32, bias=True, depth=2):
    torch.manual_seed(seed)
    sizes = [64, *depth * [width]]
    hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b, bias=bias), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 10, bias=bias)).double()


def net(module, max_epochs=2, callbacks=(), **options):
    defaults = {
        "criterion": nn.CrossEntropyLoss, "lr": 0.1, "batch_size": 32, "train_split": None,
        "iterator_train__shuffle": True, "verbose": 0,
    }  # fmt: skip
    callbacks = list(callbacks) or None
    return NeuralNetClassifier(
        module, max_epochs=max_epochs, callbacks=callbacks, **{**defaults, **options}
    )


def trained(seed=0, n=200, **options):
    torch.manual_seed(seed)
    return net(mlp(seed), **options).fit(X[:n], y[:n])


def moved(network, seed=0, size=0.1):
    """A copy with other parameters."""
    torch.manual_seed(seed)
    network = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return network


def recorded(networks, **options):
    trajectory = KernelTrajectory(X[PROBE], y[PROBE], **options)
    for epoch, network in enumerate(networks):
        trajectory.record(network, epoch)
    return trajectory


@pytest.fixture(scope="module")
def trajectory():
    """Of four records."""
    network = mlp()
    return recorded([network, *(moved(network, seed, 0.05) for seed in range(3))])


# -- kernel_distance ----------------------------------------------------------------------------

finite = st.floats(-1e3, 1e3, width=32)
matrices = arrays(np.float64, (3, 4), elements=finite)


@given(matrices, matrices)
def test_distance_is_one_minus_the_cosine_and_symmetric(K, L):
    K[0, 0] = L[0, 0] = 1.0
    distance = kernel_distance(K, L)
    assert_allclose(distance, 1 - reference.gram_cosine(K, L), atol=1e-12)
    assert_allclose(distance, kernel_distance(L, K), rtol=1e-12)


@given(matrices, st.floats(1e-6, 1e6))
def test_distance_of_multiples_is_zero(K, c):
    K[0, 0] = 1.0
    assert kernel_distance(K, c * K) < 1e-28
    assert kernel_distance(K, K) == 0


@given(matrices, matrices)
def test_distance_of_positive_semidefinite_kernels_is_in_the_unit_interval(A, B):
    A[0, 0] = B[0, 0] = 1.0
    assert -1e-15 <= kernel_distance(A @ A.T, B @ B.T) <= 1 + 1e-15


def test_small_distances_keep_their_digits(rng):
    K, direction = rng.standard_normal((2, 20, 20))
    direction -= K * np.sum(K * direction) / np.sum(K**2)
    direction *= np.linalg.norm(K) / np.linalg.norm(direction)
    # 1 - cos(angle) = angle^2 / 2, which 1 - cosine would lose altogether
    assert_allclose(kernel_distance(K, K + 1e-10 * direction), 1e-20 / 2, rtol=1e-4)


def test_centred_distance_is_that_of_centred_kernels(rng):
    A, B = (M @ M.T for M in rng.standard_normal((2, 6, 3)))
    p = np.full(6, 1 / 6)
    centred = [reference.centred(M, p) for M in (A, B)]
    expected = 1 - reference.gram_cosine(*centred)
    assert_allclose(kernel_distance(A, B, center=True), expected, rtol=1e-10)
    assert kernel_distance(A, B + 3.0, center=True) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("K", "L", "message"),
    [
        (np.eye(2), np.eye(3), "one shape"),
        (np.eye(2), np.zeros((2, 2)), "L is zero"),
        (np.array([[np.nan]]), np.eye(1), "K contains NaN"),
        ([1.0, 2.0], [1.0, 2.0], "2D array"),
    ],
)
def test_kernels_without_a_distance_are_refused(K, L, message):
    with pytest.raises(ValueError, match=message):
        kernel_distance(K, L)


def test_constant_kernels_have_no_centred_distance():
    with pytest.raises(ValueError, match="K is constant"):
        kernel_distance(np.ones((2, 2)), np.eye(2), center=True)


# -- what is recorded ---------------------------------------------------------------------------


def test_measurements_are_their_definitions(trajectory):
    frame = trajectory.frame().set_index(["epoch", "layer"])
    grams = trajectory.grams_
    assert grams.shape == (4, 3, 40, 40)
    one_hot = np.eye(10)[y[PROBE]]
    p = np.full(40, 1 / 40)
    targets = reference.centred(one_hot @ one_hot.T, p)
    for t, network in enumerate(trajectory.networks_):
        stack = layer_kernels(network, X[PROBE])
        kernels = {name: stack[..., i] for i, name in enumerate(layer_names(network))}
        kernels["total"] = sum(kernels.values())
        learned = MultipleKernelClassifier(shrinkage=0.0).fit(stack, y[PROBE])
        weights = dict(zip(kernels, learned.kernel_weights_.mean(axis=0), strict=False))
        for i, (name, K) in enumerate(kernels.items()):
            row = frame.loc[(t, name)]
            others = grams[:, i] if i < 3 else grams.sum(axis=1)
            assert_allclose(row.kernel_distance, kernel_distance(K, others[0]), rtol=1e-9)
            if t:
                velocity = kernel_distance(K, others[t - 1])
                assert_allclose(row.kernel_velocity, velocity, rtol=1e-9)
            centred = reference.centred(K, p)
            assert_allclose(row.alignment, reference.gram_cosine(centred, targets), rtol=1e-8)
            rank = np.trace(centred) ** 2 / np.sum(centred**2)
            assert_allclose(row.effective_rank, rank, rtol=1e-8)
            assert_allclose(row.weight, weights.get(name, np.nan), atol=1e-6)
    assert frame.kernel_velocity.loc[0].isna().all()


def test_velocity_is_per_epoch():
    network = mlp()
    fast, slow = (
        KernelTrajectory(X[PROBE]).record(network, 0).record(moved(network), time)
        for time in (1, 4)
    )
    assert_allclose(fast.velocity()[1], 4 * slow.velocity()[1])
    assert np.isnan(fast.velocity()[0])
    assert_allclose(fast.velocity("2")[1], fast.distances("2")[0, 1])


def test_all_pairs_of_records_have_a_distance(trajectory):
    for index, name in enumerate([*trajectory.layer_names_, "total"]):
        kernels = trajectory.grams_[:, index] if index < 3 else trajectory.grams_.sum(axis=1)
        expected = [[kernel_distance(K, L) for L in kernels] for K in kernels]
        assert_allclose(trajectory.distances(name), expected, rtol=1e-9, atol=1e-15)
        of_frame = trajectory.frame().query("layer == @name").kernel_distance
        assert_allclose(trajectory.distances(name)[0], of_frame, rtol=1e-9)


@pytest.mark.parametrize("name", ["group norm", "resnet", "residual", "transformer", "embedding"])
@pytest.mark.parametrize("outputs", ["mean", "sum"])
def test_layers_sum_to_the_tangent_kernel_of_any_network(name, outputs):
    network, samples = WORLD[name]
    options = {"layers": "block"} if name == "transformer" else {}
    trajectory = KernelTrajectory(samples, outputs=outputs, **options).record(network, 0)
    K = reference.block_kernel(network, samples, samples)
    n = len(samples)
    K = K.reshape(n, -1, n, K.shape[1] // n)
    expected = np.einsum("iojo->ij", K) / K.shape[1] if outputs == "mean" else K.sum(axis=(1, 3))
    assert_allclose(trajectory.grams_[0].sum(axis=0), expected, rtol=1e-8)
    trajectory.record(moved(network), 1)
    assert (trajectory.frame().query("epoch == 1").kernel_distance > 0).all()


def test_a_network_that_is_not_trained_does_not_move(trajectory):
    network = trajectory.networks_[0]
    still = recorded(3 * [network])
    assert_array_equal(still.frame().kernel_distance, 0)
    assert_array_equal(still.velocity()[1:], 0)


def test_rescaling_a_homogeneous_network_does_not_move_its_kernels():
    network = mlp(bias=False)
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in scaled.parameters():
            parameter.mul_(3.0)
    trajectory = recorded([network, scaled])
    first, second = trajectory.grams_
    assert_allclose(second, 3.0**4 * first, rtol=1e-12)  # two layers below or above each
    assert (trajectory.frame().kernel_distance < 1e-28).all()


def test_dead_layers_have_no_distance():
    network = mlp()
    with torch.no_grad():
        network[4].weight.zero_()
    with pytest.warns(UserWarning, match="zero or constant"):
        trajectory = recorded([network])
    frame = trajectory.frame().set_index("layer")
    assert frame.kernel_distance[["0", "2"]].isna().all()
    assert frame.kernel_distance["4"] == 0
    assert frame.weight.tolist()[:3] == [0, 0, 1]
    assert np.isnan(trajectory.distances("0")).all() or trajectory.distances("0").shape == (1, 1)


def test_products_are_what_grams_give(trajectory):
    products = recorded(trajectory.networks_, store="products")
    expected = trajectory.frame()
    assert products.frame().equals(expected)
    assert len(products.frame().columns) == 7


def test_memory_of_products_does_not_grow():
    network = mlp()
    trajectory = KernelTrajectory(X[PROBE], y[PROBE], store="products")
    sizes = [len(pickle.dumps(trajectory.record(moved(network, t), t))) for t in range(6)]
    a_gram = 8 * 40 * 40
    assert sizes[1] - sizes[0] >= 3 * a_gram  # the last one beside the first
    assert max(np.diff(sizes[1:])) < a_gram / 4


def test_without_labels_there_is_no_alignment():
    frame = KernelTrajectory(X[PROBE]).record(mlp(), 0).frame()
    assert frame.alignment.isna().all()
    assert frame.weight.isna().all()
    assert (frame.effective_rank >= 1).all()


def test_two_classes_and_real_targets_have_alignments():
    network = mlp()
    two = (y[PROBE] > 4).astype(int)
    by_labels, by_targets = (
        KernelTrajectory(X[PROBE], targets).record(network, 0).frame()
        for targets in (two, 2.0 * two - 0.99)  # the same but for a constant
    )
    assert_allclose(by_labels[MEASUREMENTS], by_targets[MEASUREMENTS], rtol=1e-6)


def test_several_real_targets_share_one_alignment(rng):
    targets = rng.standard_normal((40, 3))
    frame = KernelTrajectory(X[PROBE], targets).record(mlp(), 0).frame()
    assert frame.alignment.notna().all()
    assert_allclose(frame.weight.dropna().sum(), 1)


def test_single_precision_is_kept():
    network = mlp().float()
    trajectory = KernelTrajectory(X[PROBE].astype(np.float32)).record(network, 0)
    assert trajectory.grams_.dtype == np.float32
    trajectory.record(network, 1)
    assert trajectory.velocity()[1] < 1e-12


def test_networks_and_generators_are_not_touched():
    network = mlp().train()
    before, states = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    for store in ("grams", "products"):
        recorded([network], store=store)
    assert network.training
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    for name, value in network.state_dict().items():
        assert_array_equal(value, before[name])
    assert_array_equal(torch.get_rng_state(), states)


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"X_probe": X[:1]}, "X_probe must have at least 2 rows, got 1"),
        ({"X_probe": np.full((3, 64), np.nan)}, "X_probe contains NaN"),
        ({"y_probe": y[:3]}, "y_probe must have one entry for each of the 40 rows"),
        ({"y_probe": np.zeros(40, int)}, "y_probe must have at least two classes"),
        ({"store": "all"}, "store must be 'grams' or 'products', got 'all'"),
        ({"every": 0}, "every must be a number of epochs > 0, got 0"),
        ({"outputs": "per_class"}, "outputs must be 'mean' or 'sum'"),
        ({"layers": "depth"}, "layers must be 'module', 'block' or a dict"),
        ({"layers": {"total": "*"}}, "'total' stands for the sum of all layers"),
    ],
)
def test_invalid_parameters_are_refused_at_the_first_record(options, message):
    trajectory = KernelTrajectory(**{"X_probe": X[PROBE], **options})
    with pytest.raises(ValueError, match=message):
        trajectory.record(mlp(), 0)
    trajectory.set_params(X_probe=X[PROBE], y_probe=None, store="grams", every=0.4)
    trajectory.set_params(outputs="mean", layers="module")
    assert trajectory.record(mlp(), 0).epochs_.tolist() == [0]


def test_records_that_do_not_fit_the_others_are_refused(trajectory):
    trajectory = copy.deepcopy(trajectory)
    with pytest.raises(ValueError, match="epoch must be larger than that of the record before, 3"):
        trajectory.record(mlp(), 3)
    with pytest.raises(ValueError, match=r"layers of the first record, \['0', '2', '4'\]"):
        trajectory.record(mlp(depth=1), 4)
    with pytest.raises(ValueError, match=r"module must be a torch.nn.Module or a fitted skorch"):
        trajectory.record(MultiLayerNTKClassifier(), 4)
    with pytest.raises(ValueError, match=r"module: '0.weight' is not initialised yet"):
        trajectory.record(nn.Sequential(nn.LazyLinear(3)), 4)
    broken = mlp()
    with torch.no_grad():
        broken[0].weight[0, 0] = np.nan
    with pytest.raises(ValueError, match="network"):
        trajectory.record(broken, 4)
    assert trajectory.record(mlp(), 4).frame().shape == (20, 7)


def test_questions_without_an_answer_are_refused(trajectory):
    with pytest.raises(NotFittedError, match="no records yet"):
        KernelTrajectory(X[PROBE]).frame()
    with pytest.raises(ValueError, match="layer must be one of"):
        trajectory.distances("conv1")
    products = recorded([mlp()], store="products")
    with pytest.raises(ValueError, match="distances needs store='grams'"):
        products.distances()
    with pytest.raises(ValueError, match="checkpoints needs store='grams'"):
        products.checkpoints()
    with pytest.raises(AttributeError, match="store='grams'"):
        _ = products.grams_


# -- the callback -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (0.4, [0, 0.5, 1, 1.25, 1.75, 2]),  # four batches: the first one after each multiple
        (1, [0, 1, 2]),
        (0.25, [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]),
        (1.5, [0, 1.5, 2]),
        (7, [0, 2]),
    ],
)
def test_records_fall_on_the_first_batch_after_their_time(every, expected):
    trajectory = KernelTrajectory(X[PROBE][:5], every=every, store="products")
    trained(n=128, callbacks=[trajectory])
    assert_allclose(trajectory.epochs_, expected)


def test_training_is_the_same_with_records():
    trajectory = KernelTrajectory(X[PROBE], y[PROBE])
    with_records, without = trained(callbacks=[trajectory]), trained()
    for p, q in zip(with_records.module_.parameters(), without.module_.parameters(), strict=True):
        assert_array_equal(p.detach(), q.detach())
    for planes, network in zip(
        trajectory.grams_, trajectory.networks_, strict=True
    ):  # of its time
        assert_allclose(np.moveaxis(layer_kernels(network, X[PROBE]), -1, 0), planes, rtol=1e-12)
    for p, q in zip(
        trajectory.networks_[-1].parameters(), without.module_.parameters(), strict=True
    ):
        assert_array_equal(p.detach(), q.detach())


def test_training_that_goes_on_is_recorded_on_and_a_new_one_anew():
    trajectory = KernelTrajectory(X[PROBE][:5], every=1)
    parent = trained(callbacks=[trajectory], max_epochs=2)
    parent.partial_fit(X[:200], y[:200])
    assert_allclose(trajectory.epochs_, [0, 1, 2, 3, 4])
    children = spawn_children(parent, X[:200], y[:200], epochs=1, random_state=0)
    for child in children:
        (of_child,) = (cb for _, cb in child.callbacks_ if isinstance(cb, KernelTrajectory))
        assert_allclose(of_child.epochs_, [0, 1, 2, 3, 4, 5])
    assert_allclose(trajectory.epochs_, [0, 1, 2, 3, 4])
    parent.fit(X[:200], y[:200])
    assert_allclose(trajectory.epochs_, [0, 1, 2])


def test_validation_batches_are_not_counted_and_streams_have_ends_of_epochs():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(torch.utils.data.TensorDataset(torch.tensor(X[:96]), torch.tensor(y[:96])))

    trajectory = KernelTrajectory(X[PROBE][:5], every=0.5)
    trained(n=160, callbacks=[trajectory], train_split=ValidSplit(5))
    assert_allclose(trajectory.epochs_, [0, 0.5, 1, 1.5, 2])
    trajectory = KernelTrajectory(X[PROBE][:5], every=0.5)
    net(mlp(), callbacks=[trajectory], iterator_train__shuffle=False).fit(Stream(), None)
    assert_allclose(trajectory.epochs_, [0, 1, 2])


@pytest.mark.parametrize(("training", "expected"), [(True, [0, 0.25]), (False, [0, 1])])
def test_trainings_that_are_interrupted_have_an_end(training, expected):
    class Interruption(Callback):
        def on_batch_end(self, net, training=None, **kwargs):
            if training is self.when:
                raise KeyboardInterrupt

    interruption = Interruption()
    interruption.when = training
    trajectory = KernelTrajectory(X[PROBE][:5], every=5)
    callbacks = [trajectory, interruption]
    trained(n=160, callbacks=callbacks, train_split=ValidSplit(5), max_epochs=3)
    assert_allclose(trajectory.epochs_, expected)


def test_clones_have_parameters_and_copies_have_records_too():
    trajectory = KernelTrajectory(X[PROBE], y[PROBE], every=1)
    model = trained(callbacks=[trajectory])
    loaded = pickle.loads(pickle.dumps(trajectory))
    assert loaded.frame().equals(trajectory.frame())
    assert_array_equal(loaded.grams_, trajectory.grams_)
    other = clone(trajectory)
    assert other.every == 1
    assert not hasattr(other, "epochs_")
    again = clone(model).set_params(callbacks__KernelTrajectory__every=2)
    again.fit(X[:200], y[:200])
    assert_allclose(dict(again.callbacks_)["KernelTrajectory"].epochs_, [0, 2])
    assert_allclose(trajectory.epochs_, [0, 1, 2])
    pickle.loads(pickle.dumps(model)).predict(X[:3])


# -- checkpoints x layers as a kernel source ----------------------------------------------------


def test_machines_weight_times_and_layers(trajectory):
    network = trajectory.checkpoints(epochs=[0, 2.2])
    train = slice(0, 150)
    model = MultiLayerNTKClassifier(network, shrinkage=0.0).fit(X[train], y[train])
    assert model.layer_names_ == [f"epoch {t}, {name}" for t in (0, 2) for name in ("0", "2", "4")]
    pair = [trajectory.networks_[i] for i in (0, 2)]
    stack = np.concatenate([layer_kernels(f, X[train]) for f in pair], axis=2)
    expected = MultipleKernelClassifier(shrinkage=0.0).fit(stack, y[train])
    assert_allclose(model.kernel_weights_, expected.kernel_weights_, atol=1e-6)
    new = np.concatenate([layer_kernels(f, X[TEST], X[train]) for f in pair], axis=2)
    assert_allclose(model.decision_function(X[TEST]), expected.decision_function(new), atol=1e-6)
    phi = layer_contributions(model, X[PROBE])
    decisions = model.decision_function(X[PROBE])
    assert_allclose(phi.sum(axis=2) + model.intercept_, decisions, rtol=1e-9, atol=1e-9)
    assert kernel_similarity(model).layers.shape == (6, 6)
    assert len(model.networks_) == 2
    with torch.no_grad():
        last = pair[-1](torch.tensor(X[PROBE])).numpy()
    assert_allclose(model.kernel_source_.network_outputs(X[PROBE]), last, rtol=1e-12)
    assert network_fidelity(model, X[PROBE]).n_samples == 40


def test_averages_over_checkpoints_have_the_layers_of_one(trajectory):
    network = trajectory.checkpoints(average=True)
    assert layer_names(network) == trajectory.layer_names_
    assert_allclose(
        layer_kernels(network, X[PROBE]), np.moveaxis(trajectory.grams_.mean(axis=0), 0, -1)
    )
    assert len(layer_names(trajectory.checkpoints())) == 12


def test_options_of_the_estimator_reach_each_checkpoint(trajectory):
    network = trajectory.checkpoints([0, 3])
    kernels = layer_kernels(network, X[:4], layers={"all": "*"}, outputs="per_class")
    assert kernels.shape == (10, 4, 4, 2)
    assert layer_names(network, layers={"all": "*"}) == ["epoch 0, all", "epoch 3, all"]


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("normalize", ["variance", "cosine"])
def test_derivatives_of_stacked_kernels_are_those_of_the_parts(per_layer, normalize):
    torch.manual_seed(0)
    networks = [
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double() for _ in range(2)
    ]
    samples, labels = X[:30, 20:24], y[:30] > 4
    model = MultiLayerNTKClassifier(
        CheckpointNTK(networks), normalize=normalize, kernel_weights=[1, 2, 3, 4]
    ).fit(samples, labels)
    x, h = samples[:1], 1e-6
    contributions = feature_contributions(model, x, per_layer=per_layer)
    phi = [
        (layer_contributions(model, x + h * e) - layer_contributions(model, x - h * e)) / (2 * h)
        for e in np.eye(4)
    ]
    expected = np.stack(phi, axis=-1)[0, 0] * x[0]  # (L, features)
    actual = np.squeeze(contributions).T
    assert_allclose(actual, expected if per_layer else expected.sum(axis=0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (CheckpointNTK([]), "networks must be a list of torch modules"),
        (CheckpointNTK([mlp(), mlp(depth=1)]), "networks must have the same layers"),
        (CheckpointNTK([mlp()], epochs=[0, 1]), "one entry for each of the 1 networks, got 2"),
        (CheckpointNTK([mlp(), "net"]), r"networks\[1\] must be a torch.nn.Module"),
    ],
)
def test_checkpoints_of_different_networks_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        layer_kernels(network, X[:3])


def test_fitted_nets_are_checkpoints_too():
    model = trained(max_epochs=1)
    for network in (CheckpointNTK([model]), CheckpointNTK([FrozenEstimator(model)])):
        assert_allclose(layer_kernels(network, X[:3]), layer_kernels(model, X[:3]))


# -- the display --------------------------------------------------------------------------------


def test_pictures_show_the_measurements(trajectory):
    display = KernelTrajectoryDisplay.from_trajectory(trajectory).plot()
    assert display.lines_.shape == (5, 4)
    frame = trajectory.frame()
    assert display.frame().equals(frame)
    quantities = ["kernel_velocity", *(name for name in MEASUREMENTS if name != "kernel_velocity")]
    for quantity, lines in zip(quantities, display.lines_, strict=True):
        for layer, line in zip(["0", "2", "4", "total"], lines, strict=True):
            rows = frame[frame.layer == layer].dropna(subset=[quantity])
            if rows.empty:
                assert line is None
            else:
                assert_array_equal(line.get_xydata(), rows[["epoch", quantity]])
    assert display.axes_[0].get_yscale() == "log"
    texts = [text.get_text() for text in display.figure_.legends[0].get_texts()]
    assert texts == ["0", "2", "4", "total"]


def test_pictures_of_some_quantities_take_the_place_of_axes(trajectory):
    figure, axes = plt.subplots(1, 2, layout="constrained")
    display = KernelTrajectoryDisplay.from_trajectory(trajectory)
    display.plot(axes[0], quantities=["kernel_distance"])
    assert len(display.axes_) == 1
    assert axes[0] not in figure.axes
    figure.draw_without_rendering()
    with pytest.raises(ValueError, match="quantities must be some of"):
        display.plot(quantities=["speed"])


def test_pictures_leave_out_what_is_not_known():
    display = KernelTrajectoryDisplay.from_trajectory(
        KernelTrajectory(X[PROBE]).record(mlp(), 0)
    ).plot()
    assert len(display.axes_) == 2  # distance and rank


# -- a finding ----------------------------------------------------------------------------------


def test_kernels_of_standardised_digits_come_to_rest():
    trajectory = KernelTrajectory(X[PROBE], every=1.0, store="products")
    torch.manual_seed(0)
    net(mlp(width=64), 25, [trajectory], lr=0.2).fit(X[TRAIN], y[TRAIN])
    for layer in [*trajectory.layer_names_, "total"]:
        velocity = trajectory.velocity(layer)
        assert velocity[1:4].max() >= 20 * velocity[-1]
