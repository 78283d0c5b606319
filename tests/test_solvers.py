import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.svm import SVC

from sklearn_nftk.solvers import C_GRID, anchored_loo_scores, hinge, ridge, ridge_path

from . import reference


@pytest.fixture
def problem(rng):
    features = rng.standard_normal((25, 6))
    K = features @ features.T + 0.3 * np.eye(25)
    y = np.where(features[:, 0] + 0.5 * rng.standard_normal(25) > 0, 1.0, -1.0)
    sample_weight = rng.choice([0.3, 0.9, 1.0, 1.7, 3.0], 25)
    s = sample_weight * np.where(y > 0, 2.0, 0.5)  # as class weights do
    return K, y, s


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e4])
def test_ridge_solves_the_bordered_system(problem, C):
    K, y, s = problem
    solution = ridge(K.copy(), y[:, None], s, C)
    a, b = reference.ridge(K, y, s, C)
    assert_allclose(solution.dual_coef[:, 0], a, rtol=1e-8, atol=1e-12)
    assert_allclose(solution.intercept[0], b, rtol=1e-8)
    assert_allclose(solution.dual_coef.sum(), 0, atol=1e-8 * np.abs(a).sum())


@pytest.mark.parametrize("C", [1e-2, 1.0, 100.0])
def test_leave_one_out_equals_refits(problem, C):
    K, y, s = problem
    Y = np.column_stack([y, np.roll(y, 3)])
    solution = ridge(K.copy(), Y, s, C)
    for column in range(2):
        refits = reference.leave_one_out(K, Y[:, column], s, C)
        assert_allclose(solution.loo_scores[:, column], refits, rtol=1e-8, atol=1e-8)


def test_indefinite_kernel_is_solved_as_its_positive_part(problem):
    K, y, s = problem
    values, vectors = np.linalg.eigh(K)
    values[0] = -0.5
    q = np.sqrt(s)
    damaged = (vectors * values) @ vectors.T / np.outer(q, q)
    repaired = (vectors * values.clip(0)) @ vectors.T / np.outer(q, q)
    solution = ridge(damaged.copy(), y[:, None], s, 10.0)
    expected = ridge(repaired.copy(), y[:, None], s, 10.0)
    assert_allclose(solution.dual_coef, expected.dual_coef, rtol=1e-7, atol=1e-9)
    assert_allclose(solution.loo_scores, expected.loo_scores, rtol=1e-7)


def test_leave_one_out_scores_of_a_path_equal_refits(problem):
    K, y, s = problem
    path = ridge_path(K.copy(), np.column_stack([y, -y]), s)
    for C, solution in zip(C_GRID, path, strict=True):
        expected = reference.leave_one_out(K, y, s, C)
        assert_allclose(solution.loo_scores[:, 0], expected, rtol=1e-6, atol=1e-9)
        assert_allclose(solution.loo_scores[:, 1], -expected, rtol=1e-6, atol=1e-9)


def test_grid_of_C():
    assert_allclose(np.log10(C_GRID), np.linspace(-3, 5, 17))


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_hinge_solves_the_dual(problem, C):
    K, y, s = problem
    a, b = hinge(K, y, s, C)
    alpha = a * y
    assert_allclose(a.sum(), 0, atol=1e-10 * C)
    assert alpha.min() >= 0
    assert (alpha <= C * s * (1 + 1e-12)).all()
    f = K @ a + b
    primal = 0.5 * a @ K @ a + C * s @ np.maximum(0, 1 - y * f)
    dual = alpha.sum() - 0.5 * a @ K @ a
    assert dual <= primal + 1e-9
    # libsvm stops at a margin violation of 1e-8 per sample, which costs C s_i each
    assert primal - dual <= 1e-7 * C * s.sum()
    reference_svc = SVC(C=C, kernel="precomputed", tol=1e-3).fit(K, y, sample_weight=s)
    assert_allclose(f, reference_svc.decision_function(K), atol=1e-2)


def test_anchored_scores_know_no_class_where_there_is_no_kernel(problem):
    _, y, s = problem
    solution = ridge(1e-9 * np.eye(25), y[:, None], s, 1.0)
    anchored = anchored_loo_scores(solution, y[:, None], s, 1.0)[:, 0]
    assert_allclose(anchored, np.average(y, weights=s), rtol=1e-6)
    # while plain ones lean away from each sample
    assert (np.sign(solution.loo_scores[:, 0] - anchored) == -y).all()


def test_anchored_scores_approach_plain_ones_as_samples_count_less(problem):
    K, y, s = problem
    K = K + 40 * np.eye(25)  # no sample tells of another
    solution = ridge(K.copy(), y[:, None], s, 1.0)
    e = y - solution.loo_scores[:, 0]
    r = solution.dual_coef[:, 0] / (2 * s)
    expected = y - r / (r / e + s / s.sum())
    assert_allclose(anchored_loo_scores(solution, y[:, None], s, 1.0)[:, 0], expected, rtol=1e-9)
