"""Factored per-sample gradients, and Grams of them by matrix products.

A factor stands for the gradients of H heads (outputs, or one combination of them) at n samples
with respect to some parameters: ``gram(A, B)_ij = sum_h <g_h(x_i), g_h(z_j)>``, or one Gram for
each head (``gram_per_head``). Where a mean over outputs is meant, the heads are outputs divided by
``sqrt(H)``.
"""

import torch

from ..utils._device import empty


class Factor:
    """Base of all factors: tensors whose first axis is the samples.

    Subclasses name these tensors in ``fields`` and keep what is equal for all samples elsewhere.
    The last field holds all heads, the others what the heads share.
    """

    fields: tuple[str, ...] = ()
    heads_axis = 1  # of the last field

    def __len__(self):
        return len(getattr(self, self.fields[0]))

    def _with(self, **tensors):
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.__dict__.update(tensors)
        return copy

    def __getitem__(self, rows):
        return self._with(**{name: getattr(self, name)[rows] for name in self.fields})

    def empty(self, n):
        """Make room for `n` samples of the same kind."""
        tensors = {name: getattr(self, name) for name in self.fields}
        return self._with(
            **{name: empty((n, *t.shape[1:]), t.dtype, t.device) for name, t in tensors.items()}
        )

    def copy_(self, other):
        """Copy the samples of another factor of the same kind into the room of this one."""
        for name in self.fields:
            getattr(self, name).copy_(getattr(other, name))

    @property
    def n_heads(self):
        """H."""
        return getattr(self, self.fields[-1]).shape[self.heads_axis]

    def combined(self, weights):
        """Gradients of one head, a combination of all with `weights` of shape (H,)."""
        name, axis = self.fields[-1], self.heads_axis
        gradients = getattr(self, name).movedim(axis, -1) @ weights
        return self._with(**{name: gradients.unsqueeze(axis)})

    def gradient_like(self, shape):
        """Make room for numbers of the type and on the device of the gradients."""
        gradients = getattr(self, self.fields[-1])
        return empty(shape, gradients.dtype, gradients.device)

    @property
    def layout(self):
        """Kind, constant and shapes that factors with a Gram share, in builtin types."""
        of_fields = [list(getattr(self, name).shape[1:]) for name in self.fields]
        del of_fields[-1][self.heads_axis - 1]
        return (type(self).__name__, float(getattr(self, "bias", 0.0)), *map(tuple, of_fields))

    @property
    def n_bytes(self):
        """Bytes of what is there once, and of what is there for each head, all heads together."""
        n_bytes = [getattr(self, name).nbytes for name in self.fields]
        return sum(n_bytes[:-1]), n_bytes[-1]

    def gram(self, other, out):
        """Write the Gram with `other`, summed over the heads, into `out` of shape (n, m)."""
        raise TypeError(f"{type(self).__name__} does not define gram")

    def gram_per_head(self, other, out):
        """Write the Gram of each head with `other` into `out` of shape (H, n, m)."""
        raise TypeError(f"{type(self).__name__} does not define gram_per_head")

    def diagonal(self):
        """Squared norms of the gradients of each head, shape (n, H)."""
        raise TypeError(f"{type(self).__name__} does not define diagonal")


class OuterFactor(Factor):
    """Gradients of an affine map used once per sample: ``g = G (x) [A, sqrt(bias)]``.

    The Gram is ``(A A'^T + bias) o (G G'^T)``, so no gradient is ever formed: n m (d + H h)
    products instead of n m H d h.

    Parameters
    ----------
    inputs : torch.Tensor of shape (n, d)
        Inputs of the map, times the factor of its weight; d = 0 if the weight is frozen.
    gradients : torch.Tensor of shape (n, H, h)
        Gradients of the heads at the map's own output.
    bias : float
        Squared factor of the bias in the map, 0 if there is none or it is frozen.
    """

    fields = ("inputs", "gradients")

    def __init__(self, inputs, gradients, bias):
        self.inputs = inputs
        self.gradients = gradients
        self.bias = bias

    def gram(self, other, out):
        """Write the Gram with `other`, summed over the heads, into `out` of shape (n, m)."""
        torch.mm(self.gradients.flatten(1), other.gradients.flatten(1).T, out=out)
        return self._times_inputs(other, out)

    def gram_per_head(self, other, out):
        """Write the Gram of each head with `other` into `out` of shape (H, n, m)."""
        _products_per_head(self.gradients, other.gradients, out)
        return self._times_inputs(other, out)

    def _times_inputs(self, other, out):
        if not self.inputs.shape[1]:
            return out.mul_(self.bias)
        activations = torch.mm(self.inputs, other.inputs.T)
        if self.bias:
            activations.add_(self.bias)
        return out.mul_(activations)

    def diagonal(self):
        """Squared norms of the gradients of each head, shape (n, H)."""
        return _squared_norm(self.gradients) * (_squared_norm(self.inputs) + self.bias)[:, None]


