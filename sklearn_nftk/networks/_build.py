"""The one place where `network=` is recognised, and becomes a source of layer kernels."""

import inspect
from typing import Any

import numpy as np
import torch

from ..utils._arrays import check_batch
from ..utils._kernel_source import KernelSource
from ..utils._sklearn import StrOptions, type_of_target, validate_data
from ._mlp import MLP
from ._modules import recognised

ACCEPTED = (
    "None, an MLP, an InfiniteMLP, an InfiniteRNN, a KernelMLP, any other object with a method "
    "kernel_source, a KernelSource, a torch.nn.Module, a skorch.NeuralNet, or a function "
    "(n_features, n_outputs, random_state) -> torch.nn.Module"
)
# Constraints of the parameters of whatever takes a network.
CONSTRAINTS: dict[str, Any] = {
    "network": "no_validation",  # recognised, or refused by name, below
    "layers": [StrOptions({"module", "block"}), dict],
    "outputs": [StrOptions({"mean", "sum", "per_class"})],
    "device": [str, torch.device],
    "dtype": "no_validation",  # names, numpy and torch types: utils/_device.py
    "random_state": ["random_state"],
}
# Options of the user and their defaults; a specification that does not take one accepts no other.
_DEFAULTS = {"layers": "module", "outputs": "mean", "device": "auto", "dtype": "auto"}


def default_network():
    """What ``network=None`` means: smooth, unlike relu, whose kernels have a kink.

    Chosen by ``benchmarks/bench_default.py``: of the candidates whose accuracy is not told apart
    from the best, one that is near a tuned SVM where classes lie in a row, too.
    """
    return MLP(activation="silu", weight_variance=1.0, bias_variance=0.3)


def specification(network):
    """Return the specification that `network` is or stands for, or the kernel source that it is.

    Parameters
    ----------
    network : None, specification, KernelSource, torch.nn.Module, skorch.NeuralNet or callable
        None means `default_network`. Networks are wrapped in specifications.

    Returns
    -------
    KernelSource, or an object with a method ``kernel_source``

    Raises
    ------
    ValueError
        If `network` is none of these.
    """
    if network is None:
        return default_network()
    if isinstance(network, KernelSource):
        return network
    if hasattr(network, "kernel_source") and not isinstance(network, type):
        return network
    chosen = recognised(network)
    if chosen is None:
        hint = f" Did you mean {network.__name__}()?" if isinstance(network, type) else ""
        raise ValueError(f"network must be {ACCEPTED}; got {network!r}.{hint}")
    return chosen


def make_source(network, X, y=None, sample_weight=None, seed=0, **options):
    """Turn `network` into the source of its layer kernels.

    Parameters
    ----------
    network : None, specification, KernelSource, torch.nn.Module or callable
        See `specification`. A KernelSource is used as it is.
    X : array of n samples
        The training set, as `validated` or `checked` returned it.
    y : array of int, shape (n,), or of float, shape (n,) or (n, n_targets), default=None
        Class codes 0 to n_classes - 1, or real targets.
    sample_weight : array of shape (n,), default=None
    seed : int, default=0
        Of whatever is drawn.
    **options
        ``layers, outputs, device, dtype, n_jobs, n_outputs, progress``; those go to the
        specification that its method takes.

    Returns
    -------
    KernelSource

    Raises
    ------
    ValueError
        If the specification does not take an option that is not at its default.
    """
    chosen = specification(network)
    if isinstance(chosen, KernelSource):
        _refuse(chosen, options)
        return chosen
    parameters = inspect.signature(chosen.kernel_source).parameters
    options |= {"y": y, "sample_weight": sample_weight, "seed": seed}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    taken = {name: value for name, value in options.items() if takes_all or name in parameters}
    _refuse(chosen, {name: options[name] for name in options.keys() - taken.keys()})
    source = chosen.kernel_source(X, **taken)
    if not isinstance(source, KernelSource):
        raise ValueError(
            f"network: kernel_source of {type(chosen).__name__} must return a KernelSource, got "
            f"{type(source).__name__}."
        )
    return source


def _refuse(chosen, options):
    """Refuse options that would be ignored, unless they are at their defaults."""
    for name, default in _DEFAULTS.items():
        value = options.get(name, default)
        if not (isinstance(value, str) and value == default):
            raise ValueError(
                f"{name} has no meaning for network={type(chosen).__name__}, which does not take "
                f"it; leave it at {default!r}."
            )


def is_trained(network):
    """Tell whether a network is made from targets: whether its specification says so."""
    return bool(getattr(specification(network), "is_trained", False))


def allow_nd(network):
    """Tell whether samples may be images, sequences, ...: True unless a specification says no."""
    return network is not None and bool(getattr(network, "allow_nd", True))


def validated(network, estimator, X, y="no_validation", **checks):
    """Validate data for an estimator: scikit-learn's ``validate_data``.

    Specifications that take other data than arrays have a method ``validate_data`` of their own,
    with these parameters.
    """
    chosen = specification(network)
    if hasattr(chosen, "validate_data"):
        return chosen.validate_data(estimator, X, y, **checks)
    return validate_data(estimator, X, y, **{"allow_nd": allow_nd(network), **checks})


def checked(network, X, name="X"):
    """Validate samples outside of estimators.

    Specifications that take other data than arrays have a method ``check_batch(X, name)`` of their
    own; a KernelSource validates them in ``prepare``.
    """
    chosen = specification(network)
    if isinstance(chosen, KernelSource):
        return X
    if hasattr(chosen, "check_batch"):
        return chosen.check_batch(X, name)
    return check_batch(X, name, allow_nd=allow_nd(network))


def training_targets(y):
    """Targets as `make_source` takes them, and the outputs of a network for them.

    Parameters
    ----------
    y : array-like of n labels, or of real targets, or None
    """
    if y is None:
        return None, 1
    y = np.asarray(y)
    if type_of_target(y) not in ("binary", "multiclass"):
        return y.astype(float), 1
    classes, codes = np.unique(y, return_inverse=True)
    return codes, len(classes)


class NetworkParameter:
    """Mixin of estimators with a parameter `network`, of which None means `default_network`."""

    def set_params(self, **params):
        """Set the parameters of this estimator.

        ``network__<parameter>`` of an estimator whose network is None makes it the ``MLP`` that
        None stands for, so that a grid can go over its parameters.

        Parameters
        ----------
        **params : dict
            Estimator parameters.

        Returns
        -------
        self : estimator instance
        """
        nested = any(name.startswith("network__") for name in params)
        if nested and params.get("network", getattr(self, "network", None)) is None:
            params = {**params, "network": default_network()}
        return super().set_params(**params)  # type: ignore[misc]
