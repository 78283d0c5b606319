import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags

from sklearn_nftk import MultiLayerNTKClassifier, MultiLayerNTKRegressor
from sklearn_nftk.inspection import LayerWeightsDisplay, layer_contributions
from sklearn_nftk.kernels import layer_kernel_diag, layer_kernels, layer_names
from sklearn_nftk.networks import InfiniteMLP, InfiniteRNN

from . import reference

POOLINGS = ["last", "mean-tied", "mean-untied"]
STATES = ["shared", "independent", "zero"]


def univariate(*sequences):
    return [np.array(s, dtype=float)[:, None] for s in sequences]


def ragged(rng, n_channels=3, n=6, longest=7):
    return [rng.standard_normal((rng.integers(1, longest + 1), n_channels)) for _ in range(n)]


@pytest.fixture
def sequences(rng):
    """Three sequences of three channels, of lengths 4, 6, 4."""
    return [rng.standard_normal((length, 3)) for length in (4, 6, 4)]


@pytest.fixture
def classes(rng):
    """Ragged univariate sequences whose ends go up or down."""
    y = np.arange(40) % 2
    X = []
    for label in y:
        x = 0.3 * rng.standard_normal((rng.integers(4, 9), 1))
        x[-3:, 0] += (2 * label - 1) * np.arange(1, 4)
        X.append(x)
    return X, y


# -- values --------------------------------------------------------------------------------------

GOLDEN = univariate([1, 0.5], [-1, 2, 0.3], [0.2, -0.7])


@pytest.mark.parametrize(
    ("depth", "groups", "expected"),
    [
        (1, "param", [0.8189797127, 0.6173775511, 0.0264970427, 1.2296448446]),
        (1, "time", [0.8916392644, 0.5712150421, 0.0, 1.2296448446]),
        (2, "param", [0.3019806638, 0.4069225283, 0.0133557628,
                      0.5017997733, 0.7155853279, 0.0243471701, 1.4229869247]),
        (2, "time", [1.2987255088, 0.6652657174, 0.0, 1.4229869247]),
    ],
)  # fmt: skip
def test_golden_values_of_groups(depth, groups, expected):
    kernels = layer_kernels(InfiniteRNN(depth, groups=groups), GOLDEN)
    assert_allclose(kernels[0, 1], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("depth", "parameters", "pair", "expected"),
    [
        (1, {}, (0, 1), 2.6924991511),
        (1, {"initial_state": "independent"}, (0, 2), 0.3144059941),
        (1, {}, (0, 2), 0.6404040972),
        (1, {}, (0, 0), 2.5391),
        (1, {}, (1, 1), 9.007624),
        (1, {"pooling": "mean-tied", "initial_state": "independent"}, (0, 1), 1.0439624380),
        (1, {"pooling": "mean-untied", "initial_state": "independent"}, (0, 2), 0.2989493567),
        (2, {}, (0, 1), 3.3869781508),
        (2, {"initial_state": "independent"}, (0, 2), 0.8073956402),
        (2, {}, (0, 2), 1.6609787222),
        (2, {}, (0, 0), 4.0354),
        (2, {}, (1, 1), 14.643019),
        (2, {"pooling": "mean-tied", "initial_state": "independent"}, (0, 1), 1.2424200459),
        (2, {"pooling": "mean-untied", "initial_state": "independent"}, (0, 2), 0.5665061407),
    ],
)
def test_golden_values(depth, parameters, pair, expected):
    total = layer_kernels(InfiniteRNN(depth, **parameters), GOLDEN).sum(axis=2)
    assert_allclose(total[pair], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("activation", "dual"),
                         [("relu", reference.relu_dual), ("erf", reference.erf_dual)])  # fmt: skip
