"""Layers of a fitted estimator and their weights, for its diagram in notebooks."""

from ..utils._groups import layer_label

# Those of the largest weights; more would not fit beside each other.
_MOST_LAYERS = 8


def fitted_layers(machine):
    """Boxes ``(name, caption, details)`` in the order of the layers; none before `fit`."""
    if not hasattr(machine, "kernel_weights_"):
        return []
    weights, names = machine.kernel_weights_.T, machine.layer_names_
    label = "weight" if len(machine.kernel_weights_) == 1 else "mean weight"
    descending = weights.mean(axis=1).argsort(kind="stable")[::-1]
    boxes = [
        (
            layer_label(names[layer]),
            f"{label} {weights[layer].mean():.2f}",
            "weight in each decision: " + ", ".join(f"{weight:.3f}" for weight in weights[layer]),
        )
        for layer in sorted(descending[:_MOST_LAYERS])
    ]
    others = sorted(descending[_MOST_LAYERS:])
    if others:
        rest = weights[others].sum(axis=0).mean()
        details = ", ".join(layer_label(names[layer]) for layer in others)
        boxes.append((f"{len(others)} more", f"{label} {rest:.2f}", details))
    return boxes
