import copy
import itertools
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.datasets import make_blobs, make_regression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
)
from sklearn_nftk.cli import main
from sklearn_nftk.inspection import explain, layer_contributions, network_fidelity
from sklearn_nftk.inspection._fidelity import fidelity_sentence, has_network
from sklearn_nftk.networks import MLP, InfiniteMLP

FIGURES = (
    *("kendall_tau", "agreement", "network_score", "machine_score", "difference"),
    *("layer_kendall_tau", "layer_agreement"),
)


def blobs(n_classes, n_samples=160):
    """Classes that overlap, so that networks that fit them converge; half are test samples."""
    X, y = make_blobs(n_samples, 4, centers=n_classes, cluster_std=4.0, random_state=1)
    return X / 5, np.array(["a", "b", "c", "d"])[y]


def trained(network, X, y):
    """Network of smallest cross-entropy with weight decay, which keeps logits finite.

    A single output is the logit of the second class.
    """
    network = network.double()
    inputs, codes = torch.from_numpy(X), torch.from_numpy(np.unique(y, return_inverse=True)[1])
    optimizer = torch.optim.LBFGS(
        network.parameters(), max_iter=100, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        outputs = network(inputs)
        if outputs.shape[1] == 1:
            outputs = torch.cat([-outputs / 2, outputs / 2], 1)
        decay = sum(parameter.square().sum() for parameter in network.parameters())
        loss = nn.functional.cross_entropy(outputs, codes) + 1e-3 * decay
        loss.backward()
        return loss

    optimizer.step(closure)
    network.zero_grad(set_to_none=True)
    return network


def network_of(kind, n_outputs):
    torch.manual_seed(0)
    if kind == "linear":
        return nn.Linear(4, n_outputs)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, n_outputs))


def fitted(n_classes=3, kind="deep", n_outputs=None, **parameters):
    """Return a machine of a trained network, that network, and test samples."""
    X, y = blobs(n_classes)
    network = trained(network_of(kind, n_outputs or n_classes).eval(), X[::2], y[::2])
    model = MultiLayerNTKClassifier(network, **parameters).fit(X[::2], y[::2])
    return model, network, X[1::2], y[1::2]


