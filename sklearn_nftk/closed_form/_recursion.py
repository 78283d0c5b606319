"""The recursion of the recurrent neural tangent kernel along one walk.

For the pre-activations ``g^l_t`` of layer l at step t of two sequences, with covariance ``S^l_t``
and dual activation ``(V, V')`` (`_dual`), in the variances of recurrent weights, input weights and
biases (Alemohammad et al., ICLR 2021)::

    S^l_t = recurrent * V^l_(t-1)  +  input * V^(l-1)_t  +  bias          states, forward in time
    T^l_t = V'^l_t * (S^l_t + recurrent * T^l_(t-1) + input * T^(l-1)_t)  tangents, forward too
    B^l_t = V'^l_t * (recurrent * B^l_(t+1) + input * B^(l+1)_t + read)   backward in time

with ``V^0_t = <x_t, z_t> / m`` and ``read`` 1 where the state is read out of the last layer. The
kernel of what is read is T: with S replaced by the part of it that a group of parameters made it
is the kernel of the group (`Recursion.by_parameters`, memory O(1) in time). It is also
``sum_t B^l_t * S^l_t`` over all layers, of which one step is the share of the parameters' use at
that step (`Recursion.by_steps`, memory O(T)).
"""

from typing import Any, NamedTuple

import torch


class Recursion(NamedTuple):
    """Variances of the network, and its dual activation."""

    depth: int
    dual: Any
    recurrent: float
    input: float
    bias: float

    def _visit(self, walk):
        """Yield for each step of a walk ``(recurrent, input, S, V, V')`` of every layer."""
        recurrent = [walk.start.clone() for _ in range(self.depth)]
        for step in walk.steps:
            below = walk.inner(step) * (self.input / walk.n_channels)
            layers = []
            for layer in range(self.depth):
                before = walk.take(recurrent[layer], step)
                S = before + below + self.bias
                V, slope = walk.dual(self.dual, S, step, layer)
                recurrent[layer] = walk.put(recurrent[layer], step, self.recurrent * V)
                layers.append((before, below, S, V, slope))
                below = self.input * V
            yield step, layers

    def by_parameters(self, walk, groups):
        """Kernels of groups of parameters, and that of the read-out.

        Parameters
        ----------
        walk : Walk
        groups : list of (layer, part)
            What the parameters made of the pre-activations of their layer: "sum" (all of it),
            "recurrent", "input" or "bias".

        Returns
        -------
        list of tensor
            In the shape of ``walk.start``, one for each group, the read-out last; without the
            variance of the read-out and the norm of the mean.
        """
        totals = [torch.zeros_like(walk.start) for _ in range(len(groups) + 1)]
        # The tangents of each group at the step before, in its own layer and all above.
        carried = [
            {layer: torch.zeros_like(walk.start) for layer in range(owner, self.depth)}
            for owner, _ in groups
        ]
        for step, layers in self._visit(walk):
            below: list[Any] = [None] * len(groups)
            for layer, (recurrent, inputs, S, _, slope) in enumerate(layers):
                for group, (owner, part) in enumerate(groups):
                    if owner > layer:
                        continue
                    tangent = walk.take(carried[group][layer], step)
                    if owner == layer:
                        own = {"sum": S, "recurrent": recurrent, "input": inputs}
                        tangent = tangent + own.get(part, self.bias)
                    if below[group] is not None:
                        tangent = tangent + self.input * below[group]
                    tangent = slope * tangent
                    below[group] = tangent
                    carried[group][layer] = walk.put(
                        carried[group][layer], step, self.recurrent * tangent
                    )
            if walk.is_read(step):
                for total, tangent in zip(totals, [*below, layers[-1][3]], strict=True):
                    walk.add(total, step, tangent)
        return totals

    def by_steps(self, walk, n_steps):
        """Kernels of the use of all parameters at each of `n_steps` steps, and of the read-out.

        The last step takes all that follow; returned as in `by_parameters`.
        """
        totals = [torch.zeros_like(walk.start) for _ in range(n_steps + 1)]
        visited = []
        for step, layers in self._visit(walk):
            visited.append((step, [(S, slope) for _, _, S, _, slope in layers]))
            if walk.is_read(step):
                walk.add(totals[-1], step, layers[-1][3])
        following = [torch.zeros_like(walk.start) for _ in range(self.depth)]
        for step, layers in reversed(visited):
            total = totals[min(step, n_steps - 1)]
            above = float(walk.is_read(step))
            for layer in range(self.depth - 1, -1, -1):
                S, slope = layers[layer]
                back = slope * (self.recurrent * walk.take(following[layer], step) + above)
                following[layer] = walk.put(following[layer], step, back)
                walk.add(total, step, back * S)
                above = self.input * back
        return totals
