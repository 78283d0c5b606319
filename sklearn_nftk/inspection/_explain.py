"""One HTML page about a fitted machine and its decisions on a handful of samples."""

import base64
import html
import os
from io import BytesIO
from pathlib import Path

import numpy as np
from sklearn.base import is_classifier

from .._version import __version__
from ..estimators import fitted
from ._fidelity import fidelity_sentence, has_network, network_fidelity
from ._unwrap import decision_names, final_estimator, layer_labels
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

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-top: 1px solid #ccc;
       padding-top: 1.5rem; }
img { max-width: 100%; display: block; margin: 1rem auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.6rem; text-align: right; border-bottom: 1px solid #eee; }
th { text-align: left; } .scroll { overflow-x: auto; } .wrong { color: #b3430a; }
summary { cursor: pointer; color: #555; } nav a { margin-right: 1rem; white-space: nowrap; }
.note { color: #555; font-size: 0.9rem; }
@media print { nav { display: none; } h2 { break-before: page; } }
"""


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
):
    """Write a page that explains the decisions on a handful of samples.

    The page holds all its pictures and needs no network to be read: the weights of the layers and
    how alike their kernels are, then for each sample what each layer and which training examples
    contributed, in pictures and tables. Needs matplotlib and pandas.

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

    Returns
    -------
    pathlib.Path
        Where the page is.

    Raises
    ------
    ValueError
        If there are more than 50 samples, or y, labels or pictures do not fit them.

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
    layers = LayerContributionsDisplay.from_estimator(estimator, X, y=y, threshold=threshold)
    examples = TrainingContributionsDisplay.from_estimator(
        estimator,
        X,
        top=top,
        labels=labels,
        images=images,
        train_images=train_images,
        image_shape=image_shape,
    )
    verdicts = _verdicts(estimator, X, y)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _contents(n_samples, ablation is not None),
        _machine(machine),
        _weights(machine, weights, stability, fidelity),
        _alignment(alignment),
        "" if ablation is None else _ablation(machine, ablation),
    ]
    for i, verdict in enumerate(verdicts):
        parts += _sample(i, verdict, layers, examples, _features(X, machine, i))
    _write(path, _page(title, "\n".join(parts)))
    return path


# -- parts of the page ------------------------------------------------------------------------


def _contents(n_samples, has_ablation):
    links = [("machine", "The machine"), ("weights", "Layer weights"), ("alignment", "Kernels")]
    links += [("ablation", "Ablation")] * has_ablation
    links += [(f"sample{i}", f"Sample {i}") for i in range(n_samples)]
    return "<nav>" + " ".join(f'<a href="#{to}">{name}</a>' for to, name in links) + "</nav>"


def _machine(machine):
    options = fitted(machine).options
    method = options.kernel_weights
    rows = {
        "estimator": repr(machine),
        "training examples": machine.dual_coef_.shape[1],
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
        "an intercept and what each training example contributed. Both splits are exact.</p>"
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
    return _section("weights", "Layer weights", text, display.plot(), display.frame())


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
    return _section(
        "alignment", "How alike the kernels are", text, display.plot(), display.frame()
    )


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
        f"<p>With all layers the score is {ablation.score:.4g}.</p>{_scrolled(frame)}"
    )


def _sample(i, verdict, layers, examples, features):
    own = layers.frame().xs(i, level="sample")
    nearest = examples.frame()
    return [
        f"<h2 id='sample{i}'>Sample {i}: {verdict}</h2>",
        features,
        _picture(layers.plot(sample=i), f"contributions of the layers to sample {i}"),
        _table("contributions of the layers", own),
        _picture(examples.plot(sample=i), f"training examples that spoke for sample {i}"),
        _table(
            "training examples",
            nearest[nearest["sample"] == i].drop(columns="sample").set_index("index"),
        ),
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


def _features(X, machine, i):
    """The values of a tabular sample, by name where features have names."""
    import pandas as pd

    is_kernel = not hasattr(machine, "X_fit_")
    if is_kernel or np.ndim(X) != 2 or np.shape(X)[1] > _MOST_FEATURES:
        return ""
    names = getattr(X, "columns", [f"feature {j}" for j in range(np.shape(X)[1])])
    row = X.iloc[i] if hasattr(X, "iloc") else np.asarray(X)[i]
    return _table("features", pd.DataFrame({"value": list(row)}, list(names)))


# -- pieces -------------------------------------------------------------------------------------


def _section(anchor, heading, text, display, frame):
    return (
        f"<h2 id='{anchor}'>{heading}</h2><p>{html.escape(text)}</p>"
        f"{_picture(display, heading)}{_table('numbers', frame)}"
    )


def _picture(display, description):
    """The figure of a Display as part of the page."""
    import matplotlib.pyplot as plt

    buffer = BytesIO()
    display.figure_.savefig(buffer, format="png", dpi=110)
    plt.close(display.figure_)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'


def _table(summary, frame):
    return f"<details><summary>{summary}</summary>{_scrolled(frame)}</details>"


def _scrolled(frame):
    table = frame.to_html(border=0, float_format="{:.4g}".format)
    return f"<div class='scroll'>{table}</div>"


def _page(title, body):
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{body}</body></html>\n"
    )


def _write(path, text):
    """Replace the file once all is written, so that nobody ever reads half a page."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
