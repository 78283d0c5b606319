"""Trained models as this room takes them: modules, their outputs on samples, their labels."""

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from ..networks._drawing import as_input, private_copy
from ..networks._modules import ModuleSpecification, recognised
from ..utils._arrays import check_batch
from ..utils._tiles import slices

# Rows of a pass.
_ROWS = 1024


def given_module(model, name):
    """The torch module that a model is or holds, as it is.

    Parameters
    ----------
    model : torch.nn.Module or fitted skorch.NeuralNet
    name : str
        Of the parameter, for errors.

    Raises
    ------
    ValueError
        If it is neither, or some of its parameters have no values yet.
    """
    chosen = recognised(model)
    if type(chosen) is not ModuleSpecification:
        raise ValueError(
            f"{name} must be a torch.nn.Module or a fitted skorch.NeuralNet, got {model!r}."
        )
    for parameter, tensor in chosen.module.named_parameters():
        if is_lazy(tensor):
            raise ValueError(
                f"{name}: {parameter!r} is not initialised yet; apply the network (its Lazy "
                "modules) to a batch once."
            )
    return chosen.module


def own_copy(model, name):
    """A copy of a model's module, on the CPU and in evaluation mode."""
    return private_copy(given_module(model, name))


def passes(module, X):
    """Yield inputs for a module of our own, some rows of validated X after the other."""
    for rows in slices(len(X), _ROWS):
        yield as_input(module, X[rows])


def network_outputs(module, X, name):
    """Outputs of a module of our own, float64 of shape (n, O).

    Raises
    ------
    ValueError
        If it cannot be applied to X, or does not give (n, O).
    """
    parts = []
    with torch.no_grad():
        for x in passes(module, X):
            try:
                outputs = module(x)
            except Exception as error:  # whatever the network itself raises
                raise ValueError(
                    f"{name} cannot be applied to X of shape {X.shape}: {error}"
                ) from error
            if not isinstance(outputs, torch.Tensor) or outputs.shape[:-1] != (len(x),):
                shape = getattr(outputs, "shape", type(outputs).__name__)
                raise ValueError(f"{name} must map (n, ...) to (n, O); its output is {shape}.")
            parts.append(outputs.double().numpy())
    return np.concatenate(parts)


def samples(X, name="X"):
    """Validate samples of any number of dimensions."""
    return check_batch(X, name)