def test_forward_backward_and_full_grid_agree(depth, pooling, activation, dual, rng):
    X, Z = ragged(rng), ragged(rng, n=5)
    scales = {"sigma_w": 1.3, "sigma_u": 0.8, "sigma_b": 0.3, "sigma_h": 0.6, "sigma_v": 1.2}
    network = InfiniteRNN(depth, activation, pooling=pooling, groups="param", **scales)
    by_parameter = layer_kernels(network, X, Z)
    grid = [
        [
            reference.infinite_rnn(
                x, z, depth=depth, w=1.3, u=0.8, b=0.3, h=0.6, v=1.2, pooling=pooling, dual=dual
            )
            for z in Z
        ]
        for x in X
    ]
    keys = [(part, layer) for layer in range(depth) for part in "WUb"] + ["V"]
    expected = np.array([[[pair[key] for key in keys] for pair in row] for row in grid])
    assert_allclose(by_parameter, expected, rtol=1e-12, atol=1e-13)
    by_layer = layer_kernels(clone(network).set_params(groups="layer"), X, Z)
    total = expected.sum(axis=2)
    assert_allclose(by_layer.sum(axis=2), total, rtol=1e-12, atol=1e-13)
    assert_allclose(by_layer[..., 0], expected[..., :3].sum(axis=2), rtol=1e-12, atol=1e-13)
    if pooling == "mean-tied":
        return
    by_time = layer_kernels(clone(network).set_params(groups="time"), X, Z)
    assert_allclose(by_time.sum(axis=2), total, rtol=1e-12, atol=1e-13)
    for i, row in enumerate(grid):
        for j, pair in enumerate(row):
            steps = np.diagonal(pair["time"], len(Z[j]) - len(X[i]) if pooling == "last" else 0)
            steps = steps[::-1] if pooling == "last" else steps
            assert_allclose(by_time[i, j, : len(steps)], steps, rtol=1e-12, atol=1e-13)
            assert_array_equal(by_time[i, j, len(steps) : -1], 0)


def test_equal_lengths_are_the_plain_recursion(rng):
    X = rng.standard_normal((6, 5, 2))
    scales = {"w": 1.3, "u": 0.8, "b": 0.3, "h": 0.6, "v": 1.2}
    expected = reference.equal_length_rnn(X, depth=2, **scales)
    network = InfiniteRNN(
        2, initial_state="independent", **{f"sigma_{key}": value for key, value in scales.items()}
    )
    assert_allclose(layer_kernels(network, X).sum(axis=2), expected, rtol=1e-12)


# Upper triangles of the kernels of four sequences, which `rnnntk` of github.com/thegregyang/NTK4A
# gives for unequal lengths, no initial state, and its parameters of variance sigma^2.
NTK4A = {
    "relu": [2.645575, 2.9374213174723516, 0.6824848739458962, 1.5261799228331752, 7.743322,
             0.9915052183510256, 2.5872836754793607, 1.811479, 1.072485085126389, 6.750090417248],
    "erf": [3.301239627493429, 2.4437060204055063, 1.6060483603135345, 1.633835808873747,
            4.593537723762945, 1.1837951623662486, 1.2861611022287125, 3.447695901206849,
            1.6729080643525072, 6.717897495029912],
}  # fmt: skip


