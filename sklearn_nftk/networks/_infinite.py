"""The base of specifications of infinitely wide networks."""

import numpy as np
from sklearn.base import BaseEstimator, clone

from ..utils._device import resolve_device, resolve_dtype
from ..utils._groups import check_layers, group_by_patterns


class InfiniteNetwork(BaseEstimator):
    """An infinitely wide network, described the scikit-learn way; its kernels are closed forms.

    Subclasses define `validate`, `check_batch`, `_names`, `_is_readout` and `_source`.
    """

    def kernel_source(
        self,
        X,
        y=None,
        sample_weight=None,
        seed=0,
        *,
        layers="module",
        outputs="mean",
        device="auto",
        dtype="auto",
        n_jobs=None,
        n_outputs=1,
    ):
        """Kernel source (`sklearn_nftk.kernels.KernelSource`) for data like X.

        Parameters
        ----------
        X : array-like of n samples
            The training set.
        y, sample_weight, seed, n_outputs
            Of no influence: nothing is trained nor drawn, and all outputs share one kernel.
        layers, outputs, device, dtype, n_jobs
            As in `sklearn_nftk.kernels.layer_kernels`; ``dtype="auto"`` is float64.

        Returns
        -------
        ClosedFormKernels

        Raises
        ------
        ValueError
            For parameters that are not acceptable, by their names.
        """
        self.validate()
        if outputs not in ("mean", "sum"):
            raise ValueError(
                "outputs='per_class' has no meaning for an infinitely wide network, all of whose "
                "outputs share one kernel; use outputs='mean'."
            )
        dtype = resolve_dtype(dtype, np.dtype(np.float64))
        return self._source(
            self.check_batch(X),
            network=clone(self),
            layers=layers,
            device=resolve_device(device),
            dtype=str(dtype).removeprefix("torch."),
            n_jobs=n_jobs,
        )

    def layer_names(self, layers="module"):
        """Names of the layers, without any data."""
        self.validate()
        check_layers(layers)
        names = self._names()
        return list(group_by_patterns(names, layers)) if isinstance(layers, dict) else names

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
        self.validate()
        X = self.check_batch(X)
        names = self._names(X)
        readout = [name for name in names if self._is_readout(name)]
        rest = [name for name in names if name not in readout]
        layers = {"rest": rest, "readout": readout} if rest else {"readout": readout}
        source = self.kernel_source(X, layers=layers, device=device)
        batch = source.prepare(X)
        other = None if Y is None else source.prepare(self.check_batch(Y, "Y"))
        return source.block(batch, other)[0, -1]
