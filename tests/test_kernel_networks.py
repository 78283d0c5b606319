import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.kernel_networks import KernelMLPClassifier, KernelMLPRegressor
from sklearn_nftk.kernel_networks import _gaussian as gaussian_module
from sklearn_nftk.kernel_networks import _layer_training as layer_training
from sklearn_nftk.kernel_networks._gaussian import exponent, median_distance
from sklearn_nftk.kernel_networks._objectives import OBJECTIVES, HiddenObjective, ideal_kernel
from sklearn_nftk.kernel_networks._samples import Targets, center_rows

from . import reference

pytest.importorskip("skorch")

QUICK = {"epochs": 15, "random_state": 0}


def halves(load, seed, train_size=0.5):
    X, y = load(return_X_y=True)
    X, new, y, true = train_test_split(X, y, train_size=train_size, stratify=y, random_state=seed)
    scaler = StandardScaler().fit(X)
    return scaler.transform(X), scaler.transform(new), y, true


def heads(model):
    """Weights and biases of all kernel machines."""
    return [array for layer in model.network_.layers for array in (layer.weight, layer.bias)]


def assert_same_network(model, other):
    for array, expected in zip(heads(model), heads(other), strict=True):
        assert_array_equal(array, expected)


# -- the target -----------------------------------------------------------------------------------


def codes_of(*labels):
    return torch.tensor(labels, dtype=torch.float64)[:, None]


def test_hard_margin_machine_on_the_ideal_kernel_has_the_full_margin():
    y = codes_of(0, 0, 0, 1, 1)
    G = ideal_kernel(y, y, classes=True).numpy()
    machine = SVC(kernel="precomputed", C=1e6, tol=1e-10).fit(G, y.ravel())
    dual = machine.dual_coef_.ravel()
    support = machine.support_
    # ||w||^2 = 2 / (c - a) for the largest and smallest kernel values c = 1 and a = 0.
    assert_allclose(dual @ G[np.ix_(support, support)] @ dual, 2.0, rtol=1e-8)


def loss_of(objective, K, y):
    """Loss of a kernel matrix itself, whatever outputs it is of."""
    logarithm = torch.log(torch.as_tensor(K))
    targets = torch.cat([y, torch.ones_like(y)], dim=1)
    criterion = HiddenObjective(objective, lambda outputs: logarithm, classes=True)
    return float(criterion(None, targets))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_ideal_kernel_is_the_best_and_others_are_worse(objective):
    y = codes_of(0, 1, 0, 2, 1)
    G = ideal_kernel(y, y, classes=True).numpy()
    assert_array_equal(G, y.numpy() == y.numpy().T)
    assert loss_of(objective, G, y) == pytest.approx(0, abs=1e-12)
    across, within = G.copy(), G.copy()
    across[0, 1] = across[1, 0] = 0.3
    within[0, 2] = within[2, 0] = 0.7
    assert loss_of(objective, across, y) > 1e-3
    if objective == "cross-class":  # asks nothing of pairs of one class
        assert loss_of(objective, within, y) == 0
    elif objective != "contrastive":  # asks for shares alone
        assert loss_of(objective, within, y) > 1e-3


def test_alignment_is_one_for_the_ideal_kernel_alone_diagonal_included():
    y = codes_of(0, 1, 1)
    for scale in (1.0, 0.5):  # the cosine knows no scale
        assert loss_of("alignment", scale * np.array([[1, 0, 0], [0, 1, 1], [0, 1, 1]]), y) < 1e-12
    assert loss_of("alignment", np.array([[0.5, 0, 0], [0, 1, 1], [0, 1, 1.0]]), y) > 1e-2
    assert loss_of("upper", np.array([[0.5, 0, 0], [0, 1, 1], [0, 1, 1.0]]), y) < 1e-12


