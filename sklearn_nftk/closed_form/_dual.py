"""Dual activations: what an activation makes of two correlated Gaussian variables.

For (u, v) jointly normal with mean 0, standard deviations p and q and correlation c,

``V = E[phi(u) phi(v)]`` and ``V' = E[phi'(u) phi'(v)]``

(Daniely, Frostig, Singer, NeurIPS 2016). They are written in (c, p, q) rather than in covariances,
so that nothing overflows, and nothing is lost by cancellation, before the kernels themselves do.
"""

import inspect
import math
import warnings
from functools import lru_cache

import numpy as np
import torch
from scipy.special import roots_hermitenorm
from torch.nn import functional

# Correlations so close to 1 or -1 that rounding hides the difference count as 1 or -1: V' of
# rectifiers has a square-root singularity there, and duplicated rows would show it. The kernels of
# two equal rows are then those of one row with itself.
_SNAP = 1 + 8 * np.finfo(float).eps

# Correlations of 1 stay 1 whatever is varied; so near to 1 their derivatives are finite.
NEARLY_ONE = 1 - np.finfo(float).eps

# Nodes of the quadrature, and the largest number of terms of the series.
N_NODES = 512
# A term matters if what follows it is more than this part of the whole.
_TAIL = 1e-13
# Beyond this relative error the user is told.
_TOLERANCE = 1e-6


def correlation(S, p, q, bound=1.0):
    """``S / (p q)`` within ``[-bound, bound]``, 0 where p or q is 0."""
    return snapped(S * reciprocal(p) * reciprocal(q), bound)


def snapped(c, bound=1.0):
    """Correlations that differ from -1 or 1 by rounding alone are made -1 or 1."""
    return (c * _SNAP).clamp(-bound, bound)


def reciprocal(p):
    """``1 / p``, and 0 for 0."""
    positive = p > 0
    return torch.where(positive, 1 / torch.where(positive, p, 1.0), 0.0)


def root(a):
    """``sqrt(a)`` whose derivative at 0 is 0."""
    positive = a > 0
    return torch.where(positive, torch.where(positive, a, 1.0).sqrt(), 0.0)


class Rectifier:
    """``max(u, 0) + slope * min(u, 0)``: relu (0), leaky relu, abs (-1), linear (1).

    The arc-cosine kernels of Cho and Saul (NeurIPS 2009) for both half-lines together.
    """

    def __init__(self, slope):
        self.slope = float(slope)

    def __call__(self, c, p, q):
        slope = self.slope
        if slope == 1:
            return c * p * q, torch.ones_like(c)
        bent = (1 - slope) ** 2 / 2
        # k0 = 1 - arccos(c) / pi, k1 = sqrt(1 - c^2) / pi + c k0
        k0 = torch.acos(c).mul_(-1 / math.pi).add_(1)
        k1 = torch.addcmul(c * k0, (1 - c * c).clamp_(min=0).sqrt(), _INVERSE_PI.to(c.device))
        k1, k0 = k1.mul_(bent), k0 * bent
        if slope:
            k1, k0 = k1.add_(c, alpha=slope), k0.add_(slope)
        return k1 * p * q, k0

    def diagonal(self, p):
        half = (1 + self.slope**2) / 2
        return half * p * p, torch.full_like(p, half)


_INVERSE_PI = torch.tensor(1 / math.pi, dtype=torch.float64)


class Erf:
    """Error function (Williams, NeurIPS 1996)."""

    def __call__(self, c, p, q):
        pq = p * q
        # (1 + 2 p^2)(1 + 2 q^2) - 4 s^2, without its cancellation and without overflow
        root = torch.hypot(torch.sqrt(1 + 2 * p * p + 2 * q * q), 2 * pq * _sine(c))
        return 2 / math.pi * torch.atan2(2 * c * pq, root), 4 / math.pi / root

    def diagonal(self, p):
        one = torch.ones_like(p)
        return self(one, p, p)


