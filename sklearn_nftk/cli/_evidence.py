"""What one fitted machine tells about its layers and about a decision: as text, picture, JSON."""

from typing import Any, NamedTuple

import numpy as np

from ..estimators import fitted
from ..inspection import (
    LayerContributionsDisplay,
    LayerWeightsDisplay,
    layer_ablation,
    layer_contributions,
    training_influence,
    weight_stability,
)
from ..inspection._unwrap import final_estimator
from ..inspection.plots._drawing import mark_layers, marks_note
from ..networks import is_trained

N_RESAMPLES = 50
_MOST_LAYERS = 6  # in a sentence


class Decision(NamedTuple):
    """One decision: what was said of which row, and what spoke for the class that was said.

    `layers` are contributions of the layers, minus their means over the training set. `example` is
    the training row of the largest influence, by which the decision would be lower without it.
    """

    row: Any
    predicted: Any
    true: Any
    probability: float
    layers: np.ndarray
    example: Any
    example_class: Any
    influence: float


class Evidence(NamedTuple):
    """Weights with their intervals, scores without and by each layer if they are uniform.

    `cv` is in how many folds a network was trained, None for others.
    """

    display: LayerWeightsDisplay
    shrinkage: Any
    cv: int | None
    n_train: int
    n_test: int
    ablation: Any
    decision: Decision


def gather(model, dataset, train, test, random_state):
    """Ask a fitted pipeline about its layers and its least certain decision.

    Parameters
    ----------
    model : Pipeline
        Fitted on the rows `train`.
    dataset : Dataset
    train, test : ndarray of int
        Rows of the data set.
    random_state : int

    Returns
    -------
    Evidence
    """
    X, y = take(dataset.X, train), dataset.y[train]
    X_test, y_test = take(dataset.X, test), dataset.y[test]
    try:
        stability = weight_stability(
            model, X, y, n_resamples=N_RESAMPLES, random_state=random_state
        )
    except MemoryError:  # it takes the kernels of all layers at once, which the fit does not
        stability = None
    display = LayerWeightsDisplay.from_estimator(model, stability=stability)
    ablation = None
    if _is_uniform(display):
        n_layers = len(display.layer_names)
        ablation = layer_ablation(model, X_test, y_test, refit=n_layers > 1, training=(X, y))
    machine = final_estimator(model)
    return Evidence(
        display,
        fitted(machine).options.shrinkage,
        machine.cv if is_trained(machine.network) else None,
        len(train),
        len(test),
        ablation,
        _least_certain(model, dataset, train, test),
    )


def take(X, rows):
    """Rows of an array or of a DataFrame."""
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def _is_uniform(display):
    return np.allclose(display.weights, 1 / len(display.layer_names))


def _least_certain(model, dataset, train, test):
    """The decision whose class has the smallest probability among the rows not trained on."""
    probabilities = model.predict_proba(take(dataset.X, test))
    position = probabilities.max(axis=1).argmin()
    row = test[position]
    sample = take(dataset.X, [row])
    predicted = model.predict(sample)[0]
    code = list(model.classes_).index(predicted)
    # Two classes share a decision: what speaks for the first is negative.
    two = len(model.classes_) == 2
    decision, sign = (0, 2 * code - 1) if two else (code, 1)
    by_examples = sign * training_influence(model, sample)[0, decision]
    most = by_examples.argmax()
    names = getattr(dataset.X, "index", np.arange(len(dataset.y)))
    return Decision(
        row=names[row],
        predicted=predicted,
        true=dataset.y[row],
        probability=probabilities[position, code],
        layers=sign * layer_contributions(model, sample, baseline="mean")[0, decision],
        example=names[train[most]],
        example_class=dataset.y[train[most]],
        influence=by_examples[most],
    )


# -- text -----------------------------------------------------------------------------------------


def print_evidence(evidence):
    """Print weights, or scores where weights are uniform, and the decision in one sentence."""
    if evidence.ablation is None:
        _print_weights(evidence)
    else:
        _print_ablation(evidence)
    display = evidence.display
    note = marks_note(display.groups, display.threshold).replace("≥", ">=")
    apart = f"no two layers are interchangeable (centred alignment below {display.threshold:g})"
    print(note or apart)
    print(f"\n{sentence(evidence)}")


