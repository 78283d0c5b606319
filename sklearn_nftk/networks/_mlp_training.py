"""Training of an `MLP`: a skorch net of its effective weights, written in its parametrisation."""

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state
from torch import nn

from ..utils._device import resolve_device
from ..utils._skorch import import_skorch
from ._training import train

# Of early stopping: share of the rows that is held out, and epochs that may bring nothing.
_HELD_OUT, _PATIENCE = 0.1, 10


@torch.inference_mode(False)
def trained_mlp(specification, X, y, sample_weight, seed, n_outputs, device, progress):
    """Draw the network of a specification and train it.

    Parameters
    ----------
    specification : MLP
    X : ndarray of shape (n, d)
    y, sample_weight, seed, n_outputs, device, progress
        As in `MLP.kernel_source`.

    Returns
    -------
    torch.nn.Sequential
        As `MLP.build` returns it.
    """
    skorch = import_skorch()
    own = specification.random_state
    seed = int(check_random_state(seed if own is None else own).randint(np.iinfo(np.int32).max))
    # Targets of any unit are learned alike; the read-out takes the unit back in the end.
    unit, center = np.ones(1), np.zeros(1)
    classifies = y is not None and np.issubdtype(y.dtype, np.integer)
    if classifies:
        n_outputs = max(n_outputs, int(y.max()) + 1)
    elif y is not None:
        y = y.reshape(len(y), -1)
        center = np.average(y, axis=0, weights=sample_weight)
        unit = np.sqrt(np.average((y - center) ** 2, axis=0, weights=sample_weight))
        unit = np.where(unit > 0, unit, 1.0)
        y, n_outputs = (y - center) / unit, y.shape[1]
    standard = clone(specification).set_params(parametrization="standard")
    module = standard.build(X.shape[1], n_outputs, seed).float()
    layers = [layer for layer in module if isinstance(layer, nn.Linear)]
    sizes = [X.shape[1], *(layer.out_features for layer in layers)]
    deviations = specification.deviations(sizes)
    for layer, (_, of_bias) in zip(layers, deviations, strict=True):
        layer.bias.requires_grad_(of_bias > 0)
    net = _net(skorch, specification, module, classifies, resolve_device(device), seed)
    train(net, X, y, sample_weight, seed, progress).cpu()
    layers[-1].double()
    with torch.no_grad():
        layers[-1].weight.mul_(torch.as_tensor(unit).reshape(-1, 1))
        layers[-1].bias.mul_(torch.as_tensor(unit)).add_(torch.as_tensor(center))
    arrays = {}
    for i, (layer, scales) in enumerate(zip(layers, deviations, strict=True)):
        for name, scale in zip(("weight", "bias"), scales, strict=True):
            values = getattr(layer, name).detach().double().numpy()
            divisor = scale if specification.parametrization == "ntk" and scale > 0 else 1.0
            arrays[f"layer{i}.{name}"] = values / divisor
    return specification.restore(arrays)


def _net(skorch, specification, module, classifies, device, seed):
    split = skorch.dataset.ValidSplit(_HELD_OUT, stratified=classifies, random_state=seed)
    stop = skorch.callbacks.EarlyStopping(
        patience=_PATIENCE, load_best=True, sink=skorch.utils.noop
    )
    return skorch.NeuralNet(
        module,
        criterion=nn.CrossEntropyLoss if classifies else nn.MSELoss,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=float(specification.weight_decay),
        lr=float(specification.lr),
        max_epochs=specification.max_epochs,
        batch_size=specification.batch_size,
        iterator_train__shuffle=True,
        train_split=split if specification.early_stopping else None,
        callbacks=[stop] if specification.early_stopping else None,
        device=str(device),
        verbose=0,
    )