def test_contrastive_is_the_log_loss_of_neighbours(rng):
    y, K = np.array([0, 0, 1, 1, 1, 2]), rng.uniform(0.1, 1, (6, 6))
    shares = []
    for i in range(5):  # the last row has no other of its class
        others = [j for j in range(6) if j != i]
        alike = sum(K[i, j] for j in others if y[j] == y[i])
        shares.append(-np.log(alike / sum(K[i, j] for j in others)))
    assert_allclose(loss_of("contrastive", K, codes_of(*y)), np.mean(shares))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("classes", [True, False])
def test_gradients_are_those_of_finite_differences(objective, classes, rng):
    F = torch.tensor(rng.standard_normal((7, 3)), requires_grad=True)
    y = rng.integers(0, 3, 7) if classes else rng.standard_normal(7)
    targets = torch.tensor(np.column_stack([y, rng.uniform(0.5, 2, 7)]))
    criterion = HiddenObjective(objective, lambda F: exponent(F, F, 0.8), classes=classes)
    criterion(F, targets).backward()
    step = 1e-5
    for index in np.ndindex(*F.shape):
        moved = torch.zeros(F.shape, dtype=F.dtype)
        moved[index] = step
        with torch.no_grad():
            slope = (criterion(F + moved, targets) - criterion(F - moved, targets)) / (2 * step)
        assert_allclose(F.grad[index], slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("objective", ["alignment", "l2", "l1", "cross-class"])
def test_weights_of_rows_are_repetitions_in_the_objective(objective, rng):
    F, y, s = rng.standard_normal((5, 2)), np.array([0, 1, 0, 1, 2]), np.array([1, 3, 2, 1, 1])
    criterion = HiddenObjective(objective, lambda F: exponent(F, F, 1.0), classes=True)

    def value(F, y, s):
        return float(criterion(torch.tensor(F), torch.tensor(np.column_stack([y, s]) * 1.0)))

    repeated = np.repeat(np.arange(5), s)
    assert_allclose(value(F, y, s), value(F[repeated], y[repeated], np.ones(8)), rtol=1e-10)


def test_ideal_kernel_of_real_targets_is_that_of_classes_far_apart():
    y = codes_of(0, 0, 50, 100, 50)
    assert_allclose(ideal_kernel(y, y, classes=False), ideal_kernel(y, y, classes=True), atol=1e-9)


# -- kernels and centers --------------------------------------------------------------------------


def test_gaussian_kernel_and_its_median_width(rng):
    X, Z = rng.standard_normal((9, 3)) + 1e3, rng.standard_normal((4, 3)) + 1e3
    K = exponent(torch.tensor(X), torch.tensor(Z), 1.7).exp()
    assert_allclose(K, reference.gaussian_kernel(X, Z, 1.7), rtol=1e-9)
    distances = [np.linalg.norm(X[i] - X[j]) for i in range(9) for j in range(i)]
    assert_allclose(median_distance(torch.tensor(X)), np.sort(distances)[17])
    assert median_distance(torch.ones(3, 2)) == 1.0


def test_centers_are_of_each_class_alike_as_far_as_there_are():
    codes = np.repeat([0, 1, 2], [20, 3, 10])
    targets = Targets.of(codes, None, 3, torch.float64, "cpu")

    def counts(n):
        return np.bincount(codes[center_rows(n, targets, np.arange(33), 0)]).tolist()

    assert counts(6) == [2, 2, 2]
    assert counts(15) == [6, 3, 6]
    assert counts(30) == [17, 3, 10]
    assert counts(None) == counts(40) == [20, 3, 10]
    assert sorted(counts(7)) == [2, 2, 3]


def test_outputs_images_grams_and_centers_are_those_of_the_slow_network(three_classes):
    X, y = three_classes
    model = KernelMLPClassifier((7, 5), centers=20, **QUICK).fit(X, y)
    network = model.network_
    layers = [(layer.sigma, layer.weight, layer.bias) for layer in network.layers]
    assert len(network.centers) == 20
    new = X[::2] + 0.1
    images = reference.kernel_network(new, network.centers, layers)
    assert_allclose(model.decision_function(new), images[-1], rtol=1e-8, atol=1e-10)
    assert_allclose(model.transform(new), images[2], rtol=1e-8, atol=1e-10)
    assert_allclose(model.transform(new, layer=0), images[1], rtol=1e-8, atol=1e-10)
    grams = [
        reference.gaussian_kernel(u, u, s) for u, (s, *_) in zip(images, layers, strict=False)
    ]
    assert_allclose(model.layer_grams(new), np.moveaxis(grams, 0, 2), rtol=1e-8, atol=1e-10)
    # centers are images of the raw ones
    of_centers = reference.kernel_network(network.centers, network.centers, layers)
    for layer, image in zip(network.layers, of_centers, strict=False):
        assert_allclose(layer.centers, image, rtol=1e-8, atol=1e-10)


def test_hidden_scores_are_alignments_with_the_ideal_kernel(three_classes, rng):
    X, y = three_classes
    model = KernelMLPClassifier((7, 5), **QUICK).fit(X, y)
    s = rng.uniform(0, 2, len(y))
    grams = model.layer_grams(X)
    expected = [reference.ideal_alignment(grams[..., layer], y, s) for layer in (1, 2)]
    with config_context(working_memory=0.01):
        assert_allclose(model.score_hidden(X, y, s), expected, rtol=1e-9)
    labels = np.array(["a", "b", "c"])[y]
    assert_allclose(model.score_hidden(X, labels), model.score_hidden(X, y))


# -- training -------------------------------------------------------------------------------------


def test_layers_below_are_bit_identical_whatever_is_trained_above(three_classes):
    X, y = three_classes
    one, two = (KernelMLPClassifier(sizes, **QUICK).fit(X, y) for sizes in [(6,), (6, 4)])
    assert_array_equal(one.network_.layers[0].weight, two.network_.layers[0].weight)
    assert_array_equal(one.network_.layers[0].bias, two.network_.layers[0].bias)
    assert_array_equal(one.transform(X), two.transform(X, layer=0))
    assert_array_equal(one.loss_curve_[0], two.loss_curve_[0])
    other = clone(two).set_params(loss="hinge", epochs=[15, 15, 40]).fit(X, y)
    for layer in range(2):
        assert_array_equal(two.transform(X, layer), other.transform(X, layer))
    # a layer trained further changes what is above it, not what is below
    later = clone(two).set_params(epochs=[15, 30, 15]).fit(X, y)
    assert_array_equal(two.transform(X, 0), later.transform(X, 0))
    assert not np.array_equal(two.transform(X, 1), later.transform(X, 1))


def test_no_gradient_crosses_a_trained_layer(three_classes, monkeypatch):
    X, y = three_classes
    seen = []
    train = layer_training.train_head

    def watched(head, rows, *rest, **options):
        inputs, targets = rows[torch.arange(5)]
        seen.append(inputs.requires_grad or targets.requires_grad)
        loss = head(inputs).sum()
        loss.backward()
        leaves = {id(p) for p in head.parameters()}
        seen.append(reached(loss.grad_fn) != leaves)
        head.zero_grad()
        return train(head, rows, *rest, **options)

    monkeypatch.setattr("sklearn_nftk.kernel_networks._training.train_head", watched)
    KernelMLPClassifier((6, 4), **QUICK).fit(X, y)
    assert seen == 6 * [False]


def reached(node):
    """Leaves that a backward pass would reach."""
    found, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [parent for parent, _ in node.next_functions if parent is not None]
    return found


def initial_gram(model, X):
    """Gram above the first hidden layer before its training."""
    source = model.network_.kernel_source(X, initial=True)
    return source.gram(source.prepare(X))[0, 1]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_alignment_rises_on_training_and_held_out_rows(objective):
    X, new, y, true = halves(load_iris, 0)
    model = KernelMLPClassifier((8,), objective=objective, epochs=60, random_state=0).fit(X, y)
    assert model.loss_curve_[0][-1] < model.loss_curve_[0][0]
    for rows, labels in ((X, y), (new, true)):
        before, after = initial_gram(model, rows), model.layer_grams(rows)[..., 1]
        losses = [loss_of(objective, K, codes_of(*labels)) for K in (before, after)]
        assert losses[1] < 0.8 * losses[0]
        # The others ask for small kernels across classes, or for shares, and not for large ones.
        if objective not in ("cross-class", "contrastive"):
            first = reference.ideal_alignment(before, labels, np.ones(len(labels)))
            assert model.score_hidden(rows, labels)[0] > first + 0.05


def test_first_alignment_is_that_before_training(three_classes):
    X, y = three_classes
    model = KernelMLPClassifier((6,), **QUICK).fit(X, y)  # one batch
    before = initial_gram(model, X)
    expected = reference.ideal_alignment(before, y, np.ones(len(y)))
    assert_allclose(model.alignment_curve_[0][0], expected, rtol=1e-9)
    assert_allclose(1 - model.loss_curve_[0], model.alignment_curve_[0], atol=0.01)  # penalty


@pytest.mark.parametrize(
    ("load", "size", "least"),
    [(load_iris, 0.5, 0.950), (load_breast_cancer, 0.5, 0.953), (load_digits, 450, 0.946)],
)
def test_two_layers_are_accurate(load, size, least):
    scores, of_svm = [], []
    for seed in range(3):
        X, new, y, true = halves(load, seed, size)
        scores.append(KernelMLPClassifier(random_state=seed).fit(X, y).score(new, true))
        of_svm.append(SVC().fit(X, y).score(new, true))
    assert np.mean(scores) >= least
    assert np.mean(scores) >= np.mean(of_svm) - 0.03


# -- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", ["l2", "rkhs"])
def test_chunks_change_nothing_and_the_whole_matrix_is_never_formed(
    penalty, three_classes, monkeypatch
):
    X, y = three_classes
    model = KernelMLPClassifier((6, 4), penalty=penalty, batch_size=20, **QUICK)
    whole = clone(model).fit(X, y)
    sizes = []
    original = gaussian_module.exponent

    def watched(x, z, sigma):
        sizes.append(len(x) * len(z))
        return original(x, z, sigma)

    for module in ("_gaussian", "_training"):
        monkeypatch.setattr(f"sklearn_nftk.kernel_networks.{module}.exponent", watched)
    with config_context(working_memory=0.01):
        chunked = clone(model).fit(X, y)
        assert_allclose(chunked.decision_function(X), whole.decision_function(X), rtol=1e-7)
    assert len(sizes) > 50
    assert max(sizes) <= 20 * len(X) < len(X) ** 2


# -- the output layer -----------------------------------------------------------------------------


def features_of(model, X):
    layer = model.network_.layers[0]
    return reference.gaussian_kernel(X, layer.centers, layer.sigma)


# Without hidden layers; narrow kernels, with which Adam converges soon.
FLAT = {"sigmas": 0.4, "learning_rates": 0.05, "random_state": 0}


@pytest.fixture(scope="module")
def smooth():
    X = np.array([(i / 2, j / 2) for i in range(6) for j in range(5)])
    return X, 30 + 5 * np.sin(X[:, 0]) + X[:, 1] + 0.1 * np.random.default_rng(0).normal(size=30)


def test_without_hidden_layers_it_is_ridge_on_kernels_with_the_centers(smooth):
    X, y = smooth
    model = KernelMLPRegressor((), weight_decays=0.02, centers=20, epochs=1000, **FLAT).fit(X, y)
    ridge = Ridge(alpha=len(X) * 0.02 / 2).fit(features_of(model, X), y)
    assert_allclose(model.predict(X), ridge.predict(features_of(model, X)), rtol=1e-6)
    assert_allclose(model.network_.layers[0].weight[0], ridge.coef_, atol=1e-4)


def test_with_the_rkhs_norm_it_is_kernel_ridge(smooth):
    X, y = smooth
    options = {**FLAT, "sigmas": 0.25, "epochs": 1500}
    model = KernelMLPRegressor((), weight_decays=0.02, penalty="rkhs", **options).fit(X, y)
    K, bias = reference.gaussian_kernel(X, X, 0.25), model.network_.layers[0].bias
    machine = KernelRidge(alpha=len(X) * 0.02 / 2, kernel="precomputed").fit(K, y - bias)
    assert_allclose(model.predict(X), machine.predict(K) + bias, rtol=1e-6)
    assert_allclose((y - model.predict(X)).mean(), 0, atol=1e-5)  # the intercept is free


@pytest.mark.parametrize("data", ["two_classes", "three_classes"])
def test_with_the_log_loss_it_is_logistic_regression(data, request):
    X, y = request.getfixturevalue(data)
    model = KernelMLPClassifier((), weight_decays=0.02, centers=30, epochs=600, **FLAT).fit(X, y)
    expected = LogisticRegression(C=1 / (0.02 * len(X)), tol=1e-8, max_iter=1000)
    expected.fit(features_of(model, X), y)
    probabilities = expected.predict_proba(features_of(model, X))
    assert_allclose(model.predict_proba(X), probabilities, atol=1e-4)
    assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))
    assert_array_equal(model.predict(X), expected.predict(features_of(model, X)))
    assert model.decision_function(X).shape == ((50,) if data == "two_classes" else (60, 3))


