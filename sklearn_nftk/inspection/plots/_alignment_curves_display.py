"""Alignment of the hidden layers of a kernel network over the epochs of their training."""

import numpy as np

from .._unwrap import final_network
from ._drawing import new_axes

# Of Okabe and Ito, whom colour-blind readers can tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


class AlignmentCurvesDisplay:
    """Curves of the alignment with the ideal kernel matrix, one for each hidden layer.

    Layers are trained one after the other, each from its own epoch 1. Use `from_estimator` to
    create it.

    Parameters
    ----------
    curves : list of ndarray of shape (n_epochs,)
        Mean alignment of the batches of each epoch, for each hidden layer.
    layer_names : list of str

    Attributes
    ----------
    ax_ : matplotlib Axes
    lines_ : list of matplotlib Line2D
    figure_ : matplotlib Figure or SubFigure

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import scale
    >>> from sklearn_nftk.inspection import AlignmentCurvesDisplay
    >>> from sklearn_nftk.kernel_networks import KernelMLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = KernelMLPClassifier((8, 8), epochs=[50, 30, 50]).fit(scale(X), y)
    >>> AlignmentCurvesDisplay.from_estimator(model).frame().shape
    (50, 2)
    """

    def __init__(self, curves, *, layer_names):
        self.curves = curves
        self.layer_names = layer_names

    @classmethod
    def from_estimator(cls, estimator):
        """Take the curves of a fitted kernel network.

        Parameters
        ----------
        estimator : KernelMLPClassifier, KernelMLPRegressor, or Pipeline or search that ends in one
            Fitted, with at least one hidden layer.

        Returns
        -------
        AlignmentCurvesDisplay

        Raises
        ------
        ValueError
            If it has no hidden layer.
        """
        network = final_network(estimator)
        if not network.alignment_curve_:
            raise ValueError("estimator has no hidden layer, whose alignment could be shown.")
        return cls(network.alignment_curve_, layer_names=list(network.layer_names_[:-1]))

    def frame(self):
        """Return the numbers behind the picture.

        Returns
        -------
        pandas.DataFrame
            Epochs by layers; nan after the last epoch of a layer.
        """
        import pandas as pd

        columns = {
            name: pd.Series(curve, index=np.arange(1, len(curve) + 1))
            for name, curve in zip(self.layer_names, self.curves, strict=True)
        }
        return pd.DataFrame(columns).rename_axis(index="epoch", columns="layer")

    def plot(self, ax=None):
        """Draw a line for each hidden layer.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        AlignmentCurvesDisplay
            Itself.
        """
        ax = new_axes(ax, width=5.5, height=3.5)
        self.lines_ = []
        for index, (name, curve) in enumerate(zip(self.layer_names, self.curves, strict=True)):
            style = {
                "color": _COLOURS[index % len(_COLOURS)],
                "linestyle": ("-", "--", ":")[index // len(_COLOURS) % 3],
            }
            epochs = np.arange(1, len(curve) + 1)
            self.lines_ += ax.plot(epochs, curve, label=f"{name} ({curve[-1]:.2f})", **style)
        ax.set(xlabel="epoch of the layer", ylabel="alignment of batches", ylim=(None, 1.0))
        ax.set_title("alignment with the ideal kernel matrix", fontsize="medium")
        ax.legend(title="layer (at last)", loc="lower right")
        ax.grid(alpha=0.3)
        self.ax_, self.figure_ = ax, ax.figure
        return self
