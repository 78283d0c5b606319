"""Reports name rows as the table of the user does."""

import pickle

import matplotlib.pyplot as plt
import numpy as np
import pytest
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
)
from sklearn_nftk.cli import main
from sklearn_nftk.inspection import (
    FeatureContributionsDisplay,
    LayerContributionsDisplay,
    TrainingContributionsDisplay,
    explain,
    training_contributions,
)
from sklearn_nftk.networks import MLP, InfiniteMLP

from .test_displays import assert_readable
from .test_explain import Page

pd = pytest.importorskip("pandas")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def flowers():
    """A table of flowers with names for an index, in random order."""
    X, y = load_iris(return_X_y=True, as_frame=True)
    order = np.random.default_rng(0).permutation(len(X))[:60]
    X.index = y.index = [f"flower {i}" for i in range(len(X))]
    return X.iloc[order], y.iloc[order]


def machine(**parameters):
    return MultiLayerNTKClassifier(MLP((8,)), **{"C": 1.0, "random_state": 0, **parameters})


def drawn_texts(figure):
    texts = [text.get_text() for text in figure.findobj(plt.Text)]
    return "\n".join(texts)


# -- what an estimator remembers ------------------------------------------------------------------


INDICES = {
    "rows of a table": pd.RangeIndex(60),
    "shuffled": pd.Index(np.random.default_rng(1).permutation(60) + 1000),
    "names": pd.Index([f"p{i}" for i in range(60)]),
    "duplicates": pd.Index([i // 2 for i in range(60)]),
    "dates": pd.date_range("2024-01-01", periods=60),
    "categories": pd.CategoricalIndex([f"p{i}" for i in range(60)]),
    "two levels": pd.MultiIndex.from_product([["a", "b"], range(30)]),
}


@pytest.mark.parametrize("name", INDICES)
def test_rows_of_positive_weight_keep_their_index(name, flowers):
    X, y = flowers[0].set_axis(INDICES[name]), flowers[1].to_numpy()
    weights = np.ones(60)
    weights[[0, 7, 30]] = 0
    model = machine().fit(X, y, sample_weight=weights)
    assert model.index_fit_.tolist() == INDICES[name][weights > 0].to_numpy().tolist()
    assert_allclose(model.X_fit_, X.to_numpy()[weights > 0])
    display = TrainingContributionsDisplay.from_estimator(model, X[3:5], labels=y[weights > 0])
    frame = display.frame()
    assert set(frame["sample"]) == set(INDICES[name][3:5])
    assert frame["index"].tolist() == [
        INDICES[name][weights > 0][j] for j in display.indices.ravel() if j >= 0
    ]
    layers = LayerContributionsDisplay.from_estimator(model, X[3:5])
    assert layers.frame().index.get_level_values("sample").tolist() == [
        row_id for row_id in INDICES[name][3:5] for _ in range(3)
    ]
    assert_readable(display.plot().figure_)
    assert_readable(layers.plot(sample=1).figure_)


def test_copies_of_a_row_keep_their_own_ids(flowers):
    X, y = flowers
    twice = pd.concat([X, X.iloc[:5].rename(index="copy of {}".format)])
    model = machine().fit(twice, pd.concat([y, y.iloc[:5]]).to_numpy())
    assert model.index_fit_.tolist() == twice.index.tolist()
    found = training_contributions(model, X.iloc[:1], top=65)
    values = dict(zip(found.index[0, 0], found.contributions[0, 0], strict=True))
    for name in X.index[:5]:
        assert_allclose(values[name], values[f"copy of {name}"])


def test_ids_go_where_fits_go(flowers):
    X, y = flowers
    model = machine().fit(X, y.to_numpy())
    loaded = pickle.loads(pickle.dumps(model))
    assert_array_equal(loaded.index_fit_, X.index)
    types = skops.io.get_untrusted_types(data=(saved := skops.io.dumps(model)))
    assert_array_equal(skops.io.loads(saved, trusted=types).index_fit_, X.index)
    assert not hasattr(clone(model), "index_fit_")
    model.fit(X.iloc[::-1], y.to_numpy()[::-1])
    assert_array_equal(model.index_fit_, X.index[::-1])
    model.fit(X.to_numpy(), y.to_numpy())
    assert not hasattr(model, "index_fit_")
    model.fit(X.to_numpy().tolist(), y.tolist())
    assert not hasattr(model, "index_fit_")
    assert "index" not in training_contributions(model, X.to_numpy()[:1], top=2)


def test_the_index_is_that_of_x_else_that_of_y(flowers):
    X, y = flowers
    other = y.set_axis([f"of y {i}" for i in range(60)])
    assert_array_equal(machine().fit(X, other).index_fit_, X.index)
    assert_array_equal(machine().fit(X.to_numpy(), other).index_fit_, other.index)


def test_regressors_and_precomputed_kernels_remember_too(flowers):
    X, y = flowers
    regressor = MultiLayerNTKRegressor(MLP((8,)), random_state=0).fit(X, y)
    assert_array_equal(regressor.index_fit_, X.index)
    K = pd.DataFrame(rbf_kernel(X), X.index, X.index)
    kernels = MultipleKernelClassifier().fit(K, y.to_numpy())
    assert_array_equal(kernels.index_fit_, X.index)
    frame = TrainingContributionsDisplay.from_estimator(kernels, K.iloc[:2]).frame()
    assert set(frame["sample"]) == set(X.index[:2])
    assert set(frame["index"]) <= set(X.index)
    # targets of a regressor may be a Series whose index is no position
    layers = LayerContributionsDisplay.from_estimator(regressor, X[:2], y=y[:2]).plot(sample=1)
    assert f"true {y.iloc[1]:.2f}" in drawn_texts(layers.figure_)


# -- pipelines ------------------------------------------------------------------------------------


def test_pipelines_that_hand_out_dataframes_keep_the_index(flowers):
    X, y = flowers
    scaler = StandardScaler().set_output(transform="pandas")
    model = make_pipeline(scaler, machine()).fit(X, y.to_numpy())
    assert_array_equal(model[-1].index_fit_, X.index)


def test_pipelines_of_arrays_take_the_index_of_y(flowers):
    X, y = flowers
    model = make_pipeline(StandardScaler(), machine())
    assert_array_equal(model.fit(X, y)[-1].index_fit_, X.index)
    search = GridSearchCV(model, {"multilayerntkclassifier__C": [1.0]}, cv=2).fit(X, y)
    assert_array_equal(search.best_estimator_[-1].index_fit_, X.index)
    assert not hasattr(model.fit(X, y.to_numpy())[-1], "index_fit_")


def test_ids_can_be_given_where_none_are_known(flowers):
    X, y = flowers
    X = X.set_axis(range(4), axis=1)  # names of columns would be asked for again
    model = make_pipeline(StandardScaler(), machine()).fit(X, y.to_numpy())
    known = TrainingContributionsDisplay.from_estimator

    unnamed = known(model, X.to_numpy()[:2], labels=y.to_numpy())
    assert_array_equal(unnamed.frame()["index"], unnamed.indices[unnamed.indices >= 0])
    assert set(unnamed.frame()["sample"]) == {0, 1}
    assert "#: position of a training row" in drawn_texts(unnamed.plot().figure_)

    expected = X.index[unnamed.indices[unnamed.indices >= 0]].tolist()
    for given in ({"train_index": X.index}, {"train_index": list(X.index)}, {"labels": y}):
        named = known(model, X[:2], **given)
        assert named.frame()["index"].tolist() == expected
        assert set(named.frame()["sample"]) == set(X.index[:2])
        assert "position" not in drawn_texts(named.plot().figure_)
    series = known(model, X.to_numpy()[:2], index=["a", ("b", 1)], train_index=X.index.to_series())
    assert series.frame()["index"].tolist() == expected
    assert series.frame(sample=1)["sample"].unique().tolist() == [("b", 1)]
    # given ones count more than those that the estimator knows
    model.fit(X, y)
    mine = known(model, X[:1], train_index=range(100, 160)).frame()["index"]
    assert_array_equal(mine, 100 + unnamed.indices[0].ravel())


def test_labels_are_those_of_the_rows_whatever_their_index(flowers):
    X, y = flowers[0].reset_index(drop=True), flowers[1].set_axis(np.arange(60)[::-1])
    model = machine().fit(X, y.to_numpy())
    display = TrainingContributionsDisplay.from_estimator(model, X[:1], labels=y)
    frame = display.frame()
    assert_array_equal(frame["label"], y.to_numpy()[frame["index"]])
    shown = drawn_texts(display.plot().figure_)
    for row, label in zip(frame["index"], frame["label"], strict=True):
        assert f"#{row} ({label})" in shown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_index": ["a"]}, r"train_index must have one id for each of 60 rows, got shape"),
        ({"train_index": np.zeros((60, 2))}, "train_index must have one id"),
        ({"index": ["a", "b"]}, "index must have one id for each of 1 rows"),
    ],
)
def test_ids_must_be_as_many_as_rows(given, message, flowers, tmp_path):
    X, y = flowers
    model = machine().fit(X, y)
    for ask in (
        lambda: TrainingContributionsDisplay.from_estimator(model, X[:1], **given),
        lambda: explain(model, X[:1], tmp_path / "page.html", **given),
    ):
        with pytest.raises(ValueError, match=message):
            ask()
    assert not list(tmp_path.iterdir())


