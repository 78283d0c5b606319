import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.inspection import layer_contributions
from sklearn_nftk.kernels import layer_kernels
from sklearn_nftk.networks import MLP
from sklearn_nftk.solvers import C_GRID

from . import reference

SMALL = MLP(hidden_layer_sizes=(16, 16))


def fitted(X, y, sample_weight=None, **parameters):
    parameters = {"network": SMALL, "random_state": 0, **parameters}
    return MultiLayerNTKClassifier(**parameters).fit(X, y, sample_weight)


def normalised(model, X, Z):
    """``K_l(x, z)`` of a fitted model, from the public kernels."""
    stack = np.moveaxis(layer_kernels(model.network_, X, Z), -1, 0)
    return stack / model.layer_scales_[:, None, None]


@pytest.mark.parametrize("loss", ["squared", "hinge"])
@pytest.mark.parametrize("weights", ["alignment", "uniform", "sum", [1, 2, 3]])
def test_decision_is_the_double_sum(loss, weights, three_classes):
    X, y = three_classes
    model = fitted(X[:45], y[:45], loss=loss, kernel_weights=weights, shrinkage=0.25)
    K = normalised(model, X[45:], model.X_fit_)
    expected = np.zeros((15, 3))
    for c in range(3):
        for layer in range(3):
            for i in range(45):
                term = model.dual_coef_[c, i] * K[layer, :, i]
                expected[:, c] += model.kernel_weights_[c, layer] * term
    expected += model.intercept_
    assert_allclose(model.decision_function(X[45:]), expected, rtol=1e-8, atol=1e-10)
    assert_array_equal(model.predict(X[45:]), expected.argmax(axis=1))
    assert (model.kernel_weights_ >= 0).all()
    assert_allclose(model.kernel_weights_.sum(axis=1), 1, rtol=1e-12)
    assert_allclose(model.dual_coef_.sum(axis=1), 0, atol=1e-8 * np.abs(model.dual_coef_).sum())


def test_scale_is_the_weighted_variance(three_classes, rng):
    X, y = three_classes
    w = rng.uniform(0.1, 2, len(y))
    model = fitted(X, y, w, class_weight={0: 1.0, 1: 3.0, 2: 0.5})
    s = w * np.array([1.0, 3.0, 0.5])[y]
    p = s / s.sum()
    stack = np.moveaxis(layer_kernels(model.network_, X), -1, 0)
    expected = [p @ K.diagonal() - p @ K @ p for K in stack]
    assert_allclose(model.layer_scales_, expected, rtol=1e-10)