def test_with_the_hinge_loss_it_is_a_support_vector_machine(two_classes):
    X, y = two_classes
    model = KernelMLPClassifier((), loss="hinge", weight_decays=0.02, epochs=1000, **FLAT)
    model.fit(X, y)
    machine = SVC(kernel="linear", C=1 / (0.02 * len(X)), tol=1e-8).fit(features_of(model, X), y)
    expected = machine.decision_function(features_of(model, X))
    assert_allclose(model.decision_function(X), expected, atol=2e-2)
    assert not hasattr(model, "predict_proba")


def test_with_squared_errors_classes_are_signs(three_classes):
    X, y = three_classes
    model = KernelMLPClassifier((), loss="squared", weight_decays=0.02, epochs=600, **FLAT)
    model.fit(X, y)
    features = features_of(model, X)
    signs = 2.0 * (y[:, None] == np.arange(3)) - 1
    ridge = Ridge(alpha=0.01 * len(X)).fit(features, signs)
    assert_allclose(model.decision_function(X), ridge.predict(features), atol=1e-5)
    assert not hasattr(model, "predict_proba")


def test_output_losses_by_hand(three_classes):
    X, y = three_classes
    for loss in ("log_loss", "hinge", "squared"):
        model = KernelMLPClassifier((), loss=loss, weight_decays=0.0, **QUICK).fit(X, y)
        f = np.zeros((60, 3))  # the output layer begins at 0
        signs = 2.0 * (y[:, None] == np.arange(3)) - 1
        first = {
            "log_loss": np.log(3),
            "hinge": np.maximum(0, 1 - signs * f).sum(axis=1).mean(),
            "squared": ((signs - f) ** 2).sum(axis=1).mean(),
        }
        assert_allclose(model.loss_curve_[0][0], first[loss])


