"""One HTML page about a fitted machine and its decisions on a handful of samples."""

import html
from pathlib import Path

import numpy as np
from sklearn.base import is_classifier

from .._version import __version__
from ..estimators import fitted
from ..utils._row_ids import id_text
from ._fidelity import fidelity_sentence, has_network, network_fidelity
from ._html import page, picture, scrolled, section, table, write
from ._unwrap import (
    decision_names,
    final_estimator,
    input_names,
    layer_labels,
    training_ids,
    transformed,
)
from .plots import (
    KernelAlignmentDisplay,
    LayerContributionsDisplay,
    LayerWeightsDisplay,
    TrainingContributionsDisplay,
)

# Each sample has two pictures; a page of more could not be read, nor mailed.
MOST_SAMPLES = 50
# Features of a sample that are listed.
_MOST_FEATURES = 100
_METHODS = {
    "influence": " The training examples shown with a sample are those of the largest influence: "
    "how much higher the decision is than that of the same machine, with its weights and C, "
    "learned without the example, exactly. What single examples contribute to the sum says less: "
    "contributions of examples that are alike cancel.",
    "contributions": " The training examples shown with a sample are those of the largest "
    "contributions to this sum, not those without which the machine would have decided otherwise.",
}


def explain(
    estimator,
    X,
    path="report.html",
    *,
    y=None,
    labels=None,
    stability=None,
    ablation=None,
    fidelity=None,
    images=None,
    train_images=None,
    image_shape=None,
    top=5,
    threshold=0.95,
    title=None,
    X_train=None,
    index=None,
    train_index=None,
):
    """Write a page that explains the decisions on a handful of samples.

    The page holds all its pictures and needs no network to be read: the weights of the layers and
    how alike their kernels are, then for each sample what each layer contributed and which
    training examples matter most (see :class:`TrainingContributionsDisplay`), in pictures and
    tables. Samples and training examples are named by their ids: the index of the table that they
    are rows of. Needs matplotlib and pandas.

    Parameters
    ----------
    estimator : estimator of sklearn_nftk, or Pipeline or search that ends in one
        Fitted.
    X : array-like of shape (n_samples, ...)
        The samples, at most 50, as the estimator takes them.
    path : str or path-like, default="report.html"
        Replaced if it is there, once the page is complete.
    y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
        True classes or targets of the samples.
    labels : array-like of shape (n_fit,), default=None
        Class labels or targets of the training rows of positive weight.
    stability : Bunch, default=None
        What :func:`weight_stability` returned: adds intervals to the weights.
    ablation : Bunch, default=None
        What :func:`layer_ablation` returned: adds the scores without each layer.
    fidelity : Bunch, default=None
        What :func:`network_fidelity` returned. None compares machine and network on X alone, where
        there is a network to compare with; give one of many samples.
    images, train_images, image_shape
        Pictures of the samples and of the training examples, as in
        :meth:`TrainingContributionsDisplay.from_estimator`.
    top : int, default=5
        How many training examples are shown for each side of a decision.
    threshold : float in [0, 1], default=0.95
        Centred alignment from which layers are marked as interchangeable.
    title : str, default=None
        None is made from the name of the estimator.
    X_train : array-like of shape (n_fit, n_features), default=None
        The training rows of positive weight as the estimator takes them. Features of the training
        examples that spoke for a sample are listed beside its own. None takes ``X_fit_``, unless
        the earlier steps of a pipeline made that.
    index : array-like of shape (n_samples,), default=None
        Ids of the samples. None takes the index of X, or positions where X has none.
    train_index : array-like of shape (n_fit,), default=None
        Ids of the training rows of positive weight. None takes ``index_fit_`` of the estimator,
        else the index of `X_train` or of `labels`, or positions where none is there.

    Returns
    -------
    pathlib.Path
        Where the page is.

    Raises
    ------
    ValueError
        If there are more than 50 samples, or y, labels, ids, pictures or `X_train` do not fit
        them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import explain
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MultiLayerNTKClassifier(random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = explain(model, X[:1], Path(folder) / "report.html", labels=y)
    ...     page.read_text().startswith("<!DOCTYPE html>")
    True
    """
    machine = final_estimator(estimator)
    n_samples = len(X)
    if n_samples > MOST_SAMPLES:
        raise ValueError(
            f"X has {n_samples} samples; choose at most {MOST_SAMPLES} to be explained."
        )
    path = Path(path)
    title = title or f"{type(machine).__name__}: {n_samples} decisions explained"
    if fidelity is None and has_network(machine):
        fidelity = network_fidelity(estimator, X)
    weights = LayerWeightsDisplay.from_estimator(
        estimator, stability=stability, threshold=threshold
    )
    alignment = KernelAlignmentDisplay.from_estimator(estimator, threshold=threshold)
    layers = LayerContributionsDisplay.from_estimator(
        estimator, X, y=y, threshold=threshold, index=index
    )
    examples = TrainingContributionsDisplay.from_estimator(
        estimator,
        X,
        top=top,
        labels=labels,
        images=images,
        train_images=train_images,
        image_shape=image_shape,
        index=index,
        train_index=training_ids(machine, X_train, labels, train_index=train_index),
    )
    features = _features(estimator, X, X_train, examples)
    verdicts = _verdicts(estimator, X, y)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _contents(layers.index, ablation is not None),
        _machine(machine, examples.train_index is not None, examples.method),
        _weights(machine, weights, stability, fidelity),
        _alignment(alignment),
        "" if ablation is None else _ablation(machine, ablation),
    ]
    for i, verdict in enumerate(verdicts):
        parts += _sample(i, verdict, layers, examples, features[i])
    write(path, page(title, "\n".join(parts)))
    return path


