"""One row is one distinct (x, y): weights, repetitions, factors, and samples of the rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import LinAlgWarning
from sklearn.datasets import load_breast_cancer, load_diabetes, make_classification
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from sklearn.preprocessing import StandardScaler

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
    MultipleKernelRegressor,
)
from sklearn_nftk.grams import StoredGrams
from sklearn_nftk.inspection import training_contributions
from sklearn_nftk.kernels import layer_kernels
from sklearn_nftk.learner import (
    LearnerOptions,
    Problem,
    array_keys,
    distinct_rows,
    kernel_keys,
    normalise,
)
from sklearn_nftk.networks import MLP
from sklearn_nftk.weights import _alignment
from sklearn_nftk.weights._alignment import auto_shrinkage

from . import reference

NETWORK = MLP((32, 32), random_state=0)


def rbf_stack(X, Z):
    return np.stack([rbf_kernel(X, Z, gamma=g) for g in (0.01, 0.1, 1.0)], axis=-1)


# -- merging ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**20), n=st.integers(1, 40), n_values=st.integers(1, 4))
def test_rows_of_the_same_x_and_y_are_one(seed, n, n_values):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, n_values, (n, 2)).astype(float)
    X[rng.uniform(size=X.shape) < 0.2] *= -1.0  # -0.0 is 0.0
    Y = rng.integers(0, 2, (n, 1)).astype(float)
    rows = distinct_rows(array_keys(X), Y)
    pairs = np.column_stack([X, Y])
    for i in range(n):
        first = rows.first[rows.copy_of[i]]
        assert_array_equal(pairs[first], pairs[i])
        assert first == min(j for j in range(n) if (pairs[j] == pairs[i]).all())
    assert len(rows.first) == len(np.unique(pairs + 0.0, axis=0))
    # the order by content is that of the rows in any other order
    shuffled = rng.permutation(n)
    other = distinct_rows(array_keys(X[shuffled]), Y[shuffled])
    assert_array_equal(pairs[rows.first][rows.order], pairs[shuffled][other.first][other.order])


def test_kernels_of_copies_are_found_up_to_rounding(rng):
    X = rng.standard_normal((30, 5))
    copies = np.r_[np.arange(30), [3, 3, 17], np.arange(10)]
    order = rng.permutation(len(copies))
    stack = rbf_stack(X[copies][order], X[copies][order])
    noise = rng.uniform(-1, 1, stack.shape) * 4 * np.finfo(float).eps
    planes = np.moveaxis(stack + noise + noise.swapaxes(0, 1), -1, 0)
    keys = kernel_keys(planes, np.arange(len(order)))
    _, expected = np.unique(copies[order], return_inverse=True)
    assert_array_equal(keys[:, None] == keys, expected[:, None] == expected)


def test_kernels_with_samples_that_do_not_count_do_not_tell_copies_apart(rng):
    planes = rbf_kernel(rng.standard_normal((12, 3)))[None].copy()
    planes[0, 4, :8] = planes[0, 2, :8]
    planes[0, :8, 4] = planes[0, :8, 2]
    planes[0, 4, 4] = planes[0, 2, 4] = planes[0, 4, 2] = planes[0, 2, 2]
    assert len(np.unique(kernel_keys(planes, np.arange(8)))) == 7
    assert len(np.unique(kernel_keys(planes, np.arange(12)))) == 12


def test_smooth_kernels_of_close_samples_are_not_merged(rng):
    X = rng.standard_normal((40, 3))
    for dtype in (np.float64, np.float32):
        planes = rbf_kernel(X, gamma=1e-3).astype(dtype)[None]
        assert len(np.unique(kernel_keys(planes, np.arange(40)))) == 40
    symmetric = np.array([np.roll([2.0, 1.0, 0.0, 1.0], k) for k in range(4)])  # equal sums
    assert len(np.unique(kernel_keys(symmetric[None], np.arange(4)))) == 4


# -- weights are repetitions, and a factor is nothing ------------------------------------------


def estimators():
    for loss in ("squared", "hinge"):
        for method in ("alignment", "margin", "uniform"):
            for class_weight in (None, "balanced"):
                yield MultiLayerNTKClassifier(
                    NETWORK, loss=loss, kernel_weights=method, class_weight=class_weight, tol=1e-6
                )


@pytest.mark.parametrize("model", list(estimators()), ids=str)
def test_weights_are_repetitions_whatever_is_learned(model, three_classes, rng):
    X, y = three_classes
    w = rng.integers(0, 4, len(y))
    weighted = model.fit(X, y, w)
    of_weights = weighted.decision_function(X), weighted.C_, weighted.kernel_weights_
    again = rng.permutation(np.repeat(np.arange(60), w))
    repeated = model.fit(X[again], y[again])
    assert_allclose(repeated.C_, of_weights[1], rtol=1e-12)
    margin = model.kernel_weights == "margin"  # to a gap of 1e-6
    assert_allclose(repeated.kernel_weights_, of_weights[2], atol=1e-3 if margin else 1e-8)
    assert_allclose(repeated.decision_function(X), of_weights[0], atol=2e-3 if margin else 1e-6)


def test_repetition_holds_for_probabilities_and_public_arrays(two_classes, rng):
    X, y = two_classes
    w = rng.integers(0, 4, len(y))
    again = np.repeat(np.arange(50), w)
    model = MultiLayerNTKClassifier(NETWORK)
    weighted = model.fit(X, y, w)
    probabilities, loo = weighted.predict_proba(X), weighted.loo_scores_
    coefficients = weighted.dual_coef_
    repeated = model.fit(X[again], y[again])
    assert_allclose(repeated.predict_proba(X), probabilities, rtol=1e-7, atol=1e-9)
    assert repeated.dual_coef_.shape == (1, len(again))
    assert repeated.X_fit_.shape == (len(again), 4)
    kept = np.flatnonzero(w)
    shares = np.bincount(np.searchsorted(kept, again), weights=repeated.dual_coef_[0])
    assert_allclose(shares, coefficients[0], rtol=1e-7, atol=1e-9)
    assert_allclose(repeated.loo_scores_, np.repeat(loo, w[kept], axis=0), rtol=1e-7, atol=1e-9)


def test_copies_share_coefficients_in_proportion_to_their_weights(two_classes):
    X, y = two_classes
    X, y = np.concatenate([X, X[:1], X[:1]]), np.append(y, [y[0], y[0]])
    w = np.ones(52)
    w[[0, 50, 51]] = 1.0, 2.0, 5.0
    model = MultiLayerNTKClassifier(NETWORK).fit(X, y, w)
    a = model.dual_coef_[0, [0, 50, 51]]
    assert_allclose(a / a[0], [1, 2, 5], rtol=1e-12)
    psi = training_contributions(model, X[:7])
    total = psi.sum(axis=2) + model.intercept_
    assert_allclose(total.ravel(), model.decision_function(X[:7]), rtol=1e-10)
    assert_allclose(psi[:, 0, 51] / psi[:, 0, 0], 5, rtol=1e-12)
    top = training_contributions(model, X[:7], top=52)
    assert_array_equal(np.sort(top.indices[0, 0]), np.arange(52))


@pytest.mark.parametrize("factor", [3.0, 1e-3, 1e4])
def test_a_common_factor_changes_nothing_but_C(factor):
    X, y = load_diabetes(return_X_y=True)
    X, y = StandardScaler().fit_transform(X), (y - y.mean()) / y.std()
    w = np.random.default_rng(0).uniform(0.5, 2, len(y))
    model = MultiLayerNTKRegressor(NETWORK)
    plain = model.fit(X[:300], y[:300], w[:300])
    expected, C = plain.predict(X[300:]), plain.C_
    assert plain.score(X[300:], y[300:]) > 0.3
    scaled = model.fit(X[:300], y[:300], factor * w[:300])
    assert_allclose(scaled.C_ * factor, C, rtol=1e-10)
    assert_allclose(scaled.predict(X[300:]), expected, rtol=1e-6, atol=1e-8)


def test_the_grid_of_C_is_relative_to_the_mean_weight_of_distinct_rows(two_classes):
    X, y = two_classes
    w = np.random.default_rng(0).integers(1, 5, 50)
    weighted = MultiLayerNTKClassifier(NETWORK, kernel_weights="uniform").fit(X, y, w)
    position = (np.log10(weighted.C_ * w.mean()) + 3) * 2
    assert_allclose(position, round(position), atol=1e-9)


def test_leave_one_out_leaves_copies_out_together(two_classes):
    X, y = two_classes
    again = np.r_[np.arange(50), [0, 0, 7]]
    model = MultiLayerNTKClassifier(NETWORK, kernel_weights="uniform", C=2.0)
    found = model.fit(X[again], y[again])
    K = (layer_kernels(found.network_, X) / found.layer_scales_).mean(axis=2)
    w = np.bincount(again).astype(float)
    expected = reference.leave_one_out(K, 2.0 * y - 1, w, 2.0)
    assert_allclose(found.loo_scores_[:, 0], expected[again], rtol=1e-7)


@pytest.mark.parametrize("shrinkage", ["auto", 0.3])
def test_stacks_find_repeated_rows_too(shrinkage, rng):
    X, y = make_classification(70, 4, n_redundant=0, random_state=0)
    w = rng.integers(0, 4, 70)
    again = rng.permutation(np.repeat(np.arange(70), w))
    model = MultipleKernelClassifier(shrinkage=shrinkage)
    expected = model.fit(rbf_stack(X, X), y, w).decision_function(rbf_stack(X, X))
    C = model.C_
    found = model.fit(rbf_stack(X[again], X[again]), y[again])
    assert_allclose(found.C_, C)
    assert_allclose(found.decision_function(rbf_stack(X, X[again])), expected, atol=1e-6)


def test_same_x_of_other_labels_are_two_rows(two_classes):
    X, y = two_classes
    both = np.concatenate([X, X]), np.concatenate([y, 1 - y])
    model = MultiLayerNTKClassifier(NETWORK, C=1.0, kernel_weights="uniform").fit(*both)
    assert_allclose(model.decision_function(X), 0, atol=1e-8)
    # each leaves the other behind
    assert (model.loo_scores_[:, 0] * (2 * both[1] - 1) < 0).all()


# -- shrinkage ---------------------------------------------------------------------------------


def problem_of(rng, n=120, n_decisions=1, strata=None, **options):
    X = rng.standard_normal((n, 3))
    Y = np.column_stack([np.sin(X[:, 0] * (c + 1)) for c in range(n_decisions)])
    Y += 0.3 * rng.standard_normal(Y.shape)
    planes = np.moveaxis(rbf_stack(X, X), -1, 0)[None]
    grams = StoredGrams(planes, ["a", "b", "c"])
    return Problem(grams, Y, np.ones(n), LearnerOptions(**options), strata=strata)


def test_shrinkage_is_the_largest_share_within_two_standard_errors(rng):
    problem = normalise(problem_of(rng, n_decisions=4)).problem
    weights = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0]])
    uniform = np.full((4, 3), 1 / 3)
    found = auto_shrinkage(problem, weights, uniform)
    C = problem.loo_C((weights + uniform) / 2)
    expected = []
    for c in range(4):
        errors = {}
        for share in (0.0, 0.5, 1.0):
            w = (1 - share) * weights[c] + share * uniform[c]
            K = np.tensordot(w / problem.grams.scales[0], problem.grams.planes[0], 1)
            loo = reference.leave_one_out(K, problem.Y[:, c], np.ones(120), C)
            errors[share] = (problem.Y[:, c] - loo) ** 2
        best = min(errors.values(), key=np.mean)
        within = [
            share
            for share, error in errors.items()
            if np.mean(error - best) <= 2 * np.std(error - best) / np.sqrt(120)
        ]
        expected.append(max(within))
    assert_array_equal(found, expected)
    assert len(set(expected)) > 1


def test_two_standard_errors_decide(rng, monkeypatch):
    """A rule of none leaves uniform weights where two standard errors keep them."""
    problem = normalise(problem_of(rng)).problem
    weights, uniform = np.array([[0.2, 0.5, 0.3]]), np.full((1, 3), 1 / 3)
    monkeypatch.setattr(_alignment, "_STANDARD_ERRORS", 2.0)
    assert auto_shrinkage(problem, weights, uniform)[0] == 1
    monkeypatch.setattr(_alignment, "_STANDARD_ERRORS", 0.0)
    assert auto_shrinkage(problem, weights, uniform)[0] < 1


def test_targets_fitted_jointly_or_alone_are_the_same():
    X, y = load_diabetes(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    Y = np.column_stack([y, X[:, 2] ** 2, np.sin(3 * X[:, 8]), X[:, 0] * X[:, 3]])
    Y = (Y - Y.mean(axis=0)) / Y.std(axis=0)
    stack = np.stack([rbf_kernel(X, gamma=g) for g in (0.001, 0.1)] + [polynomial_kernel(X)], -1)
    model = MultipleKernelRegressor(C=10.0)
    joint = model.fit(stack, Y)
    prediction, weights = joint.predict(stack), joint.kernel_weights_
    assert len({tuple(row.round(3)) for row in weights}) > 1
    for target in range(4):
        alone = model.fit(stack, Y[:, target])
        assert_allclose(alone.kernel_weights_[0], weights[target], atol=1e-9)
        assert_allclose(alone.predict(stack), prediction[:, target], rtol=1e-6, atol=1e-8)


# -- samples of the rows -----------------------------------------------------------------------


def test_a_sample_of_the_rows_does_not_depend_on_their_order(rng):
    X = rng.standard_normal((100, 3))
    y = (X[:, 0] + rng.standard_normal(100) > 0).astype(int)
    samples = []
    for _ in range(3):
        order = rng.permutation(100)
        rows = distinct_rows(array_keys(X[order]), y[order][:, None])
        planes = rbf_kernel(X[order])[None, None]
        problem = Problem(
            StoredGrams(planes, ["a"]),
            2.0 * y[order][:, None] - 1,
            np.ones(100),
            strata=y[order],
            order=rows.order,
            seed=3,
        )
        sample = problem.sample(40)
        samples.append(sorted(sample.grams.planes.sum(axis=-1).ravel().round(9)))
    assert samples[0] == samples[1] == samples[2]
    problem.seed = 4
    other = problem.sample(40).grams.planes.sum(axis=-1).ravel().round(9)
    assert sorted(other) != samples[2]


def test_a_sample_holds_ten_rows_of_each_class_or_none(rng):
    strata = np.r_[np.zeros(900, int), np.ones(80, int), np.full(15, 2), np.full(5, 3)]
    problem = problem_of(rng, n=1000, strata=strata)
    sample = problem.sample(100)
    counts = np.bincount(sample.strata)
    assert len(sample.Y) <= 100
    assert (counts >= [10, 10, 10, 5]).all()
    # over-represented classes count less: the weight of each class is its share
    shares = np.bincount(sample.strata, weights=sample.s) / sample.s.sum()
    assert_allclose(shares, [0.9, 0.08, 0.015, 0.005], rtol=1e-12)
    assert_allclose(sample.s.mean(), 1, rtol=1e-12)
    assert problem.sample(34) is None
    assert problem.sample(1000) is problem


def test_too_few_rows_for_so_many_classes_keep_uniform_weights(rng, monkeypatch):
    monkeypatch.setattr(_alignment, "_ALL_ROWS", 50)
    X, y = make_classification(
        150, 6, n_informative=6, n_redundant=0, n_classes=8, n_clusters_per_class=1, random_state=0
    )
    X[:, :5] *= 1e-3
    model = MultipleKernelClassifier().fit(rbf_stack(X, X), y)
    assert_allclose(model.kernel_weights_, 1 / 3)


def test_row_order_changes_nothing_when_rows_are_sampled(monkeypatch, rng):
    monkeypatch.setattr(_alignment, "_ALL_ROWS", 60)
    X, y = make_classification(200, 5, random_state=1)
    model = MultiLayerNTKClassifier(NETWORK, random_state=0)
    expected = model.fit(X, y).decision_function(X)
    order = rng.permutation(200)
    assert_allclose(model.fit(X[order], y[order]).decision_function(X), expected, atol=1e-7)


# -- values of C and class weights that cannot be meant ------------------------------------------


@pytest.mark.parametrize("C", [1e14, 1e20, 1e300, 1e308])
@pytest.mark.parametrize("method", ["alignment", "uniform", "margin"])
@pytest.mark.filterwarnings("ignore:kernel weights. the relative duality gap")
def test_C_beyond_float64_warns_and_solves_what_can_be_solved(C, method):
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)[:, :3]
    linear = np.stack([X @ X.T, X[:, :1] @ X[:, :1].T], axis=-1)  # of low rank
    model = MultipleKernelClassifier(C=C, kernel_weights=method, max_iter=5)
    with pytest.warns(LinAlgWarning, match="C=.* is more than float64 can solve for"):
        model.fit(linear, y)
    plain = MultipleKernelClassifier(C=1e5, kernel_weights="uniform").fit(linear, y)
    assert np.isfinite(model.loo_scores_).all()
    assert abs(model.score(linear, y) - plain.score(linear, y)) < 0.03
    assert model.C_ < C


def test_usual_values_of_C_are_not_touched(two_classes):
    X, y = two_classes
    for C in (1e-3, 1.0, 1e5, 1e8):
        assert MultiLayerNTKClassifier(NETWORK, C=C).fit(X, y).C_ == C


@pytest.mark.parametrize("weights", [{0: -1.0, 1: 1.0}, {0: np.nan, 1: 1.0}, {0: np.inf, 1: 1.0}])
def test_class_weights_must_be_finite_and_non_negative(weights, two_classes):
    X, y = two_classes
    with pytest.raises(ValueError, match="class_weight must be finite and non-negative"):
        MultiLayerNTKClassifier(NETWORK, class_weight=weights).fit(X, y)


def test_a_row_between_copies_does_not_part_them(rng):
    K = np.cov(rng.standard_normal((6, 9)))
    K[[1, 2]] = K[0]
    K[:, [1, 2]] = K[:, :1]
    rounding = 64 * np.finfo(float).eps * K.diagonal().max()
    for _ in range(50):
        planes = K.copy()
        planes[1, 5] += 1.5 * rounding  # another row, in any place of the order of projections
        planes[2, 3:] += rounding * np.array([*rng.uniform(-0.9, 0.9, 2), -0.8])
        planes[:, [1, 2]] = planes[[1, 2]].T
        first, other, copy = kernel_keys(planes[None], np.arange(6))[:3]
        assert first == copy != other
