import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar, nnls
from scipy.special import log_softmax
from sklearn import config_context
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import shuffle

from sklearn_nftk import MultiLayerNTKClassifier, MultiLayerNTKRegressor
from sklearn_nftk.inspection import (
    layer_ablation,
    layer_contributions,
    layer_values,
    network_fidelity,
    weight_stability,
)
from sklearn_nftk.kernels import layer_kernels
from sklearn_nftk.networks import MLP
from sklearn_nftk.solvers import C_GRID

from . import reference

pytest.importorskip("skorch")

TRAINED = MLP((12, 8), max_epochs=8, lr=1e-2, batch_size=16)
FOLDS = np.tile([0, 1, 2, 1, 0], 12)
CV = PredefinedSplit(FOLDS)


def machine(network=TRAINED, cv=CV, **parameters):
    return MultiLayerNTKClassifier(network, cv=cv, random_state=0, **parameters)


def of_folds(model, X, Z=None):
    """Layer kernels of each network, one list of planes each: (K, L, n, m)."""
    return np.array([np.moveaxis(layer_kernels(f, X, Z), -1, 0) for f in model.networks_])


def held_out(planes, weights, targets, C, s=None):
    """Decisions of each fold by a machine on the kernel of its network, written out."""
    s = np.ones(len(targets)) if s is None else s
    scores = np.empty(targets.shape)
    for fold, kernels in enumerate(planes):
        new, seen = fold == FOLDS, fold != FOLDS
        for c, w in enumerate(weights):
            K = np.tensordot(w, kernels, axes=1)
            a, b = reference.ridge(K[np.ix_(seen, seen)], targets[seen, c], s[seen], C)
            scores[new, c] = K[np.ix_(new, seen)] @ a + b
    return scores


def one_vs_rest(y):
    return np.where(y[:, None] == np.unique(y), 1.0, -1.0)


def test_the_machine_is_that_of_the_mean_kernels(three_classes):
    X, y = three_classes
    new = X[:7] + 0.1
    model = machine().fit(X, y)
    assert len(model.networks_) == 3
    mean, across = of_folds(model, X).mean(axis=0), of_folds(model, new, X).mean(axis=0)
    scales = np.array([K.diagonal().mean() - K.mean() for K in mean])
    assert_allclose(model.layer_scales_, scales, rtol=1e-6)
    Y = one_vs_rest(y)
    for c, w in enumerate(model.kernel_weights_):
        a, b = reference.ridge(np.tensordot(w / scales, mean, 1), Y[:, c], np.ones(60), model.C_)
        decisions = np.tensordot(w / scales, across, 1) @ a + b
        assert_allclose(model.decision_function(new)[:, c], decisions, rtol=1e-5, atol=1e-7)
    phi = layer_contributions(model, new)
    assert_allclose(phi.sum(axis=2) + model.intercept_, model.decision_function(new), rtol=1e-9)


def test_out_of_fold_scores_are_those_of_machines_on_the_network_that_is_new_to_the_rows(
    three_classes,
):
    X, y = three_classes
    w = np.random.RandomState(0).randint(1, 4, 60).astype(float)
    model = machine(C=2.0, shrinkage=0.0).fit(X, y, sample_weight=w)
    assert not hasattr(model, "loo_scores_")
    planes = of_folds(model, X) / model.layer_scales_[:, None, None]
    expected = held_out(planes, model.kernel_weights_, one_vs_rest(y), 2.0, w)
    assert_allclose(model.oof_scores_, expected, rtol=1e-6, atol=1e-8)


def test_alignment_is_learned_from_pairs_of_rows_that_their_network_has_not_seen(three_classes):
    X, y = three_classes
    model = machine(shrinkage=0.0).fit(X, y)
    planes = of_folds(model, X) / model.layer_scales_[:, None, None]
    Y, n_layers = one_vs_rest(y), len(model.layer_names_)
    M, a, norms = np.zeros((n_layers, n_layers)), np.zeros((3, n_layers)), np.zeros(3)
    for fold, kernels in enumerate(planes):
        new = np.flatnonzero(fold == FOLDS)
        p = np.full(len(new), 1 / len(new))
        blocks = [reference.centred(K[np.ix_(new, new)], p) for K in kernels]
        M += [[np.sum(A * B) for B in blocks] for A in blocks]
        deviations = Y[new] - Y[new].mean(axis=0)
        a += [[y @ A @ y for A in blocks] for y in deviations.T]
        norms += np.sum(deviations**2, axis=0) ** 2
    root = np.linalg.cholesky(M).T
    for c, weights in enumerate(model.kernel_weights_):
        v, _ = nnls(root, np.linalg.solve(root.T, a[c]))  # min v'Mv - 2 a'v
        assert_allclose(weights, v / v.sum(), atol=2e-4)
    scale = np.sqrt(M.diagonal())
    assert_allclose(model.layer_alignment_, M / np.outer(scale, scale), rtol=1e-6)
    expected = a / np.outer(np.sqrt(norms), scale)
    assert_allclose(model.target_alignment_, expected, rtol=1e-6, atol=1e-9)


