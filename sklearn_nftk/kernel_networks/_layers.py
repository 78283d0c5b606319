"""Layers that are trained one after the other: kernel machines, and modules of a feature network.

A trained layer is a fixed basis and a head: of kernel machines, kernels with the centers and a
linear map of them.
"""

import copy

import torch
from torch import nn

from ..utils._tiles import slices
from ._gaussian import gaussian, machines, rows_at_once

# Samples that pass a module of features at once.
_MODULE_ROWS = 1024


def as_tensor(array, like):
    """Array as a tensor of the precision and on the device of another."""
    writeable = array if array.flags.writeable else array.copy()  # or torch warns
    return torch.from_numpy(writeable).to(like)


class KernelLayer:
    """Kernel machines ``F(u) = W k(C, u) + b`` with the Gaussian kernel.

    Parameters
    ----------
    centers : ndarray of shape (p, d)
        Images of the centers under the layers below.
    sigma : float
        Width of the kernel.

    Attributes
    ----------
    weight : ndarray of shape (h, p)
    bias : ndarray of shape (h,)
    initial_weight, initial_bias : ndarray
        The same before they were trained.
    """

    def __init__(self, centers, sigma):
        self.centers = centers
        self.sigma = sigma

    def __call__(self, u, *, initial=False):
        """Outputs (n, h) for inputs (n, d), or those that the layer had before its training."""
        weight, bias = (
            (self.initial_weight, self.initial_bias) if initial else (self.weight, self.bias)
        )
        C, W, b = (as_tensor(array, u) for array in (self.centers, weight, bias))
        return machines(u, C, self.sigma, W, b)

    def drawn(self, width, dtype):
        """Random head with outputs of about unit variance, from torch's global generator."""
        head = self.zeros(width, dtype)
        with torch.no_grad():
            head.weight.normal_(0, len(self.centers) ** -0.5)
        return head

    def zeros(self, width, dtype):
        """Head of an output layer, whose problem is convex."""
        head = nn.Linear(len(self.centers), width, dtype=dtype)
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
        return head

    def fits(self, other, width):
        """Whether the head of another layer can be gone on from, with so many machines."""
        shape = (width, len(self.centers))
        return isinstance(other, KernelLayer) and other.weight.shape == shape

    def again(self, other, dtype):
        """Head of another layer, to go on from."""
        head = self.zeros(len(other.weight), dtype)
        with torch.no_grad():
            head.weight.copy_(torch.tensor(other.weight))
            head.bias.copy_(torch.tensor(other.bias))
        return head

    def begin(self, head):
        """Take over a head that is not trained yet."""
        self.take(head)
        self.initial_weight, self.initial_bias = self.weight, self.bias

    def take(self, head):
        """Take over a head."""
        self.weight, self.bias = (
            parameter.detach().cpu().numpy().copy() for parameter in (head.weight, head.bias)
        )

    def basis(self, u):
        """Kernels (n, p) of inputs with the centers."""
        return gaussian(u, as_tensor(self.centers, u), self.sigma)

    @property
    def width_of_basis(self):
        """Numbers that the basis has for each input."""
        return len(self.centers)

    def kernel_product(self, like):
        """Map from weights W to ``W k(C, C)``; large kernels are made again some rows at a time.

        Parameters
        ----------
        like : tensor
            Whose device and precision are used.
        """
        C = as_tensor(self.centers, like)
        size = rows_at_once(len(C), C)
        if len(C) <= size:
            K = gaussian(C, C, self.sigma)
            return lambda W: W @ K
        return lambda W: torch.cat(
            [W @ gaussian(C, C[some], self.sigma) for some in slices(len(C), size)], dim=1
        )


class ModuleLayer:
    """A module of a feature network: a layer without a kernel of its own.

    Parameters
    ----------
    module : torch.nn.Module
        Belongs to the layer.
    sigma : float, default=None
        Width of the kernel on its inputs, by which the layer below is judged.
    """

    width_of_basis = 0  # nothing is made of the inputs

    def __init__(self, module, sigma=None):
        self.module = module
        self.sigma = sigma

    def __call__(self, u, *, initial=False):
        """Outputs for inputs (n, ...)."""
        module = copy.deepcopy(self.initial if initial else self.module).to(u.device)
        with torch.no_grad():
            return torch.cat(
                [module(u[some]) for some in slices(len(u), _MODULE_ROWS) or [slice(0, 0)]]
            )

    def fits(self, other, module):
        """Whether the module of another layer can be gone on from."""
        return isinstance(other, ModuleLayer)

    def again(self, other, dtype):
        """Module of another layer, to go on from."""
        return copy.deepcopy(other.module).to(dtype)

    def begin(self, head):
        """Take over a module that is not trained yet."""
        self.take(head)
        self.initial = self.module

    def take(self, head):
        """Take over a module."""
        self.module = copy.deepcopy(head).cpu().eval()

    def basis(self, u):
        """Inputs as they are."""
        return u
