"""The learned weights as a picture: classes by layers."""

import numpy as np

from ._unwrap import decision_names, final_estimator

# Above this many cells in a row, numbers would not fit into them.
_MOST_NUMBERS = 16


class LayerWeightsDisplay:
    """Heat map of the weights over the layers, one row for each decision function.

    Use `from_estimator` to create it.

    Parameters
    ----------
    weights : ndarray of shape (n_decisions, n_layers)
        Each row sums to one.
    layer_names : list of str
    decision_names : list of str
    normalize : str
        How the kernels were normalised; weights mean something only together with it.

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

    def __init__(self, weights, *, layer_names, decision_names, normalize):
        self.weights = weights
        self.layer_names = layer_names
        self.decision_names = decision_names
        self.normalize = normalize

    @classmethod
    def from_estimator(cls, estimator):
        """Take the weights of a fitted estimator, or of the last step of a pipeline.

        Parameters
        ----------
        estimator : estimator of sklearn_nftk or Pipeline ending in one

        Returns
        -------
        LayerWeightsDisplay
        """
        machine = final_estimator(estimator)
        return cls(
            machine.kernel_weights_,
            layer_names=[name or "(root)" for name in machine.layer_names_],
            decision_names=decision_names(machine),
            normalize=machine.normalize,
        )

    def frame(self):
        """Return the numbers behind the picture.

        Returns
        -------
        pandas.DataFrame
            Decisions by layers.
        """
        import pandas as pd

        return pd.DataFrame(
            self.weights,
            index=pd.Index(self.decision_names, name="class"),
            columns=pd.Index(self.layer_names, name="layer"),
        )

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
        import matplotlib.pyplot as plt

        n_decisions, n_layers = self.weights.shape
        if ax is None:
            longest = max(len(name) for name in self.decision_names)
            width = np.clip(0.75 * n_layers, 2.5, 16) + 0.09 * longest + 1.6
            height = np.clip(0.34 * n_decisions, 1.2, 16) + 1.2
            _, ax = plt.subplots(figsize=(width, height), layout="constrained")
        image = ax.imshow(self.weights, cmap=cmap, vmin=0, vmax=1, aspect="auto")
        if n_layers <= _MOST_NUMBERS and n_decisions <= 2 * _MOST_NUMBERS:
            self._write_numbers(ax, image)
        rotation = 0 if n_layers * max(map(len, self.layer_names)) <= 60 else 90
        ax.set_xticks(*_ticks(self.layer_names, 40), rotation=rotation)
        ax.set_yticks(*_ticks(self.decision_names, 40))
        ax.set(xlabel="layer", ylabel="class", title=f"layer weights (normalize={self.normalize})")
        bar = ax.figure.colorbar(image, ax=ax)
        bar.set_label("weight")
        self.ax_, self.figure_, self.image_ = ax, ax.figure, image
        return self

    def _write_numbers(self, ax, image):
        for (row, column), weight in np.ndenumerate(self.weights):
            red, green, blue, _ = image.cmap(image.norm(weight))
            luminance = 0.299 * red + 0.587 * green + 0.114 * blue
            ax.text(
                column,
                row,
                f"{weight:.2f}",
                ha="center",
                va="center",
                color="black" if luminance > 0.5 else "white",
                fontsize=9,
            )


def _ticks(names, most):
    """Positions and labels of at most so many ticks."""
    step = -(-len(names) // most)
    positions = range(0, len(names), step)
    return positions, [names[i] for i in positions]