class Sine:
    """Sine, or with ``cosine=True`` cosine: each is the derivative of the other up to sign."""

    def __init__(self, cosine=False):
        self.cosine = cosine

    def __call__(self, c, p, q):
        pq = p * q
        near = torch.exp(-((p - q) ** 2) / 2 - pq * (1 - c))
        far = torch.exp(-((p - q) ** 2) / 2 - pq * (1 + c))
        even, odd = (near + far) / 2, (near - far) / 2
        return (even, odd) if self.cosine else (odd, even)

    def diagonal(self, p):
        return self(torch.ones_like(p), p, p)


class Quadrature:
    """Any elementwise function, by Gauss-Hermite quadrature.

    With the orthonormal Hermite polynomials h_k and ``a_k(p) = E[phi(p x) h_k(x)]``, x standard
    normal, Mehler's formula gives ``V = sum_k a_k(p) a_k(q) c^k``: 512 nodes for each row, a short
    series for each pair, positive semidefinite by construction. The derivative is autograd's.

    Relative to the diagonal, the errors of V and V' are below 1e-8 up to standard deviations p of
    2.5 for tanh, 5.1 for gelu and sigmoid, 5.4 for silu and 6.7 for softplus; V' is the worse by
    two orders of magnitude. They are largest at c = 1 and -1. Where the error may be more than
    1e-6 it warns: for large deviations, and for functions with kinks, whose series converge
    slowly.

    Parameters
    ----------
    function : callable
        From a tensor to a tensor of the same shape.
    """

    def __init__(self, function):
        self.function = function
        self._warned = False

    def __call__(self, c, p, q):
        n_terms = self._n_terms(max(_largest(p), _largest(q)))
        (a, da), (b, db) = self._coefficients(p, n_terms), self._coefficients(q, n_terms)
        return _series(c, a, b), _series(c, da, db)

    def diagonal(self, p):
        nodes, weights, _ = _rule(p.device)
        return tuple((values * values) @ weights for values in self._values(p, nodes))

    def error(self, p):
        """Bound the relative errors of V and V' of two variables of standard deviation p.

        ``sum_k |a_k^2 - b_k^2| + (V(1) - sum_k b_k^2)`` holds for every c; the true coefficients
        b_k and V(1) come from a much finer rule.
        """
        p = torch.as_tensor(p, dtype=torch.float64)
        nodes, weights, basis = _fine_rule()
        errors = []
        for values, a in zip(self._values(p, nodes), self._coefficients(p, N_NODES), strict=True):
            whole, squares = (values * values) @ weights, (values @ basis) ** 2
            error = (a * a - squares).abs().sum(dim=-1) + (whole - squares.sum(dim=-1)).abs()
            errors.append(error / whole.clamp(min=1e-300))
        return torch.maximum(*errors)

    def _values(self, p, nodes):
        """Values of phi and phi' at multiples of the nodes, shape (*p.shape, Q)."""
        u = p[..., None] * nodes
        values, pull, *_ = torch.func.vjp(self.function, u)
        return values, pull(torch.ones_like(values))[0]

    def _coefficients(self, p, n_terms):
        nodes, _, basis = _rule(p.device)
        return tuple(values @ basis[:, :n_terms] for values in self._values(p, nodes))

    def _n_terms(self, p):
        index = int(np.searchsorted(_DEVIATIONS, p))
        if index == len(_DEVIATIONS):
            self._warn(p, float(self.error(p)))
            return N_NODES
        n_terms, error = _terms_needed(self)[index]
        if error > _TOLERANCE:
            self._warn(p, error)
        return n_terms

    def _warn(self, p, error):
        if self._warned:
            return
        self._warned = True
        name = getattr(self.function, "__name__", repr(self.function))
        warnings.warn(
            f"activation: the quadrature of {name} has a relative error of up to {error:.0e} at "
            f"a standard deviation of {p:.3g}. Scale X down, or use an activation with a closed "
            "form.",
            stacklevel=2,
        )


# Standard deviations for which the number of terms is known beforehand.
_DEVIATIONS = 2.0 ** np.arange(-8, 6.01, 0.25)


@lru_cache(maxsize=64)
def _terms_needed(dual):
    """``(terms needed, error)`` for each of the standard deviations."""
    p = torch.as_tensor(_DEVIATIONS)
    tails = map(_tails, dual._coefficients(p, N_NODES))
    needed = (torch.maximum(*tails) > _TAIL).sum(dim=1).clamp(min=1)
    # A larger deviation never takes fewer terms: smaller ones share the call.
    terms = needed.cummax(0).values.tolist()
    return list(zip(terms, dual.error(p).tolist(), strict=True))


