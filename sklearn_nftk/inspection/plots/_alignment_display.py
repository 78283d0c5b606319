"""Centred alignment of the layers with each other and with the targets, as heat maps."""

import numpy as np

from .._similarity import kernel_similarity
from .._unwrap import decision_kind, final_estimator, layer_labels
from ._drawing import (
    fit_names,
    heat_map,
    label_columns,
    mark_layers,
    marks_note,
    names_height,
    new_figure,
    write_numbers,
)


class KernelAlignmentDisplay:
    """Heat maps of the centred alignment between the layers, and of each with each decision.

    Alignment is the cosine between centred kernels: 1 between layers that say the same, and
    between a layer and targets that it knows exactly. Use `from_estimator` to create it.

    Parameters
    ----------
    layers : ndarray of shape (n_layers, n_layers) or (n_decisions, n_layers, n_layers)
        Between the kernels of the layers.
    targets : ndarray of shape (n_decisions, n_layers)
        Between the kernel of each layer and the targets of each decision.
    groups : list of lists of int
        Interchangeable layers.
    threshold : float
        Alignment from which layers count as interchangeable.
    layer_names : list of str
    decision_names : list of str
    decision_kind : {"class", "target"}, default="class"

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (2,)
        Layers by layers, and decisions by layers.
    images_ : ndarray of matplotlib AxesImage, shape (2,)
    figure_ : matplotlib Figure or SubFigure

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import KernelAlignmentDisplay
    >>> from sklearn_nftk.networks import InfiniteMLP
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MultiLayerNTKClassifier(InfiniteMLP(depth=1)).fit(X, y)
    >>> KernelAlignmentDisplay.from_estimator(model).frame().shape  # 2 layers and 3 classes
    (5, 2)
    """

    def __init__(
        self,
        layers,
        targets,
        *,
        groups,
        threshold,
        layer_names,
        decision_names,
        decision_kind="class",
    ):
        self.layers = layers
        self.targets = targets
        self.groups = groups
        self.threshold = threshold
        self.layer_names = layer_names
        self.decision_names = decision_names
        self.decision_kind = decision_kind

    @classmethod
    def from_estimator(cls, estimator, *, threshold=0.95):
        """Take the alignments of a fitted estimator, or of the last step of a pipeline.

        Parameters
        ----------
        estimator : estimator of sklearn_nftk, or Pipeline or search that ends in one
        threshold : float in [0, 1], default=0.95
            Alignment, in every decision, from which layers are marked as interchangeable.

        Returns
        -------
        KernelAlignmentDisplay
        """
        machine = final_estimator(estimator)
        similarity = kernel_similarity(machine, threshold=threshold)
        return cls(
            similarity.layers,
            similarity.targets,
            groups=similarity.groups,
            threshold=threshold,
            layer_names=layer_labels(machine),
            decision_names=similarity.decision_names,
            decision_kind=decision_kind(machine),
        )

    def frame(self, *, decision=None):
        """Return the numbers behind the picture.

        Parameters
        ----------
        decision : int, default=None
            As in `plot`.

        Returns
        -------
        pandas.DataFrame
            Layers and then decisions, by layers.
        """
        import pandas as pd

        kinds = ["layer"] * len(self.layer_names) + [self.decision_kind] * len(self.targets)
        index = pd.MultiIndex.from_arrays(
            [kinds, [*self.layer_names, *self.decision_names]], names=["kind", "name"]
        )
        values = np.concatenate([self._between_layers(decision), self.targets])
        return pd.DataFrame(values, index, pd.Index(self.layer_names, name="layer"))

    def plot(self, ax=None, *, decision=None, cmap="cividis"):
        """Draw layers by layers, and below it decisions by layers.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            One of a grid, whose place both heat maps take. None makes a figure.
        decision : int, default=None
            Whose kernels are compared, where each decision has its own
            (``outputs="per_class"``). None shows the mean over the decisions.
        cmap : str or Colormap, default="cividis"

        Returns
        -------
        KernelAlignmentDisplay
            Itself.
        """
        n_decisions, n_layers = self.targets.shape
        names = mark_layers(self.layer_names, self.groups)
        cells = np.clip(0.6 * n_layers, 3.0, 7.5)
        heights = [np.clip(0.4 * n_layers, 1.2, 6), np.clip(0.3 * n_decisions, 0.4, 5)]
        figure = new_figure(
            ax,
            width=cells + 0.08 * max(map(len, [*names, *self.decision_names])) + 1.6,
            height=sum(heights) + names_height(names, cells) + 1.8,
        )
        upper, lower = axes = figure.subplots(2, 1, sharex=True, height_ratios=heights)
        between = self._between_layers(decision)
        images = [
            heat_map(upper, between, names, names, cmap=cmap, vmin=0, vmax=1),
            # Alignment with targets is mostly far below 1, so it has a scale of its own.
            heat_map(lower, self.targets, self.decision_names, names, cmap=cmap, vmin=0),
        ]
        for image, of in zip(images, ("layer", self.decision_kind), strict=True):
            image.axes.set_ylabel(of)
            figure.colorbar(image, ax=image.axes, label="alignment")
        upper.set_title(self._title(decision))
        lower.set_title(f"with the targets of each {self.decision_kind}", fontsize="medium")
        label_columns(lower, "layer", marks_note(self.groups, self.threshold))
        fit_names(lower.xaxis, lower.yaxis, upper.yaxis)
        for image in images:
            write_numbers(image)
        self.axes_, self.images_, self.figure_ = axes, np.array(images), figure
        return self

    def _between_layers(self, decision):
        """Alignments between the layers: shared by all decisions, of one, or their mean."""
        if self.layers.ndim == 2:
            return self.layers
        return self.layers.mean(axis=0) if decision is None else self.layers[decision]

    def _title(self, decision):
        title = "centred alignment of the layers' kernels"
        if self.layers.ndim == 2:
            return title
        if decision is None:
            return f"{title}\n(mean over the {len(self.layers)} decisions)"
        return f"{title}\n({self.decision_kind} {self.decision_names[decision]})"
