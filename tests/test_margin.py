import cvxpy as cp
import numpy as np
import pytest
from cvxpy.reductions.chain import Chain
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning

from sklearn_nftk.solvers import HingeOracle, RidgeOracle, hinge
from sklearn_nftk.weights import CuttingPlane, LpMarginProblem, MarginProblem

from . import reference

LOSSES = ["squared", "hinge"]


class Kernels:
    """A stack in memory, seen through what the oracles may ask for."""

    def __init__(self, stack):
        self.stack = np.asarray(stack)

    def combined(self, weights):
        return np.tensordot(weights, self.stack, 1)

    def quadratics(self, A):
        return np.einsum("nk,lnm,mk->lk", A, self.stack, A)


def random_features(seed, n_layers, n=30, n_targets=1, rank=4):
    """Features of kernels that know more or less of the first target; unequal weights."""
    rng = np.random.default_rng(seed)
    Y = np.where(rng.standard_normal((n, n_targets)) > 0, 1.0, -1.0)
    Y[:2] = [[1.0], [-1.0]]
    shift = rng.uniform(0, 1, n_layers)
    features = [rng.standard_normal((n, rank)) + shift_l * Y[:, :1] for shift_l in shift]
    return features, Y, rng.uniform(0.2, 3.0, n)


def grams(features):
    return np.array([F @ F.T for F in features])


def oracle_of(stack, Y, s, C, loss, tol=1e-3):
    if loss == "hinge":
        return HingeOracle(Kernels(stack), Y, s, C, precision=tol / 10)
    return RidgeOracle(Kernels(stack), Y, s, C)


def solve(stack, Y, s, C, loss, tol=1e-3, p=1, max_iter=100, **options):
    n_layers = len(stack)
    problem = MarginProblem(n_layers) if p == 1 else LpMarginProblem(n_layers, p)
    return problem.solve(oracle_of(stack, Y, s, C, loss, tol), tol, max_iter, **options)


def objective(stack, weights, Y, s, C, loss, p=1):
    """J on the set the problem is stated on: ``||w||_p = L^(1/p - 1)``."""
    radius = len(stack) ** (1 / p - 1)
    weights = weights * radius / np.linalg.norm(weights, p)
    return reference.machine_objective(np.tensordot(weights, stack, 1), Y, s, C, loss)


def planted(seed, labels, n=120):
    """Gaussian kernels of three blocks A, B, C of features, scaled by variance, and labels."""
    rng = np.random.default_rng(seed)
    blocks = rng.standard_normal((3, n, 3))
    distances = ((blocks[:, :, None] - blocks[:, None]) ** 2).sum(axis=-1)
    stack = np.exp(-distances / 6)
    stack /= (1 - stack.mean(axis=(1, 2)))[:, None, None]
    return stack, np.sign(labels(*blocks))[:, None], np.ones(n)


# -- the optimum ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("n_layers", "step"), [(2, 0.01), (3, 0.05)])
@pytest.mark.parametrize("C", [0.1, 10.0])
def test_no_point_of_the_simplex_is_better(loss, n_layers, step, C):
    features, Y, s = random_features(n_layers, n_layers, n=24)
    stack = grams(features)
    found = objective(stack, solve(stack, Y, s, C, loss).weights, Y, s, C, loss)
    grid = reference.simplex_grid(n_layers, step)
    values = [objective(stack, w, Y, s, C, loss) for w in grid]
    assert found <= min(values) * (1 + 1e-3)
    assert found >= min(values) * (1 - 0.1)  # the grid is not that coarse


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("p", [1, 1.1, 1.5, 2, 4])
@pytest.mark.parametrize("C", [0.05, 5.0])
@pytest.mark.filterwarnings("ignore:pnorm")
def test_objective_equals_the_primal_problem_in_features(loss, p, C):
    features, Y, s = random_features(7, 4, n=40)
    stack = grams(features)
    optimum = reference.mkl_problem(features, Y, s, C, loss, p)
    solution = solve(stack, Y, s, C, loss, p=p, tol=1e-5)
    found = objective(stack, solution.weights, Y, s, C, loss, p)
    assert_allclose(found, optimum, rtol=2e-5)
    assert_allclose(solution.weights.sum(), 1, rtol=1e-12)
    assert solution.dual_gap <= 1e-5


