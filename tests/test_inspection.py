import tracemalloc

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.metrics import log_loss
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
    MultipleKernelRegressor,
)
from sklearn_nftk.estimators import training_problem
from sklearn_nftk.inspection import (
    kernel_similarity,
    layer_ablation,
    layer_contributions,
    training_contributions,
    weight_stability,
)
from sklearn_nftk.networks import MLP, InfiniteMLP

from . import reference


def three_outputs(n_features, n_outputs, random_state):
    torch.manual_seed(random_state)
    return nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, n_outputs)).double()


def classifier(**parameters):
    parameters = {"network": MLP((16, 16)), "random_state": 0, **parameters}
    return MultiLayerNTKClassifier(**parameters)


CLASSIFIERS = {
    "squared": classifier(),
    "hinge": classifier(loss="hinge"),
    "margin": classifier(kernel_weights="margin"),
    "hinge and margin": classifier(kernel_weights="margin", loss="hinge"),
    "lp": classifier(kernel_weights="lp"),
    "hinge and lp": classifier(kernel_weights="lp", loss="hinge"),
    "uniform": classifier(kernel_weights="uniform"),
    "sum": classifier(kernel_weights="sum"),
    "array": classifier(kernel_weights=[3, 0, 1]),
    "shared": classifier(per_class=False, shrinkage=0.0),
    "unshrunk": classifier(shrinkage=0.0),
    "cosine": classifier(normalize="cosine"),
    "outputs": classifier(network=three_outputs, outputs="per_class", shrinkage=0.0),
    "infinite": classifier(network=InfiniteMLP(depth=2)),
    "pipeline": make_pipeline(StandardScaler(), classifier()),
}


def stack(X, Z):
    return np.stack([rbf_kernel(X, Z, gamma=gamma) for gamma in (0.02, 0.1, 0.5)], axis=-1)


@pytest.fixture(scope="module")
def cases():
    """Every kind of estimator, fitted, with test points it takes, and its training set."""
    X, y = make_classification(
        60, 5, n_informative=4, n_redundant=0, n_classes=3, class_sep=1.0, random_state=0
    )
    test, two = X[:7] + 0.1, (y > 0).astype(int)
    targets = X[:, :2] @ [[1.0, 0.5], [0.0, 2.0]]
    weights = 1.0 + np.arange(len(X)) % 3
    weights[:4] = 0
    K, k = stack(X, X), stack(test, X)
    regressor = MultiLayerNTKRegressor(MLP((16, 16)), random_state=0)
    hinge = MultipleKernelClassifier(loss="hinge", kernel_weights="lp")
    found = {name: (model, test, (X, y)) for name, model in CLASSIFIERS.items()}
    found |= {
        "weights": (classifier(), test, (X, y, weights)),
        "two classes": (classifier(), test, (X, two)),
        "two classes, outputs": (CLASSIFIERS["outputs"], test, (X, two)),
        "regressor": (regressor, test, (X, targets[:, 0])),
        "two targets": (regressor, test, (X, targets)),
        "kernels": (MultipleKernelClassifier(), k, (K, y)),
        "kernels, weights": (hinge, k, (K, y, weights)),
        "kernels, targets": (MultipleKernelRegressor(), k, (K, targets)),
    }
    return {
        name: (clone(model).fit(*training), test, training)
        for name, (model, test, training) in found.items()
    }


NAMES = [
    *CLASSIFIERS,
    *("weights", "two classes", "two classes, outputs", "regressor", "two targets"),
    *("kernels", "kernels, weights", "kernels, targets"),
]


@pytest.fixture(params=NAMES)
def case(request, cases):
    return cases[request.param]


def decisions(model, X):
    """Decision values or predictions, always with two dimensions."""
    of = model.decision_function if hasattr(model, "decision_function") else model.predict
    return of(X).reshape(len(X), -1)


def machine(model):
    return model[-1] if hasattr(model, "steps") else model


# -- identities -------------------------------------------------------------------------------


def test_layer_contributions_sum_to_the_decision(case):
    model, X, _ = case
    contributions = layer_contributions(model, X)
    assert contributions.shape == (len(X), *machine(model).kernel_weights_.shape)
    total = contributions.sum(axis=2) + machine(model).intercept_
    assert_allclose(total, decisions(model, X), rtol=1e-10, atol=1e-12)


def test_contributions_from_the_mean_are_centred_on_the_training_set(case):
    model, _, training = case
    X = training[0]
    contributions = layer_contributions(model, X, baseline="mean")
    # The weights of the loss, which the mean is taken with, are even where there are none.
    if len(training) == 2:
        assert_allclose(contributions.mean(axis=0), 0, atol=1e-8 * np.abs(contributions).max())
    scores = decisions(model, X)
    mean = machine(model).intercept_ + machine(model).mean_contributions_.sum(axis=1)
    assert_allclose(contributions.sum(axis=2), scores - mean, atol=1e-9 * np.abs(scores).max())


