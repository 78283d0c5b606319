import json
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.pipeline import make_pipeline

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.cli import _data, _networks, main
from sklearn_nftk.cli._data import load
from sklearn_nftk.cli._evidence import gather, print_evidence, sentence, take
from sklearn_nftk.cli._networks import parse_network
from sklearn_nftk.inspection import layer_ablation, training_influence
from sklearn_nftk.networks import MLP, InfiniteMLP, default_network


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def csv(tmp_path):
    """Iris with a categorical column, missing values, and a row without its label."""
    frame = load_iris(as_frame=True).frame
    frame.columns = ["length", "width", "petal length", "petal width", "kind"]
    frame["colour"] = ["red", "blue", None] * 50
    frame.loc[::7, "length"] = None
    frame["kind"] = frame["kind"].map({0: "setosa", 1: "versicolor", 2: "virginica"})
    frame.loc[3, "kind"] = None
    path = tmp_path / "flowers.csv"
    frame.to_csv(path, index=False)
    return path


def test_compares_on_built_in_data_as_a_command(tmp_path):
    command = [sys.executable, "-m", "sklearn_nftk", "compare", "--data", "iris"]
    command += ["--network", "16,16", "--json", "numbers.json", "--figure", "weights.png"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    for name in ("NFT-K", "SVC", "GridSearchCV(SVC)", "layer2"):
        assert name in run.stdout
    assert run.stderr == ""  # no progress bar: this is no terminal
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["weights"]["layers"] == ["layer0", "layer1", "layer2"]
    assert numbers["n_train"] + numbers["n_test"] == 150
    assert "network" not in numbers["results"]  # it is not trained
    for result in numbers["results"].values():
        assert len(result["accuracy"]) == 3
        assert min(result["accuracy"]) > 0.8
        assert min(result["fit_time"]) > 0
    assert (tmp_path / "weights.png").read_bytes()[:4] == b"\x89PNG"


def test_reads_csv_with_categories_and_missing_values(csv, capsys):
    assert main(["--data", str(csv), "--target", "kind", "--cv", "2", "--network", "8"]) == 0
    out = capsys.readouterr().out
    assert "flowers: 149 samples, 5 features, 3 classes" in out
    assert "virginica" in out


def test_explains_decisions_right_and_wrong(tmp_path):
    command = [sys.executable, "-m", "sklearn_nftk", "explain", "--network", "16"]
    command += ["--resamples", "5"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "on 450 samples that were not trained on, 1347 training examples" in run.stdout
    assert "4 decisions explained in report.html" in run.stdout
    assert run.stderr == ""
    page = (tmp_path / "report.html").read_text()
    assert page.count("<span class='right'>") == page.count("<span class='wrong'>") == 2
    assert "Intervals are of 5 bootstrap resamples" in page
    assert "Scores without each layer" in page


def test_explains_decisions_on_a_csv_file(csv, tmp_path, capsys):
    arguments = ["explain", "--data", str(csv), "--target", "kind", "--network", "8"]
    out = tmp_path / "flowers.html"
    assert main([*arguments, "--samples", "3", "--resamples", "0", "--out", str(out)]) == 0
    assert "3 decisions explained in" in capsys.readouterr().out
    page = out.read_text()
    assert "petal width" in page
    assert "bootstrap" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "absent.csv", "--target", "y"], "no such file: absent.csv"),
        (["--data", "flowers.csv"], "--target is needed for flowers.csv"),
        (["--data", "flowers.csv", "--target", "species"], "has no column 'species'"),
        (["--data", "flowers.csv", "--target", "length"], "fewer than the 3 folds"),
        (["--data", "iris", "--target", "kind"], "--target goes with a CSV file"),
        (["--data", "iris", "--cv", "1"], "--cv must be at least 2"),
        (["--data", "iris", "--cv", "80"], "fewer than the 80 folds"),
        (["--data", "iris", "--network", "wide"], "give mlp, cnn, infinite, hidden layer sizes"),
        (["--data", "iris", "--network", "cnn"], "--network cnn: iris is no data of images"),
        (["--data", "iris", "--network", "no.such:net"], "--network no.such:net: No module"),
        (["--data", "iris", "--figure", "no/such/folder.png"], "no such folder"),
        (["explain", "--out", "no/such/folder.html"], "no such folder"),
        (["explain", "--data", "iris", "--samples", "0"], "--samples must be at least 1"),
        (["explain", "--data", "iris", "--samples", "51"], "--samples must be at most 50"),
        (["explain", "--data", "iris", "--resamples", "-1"], "--resamples must not be negative"),
        (["explain", "--data", "flowers.csv", "--target", "length"], "has one sample only"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_status_2(csv, arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_network_can_be_imported(monkeypatch, tmp_path, capsys):
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n"
        "def small(n_features, n_outputs, random_state):\n"
        "    return nn.Sequential(nn.Linear(n_features, 4), nn.ReLU(), nn.Linear(4, n_outputs))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["--data", "iris", "--cv", "2", "--network", "mynets:small"]) == 0
    assert "class" in capsys.readouterr().out


def test_presets():
    iris, digits = load("iris"), load("digits")
    assert parse_network("infinite", iris).get_params() == InfiniteMLP(depth=3).get_params()
    for text in ("mlp", None):
        network = parse_network(text, iris)
        assert network.get_params() == default_network().get_params()
    sizes = parse_network("9,8", iris)
    assert sizes.get_params() == {**default_network().get_params(), "hidden_layer_sizes": (9, 8)}
    pytest.importorskip("skorch")
    for text in ("cnn", None):
        network = parse_network(text, digits)
        assert not hasattr(network, "module_")  # to be trained by the classifier
        classifier = _networks.make_classifier(network, random_state=0)
        assert classifier.get_params(deep=False).items() >= _networks.TRAINED.items()


def test_a_network_that_skorch_is_missing_for(monkeypatch, capsys):
    monkeypatch.setattr(_networks, "find_spec", lambda name: None)
    assert main(["--network", "cnn"]) == 2
    error = capsys.readouterr().err
    assert "sklearn-nftk[train]" in error
    assert error.count("\n") == 1


def first_fold(name, *, renamed=None, **parameters):
    """What a machine on every other row of a data set tells, and all that it was told."""
    dataset = load(name)
    if renamed is not None:
        dataset = dataset._replace(y=np.array([renamed.get(label, label) for label in dataset.y]))
    train, test = np.arange(0, len(dataset.y), 2), np.arange(1, len(dataset.y), 2)
    parameters = {"network": MLP((16, 16)), "random_state": 0, **parameters}
    model = make_pipeline(clone(dataset.preparation), MultiLayerNTKClassifier(**parameters))
    model.fit(take(dataset.X, train), dataset.y[train])
    return gather(model, dataset, train, test, random_state=0), model, dataset, train, test


def test_weights_are_shown_with_intervals_and_interchangeable_layers(capsys):
    evidence, model, *_ = first_fold("wine", network=InfiniteMLP(3), shrinkage=0.0)
    weights, display = model[-1].kernel_weights_, evidence.display
    assert not np.allclose(weights, 1 / 4)
    assert evidence.ablation is None
    print_evidence(evidence)
    out = capsys.readouterr().out
    assert "normalize=variance, shrinkage=0: alignment alone" in out
    for shown in (
        f"{weights[0, 2]:.2f} [{display.low[0, 2]:.2f}, {display.high[0, 2]:.2f}]",
        "layer0 (a)",
        "(a): centred alignment >= 0.95",
    ):
        assert shown in out


def test_of_uniform_weights_the_scores_of_the_layers_are_shown(capsys):
    evidence, model, dataset, train, test = first_fold("wine", kernel_weights="uniform")
    training = dataset.X[train], dataset.y[train]
    expected = layer_ablation(
        model, dataset.X[test], dataset.y[test], refit=True, training=training
    )
    assert_allclose(evidence.ablation.alone, expected.alone)
    print_evidence(evidence)
    out = capsys.readouterr().out
    assert "0.33" not in out.split("\n\n")[1]
    assert f"{expected.score:.4f}" in out
    assert f"{expected.without[0]:.4f}" in out
    assert f"{expected.alone[2]:.4f}" in out


def test_one_layer_has_scores_too():
    evidence, *_ = first_fold("iris", network=MLP(()))
    assert len(evidence.ablation.alone) == 1


def test_without_memory_for_all_kernels_weights_have_no_intervals(monkeypatch, capsys):
    def too_large(*_, **__):
        raise MemoryError

    monkeypatch.setattr("sklearn_nftk.cli._evidence.weight_stability", too_large)
    evidence, *_ = first_fold("wine", shrinkage=0.0)
    print_evidence(evidence)
    assert "[" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "renamed"),
    # of two classes, the one predicted comes first and last
    [("wine", {}), ("breast_cancer", {}), ("breast_cancer", {"benign": "not malignant"})],
)
def test_the_decision_is_the_least_certain_one_and_its_parts_are_exact(name, renamed):
    evidence, model, dataset, train, test = first_fold(name, renamed=renamed)
    decision = evidence.decision
    certain = model.predict_proba(dataset.X[test]).max(axis=1)
    assert decision.probability == certain.min()
    row = test[certain.argmin()]
    assert (decision.row, decision.true) == (row, dataset.y[row])
    sample = dataset.X[[row]]
    assert decision.predicted == model.predict(sample)[0]

    def speaking(values):
        """For the class that was predicted; of two classes, what is below 0 is for the first."""
        code = list(model.classes_).index(decision.predicted)
        return values[:, code] if len(model.classes_) > 2 else values[:, 0] * (2 * code - 1)

    decisions = [model.decision_function(X) for X in (sample, dataset.X[train])]
    new, known = (speaking(values.reshape(len(values), -1)) for values in decisions)
    assert_allclose(decision.layers.sum(), new[0] - known.mean(), rtol=1e-6)
    by_examples = speaking(training_influence(model, sample))[0]
    most = by_examples.argmax()
    assert (decision.example, decision.example_class) == (train[most], dataset.y[train[most]])
    assert_allclose(decision.influence, by_examples[most])
    text = sentence(evidence)
    assert f"{row} is called {decision.predicted}" in text
    assert f"{by_examples[most]:.2g} lower" in text
    assert text.count(". ") == 0  # one sentence
    assert text.endswith(").")