@pytest.mark.parametrize("loss", LOSSES)
def test_decisions_that_share_their_weights_share_their_norms(loss):
    features, Y, s = random_features(3, 3, n_targets=3)
    stack = grams(features)
    optimum = reference.mkl_problem(features, Y, s, 1.0, loss, 1)
    solution = solve(stack, Y, s, 1.0, loss, tol=1e-5)
    assert_allclose(objective(stack, solution.weights, Y, s, 1.0, loss), optimum, rtol=2e-5)


def test_real_targets():
    features, _, s = random_features(4, 3)
    rng = np.random.default_rng(4)
    Y = 5 + features[0] @ rng.standard_normal((4, 2)) + rng.standard_normal((30, 2))
    stack = grams(features)
    optimum = reference.mkl_problem(features, Y, s, 2.0, "squared", 1)
    solution = solve(stack, Y, s, 2.0, "squared", tol=1e-5)
    assert_allclose(objective(stack, solution.weights, Y, s, 2.0, "squared"), optimum, rtol=2e-5)
    assert solution.weights.argmax() == 0


def test_hinge_agrees_with_frank_wolfe():
    features, Y, s = random_features(5, 4, n=40)
    stack = grams(features)
    w = reference.frank_wolfe(stack, Y[:, 0], s, 1.0, steps=400)
    solution = solve(stack, Y, s, 1.0, "hinge", tol=1e-4)
    assert_allclose(
        objective(stack, solution.weights, Y, s, 1.0, "hinge"),
        objective(stack, w, Y, s, 1.0, "hinge"),
        rtol=1e-3,
    )


