"""Factored per-sample gradients, and Grams of them by matrix products.

A factor stands for the gradients of all outputs at n samples with respect to some parameters,
averaged over the outputs as inner products: ``gram(A, B)_ij = (1/O) sum_o <g_o(x_i), g_o(z_j)>``.
"""

import torch


class OuterFactor:
    """Gradients of an affine map used once per sample: ``g_o = G_o (x) [A, sqrt(bias)]``.

    The Gram is ``(A A'^T + bias) o mean_o(G_o G'_o^T)``, so no gradient is ever formed
    (DESIGN: cost n m (d + O h) instead of n m O d h).

    Parameters
    ----------
    inputs : torch.Tensor of shape (n, d) or None
        Inputs of the map, times the factor of its weight; None if the weight is frozen.
    gradients : torch.Tensor of shape (n, O * h)
        Gradients of the outputs at the map's own output, divided by ``sqrt(O)``.
    bias : float
        Squared factor of the bias in the map, 0 if there is none or it is frozen.
    """

    def __init__(self, inputs, gradients, bias):
        self.inputs = inputs
        self.gradients = gradients
        self.bias = bias

    def __len__(self):
        return len(self.gradients)

    def __getitem__(self, rows):
        inputs = None if self.inputs is None else self.inputs[rows]
        return OuterFactor(inputs, self.gradients[rows], self.bias)

    @classmethod
    def concatenate(cls, factors):
        """Join batches of samples."""
        first = factors[0]
        inputs = None if first.inputs is None else torch.cat([f.inputs for f in factors])
        return cls(inputs, torch.cat([f.gradients for f in factors]), first.bias)

    def gram(self, other, out):
        """Write the Gram with `other` into `out` of shape (n, m)."""
        torch.mm(self.gradients, other.gradients.T, out=out)
        if self.inputs is None:
            return out.mul_(self.bias)
        activations = torch.mm(self.inputs, other.inputs.T)
        if self.bias:
            activations.add_(self.bias)
        return out.mul_(activations)

    def diagonal(self):
        """Squared norms of the gradients, shape (n,)."""
        squared = self.gradients.square().sum(1)
        if self.inputs is None:
            return squared * self.bias
        return squared * (self.inputs.square().sum(1) + self.bias)


class DenseFactor:
    """Gradients written out, for parameters without a product structure.

    Parameters
    ----------
    jacobian : torch.Tensor of shape (n, O * P)
        Gradients of the O outputs for P parameters, divided by ``sqrt(O)``.
    """

    def __init__(self, jacobian):
        self.jacobian = jacobian

    def __len__(self):
        return len(self.jacobian)

    def __getitem__(self, rows):
        return DenseFactor(self.jacobian[rows])

    @classmethod
    def concatenate(cls, factors):
        """Join batches of samples."""
        return cls(torch.cat([f.jacobian for f in factors]))

    def gram(self, other, out):
        """Write the Gram with `other` into `out` of shape (n, m)."""
        return torch.mm(self.jacobian, other.jacobian.T, out=out)

    def diagonal(self):
        """Squared norms of the gradients, shape (n,)."""
        return self.jacobian.square().sum(1)
