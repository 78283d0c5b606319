"""Layers are named groups: of the parameters of a network, or of the kernels of a closed form."""

from fnmatch import fnmatchcase

GROUPINGS = ("module", "block")


def check_layers(layers):
    """Refuse what `layers` may not be: neither a known name nor a dictionary."""
    if not isinstance(layers, dict) and layers not in GROUPINGS:
        raise ValueError(
            "layers must be 'module', 'block' or a dict {layer name: [parameter-name patterns]}, "
            f"got {layers!r}."
        )


def group_by_patterns(names, layers, *, frozen=()):
    """Group names by patterns, each name into exactly one layer.

    Parameters
    ----------
    names : sequence of str
    layers : dict of str to str or list of str
        For each layer, patterns as in :mod:`fnmatch`.
    frozen : collection of str
        Those of the names that patterns may match, or not, but that belong to no layer.

    Returns
    -------
    dict of str to list of str
        The names of each layer, in the order of `layers`.

    Raises
    ------
    ValueError
        If a pattern matches none of the names, a name is matched twice or not at all, or a layer
        has frozen names alone.
    """
    matched_by: dict[str, str] = {}
    groups: dict[str, list[str]] = {}
    for layer, patterns in layers.items():
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        members: list[str] = []
        for pattern in patterns:
            hits = [name for name in names if fnmatchcase(name, pattern)]
            if not hits:
                raise ValueError(
                    f"layers[{layer!r}]: pattern {pattern!r} matches no parameter; the "
                    f"parameters are {list(names)}."
                )
            for name in hits:
                if name in matched_by:
                    raise ValueError(
                        f"layers: parameter {name!r} is matched by two patterns, "
                        f"{matched_by[name]!r} and {pattern!r}; each must be matched once."
                    )
                matched_by[name] = pattern
            members.extend(name for name in hits if name not in frozen)
        if not members:
            raise ValueError(
                f"layers[{layer!r}] has no trainable parameter: "
                + (f"{patterns} match frozen parameters only." if patterns else "no pattern.")
            )
        groups[layer] = members
    for name in names:
        if name not in matched_by and name not in frozen:
            raise ValueError(
                f"layers: parameter {name!r} is matched by no pattern; every trainable parameter "
                "must be in one layer (freeze those that should not count)."
            )
    return groups


def layer_label(name):
    """Name of a layer for a reader: that of the parameters of the root module is empty."""
    return name or "(root)"
