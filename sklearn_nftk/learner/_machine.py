"""The kernel machine at given weights: C, dual coefficients, and what classes need besides."""

from typing import NamedTuple

import numpy as np

from ..solvers import anchored_loo_scores
from ._coding import CodingStudy, choose_coding, one_vs_rest_codes
from ._targets import fit_temperature

# Rows of each class from which codes are learned at least.
_LEAST = 3


class Machine(NamedTuple):
    """A solved kernel machine; see `Fitted`."""

    C: float
    dual_coef: np.ndarray
    intercept: np.ndarray
    loo_scores: np.ndarray | None = None
    class_codes: np.ndarray | None = None
    temperature: float | None = None


def solve_machine(problem, chosen):
    """Choose C and solve every decision.

    Parameters
    ----------
    problem : Problem
        On scaled kernels.
    chosen : LayerWeights

    Returns
    -------
    Machine
    """
    C = problem.choose_C(chosen.basis)
    n_classes = 0 if problem.strata is None else int(problem.strata.max()) + 1
    codes = one_vs_rest_codes(n_classes) if n_classes else None
    if problem.options.loss == "hinge":
        dual_coef, intercept = problem.hinge(chosen.weights, C)
        return Machine(C, dual_coef, intercept, class_codes=codes)
    solution = problem.ridge(chosen.weights, C)
    machine = Machine(C, solution.dual_coef.T, solution.intercept, solution.loo_scores, codes)
    if not n_classes:
        return machine
    # Weights with a certificate are those of the one-vs-rest machine.
    if n_classes > 2 and chosen.dual_gap is None:
        machine = _coded(problem, chosen, machine)
    temperature = fit_temperature(machine.loo_scores, problem.Y, problem.sample_weight)
    return machine._replace(temperature=temperature)


def _coded(problem, chosen, machine):
    """Solve for codes in place of one-vs-rest targets, where these mask classes."""
    # Leave-one-out takes all copies of a row away and leaves those of other classes behind: where
    # the same x has several, its decisions speak against its own class.
    rows = np.flatnonzero(~problem.contested)
    if np.bincount(problem.strata[rows], minlength=len(machine.class_codes)).min() < _LEAST:
        return machine
    rank = np.argsort(problem.order)[rows]
    study = CodingStudy(problem.strata[rows], problem.s[rows], np.argsort(rank))
    solution = problem.ridge(chosen.weights, machine.C)
    plain = anchored_loo_scores(solution, problem.Y, problem.s, machine.C)[rows]

    def scores_of_C():
        if isinstance(problem.options.C, str) and len(problem.grams.scales) == 1:
            scores = problem.anchored_scores_of_C(chosen.basis)
            return {C: of_C[rows] for C, of_C in scores.items()}, machine.C
        return {machine.C: plain}, machine.C

    coding, C = choose_coding(study, plain, scores_of_C)
    if coding is None:
        return machine
    targets = coding.codes[problem.strata]
    solution = problem.ridge_on(targets, chosen.weights, C)
    coded = anchored_loo_scores(solution, targets, problem.s, C)[rows] + coding.offsets
    # Codes were chosen on weights that all decisions share.
    if not study.is_better(study.plain(coded), study.plain(plain)):
        return machine
    intercept = solution.intercept + coding.offsets
    loo_scores = solution.loo_scores + coding.offsets
    return Machine(C, solution.dual_coef.T, intercept, loo_scores, coding.codes)