def test_C_and_temperature_are_chosen_on_rows_that_are_new_to_the_network(three_classes):
    X, y = three_classes
    model = machine(kernel_weights="uniform").fit(X, y)
    planes = of_folds(model, X) / model.layer_scales_[:, None, None]
    Y = one_vs_rest(y)
    weights = np.full((3, 3), 1 / 3)
    errors = [np.sum((Y - held_out(planes, weights, Y, C)) ** 2) for C in C_GRID]
    assert_allclose(model.C_, C_GRID[np.argmin(errors)])
    scores = model.oof_scores_

    def log_loss(log_temperature):
        return -log_softmax(scores / np.exp(log_temperature), axis=1)[np.arange(60), y].mean()

    best = minimize_scalar(log_loss, bounds=(-5, 5), method="bounded")
    assert_allclose(log_loss(np.log(model.temperature_)), best.fun, rtol=1e-6)


def test_no_label_of_a_fold_reaches_its_network(three_classes):
    X, y = three_classes
    model = machine().fit(X, y)
    changed = np.where(FOLDS == 1, (y + 1) % 3, y)
    other = machine().fit(X, changed)
    for fold, (f, g) in enumerate(zip(model.networks_, other.networks_, strict=True)):
        pairs = zip(f.parameters(), g.parameters(), strict=True)
        same = all((p == q).all() for p, q in pairs)
        assert same == (fold == 1)


# Labels that are coins, and an identifier by which a network can learn them by heart.
def coins(n=160):
    rng = np.random.default_rng(0)
    codes = rng.choice([-1.0, 1.0], size=(n, 16))
    return codes, rng.integers(0, 2, n)


LEARNS_BY_HEART = MLP((64,), max_epochs=40, lr=1e-2, batch_size=32)


def test_what_only_memory_knows_is_not_known_out_of_fold():
    X, y = coins()
    model = machine(LEARNS_BY_HEART, cv=4).fit(X, y)
    right = ((model.oof_scores_[:, 0] > 0) == y).mean()
    assert abs(right - 0.5) < 3 * 0.5 / np.sqrt(len(y))
    seen = machine(LEARNS_BY_HEART, cv=None).fit(X, y)
    assert ((seen.loo_scores_[:, 0] > 0) == y).mean() > 0.9  # what the documentation warns of
    assert abs(cross_val_score(model, X, y, cv=4).mean() - 0.5) < 3 * 0.5 / np.sqrt(len(y))


def test_out_of_fold_accuracy_is_that_on_new_rows():
    X, y = shuffle(*load_digits(return_X_y=True), random_state=0)  # they come writer by writer
    X = X / 16
    model = machine(MLP((32, 32), max_epochs=15, lr=1e-2, batch_size=32), cv=4)
    model.fit(X[:500], y[:500])
    claimed = (model.classes_[model.oof_scores_.argmax(axis=1)] == y[:500]).mean()
    # The machines of the folds have three quarters of the rows, and one network of four.
    assert -0.01 < model.score(X[500:], y[500:]) - claimed < 0.03


@pytest.mark.parametrize("cv", [3, KFold(3, shuffle=True, random_state=0), None])
def test_networks_that_are_not_trained_need_no_folds(cv, three_classes):
    X, y = three_classes
    model = machine(MLP((12, 8)), cv=cv).fit(X, y)
    assert len(model.networks_) == 1
    assert not hasattr(model, "oof_scores_")
    alike = machine(MLP((12, 8)), cv=None).fit(X, y)
    assert_array_equal(model.loo_scores_, alike.loo_scores_)
    later = model.set_params(network=TRAINED, cv=3).fit(X, y)
    assert hasattr(later, "oof_scores_")
    assert not hasattr(later, "loo_scores_")


