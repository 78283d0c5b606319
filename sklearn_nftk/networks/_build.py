"""From whatever `network` may be to one of our own: a torch module, or an infinite network."""

import copy

import torch
from torch import nn

from ._infinite import InfiniteNetwork
from ._mlp import MLP

ACCEPTED = (
    "None, an MLP, an InfiniteMLP, an InfiniteRNN, a torch.nn.Module, or a function "
    "(n_features, n_outputs, random_state) -> torch.nn.Module"
)


def build_network(network, n_features, n_outputs, random_state):
    """Return a network of our own; what the user owns is not touched.

    A module is in evaluation mode.

    Parameters
    ----------
    network : None, MLP, InfiniteNetwork, torch.nn.Module or callable
        Recognised in this order. None means ``MLP()``. A callable is called as
        ``network(n_features, n_outputs, random_state)`` with torch's global generator seeded, and
        restored afterwards.
    n_features : int
        Width of the input.
    n_outputs : int
        Number of outputs a trained network would have; an untrained `MLP` has one, because in the
        infinite limit all outputs share one kernel.
    random_state : int
        Seed for networks that are drawn here.

    Returns
    -------
    torch.nn.Module or InfiniteNetwork

    Raises
    ------
    ValueError
        If `network` is none of these, or a function that returns something else.
    """
    if network is None:
        network = MLP()
    if isinstance(network, MLP):
        return network.build(n_features, 1, random_state)
    if isinstance(network, InfiniteNetwork):
        return network.fitted_copy()
    if isinstance(network, nn.Module):
        return _private_copy(network)
    if callable(network) and (not isinstance(network, type) or issubclass(network, nn.Module)):
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(random_state)
            built = network(n_features, n_outputs, random_state)
        if isinstance(built, nn.Module):
            return _private_copy(built)
        raise ValueError(
            f"network: the function returned {type(built).__name__}, not a torch.nn.Module."
        )
    raise ValueError(f"network must be {ACCEPTED}; got {network!r}.")


def _private_copy(module):
    try:
        private = copy.deepcopy(module)
    except Exception as error:  # whatever the module's own attributes raise
        raise ValueError(
            f"network: a private copy of it is needed, but copy.deepcopy failed with "
            f"{type(error).__name__}: {error}"
        ) from error
    # Batch statistics and dropout have no per-sample gradient, so evaluation mode it is.
    return private.cpu().eval()