def test_training_contributions_sum_to_the_decision(case):
    model, X, _ = case
    contributions = training_contributions(model, X)
    assert contributions.shape == (len(X), *machine(model).dual_coef_.shape)
    total = contributions.sum(axis=2) + machine(model).intercept_
    assert_allclose(total, decisions(model, X), rtol=1e-10, atol=1e-11)


def test_training_contributions_per_layer_sum_both_ways(case):
    model, X, _ = case
    both = training_contributions(model, X, per_layer=True)
    scale = np.abs(both).max()
    assert_allclose(both.sum(axis=3), training_contributions(model, X), atol=1e-12 * scale)
    assert_allclose(both.sum(axis=2), layer_contributions(model, X), atol=1e-10 * scale)


@pytest.mark.parametrize("per_layer", [False, True])
def test_the_largest_are_those_of_the_whole_array(case, per_layer):
    model, X, _ = case
    whole = training_contributions(model, X)
    found = training_contributions(model, X, top=4, per_layer=per_layer)
    expected = -np.sort(-np.abs(whole), axis=2)[:, :, :4]
    values = found.contributions.sum(axis=3) if per_layer else found.contributions
    assert_allclose(np.abs(values), expected, atol=1e-12 * np.abs(whole).max())
    chosen = np.take_along_axis(whole, found.indices, axis=2)
    assert_allclose(chosen, values, atol=1e-12 * np.abs(whole).max())


def test_blocks_of_test_rows_make_no_difference(three_classes, monkeypatch):
    model = classifier().fit(*three_classes)
    X = three_classes[0]
    whole = training_contributions(model, X), training_contributions(model, X, top=3).indices
    monkeypatch.setattr("sklearn_nftk.estimators._decisions._BLOCK_ROWS", 7)
    assert_allclose(training_contributions(model, X), whole[0], atol=1e-12)
    assert_array_equal(training_contributions(model, X, top=3).indices, whole[1])


@pytest.mark.parametrize(
    "contributions",
    [
        layer_contributions,
        lambda model, X: training_contributions(model, X, top=3),
        lambda model, X: training_contributions(model, X, top=3, per_layer=True),
        lambda model, X: layer_ablation(model, X, np.arange(len(X)) % 2),
    ],
    ids=["layers", "top", "top of each layer", "ablation"],
)
def test_memory_does_not_hold_the_kernels_of_all_samples(contributions):
    X, y = make_classification(n_samples=6300, random_state=0)
    model = classifier().fit(X[:300], y[:300])
    peaks = []
    for n in (2048, 6000):
        tracemalloc.start()
        contributions(model, X[-n:])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    kernels = 8 * (6000 - 2048) * 300 * len(model.layer_names_)
    assert peaks[1] - peaks[0] < 0.1 * kernels


def test_top_may_exceed_the_training_set(three_classes):
    model = classifier().fit(*three_classes)
    found = training_contributions(model, three_classes[0][:2], top=1000)
    assert found.indices.shape == (2, 3, 60)


# -- ablation ---------------------------------------------------------------------------------


def test_ablation_keeps_or_refits(case):
    model, X, training = case
    y = np.asarray(training[1])[: len(X)]
    fitted = {k: v for k, v in vars(machine(model)).items() if not k.startswith("_")}
    before = {name: np.copy(value) for name, value in fitted.items()}
    for refit in (False, True):
        found = layer_ablation(model, X, y, refit=refit, training=training)
        n_layers = len(machine(model).layer_names_)
        assert found.without.shape == found.alone.shape == (n_layers,)
        assert_allclose(found.score, model.score(X, y))
        assert_allclose(found.drop, found.score - found.without)
    for name, value in before.items():
        assert np.array_equal(value, np.copy(vars(machine(model))[name])), name


def test_a_layer_without_weight_is_not_missed(three_classes):
    X, y = three_classes
    model = classifier(kernel_weights=[3, 0, 1], C=1.0).fit(X, y)
    for refit in (False, True):
        found = layer_ablation(model, X, y, refit=refit, training=(X, y), scoring="neg_log_loss")
        assert found.drop[1] == pytest.approx(0, abs=1e-9)
        assert (np.abs(found.drop[[0, 2]]) > 1e-6).all()


def test_ablation_is_what_a_fit_on_other_layers_gives(three_classes):
    X, y = three_classes
    train, test = slice(0, 40), slice(40, 60)
    K = stack(X, X[train])
    model = MultipleKernelClassifier(shrinkage=0.0).fit(K[train], y[train])
    found = layer_ablation(
        model,
        K[test],
        y[test],
        scoring="neg_log_loss",
        refit=True,
        training=(K[train], y[train]),
    )
    for layer in range(3):
        others = [k for k in range(3) if k != layer]
        for kernels, score in ((others, found.without[layer]), ([layer], found.alone[layer])):
            refitted = clone(model).fit(K[train][:, :, kernels], y[train])
            loss = log_loss(y[test], refitted.predict_proba(K[test][:, :, kernels]))
            assert score == pytest.approx(-loss, rel=1e-6)