def test_several_networks_in_each_fold(three_classes):
    X, y = three_classes
    model = machine(n_networks=2).fit(X, y)
    assert len(model.networks_) == 6
    assert_allclose(
        model.kernel_source_.gram(model.kernel_source_.prepare(X))[0],
        of_folds(model, X).mean(axis=0),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {"normalize": "cosine"},
        {"outputs": "per_class"},
        {"loss": "hinge"},
        {"kernel_weights": "margin"},
        {"per_class": False},
        {"class_weight": "balanced"},
    ],
)
def test_other_machines_are_cross_fitted_too(parameters, three_classes):
    X, y = three_classes
    model = machine(**parameters).fit(X, y)
    right = model.classes_[model.oof_scores_.argmax(axis=1)] == y
    assert model.oof_scores_.shape == (60, 3)
    assert 0.5 < right.mean() < 0.98
    phi = layer_contributions(model, X[:5])
    assert_allclose(phi.sum(axis=2) + model.intercept_, model.decision_function(X[:5]), rtol=1e-8)


def test_hinge_scores_of_folds(three_classes):
    X, y = three_classes
    model = machine(loss="hinge", kernel_weights="uniform").fit(X, y)
    planes = of_folds(model, X) / model.layer_scales_[:, None, None]
    from sklearn.svm import SVC

    for fold, kernels in enumerate(planes):
        new, seen = fold == FOLDS, fold != FOLDS
        K = kernels.mean(axis=0)
        svc = SVC(kernel="precomputed", C=1.0, tol=1e-8)
        expected = svc.fit(K[np.ix_(seen, seen)], y[seen] == 1).decision_function(
            K[np.ix_(new, seen)]
        )
        assert_allclose(model.oof_scores_[new, 1], expected, atol=1e-5)


def test_two_classes_and_regression(two_classes):
    X, y = two_classes
    model = machine(cv=2).fit(X, np.array(["no", "yes"])[y])
    assert model.oof_scores_.shape == (50, 1)
    assert model.network_[-1].out_features == 2
    X, y = load_diabetes(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    regressor = MultiLayerNTKRegressor(TRAINED, cv=3, random_state=0).fit(X[:200], y[:200])
    residuals = y[:200] - regressor.oof_scores_[:, 0]
    r2 = 1 - np.mean(residuals**2) / y[:200].var()
    assert r2 > 0.2
    assert abs(r2 - regressor.score(X[200:], y[200:])) < 0.15
    both = MultiLayerNTKRegressor(TRAINED, cv=3, random_state=0)
    assert both.fit(X[:100], np.c_[y, -y][:100]).oof_scores_.shape == (100, 2)


def test_folds_by_a_splitter_and_by_a_number(three_classes):
    X, y = three_classes
    explicit = [(np.flatnonzero(k != FOLDS), np.flatnonzero(k == FOLDS)) for k in range(3)]
    one, other = machine().fit(X, y), machine(cv=explicit).fit(X, y)
    assert_array_equal(one.oof_scores_, other.oof_scores_)
    by_class = machine(cv=3).fit(X, y)
    for fold in range(3):
        counts = np.bincount(y[by_class._folds == fold], minlength=3)
        assert np.ptp(counts - np.bincount(y) / 3) < 2
    permuted = np.random.RandomState(0).permutation(60)
    again = machine(cv=3).fit(X[permuted], y[permuted])
    assert_allclose(again.oof_scores_, by_class.oof_scores_[permuted], rtol=1e-6, atol=1e-8)


def test_a_weight_of_k_is_k_rows(three_classes):
    X, y = three_classes
    w = np.random.RandomState(1).randint(0, 3, 60)
    weighted = machine(cv=3).fit(X, y, sample_weight=3.0 * w)
    repeated = machine(cv=3).fit(np.repeat(X, w, axis=0), np.repeat(y, w))
    assert_allclose(weighted.decision_function(X), repeated.decision_function(X), rtol=1e-6)


def test_groups_stay_together(three_classes):
    X, y = three_classes
    groups = np.arange(60) // 4
    model = machine(cv=3).fit(X, y, groups=groups)
    for group in range(15):
        assert len(set(model._folds[groups == group])) == 1
    by_splitter = machine(cv=GroupKFold(3)).fit(X, y, groups=groups)
    for group in range(15):
        assert len(set(by_splitter._folds[groups == group])) == 1
    regressor = MultiLayerNTKRegressor(TRAINED, cv=3, random_state=0)
    regressor.fit(X, X[:, 0], groups=groups)
    assert all(len(set(regressor._folds[groups == group])) == 1 for group in range(15))


def test_groups_are_routed(three_classes):
    X, y = three_classes
    groups = np.arange(60) // 4
    with config_context(enable_metadata_routing=True):
        model = machine(cv=GroupKFold(2)).set_fit_request(groups=True)
        search = GridSearchCV(model, {"C": [1.0, 10.0]}, cv=GroupKFold(3))
        search.fit(X, y, groups=groups)
        assert hasattr(search.best_estimator_, "oof_scores_")


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (ShuffleSplit(3, random_state=0), "cv must split the rows into two folds or more"),
        ([(np.arange(60), np.arange(0))], "cv must split the rows into two folds or more"),
        (1, "The 'cv' parameter of MultiLayerNTKClassifier must be"),
        ("four", "The 'cv' parameter of MultiLayerNTKClassifier must be"),
        (40, "n_splits=40"),
    ],
)
def test_folds_that_are_none(cv, message, three_classes):
    with pytest.raises(ValueError, match=message):
        machine(cv=cv).fit(*three_classes)


