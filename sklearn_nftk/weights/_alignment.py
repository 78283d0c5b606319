"""``kernel_weights="alignment"``: ALIGNF for each decision, shrunk towards uniform weights."""

from numbers import Real
from typing import ClassVar

import numpy as np

from ..utils._sklearn import Interval, StrOptions
from ..utils._threads import one_blas_thread
from ._alignment_problem import AlignmentProblem
from ._base import LayerWeights, WeightMethod, on_simplex, uniform_weights

# Shares of uniform weights that shrinkage="auto" compares.
_SHRINKAGES = np.array([0.0, 0.5, 1.0])
# ... how many standard errors better a smaller share must be.
_STANDARD_ERRORS = 2.0
# Rows that are asked: all up to so many, else a share of them, on which the evidence costs a few
# percent of the fit (both grow with the third power of the rows).
_ALL_ROWS = 400
_SHARE_OF_ROWS = 0.2


class Alignment(WeightMethod):
    """Maximal centred alignment with the targets (Cortes et al., JMLR 2012)."""

    name = "alignment"
    constraints: ClassVar[dict] = {
        "shrinkage": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})]
    }

    def weights(self, problem, statistics, mask):
        """Alignment weights, mixed with a share of uniform ones."""
        options = problem.options
        uniform = uniform_weights(problem, mask)
        aligned = alignment_weights(statistics, mask[problem.kernels], per_class=options.per_class)
        shrinkage = options.shrinkage
        if isinstance(shrinkage, str):
            with one_blas_thread():
                shrinkage = auto_shrinkage(problem, aligned, uniform)[:, None]
        weights = (1 - shrinkage) * aligned + shrinkage * uniform
        return LayerWeights(weights, weights)


def alignment_weights(statistics, mask, *, per_class=True):
    """Solve the alignment problem of each decision.

    Parameters
    ----------
    statistics : list of KernelStatistics
        Of the scaled kernels: one for each decision that has kernels of its own, or a single one
        with the targets of all decisions.
    mask : ndarray of bool, shape (n_decisions, L)
        The active layers.
    per_class : bool
        False: one problem, the sum of those of all decisions, and equal rows.

    Returns
    -------
    ndarray of shape (n_decisions, L)
        Rows without any aligned kernel are uniform over the active layers.
    """
    problems = [(k.inner_products, a) for k in statistics for a in k.target_products]
    if not per_class:
        problems = [tuple(sum(terms) for terms in zip(*problems, strict=True))]
        rows = _solved(problems, mask.any(axis=0, keepdims=True))
        return np.tile(rows, (len(mask), 1))
    return _solved(problems, mask)


def _solved(problems, mask):
    """Weights for each ``(M, a)`` on the active layers."""
    compiled: dict[int, AlignmentProblem] = {}
    weights = np.zeros(mask.shape)
    for row, used, (M, a) in zip(weights, mask, problems, strict=True):
        size = int(np.count_nonzero(used))
        if not size:
            continue
        if size not in compiled:
            compiled[size] = AlignmentProblem(size)
        solution = compiled[size].solve(M[np.ix_(used, used)], a[used])
        row[used] = 1.0 if solution is None else solution
    return on_simplex(weights)


def auto_shrinkage(problem, weights, uniform):
    """Leave uniform weights only as far as the leave-one-out errors are evidence for it.

    For each decision the largest share of uniform weights whose mean squared leave-one-out
    residual is within two standard errors (of the paired differences) of the smallest one: the
    standard-error rule of Breiman et al. 1984. On small data the noise of the smallest error
    itself costs more accuracy than good weights gain.

    Parameters
    ----------
    problem : Problem
    weights, uniform : ndarray of shape (n_decisions, L)

    Returns
    -------
    ndarray of shape (n_decisions,)
        Equal entries with ``per_class=False``; 1 where there are too few rows to tell.
    """
    n_decisions = len(weights)
    most = max(_ALL_ROWS, int(_SHARE_OF_ROWS * len(problem.Y)))
    sample = None if np.allclose(weights, uniform) else problem.sample(most)
    if sample is None:
        return np.ones(n_decisions)
    errors = _loo_errors(sample, weights, uniform)
    if not problem.options.per_class:
        errors = errors.sum(axis=2, keepdims=True)
    p = sample.p
    best = (p @ errors).argmin(axis=0)  # (n_decisions,)
    smallest = np.take_along_axis(errors, best[None, None], axis=0)
    excess = errors - smallest
    means = p @ excess  # (shares, n_decisions)
    standard_errors = np.sqrt(p**2 @ (excess - means[:, None]) ** 2)
    within = means <= _STANDARD_ERRORS * standard_errors
    shares = np.where(within, _SHRINKAGES[:, None], 0.0).max(axis=0)
    return np.broadcast_to(shares, (n_decisions,))


def _loo_errors(problem, weights, uniform):
    """Squared residuals of rows not learned from, for each share: (shares, n, n_decisions)."""
    mixtures = [(1 - share) * weights + share * uniform for share in _SHRINKAGES]
    fixed = problem.options.loss == "squared" and not isinstance(problem.options.C, str)
    middle = mixtures[len(mixtures) // 2]
    C = min(problem.options.C, problem.largest_C) if fixed else problem.loo_C(middle)
    scores = [problem.held_out(mixed, C).scores for mixed in mixtures]
    return np.square(problem.Y - np.array(scores))