# -- parts of the page ------------------------------------------------------------------------


def _contents(ids, has_ablation):
    links = [("machine", "The machine"), ("weights", "Layer weights"), ("alignment", "Kernels")]
    links += [("ablation", "Ablation")] * has_ablation
    links += [(f"sample{i}", _heading(row_id)) for i, row_id in enumerate(ids)]
    return "<nav>" + " ".join(f'<a href="#{to}">{name}</a>' for to, name in links) + "</nav>"


def _heading(row_id):
    return html.escape(f"Sample {id_text(row_id)}")


def _machine(machine, has_ids, values):
    options = fitted(machine).options
    method = options.kernel_weights
    rows = {
        "estimator": repr(machine),
        "training examples": f"{machine.dual_coef_.shape[1]}, named by "
        + ("the index of their table" if has_ids else "position, from 0"),
        "decisions": ", ".join(decision_names(machine)),
        "layers": ", ".join(layer_labels(machine)),
        "kernel weights": method if isinstance(method, str) else "given",
        "normalisation of the kernels": options.normalize,
        "loss": options.loss,
        "C": f"{machine.C_:.4g}",
        "sklearn_nftk": __version__,
    }
    body = "".join(
        f"<tr><th>{name}</th><td style='text-align: left'>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
    )
    return (
        f"<h2 id='machine'>The machine</h2><table>{body}</table>"
        "<p>A decision is a sum: of an intercept and what each layer contributed, and as well of "
        "an intercept and what each training example contributed. Both splits are exact."
        f"{_METHODS[values]}</p>"
    )


def _weights(machine, display, stability, fidelity):
    text = (
        "How much of each layer's kernel is in the combined kernel of a decision. Weights depend "
        "on how kernels are normalised, and a large one is no proof that the layer is needed; "
        "leaving it out (layer_ablation) is better evidence."
    )
    if np.allclose(machine.kernel_weights_, 1 / machine.kernel_weights_.shape[1]):
        text += " Here all weights are equal: no layer is preferred."
    if stability is not None:
        text += f" Intervals are of {len(stability.weights)} bootstrap resamples."
    if fidelity is not None:
        text += f" {fidelity_sentence(machine, fidelity)}"
    return section("weights", "Layer weights", text, display.plot(), display.frame())


def _alignment(display):
    text = (
        "Centred alignment of the layers' kernels with each other, 1 for kernels that say the "
        "same, and with the targets of each decision."
    )
    if display.groups:
        names = "; ".join(
            ", ".join(display.layer_names[layer] for layer in group) for group in display.groups
        )
        text += (
            f" Interchangeable here: {names}. How weight is divided within such a group says "
            "nothing about its layers."
        )
    return section("alignment", "How alike the kernels are", text, display.plot(), display.frame())