def _tails(a):
    """Share of the squares of the coefficients from each index on."""
    squares = (a * a).flip(-1).cumsum(-1).flip(-1)
    return squares / squares[..., :1].clamp(min=1e-300)


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is kept must serve derivatives too
def _rule(device):
    """Nodes, weights, and ``w_q h_k(x_q)``, shape (Q, K), of Gauss-Hermite quadrature."""
    rule = _with_basis(*roots_hermitenorm(N_NODES))
    return tuple(torch.as_tensor(values, device=device) for values in rule)


@lru_cache(maxsize=1)
@torch.inference_mode(False)
def _fine_rule():
    """Those of the trapezoidal rule, whose nodes are many and evenly spaced."""
    nodes = np.linspace(-12, 12, 8 * N_NODES)
    return tuple(map(torch.as_tensor, _with_basis(nodes, np.exp(-(nodes**2) / 2))))


def _with_basis(nodes, weights):
    weights = weights / weights.sum()
    # The recurrence runs on sqrt(w) h_k, of which no value is large.
    columns = [np.sqrt(weights), nodes * np.sqrt(weights)]
    for k in range(1, N_NODES - 1):
        following = nodes * columns[k] - math.sqrt(k) * columns[k - 1]
        columns.append(following / math.sqrt(k + 1))
    return nodes, weights, np.stack(columns, axis=1) * np.sqrt(weights)[:, None]


def _series(c, a, b):
    """``sum_k a_k b_k c^k`` by Horner's rule."""
    total = torch.zeros_like(c)
    for k in range(a.shape[-1] - 1, -1, -1):
        total = (total * c).addcmul(a[..., k], b[..., k])
    return total


def _largest(p):
    return float(p.detach().max()) if p.numel() else 0.0


def _sine(c):
    return torch.sqrt(((1 - c) * (1 + c)).clamp(min=0))


# name -> from the slope of leaky rectifiers to the dual; a new activation is a new entry
DUALS = {
    "relu": lambda slope: Rectifier(0),
    "leaky_relu": Rectifier,
    "abs": lambda slope: Rectifier(-1),
    "linear": lambda slope: Rectifier(1),
    "identity": lambda slope: Rectifier(1),
    "erf": lambda slope: Erf(),
    "sin": lambda slope: Sine(),
    "cos": lambda slope: Sine(cosine=True),
    "gelu": lambda slope: Quadrature(functional.gelu),
    "silu": lambda slope: Quadrature(functional.silu),
    "tanh": lambda slope: Quadrature(torch.tanh),
    "sigmoid": lambda slope: Quadrature(torch.sigmoid),
    "softplus": lambda slope: Quadrature(functional.softplus),
}


def dual_activation(activation, negative_slope=0.01):
    """Find the dual of an activation.

    Parameters
    ----------
    activation : str or callable
        A key of `DUALS`, or an elementwise torch function.
    negative_slope : float
        Of "leaky_relu".

    Raises
    ------
    ValueError
        If it is neither, or the function does not keep the shape of a tensor.
    """
    if isinstance(activation, str) and activation in DUALS:
        return DUALS[activation](negative_slope)
    if not callable(activation) or inspect.isclass(activation):
        raise ValueError(
            f"activation must be one of {sorted(DUALS)} or an elementwise torch function, got "
            f"{activation!r}."
        )
    try:
        probe = torch.linspace(-1, 1, 4, dtype=torch.float64)
        values, pull, *_ = torch.func.vjp(activation, probe)
        derivative = pull(torch.ones_like(probe))[0]
        elementwise = values.shape == derivative.shape == probe.shape
    except Exception as error:
        raise ValueError(
            f"activation: {activation!r} does not map a float64 tensor to a tensor with a "
            f"derivative: {error}"
        ) from error
    if not elementwise:
        raise ValueError(f"activation: {activation!r} does not keep the shape of a tensor.")
    return Quadrature(activation)
