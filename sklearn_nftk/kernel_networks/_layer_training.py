"""Training of one layer: its head, on a basis that stays as it is, by skorch."""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset

from ..utils._device import free_memory
from ..utils._skorch import epoch_callback, import_skorch, train_net


class Rows(Dataset):
    """Inputs of a head, and targets; taken a batch at a time.

    Parameters
    ----------
    layer : KernelLayer or ModuleLayer
        Its basis is computed once where that fits the memory for temporary arrays, and else for
        each batch.
    inputs : tensor of shape (n, ...)
    targets : tensor of shape (n, k + 1)
        Weights are the last column.
    """

    def __init__(self, layer, inputs, targets):
        self.inputs, self.targets, self.basis = inputs, targets, layer.basis
        n_bytes = 4 * len(inputs) * layer.width_of_basis * inputs.element_size()
        if n_bytes <= free_memory(inputs.device):
            self.inputs, self.basis = layer.basis(inputs), None

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, rows):
        inputs = self.inputs[rows]
        return inputs if self.basis is None else self.basis(inputs), self.targets[rows]


class EvenBatches:
    """Batches of rows, of about equal sizes and at most `batch_size`.

    Parameters
    ----------
    n, batch_size : int
    shuffle : bool
        By torch's global generator.
    """

    def __init__(self, n, batch_size, *, shuffle):
        self.n, self.shuffle = n, shuffle
        self.n_batches = -(-n // batch_size)

    def __len__(self):
        return self.n_batches

    def __iter__(self):
        rows = torch.randperm(self.n) if self.shuffle else torch.arange(self.n)
        return iter(rows.tensor_split(self.n_batches))


def batches(dataset, batch_size, *, shuffle=False):
    """Loader of whole batches, which are not put together row by row."""
    sampler = EvenBatches(len(dataset), batch_size, shuffle=shuffle)
    return DataLoader(dataset, sampler=sampler, batch_size=None)


def train_head(head, rows, criterion, penalty, held_out=None, *, settings, common, bar):
    """Train a head by Adam, with steps that fall to zero along a cosine.

    Parameters
    ----------
    head : torch.nn.Module
        On the device of the rows.
    rows : Rows
    criterion : torch.nn.Module
        Loss of outputs for targets.
    penalty : callable
        From the head to what is added to the loss.
    held_out : Rows, default=None
        Of which the loss stops the training, and chooses its best epoch.
    settings : LayerSettings
    common : object
        Has the attributes ``batch_size`` and ``n_iter_no_change``.
    bar : progress bar
        Hears of each epoch.

    Returns
    -------
    loss_curve, alignment_curve : ndarray of shape (n_epochs,)
        Means over the batches of an epoch; alignments are nan for an output layer.

    Raises
    ------
    ValueError
        If the training diverged.
    """
    skorch = import_skorch()
    callbacks = [
        ("alignment", skorch.callbacks.PassthroughScoring("alignment", on_train=True)),
        ("steps", skorch.callbacks.LRScheduler(CosineAnnealingLR, T_max=int(settings.epochs))),
        ("bar", epoch_callback(bar)),
    ]
    if held_out is not None:
        stop = skorch.callbacks.EarlyStopping(
            patience=common.n_iter_no_change, load_best=True, sink=skorch.utils.noop
        )
        callbacks.append(("stop", stop))
    net = _head_net()(
        head,
        criterion=criterion,
        penalty=penalty,
        optimizer=Adam,
        lr=float(settings.learning_rate),
        max_epochs=int(settings.epochs),
        batch_size=int(common.batch_size),
        iterator_train=batches,
        iterator_train__shuffle=True,
        iterator_valid=batches,
        train_split=None if held_out is None else lambda *_, **__: (rows, held_out),
        callbacks=callbacks,
        device=None,  # everything is where it belongs
        verbose=0,
    )
    train_net(net.initialize(), rows)
    for name, parameter in net.module_.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"training diverged, {name!r} is not finite; lower learning_rates.")
    curves = (net.history[:, name] for name in ("train_loss", "alignment"))
    loss_curve, alignment_curve = (np.array(curve, dtype=float) for curve in curves)
    return loss_curve, alignment_curve


@cache
def _head_net():
    """Class derived from that of skorch, which is loaded where something is trained."""
    base: Any = import_skorch().NeuralNet

    class HeadNet(base):
        """Adds a penalty to the loss, and remembers alignments of batches."""

        def __init__(self, module, criterion, penalty, **options):
            super().__init__(module, criterion, **options)
            self.penalty = penalty

        def get_loss(self, y_pred, y_true, X=None, training=False):
            loss = super().get_loss(y_pred, y_true, X=X, training=training)
            if not training:
                return loss
            alignment = getattr(self.criterion_, "alignment", float("nan"))
            self.history.record_batch("alignment", alignment)
            return loss + self.penalty(self.module_)

    return HeadNet
