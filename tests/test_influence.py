import pickle

import numpy as np
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from scipy.stats import spearmanr
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
)
from sklearn_nftk.estimators import fitted, fitted_problem, kernel_blocks
from sklearn_nftk.inspection import (
    TrainingContributionsDisplay,
    mislabelled,
    nearest_examples,
    training_contributions,
    training_influence,
)
from sklearn_nftk.networks import MLP, InfiniteMLP
from sklearn_nftk.solvers import LeaveOneOut, logistic, ridge

from . import reference


def three_outputs(n_features, n_outputs, random_state):
    torch.manual_seed(random_state)
    return nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, n_outputs)).double()


def classifier(**parameters):
    parameters = {"network": MLP((16, 16)), "random_state": 0, "C": 10.0, **parameters}
    return MultiLayerNTKClassifier(**parameters)


CLASSIFIERS = {
    "default": classifier(C="auto"),
    "own weights": classifier(shrinkage=0.0),
    "large C": classifier(C=1e4),
    "outputs": classifier(network=three_outputs, outputs="per_class", shrinkage=0.0),
    "cosine": classifier(normalize="cosine"),
    "infinite": classifier(network=InfiniteMLP(depth=2)),
    "several networks": classifier(n_networks=2),
    "cross-fitted": classifier(network=MLP((8,), max_epochs=3), cv=3),
}
CASES = [*CLASSIFIERS, "weights", "copies", "two classes", "two targets", "kernels"]


@pytest.fixture(scope="module")
def cases():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5))
    y = (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 2] > 0.3)
    new, X, y = X[:12], X[12:], y[12:]
    known = {name: (model.fit(X, y), new) for name, model in CLASSIFIERS.items()}
    weights = rng.uniform(0.2, 3.0, len(y)) * (rng.random(len(y)) > 0.1)
    known["weights"] = classifier(class_weight="balanced").fit(X, y, weights), new
    rows = np.r_[: len(y), :10, 3, 3]
    known["copies"] = classifier().fit(X[rows], y[rows]), new
    known["two classes"] = classifier(shrinkage=0.0).fit(X, y > 0), new
    regressor = MultiLayerNTKRegressor(MLP((16,)), random_state=0, C=5.0, shrinkage=0.0)
    known["two targets"] = regressor.fit(X, np.column_stack([X[:, 0] ** 2, X[:, 1]])), new
    stack, across = (
        np.stack([rbf_kernel(Z, X, gamma=gamma) for gamma in (0.05, 0.5)], axis=-1)
        for Z in (X, new)
    )
    known["kernels"] = MultipleKernelClassifier(C=10.0).fit(stack, y), across
    return known


@pytest.fixture(params=CASES)
def case(request, cases):
    return cases[request.param]


def decisions(model, X):
    of = model.decision_function if hasattr(model, "decision_function") else model.predict
    return of(X).reshape(len(X), -1)


def combined_kernels(model, X):
    """Problem and targets of a fit; kernels of each decision, and with the samples X."""
    problem, Y = fitted_problem(model)
    learned = fitted(model)
    kernels = list(problem.grams.combined(learned.kernel_weights, problem.kernels))
    block = np.concatenate([part for _, part in kernel_blocks(model, model._test_set(X))], axis=2)
    across = [
        np.tensordot(of_decision, block[kernel], axes=1)
        for of_decision, kernel in zip(learned.coefficients, problem.kernels, strict=True)
    ]
    return problem, Y, kernels, across


def refitted(model, X):
    """``f - f_{-i}`` of real refits, weights, scales and C held: (n, n_decisions, n_fit)."""
    problem, Y, kernels, across = combined_kernels(model, X)
    changes = []
    for c, K in enumerate(kernels):
        # What is added to coded decisions is the same without an example.
        machine = across[c], Y[:, [c]], problem.s, model.C_
        whole = ridge(K.copy(), Y[:, [c]], problem.s, model.C_)
        f = across[c] @ whole.dual_coef + whole.intercept
        offset = decisions(model, X)[:, [c]] - f
        assert_allclose(offset, offset[0, 0], atol=1e-6 * max(1, np.abs(f).max()))
        changes.append([f - reference.decisions_without(K, *machine, i) for i in range(len(K))])
    of_distinct = np.array(changes)[..., 0].transpose(2, 0, 1)
    return of_distinct[:, :, model._training.rows.copy_of]


