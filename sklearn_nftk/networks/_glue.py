import numpy as np
from sklearn.utils.validation import validate_data

from ..closed_form._sequences import validate_sequences
from ..tangents import TangentKernels
from ..utils._device import resolve_device, resolve_dtype
from ..utils._kernel_source import KernelSource
from ._build import build_network
from ._infinite import InfiniteNetwork
from ._infinite_mlp import InfiniteMLP
from ._infinite_rnn import InfiniteRNN
from ._mlp import MLP


class Old(KernelSource):
    def __init__(self, old, network):
        self.old, self.network = old, network
        self.layer_names = old.layer_names
        self.dtype = np.dtype(str(old.dtype).removeprefix("torch."))
        self.n_outputs = old.n_outputs

    def prepare(self, X):
        return self.old.prepare(X)

    def block(self, a, b=None):
        k = self.old.block(a, b)
        return k if k.ndim == 4 else k[None]

    def diag(self, a):
        k = self.old.diag(a)
        return k if k.ndim == 3 else k[None]

    def tiles(self, batch, progress=None):
        for r, c, t in self.old.tiles(batch):
            yield r, c, t if t.ndim == 4 else t[None]

    def gram(self, batch, progress=None):
        from ..utils._progress import silent

        self.old.progress = progress or silent
        try:
            return self.block(batch)
        finally:
            self.old.progress = silent


def allow_nd(network):
    return not (network is None or isinstance(network, MLP | InfiniteMLP))


def validated(network, estimator, X, y="no_validation", **checks):
    if isinstance(network, InfiniteRNN):
        return validate_sequences(
            estimator,
            X,
            y,
            layout=network.layout,
            **{k: v for k, v in checks.items() if k != "allow_nd"},
        )
    return validate_data(estimator, X, y, **{"allow_nd": allow_nd(network), **checks})


def make_source(
    network,
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
    if isinstance(network, KernelSource):
        return network
    net = build_network(network, X.shape[1], n_outputs, seed)
    if isinstance(net, InfiniteNetwork):
        return Old(
            net.kernel_source(
                X, layers=layers, outputs=outputs, device=device, dtype=dtype, n_jobs=n_jobs
            ),
            net,
        )
    s = TangentKernels(
        net,
        layers=layers,
        outputs=outputs,
        device=resolve_device(device),
        dtype=resolve_dtype(dtype, X.dtype),
        n_jobs=n_jobs,
    )
    s.check(X)
    return Old(s, s.network)
