"""From samples to factors: forward and backward passes, rules, and the memory they take."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..utils._device import free_memory, full_precision
from ..utils._tiles import slices
from ._batches import Batch
from ._capture import InPlaceError, capture
from ._generic import generic_factors
from ._rules import rule_for

# A pass of more samples is no faster, nor is one that holds more on the CPU.
_PASS_ROWS = 1024
_PASS_BYTES = 2**26
# Many heads of few samples are slower than few heads of many samples.
_PASS_HEADS = 32


class Part(NamedTuple):
    """Parameters of a layer that are treated together: by the rule of a module, or generically."""

    module: str | None  # None: the generic way
    names: tuple  # of the module's own parameters, or full names
    vectorise: bool = True  # all samples at once, on the generic way


class Passes:
    """What a network leaves behind for its layers: call `settle` first, then `factors`.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; used, never modified.
    layers : list of Layer
    device : torch.device
    dtype : torch.dtype
    """

    def __init__(self, network, layers, device, dtype):
        self.network = network
        self.layers = layers
        self.device = device
        self.dtype = dtype
        self._looks_up = any(
            isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in network.modules()
        )
        # The layout that convolutions and pools of the CPU are fastest in, as long as the network
        # takes it: one that calls ``view`` may not.
        self._channels_last = device.type == "cpu" and any(
            isinstance(module, nn.Conv2d) for module in network.modules()
        )
        self._modules, self.plan = _plan(network, layers)
        self._in_place = False  # whether passes must copy what they keep

    def settle(self, x, heads, n_heads):
        """Drop rules that do not apply to what the network does, and measure a sample's memory."""
        uses = self._capture(x, heads)
        for index, parts in enumerate(self.plan):
            self.plan[index] = [
                part if self._by_rule(part, uses, len(x)) else Part(None, self._full_names(part))
                for part in parts
            ]
        batch = self._factors(x, heads, uses)
        self._require_finite(batch)
        kept = [use for of_module in uses.values() for use in of_module]
        of_uses = sum(u.inputs.nbytes for u in kept), sum(u.gradients.nbytes for u in kept)
        # Bytes of a sample: what is there once, and what is there for each head.
        (self._of_factors, self._of_uses) = (
            (-(-once // len(x)), -(-each // (len(x) * n_heads)))
            for once, each in (batch.n_bytes, of_uses)
        )
        return batch

    def bytes_per_sample(self, n_heads):
        """Bytes of the factors of one sample."""
        once, each = self._of_factors
        return max(1, once + n_heads * each)

    def affordable_heads(self, n_samples):
        """Of how many heads the factors of so many samples may be held, possibly 0."""
        once, each = self._of_factors
        affordable = free_memory(self.device) // max(1, n_samples) - once
        return max(0, min(_PASS_HEADS, affordable // max(1, each)))

    def factors(self, X, heads, n_heads):
        """Factors of samples, a few at a time where their passes are large.

        Parameters
        ----------
        X : array or tensor of shape (n, ...)
        heads : callable
            (n, O) -> (n, H).
        n_heads : int
            H.

        Raises
        ------
        ValueError
            If a kernel value would not be finite; the message names the layer.
        """
        steps = slices(len(X), self._rows(n_heads))
        pieces = (self._factors(self.tensor(X[rows]), heads) for rows in steps)
        batch = Batch.joined(pieces, len(X))
        self._require_finite(batch)
        return batch

    def _capture(self, x, heads):
        """One forward pass and one backward pass per head, with copies where they are needed."""
        if self._channels_last and x.ndim == 4:
            try:
                return self._captured(x.clone(memory_format=torch.channels_last), heads)
            except RuntimeError:
                self._channels_last = False
        return self._captured(x, heads)

    def _captured(self, x, heads):
        if not self._in_place:
            try:
                return capture(self.network, x, self._modules, heads, copy=False)
            except InPlaceError:
                self._in_place = True
        return capture(self.network, x, self._modules, heads)

    def _factors(self, x, heads, uses=None):
        """Factors of samples by their rules, and the rest the generic way."""
        with full_precision():
            uses = self._capture(x, heads) if uses is None else uses
            made = {
                part: self._by_rule(part, uses, len(x)) for parts in self.plan for part in parts
            }
            for vectorise in (True, False):
                rest = [
                    p for p, factor in made.items() if factor is None and p.vectorise == vectorise
                ]
                names = [self._full_names(part) for part in rest]
                factors = generic_factors(self.network, x, names, heads, vectorise=vectorise)
                made.update(zip(rest, factors, strict=True))
        return Batch([[made[part] for part in parts] for parts in self.plan])

    def _by_rule(self, part, uses, n):
        """Factor of a part by its module's rule; None where that does not apply."""
        if part.module is None or not uses[part.module]:
            return None
        if any(len(use.inputs) != n or len(use.gradients) != n for use in uses[part.module]):
            return None  # the first axis is not the samples
        module = self._modules[part.module]
        return rule_for(module)(module, set(part.names), uses[part.module])

    def _full_names(self, part):
        prefix = f"{part.module}." if part.module else ""
        return tuple(prefix + name for name in part.names)

    def _rows(self, n_heads):
        memory = free_memory(self.device) // 2
        if self.device.type == "cpu":
            memory = min(memory, _PASS_BYTES)
        once, each = self._of_uses
        # What modules that are not watched keep, and gradients on their way, are as much again.
        work = 3 * (once + each) + (n_heads - 1) * each + 2 * self.bytes_per_sample(n_heads)
        return int(max(1, min(_PASS_ROWS, memory // work)))

    def _require_finite(self, batch):
        # |Theta(x, z)|^2 <= Theta(x, x) Theta(z, z): finite diagonals are enough.
        finite = batch.diagonals().isfinite().all(2).all(0).tolist()
        for layer, ok in zip(self.layers, finite, strict=True):
            if not ok:
                raise ValueError(
                    f"layer {layer.name!r} has kernel values that are NaN or infinite: the "
                    "network overflows on X; scale X or use dtype='float64'."
                )

    def tensor(self, X):
        """Samples as the network takes them."""
        x = X if isinstance(X, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(X))
        indices = self._looks_up and not x.is_floating_point()
        return x.to(device=self.device, dtype=torch.int64 if indices else self.dtype)


def _plan(network, layers):
    """Modules to watch, and for each layer its parts.

    Parameters that several modules share go the generic way, where their gradients add up by
    themselves.
    """
    modules = dict(network.named_modules())
    owners: dict[torch.Tensor, int] = {}
    for module in modules.values():
        for parameter in module.parameters(recurse=False):
            owners[parameter] = owners.get(parameter, 0) + 1
    by_name = dict(network.named_parameters())
    watched, plan = {}, []
    for layer in layers:
        by_rule: dict[str, list[str]] = {}
        by_hand = []
        for full_name in layer.parameters:
            module_name, _, name = full_name.rpartition(".")
            if rule_for(modules[module_name]) and owners[by_name[full_name]] == 1:
                by_rule.setdefault(module_name, []).append(name)
                watched[module_name] = modules[module_name]
            else:
                by_hand.append(full_name)
        parts = [Part(name, tuple(names)) for name, names in by_rule.items()]
        plan.append(parts + ([Part(None, tuple(by_hand))] if by_hand else []))
    return watched, plan