# -- the squared loss is exact ------------------------------------------------------------------


def test_influence_is_the_change_of_a_real_refit(case):
    model, X = case
    influence = training_influence(model, X)
    expected = refitted(model, X)
    assert influence.shape == expected.shape == (len(X), *model.dual_coef_.shape)
    assert_allclose(influence, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


def test_influence_of_an_example_on_itself_leaves_its_leave_one_out_score(cases):
    for name in ("default", "own weights", "weights", "copies", "two classes", "two targets"):
        model, _ = cases[name]
        rows = range(len(model.X_fit_))
        own = training_influence(model, model.X_fit_)[rows, :, rows]
        expected = decisions(model, model.X_fit_) - own
        assert_allclose(expected, model.loo_scores_, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("output", ["decision", "margin"])
@pytest.mark.parametrize("loss", [None, "log_loss"])
def test_layers_and_intercept_sum_to_the_influence(cases, output, loss):
    for name in ("own weights", "outputs", "two classes", "kernels", "weights", "two targets"):
        model, X = cases[name]
        if name == "two targets" and (loss or output == "margin"):
            continue
        asked = {"loss": loss, "output": output}
        whole = training_influence(model, X, **asked)
        parts = training_influence(model, X, per_layer=True, **asked)
        assert parts.influence.shape == (*whole.shape, model.kernel_weights_.shape[1])
        total = parts.influence.sum(axis=3) + parts.intercept
        assert_allclose(total, whole, rtol=0, atol=1e-10 * np.abs(whole).max())
        top = training_influence(model, X, per_layer=True, top=4, **asked)
        chosen = np.take_along_axis(whole, top.indices, axis=2)
        assert_allclose(top.influence.sum(axis=3) + top.intercept, chosen, rtol=0, atol=1e-10)


def test_a_layer_has_the_influence_of_its_kernel(cases):
    """By refits: what the kernel with one layer's part contributes, before minus after."""
    model, X = cases["kernels"]
    problem, Y, kernels, _ = combined_kernels(model, X)
    learned, s = fitted(model), problem.s
    planes = np.moveaxis(X, -1, 0)[..., model._training.rows.first]
    parts = training_influence(model, X, per_layer=True)
    for i in (0, 7):
        kept = np.arange(len(s)) != i
        for c, K in enumerate(kernels):
            without = ridge(K[kept][:, kept].copy(), Y[kept][:, [c]], s[kept], model.C_)
            a = np.zeros(len(s))
            a[kept] = without.dual_coef[:, 0]
            for layer, plane in enumerate(planes):
                change = learned.coefficients[c, layer] * plane @ (learned.dual_coef[c] - a)
                assert_allclose(parts.influence[:, c, i, layer], change, atol=1e-9)


def test_the_largest_influences(case):
    model, X = case
    whole = training_influence(model, X)
    found = training_influence(model, X, top=5)
    first = model._training.rows.first
    distinct = np.abs(whole[:, :, first])
    sizes = np.sort(distinct, axis=2)[..., ::-1][..., :5]
    assert_allclose(np.abs(found.influence), sizes, rtol=1e-9)
    assert_array_equal(found.influence, np.take_along_axis(whole, found.indices, axis=2))
    assert np.isin(found.indices, first).all()
    everything = training_influence(model, X[:1], top=1000)
    assert everything.indices.shape[2] == len(first)


def test_a_weight_is_so_many_repetitions(three_classes):
    X, y = three_classes
    counts = np.random.RandomState(0).randint(0, 4, len(y))
    weighted = classifier().fit(X, y, counts)
    repeated = classifier().fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    by_weight = np.repeat(training_influence(weighted, X[:5]), counts[counts > 0], axis=2)
    assert_allclose(training_influence(repeated, X[:5]), by_weight, rtol=1e-6, atol=1e-9)


def test_another_C_is_that_of_a_machine_with_it(three_classes):
    X, y = three_classes
    one, other = (classifier(kernel_weights="uniform", C=C).fit(X, y) for C in (1.0, 30.0))
    asked = training_influence(one, X[:5], C=30.0)
    if np.array_equal(one.class_codes_, other.class_codes_):
        assert_allclose(asked, training_influence(other, X[:5]), rtol=1e-8, atol=1e-10)
    else:
        pytest.fail("the two machines have codes of their own; choose other data")


def test_C_for_attribution_depends_on_no_units(three_classes):
    X, y = three_classes
    K = rbf_kernel(X, gamma=0.1)
    weights = np.random.RandomState(0).uniform(0.5, 2, len(y))
    found = []
    for kernel, normalize, factor in [(K, "variance", 1), (7 * K, "none", 1), (K, "trace", 10)]:
        model = MultipleKernelClassifier(normalize=normalize, C=1.0)
        model.fit(kernel[..., None], y, factor * weights)
        found.append(training_influence(model, kernel[:5, :, None], C="attribution"))
    assert_allclose(found[1], found[0], rtol=1e-7, atol=1e-10)
    assert_allclose(found[2], found[0], rtol=1e-7, atol=1e-10)
    given = training_influence(model, K[:5, :, None], C=2.0)
    assert np.abs(given - found[0]).max() > 0.01


def test_pipelines_searches_and_tables(three_classes):
    pd = pytest.importorskip("pandas")
    X, y = three_classes
    X = pd.DataFrame(X, index=[f"row {i}" for i in range(len(y))], columns=list("abcde"))
    pipeline = make_pipeline(StandardScaler(), classifier()).fit(X, y)
    inside = training_influence(pipeline[-1], pipeline[:-1].transform(X))
    assert_allclose(training_influence(pipeline, X), inside)
    search = GridSearchCV(classifier(), {"C": [1.0, 10.0]}, cv=2).fit(X, y)
    found = training_influence(search, X.iloc[:2], top=3)
    assert found.index[0, 0, 0] == f"row {found.indices[0, 0, 0]}"


def test_blocks_and_threads_change_nothing(cases):
    model, X = cases["own weights"]
    X = np.tile(X, (60, 1))  # more rows than a task has
    whole = training_influence(model, X, top=3, per_layer=True)
    with sklearn.config_context(working_memory=0.2):
        parts = training_influence(model, X, top=3, per_layer=True)
    assert_array_equal(parts.indices, whole.indices)
    assert_allclose(parts.influence, whole.influence, rtol=1e-9, atol=1e-12)


def test_float32_kernels(three_classes):
    X, y = (a.astype(np.float32) if a.dtype == float else a for a in three_classes)
    model = classifier().fit(X, y)
    assert_allclose(training_influence(model, X), refitted(model, X), atol=2e-5)


def test_kernels_that_rounding_made_indefinite():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 3))
    K = features @ features.T
    K[0, 0] -= 1e-3  # no kernel any more
    with_error = LeaveOneOut(K.copy(), np.full(20, 1e6), features[:, :1])
    assert np.isfinite(with_error.H).all()
    values, vectors = np.linalg.eigh(1e6 * K)
    assert values.min() < -1
    N = (vectors / (values.clip(0) + 1)) @ vectors.T
    gamma = N.sum(axis=0) / N.sum()
    assert_allclose(with_error.H, N - np.outer(N.sum(axis=0), gamma), atol=1e-8)