# -- frames and pictures --------------------------------------------------------------------------


def test_frames_of_one_sample_are_parts_of_that_of_all(flowers):
    X, y = flowers
    model = machine().fit(X, y)
    same_id = X[:3].set_axis(["one", "one", "two"])
    for display in (
        LayerContributionsDisplay.from_estimator(model, same_id),
        TrainingContributionsDisplay.from_estimator(model, same_id, top=2),
    ):
        parts = [display.frame(sample=i) for i in range(3)]
        pd.testing.assert_frame_equal(
            pd.concat(parts).reset_index(drop=True), display.frame().reset_index(drop=True)
        )
        pd.testing.assert_frame_equal(display.frame(sample=-1), parts[2])


def test_pictures_name_samples(flowers):
    X, y = flowers
    model = MultiLayerNTKClassifier(InfiniteMLP(1), C=1.0).fit(X, y)
    for display in (
        LayerContributionsDisplay.from_estimator(model, X[:2]),
        TrainingContributionsDisplay.from_estimator(model, X[:2], top=2),
        FeatureContributionsDisplay.from_estimator(model, X[:2]),
    ):
        display.plot(sample=1)
        assert f"sample {X.index[1]}" in drawn_texts(display.figure_)
        assert_readable(display.figure_)


def test_long_and_odd_names_leave_pictures_readable(flowers):
    X, y = flowers
    names = [f"patient {'0' * 60} $x^{i}$\nof ward {i}" for i in range(60)]
    asked = X[:2].set_axis(names[:2])
    model = MultiLayerNTKClassifier(InfiniteMLP(1), C=1.0).fit(X.set_axis(names), y)
    display = TrainingContributionsDisplay.from_estimator(model, asked)
    assert_readable(display.plot().figure_)
    assert set(display.frame()["index"]) <= set(names)
    assert_readable(FeatureContributionsDisplay.from_estimator(model, asked).plot().figure_)
    assert_readable(LayerContributionsDisplay.from_estimator(model, asked).plot(sample=0).figure_)


