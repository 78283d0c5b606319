"""The plan of a network: by which rule, or by autograd, each layer's factors are made."""

from typing import NamedTuple

import torch

from ._rules import rule_for


class Part(NamedTuple):
    """Parameters of a layer that are treated together, by the rule of a module or by autograd."""

    module: str | None  # None: by autograd
    names: tuple  # of the module's own parameters, or full names
    vectorise: bool = True  # by autograd, all samples at once

    @property
    def full_names(self):
        """Names as in ``named_parameters()``."""
        prefix = f"{self.module}." if self.module else ""
        return tuple(prefix + name for name in self.names)


class PlanChangedError(Exception):
    """The plan has changed: factors that were being made are made again."""


class Plan:
    """One plan for all batches, because factors of two kinds have no Gram.

    A network may take a different way for each batch: dispatch its samples to experts, sort them,
    use a layer now once and now twice. Where a rule does not give what it gave before, or not what
    autograd gives, the part goes by autograd from then on, for all batches, and `version` grows::

        by rule  ->  by autograd, all samples at once  ->  by autograd, one sample after the other

    Parameters
    ----------
    network : torch.nn.Module
    layers : list of Layer

    Attributes
    ----------
    parts : list of list of Part
        Of each layer.
    version : int
    watched : dict of str to torch.nn.Module
        Modules whose uses the rules need.
    """

    def __init__(self, network, layers):
        self._modules = dict(network.named_modules())
        self._layers = layers
        # Parameters of several modules go by autograd, where their gradients add up.
        owners: dict[torch.Tensor, int] = {}
        for module in self._modules.values():
            for parameter in module.parameters(recurse=False):
                owners[parameter] = owners.get(parameter, 0) + 1
        by_name = dict(network.named_parameters())
        self.parts = [
            self._parts(layer, lambda name: owners[by_name[name]] == 1) for layer in layers
        ]
        self._layouts: dict[Part, tuple] = {}
        self.version = 0

    def _parts(self, layer, has_one_owner):
        by_rule: dict[str, list[str]] = {}
        by_autograd = []
        for full_name in layer.parameters:
            module_name, _, name = full_name.rpartition(".")
            if rule_for(self._modules[module_name]) and has_one_owner(full_name):
                by_rule.setdefault(module_name, []).append(name)
            else:
                by_autograd.append(full_name)
        parts = [Part(name, tuple(names)) for name, names in by_rule.items()]
        return parts + ([Part(None, tuple(by_autograd))] if by_autograd else [])

    @property
    def watched(self):
        """Modules whose uses the rules need."""
        names = [part.module for parts in self.parts for part in parts if part.module is not None]
        return {name: self._modules[name] for name in names}

    @property
    def autograd_layers(self):
        """Names of the layers of which some parameter goes by autograd."""
        return [
            layer.name
            for layer, parts in zip(self._layers, self.parts, strict=True)
            if any(part.module is None for part in parts)
        ]

    def require_layouts(self, made):
        """Take rules away that did not apply, or gave factors of another layout than before.

        Parameters
        ----------
        made : dict of Part to Factor or None
            By their rules.

        Raises
        ------
        PlanChangedError
            If there were any.
        """
        odd = [
            part
            for part, factor in made.items()
            if factor is None or self._layouts.setdefault(part, factor.layout) != factor.layout
        ]
        for part in odd:
            self._replace(part, Part(None, part.full_names))
        if odd:
            self.version += 1
            raise PlanChangedError

    def loop(self, parts):
        """Make factors that were to be vectorised one sample after the other: the same factors."""
        for part in parts:
            self._replace(part, part._replace(vectorise=False))

    def demote(self, names):
        """Go one step towards autograd with layers whose kernels are wrong.

        Raises
        ------
        ValueError
            If there is no further step for one of them; it is named.
        PlanChangedError
            Otherwise.
        """
        for index, (layer, parts) in enumerate(zip(self._layers, self.parts, strict=True)):
            if layer.name not in names:
                continue
            if not any(part.module is not None or part.vectorise for part in parts):
                raise ValueError(
                    f"network: the tangent kernel of layer {layer.name!r} does not agree with "
                    "autograd's own gradients, not even one sample after the other."
                )
            vectorise = any(part.module is not None for part in parts)
            self.parts[index] = [Part(None, layer.parameters, vectorise)]
        self.version += 1
        raise PlanChangedError

    def _replace(self, old, new):
        self.parts = [[new if part == old else part for part in parts] for parts in self.parts]

    def state(self):
        """All of it in builtin types."""
        parts = [
            [
                [part.module, list(part.names), part.vectorise, self._layouts.get(part)]
                for part in parts
            ]
            for parts in self.parts
        ]
        return {"parts": parts, "version": self.version}

    def restore(self, state):
        """Take over what `state` returned."""
        self.version = state["version"]
        self.parts = []
        for parts in state["parts"]:
            self.parts.append([])
            for module, names, vectorise, layout in parts:
                part = Part(module, tuple(names), vectorise)
                self.parts[-1].append(part)
                if layout is not None:
                    self._layouts[part] = tuple(layout)
