"""Contributions of the features of samples to decisions, as overlays on pictures or as bars."""

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import check_scalar

from ...estimators import validated_test_set
from .._features import decisions_by_layer, feature_contributions
from .._unwrap import decision_names, feature_names, final_estimator, sample_ids, transformed
from ._drawing import (
    AGAINST,
    DIVERGING,
    FOR,
    NEUTRAL,
    fit_lines,
    fit_names,
    fit_titles,
    new_figure,
    numbers,
    sample_name,
)

# Pictures side by side, and tables.
_PICTURES, _TABLES = 5, 2
# Range of greys below the darkest one of a picture, in its own range.
_LIGHTER = 1.0


class FeatureContributionsDisplay:
    """Contributions of the features of samples to one decision on each.

    Pictures have the contributions on top, those for the decision in purple and those against it
    in orange, the more opaque the larger. Tables have a bar for each of the largest. Use
    `from_estimator` or `from_contributions` to create it.

    Parameters
    ----------
    contributions : ndarray of shape (n_samples, ...)
        To the decision that is shown of each sample.
    X : ndarray of shape (n_samples, ...)
        One axis of features is a table; two are a picture (height, width) or a sequence; three are
        a picture with channels first, whose contributions are added up over the channels.
    names : list of str of length n_samples
        Which decision is shown of each sample.
    residuals : ndarray of shape (n_samples,), default=None
        What the contributions miss of the change of the decision.
    feature_names : list of str, default=None
        Of a table.
    index : sequence of length n_samples, default=None
        Ids of the samples. None is their positions.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        One for each sample drawn.
    figure_ : matplotlib Figure or SubFigure

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import FeatureContributionsDisplay
    >>> from sklearn_nftk.networks import InfiniteMLP
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> model = MultiLayerNTKClassifier(InfiniteMLP(depth=1)).fit(X, y)
    >>> display = FeatureContributionsDisplay.from_estimator(model, X[:2])
    >>> display.frame().shape
    (2, 4)
    >>> display.frame().columns[0]
    'sepal length (cm)'
    """

    def __init__(self, contributions, *, X, names, residuals=None, feature_names=None, index=None):
        self.contributions = contributions
        self.X = X
        self.names = names
        self.residuals = residuals
        self.feature_names = feature_names
        self.index = range(len(names)) if index is None else index

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        method="gradient",
        baseline=None,
        n_steps=64,
        decision=None,
        image_shape=None,
        index=None,
    ):
        """Compute the contributions of the features of some samples.

        Parameters
        ----------
        estimator : estimator of sklearn_nftk on networks, or Pipeline or search that ends in one
        X : array-like of shape (n_samples, ...)
            A few samples.
        method, baseline, n_steps
            As in :func:`feature_contributions`.
        decision : int, default=None
            Index of the decision. None is that of the predicted class, or the first target.
        image_shape : tuple of int, default=None
            Shape of each picture where samples are flat, as (28, 28).
        index : array-like of shape (n_samples,), default=None
            Ids of the samples, by which they are named. None takes the index of X, or positions
            where X has none.

        Returns
        -------
        FeatureContributionsDisplay

        Raises
        ------
        ValueError
            If samples cannot be drawn, index has another length, and as in
            :func:`feature_contributions`.
        """
        found = feature_contributions(
            estimator, X, method=method, baseline=baseline, n_steps=n_steps, return_residual=True
        )
        machine = final_estimator(estimator)
        ids = sample_ids(X, len(found.contributions), index)
        X = validated_test_set(machine, transformed(estimator, X))
        if decision is None and is_classifier(machine):
            scores = decisions_by_layer(machine, X).sum(axis=2) + machine.intercept_
            decision = scores.argmax(axis=1)
        is_table = X.ndim == 2 and image_shape is None
        return cls.from_contributions(
            found.contributions,
            X,
            decision=0 if decision is None else decision,
            residual=found.residual,
            decision_names=decision_names(machine),
            feature_names=feature_names(estimator, X.shape[1]) if is_table else None,
            image_shape=image_shape,
            index=ids,
        )

    @classmethod
    def from_contributions(
        cls,
        contributions,
        X,
        *,
        decision=0,
        residual=None,
        decision_names=None,
        feature_names=None,
        image_shape=None,
        index=None,
    ):
        """Take contributions that are known.

        Parameters
        ----------
        contributions : array-like of shape (n_samples, n_decisions, ...)
            As of :func:`feature_contributions`, not split over the layers.
        X : array-like of shape (n_samples, ...)
        decision : int or array-like of int, shape (n_samples,), default=0
            Index of the decision to show, one for all or one for each.
        residual : array-like of shape (n_samples, n_decisions), default=None
        decision_names, feature_names : sequence of str, default=None
        image_shape : tuple of int, default=None
            Shape of each picture where samples are flat, as (28, 28).
        index : array-like of shape (n_samples,), default=None
            Ids of the samples. None takes the index of X, or positions where X has none.

        Returns
        -------
        FeatureContributionsDisplay

        Raises
        ------
        ValueError
            If shapes do not fit together, or samples cannot be drawn.
        """
        table, contributions, X = X, np.asarray(contributions), np.asarray(X)
        if contributions.ndim != X.ndim + 1 or (
            contributions.shape[0], *contributions.shape[2:]) != X.shape:  # fmt: skip
            raise ValueError(
                "contributions must have shape (n_samples, n_decisions, *features) for X of shape "
                f"(n_samples, *features); got {contributions.shape} for {X.shape}."
            )
        n_samples, n_decisions = contributions.shape[:2]
        n_features = X[0].size
        chosen = np.broadcast_to(np.asarray(decision), n_samples)
        if chosen.dtype.kind not in "iu" or not np.all((chosen >= 0) & (chosen < n_decisions)):
            raise ValueError(f"decision must be in 0 to {n_decisions - 1}, got {decision!r}.")
        if image_shape is not None and n_features != np.prod(image_shape):
            raise ValueError(
                f"image_shape {tuple(image_shape)} does not fit samples of {n_features} features."
            )
        shape = X.shape[1:] if image_shape is None else tuple(image_shape)
        if len(shape) > 3:
            raise ValueError(
                f"X must have one to three axes of features to be drawn, got {X.shape}."
            )
        if feature_names is not None and len(feature_names) != n_features:
            raise ValueError(
                f"feature_names has {len(feature_names)} entries for {n_features} features."
            )
        rows = np.arange(n_samples)
        names = decision_names or [str(c) for c in range(n_decisions)]
        return cls(
            contributions[rows, chosen].reshape(-1, *shape),
            X=X.reshape(-1, *shape),
            names=[names[c] for c in chosen],
            residuals=None if residual is None else np.asarray(residual)[rows, chosen],
            feature_names=None if feature_names is None else [str(name) for name in feature_names],
            index=sample_ids(table, n_samples, index),
        )

    def frame(self):
        """Return the numbers behind the picture.

        Returns
        -------
        pandas.DataFrame
            Samples by their ids with their decisions, by features; positions stand for the names
            of pixels.
        """
        import pandas as pd

        index = pd.MultiIndex.from_arrays(
            [pd.Index(list(self.index), tupleize_cols=False), self.names],
            names=["sample", "decision"],
        )
        flat = self.contributions.reshape(len(self.names), -1)
        return pd.DataFrame(flat, index, self._feature_names())

    def plot(self, ax=None, *, sample=None, max_features=10):
        """Draw the contributions of each sample.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            One of a grid, whose place the drawing takes. None makes a figure.
        sample : int, default=None
            Position in X. None draws all samples.
        max_features : int, default=10
            Bars of a table; the features beyond the largest are added up in one more.

        Returns
        -------
        FeatureContributionsDisplay
            Itself.
        """
        check_scalar(max_features, "max_features", target_type=int, min_val=1)
        samples = range(len(self.names)) if sample is None else [sample]
        if self.contributions.ndim > 2:
            figure, axes = self._plot_pictures(ax, samples)
        else:
            figure, axes = self._plot_bars(ax, samples, max_features)
        for panel, i in zip(axes, samples, strict=True):
            panel.set_title(self._title(i), fontsize=9)
        note = fit_lines(figure, [self._note()], 9)
        figure.supxlabel(note, fontsize=9)
        fit_names(*(panel.yaxis for panel in axes))
        fit_titles(axes)
        self.axes_, self.figure_ = axes, figure
        return self

    # -- two pictures ---------------------------------------------------------------------------

    def _plot_pictures(self, ax, samples):
        from matplotlib.cm import ScalarMappable

        values, pictures = self.contributions[list(samples)], self.X[list(samples)].astype(float)
        if values.ndim == 4:
            values, pictures = values.sum(axis=1), pictures.mean(axis=1)
        largest = np.abs(values).max() or 1.0
        figure, axes = self._panels(ax, len(samples), 2.3, 2.9)
        for panel, value, picture in zip(axes, values, pictures, strict=True):
            low, high = picture.min(), picture.max()
            # In light greys, on which both ends of the map are seen.
            panel.imshow(picture, cmap="gray", vmin=low - _LIGHTER * (high - low), vmax=high)
            image = panel.imshow(
                value,
                cmap=DIVERGING,
                vmin=-largest,
                vmax=largest,
                alpha=np.sqrt(np.abs(value) / largest),  # of small ones too something is seen
            )
            panel.set(xticks=[], yticks=[])
        # The colour bar of an image that is in part transparent would be so too.
        opaque = ScalarMappable(image.norm, image.cmap)
        figure.colorbar(opaque, ax=list(axes), label="contribution")
        return figure, axes

    def _plot_bars(self, ax, samples, max_features):
        n_features = self.contributions.shape[1]
        n_bars = min(n_features, max_features + 1)
        figure, axes = self._panels(ax, len(samples), 3.6, 0.28 * n_bars + 1.0)
        names = self._feature_names()
        for panel, i in zip(axes, samples, strict=True):
            phi = self.contributions[i]
            order = np.argsort(-np.abs(phi), kind="stable")
            rest = order[max_features:] if n_features > max_features + 1 else order[n_features:]
            shown = order[: n_features - len(rest)]
            bars = [*phi[shown], *([phi[rest].sum()] if len(rest) else [])]
            texts = [f"{names[j]} = {self.X[i, j]:.3g}" for j in shown]
            texts += [f"{len(rest)} others"] if len(rest) else []
            colours = [FOR if value > 0 else AGAINST for value in bars]
            panel.barh(range(len(bars)), bars, color=colours)
            panel.set_yticks(range(len(bars)), texts)
            panel.set_ylim(len(bars) - 0.4, -0.6)
            panel.axvline(0, color=NEUTRAL, linewidth=0.8)
            panel.spines[["top", "right"]].set_visible(False)
            panel.tick_params(axis="x", labelsize=8)
            panel.locator_params(axis="x", nbins=4)
        return figure, axes

    def _panels(self, ax, n_panels, width, height):
        most = _PICTURES if self.contributions.ndim > 2 else _TABLES
        n_columns = min(n_panels, most)
        n_rows = -(-n_panels // n_columns)
        figure = new_figure(ax, max(4.0, n_columns * width + 1.0), n_rows * height + 0.4)
        axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for panel in axes[n_panels:]:
            panel.remove()
        return figure, axes[:n_panels]

    # -- words ----------------------------------------------------------------------------------

    def _title(self, i):
        total = self.contributions[i].sum()
        heading = f"{sample_name(self.index[i])}, decision {self.names[i]}"
        if self.residuals is None:
            (total,) = numbers(total, sign="+")
            return f"{heading}\nsum {total}"
        total, residual = numbers(total, self.residuals[i], sign="+")
        return f"{heading}\nsum {total}, missing {residual}"

    def _note(self):
        text = "contributions of the features to the decision above"
        if self.residuals is None:
            return text
        return f"{text}; sum + missing = decision less that of the baseline"

    def _feature_names(self):
        if self.feature_names is not None:
            return self.feature_names
        shape = self.contributions.shape[1:]
        if len(shape) == 1:
            return [f"x{j}" for j in range(shape[0])]
        return list(np.ndindex(shape))