@pytest.mark.parametrize("activation", list(NTK4A))
def test_unequal_lengths_are_those_of_ntk4a(activation):
    X = [*GOLDEN, *univariate([0.4, -1.1, 0.6, 0.9, -0.2])]
    sigmas = {"sigma_w": 1.4, "sigma_u": 0.8, "sigma_b": 0.3, "sigma_v": 1.1}
    network = InfiniteRNN(1, activation, initial_state="zero", groups="param", **sigmas)
    # Gradients by parameters that carry their scale are smaller by it.
    found = layer_kernels(network, X) @ (1 / np.square(list(sigmas.values())))
    assert_allclose(found[np.triu_indices(4)], NTK4A[activation], rtol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_grouping_adds_up_to_the_same_total(pooling, bidirectional, rng):
    X, Z = ragged(rng), ragged(rng, n=4)
    groupings = ["layer", "param"] + ["time"] * (pooling != "mean-tied")
    for pair in ((X, Z), (X,)):
        totals = [
            layer_kernels(
                InfiniteRNN(3, pooling=pooling, bidirectional=bidirectional, groups=groups), *pair
            ).sum(axis=2)
            for groups in groupings
        ]
        for total in totals[1:]:
            assert_allclose(total, totals[0], rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_sequences_of_one_step_are_vectors(activation, rng):
    X = rng.standard_normal((6, 3))
    network = InfiniteRNN(3, activation, sigma_u=1.3, sigma_b=0.4, sigma_h=0.0, sigma_v=0.9)
    mlp = InfiniteMLP(3, activation, [1.69] * 3 + [0.81], [0.16] * 3 + [0.0])
    assert_allclose(layer_kernels(network, X[:, None]), layer_kernels(mlp, X), rtol=1e-12)
    assert layer_names(network) == layer_names(mlp)
    assert_allclose(network.nngp(X[:, None]), mlp.nngp(X), rtol=1e-12)


@pytest.mark.parametrize(
    ("pooling", "initial_state", "activation"),
    [
        ("last", "shared", "relu"),
        ("last", "independent", "relu"),
        ("last", "shared", "erf"),
        ("mean-tied", "shared", "relu"),
        ("mean-untied", "shared", "relu"),
    ],
)
def test_finite_networks_converge_to_every_layer(pooling, initial_state, activation, sequences):
    scales = {"w": 1.0, "u": 1.0, "b": 0.3, "h": 0.5, "v": 1.0}
    network = InfiniteRNN(
        2, activation, pooling=pooling, initial_state=initial_state, groups="param",
        **{f"sigma_{key}": value for key, value in scales.items()},
    )  # fmt: skip
    limit = np.moveaxis(layer_kernels(network, sequences), -1, 0)
    widths, errors = [128, 1024], []
    for width in widths:
        seeds = [
            reference.finite_rnn(
                sequences, width, seed, depth=2, activation=getattr(torch, activation),
                initial_state=initial_state, pooling=pooling, **scales,
            ) - limit
            # Narrow networks are cheap, and vary more.
            for seed in range(8 * 1024 // width)
        ]  # fmt: skip
        of_layers = np.add.reduceat(seeds, [0, 3, 6], axis=1)
        errors.append(np.linalg.norm(of_layers, axis=(2, 3)).mean(axis=0))
    slopes = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert ((slopes > -0.7) & (slopes < -0.35)).all(), slopes
    total = np.linalg.norm(limit.sum(axis=0))
    assert np.linalg.norm(np.sum(seeds, axis=1), axis=(1, 2)).mean() < 0.15 * total


# -- lengths, directions, tiles ------------------------------------------------------------------


def test_padding_changes_nothing_but_zeros_do(rng):
    X = ragged(rng)
    network = InfiniteRNN(2)
    kernels = layer_kernels(network, X)
    longer = [*X, rng.standard_normal((15, 3))]
    # One sequence more pads all others further.
    assert_allclose(layer_kernels(network, longer)[:6, :6], kernels, rtol=1e-13)
    short, long = X[0], np.vstack([np.zeros((2, 3)), X[0]])
    assert not np.allclose(layer_kernels(network, [short]), layer_kernels(network, [long]))


@pytest.mark.parametrize(
    ("pooling", "groups"),
    [*((p, "layer") for p in POOLINGS), *((p, "time") for p in POOLINGS if p != "mean-tied")],
)
def test_tiles_diagonals_and_orders_agree(pooling, groups, rng):
    network = InfiniteRNN(2, pooling=pooling, groups=groups, bidirectional=True)
    X = network.check_batch(ragged(rng, n=13))
    source = network.kernel_source(X, n_jobs=2)
    batch = source.prepare(X)
    whole = source.gram(batch)
    assert_array_equal(whole, whole.swapaxes(2, 3))
    assert_allclose(source.diag(batch), whole.diagonal(axis1=2, axis2=3), rtol=1e-14)
    assert_allclose(source.block(batch, batch), whole, rtol=1e-9, atol=1e-12)
    source.cpu_tile_rows = 4
    assert_allclose(source.block(batch), whole, rtol=1e-11, atol=1e-13)
    few = source.block(batch[:5], batch[2:])
    assert_allclose(few, whole[:, :, :5, 2:], rtol=1e-9, atol=1e-12)
    seen = np.zeros(whole.shape)
    for rows, columns, tile in source.tiles(batch):
        seen[:, :, rows, columns] = tile
        seen[:, :, columns, rows] = tile.swapaxes(2, 3)
    assert_allclose(seen, whole, rtol=1e-11, atol=1e-13)
    assert whole.shape[:2] == (1, len(source.layer_names))


def test_both_directions_add_up(rng):
    X = ragged(rng)
    network = InfiniteRNN(2, bidirectional=True)
    both = layer_kernels(network, X)
    single = InfiniteRNN(2)
    assert_allclose(both[..., :3], layer_kernels(single, X), rtol=1e-12)
    assert_allclose(both[..., 3:], layer_kernels(single, [x[::-1] for x in X]), rtol=1e-12)
    assert layer_names(network)[::3] == ["forward.layer0", "backward.layer0"]
    assert_allclose(network.nngp(X), both[..., 2] + both[..., 5], rtol=1e-12)


def test_few_steps_are_told_apart_when_asked(rng):
    X = ragged(rng, longest=6, n=10)
    for pooling, last in [("last", "t<=-3"), ("mean-untied", "t>=2")]:
        full = layer_kernels(InfiniteRNN(groups="time", pooling=pooling), X)
        network = InfiniteRNN(groups="time", pooling=pooling, n_steps=3)
        few = layer_kernels(network, X)
        assert_allclose(few[..., :2], full[..., :2], rtol=1e-12)
        assert_allclose(few[..., 2], full[..., 2:-1].sum(axis=2), rtol=1e-12)
        assert layer_names(network)[2] == last
    with pytest.raises(ValueError, match="n_steps"):
        layer_names(InfiniteRNN(groups="time"))


def test_independent_states_show_on_the_diagonal_alone(rng):
    X = [*ragged(rng), rng.standard_normal((3, 3))]
    X.append(X[-1].copy())
    network = InfiniteRNN(initial_state="independent")
    train, test = layer_kernels(network, X), layer_kernels(network, X, X)
    off = ~np.eye(len(X), dtype=bool)
    assert_allclose(train[off], test[off], rtol=1e-9)
    assert (np.diagonal(train, axis1=0, axis2=1) > np.diagonal(test, axis1=0, axis2=1)).all()
    assert not np.allclose(train[-1, -2], train[-1, -1])
    # A shared state, or none, makes no difference between training and test samples.
    for state in ("shared", "zero"):
        network = InfiniteRNN(initial_state=state)
        assert_allclose(layer_kernels(network, X), layer_kernels(network, X, X), rtol=1e-9)


@pytest.mark.parametrize("initial_state", ["shared", "zero"])
@pytest.mark.parametrize(
    ("pooling", "groups"),
    [(p, g) for p in POOLINGS for g in ("param", "time") if (p, g) != ("mean-tied", "time")],
)
def test_kernels_of_ragged_sets_are_positive_semidefinite(initial_state, pooling, groups, rng):
    X = ragged(rng, n_channels=2, n=40, longest=10)
    network = InfiniteRNN(
        2, initial_state=initial_state, pooling=pooling, groups=groups, bidirectional=True
    )
    values = np.linalg.eigvalsh(np.moveaxis(layer_kernels(network, X), -1, 0))
    assert (values[:, 0] >= -1e-8 * values[:, -1]).all()


def test_zero_and_repeated_sequences(rng):
    X = [np.zeros((4, 2)), np.zeros((2, 2)), *ragged(rng, 2, n=4)]
    X = X + X
    for state in STATES:
        network = InfiniteRNN(2, sigma_b=0.0, initial_state=state)
        kernels = layer_kernels(network, X)
        assert np.isfinite(kernels).all()
        if state != "independent":
            diagonal = layer_kernel_diag(network, X)
            assert_allclose(kernels[range(6), range(6, 12)], diagonal[:6], rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    n_channels=st.integers(1, 2),
    pooling=st.sampled_from(POOLINGS),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
    zeros=st.booleans(),
    seed=st.integers(0, 99),
)
def test_sets_of_any_lengths(lengths, n_channels, pooling, scale, zeros, seed):
    rng = np.random.default_rng(seed)
    X = [scale * rng.standard_normal((length, n_channels)) for length in lengths]
    X[0] *= not zeros
    network = InfiniteRNN(pooling=pooling, sigma_b=0.0, initial_state="zero")
    kernels = layer_kernels(network, X)
    assert np.isfinite(kernels).all()
    assert_allclose(
        kernels / scale**2, layer_kernels(network, [x / scale for x in X]), rtol=1e-6, atol=1e-9
    )
    order = rng.permutation(len(X))
    assert_allclose(
        layer_kernels(network, [X[i] for i in order]), kernels[order][:, order],
        rtol=1e-9, atol=1e-12 * scale**2,
    )  # fmt: skip
    # Repeated sequences have equal kernels with all others, and with each other.
    twice = layer_kernels(network, X + X)
    assert_allclose(
        twice, np.tile(kernels, (2, 2, 1)), rtol=1e-6, atol=1e-12 * max(twice.max(), scale**2)
    )
    halves = [x.astype(np.float32) for x in X]
    kernels = layer_kernels(network, halves)
    assert kernels.dtype == np.float64
    assert_array_equal(kernels, layer_kernels(network, [x.astype(np.float64) for x in halves]))


# -- what X may be -------------------------------------------------------------------------------


def test_all_forms_of_the_same_sequences(rng):
    X = ragged(rng)
    longest = max(map(len, X))
    network = InfiniteRNN()
    expected = layer_kernels(network, X)
    padded = np.full((len(X), longest + 2, 3), np.nan)
    objects = np.empty(len(X), dtype=object)
    for i, x in enumerate(X):
        padded[i, : len(x)] = x
        objects[i] = x
    aeon = InfiniteRNN(layout="channels_first")
    for net, form in [
        (network, tuple(X)),
        (network, objects),
        (network, padded),
        (network, [x.tolist() for x in X]),
        (network, torch.as_tensor(padded)),
        (network, list(padded)),
        (aeon, padded.swapaxes(1, 2)),
        (aeon, [x.T for x in X]),
    ]:
        assert_allclose(layer_kernels(net, form), expected, rtol=1e-13)
        assert_allclose(layer_kernels(net, form, form[:2]), expected[:, :2], rtol=1e-7)


def test_two_dimensions_are_univariate(rng):
    X = rng.standard_normal((5, 4))
    expected = layer_kernels(InfiniteRNN(), X[:, :, None])
    for layout in ("time_first", "channels_first"):
        network = InfiniteRNN(layout=layout)
        for form in (X, X.tolist(), list(X), pd.DataFrame(X)):
            assert_array_equal(layer_kernels(network, form), expected)
    shorter = X.copy()
    shorter[0, 2:] = np.nan
    lists = [X[0, :2], *X[1:]]
    assert_allclose(
        layer_kernels(InfiniteRNN(), shorter), layer_kernels(InfiniteRNN(), lists), rtol=1e-13
    )


@pytest.mark.parametrize(
    ("X", "match"),
    [
        ([np.zeros((2, 1)), np.zeros((3, 2))], r"X\[1\] has 2 channels, but X\[0\] has 1"),
        ([np.zeros((2, 1)), np.zeros((0, 1))], r"0 time steps: X\[1\]"),
        ([[1.0, np.nan, 2.0], [1.0, 2.0, 3.0]], "X contains NaN"),
        (np.array([[[1.0, np.nan], [1.0, 1.0]]]), "X contains NaN"),
        (np.array([[np.nan, np.nan], [1.0, 1.0]]), r"0 time steps: X\[0\] is NaN"),
        ([np.zeros((2, 1)), np.array([[np.inf]])], r"X\[1\] contains infinity"),
        (np.full((2, 2), np.inf), "X contains infinity"),
        (np.zeros(3), "Expected 2D array, got 1D array"),
        (np.zeros((2, 2, 2, 2)), "dim 4"),
        ([np.zeros((2, 1)), np.zeros((2, 2, 2))], "dim 3"),
        ([], "Expected 2D array|0 sample"),
        ([["a", "b"], ["c"]], "could not convert|string"),
        ([np.zeros((2, 1)), np.zeros((1, 1)) * 1j], "Complex data"),
    ],
)
def test_other_input_is_refused(X, match):
    with pytest.raises(ValueError, match=match):
        layer_kernels(InfiniteRNN(), X)
    with pytest.raises(ValueError, match=match):
        MultiLayerNTKClassifier(InfiniteRNN()).fit(X, np.arange(len(X)) % 2)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"depth": 0}, "depth"),
        ({"activation": "rely"}, "activation"),
        ({"sigma_w": -1.0}, "sigma_w"),
        ({"sigma_h": np.nan}, "sigma_h"),
        ({"initial_state": "random"}, r"initial_state must be one of \['shared'"),
        ({"pooling": "mean"}, "pooling"),
        ({"groups": "times"}, "groups"),
        ({"layout": "last"}, "layout"),
        ({"bidirectional": "yes"}, "bidirectional"),
        ({"n_steps": 0}, "n_steps"),
        ({"negative_slope": None}, "negative_slope"),
        ({"groups": "time", "pooling": "mean-tied"}, "groups='time' has no meaning"),
    ],
)
def test_parameters_are_refused_by_name_when_used(parameters, match):
    network = InfiniteRNN(**parameters)
    with pytest.raises(ValueError, match=match):
        layer_kernels(network, np.ones((2, 2)))
    with pytest.raises(ValueError, match=match):
        MultiLayerNTKClassifier(network).fit(np.ones((2, 2)), [0, 1])