def test_kept_coefficients_are_a_mean_ablation(three_classes):
    X, y = three_classes
    model = classifier(shrinkage=0.0).fit(X, y)
    phi = layer_contributions(model, X, baseline="mean")
    f = model.decision_function(X)
    found = layer_ablation(model, X, y, scoring="accuracy")
    without = [np.mean((f - phi[:, :, layer]).argmax(axis=1) == y) for layer in range(3)]
    mean = f - phi.sum(axis=2)
    alone = [np.mean((mean + phi[:, :, layer]).argmax(axis=1) == y) for layer in range(3)]
    assert_allclose(found.without, without)
    assert_allclose(found.alone, alone)


def test_ablation_takes_callable_scorers_and_weights(three_classes):
    X, y = three_classes
    model = classifier().fit(X, y)
    found = layer_ablation(model, X, y, scoring=lambda model, X, y: model.score(X, y))
    assert found.score == model.score(X, y)
    weights = np.arange(60.0)
    assert layer_ablation(model, X, y, sample_weight=weights).score == pytest.approx(
        model.score(X, y, weights)
    )


# -- similarity and stability -----------------------------------------------------------------


def test_a_layer_given_twice_is_interchangeable_with_itself(three_classes):
    X, y = three_classes
    K = stack(X, X)
    model = MultipleKernelClassifier().fit(K[:, :, [0, 2, 0]], y)
    found = kernel_similarity(model, threshold=0.99)
    assert found.groups == [[0, 2]]
    assert_allclose(found.layers[0, 2], 1)
    assert_allclose(found.targets[:, 0], found.targets[:, 2])
    assert found.layer_names == ["kernel0", "kernel1", "kernel2"]
    assert found.decision_names == ["0", "1", "2"]


def test_similarity_is_the_alignment_of_centred_kernels(case):
    model, _, (X, *targets) = case
    found = kernel_similarity(model, threshold=0.0)
    X = model[:-1].transform(X) if hasattr(model, "steps") else X
    problem = training_problem(machine(model), X, *targets)
    root = np.sqrt(np.outer(problem.p, problem.p))
    kernels = np.array([[root * reference.centred(K, problem.p) for K in planes]
                        for planes in problem.grams.stored().planes])  # fmt: skip
    kernels /= np.linalg.norm(kernels, axis=(2, 3), keepdims=True)
    layers = np.einsum("hkij,hlij->hkl", kernels, kernels)
    assert_allclose(found.layers.reshape(layers.shape), layers, rtol=1e-6, atol=1e-9)
    for c, y in enumerate(problem.Y.T):
        target = root * reference.centred(np.outer(y, y), problem.p)
        with_target = np.einsum("lij,ij->l", kernels[problem.kernels[c]], target)
        assert_allclose(found.targets[c], with_target / np.linalg.norm(target), rtol=1e-6)
    assert found.groups == [list(range(len(found.layer_names)))]
    assert len(found.decision_names) == len(found.targets)
    assert kernel_similarity(model, threshold=1.0).groups == []


def test_layers_must_be_interchangeable_in_every_decision(cases):
    model, *_ = cases["outputs"]
    model = clone(model).fit(*cases["outputs"][2])
    model.layer_alignment_ = np.array([[[1, rho], [rho, 1]] for rho in (0.99, 0.5, 0.99)])
    assert kernel_similarity(model, threshold=0.9).groups == []
    assert kernel_similarity(model, threshold=0.5).groups == [[0, 1]]


def test_stability_resamples_the_weights(case):
    model, _, training = case
    found = weight_stability(model, *training[:2], n_resamples=5, random_state=0)
    shape = machine(model).kernel_weights_.shape
    assert found.weights.shape == (5, *shape)
    assert_allclose(found.weights.sum(axis=2), 1)
    assert (found.weights >= 0).all()
    assert (found.low <= found.high).all()
    assert_allclose(found.mean, found.weights.mean(axis=0))


def test_a_resample_is_a_fit_on_the_resampled_rows(three_classes):
    X, y = three_classes
    K = stack(X, X)
    for parameters in ({"shrinkage": 0.0}, {"kernel_weights": "margin", "tol": 1e-6}):
        model = MultipleKernelClassifier(C=1.0, **parameters).fit(K, y)
        found = weight_stability(model, K, y, n_resamples=1, random_state=3)
        # The same draw, class by class, as counts that a fit takes for sample weights.
        draw = np.random.RandomState(3)
        counts = np.zeros(60)
        for label in (2, 1, 0):  # in the order of the targets (-1, -1, 1), (-1, 1, -1), ...
            rows = np.flatnonzero(y == label)
            counts[rows] = draw.multinomial(len(rows), np.full(len(rows), 1 / len(rows)))
        refitted = clone(model).fit(K, y, counts)
        assert_allclose(found.weights[0], refitted.kernel_weights_, atol=2e-4)


