"""The first-order expansion of a network in its parameters, as a torch module."""

import warnings

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..networks._drawing import private_copy
from ..utils._threads import SharedChange
from ._models import passes

# Its first use loads parts of torch that warn of what torch itself has deprecated: once, here,
# and not in the user's fit, where warnings may be errors.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    jvp(torch.sin, (torch.zeros(1),), (torch.zeros(1),))


class Linearization(nn.Module):
    """``f(x; w_0) + J(x) delta``: a network at w_0, and the linear model of its tangents there.

    Its parameters are the steps ``delta``, 0 at first, one for each trainable parameter of the
    network. The network itself is in evaluation mode, and fixed.

    Parameters
    ----------
    network : torch.nn.Module
        Of which a copy is made.
    """

    def __init__(self, network):
        super().__init__()
        network = private_copy(network)
        trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.names = list(trainable)
        self.steps = nn.ParameterList(torch.zeros_like(p) for p in trainable.values())
        self.network = network.requires_grad_(False)
        # Forward derivatives move the rows of embeddings that gradients leave where they are.
        padded = any(getattr(part, "padding_idx", None) is not None for part in network.modules())
        self.ways = [_reverse] if padded else [_forward, _reverse]

    def train(self, mode=True):
        """Leave the network in evaluation mode: others have no tangents of single samples."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, x):
        """Outputs (n, O) of the expansion."""
        parameters = dict(self.network.named_parameters())
        at = {name: parameters[name].detach() for name in self.names}
        steps = dict(zip(self.names, self.steps, strict=True))

        def outputs(parameters):
            return functional_call(self.network, parameters, (x,))

        with _unfused, sdpa_kernel(SDPBackend.MATH):
            for way in self.ways:
                try:
                    value, change = way(outputs, at, steps)
                except NotImplementedError as error:  # by torch, for some operation
                    missing = error
                else:
                    return value + change
        raise ValueError(
            "network: torch does not know its derivative along parameters; use solver='closed' "
            f"with kernel='trace'. {missing}"
        ) from missing

    def step_along(self, X, dual_coef):
        """Set the steps to ``sum_io a_io d f_o(x_i) / d w``.

        Parameters
        ----------
        X : ndarray of shape (n, ...)
        dual_coef : ndarray of shape (n, O)
        """
        parameters = dict(self.network.named_parameters())
        moving = {name: parameters[name].detach().requires_grad_() for name in self.names}
        start = 0
        for x in passes(self.network, X):
            with torch.enable_grad():
                outputs = functional_call(self.network, moving, (x,))
                a = torch.as_tensor(dual_coef[start : start + len(x)]).to(outputs)
                gradients = torch.autograd.grad(
                    (outputs * a).sum(), list(moving.values()), materialize_grads=True
                )
            start += len(x)
            with torch.no_grad():
                for step, gradient in zip(self.steps, gradients, strict=True):
                    step += gradient


def _unfuse_transformers():
    """Turn off the path of whole encoder layers, which has no derivatives at all."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    return lambda: torch.backends.mha.set_fastpath_enabled(before)


_unfused = SharedChange(_unfuse_transformers)


def _forward(function, at, steps):
    """Value of a function of parameters, and its derivative along steps."""
    both = jvp(function, (at,), (steps,))
    return both[0], both[1]


def _reverse(function, at, steps):
    """The same by reverse derivatives alone: ``u -> J' u`` is linear, and its transpose is J."""
    of_outputs = vjp(function, at)
    value, pulled_back = of_outputs[0], of_outputs[1]
    twice = vjp(lambda u: pulled_back(u)[0], torch.zeros_like(value))
    return value, twice[1](steps)[0]


class OneOutput(nn.Module):
    """A network whose samples say which of its outputs is asked for.

    The tangent kernel of samples ``(x, o)`` is that of pairs of a sample and an output: the full
    block kernel ``<d f_o(x) / d w, d f_p(z) / d w>``.

    Parameters
    ----------
    network : torch.nn.Module
    shape : tuple of int
        Of a sample of the network.
    """

    def __init__(self, network, shape):
        super().__init__()
        self.network = network
        self.shape = shape

    def forward(self, x):
        """Outputs (n, 1) for samples (n, d + 1), the last feature of which is an output."""
        outputs = self.network(x[:, :-1].reshape(len(x), *self.shape))
        return outputs.gather(1, x[:, -1:].long())

    @staticmethod
    def pairs(X, n_outputs):
        """All pairs of a sample and an output, (n * n_outputs, d + 1), samples first."""
        rows = np.repeat(X.reshape(len(X), -1), n_outputs, axis=0)
        return np.column_stack([rows, np.tile(np.arange(n_outputs), len(X))]).astype(X.dtype)
