import json
import subprocess
import sys

import pytest
from sklearn.datasets import load_iris

from sklearn_nftk.cli import main


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
    command = [sys.executable, "-m", "sklearn_nftk", "compare", "--data", "iris", "--cv", "3"]
    command += ["--network", "16,16", "--json", "numbers.json", "--figure", "weights.png"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    for name in ("NFT-K", "SVC", "GridSearchCV(SVC)", "setosa", "layer2"):
        assert name in run.stdout
    assert run.stderr == ""  # no progress bar: this is no terminal
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["weights"]["layers"] == ["layer0", "layer1", "layer2"]
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
        (["--data", "flowers.csv", "--target", "length"], "fewer than the 5 folds"),
        (["--data", "iris", "--target", "kind"], "--target goes with a CSV file"),
        (["--data", "iris", "--cv", "1"], "--cv must be at least 2"),
        (["--data", "iris", "--cv", "80"], "fewer than the 80 folds"),
        (["--data", "iris", "--network", "wide"], "give hidden layer sizes such as 512,512"),
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
