import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_regression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
)
from sklearn_nftk.inspection import explain, layer_ablation, layer_contributions, weight_stability
from sklearn_nftk.networks import MLP


class Page(HTMLParser):
    """What matters of a page: its elements balance, its pictures, links, and rows of tables."""

    VOID = ("img", "meta", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.links, self.anchors, self.rows = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.append(attributes.get("id"))
        if tag == "img":
            self.images.append(attributes["src"])
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "tr":
            self.rows.append([])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True, as_frame=True)
    y = y.map({0: "<setosa>", 1: "versicolor", 2: "virginica"}).to_numpy()
    model = MultiLayerNTKClassifier(MLP((16, 16)), shrinkage=0.0, random_state=0)
    return make_pipeline(StandardScaler(), model).fit(X, y), X, y


def test_the_page_is_complete_and_needs_nothing_else(iris, tmp_path):
    model, X, y = iris
    path = explain(model, X.iloc[[0, 70]], tmp_path / "page.html", y=y[[0, 50]], labels=y)
    assert path == tmp_path / "page.html"
    assert [found.name for found in tmp_path.iterdir()] == ["page.html"]
    text = path.read_text()
    page = Page(text)
    assert len(page.images) == 6  # weights, alignment, and two for each sample
    for source in page.images:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert "http" not in re.sub(r"data:image[^\"]*", "", text)
    assert all(link[1:] in page.anchors for link in page.links)


def test_the_tables_are_the_contributions(iris, tmp_path):
    model, X, y = iris
    page = Page(explain(model, X.iloc[[70]], tmp_path / "page.html", labels=y).read_text())
    phi = layer_contributions(model, X.iloc[[70]], baseline="mean")[0]
    decision = model.decision_function(X.iloc[[70]])[0]
    for c, name in enumerate(model.classes_):
        mean = decision[c] - phi[c].sum()
        expected = [name, *(f"{value:.4g}" for value in (*phi[c], mean, decision[c]))]
        assert expected in page.rows
    for name, value in X.iloc[70].items():
        assert [name, f"{value:.4g}"] in page.rows


def test_names_are_escaped_and_mistakes_are_marked(iris, tmp_path):
    model, X, y = iris
    wrong = np.array(["virginica", y[70]], dtype=object)
    text = explain(model, X.iloc[[0, 70]], tmp_path / "page.html", y=wrong).read_text()
    assert "<setosa>" not in text
    assert "predicted &lt;setosa&gt; with probability" in text
    assert "<span class='wrong'>true virginica</span>" in text
    assert "<span class='right'>true versicolor</span>" in text


def test_evidence_is_added_where_it_is_given(iris, tmp_path):
    model, X, y = iris
    stability = weight_stability(model, X, y, n_resamples=4, random_state=0)
    ablation = layer_ablation(model, X, y)
    given = {"stability": stability, "ablation": ablation}
    text = explain(model, X[:1], tmp_path / "page.html", **given).read_text()
    assert "Intervals are of 4 bootstrap resamples" in text
    row = ["layer1", *(f"{of[1]:.4g}" for of in (ablation.without, ablation.drop, ablation.alone))]
    assert row in Page(text).rows


def test_regression_kernels_and_hinge_losses_have_pages(iris, tmp_path):
    _, X, y = iris
    targets = make_regression(40, 4, n_targets=2, random_state=0)
    regressor = MultiLayerNTKRegressor(MLP((8,)), random_state=0).fit(*targets)
    assert "target 1" in explain(regressor, targets[0][:1], tmp_path / "a.html").read_text()
    K = np.stack([rbf_kernel(X, gamma=gamma) for gamma in (0.1, 1)], axis=-1)
    kernels = MultipleKernelClassifier(loss="hinge").fit(K, y)
    text = explain(kernels, K[:1], tmp_path / "b.html", y=y[:1]).read_text()
    assert "kernel1" in text
    assert "probability" not in text


def test_a_search_has_the_page_of_its_best_estimator(iris, tmp_path):
    _, X, y = iris
    model = make_pipeline(StandardScaler(), MultiLayerNTKClassifier(MLP((8,)), random_state=0))
    search = GridSearchCV(model, {"multilayerntkclassifier__C": [1.0, 10.0]}, cv=2).fit(X, y)
    pages = [
        explain(estimator, X[:2], tmp_path / "page.html", y=y[:2], labels=y).read_text()
        for estimator in (search, search.best_estimator_)
    ]
    assert pages[0] == pages[1]
    assert (
        f"<td style='text-align: left'>{search.best_params_['multilayerntkclassifier__C']:.4g}"
        in pages[0]
    )


def test_the_page_tells_what_was_fitted(iris, tmp_path):
    X, y = iris[1].to_numpy(copy=True), iris[2]
    model = MultiLayerNTKClassifier(MLP((8,)), normalize="trace", C=2.0, random_state=0).fit(X, y)
    model.set_params(normalize="none", kernel_weights="uniform", loss="hinge", C=1.0)
    text = explain(model, X[:1], tmp_path / "page.html").read_text()
    for name, value in [
        ("kernel weights", "alignment"),
        ("normalisation of the kernels", "trace"),
        ("loss", "squared"),
        ("C", "2"),
    ]:
        assert f"<th>{name}</th><td style='text-align: left'>{value}</td>" in text


def test_a_page_that_fails_leaves_the_old_one(iris, tmp_path, monkeypatch):
    model, X, y = iris
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(ValueError, match="choose at most 50"):
        explain(model, X, path)
    with pytest.raises(ValueError, match="labels has 3 entries"):
        explain(model, X[:1], path, labels=y[:3])
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        explain(model, X[:1], path)
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["page.html"]


def test_no_figure_stays_open(iris, tmp_path):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    explain(iris[0], iris[1][:1], tmp_path / "page.html")
    assert plt.get_fignums() == before