# -- estimators ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["list", "object", "padded", "channels_first"])
def test_grids_and_pipelines_take_sequences(form, classes):
    X, y = classes
    network = InfiniteRNN(groups="param")
    if form == "object":
        objects = np.empty(len(X), dtype=object)
        objects[:] = X
        X = objects
    elif form != "list":
        X = network.check_batch(X)
        if form == "channels_first":
            X = X.swapaxes(1, 2)
            network.set_params(layout=form)
    model = Pipeline([("same", FunctionTransformer()), ("ntk", MultiLayerNTKClassifier(network))])
    grid = {"ntk__network__sigma_w": [1.0, 1.4], "ntk__network__depth": [1, 2]}
    search = GridSearchCV(model, grid, cv=2, n_jobs=2 if form == "list" else None).fit(X, y)
    assert search.best_score_ > 0.9
    assert cross_val_score(model, X, y, cv=2).mean() > 0.9
    best = search.best_estimator_[-1]
    phi = layer_contributions(search.best_estimator_, X)
    assert_allclose(phi.sum(axis=2) + best.intercept_, best.decision_function(X)[:, None])
    # What is kept of the training set stands for it.
    assert_allclose(best.decision_function(best.X_fit_), best.decision_function(X))
    assert best.n_features_in_ == 1
    loaded = pickle.loads(pickle.dumps(best))
    assert_array_equal(loaded.predict_proba(X), best.predict_proba(X))


