"""What specifications of infinitely wide networks share."""

from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, clone

from ..utils._device import resolve_device, resolve_dtype


class InfiniteNetwork(BaseEstimator):
    """An infinitely wide network, described the scikit-learn way; its kernels are closed forms.

    Subclasses define `validate`, `check_batch`, `layer_names` and `_source`.
    """

    accepts_sequences = False

    def kernel_source(
        self, X, *, layers="module", outputs="mean", device="auto", dtype="auto", n_jobs=None
    ):
        """Kernel source (`sklearn_nftk.kernels.KernelSource`) for data like X.

        Parameters
        ----------
        X : array
            What `check_batch` returned for the training set.
        layers, outputs, device, dtype, n_jobs
            As in `sklearn_nftk.kernels.layer_kernels`; ``dtype="auto"`` is float64.
        """
        self.validate()
        if outputs == "per_class":
            raise ValueError(
                "outputs='per_class' has no meaning for an infinitely wide network, all of whose "
                "outputs share one kernel; use outputs='mean'."
            )
        return self._source(
            X,
            layers=layers,
            device=resolve_device(device),
            dtype=resolve_dtype(dtype, np.dtype(np.float64)),
            n_jobs=n_jobs,
        )

    def nngp(self, X, Y=None, *, device="auto"):
        """Covariance of the outputs at initialisation: the kernel of the read-out alone (NNGP).

        Parameters
        ----------
        X : array-like of n samples
        Y : array-like of m samples, default=None
            None means X.
        device : str or torch.device, default="auto"

        Returns
        -------
        ndarray of shape (n, m), float64
        """
        X = self.check_batch(X)
        Y = None if Y is None else self.check_batch(Y, "Y")
        source = self.kernel_source(X, layers=self._readout_apart(X), device=device)
        return source.block(X, Y)[-1]

    def _readout_apart(self, X):
        """Layers of which the last is the whole read-out."""
        names = self.layer_names(X)
        readout = [name for name in names if self._is_readout(name)]
        rest = [name for name in names if name not in readout]
        return {"rest": rest, "readout": readout} if rest else {"readout": readout}

    def fitted_copy(self):
        """Return what an estimator keeps."""
        self.validate()
        return clone(self)


def check_depth(depth):
    """Refuse what is not a number of hidden layers."""
    if isinstance(depth, bool) or not isinstance(depth, Integral) or depth < 1:
        raise ValueError(f"depth must be an integer >= 1, got {depth!r}.")
