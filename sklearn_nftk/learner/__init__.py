"""The learner: problem -> weights -> dual coefficients -> `Fitted`; it sees kernels alone."""

from ._cross_fitted import CrossFittedProblem
from ._fitted import Fitted
from ._learn import NormalisedProblem, learn, learn_from_layers, normalise
from ._left_out import leave_one_out
from ._options import LearnerOptions
from ._problem import Problem
from ._rows import DistinctRows, array_keys, distinct_rows, kernel_keys
from ._targets import both_sides, class_weights, one_vs_rest_targets

__all__ = [
    "CrossFittedProblem",
    "DistinctRows",
    "Fitted",
    "LearnerOptions",
    "NormalisedProblem",
    "Problem",
    "array_keys",
    "both_sides",
    "class_weights",
    "distinct_rows",
    "kernel_keys",
    "learn",
    "learn_from_layers",
    "leave_one_out",
    "normalise",
    "one_vs_rest_targets",
]
