import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning

from sklearn_nftk.grams import StatisticsAccumulator, StoredGrams, cosine_normalise, layer_scales
from sklearn_nftk.weights import AlignmentProblem, fixed_weights, learned_weights

from . import reference


def random_problem(rng, n_layers, n=24, n_targets=1, weighted=True):
    """Kernels of random features, some informative; targets; weights."""
    Y = np.where(rng.standard_normal((n, n_targets)) > 0, 1.0, -1.0)
    Y[:2] = [[1.0], [-1.0]]
    stack = []
    for _ in range(n_layers):
        features = rng.standard_normal((n, 4)) + rng.uniform(0, 1) * Y[:, :1]
        stack.append(features @ features.T)
    s = rng.uniform(0.2, 3.0, n) if weighted else np.ones(n)
    return np.array(stack), Y, s


def stack_statistics(stack, p, Y):
    return StoredGrams(stack).statistics(p, Y)[0]


def weights_of(stack, Y, s, **parameters):
    statistics = stack_statistics(stack, s / s.sum(), Y)
    alive = np.ones((Y.shape[1], len(stack)), dtype=bool)
    return learned_weights([statistics], alive, **parameters)


@pytest.mark.parametrize("tile", [5, 24])
def test_statistics_equal_the_definitions(tile, rng, monkeypatch):
    monkeypatch.setattr("sklearn_nftk.grams._grams._TILE_ROWS", tile)
    stack, Y, s = random_problem(rng, 3, n_targets=2)
    p = s / s.sum()
    statistics = stack_statistics(stack, p, Y)
    for c in range(2):
        M, a = reference.alignment_terms(stack, Y[:, c], s)
        assert_allclose(statistics.inner_products * s.sum() ** 2, M, rtol=1e-10)
        assert_allclose(statistics.target_products[c] * s.sum() ** 2, a, rtol=1e-10)
        target = np.outer(Y[:, c], Y[:, c])
        centred = reference.centred(target, p)
        norm = np.sqrt(np.sum(np.outer(p, p) * centred**2))
        assert_allclose(statistics.target_norms[c], norm, rtol=1e-10)
    variances = [np.sum(p * K.diagonal()) - p @ K @ p for K in stack]
    assert_allclose(statistics.variances, variances, rtol=1e-10)
    assert_allclose(statistics.row_means, stack @ p, rtol=1e-10)


def test_statistics_keep_their_digits_under_a_large_constant(rng):
    stack, Y, s = random_problem(rng, 2)
    p = s / s.sum()
    plain = stack_statistics(stack, p, Y)
    shifted = stack_statistics(stack + 1e8, p, Y)
    assert_allclose(shifted.inner_products, plain.inner_products, rtol=1e-6)


def test_accumulator_leaves_the_tile_alone(rng):
    stack, Y, s = random_problem(rng, 2)
    before = stack.copy()
    StatisticsAccumulator(s / s.sum(), Y, 2).add(slice(0, 24), slice(0, 24), stack)
    assert_allclose(stack, before, rtol=0)


@pytest.mark.parametrize(("n_layers", "step"), [(2, 1e-4), (3, 5e-4)])
@pytest.mark.parametrize("seed", range(4))
def test_alignment_equals_a_search_over_the_simplex(n_layers, step, seed):
    stack, Y, s = random_problem(np.random.default_rng(seed), n_layers)
    found = reference.best_on_simplex(*reference.alignment_terms(stack, Y[:, 0], s), step)
    assert_allclose(weights_of(stack, Y, s)[0], found, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), n_layers=st.integers(1, 8))