def test_hinge_weights_are_the_multipliers_of_the_dual():
    features, Y, s = random_features(6, 4, n=40)
    multipliers = reference.qcqp_weights(features, Y[:, 0], s, 1.0)
    assert_allclose(multipliers.sum(), 0.5, rtol=1e-5)
    solution = solve(grams(features), Y, s, 1.0, "hinge", tol=1e-6)
    assert_allclose(solution.weights, 2 * multipliers, atol=2e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_layers_of_positive_weight_have_the_largest_norms(loss):
    # the optimality conditions: a'K_l a is the same for all layers in use, smaller for others
    features, Y, s = random_features(10, 5)
    stack = grams(features)
    solution = solve(stack, Y, s, 0.01, loss, tol=1e-6)
    quadratics = oracle_of(stack, Y, s, 0.01, loss, 1e-6)(solution.weights).quadratics
    used = solution.weights > 0.01
    assert 1 < used.sum() < 5
    assert_allclose(quadratics[used], quadratics.max(), rtol=1e-2)
    assert quadratics[~used].max() <= quadratics.max() * (1 + 1e-3)


@pytest.mark.parametrize("p", [1.2, 2, 5])
def test_lp_weights_obey_the_closed_form(p):
    features, Y, s = random_features(9, 4)
    stack = grams(features)
    solution = solve(stack, Y, s, 1.0, "squared", p=p, tol=1e-7)
    w = solution.weights * 4 ** (1 / p - 1) / np.linalg.norm(solution.weights, p)
    norms = w * np.sqrt(oracle_of(stack, Y, s, 1.0, "squared")(w).quadratics)
    expected = norms ** (2 / (p + 1))
    assert_allclose(solution.weights, expected / expected.sum(), atol=2e-3)


def test_lp_goes_from_margin_to_uniform():
    features, Y, s = random_features(10, 4)
    stack = grams(features)
    sparse = solve(stack, Y, s, 1.0, "squared", tol=1e-7).weights
    assert_allclose(
        solve(stack, Y, s, 1.0, "squared", p=1.001, tol=1e-6).weights, sparse, atol=0.02
    )
    assert_allclose(solve(stack, Y, s, 1.0, "squared", p=200, tol=1e-6).weights, 0.25, atol=0.01)
    spread = [solve(stack, Y, s, 1.0, "squared", p=p, tol=1e-6).weights.max() for p in (1.1, 2, 8)]
    assert sparse.max() > spread[0] > spread[1] > spread[2] > 0.25


def test_group_lasso_of_gated_relu_networks_is_multiple_kernel_learning():
    # With K_i = D_i X X' D_i, gates D_i, and no intercept (Dwaraknath, Ergen & Pilanci 2023):
    # min_W 1/2 ||sum_i D_i X w_i - y||^2 + beta sum_i ||w_i||
    #   = min_{eta >= 0} 1/2 y' (I + 1/beta sum_i eta_i K_i)^-1 y + beta/2 sum_i eta_i
    rng = np.random.default_rng(0)
    X, y, beta = rng.standard_normal((20, 3)), rng.standard_normal(20), 0.7
    features = [np.where(X @ g > 0, 1.0, 0.0)[:, None] * X for g in rng.standard_normal((5, 3))]
    W = cp.Variable((3, 5))
    fitted = sum(F @ W[:, i] for i, F in enumerate(features))
    lasso = cp.sum_squares(fitted - y) / 2 + beta * cp.sum(cp.norm(W, axis=0))
    optimum = cp.Problem(cp.Minimize(lasso)).solve(solver=cp.CLARABEL)
    norms = np.linalg.norm(W.value, axis=0)
    stack, ratio = grams(features), norms.sum() / beta

    def value(eta):  # the right-hand side
        return y @ np.linalg.solve(np.eye(20) + np.tensordot(eta, stack, 1) / beta, y) / 2 + (
            beta / 2 * eta.sum()
        )

    assert_allclose(value(norms), optimum, rtol=1e-6)

    def oracle(w):  # 1/2 y'(I + ratio K_w)^-1 y: any convex problem that answers with planes
        a = np.linalg.solve(np.eye(20) + ratio * np.tensordot(w, stack, 1), y)
        return CuttingPlane(
            y @ a - a @ a / 2, ratio * np.einsum("n,lnm,m->l", a, stack, a), y @ a / 2
        )

    solution = MarginProblem(5).solve(oracle, 1e-7, 100)
    assert_allclose(value(norms.sum() * solution.weights), optimum, rtol=1e-6)
    assert_allclose(norms.sum() * solution.weights, norms, atol=2e-3)


# -- certificates ---------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    loss=st.sampled_from(LOSSES),
    p=st.sampled_from([1, 1, 1.5]),
    C=st.sampled_from([0.01, 1.0, 30.0]),
    max_iter=st.integers(0, 6),
)
@pytest.mark.filterwarnings("ignore:kernel weights", "ignore:pnorm")
def test_true_gap_is_at_most_the_reported_one(seed, loss, p, C, max_iter):
    features, Y, s = random_features(seed, 3, n=20)
    stack = grams(features)
    optimum = reference.mkl_problem(features, Y, s, C, loss, p)
    solution = solve(stack, Y, s, C, loss, p=p, tol=1e-9, max_iter=max_iter)
    assert solution.n_iter <= max(1, max_iter)
    found = objective(stack, solution.weights, Y, s, C, loss, p)
    true_gap = (found - optimum) / found
    assert -1e-5 <= true_gap <= solution.dual_gap + 1e-5


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_cuts_are_below_the_objective_everywhere(seed):
    features, Y, s = random_features(seed, 3, n=20)
    stack = grams(features)
    here, there = np.random.default_rng(seed).dirichlet(np.ones(3), 2)
    for loss in LOSSES:
        # a crude solution is as feasible as an exact one
        plane = oracle_of(stack, Y, s, 1.0, loss, tol=1.0)(here)
        values = [objective(stack, w, Y, s, 1.0, loss) for w in (here, there)]
        assert plane.upper >= values[0] * (1 - 1e-9)
        for w, value in zip((here, there), values, strict=True):
            assert plane.linear - plane.quadratics @ w / 2 <= value * (1 + 1e-9)


