import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from sklearn_nftk.grams import CosineKernels, StatisticsAccumulator, StoredGrams, scale
from sklearn_nftk.kernels import KernelSource
from sklearn_nftk.learner import LearnerOptions, Problem, learn
from sklearn_nftk.weights import AlignmentProblem, weight_method
from sklearn_nftk.weights._alignment import alignment_weights

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


def stored(stack):
    """Grams of a stack (L, n, n) or (H, L, n, n)."""
    planes = stack if stack.ndim == 4 else stack[None]
    return StoredGrams(planes, "abcdef"[: planes.shape[1]])


def stack_statistics(stack, p, Y):
    return stored(stack).statistics(p, Y)[0]


def weights_of(stack, Y, s, **parameters):
    statistics = stack_statistics(stack, s / s.sum(), Y)
    mask = np.ones((Y.shape[1], len(stack)), dtype=bool)
    return alignment_weights([statistics], mask, **parameters)


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

    monkeypatch.setattr("sklearn_nftk.weights._alignment_problem.solve", give_up)
    with pytest.warns(ConvergenceWarning, match=r"optimality conditions hold to .* only"):
        weights = problem.solve(M, a)
    assert_allclose(weights, wrong)


def fixed(weights, n_decisions, mask=(True, True)):
    """Weights that need no statistics, of two layers with the scales 1 and 3."""
    grams = stored(np.ones((2, 2, 2))).scaled(np.array([[1.0, 3.0]]))
    problem = Problem(grams, np.ones((2, n_decisions)), np.ones(2))
    return weight_method(weights).weights(problem, None, np.array([mask])).weights


def test_fixed_weights():
    assert_allclose(fixed("uniform", 2), [[0.5, 0.5]] * 2)
    assert_allclose(fixed("sum", 1), [[0.25, 0.75]])
    assert_allclose(fixed([2, 6], 1), [[0.25, 0.75]])
    assert_allclose(fixed([[1, 0], [1, 1]], 2), [[1, 0], [0.5, 0.5]])
    assert_allclose(fixed("uniform", 1, mask=(True, False)), [[1, 0]])
    assert_allclose(fixed("uniform", 1, mask=(False, False)), [[0.5, 0.5]])


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
        fixed(weights, 3)


def test_scales_and_constant_kernels(rng):
    stack, Y, s = random_problem(rng, 3)
    stack[1] = 5.0
    p = s / s.sum()
    grams = stored(stack)
    statistics = grams.statistics(p, Y)
    with pytest.warns(UserWarning, match=r"zero or constant .*\['b'\]; they get weight 0"):
        scaled, scales, mask = scale(grams, statistics, "variance")
    assert mask.tolist() == [[True, False, True]]
    assert scales[0, 1] == 1
    assert_allclose(scaled.statistics(p, Y)[0].variances[mask[0]], 1, rtol=1e-10)
    assert alignment_weights([statistics[0].scaled(scales[0])], mask)[0, 1] == 0
    with pytest.warns(UserWarning, match="zero or constant"):
        scales = scale(grams, statistics, "trace")[1]
    assert_allclose((stack[0].diagonal() / scales[0, 0]) @ p, 1, rtol=1e-10)


def test_kernels_are_scaled_again_and_again_with_the_same_result(rng):
    stack, Y, s = random_problem(rng, 2)
    grams, p = stored(stack), s / s.sum()
    results = [scale(grams, grams.statistics(p, Y), "variance")[1] for _ in range(2)]
    assert_allclose(results[0], results[1], rtol=0)
    assert_allclose(grams.scales, 1, rtol=0)


class Stack(KernelSource):
    """Kernels of rows that are given by their numbers."""

    def __init__(self, stack):
        self.stack = stack
        self.layer_names = [f"kernel{layer}" for layer in range(len(stack))]

    def prepare(self, X):
        return np.asarray(X)

    def block(self, batch, other=None):
        other = batch if other is None else other
        return self.stack[None][:, :, batch[:, None], other]

    def diag(self, batch):
        return self.stack[None][:, :, batch, batch]


