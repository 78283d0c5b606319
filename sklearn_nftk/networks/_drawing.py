"""Networks that are drawn from global generators: one at a time, seeded, and without a trace."""

import copy
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..utils._random import global_generators

# Samples that lazy modules see: as many as one pass of the engine.
_LAZY_ROWS = 1024


@contextmanager
def seeded(seed):
    """Context in which networks are drawn, whatever surrounds it: see `global_generators`."""
    with torch.inference_mode(False), global_generators(seed):
        yield


def private_copy(module):
    """Copy a module to the CPU, in evaluation mode.

    Batch statistics and dropout have no per-sample gradient.
    """
    # torch copies parameters of lazy modules, but not their buffers.
    lazy = [buffer for buffer in module.buffers() if is_lazy(buffer)]
    memo = {id(b): type(b)(device=b.device, dtype=b.dtype) for b in lazy}  # type: ignore[call-arg]
    try:
        with torch.inference_mode(False):
            private = copy.deepcopy(module, memo)
    except Exception as error:  # whatever the module's own attributes raise
        raise ValueError(
            f"network: a private copy of it is needed, but copy.deepcopy failed with "
            f"{type(error).__name__}: {error}"
        ) from error
    return private.cpu().eval()


def initialise_lazy_modules(module, X):
    """Let modules that infer their shapes see samples; draws from the global generators.

    Raises
    ------
    ValueError
        If the network cannot be applied to X, or does not use a parameter.
    """
    if not _uninitialised(module):
        return
    try:
        with torch.no_grad():
            module(as_input(module, X[:_LAZY_ROWS]))
    except Exception as error:  # whatever the network itself raises
        sizes = ", ".join(map(str, ("n", *np.shape(X)[1:])))
        raise ValueError(
            f"network: its lazy modules cannot be initialised on X of shape ({sizes}): {error}"
        ) from error
    missing = _uninitialised(module)
    if missing:
        raise ValueError(
            f"network: {missing[0]!r} is of a lazy module and still not initialised, because the "
            "network does not use it; run the network once, or leave the module out."
        )


def _uninitialised(module):
    tensors = chain(module.named_parameters(), module.named_buffers())
    return [name for name, tensor in tensors if is_lazy(tensor)]


def as_input(module, X):
    """Samples in the precision of the network; integers stay what they are for look-ups."""
    x = torch.tensor(X)
    looks_up = any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in module.modules())
    if looks_up and not x.is_floating_point():
        return x.long()
    floats = (p.dtype for p in module.parameters() if not is_lazy(p) and p.is_floating_point())
    return x.to(next(floats, torch.get_default_dtype()))
