import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_iris, make_regression
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KernelCenterer, StandardScaler

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
    MultipleKernelRegressor,
)
from sklearn_nftk.inspection import layer_contributions
from sklearn_nftk.kernels import layer_kernels
from sklearn_nftk.networks import MLP

from . import reference

GAMMAS = (0.02, 0.2, 2.0)


def rbf_stack(X, Z):
    return np.stack([rbf_kernel(X, Z, gamma=gamma) for gamma in GAMMAS], axis=-1)


@pytest.fixture
def iris():
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(150)
    return StandardScaler().fit_transform(X)[order], y[order]


@pytest.fixture
def regression():
    X, y = make_regression(80, 4, n_targets=2, noise=5.0, random_state=0)
    return X, y / 100


@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_layer_kernels_in_a_stack_are_the_multi_layer_estimator(loss, iris):
    X, y = iris
    network = MLP(hidden_layer_sizes=(16, 16), random_state=0)
    expected = MultiLayerNTKClassifier(network, loss=loss).fit(X[:100], y[:100])
    actual = MultipleKernelClassifier(loss=loss).fit(layer_kernels(network, X[:100]), y[:100])
    assert_allclose(actual.kernel_weights_, expected.kernel_weights_, atol=1e-6)
    test = layer_kernels(network, X[100:], X[:100])
    assert_allclose(actual.decision_function(test), expected.decision_function(X[100:]), atol=1e-6)
    assert_allclose(
        layer_contributions(actual, test), layer_contributions(expected, X[100:]), atol=1e-6
    )
    assert actual.layer_names_ == ["kernel0", "kernel1", "kernel2"]


def test_stacks_go_through_cross_validation_grids_and_pipelines(iris):
    X, y = iris
    stack = rbf_stack(X, X)
    assert cross_val_score(MultipleKernelClassifier(), stack, y).mean() > 0.93
    grid = {
        "multiplekernelclassifier__kernel_weights": ["alignment", "uniform"],
        "multiplekernelclassifier__loss": ["squared", "hinge"],
    }
    # A pipeline is split pairwise if its first step is pairwise.
    model = make_pipeline(MultipleKernelClassifier())
    search = GridSearchCV(model, grid, n_jobs=2).fit(stack, y)
    assert search.best_score_ > 0.93
    assert search.predict(rbf_stack(X[:5], X)).shape == (5,)
    centred = make_pipeline(KernelCenterer(), MultipleKernelClassifier())
    assert cross_val_score(centred, stack[:, :, 1], y).mean() > 0.93


def test_two_dimensions_are_one_kernel(iris):
    X, y = iris
    K = rbf_kernel(X, gamma=0.2)
    flat = MultipleKernelClassifier().fit(K, y)
    deep = MultipleKernelClassifier().fit(K[:, :, None], y)
    assert_allclose(flat.decision_function(K[:7]), deep.decision_function(K[:7, :, None]))
    assert_array_equal(flat.kernel_weights_, np.ones((3, 1)))


def test_labels_of_any_type_and_relabelled_classes(iris):
    X, y = iris
    stack = rbf_stack(X, X)
    names = np.array(["versicolor", "setosa", "virginica"])
    plain = MultipleKernelClassifier().fit(stack, y)
    named = MultipleKernelClassifier().fit(stack, names[y])
    order = np.argsort(names)
    assert_array_equal(named.classes_, names[order])
    assert_allclose(named.kernel_weights_, plain.kernel_weights_[order], atol=1e-9)
    assert_array_equal(named.predict(stack), names[plain.predict(stack)])


@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_integer_weights_are_repeated_rows(loss, iris):
    X, y = iris
    X, y = X[:60], y[:60]
    weights = np.random.default_rng(1).integers(0, 4, 60)
    repeated = np.repeat(np.arange(60), weights)
    parameters = {"loss": loss, "shrinkage": 0.3}
    weighted = MultipleKernelClassifier(**parameters).fit(rbf_stack(X, X), y, weights)
    many = MultipleKernelClassifier(**parameters).fit(
        rbf_stack(X[repeated], X[repeated]), y[repeated]
    )
    assert_allclose(weighted.kernel_weights_, many.kernel_weights_, atol=1e-6)
    assert_allclose(
        weighted.decision_function(rbf_stack(X, X)),
        many.decision_function(rbf_stack(X, X[repeated])),
        atol=1e-5,
    )
    if loss == "squared":
        assert_allclose(weighted.temperature_, many.temperature_, rtol=1e-4)
        assert_allclose(
            weighted.predict_proba(rbf_stack(X, X)),
            many.predict_proba(rbf_stack(X, X[repeated])),
            atol=1e-5,
        )


def test_regression_is_ridge_with_an_intercept(regression):
    X, Y = regression
    stack = rbf_stack(X, X)
    model = MultipleKernelRegressor(C=4.0, shrinkage=0.5).fit(stack, Y)
    normalised = stack / model.layer_scales_
    for target in range(2):
        K = normalised @ model.kernel_weights_[target]
        a, b = reference.ridge(K, Y[:, target], np.ones(80), 4.0)
        assert_allclose(model.dual_coef_[target], a, rtol=1e-6, atol=1e-9)
        assert_allclose(model.predict(stack)[:, target], K @ a + b, rtol=1e-8)
    loo = reference.leave_one_out(K, Y[:, 1], np.ones(80), 4.0)
    assert_allclose(model.loo_scores_[:, 1], loo, rtol=1e-6)
    flat = MultipleKernelRegressor(C=4.0, shrinkage=0.5).fit(stack, Y[:, 0])
    assert_allclose(flat.predict(stack), model.predict(stack)[:, 0], rtol=1e-8)
    contributions = layer_contributions(model, stack)
    assert_allclose(contributions.sum(axis=2) + model.intercept_, model.predict(stack))


