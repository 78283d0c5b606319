import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_nftk import MultiLayerNTKClassifier
from sklearn_nftk.inspection import LayerWeightsDisplay, layer_contributions
from sklearn_nftk.networks import MLP


@pytest.fixture(params=["squared", "hinge"])
def pipeline(request, three_classes):
    model = MultiLayerNTKClassifier(MLP((16, 16)), loss=request.param, random_state=0)
    return make_pipeline(StandardScaler(), model).fit(*three_classes)


def test_contributions_sum_to_the_decision(pipeline, three_classes):
    X, _ = three_classes
    contributions = layer_contributions(pipeline, X)
    assert contributions.shape == (60, 3, 3)
    total = contributions.sum(axis=2) + pipeline[-1].intercept_
    assert_allclose(total, pipeline.decision_function(X), rtol=1e-10)


def test_contributions_from_the_mean_are_centred_on_the_training_set(pipeline, three_classes):
    X, _ = three_classes
    contributions = layer_contributions(pipeline, X, baseline="mean")
    assert_allclose(contributions.mean(axis=0), 0, atol=1e-8 * np.abs(contributions).max())
    scores = pipeline.decision_function(X)
    assert_allclose(contributions.sum(axis=2), scores - scores.mean(axis=0), atol=1e-7)


def test_two_classes_have_one_decision(two_classes):
    X, y = two_classes
    model = MultiLayerNTKClassifier(MLP((8,)), random_state=0).fit(X, y)
    assert layer_contributions(model, X).shape == (50, 1, 2)
    assert LayerWeightsDisplay.from_estimator(model).decision_names == ["1 against 0"]


def test_what_cannot_be_inspected_is_refused(pipeline, three_classes):
    X, y = three_classes
    with pytest.raises(ValueError, match="baseline must be 'intercept' or 'mean'"):
        layer_contributions(pipeline, X, baseline="zero")
    with pytest.raises(TypeError, match=r"fitted estimator of sklearn_nftk .* got SVC"):
        layer_contributions(SVC().fit(X, y), X)


def test_weights_display_shows_the_weights(pipeline):
    display = LayerWeightsDisplay.from_estimator(pipeline).plot()
    weights = pipeline[-1].kernel_weights_
    frame = display.frame()
    assert_allclose(frame.to_numpy(), weights)
    assert frame.columns.tolist() == ["layer0", "layer1", "layer2"]
    assert frame.index.tolist() == ["0", "1", "2"]
    assert_allclose(display.image_.get_array(), weights)
    assert [text.get_text() for text in display.ax_.texts] == [f"{w:.2f}" for w in weights.ravel()]
    assert "normalize=variance" in display.ax_.get_title()


def test_weights_display_draws_on_given_axes():
    import matplotlib.pyplot as plt

    weights = np.full((100, 40), 1 / 40)
    names = [f"layer{i}" for i in range(40)]
    figure, ax = plt.subplots()
    display = LayerWeightsDisplay(
        weights, layer_names=names, decision_names=list(map(str, range(100))), normalize="trace"
    ).plot(ax)
    assert display.figure_ is figure
    assert len(display.ax_.get_yticks()) <= 40
    assert not display.ax_.texts
    plt.close("all")