def test_blocks_of_the_inverse_are_put_together(monkeypatch, rng):
    features = rng.normal(size=(30, 4))
    K, v = features @ features.T, rng.uniform(0.1, 3.0, 30)
    whole = LeaveOneOut(K.copy(), v, features)
    monkeypatch.setattr("sklearn_nftk.solvers._leave_one_out._ROWS", 7)
    parts = LeaveOneOut(K.copy(), v, features)
    assert_array_equal(parts.H, parts.H.T)
    assert_allclose(parts.H, whole.H, atol=1e-13)


# -- the logistic loss --------------------------------------------------------------------------


def test_logistic_machine_is_that_of_the_reference(cases, rng):
    model, X = cases["kernels"]
    problem, _, kernels, across = combined_kernels(model, X)
    s = rng.uniform(0.5, 2.0, len(problem.s))
    for C in (0.1, 5.0, 100.0):
        y = problem.Y[:, 0]
        found = logistic(kernels[0], y, s, C)
        expected = reference.logistic_decisions(kernels[0], across[0], y, s, C)
        assert_allclose(across[0] @ found.dual_coef + found.intercept, expected, atol=2e-5)
        u = y * (kernels[0] @ found.dual_coef + found.intercept)
        assert_allclose(found.dual_coef, C * s * y / (1 + np.exp(u)), atol=2e-6 * C)
        assert abs(found.dual_coef.sum()) < 1e-8 * C