@pytest.mark.parametrize(
    ("network", "n_layers"),
    [
        (InfiniteMLP(2, "tanh"), 3),
        (InfiniteRNN(2, "erf", groups="param", bidirectional=True), 14),
        (InfiniteRNN(groups="time", pooling="mean-untied", initial_state="independent"), 9),
        (InfiniteRNN(pooling="mean-tied", initial_state="zero"), 2),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "parameters",
    [
        {"normalize": "cosine", "per_class": False},
        {"kernel_weights": "sum", "loss": "hinge", "C": 10.0, "normalize": "trace"},
        {"kernel_weights": "margin", "loss": "hinge", "C": 10.0},
        {"kernel_weights": "lp", "class_weight": "balanced", "normalize": "none"},
        {"kernel_weights": "uniform", "dtype": "float32", "n_jobs": 2},
    ],
    ids=repr,
)
def test_estimators_do_all_of_it(network, n_layers, parameters, classes):
    X, y = classes
    X = InfiniteRNN().check_batch(X)[..., 0]
    if isinstance(network, InfiniteMLP):
        X = np.nan_to_num(X)
    model = MultiLayerNTKClassifier(network, **parameters).fit(X[:30], y[:30])
    assert model.kernel_weights_.shape == (1, n_layers) == (1, len(model.layer_names_))
    assert model.score(X[30:], y[30:]) >= 0.9
    phi = layer_contributions(model, X)
    assert_allclose(phi.sum(axis=(1, 2)) + model.intercept_, model.decision_function(X), rtol=1e-5)
    display = LayerWeightsDisplay.from_estimator(model)
    assert list(display.layer_names) == model.layer_names_


def test_decisions_come_from_the_kernels(classes):
    X, y = classes
    network = InfiniteRNN(2, pooling="mean-untied")
    model = MultiLayerNTKClassifier(network, loss="hinge", C=10.0).fit(X[:30], y[:30])
    kernels = layer_kernels(network, X[30:], X[:30])
    weights = model.kernel_weights_[0] / model.layer_scales_
    decisions = kernels @ weights @ model.dual_coef_[0] + model.intercept_
    assert_allclose(model.decision_function(X[30:]), decisions, rtol=1e-9)


def test_sample_weights_are_repetitions(classes):
    X, y = classes
    model = MultiLayerNTKClassifier(InfiniteRNN())
    weight = np.array([2.0] * 10 + [1.0] * 25 + [0.0] * 5)
    weighted = clone(model).fit(X, y, sample_weight=weight)
    repeated = clone(model).fit(X[:35] + X[:10], np.concatenate([y[:35], y[:10]]))
    assert_allclose(
        weighted.decision_function(X), repeated.decision_function(X), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {"kernel_weights": "alignment", "shrinkage": 0.0},
        {"kernel_weights": "margin", "loss": "hinge"},
    ],
)
def test_weights_find_the_step_that_decides(parameters):
    # Not so with the squared loss of "margin" and "lp", nor with "cosine": see the user guide.
    weights = []
    for seed in range(8):
        X = np.random.default_rng(seed).standard_normal((150, 5, 1))
        y = (X[:, -1, 0] > 0).astype(int)
        network = InfiniteRNN(groups="time", sigma_u=1.0)
        model = MultiLayerNTKClassifier(network, **parameters).fit(X, y)
        assert model.layer_names_ == ["t=-1", "t=-2", "t=-3", "t=-4", "t=-5", "readout"]
        weights.append(model.kernel_weights_[0])
    mean = np.mean(weights, axis=0)
    assert mean.argmax() == 0
    assert mean[0] > 0.6
    # What steps before have is not for their own sake.
    assert mean[1:5].sum() < 0.05


