"""Shapley values of layers: the axioms, a slow reference, and what the intervals know."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import accuracy_score, r2_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
    MultipleKernelRegressor,
)
from sklearn_nftk.inspection import _subsets, _values, layer_ablation, layer_values
from sklearn_nftk.networks import MLP

from . import reference
from .test_inspection import three_outputs

TRAIN, TEST = slice(0, 60), slice(60, 100)
WIDTHS = (0.02, 0.1, 0.5, 2.0)
SMALL = MLP((12, 12))
METHODS = ["alignment", "margin", "lp", "uniform", "sum"]


@pytest.fixture(scope="module")
def data():
    return make_classification(
        100, 5, n_informative=4, n_redundant=0, n_classes=3, class_sep=0.7, random_state=0
    )


def kernels(X, widths=WIDTHS):
    """Kernels of the training and of the test samples with the training samples."""
    K = np.stack([rbf_kernel(X, X[TRAIN], gamma=gamma) for gamma in widths], axis=-1)
    return K[TRAIN], K[TEST]


@pytest.fixture(scope="module")
def targets(data):
    X, y = data
    return np.sin(X[:, 0]) + X[:, 1] + 0.3 * y


MODELS = {
    "squared": MultiLayerNTKClassifier(SMALL, random_state=0),
    "hinge": MultiLayerNTKClassifier(SMALL, loss="hinge", kernel_weights="lp", random_state=0),
    "outputs": MultiLayerNTKClassifier(three_outputs, outputs="per_class", random_state=0),
    "pipeline": make_pipeline(StandardScaler(), MultiLayerNTKClassifier(SMALL, random_state=0)),
    "regressor": MultiLayerNTKRegressor(SMALL, random_state=0),
}


# -- the axioms -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_values_of_networks_sum_to_what_all_layers_add(name, data, targets):
    X, y = data[0], targets if name == "regressor" else data[1]
    model = clone(MODELS[name]).fit(X[TRAIN], y[TRAIN])
    found = layer_values(model, X[TEST], y[TEST], training=(X[TRAIN], y[TRAIN]), n_resamples=5)
    assert found.score == pytest.approx(model.score(X[TEST], y[TEST]), abs=1e-12)
    assert found.values.sum() == pytest.approx(found.score - found.score_none, abs=1e-12)
    L = len(found.layer_names)
    assert (found.values.shape, found.intervals.shape) == ((L,), (L, 2))
    refits = layer_ablation(model, X[TEST], y[TEST], refit=True, training=(X[TRAIN], y[TRAIN]))
    if L == 2:
        alone = refits.alone - found.score_none
        assert_allclose(found.values, (alone + refits.drop) / 2, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_copies_of_a_layer_have_equal_values(method, data, targets):
    known, new = kernels(data[0])
    copied = [0, 1, 2, 1, 3, 1]
    model = MultipleKernelRegressor(kernel_weights=method)
    model.fit(known[..., copied], targets[TRAIN])
    training = (known[..., copied], targets[TRAIN])
    found = layer_values(model, new[..., copied], targets[TEST], training=training)
    assert_allclose(found.values[[3, 5]], found.values[1], atol=1e-12)
    assert_array_equal(found.intervals[[3, 5]], found.intervals[[1, 1]])
    assert len(np.unique(found.values.round(6))) == 4


def test_copies_of_a_layer_have_equal_values_on_any_permutations(data, targets, monkeypatch):
    monkeypatch.setattr(_values, "_ALL_SUBSETS", 0)
    known, new = (K[..., [0, 1, 2, 1]] for K in kernels(data[0]))
    model = MultipleKernelRegressor(kernel_weights="lp").fit(known, targets[TRAIN])
    training = (known, targets[TRAIN])
    found = layer_values(
        model, new, targets[TEST], training=training, n_permutations=4, n_resamples=5
    )
    assert found.values[1] == pytest.approx(found.values[3], abs=1e-12)


def test_layers_equal_on_the_training_set_alone_are_no_copies(data, targets):
    known, new = (K[..., [0, 1, 1]] for K in kernels(data[0]))
    new[..., 2] = new[::-1, :, 2]
    model = MultipleKernelRegressor().fit(known, targets[TRAIN])
    found = layer_values(model, new, targets[TEST], training=(known, targets[TRAIN]))
    assert found.values[1] > found.values[2] + 0.1


@pytest.mark.filterwarnings("ignore:The kernels of these layers are zero or constant")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("most", [0, 8])
def test_a_layer_whose_kernel_is_zero_or_constant_has_value_0(
    method, most, data, targets, monkeypatch
):
    monkeypatch.setattr(_values, "_ALL_SUBSETS", most)
    known, new = (K[..., [0, 1, 2, 3]] for K in kernels(data[0]))
    known[..., 1] = new[..., 1] = 0
    known[..., 3] = new[..., 3] = 5
    model = MultipleKernelRegressor(kernel_weights=method).fit(known, targets[TRAIN])
    training = (known, targets[TRAIN])
    found = layer_values(model, new, targets[TEST], training=training, n_permutations=4)
    ablation = layer_ablation(model, new, targets[TEST], refit=True, training=training)
    assert_array_equal(found.values[[1, 3]], 0)
    assert_array_equal(found.intervals[[1, 3]], 0)
    assert (found.values[[0, 2]] > 0.01).all()
    assert_allclose(ablation.alone[[1, 3]], found.score_none)
    others = clone(model).fit(known[..., [1, 3]], targets[TRAIN])
    training = (known[..., [1, 3]], targets[TRAIN])
    nothing = layer_values(others, new[..., [1, 3]], targets[TEST], training=training)
    assert nothing.score == nothing.score_none == pytest.approx(found.score_none)


def test_a_layer_that_is_given_weight_0_has_value_0(data):
    known, new = kernels(data[0])
    y = data[1]
    for given, unused in (([1, 0, 2, 1], [1]), ([[1, 0, 0, 2], [0, 0, 1, 1], [1, 0, 1, 1]], [1])):
        model = MultipleKernelClassifier(kernel_weights=given).fit(known, y[TRAIN])
        training = (known, y[TRAIN])
        found = layer_values(
            model, new, y[TEST], training=training, scoring="neg_log_loss", n_resamples=5
        )
        assert_allclose(np.flatnonzero(found.values == 0), unused)
        alone = layer_ablation(
            model, new, y[TEST], scoring="neg_log_loss", refit=True, training=training
        ).alone
        assert alone[1] == pytest.approx(found.score_none, abs=1e-12)


def test_copies_with_different_weights_are_no_copies(data, targets):
    known, new = (K[..., [0, 1, 0]] for K in kernels(data[0]))
    model = MultipleKernelRegressor(kernel_weights=[1, 1, 5]).fit(known, targets[TRAIN])
    found = layer_values(model, new, targets[TEST], training=(known, targets[TRAIN]))
    assert abs(found.values[0] - found.values[2]) > 1e-4


def test_values_do_not_depend_on_the_order_of_the_layers(data, targets):
    known, new = kernels(data[0])
    order = [2, 0, 3, 1]
    straight, shuffled = (
        layer_values(
            MultipleKernelRegressor().fit(known[..., layers], targets[TRAIN]),
            new[..., layers],
            targets[TEST],
            training=(known[..., layers], targets[TRAIN]),
            random_state=0,
        )
        for layers in (range(4), order)
    )
    assert_allclose(shuffled.values, straight.values[order], atol=1e-8)
    assert_allclose(shuffled.intervals, straight.intervals[order], atol=1e-8)


# -- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", ["r2", "accuracy", "neg_log_loss"])
def test_values_are_those_of_fits_from_scratch(scoring, data, targets):
    is_regression = scoring == "r2"
    y = targets if is_regression else data[1]
    known, new = kernels(data[0], WIDTHS[:3])
    weights = 1.0 + np.arange(60) % 3
    kind = MultipleKernelRegressor if is_regression else MultipleKernelClassifier
    model = kind(shrinkage=0.0).fit(known, y[TRAIN], weights)
    found = layer_values(
        model, new, y[TEST], training=(known, y[TRAIN], weights), scoring=scoring, n_resamples=5
    )

    def score(layers):
        if not layers:
            return found.score_none
        layers = sorted(layers)
        refitted = clone(model).fit(known[..., layers], y[TRAIN], weights)
        if scoring == "neg_log_loss":
            p = refitted.predict_proba(new[..., layers])
            return np.log(p[np.arange(40), y[TEST]]).mean()
        return refitted.score(new[..., layers], y[TEST])

    assert_allclose(found.values, reference.shapley_values(score, 3), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_the_machine_without_layers_is_the_intercept(loss, data, targets):
    known, new = kernels(data[0])
    weights = 1.0 + 4 * (data[1][TRAIN] == 2)
    model = MultipleKernelClassifier(loss=loss).fit(known, data[1][TRAIN], weights)
    training = (known, data[1][TRAIN], weights)
    found = layer_values(model, new, data[1][TEST], training=training, n_resamples=1)
    assert found.score_none == np.mean(data[1][TEST] == 2)
    dummy = DummyClassifier(strategy="prior").fit(known[..., 0], data[1][TRAIN], weights)
    assert found.score_none == accuracy_score(data[1][TEST], dummy.predict(new[..., 0]))
    if loss == "squared":
        weights = np.arange(60.0)
        model = MultipleKernelRegressor().fit(known, targets[TRAIN], weights)
        training = (known, targets[TRAIN], weights)
        found = layer_values(model, new, targets[TEST], training=training, n_resamples=1)
        dummy = DummyRegressor().fit(known[..., 0], targets[TRAIN], weights)
        expected = r2_score(targets[TEST], dummy.predict(new[..., 0]))
        assert found.score_none == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_all_subsets_against_all_orders(n):
    subsets, samples = _values._all_subsets(n)
    scores = np.random.default_rng(0).normal(size=2**n)
    table = {frozenset(np.flatnonzero(s)): v for s, v in zip(subsets, scores, strict=True)}
    assert len(table) == 2**n
    assert (not subsets[0].any(), subsets[-1].all()) == (True, True)
    expected = reference.shapley_values(lambda layers: table[frozenset(layers)], n)
    assert_allclose(samples(scores)[0], expected, atol=1e-12)


def test_both_directions_of_a_permutation_are_exact_for_pairs_of_layers():
    # What two layers are worth together comes to one of them first in each direction.
    rng = np.random.default_rng(0)
    a, B = rng.normal(size=12), rng.normal(size=(12, 12))
    B = np.triu(B, 1)
    subsets, samples = _values._permutations(12, 3, np.random.RandomState(0))
    found = samples(subsets @ a + np.einsum("si,ij,sj->s", subsets, B, subsets))
    assert found.shape == (3, 12)
    assert_allclose(found, np.tile(a + (B.sum(0) + B.sum(1)) / 2, (3, 1)), atol=1e-12)
    assert len(np.unique(subsets, axis=0)) == len(subsets)
    assert (not subsets[0].any(), subsets[-1].all()) == (True, True)


def test_permutations_come_to_the_values_of_all_subsets():
    _, exact = _values._all_subsets(4)
    scores = np.random.default_rng(1).normal(size=16)
    some, samples = _values._permutations(4, 2000, np.random.RandomState(0))
    found = samples(scores[some @ 2 ** np.arange(4)])
    error = found.std(axis=0) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - exact(scores)[0]) < 4 * error).all()
    assert_allclose(found.sum(axis=1), scores[-1] - scores[0])


def test_more_than_eight_layers_are_sampled(data, targets, monkeypatch):
    known, new = kernels(data[0], np.geomspace(0.01, 3, 9))
    model = MultipleKernelRegressor(kernel_weights="uniform", C=1.0).fit(known, targets[TRAIN])

    def values(seed):
        return layer_values(
            model,
            new,
            targets[TEST],
            training=(known, targets[TRAIN]),
            random_state=seed,
            n_permutations=8,
            n_resamples=10,
        )

    drawn, again, other = values(0), values(0), values(1)
    assert drawn.values.sum() == pytest.approx(drawn.score - drawn.score_none, abs=1e-12)
    assert_array_equal(again.values, drawn.values)
    assert_array_equal(again.intervals, drawn.intervals)
    assert (other.values != drawn.values).any()
    monkeypatch.setattr(_values, "_ALL_SUBSETS", 9)
    assert_array_equal(values(0).values, values(1).values)


def test_intervals_of_permutations_hold_the_values_of_all_subsets(data, targets, monkeypatch):
    known, new = kernels(data[0])
    model = MultipleKernelRegressor(kernel_weights="uniform", C=1.0).fit(known, targets[TRAIN])
    options = {"training": (known, targets[TRAIN]), "random_state": 0}
    exact = layer_values(model, new, targets[TEST], n_resamples=1, **options).values
    monkeypatch.setattr(_values, "_ALL_SUBSETS", 0)
    low, high = layer_values(model, new, targets[TEST], **options).intervals.T
    assert ((low < exact) & (exact < high)).all()
    assert (high - low < 0.5).all()


# -- intervals --------------------------------------------------------------------------------


def test_intervals_are_those_of_a_mean_over_samples(data):
    X, y = data
    two = (y > 0).astype(int)
    known, new = kernels(X, WIDTHS[1:2])
    model = MultipleKernelClassifier().fit(known, two[TRAIN])
    found = layer_values(
        model, new, two[TEST], training=(known, two[TRAIN]), n_resamples=1000, random_state=0
    )
    # A single layer: the share of samples it gets right less that of the larger class.
    gains = (model.predict(new) == two[TEST]) * 1.0 - (two[TEST] == 1)
    assert found.values[0] == pytest.approx(gains.mean())
    within = [gains[two[TEST] == label] for label in (0, 1)]
    error = np.sqrt(sum(len(g) * g.var() for g in within)) / len(gains)
    assert_allclose(found.intervals[0], gains.mean() + np.array([-1.96, 1.96]) * error, atol=0.02)
    assert error > 0.03


def test_intervals_hold_the_permutations_too(data, monkeypatch):
    X, y = data
    known, new = kernels(X)
    rows = np.repeat([np.flatnonzero(y[TEST] == label)[0] for label in range(3)], 5)
    model = MultipleKernelClassifier().fit(known, y[TRAIN])

    def intervals():
        return layer_values(
            model,
            new[rows],
            y[TEST][rows],
            training=(known, y[TRAIN]),
            scoring="neg_log_loss",
            n_permutations=10,
            n_resamples=30,
            random_state=0,
        ).intervals

    # Samples of a class that are all the same leave nothing to the bootstrap,
    exact = intervals()
    assert_allclose(exact[:, 0], exact[:, 1], atol=1e-12)
    # but permutations do.
    monkeypatch.setattr(_values, "_ALL_SUBSETS", 0)
    assert (np.diff(intervals(), axis=1) > 1e-4).all()


def test_no_resample_loses_a_class(data):
    X, y = data
    known, new = kernels(X)
    model = MultipleKernelClassifier().fit(known, y[TRAIN])
    rows = np.r_[np.flatnonzero(y[TEST] == 0)[:1], np.flatnonzero(y[TEST] > 0)]
    found = layer_values(
        model,
        new[rows],
        y[TEST][rows],
        training=(known, y[TRAIN]),
        scoring="roc_auc_ovr",
        n_resamples=20,
    )
    assert np.isfinite(found.intervals).all()


# -- the public function ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The kernels of these layers are zero or constant")
def test_each_machine_is_learned_once(data, targets, monkeypatch):
    learned = []
    learn = _subsets.learn_from_layers
    monkeypatch.setattr(
        _subsets, "learn_from_layers", lambda n, s: learned.append(s) or learn(n, s)
    )
    known, new = kernels(data[0])
    known[..., 3] = new[..., 3] = 0
    counts = (([0, 1, 2], 8), ([0, 0, 0, 1], 8), ([2, 2, 2], 4), ([0, 3, 1, 3], 4))
    for layers, n_machines in counts:
        learned.clear()
        model = MultipleKernelRegressor().fit(known[..., layers], targets[TRAIN])
        training = (known[..., layers], targets[TRAIN])
        layer_values(model, new[..., layers], targets[TEST], training=training, n_resamples=2)
        assert len(learned) == n_machines


def test_takes_what_the_other_functions_take(data, capsys):
    X, y = data
    names = np.array(["a", "b", "c"], dtype=object)[y]
    pipeline = make_pipeline(StandardScaler(), MultiLayerNTKClassifier(SMALL, random_state=0))
    search = GridSearchCV(pipeline, {"multilayerntkclassifier__C": [1.0]}, cv=2)
    search.fit(X[TRAIN], names[TRAIN])
    before = pickle.dumps(search.predict(X))
    training = (X[TRAIN], names[TRAIN])
    options = {"training": training, "random_state": 0, "n_resamples": 5}
    found, best = (
        layer_values(model, X[TEST], list(names[TEST]), **options)
        for model in (search, search.best_estimator_)
    )
    assert capsys.readouterr().err == ""
    assert_array_equal(found.values, best.values)
    assert pickle.dumps(search.predict(X)) == before
    copied = pickle.loads(pickle.dumps(found))
    assert_array_equal(copied.values, found["values"])
    weights = np.arange(40.0)
    scored = layer_values(search, X[TEST], names[TEST], sample_weight=weights, **options)
    assert scored.score == pytest.approx(best_score(search, X, names, weights))
    layer_values(
        search, X[TEST], names[TEST], scoring=lambda e, X, y: e.score(X, y), verbose=1, **options
    )
    shown = capsys.readouterr().err
    assert "refits" in shown
    assert "resamples" in shown


def best_score(search, X, y, weights):
    return accuracy_score(y[TEST], search.predict(X[TEST]), sample_weight=weights)


def test_invalid_parameters_are_refused_by_name(data):
    X, y = data
    known, new = kernels(X)
    model = MultipleKernelClassifier().fit(known, y[TRAIN])

    def values(training=(known, y[TRAIN]), **options):
        return layer_values(model, new, y[TEST], training=training, **options)

    for training in (None, known, (known,), (known, y, y, y)):
        with pytest.raises(ValueError, match=r"training must be a tuple \(X, y\) or \(X, y, samp"):
            values(training)
    with pytest.raises(ValueError, match="n_permutations == 2, must be >= 4"):
        values(n_permutations=2)
    with pytest.raises(ValueError, match="n_permutations must be even"):
        values(n_permutations=7)
    with pytest.raises(ValueError, match="n_resamples == 0, must be >= 1"):
        values(n_resamples=0)
    with pytest.raises(ValueError, match="must have the classes of the estimator"):
        values((known, y[TRAIN] + 1))
    with pytest.raises(ValueError, match="scoring"):
        values(scoring="precise")
    with pytest.raises(ValueError, match="cannot be used to seed"):
        values(random_state="zero")


def test_decisions_that_do_not_fit_say_what_to_do(data, monkeypatch):
    import sklearn_nftk.inspection._subsets as subsets

    known, new = kernels(data[0])
    model = MultipleKernelClassifier().fit(known, data[1][TRAIN])

    def refuse(n_bytes, what, advice):
        raise MemoryError(f"{what} needs {n_bytes:,.0f} bytes. {advice}")

    monkeypatch.setattr(subsets, "require_memory", refuse)
    with pytest.raises(MemoryError, match=r"\(16, 40, 3\) needs 15,360 bytes. Score on fewer"):
        layer_values(model, new, data[1][TEST], training=(known, data[1][TRAIN]))
