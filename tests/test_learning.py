"""The learner through its estimators: every weight method with both losses."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from torch import nn

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
    MultipleKernelRegressor,
)
from sklearn_nftk.inspection import layer_ablation, layer_contributions
from sklearn_nftk.kernels import layer_kernels
from sklearn_nftk.networks import MLP
from sklearn_nftk.solvers import C_GRID

from . import reference

METHODS = ["alignment", "margin", "lp", "uniform", "sum"]


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(150)[:60]
    X = StandardScaler().fit_transform(X)[order]
    X += np.random.default_rng(1).normal(scale=0.5, size=X.shape)
    stack = np.stack([rbf_kernel(X, gamma=gamma) for gamma in (0.05, 0.5)], axis=-1)
    return stack, y[order]


def one_vs_rest(y):
    return np.where(y[:, None] == np.unique(y), 1.0, -1.0)


@pytest.mark.parametrize("loss", ["squared", "hinge"])
@pytest.mark.parametrize("per_class", [True, False])
def test_margin_weights_have_the_best_objective(loss, per_class, iris):
    stack, y = iris
    parameters = {"loss": loss, "per_class": per_class, "C": 3.0, "tol": 1e-4}
    model = MultipleKernelClassifier(kernel_weights="margin", **parameters).fit(stack, y)
    planes = np.moveaxis(stack / model.layer_scales_, -1, 0)
    assert 0 <= model.dual_gap_ <= 1e-4
    assert model.n_iter_ > 1

    def objective(weights, columns):
        K = np.tensordot(weights, planes, axes=1)
        Y = one_vs_rest(y)[:, columns]
        return reference.machine_objective(K, Y, np.ones(60), 3.0, loss)

    for columns in [[0], [1], [2]] if per_class else [[0, 1, 2]]:
        found = objective(model.kernel_weights_[columns[0]], columns)
        grid = [objective(w, columns) for w in reference.simplex_grid(2, 0.05)]
        assert found <= min(grid) * (1 + 1e-4)
    if not per_class:
        assert_allclose(model.kernel_weights_, model.kernel_weights_[:1].repeat(3, axis=0))


@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_margin_with_outputs_of_each_class(loss, three_classes):
    X, y = three_classes
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    parameters = {"loss": loss, "per_class": False, "outputs": "per_class", "C": 1.0}
    model = MultiLayerNTKClassifier(network, kernel_weights="margin", **parameters).fit(X, y)
    fixed = [
        MultiLayerNTKClassifier(network, kernel_weights=w, **parameters).fit(X, y)
        for w in reference.simplex_grid(2, 0.1)
    ]

    def objective(model):
        losses = 1 - one_vs_rest(y) * model.decision_function(X)
        losses = losses**2 if loss == "squared" else losses.clip(0)
        f = model.decision_function(X) - model.intercept_
        return np.sum(model.dual_coef_.T * f) / 2 + losses.sum()

    assert objective(model) <= min(objective(other) for other in fixed) * (1 + 1e-3)


def test_lp_lies_between_margin_and_uniform(iris):
    stack, y = iris

    def weights(**parameters):
        return (
            MultipleKernelClassifier(C=3.0, tol=1e-6, **parameters).fit(stack, y).kernel_weights_
        )

    assert_allclose(
        weights(kernel_weights="lp", p=1.001), weights(kernel_weights="margin"), atol=0.02
    )
    assert_allclose(weights(kernel_weights="lp", p=500.0), 0.5, atol=0.01)
    distances = [np.abs(weights(kernel_weights="lp", p=p) - 0.5).sum() for p in (1.2, 2.0, 8.0)]
    assert distances == sorted(distances, reverse=True)


def test_margin_solves_weights_and_machine_at_one_C(iris):
    stack, y = iris
    uniform = MultipleKernelClassifier(kernel_weights="uniform").fit(stack, y)
    model = MultipleKernelClassifier(kernel_weights="margin").fit(stack, y)
    assert model.C_ == uniform.C_
    same = MultipleKernelClassifier(kernel_weights="margin", C=uniform.C_).fit(stack, y)
    assert_allclose(model.decision_function(stack), same.decision_function(stack))


def test_running_out_of_iterations_warns_with_the_gap(iris):
    stack, y = iris
    model = MultipleKernelClassifier(kernel_weights="margin", max_iter=2, tol=1e-8)
    with pytest.warns(ConvergenceWarning, match="relative duality gap is .* after 2 iterations"):
        model.fit(stack, y)
    assert model.dual_gap_ > 1e-8
    assert model.score(stack, y) > 0.8


def test_refits_forget_what_they_do_not_set(iris):
    stack, y = iris
    model = MultipleKernelClassifier(kernel_weights="margin").fit(stack, y)
    assert hasattr(model, "dual_gap_")
    assert hasattr(model, "temperature_")
    model.set_params(kernel_weights="uniform", loss="hinge").fit(stack, y)
    for name in ("dual_gap_", "temperature_", "loo_scores_"):
        assert not hasattr(model, name)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_integer_weights_are_repeated_rows_for_every_method(method, loss, two_classes):
    X, y = two_classes
    weights = np.random.default_rng(0).integers(0, 4, 50)
    model = MultiLayerNTKClassifier(
        MLP(hidden_layer_sizes=(16,), random_state=0),
        kernel_weights=method,
        loss=loss,
        C=2.0,
        tol=1e-6,
        shrinkage=0.2,
    )
    weighted = model.fit(X, y, weights).decision_function(X)
    again = np.repeat(np.arange(50), weights)
    repeated = model.fit(X[again], y[again]).decision_function(X)
    assert_allclose(weighted, repeated, atol=2e-3 if method in ("margin", "lp") else 1e-5)


@pytest.mark.parametrize("method", [*METHODS, [0.2, 0.8]])
def test_contributions_add_up_in_every_estimator(method, iris):
    stack, y = iris
    X = np.random.default_rng(0).normal(size=(60, 4))
    network = MLP(hidden_layer_sizes=(16,), random_state=0)
    targets = np.column_stack([y, X[:, 0]])
    for model, data, target in [
        (MultipleKernelClassifier(kernel_weights=method), stack, y),
        (MultipleKernelClassifier(kernel_weights=method, loss="hinge"), stack, y),
        (MultipleKernelRegressor(kernel_weights=method), stack, targets),
        (MultiLayerNTKRegressor(network, kernel_weights=method), X, targets),
    ]:
        fitted = model.fit(data, target)
        decide = fitted.predict if hasattr(fitted, "_is_flat") else fitted.decision_function
        total = layer_contributions(fitted, data).sum(axis=2) + fitted.intercept_
        assert_allclose(total, decide(data), rtol=1e-10, atol=1e-12)


class Branches(nn.Module):
    """Three layers that have little in common: each sees features of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (
            nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1)) for _ in range(3)
        )

    def forward(self, X):
        return self.first(X[:, :4]) + self.second(X[:, 4:8]) + self.third(X[:, 8:])