def test_time_groups_of_longer_test_sequences(classes):
    X, y = classes
    network = InfiniteRNN(groups="time")
    model = MultiLayerNTKClassifier(network, normalize="cosine", kernel_weights="uniform")
    model.fit(X, y)
    longer = [np.vstack([x, x]) for x in X]
    n_steps = max(map(len, X))
    assert model.layer_names_ == [*(f"t=-{k}" for k in range(1, n_steps + 1)), "readout"]
    *steps, readout = np.moveaxis(layer_kernels(network, [*X, *longer]), -1, 0)
    assert len(steps) == 2 * n_steps
    # The first step of the longest training sequence stands for all that are earlier.
    every = np.stack([*steps[: n_steps - 1], np.sum(steps[n_steps - 1 :], axis=0), readout], -1)
    root = np.sqrt(np.einsum("iil->il", every))
    root[root == 0] = 1  # sequences that are not so long
    kernels = every[len(X) :, : len(X)] / root[len(X) :, None] / root[None, : len(X)]
    weights = model.kernel_weights_[0] / model.layer_scales_
    expected = kernels @ weights @ model.dual_coef_[0] + model.intercept_
    assert_allclose(model.decision_function(longer), expected, rtol=1e-8)


def test_regression_on_the_last_value(rng):
    X = [np.cumsum(rng.standard_normal((rng.integers(3, 8), 1)), axis=0) for _ in range(80)]
    y = np.array([x[-1, 0] for x in X])
    model = MultiLayerNTKRegressor(InfiniteRNN()).fit(X[:60], y[:60])
    assert model.score(X[60:], y[60:]) > 0.9


