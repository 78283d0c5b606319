import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import same_color
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import is_classifier
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from sklearn_nftk import (
    MultiLayerNTKClassifier,
    MultiLayerNTKRegressor,
    MultipleKernelClassifier,
    MultipleKernelRegressor,
)
from sklearn_nftk.inspection import (
    KernelAlignmentDisplay,
    LayerContributionsDisplay,
    LayerWeightsDisplay,
    TrainingContributionsDisplay,
    kernel_similarity,
    layer_contributions,
    training_contributions,
    weight_stability,
)
from sklearn_nftk.networks import MLP, InfiniteMLP, InfiniteRNN

SIZES = pytest.mark.parametrize(
    ("n_layers", "n_decisions"), [(L, C) for L in (3, 10, 40) for C in (1, 10, 100)]
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# -- what is drawn, in pixels -------------------------------------------------------------------


def visible_texts(figure):
    """Texts and their boxes, in pixels, of a figure as it is saved."""
    figure.draw_without_rendering()
    texts = list(figure.texts) + [text for part in every_subfigure(figure) for text in part.texts]
    for ax in figure.axes:
        texts += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        for axis, (low, high) in (
            (ax.xaxis, sorted(ax.get_xlim())),
            (ax.yaxis, sorted(ax.get_ylim())),
        ):
            for tick in axis.get_major_ticks():
                if low <= tick.get_loc() <= high:
                    texts += [tick.label1, tick.label2]
    texts = [text for text in texts if text.get_visible() and text.get_text().strip()]
    return texts, np.array([text.get_window_extent().extents for text in texts])


def every_subfigure(figure):
    for part in figure.subfigs:
        yield part
        yield from every_subfigure(part)


def assert_readable(figure):
    """No two texts overlap, and none is cut off at the edge of the figure."""
    texts, boxes = visible_texts(figure)
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    overlap = np.minimum(high, high.swapaxes(0, 1)) - np.maximum(low, low.swapaxes(0, 1))
    touching = np.argwhere(np.triu((overlap > 1).all(axis=2), k=1))
    assert not [(texts[i].get_text(), texts[j].get_text()) for i, j in touching]
    width, height = figure.bbox.size
    cut = (boxes[:, :2] < -1).any(axis=1) | (boxes[:, 2:] > [width + 1, height + 1]).any(axis=1)
    assert not [text.get_text() for text, is_cut in zip(texts, cut, strict=True) if is_cut]


def test_the_check_of_texts_sees_overlaps_and_cuts():
    figure, ax = plt.subplots()
    ax.set_xticks([0, 0.01], ["one name", "another"])
    with pytest.raises(AssertionError, match="one name"):
        assert_readable(figure)
    ax.set_xticks([])
    ax.set_title("far too long " * 10)
    with pytest.raises(AssertionError, match="far too long"):
        assert_readable(figure)


# -- any numbers of layers and decisions --------------------------------------------------------


def arrays(n_layers, n_decisions, n_samples=30):
    """Everything Displays are made of, with the long names of large networks."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(n_layers), n_decisions)
    long = n_layers > 10
    names = [f"encoder.layers.{i}.linear1" if long else f"layer{i}" for i in range(n_layers)]
    classes = [
        f"a long class name {i}" if n_decisions < 100 else str(i) for i in range(n_decisions)
    ]
    decisions = ["1 against 0"] if n_decisions == 1 else classes
    return {
        "weights": weights,
        "interval": {"low": 0.8 * weights, "high": 0.8 * weights + 0.1},
        "layers": np.corrcoef(rng.normal(size=(n_layers, 3))) ** 2,
        "targets": rng.uniform(0, 0.4, (n_decisions, n_layers)),
        "contributions": rng.normal(size=(n_samples, n_decisions, n_layers)),
        "mean_decisions": np.full(n_decisions, -0.8),
        "class_names": ["0", "1"] if n_decisions == 1 else classes,
        "names": {"layer_names": names, "decision_names": decisions},
        "groups": [[0, 1]] if n_layers == 3 else [[0, 1], [n_layers - 2, n_layers - 1]],
    }


@SIZES
def test_weights_are_readable_at_any_size(n_layers, n_decisions):
    data = arrays(n_layers, n_decisions)
    display = LayerWeightsDisplay(
        data["weights"],
        normalize="variance",
        groups=data["groups"],
        **data["names"],
        **data["interval"],
    ).plot()
    assert_readable(display.figure_)


@SIZES
def test_alignments_are_readable_at_any_size(n_layers, n_decisions):
    data = arrays(n_layers, n_decisions)
    display = KernelAlignmentDisplay(
        data["layers"], data["targets"], groups=data["groups"], threshold=0.95, **data["names"]
    ).plot()
    assert_readable(display.figure_)


@SIZES
@pytest.mark.parametrize("sample", [0, None])
def test_contributions_are_readable_at_any_size(n_layers, n_decisions, sample):
    data = arrays(n_layers, n_decisions)
    display = LayerContributionsDisplay(
        data["contributions"],
        mean_decisions=data["mean_decisions"],
        class_names=data["class_names"],
        y=[data["class_names"][0]] * 30,
        groups=data["groups"],
        **data["names"],
    ).plot(sample=sample)
    assert_readable(display.figure_)


def test_displays_share_a_figure_and_its_text_still_fits(fitted_digits):
    model, X, labels = fitted_digits
    figure, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    displays = [
        LayerWeightsDisplay.from_estimator(model).plot(axes[0, 0]),
        KernelAlignmentDisplay.from_estimator(model).plot(axes[0, 1]),
        LayerContributionsDisplay.from_estimator(model, X[:1]).plot(axes[1, 0], max_decisions=3),
        TrainingContributionsDisplay.from_estimator(model, X[:1], top=3, labels=labels).plot(
            axes[1, 1]
        ),
    ]
    assert all(display.figure_.figure is figure for display in displays)
    assert_readable(figure)


def test_several_axes_need_a_place_in_a_grid():
    data = arrays(3, 10)
    display = KernelAlignmentDisplay(
        data["layers"], data["targets"], groups=[], threshold=0.95, **data["names"]
    )
    with pytest.raises(ValueError, match="ax must be one of a grid"):
        display.plot(plt.figure().add_axes((0, 0, 1, 1)))


# -- every kind of estimator --------------------------------------------------------------------


def per_class_network(n_features, n_outputs, random_state):
    torch.manual_seed(random_state)
    return nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, n_outputs)).double()


def stack(X, Z):
    return np.stack([rbf_kernel(X, Z, gamma=gamma) for gamma in (0.02, 0.1, 0.5)], axis=-1)


def machine(**parameters):
    return MultiLayerNTKClassifier(**{"network": MLP((8,)), "random_state": 0, **parameters})


KINDS = {
    "squared": (machine(), "classes"),
    "hinge": (machine(loss="hinge"), "classes"),
    "margin": (machine(kernel_weights="margin"), "classes"),
    "lp, two classes": (machine(kernel_weights="lp", loss="hinge"), "two classes"),
    "sum": (machine(kernel_weights="sum"), "classes"),
    "per class": (machine(network=per_class_network, outputs="per_class"), "classes"),
    "per class, two": (machine(network=per_class_network, outputs="per_class"), "two classes"),
    "infinite": (machine(network=InfiniteMLP(depth=1)), "classes"),
    "pipeline": (make_pipeline(StandardScaler(), machine()), "classes"),
    "search": (GridSearchCV(machine(), {"C": [0.1, 10]}, cv=2), "classes"),
    "search over a pipeline": (
        RandomizedSearchCV(
            make_pipeline(StandardScaler(), machine()),
            {"multilayerntkclassifier__C": [0.1, 10]},
            n_iter=1,
            cv=2,
            random_state=0,
        ),
        "two classes",
    ),
    "regressor": (MultiLayerNTKRegressor(MLP((8,)), random_state=0), "target"),
    "two targets": (MultiLayerNTKRegressor(InfiniteMLP(depth=1)), "targets"),
    "stack": (MultipleKernelClassifier(), "stack"),
    "stack of a target": (MultipleKernelRegressor(), "stack of a target"),
}


@pytest.fixture(params=KINDS)
def fitted(request, three_classes):
    """Estimator of each kind, fitted, with its training data."""
    estimator, task = KINDS[request.param]
    X, y = three_classes
    if task == "two classes":
        y = y > 0
    elif "target" in task:
        y = X[:, :2] if task == "targets" else X[:, 0]
    X = stack(X, X) if "stack" in task else X
    return estimator.fit(X, y), X, y


def decisions_of(estimator, X):
    values = estimator.decision_function(X) if is_classifier(estimator) else estimator.predict(X)
    return values.reshape(len(X), -1)


def test_every_display_takes_every_estimator(fitted):
    estimator, X, y = fitted
    LayerWeightsDisplay.from_estimator(estimator).plot()
    KernelAlignmentDisplay.from_estimator(estimator).plot()
    LayerContributionsDisplay.from_estimator(estimator, X[:6], y=y[:6]).plot()
    LayerContributionsDisplay.from_estimator(estimator, X[:6], y=y[:6]).plot(sample=2)
    labels = y if y.ndim == 1 else None
    TrainingContributionsDisplay.from_estimator(estimator, X[:2], labels=labels, top=3).plot()
    for number in plt.get_fignums():
        assert_readable(plt.figure(number))


def test_rows_of_contributions_add_up_to_the_decision(fitted):
    estimator, X, _ = fitted
    display = LayerContributionsDisplay.from_estimator(estimator, X)
    frame, decisions = display.frame(), decisions_of(estimator, X)
    assert_allclose(frame["decision"].to_numpy().reshape(decisions.shape), decisions, rtol=1e-9)
    assert_allclose(frame.drop(columns="decision").sum(axis=1), frame["decision"], rtol=1e-9)
    assert_allclose(display.contributions.mean(axis=0), 0, atol=1e-7)


def test_training_examples_are_the_largest_of_each_sign(fitted):
    estimator, X, _ = fitted
    display = TrainingContributionsDisplay.from_estimator(
        estimator, X[:3], top=4, decision=0, method="contributions"
    )
    psi = training_contributions(estimator, X[:3])[:, 0]
    assert_allclose(display.decisions, decisions_of(estimator, X[:3])[:, 0], rtol=1e-9)
    for i, contributions in enumerate(psi):
        largest, smallest = np.sort(contributions)[::-1][:4], np.sort(contributions)[:4]
        for side, expected in enumerate((largest[largest > 0], smallest[smallest < 0])):
            shown = display.indices[i, side] >= 0
            assert_allclose(display.values[i, side][shown], expected)
            assert_allclose(contributions[display.indices[i, side][shown]], expected)
        assert_allclose(display.totals[i].sum(), contributions.sum())


# -- weights ------------------------------------------------------------------------------------


def test_weights_and_their_intervals(three_classes):
    X, y = three_classes
    model = machine(shrinkage=0.0).fit(X, y)
    stability = weight_stability(model, X, y, n_resamples=8, random_state=0)
    display = LayerWeightsDisplay.from_estimator(model, stability=stability, threshold=1).plot()
    frame = display.frame()
    assert frame.columns.tolist() == [
        (layer, value) for layer in ("layer0", "layer1") for value in ("weight", "low", "high")
    ]
    assert frame.index.tolist() == ["0", "1", "2"]
    assert_array_equal(frame.xs("weight", axis=1, level="value"), model.kernel_weights_)
    assert_array_equal(frame.xs("high", axis=1, level="value"), stability.high)
    written = {text.get_text() for text in display.ax_.texts}
    assert f"{model.kernel_weights_[0, 0]:.2f}" in written
    low, high = stability.low[0, 0], stability.high[0, 0]
    assert f"[{low:.2f}, {high:.2f}]".replace("0.", ".") in written
    assert display.ax_.get_title() == (
        "layer weights (normalize=variance)\nand their bootstrap intervals"
    )


def test_weights_without_intervals_are_decisions_by_layers(two_classes):
    model = machine().fit(*two_classes)
    display = LayerWeightsDisplay.from_estimator(model).plot()
    assert display.frame().columns.tolist() == ["layer0", "layer1"]
    assert display.frame().index.tolist() == ["1 against 0"]
    assert_array_equal(display.image_.get_array(), model.kernel_weights_)
    assert display.ax_.get_title() == "layer weights (normalize=variance)"


def test_numbers_are_left_out_where_they_do_not_fit():
    data = arrays(40, 100)
    display = LayerWeightsDisplay(
        data["weights"], normalize="trace", **data["names"], **data["interval"]
    ).plot()
    assert not display.ax_.texts
    assert "intervals" not in display.ax_.get_title()


def test_interchangeable_layers_are_marked(three_classes):
    model = machine(network=InfiniteMLP(depth=2)).fit(*three_classes)
    groups = kernel_similarity(model, threshold=0.9).groups
    assert groups == [[0, 1, 2]]
    X = three_classes[0]
    weights = LayerWeightsDisplay.from_estimator(model, threshold=0.9).plot()
    alignment = KernelAlignmentDisplay.from_estimator(model, threshold=0.9).plot()
    contributions = LayerContributionsDisplay.from_estimator(model, X, threshold=0.9).plot()
    marked = [f"{name} (a)" for name in model.layer_names_]
    meaning = "(a): centred alignment ≥ 0.9, their weights cannot be told apart"
    for ax in (weights.ax_, alignment.axes_[1]):
        assert [label.get_text() for label in ax.get_xticklabels()] == marked
        assert meaning in " ".join(ax.get_xlabel().split())
    rows = [label.get_text() for label in contributions.axes_[0].get_yticklabels()]
    assert rows == [*marked, "sum"]
    assert meaning in " ".join(contributions.figure_.get_supxlabel().split())
    assert weights.frame().columns.tolist() == model.layer_names_
    distinct = LayerWeightsDisplay.from_estimator(model, threshold=1.0).plot()
    assert distinct.ax_.get_xlabel() == "layer"


# -- alignment ----------------------------------------------------------------------------------


def test_alignment_of_each_decision_or_their_mean(three_classes):
    model = machine(network=per_class_network, outputs="per_class").fit(*three_classes)
    display = KernelAlignmentDisplay.from_estimator(model)
    display.plot(decision=1)
    assert_array_equal(display.images_[0].get_array(), model.layer_alignment_[1])
    assert_array_equal(display.images_[1].get_array(), model.target_alignment_)
    assert "(class 1)" in display.axes_[0].get_title()
    display.plot()
    assert_allclose(display.images_[0].get_array(), model.layer_alignment_.mean(axis=0))
    assert "(mean over the 3 decisions)" in display.axes_[0].get_title()
    frame = display.frame(decision=2)
    assert_array_equal(frame.loc["layer"], model.layer_alignment_[2])
    assert_array_equal(frame.loc["class"], model.target_alignment_)


# -- contributions ------------------------------------------------------------------------------


def test_one_sample_has_a_bar_for_each_layer_and_their_sum(three_classes):
    X, y = three_classes
    model = machine().fit(X, y)
    display = LayerContributionsDisplay.from_estimator(model, X[:5], y=y[:5]).plot(sample=4)
    phi = layer_contributions(model, X[4:5], baseline="mean")[0]
    decisions = model.decision_function(X[4:5])[0]
    means = display.mean_decisions
    assert len(display.axes_) == 3
    for c, ax in enumerate(display.axes_):
        widths = [bar.get_width() for bar in ax.patches]
        assert_allclose(widths, [*phi[c], phi[c].sum()], rtol=1e-7)
        title = ax.get_title().replace("\N{MINUS SIGN}", "-")
        assert title.startswith(f"class {c}")
        assert ("true" in title) == (y[4] == c)
        assert ("predicted" in title) == (model.predict(X[4:5])[0] == c)
        assert f"{means[c]:.2f} " in title
        assert title.endswith(f"= {decisions[c]:.2f}")


def test_of_many_classes_the_contenders_and_the_true_one_are_shown():
    data = arrays(3, 100)
    display = LayerContributionsDisplay(
        data["contributions"],
        mean_decisions=data["mean_decisions"],
        class_names=data["class_names"],
        y=[str(i) for i in display_order(data, worst=True)],
        **data["names"],
    ).plot(sample=0, max_decisions=4)
    best, worst = display_order(data)[0], display_order(data, worst=True)[0]
    titles = [ax.get_title().split("\n")[0] for ax in display.axes_]
    assert len(titles) == 4
    assert titles[0] == f"class {best} (predicted)"
    assert titles[-1] == f"class {worst} (true)"
    assert "the 4 of 100 classes of the largest decisions" in display.figure_.get_suptitle()
    display.plot(sample=0, decisions=[7])
    assert [ax.get_title().split("\n")[0] for ax in display.axes_] == ["class 7"]


def display_order(data, worst=False):
    """Index of the largest, or smallest, decision on each sample."""
    decisions = data["mean_decisions"] + data["contributions"].sum(axis=2)
    return decisions.argmin(axis=1) if worst else decisions.argmax(axis=1)


def test_many_layers_and_decisions_become_a_heat_map():
    data = arrays(40, 10)
    display = LayerContributionsDisplay(
        data["contributions"],
        mean_decisions=data["mean_decisions"],
        class_names=data["class_names"],
        **data["names"],
    ).plot(sample=3)
    image = display.axes_[0].images[0]
    assert_array_equal(image.get_array(), data["contributions"][3])
    assert image.norm.vmin == -image.norm.vmax
    display.plot(sample=3, decisions=[0])
    assert len(display.axes_[0].patches) == 41


def test_many_samples_are_points_coloured_by_class(three_classes):
    X, y = three_classes
    model = machine().fit(X, y)
    for given, members in ((y, y), (None, model.predict(X))):
        display = LayerContributionsDisplay.from_estimator(model, X, y=given).plot()
        for c, ax in enumerate(display.axes_):
            points = ax.collections[0]
            phi = layer_contributions(model, X, baseline="mean")[:, c]
            rows = points.get_offsets()[:, 1]
            for layer in range(2):
                found = points.get_offsets()[np.abs(rows - layer) <= 0.3, 0]
                assert_allclose(np.sort(found), np.sort(phi[:, layer]), rtol=1e-7)
            blue = [same_color(colour[:3], "#0072b2") for colour in points.get_facecolors()]
            assert sum(blue) == 3 * np.sum(members == c)  # two layers and their sum


def test_more_points_than_can_be_seen_are_not_drawn():
    data = arrays(3, 1, n_samples=2500)
    display = LayerContributionsDisplay(
        data["contributions"],
        mean_decisions=data["mean_decisions"],
        class_names=data["class_names"],
        **data["names"],
    ).plot()
    assert len(display.axes_[0].collections[0].get_offsets()) == 4 * 2000
    assert "2000 of them are drawn" in display.figure_.get_supxlabel()


def test_true_classes_must_be_as_many_as_samples(three_classes):
    X, y = three_classes
    model = machine().fit(X, y)
    with pytest.raises(ValueError, match="y has 60 entries for the 5 samples"):
        LayerContributionsDisplay.from_estimator(model, X[:5], y=y)


# -- training examples --------------------------------------------------------------------------


def image_network(n_features, n_outputs, random_state):
    torch.manual_seed(random_state)
    return nn.Sequential(
        nn.Conv2d(n_features, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, n_outputs)
    ).double()


@pytest.fixture(scope="module")
def fitted_digits():
    """A network on images of shape (1, 6, 6) in ten classes, with its training set."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    X = rng.normal(size=(40, 1, 6, 6)) + 3 * rng.normal(size=(10, 1, 6, 6))[labels]
    return MultiLayerNTKClassifier(image_network, random_state=0).fit(X, labels), X, labels


def test_images_are_drawn_as_images(fitted_digits):
    model, X, labels = fitted_digits
    display = TrainingContributionsDisplay.from_estimator(model, X[:2], top=3, labels=labels)
    display.plot()
    assert display.axes_.shape == (2, 7)
    assert_readable(display.figure_)
    for row, i in zip(display.axes_, range(2), strict=True):
        assert_array_equal(row[0].images[0].get_array(), X[i, 0])
        predicted = model.predict(X[i : i + 1])[0]
        assert display.sides[i] == (f"for {predicted}", f"against {predicted}")
        for panel, index, value in zip(
            row[1:], display.indices[i].ravel(), display.values[i].ravel(), strict=True
        ):
            assert_array_equal(panel.images[0].get_array(), X[index, 0])
            assert panel.get_xlabel() == f"#{index} ({labels[index]})"
            assert panel.get_title()[0] == ("+" if value > 0 else "\N{MINUS SIGN}")
            colour = "#5e3c99" if value > 0 else "#e66101"
            assert same_color(panel.spines["left"].get_edgecolor(), colour)
    frame = display.frame()
    assert len(frame) == 12
    assert_array_equal(frame["label"], labels[frame["index"]])


def test_flat_images_get_their_shape_back(fitted_digits):
    _, X, labels = fitted_digits
    flat = X.reshape(40, 36)
    model = machine().fit(flat, labels)
    bars = TrainingContributionsDisplay.from_estimator(model, flat[:1], labels=labels).plot()
    assert len(bars.axes_) == 1
    assert len(bars.axes_[0].patches) == 10
    rows = [label.get_text() for label in bars.axes_[0].get_yticklabels()]
    assert rows[0] == f"#{bars.indices[0, 0, 0]} ({labels[bars.indices[0, 0, 0]]})"
    shaped = TrainingContributionsDisplay.from_estimator(model, flat[:1], image_shape=(6, 6))
    assert_array_equal(shaped.plot().axes_[0, 0].images[0].get_array(), X[0, 0])
    with pytest.raises(ValueError, match=r"image_shape \(5, 5\) does not fit the 36 features"):
        TrainingContributionsDisplay.from_estimator(model, flat[:1], image_shape=(5, 5))


def test_pictures_of_a_pipeline_may_be_given(fitted_digits):
    _, X, labels = fitted_digits
    flatten = FunctionTransformer(lambda images: images.reshape(len(images), -1))
    model = make_pipeline(flatten, machine()).fit(X, labels)
    colour = np.repeat(X, 3, axis=1)
    assert TrainingContributionsDisplay.from_estimator(model, X[:1]).train_images is None
    display = TrainingContributionsDisplay.from_estimator(
        model, X[:1], images=colour[:1], train_images=colour
    ).plot()
    assert display.axes_[0, 1].images[0].get_array().shape == (6, 6, 3)
    with pytest.raises(ValueError, match="train_images must be 40 pictures, got 7"):
        TrainingContributionsDisplay.from_estimator(model, X[:1], train_images=X[:7])
    with pytest.raises(ValueError, match="train_images must have shape"):
        TrainingContributionsDisplay.from_estimator(
            model, X[:1], train_images=np.zeros((40, 2, 6, 6))
        )
    with pytest.raises(ValueError, match="labels has 3 entries for 40 training rows"):
        TrainingContributionsDisplay.from_estimator(model, X[:1], labels=[0, 1, 2])


def test_sequences_and_stacks_are_no_pictures(rng):
    X, y = rng.normal(size=(20, 6, 5)), np.arange(20) % 2
    sequences = MultiLayerNTKClassifier(InfiniteRNN()).fit(X, y)
    display = TrainingContributionsDisplay.from_estimator(sequences, X[:1])
    assert display.images is None
    assert display.train_images is None
    K = stack(X[:, 0], X[:, 0])
    kernels = MultipleKernelClassifier().fit(K, y)
    display = TrainingContributionsDisplay.from_estimator(kernels, K[:1])
    assert display.images is None
    assert display.sides == [("for 1", "for 0")]


def test_fewer_examples_than_asked_for(two_classes):
    X, y = two_classes
    model = machine().fit(X[:12], y[:12])
    display = TrainingContributionsDisplay.from_estimator(model, X[:1], top=50).plot()
    values = training_contributions(model, X[:1])[0, 0]
    assert len(display.axes_[0].patches) == len(display.frame()) == np.sum(values != 0)