def test_alignment_obeys_the_kkt_conditions(seed, n_layers):
    stack, Y, s = random_problem(np.random.default_rng(seed), n_layers)
    M, a = reference.alignment_terms(stack, Y[:, 0], s)
    w = weights_of(stack, Y, s)[0]
    # v is proportional to w; its size follows from stationarity along w itself
    v = w * (a @ w) / (w @ M @ w)
    norms = np.sqrt(M.diagonal())
    gradient = (M @ v - a) / norms / np.abs(a / norms).max()
    assert (w >= 0).all()
    assert_allclose(w.sum(), 1, rtol=1e-12)
    assert gradient.min() >= -1e-6
    assert np.abs(gradient[w > 0]).max() <= 1e-6


def test_alignment_per_class_false_sums_the_targets(rng):
    stack, Y, s = random_problem(rng, 2, n_targets=3)
    rows = weights_of(stack, Y, s, per_class=False)
    assert_allclose(rows, rows[:1].repeat(3, axis=0), rtol=0)
    terms = [reference.alignment_terms(stack, y, s) for y in Y.T]
    found = reference.best_on_simplex(terms[0][0], sum(a for _, a in terms), 1e-4)
    assert_allclose(rows[0], found, atol=1e-3)


def test_alignment_does_not_depend_on_the_order_of_the_layers(rng):
    stack, Y, s = random_problem(rng, 4)
    order = [2, 0, 3, 1]
    assert_allclose(weights_of(stack[order], Y, s), weights_of(stack, Y, s)[:, order], atol=1e-9)


def test_interchangeable_layers_share_their_weight(rng):
    stack, Y, s = random_problem(rng, 2)
    plain = weights_of(stack, Y, s)[0]
    doubled = weights_of(stack[[0, 1, 1]], Y, s)[0]
    assert_allclose(doubled[1], doubled[2], atol=1e-6)
    # v is unchanged by the copy, and the simplex then renormalises nothing
    assert_allclose([doubled[0], doubled[1] + doubled[2]], plain, atol=1e-6)


def test_kernels_unrelated_to_the_targets_give_uniform_weights():
    stack = np.array([np.eye(4), np.eye(4) * 2])
    Y = np.zeros((4, 1))
    assert_allclose(weights_of(stack, Y, np.ones(4)), [[0.5, 0.5]])


def test_solver_that_is_stopped_early_says_how_far_it_got(rng, monkeypatch):
    stack, Y, s = random_problem(rng, 5)
    M, a = reference.alignment_terms(stack, Y[:, 0], s)
    best = AlignmentProblem(5).solve(M, a)
    problem = AlignmentProblem(5)
    wrong = np.eye(5)[best.argmin()]

    def give_up(stated):
        problem._v.value = wrong
        return True

    monkeypatch.setattr("sklearn_nftk.weights._alignment.solve", give_up)
    with pytest.warns(ConvergenceWarning, match=r"optimality conditions hold to .* only"):
        weights = problem.solve(M, a)
    assert_allclose(weights, wrong)


def test_fixed_weights():
    def rows(weights, n_decisions, alive=(True, True)):
        scales = np.tile([1.0, 3.0], (n_decisions, 1))
        return fixed_weights(weights, scales, np.tile(alive, (n_decisions, 1)))

    assert_allclose(rows("uniform", 2), [[0.5, 0.5]] * 2)
    assert_allclose(rows("sum", 1), [[0.25, 0.75]])
    assert_allclose(rows([2, 6], 1), [[0.25, 0.75]])
    assert_allclose(rows([[1, 0], [1, 1]], 2), [[1, 0], [0.5, 0.5]])
    assert_allclose(rows("uniform", 1, alive=(True, False)), [[1, 0]])
    assert_allclose(rows("uniform", 1, alive=(False, False)), [[0.5, 0.5]])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2, 3], r"must have shape \(2,\), one for each layer, or \(3, 2\)"),
        ([1, -1], "finite and non-negative"),
        ([np.nan, 1], "finite and non-negative"),
        ([0, 0], "at least one positive weight"),
    ],
)
def test_impossible_arrays_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        fixed_weights(weights, np.ones((3, 2)), np.ones((3, 2), dtype=bool))


