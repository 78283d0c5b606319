"""Which parameters of a network form a layer."""

from fnmatch import fnmatchcase
from typing import NamedTuple


class Layer(NamedTuple):
    """A named group of parameters: ``parameters`` are names as in ``named_parameters()``."""

    name: str
    parameters: tuple


def group_layers(network, layers="module"):
    """Group the trainable parameters of a network.

    Parameters
    ----------
    network : torch.nn.Module
    layers : {"module", "block"} or dict of str to list of str
        "module": each module that owns parameters is a layer. "block": each top-level child is
        one. A dict gives, for each layer name, patterns (as in :mod:`fnmatch`) of parameter names.

    Returns
    -------
    list of Layer
        In the order of ``named_modules()``, or of the dict. A parameter used by several modules
        belongs to the first of them. Frozen parameters belong to none.

    Raises
    ------
    ValueError
        If no parameter is trainable, a pattern matches none, or a trainable parameter is matched
        by two patterns or by none.
    """
    names = [name for name, p in network.named_parameters() if p.requires_grad]
    if not names:
        raise ValueError(
            "network has no trainable parameter (requires_grad=True), so it has no tangent kernel."
        )
    if isinstance(layers, dict):
        return _by_patterns(network, names, layers)
    if layers not in ("module", "block"):
        raise ValueError(
            "layers must be 'module', 'block' or a dict {layer name: [parameter-name patterns]}, "
            f"got {layers!r}."
        )
    groups: dict[str, list[str]] = {}
    for name in names:
        owner, _, _ = name.rpartition(".")
        groups.setdefault(owner if layers == "module" else owner.partition(".")[0], []).append(
            name
        )
    # named_parameters() lists parameters module by module, in the order of named_modules().
    return [Layer(name, tuple(parameters)) for name, parameters in groups.items()]


def _by_patterns(network, trainable, layers):
    every_name = [name for name, _ in network.named_parameters()]
    matched_by: dict[str, str] = {}
    groups = []
    for layer_name, patterns in layers.items():
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        members: list[str] = []
        for pattern in patterns:
            hits = [name for name in every_name if fnmatchcase(name, pattern)]
            if not hits:
                raise ValueError(
                    f"layers[{layer_name!r}]: pattern {pattern!r} matches no parameter; the "
                    f"parameters are {every_name}."
                )
            for name in hits:
                if name in matched_by:
                    raise ValueError(
                        f"layers: parameter {name!r} is matched by two patterns, "
                        f"{matched_by[name]!r} and {pattern!r}; each must be matched once."
                    )
                matched_by[name] = pattern
            members.extend(name for name in hits if name in trainable)
        if not members:
            raise ValueError(
                f"layers[{layer_name!r}] has no trainable parameter: {patterns} match frozen "
                "parameters only."
            )
        groups.append(Layer(layer_name, tuple(members)))
    missed = [name for name in trainable if name not in matched_by]
    if missed:
        raise ValueError(
            f"layers: parameter {missed[0]!r} is matched by no pattern; every trainable parameter "
            "must be in one layer (freeze those that should not count)."
        )
    return groups