def test_cosine_gives_unit_diagonals_and_survives_zero_gradients(rng):
    stack, _, _ = random_problem(rng, 2)
    stack[:, 3] = stack[:, :, 3] = 0
    cosine = CosineKernels(Stack(stack))
    batch = cosine.prepare(np.arange(24))
    kernels = cosine.gram(batch)[0]
    expected = np.ones((2, 24))
    expected[:, 3] = 0
    assert_allclose(np.einsum("lii->li", kernels), expected, rtol=1e-12)
    assert_allclose(cosine.diag(batch)[0], expected, rtol=0)
    assert np.abs(kernels).max() <= 1 + 1e-12
    norms = np.sqrt(np.einsum("lii->li", stack))
    norms[:, 3] = 1
    assert_allclose(kernels, stack / norms[:, :, None] / norms[:, None, :], rtol=1e-12)
    assert_allclose(cosine.block(batch[:5], batch[5:])[0], kernels[:, :5, 5:], rtol=1e-12)


@pytest.mark.parametrize("per_output", [True, False])
def test_subset_of_the_kernels(per_output, rng, monkeypatch):
    monkeypatch.setattr("sklearn_nftk.grams._grams._TILE_ROWS", 5)
    stack = random_problem(rng, 6)[0]
    grams = stored(stack.reshape(2, 3, 24, 24) if per_output else stack)
    grams = grams.scaled(rng.uniform(1, 2, grams.scales.shape))
    rows = np.array([0, 3, 4, 11, 20, 23])
    found = grams.subset(rows)
    assert_allclose(found.planes, grams.planes[:, :, rows][:, :, :, rows], rtol=0)
    weights = rng.uniform(size=(1, found.shape[1]))
    (expected,) = grams.combined(weights, [0])
    (combined,) = found.combined(weights, [0])
    assert_allclose(combined, expected[np.ix_(rows, rows)])


def test_rounding_in_place_of_a_kernel_counts_as_zero(rng):
    stack, Y, s = random_problem(rng, 2)
    features = 1e-15 * rng.standard_normal((24, 3))
    stack = np.concatenate([stack, (features @ features.T)[None]])
    grams = stored(stack)
    with pytest.warns(UserWarning, match=r"zero or constant .*\['c'\]"):
        mask = scale(grams, grams.statistics(s / s.sum(), Y), "variance")[2]
    assert mask.tolist() == [[True, True, False]]


@pytest.mark.parametrize("per_output", [True, False])
@pytest.mark.parametrize("loss", ["squared", "hinge"])
@pytest.mark.parametrize("kernel_weights", ["alignment", "margin"])
def test_grams_are_never_changed(kernel_weights, loss, per_output, rng):
    """By scales, by what is learned on them, or by those who overwrite what they combine to."""
    stack, Y, s = random_problem(rng, 6, n_targets=2)
    grams = stored(stack.reshape(2, 3, 24, 24) if per_output else stack)
    scales = rng.uniform(1, 2, grams.scales.shape)
    scaled = grams.scaled(scales)
    planes = grams.planes.copy()
    for combination in scaled.combined(np.eye(grams.shape[1])[:2], [0, 0]):
        combination[:] = np.nan
    options = LearnerOptions(loss=loss, kernel_weights=kernel_weights, C=1.0)
    learn(Problem(scaled, Y, s, options))
    for of_grams, expected in ((grams, 1.0), (scaled, scales)):
        assert np.shares_memory(of_grams.planes, grams.planes)
        assert_array_equal(of_grams.planes, planes)
        assert_array_equal(of_grams.scales, np.broadcast_to(expected, scales.shape))


@pytest.mark.parametrize("per_output", [True, False])
def test_quadratic_forms_of_tiles(per_output, rng, monkeypatch):
    monkeypatch.setattr("sklearn_nftk.grams._grams._TILE_ROWS", 5)
    stack = random_problem(rng, 6)[0]
    grams = stored(stack.reshape(2, 3, 24, 24) if per_output else stack)
    grams = grams.scaled(rng.uniform(1, 2, grams.scales.shape))
    A, kernels = rng.standard_normal((24, 3)), [0, 1, 0] if per_output else [0, 0, 0]
    found = grams.quadratics(A, kernels)
    for column, kernel in enumerate(kernels):
        for layer in range(grams.shape[1]):
            K = grams.planes[kernel, layer] / grams.scales[kernel, layer]
            assert_allclose(found[layer, column], A[:, column] @ K @ A[:, column], rtol=1e-10)
