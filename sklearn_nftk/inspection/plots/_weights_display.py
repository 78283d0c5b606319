"""The learned weights as a picture: classes by layers."""

import numpy as np

from ...estimators import fitted
from .._similarity import kernel_similarity
from .._unwrap import decision_kind, decision_names, final_estimator, layer_labels
from ._drawing import (
    fit_names,
    heat_map,
    label_columns,
    mark_layers,
    marks_note,
    names_height,
    new_axes,
    write_numbers,
)


class LayerWeightsDisplay:
    """Heat map of the weights over the layers, one row for each decision function.

    Layers whose kernels are nearly the same are marked with a letter: how their weight is divided
    between them says nothing about them. Use `from_estimator` to create it.

    Parameters
    ----------
    weights : ndarray of shape (n_decisions, n_layers)
        Each row sums to one.
    layer_names : list of str
    decision_names : list of str
    normalize : str
        How the kernels were normalised; weights mean something only together with it.
    low, high : ndarray of shape (n_decisions, n_layers), default=None
        Interval of each weight.
    groups : list of lists of int, default=()
        Interchangeable layers, as of :func:`kernel_similarity`.
    threshold : float, default=0.95
        Centred alignment from which layers count as interchangeable.
    decision_kind : {"class", "target"}, default="class"

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    image_ : matplotlib AxesImage

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import LayerWeightsDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MultiLayerNTKClassifier(kernel_weights=[2, 1, 1], random_state=0).fit(X, y)
    >>> LayerWeightsDisplay.from_estimator(model).frame().loc["0"].tolist()
    [0.5, 0.25, 0.25]
    """

    def __init__(
        self,
        weights,
        *,
        layer_names,
        decision_names,
        normalize,
        low=None,
        high=None,
        groups=(),
        threshold=0.95,
        decision_kind="class",
    ):
        self.weights = weights
        self.layer_names = layer_names
        self.decision_names = decision_names
        self.normalize = normalize
        self.low = low
        self.high = high
        self.groups = groups
        self.threshold = threshold
        self.decision_kind = decision_kind

    @classmethod
    def from_estimator(cls, estimator, *, stability=None, threshold=0.95):
        """Take the weights of a fitted estimator, or of the last step of a pipeline.

        Parameters
        ----------
        estimator : estimator of sklearn_nftk, or Pipeline or search that ends in one
        stability : Bunch, default=None
            What :func:`weight_stability` returned for the estimator: adds its intervals.
        threshold : float in [0, 1], default=0.95
            Centred alignment from which layers are marked as interchangeable.

        Returns
        -------
        LayerWeightsDisplay
        """
        machine = final_estimator(estimator)
        return cls(
            machine.kernel_weights_,
            layer_names=layer_labels(machine),
            decision_names=decision_names(machine),
            normalize=fitted(machine).options.normalize,
            low=None if stability is None else stability.low,
            high=None if stability is None else stability.high,
            groups=kernel_similarity(machine, threshold=threshold).groups,
            threshold=threshold,
            decision_kind=decision_kind(machine),
        )

    def frame(self):
        """Return the numbers behind the picture.

        Returns
        -------
        pandas.DataFrame
            Decisions by layers; with intervals, each layer has the columns "weight", "low" and
            "high".
        """
        import pandas as pd

        values, columns = self.weights, pd.Index(self.layer_names, name="layer")
        if self.low is not None:
            parts = ["weight", "low", "high"]
            columns = pd.MultiIndex.from_product(
                [self.layer_names, parts], names=["layer", "value"]
            )
            values = np.stack([self.weights, self.low, self.high], axis=2)
        index = pd.Index(self.decision_names, name=self.decision_kind)
        return pd.DataFrame(values.reshape(len(index), -1), index=index, columns=columns)

    def plot(self, ax=None, *, cmap="cividis"):
        """Draw the heat map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure that fits the numbers of classes and layers.
        cmap : str or Colormap, default="cividis"

        Returns
        -------
        LayerWeightsDisplay
            Itself.
        """
        n_decisions, n_layers = self.weights.shape
        names = mark_layers(self.layer_names, self.groups)
        cells = np.clip(0.75 * n_layers, 3, 9)
        row = 0.34 if self.low is None else 0.45
        ax = new_axes(
            ax,
            width=cells + 0.08 * max(map(len, self.decision_names)) + 1.5,
            height=np.clip(row * n_decisions, 0.8, 8) + names_height(names, cells) + 1.4,
        )
        # Of many layers none has a large weight; uniform weights are never above the middle.
        colours = {"cmap": cmap, "vmin": 0, "vmax": min(1, max(self.weights.max(), 2 / n_layers))}
        image = heat_map(ax, self.weights, self.decision_names, names, **colours)
        title = f"layer weights (normalize={self.normalize})"
        ax.set_title(title if self.low is None else f"{title}\nand their bootstrap intervals")
        ax.set_ylabel(self.decision_kind)
        ax.figure.colorbar(image, ax=ax, label="weight")
        label_columns(ax, "layer", marks_note(self.groups, self.threshold))
        fit_names(ax.xaxis, ax.yaxis)
        if not write_numbers(image, notes=self._intervals()):
            ax.set_title(title)
        self.ax_, self.figure_, self.image_ = ax, ax.figure, image
        return self

    def _intervals(self):
        """The interval of each weight, as short as it can be written."""
        if self.low is None:
            return None
        return np.vectorize(lambda low, high: f"[{_short(low)}, {_short(high)}]")(
            self.low, self.high
        )


def _short(number):
    """Two decimals, without the zero before the point."""
    return f"{number:.2f}".removeprefix("0")
