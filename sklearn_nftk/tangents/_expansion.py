"""Kernel expansions of a network as products with few vectors, and their gradients in x."""

from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..utils._device import full_precision
from ..utils._memory import require_memory
from ..utils._tiles import slices, with_smaller_tiles
from ._autograd import gradients
from ._capture import graph, named_errors, outputs_of

# A second backward pass keeps about so many times what the first one does.
_SECOND_PASS = 4
# Node of what `once_differentiable` returns, which leads nowhere.
_ONCE = "torch::autograd::Error"


class TangentExpansion:
    """``phi_cl(x) = sum_i A_cli Theta_l(x, x_i)``, linear in the gradient of the network at x.

    With ``V_clh = sum_i A_cli d f_h(x_i)/d theta_l``, one vector for each decision, layer and
    head, ``phi_cl(x) = sum_h <d f_h(x)/d theta_l, V_clh>``. The vectors come from backward passes
    over the training rows, which are not needed again; sums over a batch of samples come from one
    backward pass per head, and their gradients in x from a second one, through the first.

    Parameters
    ----------
    passes : Passes
    passing : callable
        Context in which the network may be used.
    heads : callable
        (n, O) -> (n, H).
    X : array of shape (n, ...)
    dual_coef : ndarray of shape (n_decisions, 1 or L, n)
    coefficients : ndarray of shape (n_decisions, L)
        ``A_cli`` is their product.
    per_output : bool
        Whether each decision has the kernels of its own head.
    normed : bool
        Whether each sample's gradients are divided by their norms, see `KernelSource.expansion`.

    Raises
    ------
    ValueError
        If the network looks its inputs up in an embedding, or cannot be differentiated twice.
    """

    def __init__(
        self, passes, passing, heads, X, dual_coef, coefficients, *, per_output, normed=False
    ):
        self.passes, self.passing, self.heads = passes, passing, heads
        self.per_output, self.normed = per_output, normed
        by_name = dict(passes.network.named_parameters())
        self.layers = [[by_name[name] for name in layer.parameters] for layer in passes.layers]
        self.parameters = [parameter for layer in self.layers for parameter in layer]
        with self._prepared():
            self.directions = self._directions(X, dual_coef, coefficients)

    def gradients(self, X, *, per_layer=False):
        """Gradients with respect to samples, shape (n, n_decisions, L or 1, *features)."""
        # Norms are those of one sample at a time.
        size = 1 if self.normed else self.passes.sizes.pass_rows(_SECOND_PASS * self.n_heads)
        with self._prepared():
            return with_smaller_tiles(lambda size: self._gradients(X, size, per_layer), size)

    @contextmanager
    def _prepared(self):
        # Fused attention has no second derivative.
        with self.passing(), full_precision(), sdpa_kernel(SDPBackend.MATH):
            yield

    # -- one vector for each decision, layer and head ---------------------------------------------

    def _directions(self, X, dual_coef, coefficients):
        """Lists of tensors like the parameters, ``[c][h]`` with h the heads of the decision."""
        n_decisions, n_groups, _ = dual_coef.shape
        groups = self.layers if n_groups > 1 else [self.parameters]
        self.n_heads = self._checked_heads(self._input(X[:1]))
        n_bytes = sum(parameter.nbytes for parameter in self.parameters)
        n_vectors = n_decisions * len(self._heads_of(0))
        require_memory(n_vectors * n_bytes, f"{n_vectors} directions in parameter space")
        directions = [
            [[torch.zeros_like(p) for p in self.parameters] for _ in self._heads_of(c)]
            for c in range(n_decisions)
        ]
        for rows in slices(len(X), self.passes.sizes.pass_rows(self.n_heads)):
            x = self._input(X[rows])
            f = self.heads(outputs_of(self.passes.network, x))
            a = torch.as_tensor(dual_coef[:, :, rows], dtype=f.dtype, device=f.device)
            with named_errors("be differentiated on", x):
                for c, of_decision in enumerate(directions):
                    for h, direction in zip(self._heads_of(c), of_decision, strict=True):
                        sums = [
                            gradients(w @ f[:, h], p) for w, p in zip(a[c], groups, strict=True)
                        ]
                        for total, gradient in zip(direction, chain(*sums), strict=True):
                            total += gradient
        for of_decision, of_layers in zip(directions, coefficients.tolist(), strict=True):
            for direction in of_decision:
                for part, w in zip(self._by_layer(direction), of_layers, strict=True):
                    for total in part:
                        total *= w
        return directions

    def _checked_heads(self, x):
        """Count the heads, and look for functions that autograd takes for constants in x."""
        f = self.heads(outputs_of(self.passes.network, x))
        with named_errors("be differentiated on", x):
            tangents = [gradient for layer in self._tangent(f[:, 0]) for gradient in layer]
        sums = sum(gradient.sum() for gradient in tangents)
        if sums.requires_grad and any(node.name() == _ONCE for node in graph(sums)):
            raise ValueError(
                "network cannot be differentiated twice: it applies an autograd.Function whose "
                "backward is marked as once_differentiable."
            )
        return f.shape[1]

    def _input(self, X):
        x = self.passes.tensor(X)
        if not x.is_floating_point():
            raise ValueError(
                "X must be real numbers: this network looks integers up in an embedding, and "
                "indices have no derivative."
            )
        return x.detach().requires_grad_()

    def _heads_of(self, c):
        return [c] if self.per_output else range(self.n_heads)

    def _by_layer(self, tensors):
        tensors = iter(tensors)
        return [[next(tensors) for _ in layer] for layer in self.layers]

    # -- gradients --------------------------------------------------------------------------------

    def _gradients(self, X, size, per_layer):
        shape = len(self.directions), len(self.layers) if per_layer else 1
        result = np.empty((len(X), *shape, *X.shape[1:]))
        for rows in slices(len(X), size):
            x = self._input(X[rows])
            f = self.heads(outputs_of(self.passes.network, x))
            with named_errors("be differentiated twice on", x):
                tangents = [self._tangent(column) for column in f.T]
                for c in range(len(self.directions)):
                    sums = self._sums(c, tangents)
                    for k, total in enumerate(sums if per_layer else [sum(sums)]):
                        result[rows, c, k] = gradients(total, [x])[0].cpu().numpy()
        return result

    def _tangent(self, column):
        """Gradient of the sum of a head over the samples, which can be differentiated again."""
        found = torch.autograd.grad(
            column.sum(), self.parameters, create_graph=True, materialize_grads=True
        )
        return self._by_layer(found)

    def _sums(self, c, tangents):
        """``sum_x phi_cl(x)`` of each layer."""
        tangents = [tangents[h] for h in self._heads_of(c)]
        directions = [self._by_layer(direction) for direction in self.directions[c]]
        sums = _inner_products(tangents, directions)
        if not self.normed:
            return sums
        squares = _inner_products(tangents, tangents)
        return [s * q.rsqrt() if q > 0 else 0 * s for s, q in zip(sums, squares, strict=True)]


def _inner_products(u, v):
    """``sum_h <u_hl, v_hl>`` for each layer l of ``[h][l][parameter]``."""
    return [
        sum((a * b).sum() for a, b in zip(chain(*u_l), chain(*v_l), strict=True))
        for u_l, v_l in zip(zip(*u, strict=True), zip(*v, strict=True), strict=True)
    ]