def test_an_inexact_machine_is_not_taken_for_an_exact_one():
    features, Y, s = random_features(11, 3)
    stack = grams(features)
    exact = oracle_of(stack, Y, s, 1.0, "squared")

    def crude(w):  # half of the best a is feasible, too
        plane = exact(w)
        norm = w @ plane.quadratics / 2
        loss = plane.upper - norm
        return CuttingPlane(
            (plane.linear + loss) / 2 - loss / 4, plane.quadratics / 4, plane.upper
        )

    with pytest.warns(ConvergenceWarning, match="relative duality gap"):
        solution = MarginProblem(3).solve(crude, 1e-3, 100)
    assert solution.dual_gap > 0.2
    assert solution.n_iter < 100  # and it is not asked in vain


def test_running_out_of_iterations_says_so():
    features, Y, s = random_features(12, 6)
    with pytest.warns(ConvergenceWarning, match=r"gap is .* after 2 iterations, not 1\.0e-06"):
        solution = solve(grams(features), Y, s, 10.0, "squared", tol=1e-6, max_iter=2)
    assert solution.n_iter == 2
    assert solution.dual_gap > 1e-6
    start = np.array([3.0, 2.0, 1.0, 1.0, 1.0, 0.0])
    with pytest.warns(ConvergenceWarning):
        solution = solve(grams(features), Y, s, 10.0, "squared", max_iter=0, start=start)
    assert_allclose(solution.weights, start / 8)


@pytest.mark.parametrize("which", ["_master", "_projection"])
def test_a_failing_solver_costs_iterations_and_no_honesty(which, monkeypatch):
    features, Y, s = random_features(13, 3)
    stack = grams(features)
    problem = MarginProblem(3)
    real, calls = getattr(problem, which).solve, []

    def unreliable(**options):
        calls.append(1)
        if len(calls) % 2:
            raise cp.SolverError
        return real(**options)

    monkeypatch.setattr(getattr(problem, which), "solve", unreliable)
    solution = problem.solve(oracle_of(stack, Y, s, 1.0, "squared"), 1e-3, 100)
    assert solution.dual_gap <= 1e-3
    optimum = reference.mkl_problem(features, Y, s, 1.0, "squared", 1)
    assert objective(stack, solution.weights, Y, s, 1.0, "squared") <= optimum * (1 + 1.1e-3)


def test_few_cuts_are_enough():
    features, Y, s = random_features(14, 6)
    oracle = oracle_of(grams(features), Y, s, 10.0, "squared")
    solution = MarginProblem(6, max_planes=8).solve(oracle, 1e-4, 100)
    assert solution.n_iter > 8
    assert solution.dual_gap <= 1e-4


@pytest.mark.parametrize("problem", [MarginProblem(4), LpMarginProblem(4, 1.5)])
def test_programmes_are_compiled_once(problem, monkeypatch):
    compiled = []
    apply = Chain.apply

    def counted(self, programme, *args):
        compiled.append(programme)
        return apply(self, programme, *args)

    monkeypatch.setattr(Chain, "apply", counted)
    for seed in range(2):
        features, Y, s = random_features(seed, 4)
        solution = problem.solve(oracle_of(grams(features), Y, s, 1.0, "squared"), 1e-5, 100)
        assert solution.n_iter > 2
    assert compiled == [problem._master, problem._projection]
    assert all(programme.is_dpp() for programme in compiled)


