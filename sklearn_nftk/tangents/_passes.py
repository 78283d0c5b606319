"""From samples to factors: passes, rules, autograd, and what they are compared with."""

import copy
from functools import partial
from queue import SimpleQueue
from threading import Lock

import numpy as np
import torch
from torch import nn

from ..utils._device import full_precision
from ..utils._memory import working_memory
from ..utils._threads import computed, n_workers
from ..utils._tiles import slices
from ._autograd import NotVectorisedError, autograd_factors
from ._batches import Factors
from ._capture import InPlaceError, NetworkError, capture
from ._check import disagreeing_layers, scale_of
from ._module import takes_one_way
from ._plan import Plan, PlanChangedError
from ._rules import rule_for

# Samples that are compared with autograd's own gradients: of a batch, and of each of its passes.
_CHECKED_OF_BATCH = 32
_CHECKED_OF_PASS = 8
# Samples of a pass below which threads do not pay.
_SHARED_ROWS = 128


class Passes:
    """Passes through a network, and the factors of its layers: call `begin`, then `factors`.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; used, never modified.
    layers : list of Layer
    device : torch.device
    dtype : torch.dtype
    sizes : Sizes
    n_jobs : int or None
        Passes at once.
    """

    def __init__(self, network, layers, device, dtype, sizes, n_jobs=None):
        self.network = network
        self.layers = layers
        self.device = device
        self.dtype = dtype
        self.sizes = sizes
        self.n_jobs = n_jobs
        self.plan = Plan(network, layers)
        self._output_scale = 0.0
        self._looks_up = any(
            isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in network.modules()
        )
        # The layout that convolutions and pools of the CPU are fastest in, as long as the network
        # takes it: one that calls ``view`` may not.
        self._channels_last = device.type == "cpu" and any(
            isinstance(module, nn.Conv2d) for module in network.modules()
        )
        self._in_place = False  # whether passes must copy what they keep
        self.takes_one_way = takes_one_way(network)
        self._n_passes = 0

    def begin(self, x, positions, heads, n_heads):
        """Find a plan that agrees with autograd on a few samples, and measure a sample's memory.

        Parameters
        ----------
        x : torch.Tensor of shape (k, ...)
        positions : list of k int
            Of the samples in X.
        heads : callable
            (n, O) -> (n, H).
        n_heads : int
            H.
        """
        weights = torch.ones(n_heads, dtype=self.dtype, device=self.device)
        while True:
            try:
                f, uses = self._capture(x, heads)
                factors = self._factors(x, heads, uses)
                self._require_finite(factors)
                self._output_scale = scale_of(f)
                self._compare(x, f, factors, heads, weights, positions)
                break
            except PlanChangedError:
                pass
        self.sizes.measure(len(x), n_heads, factors, [u for some in uses.values() for u in some])

    def factors(self, X, heads, weights):
        """Factors of samples, a few at a time where their passes are large.

        Parameters
        ----------
        X : array of shape (n, ...)
        heads : callable
            (n, O) -> (n, H).
        weights : torch.Tensor of shape (H,)
            Those of the combined head that is compared with autograd.

        Raises
        ------
        ValueError
            If a kernel value would not be finite, or cannot be computed exactly (the message names
            the layer), or if the network mixes samples.
        """
        at_once = self._passes_at_once() if len(X) > _SHARED_ROWS else 1
        size = min(self.sizes.pass_rows(len(weights)), max(_SHARED_ROWS, -(-len(X) // at_once)))
        steps = slices(len(X), size)
        while True:
            try:
                factors = self._joined(X, steps, heads, weights, at_once)
                break
            except PlanChangedError:
                pass  # at most two times for each part
        self._require_finite(factors)
        return factors

    def outputs(self, X):
        """Outputs of the network alone, a tensor of shape (n, O) on the CPU."""
        steps = slices(len(X), self.sizes.pass_rows(1))
        with torch.no_grad(), full_precision():
            return torch.cat([self.network(self.tensor(X[rows])).cpu() for rows in steps])

    def _piece(self, X, rows, heads, weights):
        """Factors of the samples of one pass, some of them compared with autograd."""
        x = self.tensor(X[rows])
        f, uses = self._capture(x, heads)
        factors = self._factors(x, heads, uses)
        if not self.takes_one_way:
            some = self._some_rows(len(x), len(X))
            positions = [rows.start + row for row in some]
            self._output_scale = max(self._output_scale, scale_of(f))
            self._compare(x[some], f[some], factors[some], heads, weights, positions)
        return factors

    def _passes_at_once(self):
        """Several for networks that treat all data alike and whose copies are small."""
        if self.device.type != "cpu" or not self.takes_one_way:
            return 1
        n_bytes = sum(p.nbytes for p in (*self.network.parameters(), *self.network.buffers()))
        return min(n_workers(self.n_jobs), 1 + working_memory() // max(1, n_bytes))

    def _joined(self, X, steps, heads, weights, at_once):
        """Factors of all passes; each thread has a network of its own to watch."""
        if len(steps) == 1:
            return self._piece(X, steps[0], heads, weights)
        spare: SimpleQueue = SimpleQueue()
        for passes in (self, *(self._twin() for _ in range(at_once - 1))):
            spare.put(passes)
        room: list[Factors] = []
        lock = Lock()

        def put(rows):
            passes = spare.get()
            try:
                piece = passes._piece(X, rows, heads, weights)
            finally:
                spare.put(passes)
            with lock:
                if not room:
                    room.append(piece.empty(len(X)))
            # Memory is touched for the first time here, which takes as long as a product.
            room[0].put(rows, piece)

        if at_once == 1:
            for rows in steps:
                put(rows)
        else:
            for _ in computed(put, ((rows,) for rows in steps), at_once, shared=True):
                pass
        return room[0]

    def _twin(self):
        """Passes of a copy of the network, by the same plan."""
        twin = copy.copy(self)
        twin.network = copy.deepcopy(self.network)
        twin.plan = Plan(twin.network, self.layers)
        twin.plan.restore(self.plan.state())
        return twin

    def _some_rows(self, n, n_batch):
        """Rows spread over a pass of n samples, others in each pass."""
        self._n_passes += 1
        k = min(n, max(_CHECKED_OF_PASS, _CHECKED_OF_BATCH * n // n_batch))
        offset = self._n_passes * 0.618 % 1
        return [int((row + offset) * n / k) for row in range(k)]

    def _compare(self, x, f, factors, heads, weights, positions):
        """Change the plan where kernels differ from autograd's."""
        wrong = disagreeing_layers(
            self.network,
            self.layers,
            x,
            lambda f: heads(f) @ weights,
            factors.combined(weights),
            f,
            positions=positions,
            scale=self._output_scale,
            one_way=self.takes_one_way,
        )
        if wrong:
            self.plan.demote(wrong)

    def _capture(self, x, heads):
        """One forward pass and one backward pass per head, with copies where they are needed."""
        if self._channels_last and x.ndim == 4:
            try:
                return self._captured(x.clone(memory_format=torch.channels_last), heads)
            except (NetworkError, RuntimeError):
                self._channels_last = False
        return self._captured(x, heads)

    def _captured(self, x, heads):
        watching = partial(
            capture, self.network, x, self.plan.watched, heads,
            look_outside=not self.takes_one_way,
        )  # fmt: skip
        if not self._in_place:
            try:
                return watching(copy=False)
            except InPlaceError:
                self._in_place = True
        return watching(copy=True)

    def _factors(self, x, heads, uses):
        """Factors of samples by their rules, and the rest by autograd."""
        with full_precision():
            made = {
                part: self._by_rule(part, uses[part.module], len(x))
                for parts in self.plan.parts
                for part in parts
                if part.module is not None
            }
            self.plan.require_layouts(made)
            self._by_autograd(x, heads, made)
        return Factors([[made[p] for p in parts] for parts in self.plan.parts], self.plan.version)

    def _by_rule(self, part, uses, n):
        """Factor of a part by its module's rule; None where that does not apply."""
        of_samples = (t.ndim and len(t) == n for use in uses for t in use)
        if not uses or not all(of_samples):
            return None  # the first axis is not the samples
        module = self.plan.watched[part.module]
        with torch.no_grad():
            return rule_for(module)(module, set(part.names), uses)

    def _by_autograd(self, x, heads, made):
        """Add the factors of the other parts."""
        for vectorise in (True, False):
            rest = [
                part
                for parts in self.plan.parts
                for part in parts
                if part.module is None and part not in made and part.vectorise == vectorise
            ]
            if not rest:
                continue
            groups = [part.names for part in rest]
            try:
                of_rest = autograd_factors(self.network, x, groups, heads, vectorise=vectorise)
            except NotVectorisedError:
                self.plan.loop(rest)
                continue
            made.update(zip(rest, of_rest, strict=True))

    def _require_finite(self, factors):
        # |Theta(x, z)|^2 <= Theta(x, x) Theta(z, z): finite diagonals are enough.
        finite = factors.diagonals().isfinite().all(2).all(0).tolist()
        for layer, ok in zip(self.layers, finite, strict=True):
            if not ok:
                raise ValueError(
                    f"layer {layer.name!r} has kernel values that are NaN or infinite: the "
                    "network overflows on X; scale X or use dtype='float64'."
                )

    def tensor(self, X):
        """Samples as the network takes them."""
        # torch warns of arrays that it could write to and must not.
        x = torch.from_numpy(np.require(X, requirements=["C", "W"]))
        indices = self._looks_up and not x.is_floating_point()
        return x.to(device=self.device, dtype=torch.int64 if indices else self.dtype)

    def state(self):
        """Plan, sizes and scale of the outputs, in builtin types."""
        return {
            "plan": self.plan.state(),
            "sizes": [list(self.sizes.of_factors), list(self.sizes.of_uses)],
            "output_scale": self._output_scale,
        }

    def restore(self, state):
        """Take over what `state` returned."""
        self.plan.restore(state["plan"])
        self.sizes.of_factors, self.sizes.of_uses = map(tuple, state["sizes"])
        self._output_scale = state["output_scale"]
