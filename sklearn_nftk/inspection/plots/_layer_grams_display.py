"""Kernel matrices of a kernel network's layers, sorted by class, before and after training."""

import numpy as np
from sklearn.utils import check_consistent_length, check_random_state

from .._unwrap import final_network, transformed
from ._drawing import new_figure

# Grams of more samples cannot be seen in a panel.
_MOST_SAMPLES = 300


class LayerGramsDisplay:
    """Heat maps of the kernel matrix of each layer, samples sorted by class.

    The kernel of each layer on what the layer below makes of the samples: as it was before that
    layer was trained, and after. The target of the training is 1 in the squares on the diagonal,
    pairs of one class, and 0 elsewhere. Use `from_estimator` to create it.

    Parameters
    ----------
    before, after : ndarray of shape (L, n_samples, n_samples)
        Kernel matrices; of the first layer they are the same.
    y : ndarray of shape (n_samples,)
        Sorted classes or targets of the samples.
    alignments : ndarray of shape (L, 2)
        Alignment with the ideal kernel matrix, before and after.
    layer_names : list of str
        Of the L layers, the first, on the samples themselves, included.
    classes : bool, default=True
        Whether y are classes.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (2, L)
        Before and after; the first column is one panel, twice.
    images_ : list of matplotlib AxesImage
    figure_ : matplotlib Figure or SubFigure

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import scale
    >>> from sklearn_nftk.inspection import LayerGramsDisplay
    >>> from sklearn_nftk.kernel_networks import KernelMLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> X = scale(X)
    >>> model = KernelMLPClassifier((8, 8), epochs=50, random_state=0).fit(X, y)
    >>> display = LayerGramsDisplay.from_estimator(model, X, y)
    >>> frame = display.frame()
    >>> bool((frame["after"] >= frame["before"]).all())
    True
    """

    def __init__(self, before, after, y, *, alignments, layer_names, classes=True):
        self.before = before
        self.after = after
        self.y = y
        self.alignments = alignments
        self.layer_names = layer_names
        self.classes = classes

    @classmethod
    def from_estimator(cls, estimator, X, y, *, max_samples=_MOST_SAMPLES, random_state=0):
        """Compute the kernel matrices of a fitted kernel network.

        Parameters
        ----------
        estimator : KernelMLPClassifier, KernelMLPRegressor, or Pipeline or search that ends in one
            Fitted.
        X : array-like of shape (n_samples, ...)
            Samples, of the training or not.
        y : array-like of shape (n_samples,)
            Their classes or targets.
        max_samples : int, default=300
            Of more samples, so many are drawn.
        random_state : int, RandomState instance or None, default=0
            Draws them.

        Returns
        -------
        LayerGramsDisplay

        Raises
        ------
        ValueError
            If `max_samples` is less than 1, or y has not one entry for each sample.
        """
        network = final_network(estimator)
        if max_samples < 1:
            raise ValueError(f"max_samples must be at least 1, got {max_samples!r}.")
        check_consistent_length(X, y)
        y = np.asarray(y)
        if y.ndim != 1:
            raise ValueError(f"y must be of shape (n_samples,), got {y.shape}.")
        rows = np.arange(len(y))
        if len(rows) > max_samples:
            rows = check_random_state(random_state).permutation(rows)[:max_samples]
        rows = rows[np.argsort(y[rows], kind="stable")]
        X = network._test_set(transformed(estimator, X))[rows]
        pairs = [network._kernels(X, initial=initial) for initial in (True, False)]
        before, after = (source.gram(batch)[0] for source, batch in pairs)
        alignments = [network._alignments(*pair, y[rows]) for pair in pairs]
        return cls(
            before,
            after,
            y[rows],
            alignments=np.column_stack(alignments),
            layer_names=list(network.layer_names_),
            classes=hasattr(network, "classes_"),
        )

    def frame(self):
        """Return the numbers behind the picture.

        Returns
        -------
        pandas.DataFrame
            Alignments before and after training, and mean kernels of pairs of different samples
            of one class and of different classes (after; for classes only), by layers.
        """
        import pandas as pd

        columns = dict(zip(("before", "after"), self.alignments.T, strict=True))
        if self.classes:
            same = self.y[:, None] == self.y
            pairs = ~np.eye(len(self.y), dtype=bool)
            for name, some in (("within", same & pairs), ("between", ~same)):
                columns[name] = [K[some].mean() if some.any() else np.nan for K in self.after]
        return pd.DataFrame(columns, pd.Index(self.layer_names, name="layer"))

    def plot(self, ax=None, *, cmap="cividis"):
        """Draw a column for each layer: its kernel matrix before and after training.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            One of a grid, whose place the heat maps take. None makes a figure.
        cmap : str or Colormap, default="cividis"

        Returns
        -------
        LayerGramsDisplay
            Itself.
        """
        n_layers = len(self.layer_names)
        figure = new_figure(ax, width=2.5 * n_layers + 1.2, height=5.8)
        grid = figure.add_gridspec(2, n_layers)
        first = figure.add_subplot(grid[:, 0])
        panels = [(first, 0, 1)]
        axes = np.empty((2, n_layers), dtype=object)
        axes[:, 0] = first
        for row, column in np.ndindex(2, n_layers - 1):
            axes[row, column + 1] = figure.add_subplot(grid[row, column + 1])
            panels.append((axes[row, column + 1], column + 1, row))
        self.images_ = [self._panel(*panel, cmap) for panel in panels]
        figure.colorbar(self.images_[0], ax=list(dict.fromkeys(axes.ravel())), label="kernel")
        figure.suptitle(
            f"kernel matrices of {len(self.y)} samples, sorted by "
            f"{'class' if self.classes else 'target'}"
        )
        self.axes_, self.figure_ = axes, figure
        return self

    def _panel(self, ax, layer, row, cmap):
        K, alignment = (self.before, self.after)[row][layer], self.alignments[layer, row]
        image = ax.imshow(K, cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
        when = "on the samples" if layer == 0 else ("before", "after")[row]
        ax.set_title(f"{self.layer_names[layer]}, {when}\nalignment {alignment:.2f}", fontsize=9)
        ax.set_yticks([])
        ax.set_xticks([])
        if self.classes:
            names, starts, counts = np.unique(self.y, return_index=True, return_counts=True)
            for start in starts[1:]:
                ax.axhline(start - 0.5, color="white", linewidth=0.5)
                ax.axvline(start - 0.5, color="white", linewidth=0.5)
            if layer == 0:
                ax.set_yticks(starts + (counts - 1) / 2, names)
                ax.set_ylabel("class")
        return image
