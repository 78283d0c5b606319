"""The training examples that matter most for and against a decision, as pictures or bars."""

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import check_scalar

from ...estimators import contributions, fitted, knows_training_kernels
from .._influence import training_influence
from .._training import training_contributions
from .._unwrap import (
    decision_names,
    final_estimator,
    sample_ids,
    training_ids,
    transformed,
)
from ._drawing import (
    AGAINST,
    FOR,
    MINUS,
    NO_BREAK,
    example_name,
    fit_lines,
    fit_names,
    new_figure,
    numbers,
    sample_name,
)
from ._pictures import own_pictures, pictures

# Methods, and what one of their values is called.
_WORDS = {"influence": "influence", "contributions": "contribution"}


class TrainingContributionsDisplay:
    """The training examples that spoke most for and most against the decision on a sample.

    By default those of the largest influence, without which the same machine would have decided
    most differently; or those of the largest contributions to the sum that the decision is. Use
    `from_estimator` to create it.

    Parameters
    ----------
    indices : ndarray of int, shape (n_samples, 2, top)
        Positions of the training rows that spoke for the decision on a sample, and against it,
        the largest contribution first. -1 where there are fewer.
    values : ndarray of shape (n_samples, 2, top)
        Their influences or contributions; NaN where there are fewer.
    totals : ndarray of shape (n_samples, 2)
        Sums of all positive and of all negative ones.
    decisions : ndarray of shape (n_samples,)
        Decision values.
    names : list of str of length n_samples
        Which decision is shown of each sample.
    sides : list of (str, str) of length n_samples
        What positive and negative values speak for.
    method : {"influence", "contributions"}, default="contributions"
        What the values are.
    labels : sequence of length n_train, default=None
        Class labels or targets of the training examples.
    images, train_images : ndarray of shape (n, height, width[, 3]), default=None
        Pictures of the samples and of the training examples. Without both, bars are drawn.
    index : sequence of length n_samples, default=None
        Ids of the samples. None is their positions.
    train_index : sequence of length n_train, default=None
        Ids of the training examples. None is their positions.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        With bars, one for each sample drawn. With pictures, shape (n_drawn, 1 + 2 top): the
        sample, those for and those against, None where there are fewer.
    figure_ : matplotlib Figure or SubFigure

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import TrainingContributionsDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MultiLayerNTKClassifier(random_state=0).fit(X, y)
    >>> display = TrainingContributionsDisplay.from_estimator(model, X[:1], top=2, labels=y)
    >>> display.frame()["side"].tolist()
    ['for 0', 'for 0', 'against 0', 'against 0']
    """

    def __init__(
        self,
        indices,
        values,
        *,
        totals,
        decisions,
        names,
        sides,
        method="contributions",
        labels=None,
        images=None,
        train_images=None,
        index=None,
        train_index=None,
    ):
        self.method = method
        self.indices = indices
        self.values = values
        self.totals = totals
        self.decisions = decisions
        self.names = names
        self.sides = sides
        self.labels = labels
        self.images = images
        self.train_images = train_images
        self.index = range(len(indices)) if index is None else index
        self.train_index = train_index

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        top=5,
        decision=None,
        method="auto",
        labels=None,
        images=None,
        train_images=None,
        image_shape=None,
        index=None,
        train_index=None,
    ):
        """Compute what all training examples do and keep the largest values of each sign.

        Parameters
        ----------
        estimator : estimator of sklearn_nftk, or Pipeline or search that ends in one
        X : array-like of shape (n_samples, n_features)
            A few samples.
        top : int, default=5
            How many examples for, and how many against.
        decision : int, default=None
            Index of the decision. None is that of the predicted class, or the first target.
        method : {"auto", "influence", "contributions"}, default="auto"
            "influence": how much larger a decision is than without the example, by
            :func:`~sklearn_nftk.inspection.training_influence` of the machine itself (squared
            loss). "contributions": its term of the sum that the decision is, by
            :func:`~sklearn_nftk.inspection.training_contributions`. Where C is large, the same
            few examples have the largest contributions to all decisions, and they cancel. "auto"
            is "influence" where the machine has the squared loss and knows its training kernels.
        labels : array-like of shape (n_train,), default=None
            Class labels or targets of the training rows of positive weight, which the estimator
            does not keep.
        images : array-like of shape (n_samples, ...), default=None
            Pictures of X, of shape (height, width) or (channels, height, width) with 1 or 3
            channels each. None takes X itself where it has such a shape.
        train_images : array-like of shape (n_train, ...), default=None
            Pictures of the training rows of positive weight. None takes ``X_fit_`` of the
            estimator, which is what the earlier steps of a pipeline made of them.
        image_shape : tuple of int, default=None
            Shape of each picture where samples are flat, as (28, 28).
        index : array-like of shape (n_samples,), default=None
            Ids of the samples, by which they are named. None takes the index of X, or positions
            where X has none.
        train_index : array-like of shape (n_train,), default=None
            Ids of the training rows of positive weight. None takes ``index_fit_`` of the
            estimator, else the index of `labels`, or positions where neither is there.

        Returns
        -------
        TrainingContributionsDisplay

        Raises
        ------
        ValueError
            If labels, ids or pictures are not as many as the examples, or have another shape;
            or `method` is unknown.
        """
        check_scalar(top, "top", target_type=int, min_val=1)
        machine = final_estimator(estimator)
        method = _checked_method(method, machine)
        # For a few samples, the whole array is small; `top` would order by absolute values.
        function = training_influence if method == "influence" else training_contributions
        values = function(estimator, X)
        n_samples, _, n_train = values.shape
        if labels is not None and len(labels) != n_train:
            raise ValueError(
                f"labels has {len(labels)} entries for {n_train} training rows of positive weight."
            )
        scores = contributions(machine, transformed(estimator, X)).sum(axis=2)
        scores += machine.intercept_
        if decision is not None:
            chosen = np.full(n_samples, decision)
        elif is_classifier(machine):
            chosen = scores.argmax(axis=1)
        else:
            chosen = np.zeros(n_samples, dtype=int)
        rows = np.arange(n_samples)
        indices, values, totals = _largest_of_each_sign(values[rows, chosen], top)
        names = decision_names(machine)
        return cls(
            indices,
            values,
            totals=totals,
            decisions=scores[rows, chosen],
            names=[names[c] for c in chosen],
            sides=[_sides(machine, names[c]) for c in chosen],
            method=method,
            labels=None if labels is None else np.asarray(labels),
            images=pictures(images, own_pictures(machine, X), n_samples, image_shape, "images"),
            train_images=pictures(
                train_images,
                own_pictures(machine, getattr(machine, "X_fit_", None)),
                n_train,
                image_shape,
                "train_images",
            ),
            index=sample_ids(X, n_samples, index),
            train_index=training_ids(machine, labels, train_index=train_index),
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
            One row for each "sample" and training example shown: its "index", with "label" where
            labels are known. Samples and examples are given by their ids.
        """
        import pandas as pd

        samples, sides, ranks = np.nonzero(self.indices >= 0)
        if sample is not None:
            asked = samples == range(len(self.indices))[sample]
            samples, sides, ranks = samples[asked], sides[asked], ranks[asked]
        shown = self.indices[samples, sides, ranks]
        frame = pd.DataFrame(
            {
                "sample": [self.index[i] for i in samples],
                "decision": [self.names[i] for i in samples],
                "side": [self.sides[i][side] for i, side in zip(samples, sides, strict=True)],
                "index": [self._id(j) for j in shown],
                "value": self.values[samples, sides, ranks],
            }
        )
        if self.labels is not None:
            frame.insert(4, "label", np.asarray(self.labels)[shown])
        return frame

    def plot(self, ax=None, *, sample=None):
        """Draw the training examples of each sample.

        As pictures, framed by the side they spoke for and with their values above, where
        there are pictures of the samples and of the training examples; else as bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            One of a grid, whose place the drawing takes. None makes a figure.
        sample : int, default=None
            Position in X. None draws all samples.

        Returns
        -------
        TrainingContributionsDisplay
            Itself.
        """
        samples = range(len(self.indices)) if sample is None else [sample]
        if self.images is None or self.train_images is None:
            self.figure_, self.axes_ = self._plot_bars(ax, samples)
        else:
            self.figure_, self.axes_ = self._plot_pictures(ax, samples)
        return self

    # -- two pictures ---------------------------------------------------------------------------

    def _plot_bars(self, ax, samples):
        top = self.indices.shape[2]
        figure = new_figure(ax, 6.5, len(samples) * (0.42 * top + 1.3))
        parts = figure.subfigures(len(samples), squeeze=False)[:, 0]
        axes = np.array([part.subplots() for part in parts])
        for panel, i in zip(axes, samples, strict=True):
            shown = self.indices[i] >= 0
            values, colours = self.values[i][shown], np.repeat([FOR, AGAINST], shown.sum(axis=1))
            panel.barh(range(len(values)), values, color=colours)
            panel.set_yticks(
                range(len(values)), [self._caption(j) for j in self.indices[i][shown]]
            )
            panel.set_ylim(len(values) - 0.4, -0.6)
            panel.axvline(0, color="black", linewidth=0.8)
            panel.spines[["top", "right"]].set_visible(False)
            note = "" if self.train_index is not None else " (#: position of a training row)"
            panel.set(xlabel=_WORDS[self.method] + note, ylabel="training example")
        self._write_titles(parts, samples)
        fit_names(*(panel.yaxis for panel in axes))
        return figure, axes

    def _plot_pictures(self, ax, samples):
        n_rows, top = len(samples), self.indices.shape[2]
        figure = new_figure(ax, 1.15 * (top + 1.6) + 0.3, 3.4 * n_rows)
        parts = figure.subfigures(n_rows, squeeze=False)[:, 0]
        axes = np.full((n_rows, 1 + 2 * top), None)
        colours = self._colours()
        for part, row, i in zip(parts, axes, samples, strict=True):
            grid = part.add_gridspec(2, top + 1, width_ratios=[1.6] + [1] * top)
            row[0] = part.add_subplot(grid[:, 0])
            row[0].imshow(self.images[i], **colours)
            row[0].set(xticks=[], yticks=[], xlabel=sample_name(self.index[i]))
            for side, rank in np.argwhere(self.indices[i] >= 0):
                panel = part.add_subplot(grid[side, rank + 1])
                index, value = self.indices[i, side, rank], self.values[i, side, rank]
                panel.imshow(self.train_images[index], **colours)
                panel.set(xticks=[], yticks=[])
                panel.set_title(*numbers(value, sign="+"), fontsize=8, pad=3)
                panel.set_xlabel(self._caption(index), fontsize=8, labelpad=2)
                panel.spines[:].set(color=(FOR, AGAINST)[side], linewidth=2.5)
                if rank == 0:
                    panel.set_ylabel(self._heading(i, side), fontsize=8)
                row[1 + side * top + rank] = panel
        self._write_titles(parts, samples)
        return figure, axes

    def _write_titles(self, parts, samples):
        for part, i in zip(parts, samples, strict=True):
            part.suptitle(fit_lines(part, [self._title(i)], 10), fontsize=10)

    def _colours(self):
        """One grey scale for all pictures; colour pictures have theirs."""
        if self.images.ndim == 4:
            return {}
        low = min(self.images.min(), self.train_images.min())
        high = max(self.images.max(), self.train_images.max())
        return {"cmap": "gray", "vmin": low, "vmax": high}

    # -- words ----------------------------------------------------------------------------------

    def _title(self, i):
        decision, (positive, negative) = self.decisions[i], self.totals[i]
        start = f"{sample_name(self.index[i])}, decision {self.names[i]}: "
        if self.method == "influence":
            return f"{start}{numbers(decision)[0]}, and by how much training examples raise it"
        decision, intercept, positive, negative = numbers(
            decision, decision - positive - negative, positive, -negative
        )
        speaking_for, speaking_against = self.sides[i]
        return (
            f"{start}{decision} = {intercept} (intercept) "
            f"+{NO_BREAK}{positive} ({speaking_for}) "
            f"{MINUS}{NO_BREAK}{negative} ({speaking_against})"
        )

    def _heading(self, i, side):
        """Side, and how much of a sum the examples shown make up."""
        if self.method == "influence":
            return self.sides[i][side]
        shown, total = numbers(np.nansum(self.values[i, side]), self.totals[i, side], sign="+")
        return f"{self.sides[i][side]}\n{shown} of {total}"

    def _caption(self, j):
        name = example_name(self._id(j))
        return name if self.labels is None else f"{name} ({self.labels[j]})"

    def _id(self, j):
        return j if self.train_index is None else self.train_index[j]


def _checked_method(method, machine):
    if method not in ("auto", *_WORDS):
        raise ValueError(f"method must be 'auto' or one of {list(_WORDS)}, got {method!r}.")
    if method != "auto":
        return method
    exact = fitted(machine).options.loss == "squared" and knows_training_kernels(machine)
    return "influence" if exact else "contributions"


def _largest_of_each_sign(contributions, top):
    """Indices (n, 2, top) and values of the largest and the smallest; sums (n, 2) of each sign."""
    top = min(top, contributions.shape[1])
    order = np.argsort(-contributions, axis=1, kind="stable")
    indices = np.stack([order[:, :top], order[:, ::-1][:, :top]], axis=1)
    values = np.take_along_axis(contributions[:, None], indices, axis=2)
    missing = np.sign(values) != [[1], [-1]]
    indices[missing], values[missing] = -1, np.nan
    totals = [contributions.clip(min=0).sum(axis=1), contributions.clip(max=0).sum(axis=1)]
    return indices, values, np.stack(totals, axis=1)


def _sides(machine, name):
    """Names of what positive and what negative contributions to a decision speak for."""
    if not is_classifier(machine):
        return f"raising {name}", f"lowering {name}"
    if len(machine.classes_) == 2:
        return f"for {machine.classes_[1]}", f"for {machine.classes_[0]}"
    return f"for {name}", f"against {name}"