def test_regressor_on_a_network(regression):
    X, Y = regression
    network = MLP(hidden_layer_sizes=(64, 64), random_state=0)
    model = MultiLayerNTKRegressor(network).fit(X[:60], Y[:60])
    assert model.score(X[60:], Y[60:]) > 0.7
    assert model.kernel_weights_.shape == (2, 3)
    search = GridSearchCV(MultiLayerNTKRegressor(), {"network": [network], "C": ["auto", 1.0]})
    assert search.fit(X, Y[:, 0]).best_score_ > 0.7
    stack = layer_kernels(network, X[:60])
    same = MultipleKernelRegressor().fit(stack, Y[:60])
    assert_allclose(same.predict(stack), model.predict(X[:60]), atol=1e-6)


def test_regression_with_a_target_for_each_output(regression):
    X, Y = regression

    def network(n_features, n_outputs, random_state):
        import torch

        torch.manual_seed(random_state)
        return torch.nn.Sequential(
            torch.nn.Linear(n_features, 8), torch.nn.Tanh(), torch.nn.Linear(8, n_outputs)
        )

    model = MultiLayerNTKRegressor(network, outputs="per_class", random_state=0).fit(X, Y)
    assert model.layer_scales_.shape == (2, 2)
    assert model.score(X, Y) > 0.7


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 3, 2), r"shape \(n, n, L\) or \(n, n\); got shape \(4, 3, 2\)"),
        ((4, 4, 2, 2), r"shape \(n, m, L\) or \(n, m\), got shape \(4, 4, 2, 2\)"),
    ],
)
def test_impossible_stacks_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        MultipleKernelClassifier().fit(np.ones(shape), [0, 1, 0, 1])


def test_asymmetric_stacks_are_refused_by_number(iris):
    X, y = iris
    stack = rbf_stack(X, X)
    stack[3, 5, 1] += 0.1
    with pytest.raises(ValueError, match=r"symmetric .*X\[:, :, 1\] is not"):
        MultipleKernelClassifier().fit(stack, y)


def test_stacks_at_predict_must_fit(iris):
    X, y = iris
    model = MultipleKernelClassifier().fit(rbf_stack(X, X), y)
    with pytest.raises(ValueError, match="3 kernels on its last axis as in fit"):
        model.predict(rbf_stack(X[:4], X)[:, :, :2])
    with pytest.raises(ValueError, match="features"):
        model.predict(rbf_stack(X[:4], X[:10]))


def test_cosine_is_refused_where_there_is_no_diagonal(iris):
    X, y = iris
    with pytest.raises(ValueError, match="normalize='cosine' needs the diagonal"):
        MultipleKernelClassifier(normalize="cosine").fit(rbf_stack(X, X), y)


def test_stack_of_the_user_is_left_alone(iris):
    X, y = iris
    stack = rbf_stack(X, X)
    before = stack.copy()
    MultipleKernelClassifier().fit(stack, y).predict(stack)
    assert_array_equal(stack, before)


def test_probabilities_agree_with_predictions_and_are_calibrated(iris):
    X, y = iris
    X = X + np.random.default_rng(0).normal(scale=1.0, size=X.shape)  # classes overlap
    for labels in (y, y == 1):
        model = MultipleKernelClassifier()
        stack = rbf_stack(X, X)
        fitted = model.fit(stack, labels)
        probabilities = fitted.predict_proba(stack)
        assert_allclose(probabilities.sum(axis=1), 1)
        assert_array_equal(fitted.classes_[probabilities.argmax(axis=1)], fitted.predict(stack))
        assert_allclose(np.log(probabilities), fitted.predict_log_proba(stack), atol=1e-9)
        out_of_fold = cross_val_predict(model, stack, labels, method="predict_proba", cv=10)
        confidence = out_of_fold.max(axis=1).mean()
        right = np.mean(fitted.classes_[out_of_fold.argmax(axis=1)] == labels)
        assert abs(confidence - right) < 0.06


def test_temperature_minimises_the_log_loss(iris):
    X, y = iris
    model = MultipleKernelClassifier().fit(rbf_stack(X, X), y)

    def log_loss(temperature):
        scores = model.loo_scores_ / temperature
        scores = scores - scores.max(axis=1, keepdims=True)
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        return -np.log(probabilities[np.arange(150), y]).mean()

    best = log_loss(model.temperature_)
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert log_loss(factor * model.temperature_) > best


def test_hinge_has_no_probabilities_and_says_what_has(iris):
    X, y = iris
    model = MultipleKernelClassifier(loss="hinge").fit(rbf_stack(X, X), y)
    assert not hasattr(model, "predict_proba")
    with pytest.raises(AttributeError) as error:
        model.predict_proba(rbf_stack(X, X))
    assert "CalibratedClassifierCV" in str(error.value.__cause__)


def test_linear_kernel_regression_agrees_with_primal_ridge(regression):
    X, Y = regression
    model = MultipleKernelRegressor(C=0.5, normalize="none").fit(linear_kernel(X), Y[:, 0])
    centred = X - X.mean(axis=0)
    w = np.linalg.solve(centred.T @ centred + np.eye(4), centred.T @ Y[:, 0])
    assert_allclose(model.predict(linear_kernel(X)), centred @ w + Y[:, 0].mean(), rtol=1e-6)