# -- what scikit-learn users expect ---------------------------------------------------------------


def test_one_random_state_is_one_network_and_survives_pickling_and_cloning(three_classes):
    X, y = three_classes
    model = KernelMLPClassifier((6, 4), centers=25, batch_size=16, **QUICK).fit(X, y)
    assert_same_network(model, clone(model).fit(X, y))
    loaded = pickle.loads(pickle.dumps(model))
    assert_same_network(model, loaded)
    assert_array_equal(model.predict_proba(X), loaded.predict_proba(X))
    assert not np.array_equal(
        heads(model)[0], heads(clone(model).set_params(random_state=1).fit(X, y))[0]
    )
    assert b"torch" not in pickle.dumps(model)


def test_weights_are_repetitions_and_a_common_factor_is_nothing(three_classes, rng):
    X, y = three_classes
    s = rng.integers(0, 4, len(y))
    model = KernelMLPClassifier((6,), centers=25, batch_size=16, early_stopping=True, **QUICK)
    weighted, order = clone(model).fit(X, y, s), rng.permutation(s.sum())
    rows = np.repeat(np.arange(len(y)), s)[order]
    assert_same_network(weighted, clone(model).fit(X[rows], y[rows]))
    other = clone(model).fit(X, y, 7.0 * s)
    assert_allclose(other.decision_function(X), weighted.decision_function(X), rtol=1e-9)
    unweighted = clone(model).fit(X, y, s > 0)  # of the same rows
    assert np.abs(unweighted.decision_function(X) - weighted.decision_function(X)).max() > 0.01