def test_pictures_of_digits_have_their_rows(flowers):
    X, y = load_digits(return_X_y=True)
    table = pd.DataFrame(X[:100]).set_axis(range(500, 600))
    model = machine().fit(table, y[:100])
    display = TrainingContributionsDisplay.from_estimator(
        model, X[100:101], image_shape=(8, 8), index=[100]
    ).plot()
    shown = drawn_texts(display.figure_)
    assert "sample 100" in shown
    assert all(f"#{500 + j}" in shown for j in display.indices.ravel() if j >= 0)


# -- names of features ----------------------------------------------------------------------------


def columns(model, X):
    return FeatureContributionsDisplay.from_estimator(model, X).frame().columns.tolist()


def test_features_have_the_names_that_steps_hand_out(flowers):
    X, y = flowers
    kernels = MultiLayerNTKClassifier(InfiniteMLP(1), C=1.0)
    assert columns(clone(kernels).fit(X, y), X[:2]) == X.columns.tolist()
    scaled = make_pipeline(StandardScaler(), kernels).fit(X, y)
    assert columns(scaled, X[:2]) == X.columns.tolist()
    assert columns(make_pipeline(PCA(2), kernels).fit(X, y), X[:2]) == ["pca0", "pca1"]
    numbered = ["x0", "x1", "x2", "x3"]
    X, y = X.to_numpy(), y.to_numpy()
    assert columns(clone(kernels).fit(X, y), X[:2]) == numbered
    silent = make_pipeline(FunctionTransformer(np.tanh), kernels).fit(X, y)
    assert columns(silent, X[:2]) == numbered


def test_samples_of_feature_contributions_have_ids(flowers):
    X, y = flowers
    X = X.set_axis(range(4), axis=1)
    model = MultiLayerNTKClassifier(InfiniteMLP(1), C=1.0).fit(X, y)
    for rows, given, expected in (
        (X[:2], None, X.index[:2].tolist()),
        (X.to_numpy()[:2], None, [0, 1]),
        (X.to_numpy()[:2], [("a", 1), ("a", 2)], [("a", 1), ("a", 2)]),
    ):
        found = FeatureContributionsDisplay.from_estimator(model, rows, index=given).frame()
        assert found.index.get_level_values("sample").tolist() == expected
    known = FeatureContributionsDisplay.from_contributions(np.ones((2, 1, 4)), X[:2])
    assert known.frame().index.get_level_values("sample").tolist() == X.index[:2].tolist()