def assert_same(result, expected):
    for name in FIGURES:
        assert_allclose(result[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


# -- a slow reference ---------------------------------------------------------------------------


def tau_b(x, y):
    """Concordant less discordant pairs, beside those that are not tied, one pair at a time."""
    pairs = list(itertools.combinations(range(len(x)), 2))
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs]
    concordance = sum(a * b for a, b in signs)
    not_tied = [sum(abs(sign[k]) for sign in signs) for k in range(2)]
    return concordance / math.sqrt(not_tied[0] * not_tied[1])


def compared(model, logits, decisions):
    """Kendall's tau and agreement of a network and a machine, sample by sample."""
    temperature = getattr(model, "temperature_", 1.0)
    ours, theirs, same = [], [], 0
    for out, decision in zip(logits, decisions, strict=True):
        out = [-out[0] / 2, out[0] / 2] if len(out) == 1 else list(out)
        decision = [-decision[0], decision[0]] if len(decision) == 1 else list(decision)
        winner = max(range(len(out)), key=out.__getitem__)
        theirs.append(softmax(out)[winner])
        ours.append(softmax(np.array(decision) / temperature)[winner])
        same += winner == max(range(len(out)), key=decision.__getitem__)
    return tau_b(theirs, ours), same / len(logits)


def outputs_of(network, X):
    with torch.no_grad():
        return network.eval()(torch.from_numpy(X)).numpy()


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"n_classes": 2},
        {"n_classes": 2, "n_outputs": 1},
        {"n_classes": 4, "outputs": "per_class"},
        {"n_classes": 2, "outputs": "per_class"},
        {"normalize": "cosine"},
        {"loss": "hinge"},
        {"shrinkage": 0.0, "per_class": False},
    ],
)
def test_equals_the_reference(parameters):
    model, network, X, y = fitted(**parameters)
    result = network_fidelity(model, X, y)
    logits, phi = outputs_of(network, X), layer_contributions(model, X)
    total = compared(model, logits, phi.sum(axis=2) + model.intercept_)
    assert_allclose((result.kendall_tau, result.agreement), total, rtol=1e-12)
    for layer in range(2):
        others = np.delete(model.mean_contributions_, layer, axis=1).sum(axis=1)
        alone = compared(model, logits, phi[:, :, layer] + others + model.intercept_)
        figures = result.layer_kendall_tau[layer], result.layer_agreement[layer]
        assert_allclose(figures, alone, rtol=1e-12)
    labels = (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(axis=1)
    assert_allclose(result.network_score, np.mean(model.classes_[labels] == y))
    assert_allclose(result.machine_score, model.score(X, y))
    assert_allclose(result.difference, result.machine_score - result.network_score)
    assert result.layer_names == model.layer_names_
    assert result.n_samples == len(X)


def test_the_probabilities_are_those_of_predict_proba():
    model, network, X, _ = fitted()
    winners = outputs_of(network, X).argmax(axis=1)
    theirs = softmax(outputs_of(network, X), axis=1)[range(len(X)), winners]
    ours = model.predict_proba(X)[range(len(X)), winners]
    result = network_fidelity(model, X)
    assert_allclose(result.kendall_tau, tau_b(theirs, ours), rtol=1e-12)
    assert_allclose(result.agreement, np.mean(model.predict(X) == model.classes_[winners]))


@pytest.mark.parametrize("n_targets", [1, 2])
def test_regressors_are_compared_by_values(n_targets):
    X, y = make_regression(60, 4, n_targets=n_targets, noise=20.0, random_state=0)
    y = y / y.std()
    Y = y.reshape(60, -1)
    network = network_of("deep", n_targets).double()
    model = MultiLayerNTKRegressor(network, random_state=0).fit(X[:40], y[:40])
    X, y, Y = X[40:], y[40:], Y[40:]
    result = network_fidelity(model, X, y)
    outputs, phi = outputs_of(network, X), layer_contributions(model, X)

    def r2(true, predicted):
        return np.mean(1 - ((true - predicted) ** 2).sum(0) / ((true - true.mean(0)) ** 2).sum(0))

    means = model.mean_contributions_
    alone = [phi[:, :, k] + means.sum(axis=1) - means[:, k] for k in range(phi.shape[2])]
    for tau, agreement, decided in [
        (result.kendall_tau, result.agreement, phi.sum(axis=2)),
        *zip(result.layer_kendall_tau, result.layer_agreement, alone, strict=True),
    ]:
        values = decided + model.intercept_
        assert_allclose(
            tau, np.mean([tau_b(*pair) for pair in zip(outputs.T, values.T, strict=True)])
        )
        assert_allclose(agreement, r2(outputs, values))
    assert_allclose(result.network_score, r2(Y, outputs))
    assert_allclose(result.machine_score, model.score(X, y))
    assert_allclose(result.difference, result.machine_score - result.network_score)


# -- facts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_machine_of_a_converged_linear_network_stands_for_it(n_classes):
    model, _, X, y = fitted(n_classes, "linear")
    result = network_fidelity(model, X, y)
    assert result.kendall_tau > 0.7
    assert result.agreement > 0.9
    assert abs(result.difference) < 0.1


def test_shuffled_outputs_are_not_stood_for(monkeypatch):
    model, network, X, _ = fitted(2, "linear")
    X = np.random.default_rng(0).permuted(np.tile(X, (8, 1)), axis=0)  # 640 samples
    outputs = np.random.default_rng(1).permutation(outputs_of(network, X))
    assert network_fidelity(model, X).kendall_tau > 0.8
    monkeypatch.setattr(model.kernel_source_, "network_outputs", lambda X: outputs)
    result = network_fidelity(model, X)
    assert abs(result.kendall_tau) < 0.1
    assert 0.4 < result.agreement < 0.6


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_single_layer_is_the_machine(n_classes):
    model, _, X, _ = fitted(n_classes, "linear")
    result = network_fidelity(model, X)
    assert_array_equal(result.layer_kendall_tau, [result.kendall_tau])
    assert_array_equal(result.layer_agreement, [result.agreement])
    assert [result[name] for name in ("network_score", "machine_score", "difference")] == [
        None
    ] * 3


def test_the_order_of_the_samples_says_nothing():
    model, _, X, y = fitted()
    shuffled = np.random.default_rng(0).permutation(len(X))
    assert_same(network_fidelity(model, X[shuffled], y[shuffled]), network_fidelity(model, X, y))


def test_one_logit_is_two_of_half_its_size():
    X, y = blobs(2)
    one = trained(network_of("linear", 1), X, y)
    two = nn.Linear(4, 2).double()
    with torch.no_grad():
        for name in ("weight", "bias"):
            halves = torch.cat([-getattr(one, name) / 2, getattr(one, name) / 2])
            getattr(two, name).copy_(halves)
    # the kernel of a linear layer is that of its inputs, whatever its weights
    results = [
        network_fidelity(MultiLayerNTKClassifier(network).fit(X, y), X, y)
        for network in (one, two)
    ]
    assert_same(*results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_that_round_to_one_still_rank(dtype):
    X, y = blobs(2)
    X = X.astype(str(dtype).removeprefix("torch."))
    network = trained(network_of("linear", 2), X.astype(float), y).to(dtype)
    sure = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in sure.parameters():
            parameter.mul_(2.0**12)
    results = [
        network_fidelity(MultiLayerNTKClassifier(of).fit(X, y), X, y) for of in (network, sure)
    ]
    assert_same(*results)


def test_constant_outputs_have_no_rank_correlation():
    X, y = blobs(3)
    network = nn.Linear(4, 3).double()
    nn.init.zeros_(network.weight)
    result = network_fidelity(MultiLayerNTKClassifier(network).fit(X, y), X, y)
    assert np.isnan(result.kendall_tau)
    assert np.isnan(result.layer_kendall_tau).all()
    assert 0 < result.agreement < 1


def test_one_sample_has_an_agreement_alone():
    model, _, X, y = fitted()
    result = network_fidelity(model, X[:1], y[:1])
    assert np.isnan(result.kendall_tau)
    assert result.agreement in (0, 1)
    X, y = make_regression(20, 4, random_state=0)
    regressor = MultiLayerNTKRegressor(MLP((8,)), random_state=0).fit(X, y)
    assert np.isnan(network_fidelity(regressor, X[:1], y[:1]).agreement)


def test_two_samples_are_ranked():
    model, _, X, _ = fitted()
    assert network_fidelity(model, X[:2]).kendall_tau in (-1, 1)


# -- the network is used and left alone -----------------------------------------------------------


def test_batches_say_what_all_samples_say(monkeypatch):
    model, _, X, y = fitted()
    expected = network_fidelity(model, X, y)
    monkeypatch.setattr("sklearn_nftk.tangents._sizes.Sizes.pass_rows", lambda self, n_heads: 7)
    seen = []
    handle = model.network_.register_forward_hook(lambda *of: seen.append(len(of[2])))
    outputs = model.kernel_source_.network_outputs(X)
    handle.remove()
    assert seen == [7] * 11 + [3]
    assert outputs.shape == (80, 3)
    assert_same(network_fidelity(model, X, y), expected)


def test_the_fitted_network_is_used_and_left_alone():
    model, network, X, y = fitted()
    expected = network_fidelity(model, X, y)
    before = copy.deepcopy(model.network_.state_dict())
    nn.init.zeros_(network[0].weight)  # the user's own, of which the estimator has a copy
    network.train()
    state = torch.get_rng_state()
    assert_same(network_fidelity(model, X, y), expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.network_.modules())
    after = model.network_.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None and p.requires_grad for p in model.network_.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    on_cpu, _, X, y = fitted(device="cpu")
    on_gpu = fitted(device="cuda")[0]
    result = network_fidelity(on_gpu, X, y)
    assert on_gpu.kernel_source_.device.type == "cuda"
    assert_same(result, network_fidelity(on_cpu, X, y))


def test_pipelines_and_searches_are_unpacked():
    X, y = blobs(3)
    scaled = StandardScaler().fit_transform(X)
    network = trained(network_of("deep", 3).eval(), scaled, y)
    pipeline = make_pipeline(StandardScaler(), MultiLayerNTKClassifier(network))
    search = GridSearchCV(pipeline, {"multilayerntkclassifier__C": [1.0]}, cv=2).fit(X, y)
    expected = network_fidelity(search.best_estimator_[-1], scaled, y)
    assert_same(network_fidelity(search.best_estimator_, X, y), expected)
    assert_same(network_fidelity(search, X, y), expected)


# -- what is refused ------------------------------------------------------------------------------


def test_networks_without_an_output_for_each_class_are_refused():
    X, y = blobs(3)
    K = np.stack([rbf_kernel(X, gamma=gamma) for gamma in (0.1, 1)], axis=-1)
    five = nn.Linear(4, 5).double()
    for model, samples, found in [
        (MultiLayerNTKClassifier(MLP((8,)), random_state=0), X, "a network with n_outputs=1"),
        (MultiLayerNTKClassifier(five), X, "a network with n_outputs=5"),
        (MultiLayerNTKClassifier(five, normalize="cosine"), X, "a network with n_outputs=5"),
        (MultiLayerNTKClassifier(InfiniteMLP()), X, "no network"),
        (MultiLayerNTKClassifier(InfiniteMLP(), normalize="cosine"), X, "no network"),
        (MultipleKernelClassifier(), K, "no network"),
    ]:
        message = rf"fidelity needs a network with one output per class .*, 3 here; got {found}\."
        with pytest.raises(ValueError, match=message):
            network_fidelity(model.fit(samples, y), samples)
    two = MultiLayerNTKClassifier(five).fit(X, y == "a")
    with pytest.raises(ValueError, match="1 or 2 here"):
        network_fidelity(two, X)
    regressor = MultiLayerNTKRegressor(five).fit(X, X[:, :2])
    with pytest.raises(ValueError, match=r"one output per target, 2 here; got .* n_outputs=5"):
        network_fidelity(regressor, X)


def test_targets_of_other_samples_are_refused():
    model, _, X, y = fitted()
    with pytest.raises(ValueError, match="y must have one entry for each of the 80 samples of X"):
        network_fidelity(model, X, y[:-1])


# -- where it is told -----------------------------------------------------------------------------


def test_sentences_say_whether_the_machine_stands_for_the_network():
    model, _, X, y = fitted(3, "linear")
    fidelity = network_fidelity(model, X, y)
    assert fidelity_sentence(model, fidelity) == (
        f"The machine stands for the network on 80 samples: Kendall's tau "
        f"{fidelity.kendall_tau:.2f}, agrees on {100 * fidelity.agreement:.1f} %."
    )
    one = network_fidelity(model, X[:1])
    assert "for the network on 1 sample: agrees on" in fidelity_sentence(model, one)
    fidelity.agreement = 0.899
    low = fidelity_sentence(model, fidelity)
    assert "The machine does not stand for the network on 80 samples" in low
    assert low.endswith("Weights of layers are facts about the machine, not about the network.")
    regressor = MultiLayerNTKRegressor(nn.Linear(X.shape[1], 1)).fit(X, X[:, 0])
    assert "with its outputs" in fidelity_sentence(regressor, network_fidelity(regressor, X))
    assert fidelity_sentence(regressor, network_fidelity(regressor, X[:1])) == ""


def test_pages_say_it_of_networks_that_may_have_been_trained(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("pandas")
    model, _, X, y = fitted(3, "linear")
    page = explain(model, X[:1], tmp_path / "page.html").read_text()
    assert "for the network on 1 sample: agrees on" in page
    assert has_network(model)
    assert not has_network(MultiLayerNTKClassifier(InfiniteMLP()).fit(X, y))
    for normalize in ("variance", "cosine"):  # drawn here, stands for nothing
        drawn = MultiLayerNTKRegressor(MLP((8,)), normalize=normalize, random_state=0)
        assert not has_network(drawn.fit(X, X[:, 0]))


def test_the_command_line_says_it(monkeypatch, tmp_path, capsys):
    (tmp_path / "untrained.py").write_text(
        "from torch import nn\n"
        "def small(n_features, n_outputs, random_state):\n"
        "    return nn.Sequential(nn.Linear(n_features, 4), nn.ReLU(), nn.Linear(4, n_outputs))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "page.html"
    arguments = ["explain", "--data", "iris", "--samples", "1", "--resamples", "0"]
    arguments += ["--out", str(path), "--network"]
    sentence = "The machine does not stand for the network on 38 samples"
    assert main([*arguments, "untrained:small"]) == 0
    assert sentence in capsys.readouterr().out
    assert sentence in path.read_text()
    assert main([*arguments, "8"]) == 0  # one output for three classes
    assert "for the network" not in capsys.readouterr().out
    assert "for the network" not in path.read_text()
