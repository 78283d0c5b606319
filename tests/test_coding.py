"""Codes of the classes: no class is masked, and nothing changes where none was."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler

from sklearn_nftk import MultiLayerNTKClassifier, MultipleKernelClassifier
from sklearn_nftk.inspection import layer_contributions, training_contributions
from sklearn_nftk.kernels import layer_kernels
from sklearn_nftk.learner._coding import CodingStudy, _logistic, choose_coding
from sklearn_nftk.networks import MLP

from . import reference

NETWORK = MLP((64, 64), random_state=0)


@pytest.fixture(scope="module")
def row_of_classes():
    """A smooth function of half of the features, cut into seven classes."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((420, 6))
    f = np.tanh(0.3 * X[:, :3] @ rng.standard_normal((3, 3))).sum(axis=1)
    return X, np.digitize(f, np.quantile(f, np.arange(1, 7) / 7))


@pytest.fixture(scope="module")
def coded(row_of_classes):
    X, y = row_of_classes
    return MultiLayerNTKClassifier(NETWORK).fit(X[:300], y[:300])


def is_one_vs_rest(model):
    n_classes = len(model.classes_)
    return np.array_equal(model.class_codes_, 2 * np.eye(n_classes) - 1)


def test_classes_in_a_row_are_told_apart(row_of_classes, coded):
    X, y = row_of_classes
    assert not is_one_vs_rest(coded)
    # "margin" keeps one-vs-rest targets, whose certificate it gives
    masked = MultiLayerNTKClassifier(NETWORK, kernel_weights="margin").fit(X[:300], y[:300])
    assert is_one_vs_rest(masked)
    assert coded.score(X[300:], y[300:]) > masked.score(X[300:], y[300:]) + 0.15
    middle = np.isin(y[300:], [2, 3, 4])
    recalls = [
        np.mean(model.predict(X[300:])[middle] == y[300:][middle]) for model in (masked, coded)
    ]
    assert recalls[1] > recalls[0] + 0.2
    losses = [
        -np.mean(model.predict_log_proba(X[300:])[np.arange(120), y[300:]])
        for model in (masked, coded)
    ]
    assert losses[1] < 0.75 * losses[0]


def test_decisions_are_kernel_machines_on_the_codes(row_of_classes, coded):
    X, y = row_of_classes
    K = np.moveaxis(layer_kernels(coded.network_, X[:300]) / coded.layer_scales_, -1, 0)
    for c in range(7):
        combined = np.tensordot(coded.kernel_weights_[c], K, axes=1)
        targets = coded.class_codes_[y[:300], c]
        a, b = reference.ridge(combined, targets, np.ones(300), coded.C_)
        assert_allclose(coded.dual_coef_[c], a, rtol=1e-5, atol=1e-7 * np.abs(a).max())
        offset = coded.intercept_[c] - b
        decision = combined @ a + b + offset
        assert_allclose(coded.decision_function(X[:300])[:, c], decision, rtol=1e-6, atol=1e-8)
        left_out = np.delete(np.arange(300), 5)
        a, b = reference.ridge(
            combined[np.ix_(left_out, left_out)], targets[left_out], np.ones(299), coded.C_
        )
        assert_allclose(coded.loo_scores_[5, c], combined[5, left_out] @ a + b + offset, rtol=1e-6)


def test_splits_stay_exact(row_of_classes, coded):
    X, _ = row_of_classes
    decisions = coded.decision_function(X[300:310])
    phi = layer_contributions(coded, X[300:310])
    assert_allclose(phi.sum(axis=2) + coded.intercept_, decisions, rtol=1e-10)
    psi = training_contributions(coded, X[300:310])
    assert_allclose(psi.sum(axis=2) + coded.intercept_, decisions, rtol=1e-9)
    assert_allclose(coded.dual_coef_.sum(axis=1), 0, atol=1e-8 * np.abs(coded.dual_coef_).sum())
    winners = coded.predict_proba(X[300:310]).argmax(axis=1)
    assert_array_equal(coded.classes_[winners], coded.predict(X[300:310]))


def test_names_and_order_of_the_classes_change_nothing(row_of_classes, coded):
    X, y = row_of_classes
    names = np.array(["f", "b", "g", "a", "e", "c", "d"])
    order = np.random.default_rng(1).permutation(300)
    model = MultiLayerNTKClassifier(NETWORK).fit(X[order], names[y[order]])
    mine = np.searchsorted(model.classes_, names)
    assert_allclose(
        model.decision_function(X[300:])[:, mine], coded.decision_function(X[300:]), atol=1e-3
    )


def test_weights_are_repetitions_with_codes_too(row_of_classes, rng):
    X, y = row_of_classes
    w = rng.integers(0, 3, 300)
    again = np.repeat(np.arange(300), w)
    weighted = MultiLayerNTKClassifier(NETWORK).fit(X[:300], y[:300], w)
    expected = weighted.decision_function(X[300:])
    assert not is_one_vs_rest(weighted)
    repeated = MultiLayerNTKClassifier(NETWORK).fit(X[again], y[again])
    assert_allclose(repeated.decision_function(X[300:]), expected, atol=1e-6)


