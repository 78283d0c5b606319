"""Contributions of the layers to decisions: bars for one sample, strips for many."""

import numpy as np
from sklearn.base import is_classifier

from .._contributions import layer_contributions
from .._similarity import kernel_similarity
from .._unwrap import decision_names, final_estimator, layer_labels, sample_ids
from ._captions import Captions
from ._drawing import (
    AGAINST,
    DIVERGING,
    FOR,
    NEUTRAL,
    fit_lines,
    fit_names,
    fit_titles,
    heat_map,
    mark_layers,
    marks_note,
    names_height,
    new_figure,
)

# With more layers, the bars of several decisions become a heat map.
_MOST_BARS = 12
# Panels side by side, and as many again below; with many layers they stand in one row.
_COLUMNS = 5
# More points than these on a strip cannot be told apart.
_MOST_POINTS = 2000
_LABEL = "contribution minus its mean over the training set"
# Samples of the class of a panel and of others: blue and orange of Okabe and Ito.
_MEMBER, _OTHER = "#0072b2", "#e69f00"


class LayerContributionsDisplay:
    """Contributions of the layers to the decisions on one sample, or on many.

    Contributions are differences from their mean over the training set, so those of different
    layers can be compared; the mean decision plus their sum is the decision. Use `from_estimator`
    to create it.

    Parameters
    ----------
    contributions : ndarray of shape (n_samples, n_decisions, n_layers)
        As of :func:`layer_contributions` with ``baseline="mean"``.
    mean_decisions : ndarray of shape (n_decisions,)
        Mean of each decision over the training set.
    layer_names : list of str
    decision_names : list of str
    class_names : list of str, default=None
        None for regression.
    y : sequence of length n_samples, default=None
        Names of the true classes, or true targets.
    groups : list of lists of int, default=()
        Interchangeable layers, as of :func:`kernel_similarity`.
    threshold : float, default=0.95
        Centred alignment from which layers count as interchangeable.
    index : sequence of length n_samples, default=None
        Ids of the samples. None is their positions.

    Attributes
    ----------
    decisions : ndarray of shape (n_samples, n_decisions)
    decision_kind : {"class", "target"}
    axes_ : ndarray of matplotlib Axes, shape (n_panels,)
        One for each decision shown; a single one with the heat map.
    figure_ : matplotlib Figure or SubFigure

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import LayerContributionsDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MultiLayerNTKClassifier(random_state=0).fit(X, y)
    >>> display = LayerContributionsDisplay.from_estimator(model, X[:1], y=y[:1])
    >>> display.frame().columns.tolist()
    ['layer0', 'layer1', 'layer2', 'mean decision', 'decision']
    """

    def __init__(
        self,
        contributions,
        *,
        mean_decisions,
        layer_names,
        decision_names,
        class_names=None,
        y=None,
        groups=(),
        threshold=0.95,
        index=None,
    ):
        self.contributions = contributions
        self.mean_decisions = mean_decisions
        self.layer_names = layer_names
        self.decision_names = decision_names
        self.class_names = class_names
        self.y = y
        self.groups = groups
        self.threshold = threshold
        self.index = range(len(contributions)) if index is None else index
        self.decision_kind = "target" if class_names is None else "class"
        self.decisions = mean_decisions + contributions.sum(axis=2)

    @classmethod
    def from_estimator(cls, estimator, X, *, y=None, threshold=0.95, index=None):
        """Compute the contributions of the layers to the decisions on X.

        Parameters
        ----------
        estimator : estimator of sklearn_nftk, or Pipeline or search that ends in one
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            True classes or targets, to be shown beside the predicted ones.
        threshold : float in [0, 1], default=0.95
            Centred alignment from which layers are marked as interchangeable.
        index : array-like of shape (n_samples,), default=None
            Ids of the samples, by which they are named. None takes the index of X, or positions
            where X has none.

        Returns
        -------
        LayerContributionsDisplay

        Raises
        ------
        ValueError
            If y or index has not one entry for each sample.
        """
        machine = final_estimator(estimator)
        contributions = layer_contributions(estimator, X, baseline="mean")
        if y is not None and len(y) != len(contributions):
            raise ValueError(f"y has {len(y)} entries for the {len(contributions)} samples of X.")
        classes = None
        if is_classifier(machine):
            classes = [str(label) for label in machine.classes_]
            if y is not None:
                y = [str(label) for label in np.asarray(y).astype(machine.classes_.dtype)]
        elif y is not None:
            y = np.asarray(y)
        return cls(
            contributions,
            mean_decisions=machine.mean_contributions_.sum(axis=1) + machine.intercept_,
            layer_names=layer_labels(machine),
            decision_names=decision_names(machine),
            class_names=classes,
            y=y,
            groups=kernel_similarity(machine, threshold=threshold).groups,
            threshold=threshold,
            index=sample_ids(X, len(contributions), index),
        )

    def frame(self, *, sample=None):
        """Return the numbers behind the picture.

        Parameters
        ----------
        sample : int, default=None
            As in `plot`.

        Returns
        -------
        pandas.DataFrame
            Samples, by their ids, and decisions, by layers. Each row adds up: layers and "mean
            decision" give "decision".
        """
        import pandas as pd

        samples = range(len(self.index)) if sample is None else [sample]
        index = pd.MultiIndex.from_product(
            [[self.index[i] for i in samples], self.decision_names],
            names=["sample", self.decision_kind],
        )
        contributions = self.contributions[samples].reshape(len(index), -1)
        frame = pd.DataFrame(contributions, index, list(self.layer_names))
        frame["mean decision"] = np.tile(self.mean_decisions, len(samples))
        frame["decision"] = self.decisions[samples].ravel()
        return frame

    def plot(self, ax=None, *, sample=None, decisions=None, max_decisions=10):
        """Draw the contributions to the decisions on one sample, or on all.

        One sample has a panel of signed bars for each decision, or a heat map where bars would be
        too many. Of many samples, each is a point on the strip of each layer: of the colour of its
        class (true, where `y` is known, or predicted) or of its decision value in regression.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            One of a grid, whose place the panels take. None makes a figure.
        sample : int, default=None
            Position in X. None shows all samples.
        decisions : sequence of int, default=None
            The decisions to show. None shows all up to `max_decisions`; of more, the largest on
            the sample and its true class, the classes predicted most often, or the targets that
            move most.
        max_decisions : int, default=10

        Returns
        -------
        LayerContributionsDisplay
            Itself.
        """
        if sample is None and len(self.contributions) == 1:
            sample = 0
        captions = Captions(self)
        shown, choice = decisions, ""
        if decisions is None:
            shown, choice = captions.choose(sample, max_decisions)
        n_layers = len(self.layer_names)
        if sample is None:
            figure, axes, notes = self._plot_strips(ax, captions, shown)
        elif n_layers > _MOST_BARS and len(shown) > 1:
            figure, axes, notes = self._plot_map(ax, captions, sample, shown)
        else:
            figure, axes, notes = self._plot_bars(ax, captions, sample, shown)
        title = [captions.title(sample), choice]
        figure.suptitle(fit_lines(figure, title, 11), fontsize=11)
        notes = [*notes, marks_note(self.groups, self.threshold)]
        figure.supxlabel(fit_lines(figure, notes, 9), fontsize=9)
        fit_names(axes[0].yaxis)
        fit_titles(axes)
        self.axes_, self.figure_ = axes, figure
        return self

    # -- three pictures -------------------------------------------------------------------------

    def _plot_bars(self, ax, captions, sample, shown):
        figure, axes, rows = self._panels(ax, len(shown))
        for panel, c in zip(axes, shown, strict=True):
            phi = self.contributions[sample, c]
            colours = [FOR if value > 0 else AGAINST for value in phi]
            panel.barh(rows, [*phi, phi.sum()], color=[*colours, "black"])
            title = f"{captions.heading(c, sample)}\n{captions.equation(sample, c)}"
            panel.set_title(title, fontsize=9)
        return figure, axes, [_LABEL, "above the panels: mean decision + sum = decision"]

    def _plot_map(self, ax, captions, sample, shown):
        names = mark_layers(self.layer_names, self.groups)
        width = np.clip(0.3 * len(names), 5, 10) + 2.5
        height = np.clip(0.3 * len(shown), 1, 9) + names_height(names, width - 2.5) + 1.6
        figure = new_figure(ax, width, height)
        panel = figure.subplots()
        phi = self.contributions[sample, shown]
        largest = np.abs(phi).max() or 1.0
        image = heat_map(
            panel,
            phi,
            [captions.name(c, sample) for c in shown],
            names,
            cmap=DIVERGING,
            vmin=-largest,
            vmax=largest,
        )
        sums = panel.twinx()
        sums.set_ylim(panel.get_ylim())
        sums.set_yticks(range(len(shown)), [captions.equation(sample, c) for c in shown])
        sums.tick_params(length=0)
        panel.set(xlabel="layer", ylabel=self.decision_kind)
        figure.colorbar(image, ax=[panel, sums], label="contribution")
        fit_names(panel.xaxis, sums.yaxis)
        return figure, np.array([panel]), [_LABEL, "right: mean decision + sum = decision"]

    def _plot_strips(self, ax, captions, shown):
        n_samples = len(self.contributions)
        figure, axes, rows = self._panels(ax, len(shown))
        kept = np.linspace(0, n_samples - 1, min(n_samples, _MOST_POINTS)).astype(int)
        jitter = np.random.default_rng(0).uniform(-0.3, 0.3, (len(kept), 1))
        style = {
            "s": np.clip(1500 / len(kept), 2, 16),
            "alpha": 0.6,
            "linewidths": 0,
            "rasterized": True,  # thousands of points would make large vector files
        }
        if self.class_names is None:
            decisions = self.decisions[np.ix_(kept, shown)]
            style |= {"cmap": "cividis", "vmin": decisions.min(), "vmax": decisions.max()}
        for panel, c in zip(axes, shown, strict=True):
            order = kept
            if self.class_names is None:
                colours = self.decisions[kept, c]
            else:
                # The few of the class lie on top of all others.
                member = captions.members(c)
                order = kept[np.argsort(member[kept], kind="stable")]
                colours = np.where(member[order], _MEMBER, _OTHER)
            phi = self.contributions[order, c]
            values = np.column_stack([phi, phi.sum(axis=1)])
            points = panel.scatter(values, rows + jitter, c=np.repeat(colours, len(rows)), **style)
            panel.set_title(captions.heading(c), fontsize=9)
        if self.class_names is None:
            figure.colorbar(points, ax=list(axes), label="decision")
        drawn = f"{len(kept)} of them are drawn" if len(kept) < n_samples else ""
        return figure, axes, [_LABEL, drawn]

    def _panels(self, ax, n_panels):
        """A panel for each decision, with a row for each layer and, after a gap, their sum."""
        names = [*mark_layers(self.layer_names, self.groups), "sum"]
        n_layers, few = len(self.layer_names), len(self.layer_names) <= _MOST_BARS
        rows = np.append(np.arange(n_layers), n_layers + 0.5)
        n_columns = min(n_panels, _COLUMNS if few else 2 * _COLUMNS)
        n_rows = -(-n_panels // n_columns)
        figure = new_figure(
            ax,
            width=max(4.5, min(11.5, 1.9 * n_columns)) + 0.08 * max(map(len, names)) + 0.5,
            height=n_rows * ((0.25 if few else 0.15) * len(names) + 0.8) + 1.0,
        )
        axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).ravel()
        for panel in axes[n_panels:]:
            panel.remove()
        axes = axes[:n_panels]
        for panel in axes:
            panel.axvline(0, color="black", linewidth=0.8, zorder=0.5)
            panel.axhline(n_layers - 0.25, color=NEUTRAL, linewidth=0.8)
            panel.spines[["top", "right"]].set_visible(False)
            panel.tick_params(axis="x", labelsize=8)
        for panel in axes[-n_columns:]:
            panel.tick_params(axis="x", labelbottom=True)
        axes[0].set_yticks(rows, names)
        axes[0].set_ylim(rows[-1] + 0.6, -0.6)
        axes[0].locator_params(axis="x", nbins=3 if n_columns > 2 else 7)
        return figure, axes, rows
