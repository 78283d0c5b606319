"""Predictions and inspection read what was fitted, and nothing else."""

import numpy as np
import pytest
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import make_scorer
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_nftk import MultiLayerNTKClassifier, MultipleKernelClassifier
from sklearn_nftk.inspection import (
    LayerWeightsDisplay,
    kernel_similarity,
    layer_ablation,
    layer_contributions,
    training_contributions,
    weight_stability,
)
from sklearn_nftk.networks import MLP, InfiniteMLP, InfiniteRNN

NETWORK = MLP((16, 16), random_state=0)
OTHERS = {
    "normalize": "cosine",
    "layers": {"all": ["*"]},
    "outputs": "per_class",
    "network": InfiniteMLP(),
    "loss": "hinge",
    "dtype": "float32",
    "device": "nowhere",
    "kernel_weights": "uniform",
    "per_class": False,
    "C": 1e-3,
    "random_state": 5,
}
REFUSED = ("outputs", "device")  # by a fit with these


@pytest.mark.parametrize("normalize", ["variance", "cosine", "none"])
@pytest.mark.parametrize("name", OTHERS)
def test_parameters_set_after_fit_change_no_prediction(name, normalize, three_classes):
    X, y = three_classes
    model = MultiLayerNTKClassifier(
        MLP((16, 16)), normalize=normalize, shrinkage=0.0, random_state=0
    ).fit(X, y)
    expected = model.predict_proba(X), layer_contributions(model, X)
    value = "variance" if name == "normalize" and normalize == "cosine" else OTHERS[name]
    model.set_params(**{name: value})
    assert_array_equal(model.predict_proba(X), expected[0])
    assert_array_equal(layer_contributions(model, X), expected[1])
    if name in REFUSED:
        with pytest.raises(ValueError, match=name):
            clone(model).fit(X, y)
    else:
        other = clone(model).fit(X, y)
        assert not np.array_equal(other.decision_function(X), model.decision_function(X))


def test_displays_say_how_kernels_were_normalised_at_fit(three_classes):
    X, y = three_classes
    model = MultiLayerNTKClassifier(NETWORK, normalize="trace").fit(X, y)
    model.set_params(normalize="none")
    assert LayerWeightsDisplay.from_estimator(model).normalize == "trace"


def test_the_training_set_is_prepared_once(three_classes, monkeypatch):
    X, y = three_classes
    model = MultiLayerNTKClassifier(NETWORK, random_state=0).fit(X, y)
    expected = model.decision_function(X[:5])
    sizes = []
    source = type(model.kernel_source_)
    prepare = source.prepare

    def counted(self, X):
        sizes.append(len(X))
        return prepare(self, X)

    monkeypatch.setattr(source, "prepare", counted)
    assert_array_equal(model.decision_function(X[:5]), expected)
    assert sizes == [5]
    # where it does not fit beside working memory, it is prepared for each call
    monkeypatch.setattr("sklearn_nftk.estimators._multi_layer.working_memory", lambda: 10)
    model.fit(X, y)
    sizes.clear()
    for _ in range(2):
        assert_allclose(model.decision_function(X[:5]), expected, rtol=1e-12)
    assert sizes == [60, 5, 60, 5]


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:300], y[:300]