@pytest.mark.parametrize("load", [load_iris, load_digits])
def test_where_no_class_is_masked_one_vs_rest_stays(load):
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X)[:500]
    model = MultiLayerNTKClassifier(NETWORK).fit(X, y[:500])
    assert is_one_vs_rest(model)


@pytest.mark.parametrize("parameters", [{}, {"loss": "hinge"}])
def test_two_classes_have_one_code(parameters, two_classes):
    model = MultiLayerNTKClassifier(NETWORK, **parameters).fit(*two_classes)
    assert_array_equal(model.class_codes_, [[-1], [1]])


def test_codes_must_be_better_on_the_weights_of_each_decision(row_of_classes):
    """They are chosen on weights that all decisions share."""
    X, y = row_of_classes
    X, y = X[:300], y[:300]
    # Each decision has a kernel of its own, which sees one feature; only their mean sees all.
    columns = [0, 1, 2, 3, 4, 5, 5]
    stack = np.stack([rbf_kernel(X[:, [j]], gamma=0.05) for j in columns], axis=-1)
    apart = MultipleKernelClassifier(kernel_weights=np.eye(7)).fit(stack, y)
    assert is_one_vs_rest(apart)
    assert not is_one_vs_rest(MultipleKernelClassifier(kernel_weights="uniform").fit(stack, y))


def test_a_given_C_is_kept(row_of_classes):
    X, y = row_of_classes
    K = rbf_kernel(X[:300], gamma=0.05)
    model = MultipleKernelClassifier(C=3.0).fit(K, y[:300])
    assert model.C_ == 3.0
    assert not is_one_vs_rest(model)


# -- the study itself ---------------------------------------------------------------------------


def test_logistic_regression_is_that_of_scikit_learn(rng):
    logits = rng.standard_normal((80, 3))
    labels = (logits + rng.standard_normal((80, 3))).argmax(axis=1)
    p = rng.uniform(0.5, 1.5, 80)
    p /= p.sum()
    D = _logistic(logits, labels, p, 1e-8)
    ours = log_softmax(logits + logits @ D[:-1] + D[-1], axis=1)
    free = LogisticRegression(C=1e6, tol=1e-10, max_iter=2000)
    theirs = free.fit(logits, labels, sample_weight=80 * p).predict_log_proba(logits)
    assert_allclose(ours, theirs, atol=1e-3)
    assert_allclose(_logistic(logits, labels, p, 1e6)[:-1], 0, atol=1e-5)


def test_two_standard_errors_of_the_weighted_differences_decide(rng):
    study = CodingStudy(np.arange(90) % 3, rng.uniform(0.5, 2, 90), np.arange(90))
    than = rng.uniform(1, 2, 90)
    noise = rng.standard_normal(90)
    noise -= study.p @ noise
    standard_error = np.sqrt(study.p**2 @ noise**2)
    assert study.is_better(than - noise - 2.01 * standard_error, than)
    assert not study.is_better(than - noise - 1.99 * standard_error, than)


def test_folds_hold_each_class_and_do_not_know_the_order(rng):
    labels = rng.integers(0, 4, 60)
    study = CodingStudy(labels, np.ones(60), np.arange(60))
    counts = [np.bincount(labels[study.folds == fold], minlength=4) for fold in range(3)]
    assert np.ptp(counts, axis=0).max() <= 1
    shuffled = rng.permutation(60)
    other = CodingStudy(labels[shuffled], np.ones(60), np.argsort(shuffled))
    assert_array_equal(other.folds, study.folds[shuffled])


def test_noise_is_no_reason_for_codes(rng):
    for _ in range(20):
        labels = np.arange(120) % 4
        scores = np.where(labels[:, None] == np.arange(4), 0.5, -0.5) + rng.standard_normal(
            (120, 4)
        )
        study = CodingStudy(labels, np.ones(120), rng.permutation(120))
        assert choose_coding(study, {1.0: scores}, 1.0)[0] is None


def test_the_same_sample_in_several_classes_is_no_evidence():
    """Leave-one-out of such a row sees the other classes at its place, and not its own."""
    rng = np.random.default_rng(0)
    # seven segments of a display, each wrong one time in five
    digits = rng.permutation(128)[:10, None] >> np.arange(7) & 1
    y = np.arange(900) % 10
    X = (digits[y] ^ (rng.uniform(size=(900, 7)) < 0.2)).astype(float)
    model = MultiLayerNTKClassifier(random_state=0).fit(X[:600], y[:600])
    assert is_one_vs_rest(model)
    # the true patterns would score 0.55, chance 0.1
    assert model.score(X[600:], y[600:]) > 0.35


def test_labels_without_meaning_are_no_reason_for_codes():
    """Leave-one-out decisions lean away from each sample's own class, which is no evidence."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y = rng.choice(5, 150, p=[0.35, 0.25, 0.2, 0.12, 0.08])
        X = rng.standard_normal((150, 5))
        assert is_one_vs_rest(MultiLayerNTKClassifier(NETWORK).fit(X, y))