@pytest.mark.parametrize("name", ["kernels", "two classes", "weights"])
def test_logistic_influence_ranks_as_real_refits(cases, name):
    model, X = cases[name]
    problem, _, kernels, across = combined_kernels(model, X)
    influence = training_influence(model, X, loss="log_loss", C=5.0)
    for c, K in enumerate(kernels):
        y, s = problem.Y[:, c], problem.s
        whole = reference.logistic_decisions(K, across[c], y, s, 5.0)
        changes = []
        for i in range(len(K)):
            kept = np.arange(len(K)) != i
            parts = K[kept][:, kept], across[c][:, kept], y[kept], s[kept]
            changes.append(whole - reference.logistic_decisions(*parts, 5.0))
        expected = np.array(changes).T
        found = influence[:, c][:, model._training.rows.first]
        assert spearmanr(found.ravel(), expected.ravel()).statistic > 0.99
        assert np.abs(found - expected).max() < 0.12 * np.abs(expected).max()


def test_newton_steps_that_do_not_converge_warn(monkeypatch, three_classes):
    X, y = three_classes
    monkeypatch.setattr("sklearn_nftk.solvers._logistic._MAX_ITER", 1)
    with pytest.warns(ConvergenceWarning, match="C is 1e"):
        logistic(rbf_kernel(X), np.where(y == 0, 1.0, -1.0), np.ones(len(y)), 1e4)


def test_margins_are_derivatives_of_log_odds(cases):
    """To first order: by finite differences of the log-odds of the network's outputs."""
    model, X = cases["own weights"]
    changes = training_influence(model, X)
    logits = model.decision_function(X) / model.temperature_  # one output: no class outputs
    margins = training_influence(model, X, output="margin")
    outputs, X_outputs = cases["outputs"]
    of_network = training_influence(outputs, X_outputs, output="margin")
    network = outputs.kernel_source_.network_outputs(X_outputs)
    for given, steps, found in [
        (logits, changes, margins),
        (network, training_influence(outputs, X_outputs), of_network),
    ]:
        for c in range(3):
            others = np.arange(3) != c

            def log_odds(z, c=c, others=others):
                return z[:, c] - logsumexp(z[:, others], axis=1)

            step = 1e-5 * steps[:, :, 4]
            slope = (log_odds(given + step) - log_odds(given - step)) / 2e-5
            assert_allclose(found[:, c, 4], slope, atol=1e-6)
    two, X_two = cases["two classes"]
    margins = training_influence(two, X_two, output="margin")
    assert_array_equal(margins, training_influence(two, X_two))


# -- what is asked wrongly ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"C": -1.0}, "C must be a positive number, 'attribution' or None"),
        ({"C": "auto"}, "C must be"),
        ({"C": True}, "C must be"),
        ({"loss": "hinge"}, "loss must be 'squared', 'log_loss' or None"),
        ({"output": "logit"}, "output must be 'decision' or 'margin'"),
        ({"top": 0}, "top == 0, must be >= 1"),
    ],
)
def test_parameters_are_checked(cases, asked, message):
    model, X = cases["default"]
    if asked == {"loss": "hinge"}:
        asked = {"loss": "hinged"}
    with pytest.raises(ValueError, match=message):
        training_influence(model, X, **asked)


