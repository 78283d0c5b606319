"""What lies between two trained networks: the error along the line from one to the other."""

from numbers import Integral

import numpy as np
import torch
from scipy.special import log_softmax
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from ..networks._drawing import as_input
from ..utils._classes import logits
from ..utils._sklearn import type_of_target
from ._models import network_outputs, own_copy, samples

# Rows of a batch that statistics of batch norm are estimated on.
_BATCH_NORM_ROWS = 1024


def error_barrier(
    model_a,
    model_b,
    X,
    y,
    *,
    n_points=11,
    metric="error",
    batch_norm_data=None,
    baseline="mean",
):
    """Error barrier between two networks of one architecture.

    ``max_alpha R((1 - alpha) w_a + alpha w_b) - (R(w_a) + R(w_b)) / 2`` over the straight line
    between their parameters [1]_: about 0 where both lie in one linearly connected basin. Both
    ends are on the line, so it is at least ``|R(w_a) - R(w_b)| / 2``.

    Parameters
    ----------
    model_a, model_b : torch.nn.Module or fitted skorch.NeuralNet
        Parameters and buffers of the same names and shapes. Neither is modified.
    X : array-like of shape (n_samples, ...)
    y : array-like of shape (n_samples,), or (n_samples, n_outputs) for real targets
        Class codes ``0`` to ``n_outputs - 1`` (of networks with one output: 0 and 1, the sign of
        the logit), or real targets.
    n_points : int, default=11
        Points of the line, both ends included; at least 2.
    metric : {"error", "loss"} or callable, default="error"
        "error": share of the samples in a wrong class. "loss": mean cross-entropy of class codes,
        mean squared error of real targets. A callable is called as ``metric(y, outputs)``, with
        outputs of shape (n_samples, n_outputs), and returns a float; smaller is better.
    batch_norm_data : array-like of shape (n, ...), default=None
        Training samples on which the running statistics of batch norm are estimated anew at every
        point, both ends included. None interpolates the statistics like parameters, which do not
        fit the weights between the ends: barriers come out too high.
    baseline : {"mean", "linear"}, default="mean"
        What is subtracted: the mean of both ends, or at each point the straight line between
        them. They are the same where the ends are equally good.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the networks differ in their parameters, or the metric does not fit y.

    References
    ----------
    .. [1] Fort et al. Deep Learning versus Kernel Learning. NeurIPS 2020.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk.dynamics import error_barrier
    >>> X, y = load_iris(return_X_y=True)
    >>> network = torch.nn.Linear(4, 3).double()
    >>> error_barrier(network, network, X, y)
    0.0
    """
    if not isinstance(n_points, Integral) or n_points < 2:
        raise ValueError(f"n_points must be an integer >= 2, got {n_points!r}.")
    if baseline not in ("mean", "linear"):
        raise ValueError(f"baseline must be 'mean' or 'linear', got {baseline!r}.")
    X = samples(X)
    a, b = own_copy(model_a, "model_a"), own_copy(model_b, "model_b")
    _check_alike(a, b)
    measure = _measure(metric, y, len(X))
    refresh = None if batch_norm_data is None else samples(batch_norm_data, "batch_norm_data")
    if refresh is not None and len(refresh) < 2:
        raise ValueError("batch_norm_data must have at least 2 rows to have a variance.")
    alphas = np.linspace(0, 1, n_points)
    values = np.empty(n_points)
    between = own_copy(a, "model_a")
    for i, alpha in enumerate(alphas):
        between.load_state_dict(_interpolated(a.state_dict(), b.state_dict(), float(alpha)))
        if refresh is not None:
            _estimate_batch_norm(between, refresh)
        values[i] = measure(network_outputs(between, X, "model_a"))
    first, last = values[0], values[-1]
    if baseline == "mean":
        return float(values.max() - (first + last) / 2)
    return float(np.max(values - ((1 - alphas) * first + alphas * last)))


def _check_alike(a, b):
    shapes = [{name: tuple(t.shape) for name, t in m.state_dict().items()} for m in (a, b)]
    for name in {**shapes[0], **shapes[1]}:
        of_a, of_b = (of_model.get(name, "not there") for of_model in shapes)
        if of_a != of_b:
            raise ValueError(
                "model_a and model_b must have parameters of the same names and shapes: "
                f"{name!r} is {of_a} in model_a and {of_b} in model_b."
            )


def _interpolated(a, b, alpha):
    """States between two of them; counters and other integers are those of the first."""
    return {
        name: torch.lerp(value, b[name].to(value.dtype), alpha)  # the ends are exact
        if value.is_floating_point()
        else value
        for name, value in a.items()
    }


@torch.no_grad()
def _estimate_batch_norm(module, X):
    """Set the running statistics to means over batches; everything else stays in evaluation."""
    norms = [m for m in module.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    # Parts of about equal size, none of which has a single row and so no variance.
    for part in np.array_split(X, -(-len(X) // _BATCH_NORM_ROWS)):
        module(as_input(module, part))
    module.eval()


# -- what is measured -------------------------------------------------------------------------


def _measure(metric, y, n_samples):
    """Turn a metric into a function of the outputs alone."""
    y = np.asarray(y)
    if len(y) != n_samples:
        raise ValueError(f"y must have one entry for each of the {n_samples} samples of X.")
    if callable(metric):
        return lambda outputs: float(metric(y, outputs))
    if metric not in ("error", "loss"):
        raise ValueError(f"metric must be 'error', 'loss' or a callable, got {metric!r}.")
    if type_of_target(y) in ("binary", "multiclass") and y.ndim == 1:
        return lambda outputs: _of_classes(metric, _codes(y, outputs), logits(outputs))
    if metric == "error":
        raise ValueError("metric='error' needs y of class codes; use metric='loss'.")
    return lambda outputs: _squared_error(y, outputs)


def _codes(y, outputs):
    n_classes = max(2, outputs.shape[1])
    if y.dtype.kind not in "iufb" or y.min() < 0 or y.max() >= n_classes:
        raise ValueError(
            f"y must be class codes 0 to {n_classes - 1} for {outputs.shape[1]} output(s), got "
            f"{np.unique(y)[:10].tolist()}."
        )
    return y.astype(int)


def _of_classes(metric, codes, scores):
    if metric == "error":
        return np.mean(scores.argmax(axis=1) != codes)
    return -np.mean(log_softmax(scores, axis=1)[np.arange(len(codes)), codes])


def _squared_error(y, outputs):
    targets = y.reshape(len(y), -1)
    if targets.shape != outputs.shape:
        raise ValueError(f"y has {targets.shape[1]} target(s), the networks {outputs.shape[1]}.")
    return np.mean((outputs - targets) ** 2)