def test_groups_of_another_length(three_classes):
    X, y = three_classes
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        machine(cv=3).fit(X, y, groups=[0, 1])


def test_kernels_of_folds_that_are_not_stored(three_classes):
    X, y = three_classes
    stored = machine().fit(X, y)
    with config_context(working_memory=0.02):
        streamed = machine().fit(X, y)
    assert_allclose(streamed.oof_scores_, stored.oof_scores_, rtol=1e-8, atol=1e-10)
    assert_allclose(streamed.kernel_weights_, stored.kernel_weights_, atol=1e-6)
    assert_allclose(streamed.decision_function(X), stored.decision_function(X), rtol=1e-7)


@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_any_number_of_threads_gives_the_same(loss, three_classes):
    X, y = three_classes
    alone = machine(loss=loss, n_jobs=1).fit(X, y)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        shared = machine(loss=loss, n_jobs=3).fit(X, y)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for name in ("oof_scores_", "kernel_weights_", "dual_coef_", "layer_scales_"):
        a, b = getattr(alone, name), getattr(shared, name)
        assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(a).max())


def test_inspection_learns_again_as_the_fit_did(three_classes):
    X, y = three_classes
    model = machine(shrinkage=0.0).fit(X, y)
    stability = weight_stability(model, X, y, n_resamples=30, random_state=0)
    inside = (stability.low - 1e-6 <= model.kernel_weights_) & (
        model.kernel_weights_ <= stability.high + 1e-6
    )
    assert inside.mean() > 0.8
    values = layer_values(model, X, y, training=(X, y), random_state=0)
    assert_allclose(values.values.sum(), values.score - values.score_none, atol=1e-10)
    refitted = layer_ablation(model, X, y, training=(X, y), refit=True)
    assert len(refitted.layer_names) == 3
    assert network_fidelity(model, X).agreement > 0.5
    with pytest.raises(ValueError, match="X must be the training set where the estimator has cv"):
        weight_stability(model, X[::2], y[::2], n_resamples=2)


def test_all_layers_again_are_the_machine_itself(three_classes):
    X, y = three_classes
    model = machine().fit(X, y)
    again = layer_values(model, X, y, training=(X, y), random_state=0)
    assert_allclose(again.score, model.score(X, y))


def test_what_is_pickled(three_classes):
    X, y = three_classes
    model = machine().fit(X, y)
    stored = pickle.dumps(model)
    assert b"skorch" not in stored
    assert b"optim" not in stored
    assert stored.count(np.ascontiguousarray(X[0]).tobytes()) == 1  # the data once
    assert_array_equal(pickle.loads(stored).decision_function(X), model.decision_function(X))


def test_a_grid_over_training_and_C_in_two_processes(three_classes):
    X, y = three_classes
    pipeline = make_pipeline(StandardScaler(), machine(cv=StratifiedKFold(2)))
    grid = {
        "multilayerntkclassifier__network__max_epochs": [0, 2],
        "multilayerntkclassifier__C": [0.1, 10.0],
    }
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(X, y)
    assert len(search.cv_results_["mean_test_score"]) == 4
    assert search.best_score_ > 0.5


def test_progress_tells_of_each_network(three_classes, capsys):
    pytest.importorskip("tqdm")
    machine(verbose=1).fit(*three_classes)
    assert capsys.readouterr().err.count("training") >= 3