def _ablation(machine, ablation):
    import pandas as pd

    scores = {
        "without it": ablation.without,
        "drop": ablation.drop,
        "it alone": ablation.alone,
    }
    frame = pd.DataFrame(scores, layer_labels(machine))
    return (
        "<h2 id='ablation'>Scores without each layer</h2>"
        f"<p>With all layers the score is {ablation.score:.4g}.</p>{scrolled(frame)}"
    )


def _sample(i, verdict, layers, examples, features):
    heading = _heading(layers.index[i])
    own = layers.frame(sample=i).droplevel("sample")
    nearest = examples.frame(sample=i).drop(columns="sample")
    return [
        f"<h2 id='sample{i}'>{heading}: {verdict}</h2>",
        features,
        picture(layers.plot(sample=i), "contributions of the layers to the sample"),
        table("contributions of the layers", own),
        picture(examples.plot(sample=i), "training examples that spoke for the sample"),
        table("training examples", nearest.set_index("index")),
    ]


def _verdicts(estimator, X, y):
    """One line on each sample: what was predicted, how surely, and what is true."""
    predicted = estimator.predict(X)
    surely = [""] * len(predicted)
    if is_classifier(estimator) and hasattr(estimator, "predict_proba"):
        surely = [f" with probability {p:.3f}" for p in estimator.predict_proba(X).max(axis=1)]
    lines = []
    for i, (value, how) in enumerate(zip(predicted, surely, strict=True)):
        line = f"predicted {html.escape(_shown(value))}{how}"
        if y is not None:
            true = np.asarray(y)[i]
            wrong = is_classifier(estimator) and true != value
            line += f", <span class='{'wrong' if wrong else 'right'}'>true "
            line += f"{html.escape(_shown(true))}</span>"
        lines.append(line)
    return lines


def _shown(value):
    if np.ndim(value):
        return ", ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _features(estimator, X, X_train, examples):
    """For each sample a table of its features and those of the training examples shown with it.

    Empty where samples are no rows of a table.
    """
    import pandas as pd

    machine = final_estimator(estimator)
    n_fit = machine.dual_coef_.shape[1]
    if X_train is not None and len(X_train) != n_fit:
        raise ValueError(
            f"X_train has {len(X_train)} rows for {n_fit} training rows of positive weight."
        )
    is_kernel = not hasattr(machine, "X_fit_")
    if is_kernel or np.ndim(X) != 2 or np.shape(X)[1] > _MOST_FEATURES:
        return [""] * len(X)
    if X_train is None and transformed(estimator, X) is X:
        X_train = machine.X_fit_
    if X_train is not None:
        _check_features(X_train, X)
    if examples.images is not None and examples.train_images is not None:
        X_train = None  # they are to be seen
    names, tables = input_names(estimator, X), []
    train_ids = range(n_fit) if examples.train_index is None else examples.train_index
    for i, row_id in enumerate(examples.index):
        rows, heads = [_row(X, i)], [("sample", id_text(row_id))]
        sides = zip(examples.sides[i], examples.indices[i], strict=True)
        for side, j in ((side, j) for side, near in sides for j in near[near >= 0]):
            if X_train is not None:
                rows.append(_row(X_train, j))
                heads.append((side, id_text(train_ids[j])))
        frame = pd.DataFrame(dict(enumerate(rows)), names)
        frame.columns = ["value"] if X_train is None else pd.MultiIndex.from_tuples(heads)
        tables.append(table("features", frame))
    return tables


def _check_features(X_train, X):
    columns = [list(getattr(rows, "columns", ())) for rows in (X_train, X)]
    if np.shape(X_train)[1:] != np.shape(X)[1:] or (all(columns) and columns[0] != columns[1]):
        raise ValueError(
            "X_train must have the features of X in their order; got shape "
            f"{np.shape(X_train)} for {np.shape(X)}."
        )


def _row(X, i):
    return list(X.iloc[i] if hasattr(X, "iloc") else np.asarray(X)[i])