def test_scales_and_constant_kernels(rng):
    stack, Y, s = random_problem(rng, 3)
    stack[1] = 5.0
    p = s / s.sum()
    statistics = stack_statistics(stack, p, Y)
    with pytest.warns(UserWarning, match=r"zero or constant .*\['b'\]; they get weight 0"):
        scales, alive = layer_scales([statistics], "variance", stack.dtype, ["a", "b", "c"])
    assert alive.tolist() == [[True, False, True]]
    assert scales[0, 1] == 1
    normalised = stack_statistics(stack / scales[0][:, None, None], p, Y)
    assert_allclose(normalised.variances[alive[0]], 1, rtol=1e-10)
    assert learned_weights([statistics.scaled(scales[0])], alive)[0, 1] == 0
    with pytest.warns(UserWarning, match="zero or constant"):
        scales, _ = layer_scales([statistics], "trace", stack.dtype, ["a", "b", "c"])
    assert_allclose((stack[0].diagonal() / scales[0, 0]) @ p, 1, rtol=1e-10)


def test_cosine_gives_unit_diagonals_and_survives_zero_gradients(rng):
    stack, _, _ = random_problem(rng, 2)
    stack[:, 3] = stack[:, :, 3] = 0
    diagonal = np.einsum("lii->li", stack).copy()
    cosine = cosine_normalise(stack.copy(), diagonal, diagonal)
    expected = np.ones((2, 24))
    expected[:, 3] = 0
    assert_allclose(np.einsum("lii->li", cosine), expected, rtol=1e-12)
    assert np.abs(cosine).max() <= 1 + 1e-12


@pytest.mark.parametrize("apart", [True, False])
def test_subset_of_the_kernels(apart, rng, monkeypatch):
    monkeypatch.setattr("sklearn_nftk.grams._grams._TILE_ROWS", 5)
    stack = random_problem(rng, 6)[0]
    grams = StoredGrams(stack.reshape(2, 3, 24, 24) if apart else stack)
    grams.scales = rng.uniform(1, 2, grams.scales.shape)
    rows = np.array([0, 3, 4, 11, 20, 23])
    found = grams.subset(rows)
    assert_allclose(found.stack, grams.stack[:, :, rows][:, :, :, rows], rtol=0)
    weights = rng.uniform(size=(1, found.shape[1]))
    (expected,) = grams.combined(weights, [0])
    (combined,) = found.combined(weights, [0])
    assert_allclose(combined, expected[np.ix_(rows, rows)])


def test_rounding_in_place_of_a_kernel_counts_as_zero(rng):
    stack, Y, s = random_problem(rng, 2)
    features = 1e-15 * rng.standard_normal((24, 3))
    stack = np.concatenate([stack, (features @ features.T)[None]])
    statistics = stack_statistics(stack, s / s.sum(), Y)
    with pytest.warns(UserWarning, match=r"zero or constant .*\['c'\]"):
        _, alive = layer_scales([statistics], "variance", stack.dtype, ["a", "b", "c"])
    assert alive.tolist() == [[True, True, False]]


@pytest.mark.parametrize("apart", [True, False])
def test_quadratic_forms_of_tiles(apart, rng, monkeypatch):
    monkeypatch.setattr("sklearn_nftk.grams._grams._TILE_ROWS", 5)
    stack = random_problem(rng, 6)[0]
    grams = StoredGrams(stack.reshape(2, 3, 24, 24) if apart else stack)
    grams.scales = rng.uniform(1, 2, grams.scales.shape)
    A, families = rng.standard_normal((24, 3)), [0, 1, 0] if apart else [0, 0, 0]
    found = grams.quadratics(A, families)
    for column, family in enumerate(families):
        for layer in range(grams.shape[1]):
            K = grams.stack[family, layer] / grams.scales[family, layer]
            assert_allclose(found[layer, column], A[:, column] @ K @ A[:, column], rtol=1e-10)