def test_machines_that_cannot_be_asked(cases, three_classes):
    X, y = three_classes
    regressor, new = cases["two targets"]
    with pytest.raises(ValueError, match="for a regressor use 'squared'"):
        training_influence(regressor, new, loss="log_loss")
    with pytest.raises(ValueError, match="for a regressor use 'decision'"):
        training_influence(regressor, new, output="margin")
    hinge = classifier(loss="hinge").fit(X, y)
    with pytest.raises(ValueError, match="loss='squared' or 'log_loss'"):
        training_influence(hinge, X)
    assert training_influence(hinge, X, loss="log_loss").shape == (60, 3, 60)
    kernels, K = cases["kernels"]
    unpickled = pickle.loads(pickle.dumps(kernels))
    assert_array_equal(unpickled.predict(K), kernels.predict(K))
    with pytest.raises(ValueError, match="does not know the kernels of its training set"):
        training_influence(unpickled, K)
    networks, new = cases["own weights"]
    unpickled = pickle.loads(pickle.dumps(networks))
    assert_allclose(training_influence(unpickled, new), training_influence(networks, new))


def test_a_result_that_does_not_fit_into_memory_is_refused(cases, monkeypatch):
    model, X = cases["default"]
    monkeypatch.setattr("sklearn_nftk.utils._memory.available_memory", lambda: 10_000)
    with pytest.raises(MemoryError, match=r"Training influence of shape \(12, 3, 48, 3\)"):
        training_influence(model, X, per_layer=True)


# -- contributions, neighbours, labels ------------------------------------------------------------


@pytest.mark.parametrize("per_layer", [False, True])
def test_contributions_from_the_mean(case, per_layer):
    model, X = case
    psi = training_contributions(model, X, baseline="mean", per_layer=per_layer)
    total = psi.reshape(*psi.shape[:2], -1).sum(axis=2)
    mean = model.intercept_ + model.mean_contributions_.sum(axis=1)
    scores = decisions(model, X)
    assert_allclose(total, scores - mean, atol=1e-9 * np.abs(scores).max())
    whole = training_contributions(model, X, baseline="intercept", per_layer=per_layer)
    difference = whole - psi  # the mean contribution of each example: no sample changes it
    assert_allclose(difference, difference[:1].repeat(len(X), axis=0), atol=1e-9)
    top = training_contributions(model, X, top=2, baseline="mean", per_layer=per_layer)
    if not per_layer:
        assert_allclose(np.abs(top.contributions[..., 0]), np.abs(psi).max(axis=2))


def test_an_unknown_baseline_is_refused(cases):
    with pytest.raises(ValueError, match="baseline must be 'intercept' or 'mean', got 'zero'"):
        training_contributions(*cases["default"], baseline="zero")


def test_nearest_examples_by_distances_from_the_mean(cases):
    for name in ("own weights", "outputs", "copies", "weights", "cosine"):
        model, X = cases[name]
        source, learned = model.kernel_source_, fitted(model)
        everything = np.concatenate([X, model.X_fit_])
        planes = source.gram(source.prepare(everything))
        kernels = [
            np.tensordot(w, planes[c if len(planes) > 1 else 0], axes=1)
            for c, w in enumerate(learned.coefficients)
        ]
        K, n = np.mean(kernels, axis=0), len(X)
        p = np.zeros(len(K))
        p[n:] = model._training.s / model._training.s.sum()
        K = reference.centred(K, p)
        cosines = K / np.sqrt(np.outer(K.diagonal(), K.diagonal()))
        first = model._training.rows.first
        cosines = cosines[:n, n:][:, first]
        found = nearest_examples(model, X, n_neighbors=4)
        expected = -np.sort(-cosines, axis=1)[:, :4]
        assert_allclose(found.similarities, expected, rtol=1e-6, atol=1e-9)
        own = nearest_examples(model, model.X_fit_, n_neighbors=1)
        assert_allclose(own.similarities, 1, atol=1e-6)
        assert_array_equal(own.indices[:, 0], first[model._training.rows.copy_of])