class DenseFactor(Factor):
    """Gradients written out, for parameters without a cheaper structure.

    Parameters
    ----------
    jacobian : torch.Tensor of shape (n, H, ...)
        Gradients of the H heads for parameters of any shape.
    """

    fields = ("jacobian",)

    def __init__(self, jacobian):
        if jacobian.ndim < 3:
            raise ValueError(
                "DenseFactor takes gradients of shape (n_samples, n_heads, ...), got shape "
                f"{tuple(jacobian.shape)}."
            )
        self.jacobian = jacobian.flatten(2)

    def gram(self, other, out):
        """Write the Gram with `other`, summed over the heads, into `out` of shape (n, m)."""
        return torch.mm(self.jacobian.flatten(1), other.jacobian.flatten(1).T, out=out)

    def gram_per_head(self, other, out):
        """Write the Gram of each head with `other` into `out` of shape (H, n, m)."""
        return _products_per_head(self.jacobian, other.jacobian, out)

    def diagonal(self):
        """Squared norms of the gradients of each head, shape (n, H)."""
        return _squared_norm(self.jacobian)


class PositionFactor(Factor):
    """Gradients of a map applied at T positions: ``g_h = sum_t G_ht (x) A_t``.

    The Gram is ``sum_tu S(A_t, A'_u) (G_t G'_u^T)``: T^2 (d + H h) products a pair, less than the
    H d h of written-out gradients where positions are few and layers wide.

    Parameters
    ----------
    inputs : torch.Tensor of shape (n, T, d), or of integers, shape (n, T)
        Inputs at each position, times the factor of the weight. Integers are rows of a table:
        the similarity S of two positions is then whether they look up the same row.
    gradients : torch.Tensor of shape (n, T, H, h)
    bias : float
        Squared factor of the bias, added to every S.
    """

    fields = ("inputs", "gradients")
    heads_axis = 2

    def __init__(self, inputs, gradients, bias=0.0):
        self.inputs = inputs
        self.gradients = gradients
        self.bias = bias

    def gram(self, other, out):
        """Write the Gram with `other`, summed over the heads, into `out` of shape (n, m)."""
        mine, others = self.gradients.flatten(2), other.gradients.flatten(2)
        # Rows in slices, so that the n T x m T products stay the size of a few tiles.
        positions = mine.shape[1] * others.shape[1]
        step = max(1, 4 * len(self) // positions)
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            pairs = (len(mine[rows]), mine.shape[1], len(others), others.shape[1])
            products = mine[rows].flatten(0, 1) @ others.flatten(0, 1).T
            products *= self._similarity(
                self.inputs[rows].flatten(0, 1), other.inputs.flatten(0, 1)
            )
            out[rows] = products.view(pairs).sum(dim=(1, 3))
        return out

    def gram_per_head(self, other, out):
        """Write the Gram of each head with `other` into `out` of shape (H, n, m)."""
        for head, plane in enumerate(out):
            mine = self._with(gradients=self.gradients[:, :, head : head + 1])
            mine.gram(other._with(gradients=other.gradients[:, :, head : head + 1]), plane)
        return out

    def _similarity(self, inputs, others):
        if inputs.ndim == 1:
            return inputs[:, None] == others
        return inputs @ others.T + self.bias

    def diagonal(self):
        """Squared norms of the gradients of each head, shape (n, H)."""
        if self.inputs.ndim == 2:
            similarity = self.inputs[:, :, None] == self.inputs[:, None, :]
        else:
            similarity = self.inputs @ self.inputs.mT + self.bias
        gradients = self.gradients.transpose(1, 2)  # (n, H, T, h)
        return (similarity[:, None] * (gradients @ gradients.mT)).sum(dim=(2, 3))


def _products_per_head(mine, others, out):
    """``out_h = mine_h others_h^T`` for (n, H, k) and (m, H, k)."""
    for head, plane in enumerate(out):
        torch.mm(mine[:, head], others[:, head].T, out=plane)
    return out


def _squared_norm(tensor):
    """Of the last axis, without a temporary array of the squares."""
    return torch.linalg.vector_norm(tensor, dim=-1).square()