# -- facts with a known answer --------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("p", [1, 2])
def test_equal_kernels_leave_nothing_to_choose(loss, p):
    features, Y, s = random_features(15, 1)
    solution = solve(grams(features * 3), Y, s, 1.0, loss, p=p)
    assert solution.n_iter == 1
    assert_allclose(solution.weights, 1 / 3)


def test_orthogonal_kernels_share_by_the_size_of_their_targets():
    # Kernels c times the projections onto orthogonal directions u_l without mean, and s = 1:
    # J(w) = 1/2 sum_l (u_l'y)^2 / (c w_l + 1/(2C)), minimal at c w_l + 1/(2C) ~ |u_l'y|.
    basis, _ = np.linalg.qr(np.column_stack([np.ones(12), np.eye(12)[:, :3]]))
    U, C, c = basis[:, 1:], 2.0, 10.0
    sizes = np.array([1.0, 2.0, 4.0])
    y = U @ sizes + 3.0
    stack = c * np.einsum("il,jl->lij", U, U)
    expected = (sizes / sizes.sum() * (c + 3 / (2 * C)) - 1 / (2 * C)) / c
    solution = solve(stack, y[:, None], np.ones(12), C, "squared", tol=1e-8)
    assert_allclose(solution.weights, expected, atol=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_permuted_layers_permute_the_weights(loss):
    features, Y, s = random_features(16, 4)
    stack, order = grams(features), [2, 0, 3, 1]
    plain = solve(stack, Y, s, 1.0, loss, tol=1e-6).weights
    assert np.ptp(plain) > 0.1
    permuted = solve(stack[order], Y, s, 1.0, loss, tol=1e-6).weights
    assert_allclose(permuted, plain[order], atol=3e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_renamed_classes_change_nothing(loss):
    features, Y, s = random_features(17, 3)
    stack = grams(features)
    plain = solve(stack, Y, s, 1.0, loss, tol=1e-6).weights
    assert_allclose(solve(stack, -Y, s, 1.0, loss, tol=1e-6).weights, plain, atol=3e-3)


def test_a_layer_given_twice_changes_no_decision():
    features, Y, s = random_features(18, 3)
    stack = grams(features)

    def decisions(stack, loss):
        K = np.tensordot(solve(stack, Y, s, 1.0, loss, tol=1e-7).weights, stack, 1)
        a, b = (
            reference.ridge(K, Y[:, 0], s, 1.0) if loss == "squared" else hinge(K, Y[:, 0], s, 1)
        )
        return K @ a + b

    for loss in LOSSES:
        plain, doubled = decisions(stack, loss), decisions(stack[[0, 1, 1, 2]], loss)
        assert_allclose(doubled, plain, atol=5e-3 * np.abs(plain).max())


@pytest.mark.parametrize("loss", LOSSES)
def test_sample_weights_are_repetitions(loss):
    features, Y, _ = random_features(19, 3, n=20)
    stack = grams(features)
    counts = np.random.default_rng(19).integers(1, 4, 20)
    rows = np.repeat(np.arange(20), counts)
    weighted = solve(stack, Y, counts.astype(float), 0.5, loss, tol=1e-6).weights
    repeated = stack[:, rows][:, :, rows]
    unweighted = solve(repeated, Y[rows], np.ones(len(rows)), 0.5, loss, tol=1e-6).weights
    assert_allclose(weighted, unweighted, atol=3e-3)


def test_the_layer_that_holds_the_signal_is_found():
    seeds = range(5)
    product = [
        solve(*planted(seed, lambda A, B, C: A[:, 0] * A[:, 1]), 1.0, "hinge").weights
        for seed in seeds
    ]
    first = [w.argmax() == 0 and w[0] > 0.5 for w in product]
    assert sum(first) >= 4
    both = [
        solve(*planted(seed, lambda A, B, C: A[:, 0] + np.sin(2 * B[:, 0])), 1.0, "hinge").weights
        for seed in seeds
    ]
    assert sum(w.argmin() == 2 and w[2] < 0.25 for w in both) >= 4


# -- hard cases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e5])
@pytest.mark.parametrize(
    "case", ["plain", "many", "near duplicates", "a zero", "low rank", "tiny"]
)
@pytest.mark.parametrize("p", [1, 1.1])
def test_hard_problems_reach_the_gap(C, case, p):
    n_layers = 20 if case == "many" else 4
    n, rank = (6 if case == "tiny" else 40), (1 if case == "low rank" else 4)
    features, Y, s = random_features(20, n_layers, n=n, rank=rank)
    stack = grams(features)
    if case == "near duplicates":
        stack = stack[:1] + 1e-6 * stack
    if case == "a zero":
        stack[1] = 0
    problem = MarginProblem(n_layers) if p == 1 else LpMarginProblem(n_layers, p)
    for loss in LOSSES:
        if loss == "hinge" and C > 1 and case in ("near duplicates", "low rank", "a zero"):
            continue  # classes overlap: libsvm itself needs time proportional to C
        solution = problem.solve(oracle_of(stack, Y, s, C, loss), 1e-3, 100)
        assert solution.dual_gap <= 1e-3
        assert solution.n_iter <= 60
        assert (solution.weights >= 0).all()
        assert_allclose(solution.weights.sum(), 1, rtol=1e-12)


def test_where_libsvm_gives_up_the_gap_says_so(monkeypatch):
    monkeypatch.setattr("sklearn_nftk.solvers._oracles._MAX_STEPS", 1000)
    features, Y, s = random_features(21, 2, n=60, rank=1)
    with pytest.warns(ConvergenceWarning, match="decrease C"):
        solution = solve(grams(features), Y, s, 1e5, "hinge")
    optimum = reference.mkl_problem(features, Y, s, 1e5, "hinge", 1)
    assert optimum > 1e5  # overlapping classes
    assert 1e-3 < solution.dual_gap <= 1


def test_large_C_is_certified_where_classes_are_separable():
    # each violation of a margin by libsvm's tolerance would cost C times that
    features, Y, s = random_features(22, 3, n=20, rank=20)
    solution = solve(grams(features), Y, s, 1e5, "hinge")
    assert solution.dual_gap <= 1e-3


@pytest.mark.filterwarnings("ignore:kernel weights")
@pytest.mark.parametrize("loss", LOSSES)
def test_kernels_that_rounding_made_indefinite(loss):
    features, Y, s = random_features(23, 3)
    stack = grams(features)
    noise = np.random.default_rng(0).standard_normal(stack.shape) * 1e-5
    noise += noise.transpose(0, 2, 1)
    exact, damaged = (solve(K, Y, s, 30.0, loss).weights for K in (stack, stack + noise))
    assert_allclose(damaged, exact, atol=0.02)
    # beyond the ridge the problem has no solution: an answer, and an honest gap
    assert np.linalg.eigvalsh((stack + noise).mean(axis=0))[0] < -1e-5
    solution = solve(stack + noise, Y, s, 1e5 if loss == "squared" else 100.0, loss)
    assert np.isfinite(solution.weights).all()
    assert 0 <= solution.dual_gap <= 1


def test_negative_quadratic_forms_are_rounding_and_raise_no_bound():
    with pytest.warns(ConvergenceWarning):
        solution = MarginProblem(2).solve(lambda w: CuttingPlane(1.0, -np.ones(2), 1.25), 1e-3, 5)
    assert_allclose(solution.dual_gap, 0.2)


def test_one_layer_needs_no_search():
    def oracle(w):
        raise AssertionError

    solution = MarginProblem(1).solve(oracle, 1e-3, 100)
    assert solution.weights.tolist() == [1.0]
    assert (solution.dual_gap, solution.n_iter) == (0, 0)


def test_targets_that_are_all_zero():
    features, Y, s = random_features(25, 3)
    solution = solve(grams(features), 0 * Y, s, 1.0, "squared")
    assert_allclose(solution.weights, 1 / 3)
    assert solution.dual_gap == 0
