"""Children of one checkpoint: the same training continued with batches in other orders."""

import copy
from numbers import Integral

import numpy as np
import torch
from sklearn.utils import check_random_state

from ..networks._drawing import seeded
from ..utils._skorch import train_net
from ..utils._threads import one_torch_thread


def spawn_children(net, X, y, *, epochs, n_children=2, random_state=None):
    """Continue the training of one checkpoint several times, with different batch orders.

    Each child begins with the weights **and the state of the optimiser** of its parent (momentum,
    running moments), its callbacks and its history, and draws its batches, and dropout, from a
    seed of its own. The barrier between them tells whether the basin of the solution is already
    decided at the checkpoint [1]_.

    Parameters
    ----------
    net : skorch.NeuralNet
        The parent: fitted, or initialised, which is a checkpoint before the first epoch. It
        shuffles its batches (``iterator_train__shuffle=True``) and is not modified.
    X, y : training data
        As in ``net.fit``.
    epochs : int
        Epochs of each child beyond those of its parent.
    n_children : int, default=2
    random_state : int, RandomState instance or None, default=None
        Seeds the orders.

    Returns
    -------
    list of skorch.NeuralNet
        The children, fitted.

    Raises
    ------
    ValueError
        If `net` is no net of skorch that was initialised, or does not shuffle its batches.

    References
    ----------
    .. [1] Fort et al. Deep Learning versus Kernel Learning. NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn_nftk.dynamics import error_barrier, spawn_children
    >>> X, y = load_iris(return_X_y=True)
    >>> X = X.astype(np.float32)
    >>> parent = NeuralNetClassifier(
    ...     torch.nn.Linear(4, 3), criterion=torch.nn.CrossEntropyLoss, max_epochs=1, verbose=0,
    ...     iterator_train__shuffle=True, train_split=None,
    ... ).fit(X, y)
    >>> first, second = spawn_children(parent, X, y, epochs=5, random_state=0)
    >>> len(parent.history), len(first.history)
    (1, 6)
    >>> error_barrier(first, second, X, y, metric="loss", baseline="linear")  # a convex problem
    0.0
    """
    _check(net)
    for name, value, least in (("epochs", epochs, 0), ("n_children", n_children, 1)):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {value!r}.")
    rng = check_random_state(random_state)
    children = []
    for seed in rng.randint(np.iinfo(np.int32).max, size=n_children):
        child = copy.deepcopy(net)
        # One thread, so that one seed is one network on any machine.
        with seeded(int(seed)), torch.enable_grad(), one_torch_thread():
            train_net(child, X, y, epochs)
        children.append(child)
    return children


def _check(net):
    if not getattr(net, "initialized_", False) or not hasattr(net, "fit_loop"):
        raise ValueError(
            "net must be a skorch.NeuralNet that was fitted, or initialised by net.initialize(), "
            f"got {net!r}."
        )
    options = net.get_params_for("iterator_train")
    shuffles = any(options.get(name) for name in ("shuffle", "sampler", "batch_sampler"))
    if net.iterator_train is torch.utils.data.DataLoader and not shuffles:
        raise ValueError(
            "net takes its batches in one order, so that its children would be the same; give it "
            "iterator_train__shuffle=True."
        )