def test_strings_frames_and_searches(three_classes):
    X, y = three_classes
    frame = pd.DataFrame(X, columns=list("abcde"))
    labels = np.array(["spam", "ham", "eggs"])[y]
    model = KernelMLPClassifier((6,), **QUICK).fit(frame, labels)
    assert model.feature_names_in_.tolist() == list("abcde")
    assert set(model.predict(frame)) <= set(labels)
    images = clone(model).set_output(transform="pandas").fit(frame, labels).transform(frame)
    assert images.columns[0] == "kernelmlpclassifier0"
    assert images.shape == (60, 6)
    grid = {"kernelmlpclassifier__hidden_layer_sizes": [(), (4,)]}
    pipeline = make_pipeline(StandardScaler(), KernelMLPClassifier(**QUICK))
    assert GridSearchCV(pipeline, grid, cv=2).fit(X, labels).best_score_ > 0.5


def test_layers_have_values_of_their_own(three_classes):
    X, y = three_classes
    model = KernelMLPClassifier(
        (6, 4), sigmas=[3.0, 1.0, 0.5], epochs=[3, 5, 7], learning_rates=[0.1, 0.01, 0.05],
        weight_decays=[0, 1e-3, 1], random_state=0,
    ).fit(X, y)  # fmt: skip
    assert_array_equal(model.sigmas_, [3.0, 1.0, 0.5])
    assert [len(curve) for curve in model.loss_curve_] == [3, 5, 7]
    assert [len(curve) for curve in model.alignment_curve_] == [3, 5]
    assert model.layer_names_ == ["layer0", "layer1", "layer2"]
    assert model.score_hidden(X, y).shape == (2,)
    assert model.layer_grams(X[:7]).shape == (7, 7, 3)


