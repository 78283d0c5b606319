"""When to record: a callback of skorch that counts epochs, whole ones and parts."""

from abc import ABC, abstractmethod

import numpy as np

# Epochs are sums of fractions: what is less apart is one time.
_SAME_TIME = 1e-9


def _nothing(*args, **kwargs):
    """Do nothing."""


class RecordingCallback(ABC):
    """Calls ``record(module, epoch)`` at the beginning, ``every`` so many epochs, and at the end.

    skorch asks of a callback no more than these methods, so that it need not be there where
    records are made by hand. Subclasses are scikit-learn estimators in what they do with
    parameters, have the parameter ``every`` and keep the times of records in ``epochs_``.
    """

    every: float
    epochs_: np.ndarray
    _n_batches: int  # of an epoch; 0 where nobody knows

    def initialize(self):
        """Forget all records; skorch calls it where a training begins anew.

        Returns
        -------
        RecordingCallback
            Itself.
        """
        for name in vars(self).keys() - self.get_params(deep=False).keys():  # type: ignore[attr-defined]
            delattr(self, name)
        return self

    @abstractmethod
    def record(self, module, epoch):
        """Record a module at a time."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Record the beginning, unless the training is continued."""
        self._batches = 0
        if not hasattr(self, "epochs_"):
            self.record(net.module_, 0.0)
            self._done = 0.0  # epochs that are over

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Count the batches of the epoch, where they can be counted."""
        self._batches = 0
        try:
            self._n_batches = len(net.get_iterator(dataset_train, training=True))
        except TypeError:  # a stream: records at ends of epochs
            self._n_batches = 0

    # skorch asks for these, too.
    on_batch_begin = on_grad_computed = staticmethod(_nothing)

    def on_batch_end(self, net, batch=None, training=None, **kwargs):
        """Record, if the time has come."""
        if training and self._n_batches:
            self._batches += 1
            if self._batches < self._n_batches:  # the last one is the end of the epoch
                self._record_if_due(net)

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Record, if the time has come."""
        self._done += 1
        self._batches = 0
        self._record_if_due(net)

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Record the end."""
        if self._now() > self.epochs_[-1] + _SAME_TIME:
            self.record(net.module_, self._now())

    def _now(self):
        return self._done + (self._batches / self._n_batches if self._batches else 0.0)

    def _record_if_due(self, net):
        last, now = self.epochs_[-1], self._now()
        due = (np.floor(last / self.every + _SAME_TIME) + 1) * self.every
        if now >= due - _SAME_TIME:
            self.record(net.module_, now)