def test_neighbours_that_cannot_be_asked_for(cases):
    with pytest.raises(ValueError, match="precomputed"):
        nearest_examples(*cases["kernels"])
    with pytest.raises(ValueError, match="n_neighbors == 49, must be <= 48"):
        nearest_examples(*cases["default"], n_neighbors=49)


@pytest.mark.parametrize("cv", [None, 3])
def test_mislabelled_examples_are_found(cv):
    X, y = load_digits(return_X_y=True)
    X, y = X[:600], y[:600].copy()
    rng = np.random.default_rng(0)
    wrong = rng.permutation(600)[:60]
    y[wrong] = (y[wrong] + rng.integers(1, 10, 60)) % 10
    network = MLP((32,), max_epochs=0 if cv is None else 3)
    model = MultiLayerNTKClassifier(network, cv=cv, random_state=0).fit(X / 16, y)
    found = mislabelled(model)
    assert np.isin(found.indices[:60], wrong).mean() > 0.9
    assert (np.diff(found.margins) >= 0).all()
    assert_array_equal(np.sort(found.indices), np.arange(600))
    # Of so many as are wrong, expected and real precision agree.
    assert abs(found.expected_precision[59] - np.isin(found.indices[:60], wrong).mean()) < 0.12
    assert_allclose(found.expected_precision[-1], found.probabilities.mean())
    true = load_digits().target[:600]
    among = np.isin(found.indices[:60], wrong)
    assert (found.suggested == true[found.indices])[:60][among].mean() > 0.9


def test_margins_of_two_classes(cases):
    model, _ = cases["two classes"]
    found = mislabelled(model)
    y = np.where(model._training.strata == 1, 1, -1)
    assert_allclose(found.margins, np.sort(2 * y * model.loo_scores_[:, 0]))
    assert (found.suggested != model.classes_[model._training.strata[found.indices]]).all()


def test_machines_without_labels_or_scores(cases, three_classes):
    with pytest.raises(ValueError, match="must be a classifier"):
        mislabelled(cases["two targets"][0])
    with pytest.raises(ValueError, match="must have loo_scores_"):
        mislabelled(classifier(loss="hinge").fit(*three_classes))


# -- the picture ----------------------------------------------------------------------------------


def test_the_examples_shown_are_those_of_the_largest_influence(cases):
    model, X = cases["own weights"]
    display = TrainingContributionsDisplay.from_estimator(model, X, top=2)
    assert display.method == "influence"
    chosen = model.decision_function(X).argmax(axis=1)
    influence = training_influence(model, X)[range(len(X)), chosen]
    assert_allclose(display.values[:, 0, 0], influence.max(axis=1))
    assert_allclose(display.values[:, 1, 0], influence.min(axis=1))
    hinge = classifier(loss="hinge").fit(model.X_fit_, model.predict(model.X_fit_))
    assert TrainingContributionsDisplay.from_estimator(hinge, X).method == "contributions"
    with pytest.raises(ValueError, match="method must be 'auto'"):
        TrainingContributionsDisplay.from_estimator(model, X, method="shapley")


def test_each_decision_has_examples_of_its_own():
    """With a large C, the same dozen examples have the largest contributions to everything."""
    X, y = load_breast_cancer(return_X_y=True)
    X, new, y, _ = train_test_split(X, y, stratify=y, random_state=0)
    model = make_pipeline(StandardScaler(), MultiLayerNTKClassifier(random_state=0)).fit(X, y)
    counts = {}
    for method in ("influence", "contributions"):
        display = TrainingContributionsDisplay.from_estimator(model, new[:25], method=method)
        counts[method] = len(np.unique(display.indices))  # in 25 x 2 x 5 places
    assert counts["influence"] >= 50 > counts["contributions"]
