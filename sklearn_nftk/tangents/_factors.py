"""Factored per-sample gradients, and Grams of them by matrix products.

A factor stands for the gradients of H heads (outputs, or one combination of them) at n samples
with respect to some parameters: ``gram(A, B)_ij = sum_h <g_h(x_i), g_h(z_j)>``. Where a mean over
outputs is meant, the heads are outputs divided by ``sqrt(H)``.
"""

import torch


class Factor:
    """What every kind of factor shares: tensors whose first axis is the samples.

    Subclasses name these tensors in ``fields`` and keep what is equal for all samples elsewhere.
    """

    fields: tuple[str, ...] = ()

    def __len__(self):
        return len(getattr(self, self.fields[0]))

    def _with(self, **tensors):
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.__dict__.update(tensors)
        return copy

    def __getitem__(self, rows):
        return self._with(**{name: getattr(self, name)[rows] for name in self.fields})

    @classmethod
    def concatenate(cls, factors):
        """Join batches of samples."""
        joined = {
            name: torch.cat([getattr(factor, name) for factor in factors]) for name in cls.fields
        }
        return factors[0]._with(**joined)

    @property
    def n_bytes(self):
        """Bytes of all samples together."""
        return sum(getattr(self, name).nbytes for name in self.fields)

    def gram(self, other, out):
        """Write the Gram with `other` into `out` of shape (n, m)."""
        raise TypeError(f"{type(self).__name__} does not define gram")

    def diagonal(self):
        """Squared norms of the gradients, shape (n,)."""
        raise TypeError(f"{type(self).__name__} does not define diagonal")


class OuterFactor(Factor):
    """Gradients of an affine map used once per sample: ``g = G (x) [A, sqrt(bias)]``.

    The Gram is ``(A A'^T + bias) o (G G'^T)``, so no gradient is ever formed: n m (d + H h)
    products instead of n m H d h.

    Parameters
    ----------
    inputs : torch.Tensor of shape (n, d)
        Inputs of the map, times the factor of its weight; d = 0 if the weight is frozen.
    gradients : torch.Tensor of shape (n, H * h)
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
        """Write the Gram with `other` into `out` of shape (n, m)."""
        torch.mm(self.gradients, other.gradients.T, out=out)
        if not self.inputs.shape[1]:
            return out.mul_(self.bias)
        activations = torch.mm(self.inputs, other.inputs.T)
        if self.bias:
            activations.add_(self.bias)
        return out.mul_(activations)

    def diagonal(self):
        """Squared norms of the gradients, shape (n,)."""
        return self.gradients.square().sum(1) * (self.inputs.square().sum(1) + self.bias)


class DenseFactor(Factor):
    """Gradients written out, for parameters without a cheaper structure.

    Parameters
    ----------
    jacobian : torch.Tensor of shape (n, H * P)
        Gradients of the H heads for P parameters.
    """

    fields = ("jacobian",)

    def __init__(self, jacobian):
        self.jacobian = jacobian

    def gram(self, other, out):
        """Write the Gram with `other` into `out` of shape (n, m)."""
        return torch.mm(self.jacobian, other.jacobian.T, out=out)

    def diagonal(self):
        """Squared norms of the gradients, shape (n,)."""
        return self.jacobian.square().sum(1)


class PositionFactor(Factor):
    """Gradients of a map applied at T positions: ``g_h = sum_t G_ht (x) A_t``.

    The Gram is ``sum_tu S(A_t, A'_u) (G_t G'_u^T)``: T^2 (d + H h) products a pair, less than the
    H d h of written-out gradients where positions are few and layers wide.

    Parameters
    ----------
    inputs : torch.Tensor of shape (n, T, d), or of integers, shape (n, T)
        Inputs at each position, times the factor of the weight. Integers are rows of a table:
        the similarity S of two positions is then whether they look up the same row.
    gradients : torch.Tensor of shape (n, T, H * h)
    bias : float
        Squared factor of the bias, added to every S.
    """

    fields = ("inputs", "gradients")

    def __init__(self, inputs, gradients, bias=0.0):
        self.inputs = inputs
        self.gradients = gradients
        self.bias = bias

    def gram(self, other, out):
        """Write the Gram with `other` into `out` of shape (n, m)."""
        # Rows in slices, so that the n T x m T products stay the size of a few tiles.
        positions = self.gradients.shape[1] * other.gradients.shape[1]
        step = max(1, 4 * len(self) // positions)
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            out[rows] = self._pairs(self[rows], other)
        return out

    def _pairs(self, rows, other):
        shape = (len(rows), rows.gradients.shape[1], len(other), other.gradients.shape[1])
        products = rows.gradients.flatten(0, 1) @ other.gradients.flatten(0, 1).T
        products *= self._similarity(rows.inputs.flatten(0, 1), other.inputs.flatten(0, 1))
        return products.view(shape).sum(dim=(1, 3))

    def _similarity(self, inputs, others):
        if inputs.ndim == 1:
            return inputs[:, None] == others
        return inputs @ others.T + self.bias

    def diagonal(self):
        """Squared norms of the gradients, shape (n,)."""
        if self.inputs.ndim == 2:
            similarity = self.inputs[:, :, None] == self.inputs[:, None, :]
        else:
            similarity = self.inputs @ self.inputs.mT + self.bias
        return (similarity * (self.gradients @ self.gradients.mT)).sum(dim=(1, 2))
