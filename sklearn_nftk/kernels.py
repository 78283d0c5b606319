"""Layer kernels for any kernel method, and what a source of layer kernels offers.

A *kernel source* is whatever yields layer kernels. Everything downstream - statistics, weights,
solvers, inspection - sees three things of it (`KernelSource`): its layer names, a block for two
batches (whole, or in tiles) and a diagonal. Empirical networks are the first source, infinitely
wide ones the second; `kernel_source` is where the one or the other is chosen.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from .closed_form import group_names
from .networks import InfiniteNetwork, build_network
from .tangents import TangentKernels, group_layers
from .utils._arrays import check_batch
from .utils._device import resolve_device, resolve_dtype
from .utils._progress import progress

__all__ = ["KernelSource", "layer_kernel_diag", "layer_kernels", "layer_names"]

# Seed of networks drawn without a random_state of their own, so that two calls agree.
_DEFAULT_SEED = 0


class KernelSource(Protocol):
    """The interface between whatever has layers and the learner."""

    layer_names: list[str]
    progress: Callable  # called as utils/_progress.py has it, set by whoever wants to know

    def prepare(self, X: Any) -> Any:
        """Do what can be done once for a batch; the result stands for X in the other methods."""

    def block(self, X: Any, Y: Any = None) -> np.ndarray:
        """Layer kernels of two batches, shape (L, n, m); ``Y=None`` is X with itself."""

    def tiles(self, X: Any) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """``(rows, columns, block)`` of the upper half of X with itself, one at a time."""

    def diag(self, X: Any) -> np.ndarray:
        """``Theta_l(x, x)``, shape (L, n)."""


def kernel_source(
    network,
    X,
    *,
    layers="module",
    outputs="mean",
    device="auto",
    dtype="auto",
    n_jobs=None,
):
    """Kernel source of what `build_network` returned.

    That of a module is checked against autograd on a few rows of X; an infinitely wide network
    has its own.
    """
    if isinstance(network, InfiniteNetwork):
        return network.kernel_source(
            X, layers=layers, outputs=outputs, device=device, dtype=dtype, n_jobs=n_jobs
        )
    device = resolve_device(device)
    source = TangentKernels(
        network,
        layers=layers,
        outputs=outputs,
        device=device,
        dtype=resolve_dtype(dtype, X.dtype),
        n_jobs=n_jobs,
    )
    source.check(X)
    return source


def _arrays(network, X, Y):
    check = network.check_batch if isinstance(network, InfiniteNetwork) else check_batch
    X = check(X)
    if Y is not None:
        Y = check(Y, "Y")
        if not _accepts_sequences(network) and X.shape[1:] != Y.shape[1:]:
            raise ValueError(
                f"Y must have the features of X: X has shape {X.shape}, Y has shape {Y.shape}."
            )
    return X, Y


def _accepts_sequences(network):
    return isinstance(network, InfiniteNetwork) and network.accepts_sequences


def _check_outputs(outputs, accepted):
    if outputs not in accepted:
        raise ValueError(f"outputs must be one of {accepted}, got {outputs!r}.")


def layer_kernels(
    network,
    X,
    Y=None,
    *,
    layers="module",
    outputs="mean",
    device="auto",
    dtype="auto",
    n_jobs=None,
    verbose=0,
):
    """Compute one tangent Gram matrix for each layer of a network.

    ``Theta_l(x, z) = (1/O) sum_o <d f_o(x)/d theta_l, d f_o(z)/d theta_l>``; their sum over the
    layers is the neural tangent kernel [1]_.

    Parameters
    ----------
    network : None, MLP, InfiniteMLP, InfiniteRNN, torch.nn.Module or callable
        None means ``MLP()``; a callable is called as ``network(n_features, 1, 0)``. Networks drawn
        here without a `random_state` of their own are drawn with seed 0.
    X : array-like or torch.Tensor of shape (n, ...)
        Integers reach the network as integers if it looks them up in an embedding, else as floats.
    Y : array-like or torch.Tensor of shape (m, ...), default=None
        None means X.
    layers : {"module", "block"} or dict, default="module"
        Which parameters form a layer: each module that owns parameters, each top-level child, or
        ``{layer name: [parameter-name patterns]}``. Infinitely wide networks have one set of
        layers, which patterns of their names group.
    outputs : {"mean", "sum", "per_class"}, default="mean"
        How several outputs are treated: the mean over outputs as above; the gradient of their sum;
        or each output alone.
    device : str or torch.device, default="auto"
        "auto" is CUDA when there is one, else the CPU.
    dtype : {"auto", "float32", "float64"}, default="auto"
        "auto" is the floating type of X, float64 for integers and for infinitely wide networks.
    n_jobs : int or None, default=None
        Tiles computed at once by threads; matrix products use several cores by themselves.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    ndarray of shape (n, m, L), or (O, n, m, L) for ``outputs="per_class"``
        Samples before layers, so that scikit-learn's pairwise splitting works on it. In memory it
        is contiguous planes (n, m). Symmetric exactly when Y is None.

    Raises
    ------
    ValueError
        If the network has no trainable parameter, does not map (n, ...) to (n, O), mixes the
        samples of a batch, or overflows.

    References
    ----------
    .. [1] Jacot, Gabriel, Hongler. Neural Tangent Kernel: Convergence and Generalization in Neural
       Networks. NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nftk.kernels import layer_kernels, layer_names
    >>> from sklearn_nftk.networks import MLP
    >>> X = np.eye(3)
    >>> layer_kernels(MLP(hidden_layer_sizes=(16, 16)), X).shape
    (3, 3, 3)
    """
    _check_outputs(outputs, ["mean", "sum", "per_class"])
    X, Y = _arrays(network, X, Y)
    source = kernel_source(
        build_network(network, X.shape[1], 1, _DEFAULT_SEED),
        X,
        layers=layers,
        outputs=outputs,
        device=device,
        dtype=dtype,
        n_jobs=n_jobs,
    )
    if not isinstance(source, TangentKernels):
        source.progress = partial(progress, enabled=verbose)
        return np.moveaxis(source.block(X, Y), -3, -1)
    if Y is None:
        stack = source.gram(source.prepare(X), partial(progress, enabled=verbose))
    else:
        stack = source.block(source.prepare(X), source.prepare(Y))
    return np.moveaxis(stack if outputs == "per_class" else stack[0], -3, -1)


def layer_kernel_diag(network, X, *, layers="module", outputs="mean", device="auto", dtype="auto"):
    """Compute ``Theta_l(x, x)`` for each sample and layer, without any Gram matrix.

    Parameters
    ----------
    network, X, layers, device, dtype
        As in `layer_kernels`.
    outputs : {"mean", "sum", "per_class"}, default="mean"

    Returns
    -------
    ndarray of shape (n, L), or (O, n, L) for ``outputs="per_class"``

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nftk.kernels import layer_kernel_diag
    >>> from sklearn_nftk.networks import MLP
    >>> layer_kernel_diag(MLP(hidden_layer_sizes=(16,)), np.eye(4)).shape
    (4, 2)
    """
    _check_outputs(outputs, ["mean", "sum", "per_class"])
    X, _ = _arrays(network, X, None)
    module = build_network(network, X.shape[1], 1, _DEFAULT_SEED)
    source = kernel_source(module, X, layers=layers, outputs=outputs, device=device, dtype=dtype)
    if not isinstance(source, TangentKernels):
        return np.moveaxis(source.diag(X), -2, -1)
    diagonal = source.diag(source.prepare(X))
    return np.moveaxis(diagonal if outputs == "per_class" else diagonal[0], -2, -1)


def layer_names(network, *, layers="module"):
    """List the layers of a network, in the order of the kernels.

    Parameters
    ----------
    network : torch.nn.Module, MLP, InfiniteMLP or InfiniteRNN
        A module whose parameters exist, or a specification (its names do not depend on widths).
    layers : {"module", "block"} or dict, default="module"

    Returns
    -------
    list of str

    Examples
    --------
    >>> from sklearn_nftk.kernels import layer_names
    >>> from sklearn_nftk.networks import MLP
    >>> layer_names(MLP(hidden_layer_sizes=(64, 64)))
    ['layer0', 'layer1', 'layer2']
    """
    if isinstance(network, InfiniteNetwork):
        return list(group_names(network.layer_names(), layers))
    if not isinstance(network, torch.nn.Module):
        network = build_network(network, 1, 1, _DEFAULT_SEED)
    return [layer.name for layer in group_layers(network, layers)]