def test_inspection_takes_a_fitted_search(digits):
    X, y = digits
    pipeline = make_pipeline(StandardScaler(), MultiLayerNTKClassifier(NETWORK))
    grid = {"multilayerntkclassifier__kernel_weights": ["uniform", "alignment"]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    best = search.best_estimator_
    assert_array_equal(layer_contributions(search, X), layer_contributions(best, X))
    assert_array_equal(training_contributions(search, X[:3]), training_contributions(best, X[:3]))
    assert_array_equal(kernel_similarity(search).layers, kernel_similarity(best).layers)
    for refit in (False, True):
        ablations = [
            layer_ablation(model, X, y, refit=refit, training=(X, y)) for model in (search, best)
        ]
        assert_array_equal(ablations[0].without, ablations[1].without)
    found = weight_stability(search, X, y, n_resamples=2, random_state=0)
    assert found.weights.shape == (2, 10, 3)
    assert LayerWeightsDisplay.from_estimator(search).weights.shape == (10, 3)


def test_a_search_that_was_not_refitted_is_refused(digits):
    X, y = digits
    search = GridSearchCV(MultiLayerNTKClassifier(NETWORK), {"C": [1.0]}, cv=2, refit=False)
    with pytest.raises(TypeError, match=r"best_estimator_ .* got GridSearchCV"):
        layer_contributions(search.fit(X, y), X)


def test_ablation_hands_scorers_a_view_of_its_own_samples(three_classes):
    X, y = three_classes
    model = MultiLayerNTKClassifier(NETWORK).fit(X, y)
    asked = []

    def honest(estimator, X, y):
        asked.append(estimator.predict(np.array(X)))  # the same samples, another array
        assert_array_equal(estimator.classes_, [0, 1, 2])
        return np.mean(asked[-1] == y)

    found = layer_ablation(model, X, y, scoring=honest)
    assert found.score == model.score(X, y)
    assert len(asked) == 7
    for other in (X[:30], X + 1):
        with pytest.raises(ValueError, match="scoring: these decisions are known for the samples"):
            layer_ablation(model, X, y, scoring=lambda e, X, y, o=other: e.predict(o).mean())
    scorer = make_scorer(lambda y, p: np.mean(y == p))
    assert_allclose(layer_ablation(model, X, y, scoring=scorer).without, found.without)


def test_kernels_along_the_first_axis_are_refused_by_name(three_classes):
    X, y = three_classes
    kernels = [rbf_kernel(X, gamma=gamma) for gamma in (0.1, 1.0, 2.0)]
    for wrong in (kernels, np.array(kernels), tuple(kernels)):
        with pytest.raises(ValueError, match=r"shape \(n, n, L\) .*np.stack\(kernels, axis=-1\)"):
            MultipleKernelClassifier().fit(wrong, y)
    model = MultipleKernelClassifier().fit(np.stack(kernels, axis=-1), y)
    with pytest.raises(ValueError, match=r"\(n_test, n, L\) in predict"):
        model.predict(np.array(kernels)[:, :7])
    assert model.predict(np.stack(kernels, axis=-1)[:7]).shape == (7,)


def test_read_only_arrays_are_taken_without_a_word(three_classes):
    X, y = (array.copy() for array in three_classes)
    X.setflags(write=False)
    y.setflags(write=False)
    for network in (NETWORK, InfiniteMLP()):
        MultiLayerNTKClassifier(network).fit(X, y).predict(X)
    K = rbf_kernel(X)
    K.setflags(write=False)
    MultipleKernelClassifier().fit(K, y).predict(K)


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_grids_reach_into_the_default_network(in_pipeline, three_classes):
    X, y = three_classes
    model, name = MultiLayerNTKClassifier(random_state=0), "network__hidden_layer_sizes"
    if in_pipeline:
        model, name = make_pipeline(StandardScaler(), model), f"multilayerntkclassifier__{name}"
    search = GridSearchCV(model, {name: [(4,), (8, 8)]}, cv=2, n_jobs=2).fit(X, y)
    best = search.best_estimator_[-1] if in_pipeline else search.best_estimator_
    assert best.network.hidden_layer_sizes == search.best_params_[name]
    assert len(best.layer_names_) == len(search.best_params_[name]) + 1
    assert clone(best).get_params()[name.rpartition("classifier__")[2]]
    # the user's own estimator, and one without such parameters, are as they were
    plain = model[-1] if in_pipeline else model
    assert plain.network is None
    assert clone(plain).set_params(C=2.0).network is None
    with pytest.raises(ValueError, match="Invalid parameter 'depth'"):
        clone(plain).set_params(network__depth=3)


@pytest.mark.parametrize(
    "model",
    [
        MultiLayerNTKClassifier(random_state=0),
        MultiLayerNTKClassifier(NETWORK, normalize="cosine", loss="hinge"),
        MultiLayerNTKClassifier(NETWORK, kernel_weights="margin"),
        MultiLayerNTKClassifier(InfiniteMLP()),
        MultiLayerNTKClassifier(InfiniteRNN()),
        make_pipeline(StandardScaler(), MultiLayerNTKClassifier(NETWORK, dtype="float32")),
    ],
    ids=str,
)
def test_skops_writes_and_reads_what_was_fitted(model, three_classes):
    X, y = three_classes
    written = skops.io.dumps(model.fit(X, y))
    types = skops.io.get_untrusted_types(data=written)
    assert {name.partition(".")[0] for name in types} <= {"sklearn_nftk", "numpy", "torch"}
    read = skops.io.loads(written, trusted=types)
    assert_allclose(read.decision_function(X), model.decision_function(X), rtol=1e-10)
    assert_allclose(layer_contributions(read, X), layer_contributions(model, X), rtol=1e-10)


def test_default_networks_are_written_without_torch(three_classes):
    written = skops.io.dumps(MultiLayerNTKClassifier(random_state=0).fit(*three_classes))
    assert not any("torch" in name for name in skops.io.get_untrusted_types(data=written))


def test_libsvm_is_silent(three_classes, capfd):
    MultiLayerNTKClassifier(NETWORK, loss="hinge", kernel_weights="margin").fit(*three_classes)
    assert capfd.readouterr().out == ""