def test_leave_one_out_of_a_resample_leaves_all_copies_out(three_classes):
    X, y = three_classes
    K = stack(X, X)
    model = MultipleKernelClassifier(kernel_weights="margin").fit(K, y)
    problem = training_problem(model, K, y)
    uniform = np.full((3, 3), 1 / 3)
    twice = problem.resampled(np.full(60, 2.0))
    # Everything twice is a larger C and nothing else.
    assert_allclose(
        twice.ridge(uniform, 1.0).loo_scores, problem.ridge(uniform, 2.0).loo_scores, atol=1e-9
    )


def test_intervals_narrow_with_more_data():
    rng = np.random.default_rng(0)
    widths = []
    for n in (60, 600):
        X = rng.normal(size=(n, 3))
        K = stack(X, X)
        y = (X[:, 0] + rng.normal(size=n) > 0).astype(int)
        model = MultipleKernelClassifier(shrinkage=0.0).fit(K, y)
        found = weight_stability(model, K, y, n_resamples=40, random_state=0)
        widths.append((found.high - found.low).max())
    assert widths[1] < widths[0]


# -- notebooks --------------------------------------------------------------------------------


def test_notebooks_show_the_fitted_layers_and_link_to_the_documentation(cases):
    model, *_ = cases["pipeline"]
    page = model._repr_html_()
    assert "/generated/sklearn_nftk.MultiLayerNTKClassifier.html" in page
    for name, weight in zip(
        model[-1].layer_names_, model[-1].kernel_weights_.mean(0), strict=True
    ):
        assert name in page
        assert f"mean weight {weight:.2f}" in page
    assert "layer0" not in clone(model)._repr_html_()


def test_notebooks_show_the_heaviest_of_many_layers(three_classes):
    weights = np.arange(1.0, 12.0)
    model = classifier(network=MLP((4,) * 10), kernel_weights=weights).fit(*three_classes)
    page = model._repr_html_()
    assert "mean weight 0.17" in page  # 11 / 66
    assert "3 more" in page
    assert "mean weight 0.09" in page  # (1 + 2 + 3) / 66
    assert "layer0, layer1, layer2" in page


# -- what cannot be inspected -----------------------------------------------------------------


def test_what_cannot_be_inspected_is_refused(three_classes):
    X, y = three_classes
    model = classifier().fit(X, y)
    with pytest.raises(ValueError, match="baseline must be 'intercept' or 'mean'"):
        layer_contributions(model, X, baseline="zero")
    with pytest.raises(TypeError, match=r"fitted estimator of sklearn_nftk .* got SVC"):
        layer_contributions(SVC().fit(X, y), X)
    with pytest.raises(ValueError, match="top == 0, must be >= 1"):
        training_contributions(model, X, top=0)
    with pytest.raises(ValueError, match="threshold must be in"):
        kernel_similarity(model, threshold=2)
    with pytest.raises(ValueError, match="n_resamples == 0"):
        weight_stability(model, X, y, n_resamples=0)
    with pytest.raises(ValueError, match="must have the classes of the estimator"):
        weight_stability(model, X, y + 1)
    with pytest.raises(ValueError, match="X has 4 features"):
        weight_stability(model, X[:, :4], y)
    with pytest.raises(ValueError, match="refit=True needs training"):
        layer_ablation(model, X, y, refit=True)
    single = MultipleKernelClassifier().fit(stack(X, X)[:, :, :1], y)
    with pytest.raises(ValueError, match="needs two layers or more"):
        layer_ablation(
            single, stack(X, X)[:, :, :1], y, refit=True, training=(stack(X, X)[:, :, :1], y)
        )


def test_contributions_that_do_not_fit_say_what_to_do(three_classes, monkeypatch):
    import sklearn_nftk.utils._memory as memory

    model = classifier().fit(*three_classes)
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=r"\(60, 3, 60\) needs 86,400 bytes .*by `top`"):
        training_contributions(model, three_classes[0])


def test_regression_data_needs_no_classes():
    X, y = make_regression(40, 4, random_state=0)
    model = make_pipeline(StandardScaler(), MultiLayerNTKRegressor(MLP((8,)), random_state=0))
    model.fit(X, y)
    assert kernel_similarity(model).decision_names == ["target"]
    assert weight_stability(model, X, y, n_resamples=3, random_state=0).weights.shape == (3, 1, 2)