def _print_weights(evidence):
    display = evidence.display
    names = mark_layers(display.layer_names, display.groups)
    cells = np.vectorize("{:.2f}".format)(display.weights)
    intervals = ""
    if display.low is not None:
        intervals = " [95 % bootstrap interval]"
        between = np.vectorize(" [{:.2f}, {:.2f}]".format)(display.low, display.high)
        cells = np.char.add(cells, between)
    how = [f"normalize={display.normalize}", f"shrinkage={evidence.shrinkage}"]
    if evidence.shrinkage == 0:
        how[-1] = "shrinkage=0: alignment alone"
    if evidence.cv is not None:
        how.append(f"cv={evidence.cv}: from rows new to their network")
    print(
        f"\nlayer weights{intervals}, learned on the {evidence.n_train} training samples of the "
        f"first fold\n({', '.join(how)}):"
    )
    _print_table("class", names, display.decision_names, cells)
    if evidence.cv is not None:
        print("(intervals are over rows, not trainings: another --random-state gives other ones)")


def _print_ablation(evidence):
    display, ablation = evidence.display, evidence.ablation
    names = mark_layers(display.layer_names, display.groups)
    print(
        f"\nlayer weights (normalize={display.normalize}) are uniform: leave-one-out gave no "
        "reason to prefer a layer.\nWhat remains is the accuracy on the "
        f"{evidence.n_test} held-out samples of the first fold, learned again\nfrom the other "
        f"layers or from one alone; from all it is {ablation.score:.4f}:"
    )
    cells = np.vectorize("{:.4f}".format)([ablation.without, ablation.alone])
    _print_table("", names, ["without it", "it alone"], cells)


def _print_table(corner, columns, rows, cells):
    width = 2 + max(*map(len, columns), *map(len, cells.ravel()))
    first = max(map(len, [corner, *rows]))
    print(corner.ljust(first) + "".join(name.rjust(width) for name in columns))
    for name, row in zip(rows, cells, strict=True):
        print(name.ljust(first) + "".join(cell.rjust(width) for cell in row))


def sentence(evidence):
    """Explain the decision in one sentence."""
    d, names = evidence.decision, evidence.display.layer_names
    order = np.argsort(-np.abs(d.layers), kind="stable")
    layers = [f"{d.layers[layer]:+.2f} ({names[layer]})" for layer in order[:_MOST_LAYERS]]
    if len(names) > _MOST_LAYERS:
        layers.append(f"{d.layers[order[_MOST_LAYERS:]].sum():+.2f} (all others)")
    truth = "which it is" if d.predicted == d.true else f"but is {d.true}"
    return (
        f"The least certain decision on a held-out sample: {d.row} is called {d.predicted} with "
        f"probability {d.probability:.2f}, {truth}; layers spoke for {d.predicted} by "
        f"{', '.join(layers)} more than for an average sample, and of the training samples "
        f"{d.example} spoke for it most, a {d.example_class}, without which the decision would be "
        f"{d.influence:.2g} lower (rows count from 0)."
    )


# -- picture and JSON -----------------------------------------------------------------------------


def draw(evidence, model, X, y, path):
    """Draw the weights, or where they are uniform what layers contributed to decisions on X.

    Returns
    -------
    str
        What the picture shows.
    """
    import matplotlib

    matplotlib.use("Agg")  # a file is wanted, not a window
    if evidence.ablation is None:
        shown, display = "layer weights", evidence.display
    else:
        shown = "contributions of the layers to held-out decisions"
        display = LayerContributionsDisplay.from_estimator(model, X, y=y)
    display.plot().figure_.savefig(path, dpi=150)
    return shown


def as_json(evidence):
    """Everything that is printed, of types that JSON has."""
    display, ablation, decision = evidence.display, evidence.ablation, evidence.decision
    has_intervals = display.low is not None
    return {
        "n_train": evidence.n_train,
        "n_test": evidence.n_test,
        "weights": {
            "normalize": display.normalize,
            "shrinkage": evidence.shrinkage,
            "cv": evidence.cv,
            "layers": display.layer_names,
            "classes": display.decision_names,
            "values": display.weights.tolist(),
            "low": display.low.tolist() if has_intervals else None,
            "high": display.high.tolist() if has_intervals else None,
            "interchangeable": display.groups,
            "threshold": display.threshold,
        },
        "ablation": None
        if ablation is None
        else {
            "score": ablation.score,
            "without": ablation.without.tolist(),
            "alone": ablation.alone.tolist(),
        },
        "decision": {
            name: value.tolist() if hasattr(value, "tolist") else value
            for name, value in decision._asdict().items()
        },
    }
