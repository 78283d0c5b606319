"""Layer kernels of a torch network: the first kernel source."""

from itertools import pairwise

import numpy as np
import torch

from ..utils._device import full_precision
from ..utils._memory import require_memory, working_memory
from ..utils._progress import progress
from ._capture import capture
from ._check import check_network, failing_layers
from ._generic import generic_factor
from ._layers import group_layers
from ._rules import rule_for

# Wide enough for the matrix products to run at full speed, small enough to stay near the cache.
_TILE_ROWS = 1024


class TangentKernels:
    """Layer kernels of a network: names, blocks and diagonals.

    ``Theta_l(x, z) = (1/O) sum_o <d f_o(x)/d theta_l, d f_o(z)/d theta_l>`` (DESIGN 1; Jacot et
    al. 2018, one layer at a time).

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; used, never modified.
    layers : {"module", "block"} or dict
        See `group_layers`.
    device : torch.device
    dtype : torch.dtype
    verbose : int
        1 or more shows progress over the tiles.

    Attributes
    ----------
    layer_names : list of str
    """

    def __init__(self, network, *, layers="module", device="cpu", dtype=torch.float64, verbose=0):
        self.device = torch.device(device)
        self.dtype = dtype
        self.verbose = verbose
        self.network = network.to(device=self.device, dtype=dtype)
        self.layers = group_layers(self.network, layers)
        self.layer_names = [layer.name for layer in self.layers]
        self._modules, self._plan = _plan(self.network, self.layers)

    def check(self, X, n_checked=3):
        """Compare with autograd on a few samples; what the rules miss goes the generic way.

        Raises
        ------
        ValueError
            If the network does not give (n, O), mixes the samples of a batch, or a layer's kernel
            cannot be computed exactly.
        """
        x = self._tensor(X[:n_checked])
        check_network(self.network, x)
        for layer in failing_layers(self, x):
            index = self.layer_names.index(layer)
            self._plan[index] = [(None, self.layers[index].parameters)]
        still_failing = failing_layers(self, x)
        if still_failing:
            raise ValueError(
                f"network: the tangent kernel of layer {still_failing[0]!r} does not agree with "
                "autograd's own gradients, not even the generic way; the network may compute "
                "something else at each call."
            )

    def prepare(self, X):
        """Do what is done once per sample: factors of every layer, accepted instead of X."""
        if isinstance(X, PreparedBatch):
            return X
        return PreparedBatch.concatenate(
            [self._factors(self._tensor(X[rows])) for rows in _slices(len(X), _TILE_ROWS)]
        )

    def block(self, X, Y=None):
        """Layer kernels between two batches.

        Parameters
        ----------
        X, Y : array of shape (n, ...) and (m, ...), or what `prepare` returned
            ``Y=None`` means X with itself: half the work, an exactly symmetric result.

        Returns
        -------
        ndarray of shape (L, n, m)
            One contiguous plane for each layer.

        Raises
        ------
        ValueError
            If a kernel value is not finite; the message names the layer.
        MemoryError
            If the result does not fit.
        """
        symmetric = Y is None
        X = self.prepare(X)
        Y = X if symmetric else self.prepare(Y)
        for batch in (X,) if symmetric else (X, Y):
            self._require_finite(batch)
        shape = (len(self.layers), len(X), len(Y))
        itemsize = self.dtype.itemsize
        require_memory(itemsize * np.prod(shape, dtype=object), f"A kernel stack of shape {shape}")
        out = torch.empty(shape, dtype=self.dtype)
        tiles = list(_tiles(len(X), len(Y), symmetric, self._tile_rows()))
        with progress(len(tiles), "layer kernels", enabled=self.verbose) as bar:
            for rows, columns in tiles:
                self._tile(X[rows], Y[columns], out[:, rows, columns])
                if symmetric:
                    _mirror(out, rows, columns)
                bar.update()
        return out.numpy()

    def diag(self, X):
        """``Theta_l(x, x)`` of shape (L, n) in O(n) time and memory."""
        X = self.prepare(X)
        self._require_finite(X)
        return X.diagonals().cpu().numpy()

    def _tile(self, X, Y, out):
        """One tile of every layer: parts of a layer add up."""
        with full_precision():
            for index, parts in enumerate(self._plan):
                plane = out[index]
                direct = plane.device == self.device
                total = plane if direct else torch.empty(plane.shape, dtype=self.dtype,
                                                         device=self.device)  # fmt: skip
                for position in range(len(parts)):
                    x, y = X.factors[index][position], Y.factors[index][position]
                    if position == 0:
                        x.gram(y, out=total)
                    else:
                        total += x.gram(y, out=torch.empty_like(total))
                if not direct:
                    plane.copy_(total)

    def _tile_rows(self):
        # Two tiles are at work at once: the product of activations and that of gradients.
        affordable = int((working_memory() / (3 * self.dtype.itemsize)) ** 0.5)
        return max(1, min(_TILE_ROWS, affordable))

    def _factors(self, x):
        """Factors of one batch: one forward pass, O backward passes."""
        with full_precision():
            _, uses = capture(self.network, x, self._modules)
            factors = [
                [self._factor(x, uses, module, parameters) for module, parameters in parts]
                for parts in self._plan
            ]
        return PreparedBatch(factors)

    def _factor(self, x, uses, module, parameters):
        if module is not None and uses[module]:
            return rule_for(self._modules[module])(self._modules[module], parameters, uses[module])
        prefix = "" if not module else f"{module}."
        return generic_factor(self.network, x, [prefix + name for name in parameters])

    def _require_finite(self, batch):
        # |Theta(x, z)|^2 <= Theta(x, x) Theta(z, z): finite diagonals are enough.
        finite = batch.diagonals().isfinite().all(1).tolist()
        for name, ok in zip(self.layer_names, finite, strict=True):
            if not ok:
                raise ValueError(
                    f"layer {name!r} has kernel values that are NaN or infinite: the network "
                    "overflows on X; scale X or use dtype='float64'."
                )

    def _tensor(self, X):
        if isinstance(X, torch.Tensor):
            return X.to(device=self.device, dtype=self.dtype)
        return torch.as_tensor(np.ascontiguousarray(X), device=self.device, dtype=self.dtype)