def test_early_stopping_takes_the_best_epoch_of_each_layer():
    X, _, y, _ = halves(load_iris, 0)
    model = KernelMLPClassifier(
        (15,), early_stopping=True, n_iter_no_change=3, learning_rates=0.2, epochs=300,
        random_state=0,
    ).fit(X, y)  # fmt: skip
    assert min(len(curve) for curve in model.loss_curve_) < 300
    n = len(np.unique(X, axis=0))
    assert len(model.network_.centers) == n - round(0.1 * n)  # held-out rows are none


def test_early_stopping_takes_the_epoch_of_the_smallest_held_out_loss(monkeypatch):
    X, _, y, _ = halves(load_iris, 0)
    train, losses = layer_training.train_head, []

    def watched(head, rows, criterion, penalty, held_out, **options):
        def recorded(module, inputs, loss):
            if len(inputs[0]) == len(held_out) and not inputs[0].requires_grad:
                of_epochs.append(float(loss.detach()))

        of_epochs = []
        with criterion.register_forward_hook(recorded):
            curves = train(head, rows, criterion, penalty, held_out, **options)
        with torch.no_grad():
            inputs, targets = held_out[torch.arange(len(held_out))]
            losses.append((of_epochs, float(criterion(head(inputs), targets))))
        return curves

    monkeypatch.setattr("sklearn_nftk.kernel_networks._training.train_head", watched)
    KernelMLPClassifier(
        (8,), early_stopping=True, n_iter_no_change=20, learning_rates=0.3, random_state=0
    ).fit(X, y)
    assert len(losses) == 2
    for of_epochs, at_last in losses:
        assert len(of_epochs) > 20
        assert min(of_epochs) < of_epochs[-1]
        assert_allclose(at_last, min(of_epochs), rtol=1e-9)


