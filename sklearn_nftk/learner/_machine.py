"""The kernel machine at given weights: C, dual coefficients, and what classes need besides."""

from typing import NamedTuple

import numpy as np

from ._coding import CodingStudy, choose_coding, one_vs_rest_codes
from ._targets import fit_temperature

# Rows of each class from which codes are learned at least.
_LEAST = 3


class Machine(NamedTuple):
    """A solved kernel machine; see `Fitted`."""

    C: float
    dual_coef: np.ndarray
    intercept: np.ndarray
    held_out_scores: np.ndarray | None = None
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
        scores = problem.held_out_hinge(chosen.weights, C)
        return Machine(C, dual_coef, intercept, scores, codes)
    machine = None
    # Weights with a certificate are those of the one-vs-rest machine.
    if n_classes > 2 and chosen.dual_gap is None:
        machine = _coded(problem, chosen, C)
    if machine is None:
        solution = problem.ridge(chosen.weights, C)
        scores = problem.held_out(chosen.weights, C).scores
        machine = Machine(C, solution.dual_coef.T, solution.intercept, scores, codes)
    if not n_classes:
        return machine
    temperature = fit_temperature(machine.held_out_scores, problem.Y, problem.sample_weight)
    return machine._replace(temperature=temperature)


def _coded(problem, chosen, C):
    """Solve for codes in place of one-vs-rest targets, or None where these mask no classes."""
    # Leave-one-out takes all copies of a row away and leaves those of other classes behind: where
    # the same x has several, its decisions speak against its own class.
    rows = np.flatnonzero(~problem.contested)
    labels = problem.strata[rows]
    if np.bincount(labels, minlength=problem.Y.shape[1]).min() < _LEAST:
        return None
    rank = np.argsort(problem.order)[rows]
    study = CodingStudy(labels, problem.s[rows], np.argsort(rank))
    if isinstance(problem.options.C, str):
        scores = problem.anchored_scores_of_C(chosen.basis)  # known since C was chosen
    else:
        scores = {C: problem.held_out(chosen.weights, C).anchored}
    coding, coded_C = choose_coding(study, {C: of_C[rows] for C, of_C in scores.items()}, C)
    if coding is None:
        return None
    targets = coding.codes[problem.strata]
    held_out = problem.held_out(chosen.weights, coded_C, targets)
    # Codes were chosen on weights that all decisions share.
    coded = held_out.anchored[rows] + coding.offsets
    if not study.is_better(study.plain(coded), study.plain(scores[C][rows])):
        return None
    solution = problem.ridge(chosen.weights, coded_C, targets)
    intercept = solution.intercept + coding.offsets
    held_out_scores = held_out.scores + coding.offsets
    return Machine(coded_C, solution.dual_coef.T, intercept, held_out_scores, coding.codes)