class PreparedBatch:
    """Factors of a batch: ``factors[layer][part]``, sliced by rows."""

    def __init__(self, factors):
        self.factors = factors

    def __len__(self):
        return len(self.factors[0][0])

    def __getitem__(self, rows):
        return PreparedBatch([[part[rows] for part in parts] for parts in self.factors])

    @classmethod
    def concatenate(cls, batches):
        """Join batches of samples."""
        if len(batches) == 1:
            return batches[0]
        return cls(
            [
                [type(parts[0]).concatenate(parts) for parts in zip(*layer, strict=True)]
                for layer in zip(*(batch.factors for batch in batches), strict=True)
            ]
        )

    def diagonals(self):
        """Squared gradient norms, a tensor of shape (L, n)."""
        return torch.stack([sum(part.diagonal() for part in parts) for parts in self.factors])


def _plan(network, layers):
    """For each layer its parts: (module name, own parameter names), or (None, full names).

    A part with a module goes by that module's rule; one without goes the generic way. Parameters
    that several modules share go the generic way, where their gradients add up by themselves.
    """
    modules = dict(network.named_modules())
    owners: dict[torch.Tensor, int] = {}
    for module in modules.values():
        for parameter in module.parameters(recurse=False):
            owners[parameter] = owners.get(parameter, 0) + 1
    by_name = dict(network.named_parameters())
    watched, plan = {}, []
    for layer in layers:
        by_rule: dict[str, set[str]] = {}
        by_hand = []
        for full_name in layer.parameters:
            module_name, _, name = full_name.rpartition(".")
            if rule_for(modules[module_name]) and owners[by_name[full_name]] == 1:
                by_rule.setdefault(module_name, set()).add(name)
                watched[module_name] = modules[module_name]
            else:
                by_hand.append(full_name)
        plan.append(list(by_rule.items()) + ([(None, tuple(by_hand))] if by_hand else []))
    return watched, plan


def _mirror(out, rows, columns):
    tile = out[:, rows, columns]
    if rows == columns:  # matrix products are symmetric up to rounding only
        tile.copy_((tile + tile.mT) / 2)
    else:
        out[:, columns, rows] = tile.mT


def _slices(n, size):
    edges = [*range(0, n, size), n]
    return [slice(a, b) for a, b in pairwise(edges)]


def _tiles(n, m, symmetric, size):
    """Row and column slices of all tiles; of the upper half when the block is symmetric."""
    for i, rows in enumerate(_slices(n, size)):
        for columns in _slices(m, size)[i if symmetric else 0 :]:
            yield rows, columns
