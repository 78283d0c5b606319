"""Constraints of the estimators' parameters."""

from numbers import Integral, Real

import torch

from ..grams import NORMALIZATIONS
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
# of the way from a network to its kernels
NETWORK = {
    "network": "no_validation",  # recognised, or refused by name, in networks/
    "layers": [StrOptions({"module", "block"}), dict],
    "outputs": [StrOptions({"mean", "sum", "per_class"})],
    "device": [str, torch.device],
    "dtype": "no_validation",  # names, numpy and torch types: utils/_device.py
    "random_state": ["random_state"],
}
# of classifiers, and what regressors restrict
CLASSIFIER = {"class_weight": [dict, StrOptions({"balanced"}), None]}
REGRESSOR = {"loss": [StrOptions({"squared"})]}
