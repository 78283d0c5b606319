import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics.pairwise import rbf_kernel

from sklearn_nftk import MultiLayerNTKClassifier, MultiLayerNTKRegressor, MultipleKernelClassifier
from sklearn_nftk.networks import MLP

callback = pytest.importorskip("sklearn.callback", reason="callbacks came with scikit-learn 1.9")

SMALL = MLP(hidden_layer_sizes=(8,), random_state=0)


class Recorder:
    """Keeps what it is told, as scikit-learn's protocol of callbacks has it."""

    def __init__(self):
        self.events = []
        self.scores = []

    def setup(self, estimator, context):
        self.events.append(("setup", context.task_name))

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
        self.events.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.events.append(("end", context.task_name))
        if fitted_estimator is not None:
            self.scores.append(fitted_estimator.score(X, y))

    def teardown(self, estimator, context):
        self.events.append(("teardown", context.task_name))


@pytest.mark.parametrize("model", [MultiLayerNTKClassifier(SMALL), MultiLayerNTKRegressor(SMALL)])
def test_callbacks_hear_of_every_step(model, three_classes, monkeypatch):
    monkeypatch.setattr("sklearn_nftk.tangents._sizes._TILE_ROWS", 20)
    X, y = three_classes
    recorder = Recorder()
    model = clone(model).set_callbacks(recorder).fit(X, y)
    steps = 3 * 4 // 2  # tiles of 20 rows in the upper half of 60
    kernels = [("begin", "layer kernels"), *[("begin", "step"), ("end", "step")] * steps]
    expected = [("setup", "fit"), ("begin", "fit"), *kernels, ("end", "layer kernels")]
    for task in ("statistics", "kernel weights", "dual coefficients"):
        expected += [("begin", task), ("begin", "step"), ("end", "step"), ("end", task)]
    assert recorder.events == [*expected, ("end", "fit"), ("teardown", "fit")]
    assert recorder.scores == [model.score(X, y)]


def test_callbacks_of_precomputed_kernels(three_classes):
    X, y = three_classes
    recorder = Recorder()
    MultipleKernelClassifier().set_callbacks(recorder).fit(rbf_kernel(X), y)
    begun = [name for event, name in recorder.events if event == "begin" and name != "step"]
    assert begun == ["fit", "statistics", "kernel weights", "dual coefficients"]


def test_callbacks_are_torn_down_when_fit_fails(two_classes):
    X, y = two_classes
    recorder = Recorder()
    model = MultiLayerNTKClassifier(SMALL, kernel_weights=np.ones(17)).set_callbacks(recorder)
    with pytest.raises(ValueError, match="kernel_weights"):
        model.fit(X, y)
    assert recorder.events[-1] == ("teardown", "fit")