def test_leave_one_out_scores_equal_refits(two_classes, rng):
    X, y = two_classes
    w = rng.choice([0.25, 0.6, 1.0, 2.5], len(y))
    model = fitted(X, y, w, class_weight={0: 0.7, 1: 2.0})
    K = np.tensordot(model.kernel_weights_[0], normalised(model, X, X), 1)
    s = w * np.where(y == 1, 2.0, 0.7)
    expected = reference.leave_one_out(K, 2.0 * y - 1, s, model.C_)
    assert_allclose(model.loo_scores_, expected[:, None], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("loss", ["squared", "hinge"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_integer_weights_mean_repeated_rows(loss, class_weight, three_classes, rng):
    X, y = three_classes
    w = rng.integers(0, 4, len(y))
    parameters = {"loss": loss, "class_weight": class_weight, "shrinkage": 0.3}
    weighted = fitted(X, y, w, **parameters)
    repeated = fitted(X.repeat(w, axis=0), y.repeat(w), **parameters)
    assert len(weighted.X_fit_) == np.count_nonzero(w)
    assert_allclose(weighted.kernel_weights_, repeated.kernel_weights_, rtol=1e-8)
    assert weighted.C_ == repeated.C_
    assert_allclose(
        weighted.decision_function(X), repeated.decision_function(X), rtol=1e-6, atol=1e-6
    )


def test_sum_without_normalisation_is_the_ordinary_ntk(two_classes):
    X, y = two_classes
    model = fitted(X, y, kernel_weights="sum", C=1.0)
    K = layer_kernels(model.network_, X).sum(axis=2) / model.layer_scales_.sum()
    a, b = reference.ridge(K, 2.0 * y - 1, np.ones(len(y)), 1.0)
    assert_allclose(model.decision_function(X), K @ a + b, rtol=1e-8)
    raw = fitted(X, y, kernel_weights="sum", normalize="none", C=1.0)
    assert_allclose(raw.kernel_weights_, 1 / 3)


@pytest.mark.parametrize("normalize", ["variance", "trace", "cosine", "none"])
def test_normalisations(normalize, two_classes):
    X, y = two_classes
    model = fitted(X, y, normalize=normalize, shrinkage=0.0)
    assert model.score(X, y) > 0.8
    stack = np.moveaxis(layer_kernels(model.network_, X), -1, 0)
    if normalize == "cosine":
        root = np.sqrt(np.einsum("lii->li", stack))
        stack = stack / root[:, :, None] / root[:, None, :]
    K = np.tensordot(model.kernel_weights_[0] / model.layer_scales_, stack, 1)
    expected = K @ model.dual_coef_[0] + model.intercept_[0]
    assert_allclose(model.decision_function(X), expected, rtol=1e-8)


def test_statistics_for_inspection(three_classes):
    X, y = three_classes
    model = fitted(X, y, kernel_weights="uniform")
    K = normalised(model, X, X)
    p = np.full(len(y), 1 / len(y))
    centred = np.array([reference.centred(k, p) for k in K])
    norms = np.sqrt(np.sum(centred**2, axis=(1, 2)))
    expected = np.einsum("kij,lij->kl", centred, centred) / np.outer(norms, norms)
    assert_allclose(model.layer_alignment_, expected, rtol=1e-8)
    for c in range(3):
        target = reference.centred(np.outer(*[np.where(y == c, 1.0, -1.0)] * 2), p)
        expected = np.sum(centred * target, axis=(1, 2)) / norms / np.linalg.norm(target)
        assert_allclose(model.target_alignment_[c], expected, rtol=1e-8)
    sums = np.einsum("lij,cj->cl", K, model.dual_coef_) / len(y)
    assert_allclose(model.mean_contributions_, model.kernel_weights_ * sums, rtol=1e-6, atol=1e-9)
    assert model.n_iter_ == 1


def test_string_labels_and_one_row_for_two_classes(two_classes):
    X, y = two_classes
    labels = np.array(["no", "yes"])[y]
    model = fitted(X, labels)
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.decision_function(X).shape == (50,)
    assert model.kernel_weights_.shape == (1, 3)
    assert model.dual_coef_.shape == (1, 50)
    assert model.intercept_.shape == (1,)
    assert_array_equal(model.predict(X) == "yes", model.decision_function(X) > 0)


def test_predictions_do_not_depend_on_working_memory(three_classes):
    X, y = three_classes
    model = fitted(X, y)
    whole = model.decision_function(X)
    with config_context(working_memory=0.02):
        pieces = model.decision_function(X)
    assert_allclose(pieces, whole, rtol=1e-10)


def test_float32_stays_close(three_classes):
    X, y = three_classes
    double = fitted(X, y, C=1.0, shrinkage=0.5)
    single = fitted(X.astype(np.float32), y, C=1.0, shrinkage=0.5)
    assert next(single.network_.parameters()).dtype == torch.float32
    assert_allclose(single.decision_function(X), double.decision_function(X), atol=1e-3)


def test_random_state_decides_everything(three_classes):
    X, y = three_classes
    first, second, other = (fitted(X, y, random_state=seed) for seed in (3, 3, 4))
    assert_array_equal(first.decision_function(X), second.decision_function(X))
    assert not np.allclose(first.decision_function(X), other.decision_function(X))


@pytest.mark.parametrize("shrinkage", [0.0, 0.4, 1.0])
def test_shrinkage_mixes_with_uniform_weights(shrinkage, three_classes):
    X, y = three_classes
    pure = fitted(X, y, shrinkage=0.0).kernel_weights_
    model = fitted(X, y, shrinkage=shrinkage)
    assert_allclose(model.kernel_weights_, (1 - shrinkage) * pure + shrinkage / 3)
    assert np.abs(pure - 1 / 3).max() > 0.1


def test_auto_shrinkage_leaves_uniform_weights_when_one_layer_is_much_better(rng):
    X = rng.standard_normal((100, 61))

    class TwoViews(nn.Module):
        """One layer sees the informative features, the other only noise."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.signal = nn.Linear(1, 1)
            self.noise = nn.Linear(60, 1)

        def forward(self, x):
            return self.signal(x[:, :1]) + self.noise(x[:, 1:])

    y = X[:, 0] > 0
    model = fitted(X, y, network=TwoViews())
    assert model.layer_names_ == ["signal", "noise"]
    assert model.kernel_weights_[0, 0] > 0.8


def test_per_class_false_gives_equal_rows(three_classes):
    X, y = three_classes
    shared = fitted(X, y, per_class=False, shrinkage=0.0).kernel_weights_
    assert_array_equal(shared, shared[:1].repeat(3, axis=0))
    own = fitted(X, y, per_class=True, shrinkage=0.0).kernel_weights_
    assert not np.allclose(own, own[:1])


def test_relabelled_classes_permute_rows(three_classes):
    X, y = three_classes
    model = fitted(X, y)
    relabelled = fitted(X, np.array([2, 0, 1])[y])
    assert_allclose(
        relabelled.decision_function(X)[:, [2, 0, 1]], model.decision_function(X), rtol=1e-8
    )


def test_network_can_be_a_module_or_a_function(two_classes):
    X, y = two_classes
    seen = []

    def factory(n_features, n_outputs, random_state):
        seen.append((n_features, n_outputs, type(random_state)))
        return nn.Sequential(nn.Linear(n_features, 6), nn.ReLU(), nn.Linear(6, n_outputs))

    before = torch.random.get_rng_state()
    first, second = fitted(X, y, network=factory), fitted(X, y, network=factory)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert seen == [(4, 2, int)] * 2
    assert_array_equal(first.decision_function(X), second.decision_function(X))
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    model = fitted(X, y, network=module)
    assert model.layer_names_ == ["0", "2"]
    assert model.network_ is not module
    for mine, yours in zip(model.network_.parameters(), module.parameters(), strict=True):
        assert torch.equal(mine.float(), yours)
    assert fitted(X, y, network=None).layer_names_ == ["layer0", "layer1", "layer2"]


@pytest.mark.parametrize("fails", [False, True])
def test_users_module_is_left_as_it_was(fails, two_classes):
    X, y = two_classes
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)).train()
    module[0].weight.grad = torch.ones_like(module[0].weight)
    module[2].bias.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    if fails:
        X = X * 1e200
        with pytest.raises(ValueError, match="NaN or infinite"):
            fitted(X, y, network=module)
    else:
        fitted(X, y, network=module).predict(X)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == torch.float32
    assert all(m.training for m in module.modules())
    assert not any(m._forward_hooks for m in module.modules())
    assert torch.equal(module[0].weight.grad, torch.ones_like(module[0].weight))
    assert not module[2].bias.requires_grad


def test_lives_in_pipelines_grids_and_files(three_classes, tmp_path):
    X, y = three_classes
    X = pd.DataFrame(X, columns=list("abcde"))
    pipeline = make_pipeline(StandardScaler(), MultiLayerNTKClassifier(SMALL, random_state=0))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.5
    grid = GridSearchCV(
        pipeline,
        {
            "multilayerntkclassifier__C": ["auto", 1.0],
            "multilayerntkclassifier__kernel_weights": ["alignment", "uniform"],
            "multilayerntkclassifier__network__hidden_layer_sizes": [(8,), (16, 16)],
        },
        n_jobs=2,
        cv=2,
    ).fit(X, y)
    model = grid.best_estimator_
    assert grid.best_score_ > 0.5
    scores = model.decision_function(X)
    assert_array_equal(pickle.loads(pickle.dumps(model)).decision_function(X), scores)
    joblib.dump(model, tmp_path / "model.joblib")
    assert_array_equal(joblib.load(tmp_path / "model.joblib").decision_function(X), scores)
    assert_array_equal(clone(model).fit(X, y).decision_function(X), scores)


def test_names_of_features_are_kept_and_checked(three_classes):
    X, y = three_classes
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = fitted(frame, y)
    assert model.feature_names_in_.tolist() == list("abcde")
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"a": "z"}))


def test_digits_are_learned():
    X, y = load_digits(return_X_y=True)
    model = make_pipeline(StandardScaler(), MultiLayerNTKClassifier(random_state=0))
    assert model.fit(X[:600], y[:600]).score(X[600:1000], y[600:1000]) > 0.93


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"network": "mlp"}, "network must be None, an MLP"),
        ({"network": MLP(activation="step")}, "activation must be one of"),
        ({"network": MLP(hidden_layer_sizes=(0,))}, "hidden_layer_sizes must be"),
        ({"network": MLP(weight_variance=-1.0)}, "weight_variance must be finite and >= 0"),
        ({"network": MLP(bias_variance=[0.1])}, "bias_variance must be a number or one number"),
        ({"network": MLP(parametrization="mup")}, "parametrization must be 'ntk' or 'standard'"),
        ({"layers": "row"}, "The 'layers' parameter"),
        ({"normalize": "l2"}, "The 'normalize' parameter"),
        ({"kernel_weights": "best"}, "The 'kernel_weights' parameter"),
        ({"kernel_weights": [1.0, 2.0]}, r"kernel_weights as an array must have shape \(3,\)"),
        (
            {"kernel_weights": "sum", "normalize": "cosine"},
            r"kernel_weights='sum' .* normalize='cosine'",
        ),
        ({"shrinkage": 1.5}, "The 'shrinkage' parameter"),
        ({"per_class": "yes"}, "The 'per_class' parameter"),
        ({"loss": "log"}, "The 'loss' parameter"),
        ({"C": 0.0}, "The 'C' parameter"),
        ({"class_weight": "even"}, "The 'class_weight' parameter"),
        ({"device": "gpu"}, "device='gpu' is not known to torch"),
        ({"dtype": "int32"}, "dtype='int32' is not accepted"),
        ({"random_state": "seed"}, "The 'random_state' parameter"),
        ({"verbose": -1}, "The 'verbose' parameter"),
        ({"n_jobs": 1.5}, "The 'n_jobs' parameter"),
    ],
)
def test_invalid_parameters_are_named(parameters, message, two_classes):
    X, y = two_classes
    with pytest.raises(ValueError, match=message):
        fitted(X, y, **parameters)


def test_invalid_data_is_refused(two_classes):
    X, y = two_classes
    broken = X.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        fitted(broken, y)
    with pytest.raises(ValueError, match="at least two classes"):
        fitted(X, np.zeros(50))
    with pytest.raises(ValueError, match="at least two classes of positive weight"):
        fitted(X, y, sample_weight=(y == 0).astype(float))
    with pytest.raises(ValueError, match=r"[Nn]egative values in .*sample_weight"):
        fitted(X, y, sample_weight=np.full(50, -1.0))
    with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4"):
        fitted(X, y).predict(X[:, :3])
    with pytest.raises(ValueError, match="Unknown label type"):
        fitted(X, X[:, 0])


def test_constant_kernels_are_announced(two_classes):
    X, y = two_classes
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    layers = {"rest": ["0.*", "2.weight"], "constant": ["2.bias"]}
    with pytest.warns(UserWarning, match=r"\['constant'\]; they get weight 0"):
        model = fitted(X, y, network=network, layers=layers)
    assert_allclose(model.kernel_weights_, [[1, 0]])
    with pytest.warns(UserWarning, match="so the weights are uniform"):
        model = fitted(np.ones_like(X), y, network=network, layers=layers)
    assert_allclose(model.kernel_weights_, [[0.5, 0.5]])
    assert np.isfinite(model.decision_function(X)).all()


def test_kernels_too_large_for_memory_are_refused_beforehand(two_classes, monkeypatch):
    X, y = two_classes
    monkeypatch.setattr("sklearn_nftk.utils._memory.available_memory", lambda: 1000)
    message = r"combined kernel of 50 rows needs 40,000 bytes .* only 1,000 bytes .*n_landmarks"
    with pytest.raises(MemoryError, match=message):
        fitted(X, y)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"loss": "hinge"},
        {"normalize": "cosine", "kernel_weights": "uniform", "C": 3.0},
        {"outputs": "per_class", "shrinkage": 0.0},
        {"per_class": False, "shrinkage": 0.0},
        {"kernel_weights": "margin", "C": 1.0},
    ],
)
def test_kernels_that_do_not_fit_are_streamed_with_the_same_result(
    parameters, three_classes, monkeypatch
):
    X, y = three_classes
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    stored = fitted(X, y, network=network, **parameters)
    # Room for the solver and one combined kernel, and not for the two layers beside them.
    monkeypatch.setattr("sklearn_nftk.grams._streamed.fits", lambda n_bytes: False)
    monkeypatch.setattr("sklearn_nftk.tangents._sizes._TILE_ROWS", 17)
    monkeypatch.setattr("sklearn_nftk.grams._grams.available_memory", lambda: 4 * 8 * 60**2)
    monkeypatch.setattr("sklearn_nftk.grams._streamed.StoredGrams", None)
    streamed = fitted(X, y, network=network, **parameters)
    assert_allclose(streamed.layer_scales_, stored.layer_scales_, rtol=1e-9)
    assert_allclose(streamed.kernel_weights_, stored.kernel_weights_, atol=1e-7)
    assert_allclose(streamed.dual_coef_, stored.dual_coef_, atol=1e-6)
    assert_allclose(streamed.decision_function(X), stored.decision_function(X), atol=1e-6)


@pytest.mark.parametrize("loss", ["squared", "hinge"])
@pytest.mark.parametrize("per_class", [True, False])
def test_per_class_outputs_give_each_class_kernels_of_its_own(loss, per_class, three_classes):
    X, y = three_classes
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    parameters = {"loss": loss, "C": 2.0, "shrinkage": 0.0, "per_class": per_class}
    model = fitted(X, y, network=network, outputs="per_class", **parameters)
    stack = layer_kernels(network, X, outputs="per_class")
    p = np.full(60, 1 / 60)
    assert model.layer_scales_.shape == (3, 2)
    assert model.layer_alignment_.shape == (3, 2, 2)
    terms = []
    for c in range(3):
        kernels = np.moveaxis(stack[c], -1, 0)
        scales = [p @ K.diagonal() - p @ K @ p for K in kernels]
        assert_allclose(model.layer_scales_[c], scales, rtol=1e-9)
        normalised = kernels / np.array(scales)[:, None, None]
        targets = np.where(y == c, 1.0, -1.0)
        terms.append(reference.alignment_terms(normalised, targets, np.ones(60)))
        combined = np.tensordot(model.kernel_weights_[c], normalised, axes=1)
        decision = combined @ model.dual_coef_[c] + model.intercept_[c]
        assert_allclose(model.decision_function(X)[:, c], decision, rtol=1e-8, atol=1e-9)
        if loss == "squared":
            a, _ = reference.ridge(combined, targets, np.ones(60), 2.0)
            assert_allclose(model.dual_coef_[c], a, atol=1e-8)
    if not per_class:
        terms = [tuple(map(sum, zip(*terms, strict=True)))] * 3
    for c, (M, a) in enumerate(terms):
        found = reference.best_on_simplex(M, a, 1e-4)
        assert_allclose(model.kernel_weights_[c], found, atol=1e-3)
    contributions = layer_contributions(model, X)
    assert_allclose(
        contributions.sum(axis=2) + model.intercept_, model.decision_function(X), rtol=1e-10
    )
    assert_allclose(model.mean_contributions_, contributions.mean(axis=0), atol=1e-8)


def test_per_class_outputs_of_two_classes_are_their_difference(two_classes):
    X, y = two_classes
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    class Difference(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            f = self.network(x)
            return (f[:, 1:] - f[:, :1]) / 2**0.5

    model = fitted(X, y, network=network, outputs="per_class")
    expected = fitted(X, y, network=Difference())
    assert model.layer_scales_.shape == (1, 2)
    assert_allclose(model.decision_function(X), expected.decision_function(X), rtol=1e-8)


def test_per_class_chooses_C_on_the_errors_of_all_classes(three_classes):
    X, y = three_classes
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    parameters = {"network": network, "outputs": "per_class", "kernel_weights": "uniform"}
    model = fitted(X, y, **parameters)
    Y = np.where(y[:, None] == [0, 1, 2], 1.0, -1.0)
    errors = [np.sum((Y - fitted(X, y, C=C, **parameters).loo_scores_) ** 2) for C in C_GRID]
    assert C_GRID[np.argmin(errors)] == model.C_


def test_per_class_needs_an_output_for_each_class(three_classes):
    X, y = three_classes
    with pytest.raises(ValueError, match=r"outputs='per_class' needs .*each class.*3, not 1"):
        fitted(X, y, outputs="per_class")


def test_progress_bar_only_when_asked_for(two_classes, capsys):
    X, y = two_classes
    fitted(X, y)
    assert capsys.readouterr() == ("", "")
    fitted(X, y, verbose=1)
    assert "layer kernels" in capsys.readouterr().err


def test_images_reach_a_convolutional_network():
    X, y = load_digits(return_X_y=True)
    images = (X[:300].reshape(-1, 1, 8, 8) - 8) / 8
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 3),
    )
    model = fitted(images[:200], y[:200], network=network)
    assert model.layer_names_ == ["0", "2", "5"]
    assert model.X_fit_.shape == (200, 1, 8, 8)
    assert model.score(images[200:], y[200:300]) > 0.8
    expected = layer_kernels(network.double(), images[200:205], images[:200])
    expected = np.einsum("nml,cl,cm->nc", expected / model.layer_scales_, model.kernel_weights_,
                         model.dual_coef_)  # fmt: skip
    scores = model.decision_function(images[200:205])
    assert_allclose(scores, expected + model.intercept_, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="Found array with dim 4"):
        fitted(images, y[:300], network=None)


def test_integers_reach_an_embedding(rng):
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.leave = nn.Embedding(9, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.leave(torch.relu(self.table(x)).mean(1))

    torch.manual_seed(0)
    X = rng.integers(0, 9, (80, 5))
    y = (X == 3).any(axis=1)
    assert fitted(X, y, network=Words()).score(X, y) > 0.9


def test_refit_takes_the_type_of_the_new_data(three_classes):
    X, y = three_classes
    model = fitted(X, y)
    model.fit(X.astype(np.float32), y)
    assert next(model.network_.parameters()).dtype == torch.float32


def test_outputs_can_be_summed(three_classes):
    X, y = three_classes
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    model = fitted(X, y, network=network, outputs="sum", kernel_weights="uniform")
    stack = np.moveaxis(layer_kernels(network, X, outputs="sum"), -1, 0)
    variances = [K.diagonal().mean() - K.mean() for K in stack]
    assert_allclose(model.layer_scales_, variances, rtol=1e-10)