def test_tags_say_what_it_takes(classes):
    tags = get_tags(MultiLayerNTKClassifier(InfiniteRNN())).input_tags
    assert tags.three_d_array
    assert tags.two_d_array
    assert not tags.allow_nan  # but at the ends of sequences
    assert not get_tags(MultiLayerNTKClassifier(InfiniteMLP())).input_tags.three_d_array


def test_data_frames_keep_their_names(rng):
    frame = pd.DataFrame(rng.standard_normal((12, 3)), columns=["t0", "t1", "t2"])
    model = MultiLayerNTKClassifier(InfiniteRNN()).fit(frame, np.arange(12) % 2)
    assert_array_equal(model.feature_names_in_, frame.columns)
    assert model.n_features_in_ == 3
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["t1", "t0", "t2"]])
    with pytest.raises(ValueError, match="X has 2 features"):
        clone(model).fit(frame.to_numpy(), np.arange(12) % 2).predict(frame.to_numpy()[:, :2])


def test_other_numbers_of_channels_are_refused(classes):
    X, y = classes
    model = MultiLayerNTKClassifier(InfiniteRNN()).fit(X, y)
    with pytest.raises(ValueError, match="X has 2 features"):
        model.predict([np.zeros((3, 2)), np.zeros((2, 2))])


def test_quadrature_runs_over_time(rng):
    X = ragged(rng, n=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernels = layer_kernels(InfiniteRNN(activation=torch.erf), X)
    assert_allclose(kernels, layer_kernels(InfiniteRNN(activation="erf"), X), rtol=1e-8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "network",
    [
        InfiniteMLP(),
        InfiniteMLP(activation="tanh"),
        InfiniteRNN(2, groups="param", bidirectional=True),
        InfiniteRNN(groups="time", initial_state="independent"),
        InfiniteRNN(pooling="mean-tied", activation="erf"),
    ],
    ids=repr,
)
def test_cuda_agrees_with_the_cpu(network, rng):
    X, Z = rng.standard_normal((9, 5)), rng.standard_normal((4, 5))
    for pair in ((X,), (X, Z)):
        expected = layer_kernels(network, *pair, device="cpu")
        found = layer_kernels(network, *pair, device="cuda")
        assert_allclose(found, expected, rtol=1e-7, atol=1e-10)
    diagonal = layer_kernel_diag(network, X, device="cuda")
    assert_allclose(diagonal, layer_kernel_diag(network, X, device="cpu"), rtol=1e-10)