def test_rows_of_a_csv_file_go_by_their_index(csv):
    dataset = load(str(csv), "kind")
    assert len(dataset.y) == 149  # row 3 has no label
    train, test = np.arange(0, 149, 2), np.arange(1, 149, 2)
    model = make_pipeline(
        clone(dataset.preparation), MultiLayerNTKClassifier(MLP((8,)), random_state=0)
    ).fit(dataset.X.iloc[train], dataset.y[train])
    decision = gather(model, dataset, train, test, random_state=0).decision
    assert decision.row in dataset.X.index[test]
    assert decision.example in dataset.X.index[train]


def test_many_layers_are_summed_up_in_the_sentence():
    evidence, *_ = first_fold("iris", network=InfiniteMLP(depth=8))
    text = sentence(evidence)
    assert text.count("(layer") == 6
    assert "(all others)" in text


@pytest.fixture
def few_digits(monkeypatch):
    bunch = load_digits()
    for name in ("data", "target", "images"):
        bunch[name] = bunch[name][:200]
    monkeypatch.setitem(_data.BUILT_IN, "digits", lambda: bunch)


def test_a_trained_network_is_compared_with_its_kernels(few_digits, capsys):
    pytest.importorskip("skorch")
    assert main(["--cv", "2", "--json", "numbers.json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    with open("numbers.json") as file:
        numbers = json.load(file)
    assert list(numbers["results"]) == ["NFT-K", "network", "SVC", "GridSearchCV(SVC)"]
    assert np.mean(numbers["results"]["network"]["accuracy"]) > 0.6
    weights = numbers["weights"]
    assert weights["layers"] == ["conv1", "conv2", "dense", "output"]
    assert (weights["shrinkage"], weights["cv"]) == (0, 4)
    values, low, high = (np.array(weights[name]) for name in ("values", "low", "high"))
    assert np.ptp(values) > 0.5
    assert (low <= high).all()
    assert f"{values[0, 0]:.2f} [{low[0, 0]:.2f}, {high[0, 0]:.2f}]" in captured.out
    assert numbers["ablation"] is None
    assert numbers["decision"]["predicted"] in range(10)
