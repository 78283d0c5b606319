"""Layers: named groups of the parameters of a network."""

from typing import NamedTuple

from ..utils._groups import check_layers, group_by_patterns


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
    check_layers(layers)
    if isinstance(layers, dict):
        every_name = [name for name, _ in network.named_parameters()]
        groups = group_by_patterns(every_name, layers, frozen=set(every_name) - set(names))
    else:
        groups = {}
        for name in names:
            owner, _, _ = name.rpartition(".")
            layer = owner if layers == "module" else owner.partition(".")[0]
            groups.setdefault(layer, []).append(name)
    # named_parameters() lists parameters module by module, in the order of named_modules().
    return [Layer(name, tuple(parameters)) for name, parameters in groups.items()]
