"""Training of networks, by skorch: rows and targets in, the parameters of a module out."""

import numpy as np
import torch

from ..utils._progress import silent
from ..utils._sklearn import one_at_a_time
from ..utils._skorch import epoch_callback, import_skorch, train_net
from ..utils._threads import one_torch_thread
from ._drawing import as_input, seeded

# Rows that stand for weights are at most so many times the distinct rows.
_MOST_COPIES = 4


def train(net, X, y, sample_weight=None, seed=0, progress=silent):
    """Train a skorch net on rows that count by their weights.

    Parameters
    ----------
    net : skorch.NeuralNet
        Not trained yet, and not anybody else's.
    X : ndarray of shape (n, ...)
    y : ndarray of int, shape (n,), or of float, shape (n,) or (n, n_targets)
        Class codes, or real targets.
    sample_weight : ndarray of shape (n,), default=None
        Rows are repeated in proportion, see `repetitions`.
    seed : int
        Of the global generators, which skorch and torch draw from.
    progress : callable
        See `utils._progress`; told of each epoch.

    Returns
    -------
    torch.nn.Module
        The module of the net, trained.

    Raises
    ------
    ValueError
        If training fails or diverges.
    """
    if y is None:
        raise ValueError("network: it is trained in fit, and that needs y.")
    rows = np.arange(len(X)) if sample_weight is None else repetitions(sample_weight, seed)
    epochs = progress(max(1, net.max_epochs), "training")
    # One thread of the CPU, so that one seed is one network on any machine; and small products
    # wait for threads longer than they take.
    with seeded(seed), torch.enable_grad(), one_torch_thread(), epochs as bar:
        try:
            if net.train_split is not None:
                net.set_params(train_split=one_at_a_time(net.train_split))
            net.initialize()
            net.callbacks_.append(("epochs", epoch_callback(bar)))
            train_net(net, as_input(net.module_, X[rows]), _targets(net, y[rows]))
        except Exception as error:  # whatever the module, its criterion or a callback raises
            raise ValueError(
                f"network: training failed with {type(error).__name__}: {error}"
            ) from error
    for name, parameter in net.module_.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(
                f"network: training diverged, {name!r} is not finite; a smaller lr may help."
            )
    return net.module_


def repetitions(weights, seed):
    """Rows in proportion to their weights, so that any loss and any batch size does.

    Equal weights are one row each; else the smallest weight is one row, as far as all of them are
    at most four times the rows. What is no whole number is rounded systematically, to one side or
    the other of the proportion.

    Parameters
    ----------
    weights : ndarray of shape (n,)
        Positive.
    seed : int

    Returns
    -------
    ndarray of int
        Ascending.
    """
    total = min(weights.sum() / weights.min(), _MOST_COPIES * len(weights))
    size = max(1, round(total))
    ends = np.cumsum(weights) / weights.sum() * size
    ends[-1] = size  # but for rounding
    start = np.random.RandomState(seed).uniform()
    if np.allclose(ends, np.round(ends)):  # whole numbers stay what they are
        start = 0.5
    return np.searchsorted(ends, np.arange(size) + start)


def _targets(net, y):
    """Targets as the criterion of a net takes them."""
    floats = (p.dtype for p in net.module_.parameters() if p.is_floating_point())
    dtype = next(floats, torch.get_default_dtype())
    if np.issubdtype(y.dtype, np.integer):
        binary = isinstance(net, import_skorch().NeuralNetBinaryClassifier)
        return torch.as_tensor(y, dtype=dtype if binary else torch.int64)
    return torch.as_tensor(y.reshape(len(y), -1), dtype=dtype)