def test_warm_start_goes_on(three_classes):
    X, y = three_classes
    model = KernelMLPClassifier((6,), centers=30, warm_start=True, epochs=30, random_state=0)
    first = pickle.loads(pickle.dumps(model.fit(X, y)))
    model.set_params(random_state=5).fit(X, y)
    assert_array_equal(model.network_.centers, first.network_.centers)
    assert_array_equal(model.sigmas_, first.sigmas_)
    assert_array_equal(model.network_.layers[0].initial_weight, first.network_.layers[0].weight)
    assert_allclose(model.alignment_curve_[0][0], first.score_hidden(X, y)[0], rtol=1e-9)
    assert model.loss_curve_[1][0] < first.loss_curve_[1][0]
    model.set_params(hidden_layer_sizes=(6, 5)).fit(X, y)  # the new layers begin anew
    assert model.alignment_curve_[0][0] > first.alignment_curve_[0][0] + 0.05
    with pytest.raises(ValueError, match="warm_start"):
        model.fit(X, y + (y == 2))
    regressor = KernelMLPRegressor((6,), warm_start=True, **QUICK).fit(X, 10.0 * y)
    before = regressor.predict(X)
    regressor.set_params(epochs=1, learning_rates=1e-9).fit(X, 10.0 * y)
    assert_allclose(regressor.predict(X), before, atol=1e-5)
    with pytest.raises(ValueError, match="warm_start"):
        regressor.fit(X, X[:, :2])


def test_regression():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3))
    y = np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2] + 0.1 * rng.standard_normal(300)
    X, new, y, true = train_test_split(X, y, random_state=0)
    model = KernelMLPRegressor((15,), epochs=100, random_state=0).fit(X, y)
    assert model.score(new, true) > Ridge().fit(X, y).score(new, true) + 0.5
    assert model.score_hidden(new, true)[0] > model.alignment_curve_[0][0] + 0.05
    # the unit of the targets changes nothing
    scaled = clone(model).fit(X, 1e3 * y + 5)
    assert_allclose(scaled.predict(new), 1e3 * model.predict(new) + 5, rtol=1e-6)
    several = clone(model).set_params(epochs=20).fit(X, np.column_stack([y, -y]))
    assert several.predict(new).shape == (len(new), 2)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_layer_sizes": (5, 0)}, "hidden_layer_sizes must be"),
        ({"sigmas": [1.0]}, "sigmas must be a number or one number for each of the 2 trained"),
        ({"sigmas": [1.0, 0.0]}, "sigmas must be > 0"),
        ({"sigmas": "mean"}, "'sigmas' parameter"),
        ({"learning_rates": [0.1, 0.1, 0.1]}, "learning_rates must be"),
        ({"learning_rates": 0}, "'learning_rates' parameter"),
        ({"epochs": [3, 2.5]}, "epochs must be integers"),
        ({"weight_decays": [-1, 0]}, "weight_decays must be finite and >= 0"),
        ({"objective": "cosine"}, "'objective' parameter"),
        ({"loss": "absolute"}, "'loss' parameter"),
        ({"centers": 0}, "'centers' parameter"),
        ({"device": "cuda:99"}, "device="),
        ({"features": nn.Linear(5, 3), "train_features": True}, "torch.nn.Sequential"),
        ({"train_features": True}, "features"),
        ({"learning_rates": 1e308, "epochs": 5}, "training diverged"),
    ],
)
def test_errors_name_the_parameter(parameters, message, three_classes):
    X, y = three_classes
    with pytest.raises(ValueError, match=message):
        KernelMLPClassifier(**{**QUICK, **parameters}).fit(X, y)