@pytest.fixture(scope="module")
def branches():
    torch.manual_seed(0)
    X = np.random.default_rng(0).normal(size=(300, 12))
    return layer_kernels(Branches().double(), X, layers="block", device="cpu")


@pytest.mark.parametrize("planted", [0, 1, 2])
@pytest.mark.parametrize(
    "parameters", [{"shrinkage": 0.0}, {"kernel_weights": "margin"}, {"kernel_weights": "lp"}]
)
def test_weights_and_ablation_find_the_layer_that_targets_were_drawn_from(
    parameters, planted, branches
):
    train, test = slice(0, 200), slice(200, 300)
    known, new = branches[train, train], branches[test, train]
    for seed in range(5):
        random_state = np.random.default_rng(seed)
        y = random_state.multivariate_normal(np.zeros(300), branches[:, :, planted], method="eigh")
        y = y / y.std() + random_state.normal(scale=0.3, size=300)
        model = MultipleKernelRegressor(**parameters).fit(known, y[train])
        assert model.kernel_weights_[0].argmax() == planted
        assert layer_ablation(model, new, y[test]).drop.argmax() == planted


def test_grids_choose_between_weight_methods(iris):
    stack, y = iris
    grid = {"kernel_weights": METHODS, "loss": ["squared", "hinge"]}
    search = GridSearchCV(MultipleKernelClassifier(), grid, cv=3).fit(stack, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"p": 1.0}, "'p' parameter"),
        ({"tol": 0.0}, "'tol' parameter"),
        ({"max_iter": 0}, "'max_iter' parameter"),
        ({"kernel_weights": "best"}, "'kernel_weights' parameter"),
    ],
)
def test_unknown_values_are_named(parameters, message, iris):
    with pytest.raises(ValueError, match=message):
        MultipleKernelClassifier(**parameters).fit(*iris)


def test_hinge_is_calibrated_by_scikit_learn(iris):
    _, y = iris
    X = np.random.default_rng(0).normal(size=(60, 4)) + y[:, None]
    model = MultiLayerNTKClassifier(MLP(hidden_layer_sizes=(32,), random_state=0), loss="hinge")
    calibrated = CalibratedClassifierCV(model, cv=3).fit(X[:40], y[:40])
    assert log_loss(y[40:], calibrated.predict_proba(X[40:])) < 0.75 * np.log(3)


def test_probabilities_of_the_digits_are_not_worse_than_a_calibrated_svm():
    X, y = load_digits(return_X_y=True)
    X, y = X[:600], y[:600]
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    ours = make_pipeline(MinMaxScaler(), MultiLayerNTKClassifier(random_state=0))
    svm = make_pipeline(MinMaxScaler(), CalibratedClassifierCV(SVC(), ensemble=False))
    losses = [
        log_loss(y, cross_val_predict(model, X, y, cv=folds, method="predict_proba"))
        for model in (ours, svm)
    ]
    assert losses[0] <= losses[1]


def test_C_has_the_smallest_weighted_leave_one_out_residuals(rng):
    X = rng.uniform(-1, 1, (60, 1))
    weights = np.where(np.arange(60) % 2, 4.0, 0.1)
    # clean and wiggly where rows are heavy, coins where they are light
    y = np.where(weights > 1, np.sin(9 * X[:, 0]) > 0, rng.uniform(size=60) < 0.5).astype(int)
    K = rbf_kernel(X, gamma=10.0)
    signs = 2.0 * y - 1
    grid = C_GRID / weights.mean()
    residuals = [signs - reference.leave_one_out(K, signs, weights, C) for C in grid]
    errors = [weights @ r**2 for r in residuals]
    assert np.argmin(errors) != np.argmin([r @ r for r in residuals])
    model = MultipleKernelClassifier(normalize="none").fit(K, y, sample_weight=weights)
    assert_allclose(model.C_, grid[np.argmin(errors)])