# -- the page -------------------------------------------------------------------------------------


def test_the_page_has_ids_and_features_of_the_examples(flowers, tmp_path):
    X, y = flowers
    X = X.rename(index={X.index[0]: "<b>"})
    model = make_pipeline(StandardScaler(), machine()).fit(X, y.to_numpy())
    asked = X.iloc[[0, 9]]
    text = explain(
        model, asked, tmp_path / "page.html", labels=y.to_numpy(), X_train=X, top=2
    ).read_text()
    page = Page(text)
    assert "<b>" not in text
    assert "Sample &lt;b&gt;: predicted" in text
    assert "named by the index of their table" in text
    near = TrainingContributionsDisplay.from_estimator(
        model, asked, train_index=X.index, top=2
    ).frame(sample=1)["index"]
    assert [f"{X.index[9]}", *near] in page.rows
    table = X.loc[[X.index[9], *near]]
    for name in X.columns:
        assert [name, *(f"{value:.4g}" for value in table[name])] in page.rows


def test_the_page_without_a_table_says_what_numbers_are(flowers, tmp_path):
    X, y = flowers[0].to_numpy(), flowers[1].to_numpy()
    model = make_pipeline(StandardScaler(), machine()).fit(X, y)
    page = Page(text := explain(model, X[:1], tmp_path / "page.html").read_text())
    assert "60, named by position, from 0" in text
    assert ["x1", f"{X[0, 1]:.4g}"] in page.rows
    # rows that no step changed are there in the estimator
    direct = machine().fit(X, y)
    page = Page(explain(direct, X[:1], tmp_path / "page.html", top=1).read_text())
    (j, k) = TrainingContributionsDisplay.from_estimator(direct, X[:1], top=1).indices[0].ravel()
    assert ["x1", *(f"{X[row, 1]:.4g}" for row in (0, j, k))] in page.rows


def test_the_page_refuses_another_table(flowers, tmp_path):
    X, y = flowers
    model = machine().fit(X, y)
    for other, message in [
        (X[:5], "X_train has 5 rows for 60 training rows of positive weight"),
        (X.iloc[:, :3], "features of X in their order; got shape"),
        (X.iloc[:, ::-1], "features of X in their order"),
    ]:
        with pytest.raises(ValueError, match=message):
            explain(model, X[:1], tmp_path / "page.html", X_train=other)


def test_the_command_names_rows_of_the_file(tmp_path, capsys):
    frame = load_iris(as_frame=True).frame.sample(frac=1, random_state=0)
    frame["target"] = frame["target"].map({0: "setosa", 1: "versicolor", 2: "virginica"})
    frame.insert(0, "number", np.arange(150) + 0.5)  # tells the row
    frame.iloc[[2, 40, 41], -1] = None  # rows without a label are left out, and counted
    path, out = tmp_path / "flowers.csv", tmp_path / "page.html"
    frame.to_csv(path, index=False)
    arguments = ["--data", str(path), "--target", "target", "--network", "8", "--resamples", "0"]
    assert main(["explain", *arguments, "--samples", "2", "--out", str(out)]) == 0
    page = Page(out.read_text())
    rows = [row for row in page.rows if row and row[0] == "number"]
    heads = [row for row in page.rows if len(row) == 11 and all(cell.isdigit() for cell in row)]
    assert len(rows) == len(heads) == 2
    for head, row in zip(heads, rows, strict=True):
        assert [f"{int(i) + 0.5:.4g}" for i in head] == row[1:]
    named = ", ".join(head[0] for head in heads)
    assert f"rows {named}, from 0" in capsys.readouterr().out


def test_the_command_has_names_of_features_of_built_in_data(tmp_path):
    out = tmp_path / "page.html"
    arguments = ["--data", "iris", "--network", "8", "--resamples", "0", "--samples", "1"]
    assert main(["explain", *arguments, "--out", str(out)]) == 0
    page, X = Page(out.read_text()), load_iris(as_frame=True).data
    head = next(row for row in page.rows if len(row) == 11 and all(map(str.isdigit, row)))
    for name in X.columns:
        assert [name, *(f"{value:.4g}" for value in X.loc[map(int, head), name])] in page.rows