def test_errors_of_fitted_estimators(three_classes):
    X, y = three_classes
    model = KernelMLPClassifier((6, 4), **QUICK).fit(X, y)
    with pytest.raises(ValueError, match=r"layer must be in \[-2, 1\]"):
        model.transform(X, layer=2)
    with pytest.raises(ValueError, match="at least two classes"):
        clone(model).fit(X, y, sample_weight=y == 0)
    with pytest.raises(ValueError, match=r"(?i)sample.weight"):
        clone(model).fit(X, y, sample_weight=0 * y)


# -- features -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures():
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 1, 8, 8)[:500] / 8 - 1
    return X[:300], X[300:], y[:300], y[300:500]


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.Tanh(), nn.Flatten()
    )


def test_kernel_machines_on_frozen_features(pictures):
    X, _, y, _ = pictures
    features = convolutions()
    before = {name: p.clone() for name, p in features.state_dict().items()}
    model = KernelMLPClassifier((), features=features, **QUICK).fit(X, y)
    for name, parameter in features.state_dict().items():
        assert torch.equal(parameter, before[name])
    with torch.no_grad():
        expected = features.double()(torch.tensor(X)).numpy()
    assert_allclose(model.transform(X), expected, rtol=1e-9, atol=1e-12)
    assert_allclose(
        model.layer_grams(X[:20])[..., 0],
        reference.gaussian_kernel(expected[:20], expected[:20], model.sigmas_[0]),
        rtol=1e-8,
    )


def test_features_are_trained_module_by_module(pictures):
    X, new, y, true = pictures
    features = convolutions()
    before = {name: p.clone() for name, p in features.state_dict().items()}
    options = {"features": features, "train_features": True, "epochs": 40, "random_state": 0}
    model = KernelMLPClassifier((), **options).fit(X, y)
    assert model.layer_names_ == ["features.0", "features.2", "layer0"]
    assert [len(curve) for curve in model.loss_curve_] == [40] * 3
    assert model.layer_grams(X[:9]).shape == (9, 9, 3)
    for curve in model.alignment_curve_:
        assert curve[-1] > curve[0] + 0.05
    frozen = clone(model).set_params(train_features=False).fit(X, y)
    assert model.score(new, true) > frozen.score(new, true) + 0.1
    for name, parameter in features.state_dict().items():
        assert torch.equal(parameter, before[name])
    # the first module does not know of what comes after it
    deeper = KernelMLPClassifier((9,), **options).fit(X, y)
    assert_array_equal(deeper.transform(X, 0), model.transform(X, 0))
    assert_array_equal(deeper.transform(X, 1), model.transform(X, 1))
    loaded = pickle.loads(pickle.dumps(deeper))
    assert_array_equal(loaded.predict(new), deeper.predict(new))


def test_features_may_look_integers_up():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 5, (60, 3))
    y = (X[:, 0] > 2).astype(int)
    features = nn.Sequential(nn.Embedding(5, 4), nn.Flatten())
    model = KernelMLPClassifier((4,), features=features, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9


# -- as a network ---------------------------------------------------------------------------------


def test_a_trained_network_takes_the_place_of_a_network(three_classes):
    X, y = three_classes
    model = KernelMLPClassifier((6, 4), **QUICK).fit(X, y)
    machine = MultiLayerNTKClassifier(model.network_, normalize="none").fit(X, y)
    assert machine.layer_names_ == model.layer_names_
    kernels = np.moveaxis(model.layer_grams(X), 2, 0)
    decisions = np.einsum("cl,lij,cj->ic", machine.kernel_weights_, kernels, machine.dual_coef_)
    assert_allclose(decisions + machine.intercept_, machine.decision_function(X), rtol=1e-6)


def test_cross_validation_of_frozen_images(three_classes):
    X, y = three_classes
    model = KernelMLPClassifier((6,), **QUICK).fit(X, y)
    pipeline = make_pipeline(FrozenEstimator(model), SVC())
    assert cross_val_score(pipeline, X, y, cv=2).mean() > 0.6
