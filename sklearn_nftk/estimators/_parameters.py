"""Constraints of the estimators' parameters."""

from numbers import Integral, Real

from ..grams import NORMALIZATIONS
from ..networks import CONSTRAINTS
from ..utils._sklearn import Interval, StrOptions
from ..weights import METHODS

# of the learner: kernels in, decisions out; with those that weight methods read
LEARNER = {
    "normalize": [StrOptions(set(NORMALIZATIONS))],
    "kernel_weights": [StrOptions(set(METHODS)), "array-like"],
    "per_class": ["boolean"],
    "loss": [StrOptions({"squared", "hinge"})],
    "C": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
    "tol": [Interval(Real, 0, None, closed="neither")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "n_jobs": [Integral, None],
    "verbose": ["verbose"],
}
for _method in METHODS.values():
    LEARNER.update(_method.constraints)
# of estimators that make the kernels of networks
KERNELISED = {
    **CONSTRAINTS,
    "n_networks": [Interval(Integral, 1, None, closed="left")],
    "cv": ["cv_object"],
}
# of classifiers, and what regressors restrict
CLASSIFIER = {"class_weight": [dict, StrOptions({"balanced"}), None]}
REGRESSOR = {"loss": [StrOptions({"squared"})]}
