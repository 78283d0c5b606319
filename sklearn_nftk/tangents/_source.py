"""Layer kernels of a torch network: the first kernel source."""

import copy
import math
import threading
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch

from ..utils._arrays import check_batch
from ..utils._device import empty, resolve_device, resolve_dtype
from ..utils._kernel_source import KernelSource
from ..utils._memory import require_memory
from ..utils._progress import silent
from ..utils._random import global_generators
from ..utils._threads import n_workers
from ..utils._tiles import slices, with_smaller_tiles
from ._assembly import gathered, shared_tiles, write_in_turn
from ._batches import Batch
from ._capture import HEADS
from ._check import check_network
from ._expansion import TangentExpansion
from ._layers import Layer, group_layers
from ._module import check_module, replace_inference_tensors
from ._operands import Operands, Slices
from ._passes import Passes
from ._sizes import Sizes
from ._tiles import matched_slices

# Samples that are checked at first: of a network that does the same to every batch, of any other.
_CHECKED_OF_ONE_WAY, _CHECKED_SAMPLES = 3, 8
_CHECKED_HEADS = 4
# Pairs of samples from which tiles are shared by threads.
_SHARED_PAIRS = 2**16


class TangentKernels(KernelSource):
    """Layer kernels of a network: names, blocks and diagonals.

    ``Theta_l(x, z) = sum_h <d f_h(x)/d theta_l, d f_h(z)/d theta_l>`` over heads ``f_h`` made of
    the outputs (Jacot et al. 2018, one layer at a time). Call `check` before anything else. ::

        X, validated --prepare--> Batch: X and its Factors, or deferred where they do not fit
                                    |
             _factors_of            |  Passes: forward and backward passes, rules, autograd, and
                                    |  some rows compared with autograd's own gradients
                                    v
             Operands            Factors of slices of the batch, all heads or a share of them
                                    |
             shared_tiles           |  matrix products, in threads or processes on the CPU
             write_in_turn          v
                                 tiles (H, L, rows, columns) --> block, gram, tiles

    Everything left of the factors belongs to the network and goes one thread at a time. How much
    is treated at once is decided in `_sizes`, by which way factors are made in `_plan`: where the
    plan changes, batches that were made by an older one are made again from their samples.

    Parameters
    ----------
    network : torch.nn.Module
        Belongs to the source, which puts it into evaluation mode, on its device and in its dtype.
    layers : {"module", "block"} or dict
        See `group_layers`.
    outputs : {"mean", "sum", "per_class", "difference"}
        What is kernelised of several outputs, one entry of `HEADS`.
    device : torch.device or str
    dtype : torch.dtype or numpy.dtype
    n_jobs : int or None
        Tiles computed at once.
    specification : object, optional
        What the network was made from. Its ``restore(arrays)`` makes it again from ``{name:
        ndarray}`` of parameters and buffers: sources are then stored without any object of torch.

    Attributes
    ----------
    layer_names : list of str
    dtype : numpy.dtype
        Of the kernels.
    n_outputs : int
        After `check`.
    """

    def __init__(
        self,
        network,
        *,
        layers="module",
        outputs="mean",
        device="cpu",
        dtype="float64",
        n_jobs=None,
        specification=None,
    ):
        check_module(network)
        self.outputs = outputs
        self.n_jobs = n_jobs
        self.specification = specification
        self._build(network, group_layers(network, layers), device, dtype)

    def _build(self, network, layers, device, dtype):
        self._lock = threading.RLock()
        self._draws = False  # whether the network draws numbers, to no effect
        self.n_outputs = None  # until `check`
        self._n_heads = 0
        self.device = torch.device(device)
        self._dtype = resolve_dtype(dtype, None)
        self.dtype = np.dtype(str(self._dtype).removeprefix("torch."))
        self._heads, self.per_output = HEADS[self.outputs]
        with self._passing():
            replace_inference_tensors(network)
            self._network = network.eval().to(device=self.device, dtype=self._dtype)
        self.layers = layers
        self.layer_names = [layer.name for layer in layers]
        self._sizes = Sizes(self.device, self.dtype.itemsize)
        self.passes = Passes(
            self._network, layers, self.device, self._dtype, self._sizes, self.n_jobs
        )

    def check(self, X):
        """Decide how each layer is computed, and compare with autograd on a few samples.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            The samples are spread over it.

        Raises
        ------
        ValueError
            If the network does not give (n, O), has no gradient, mixes the samples of a batch, or
            a layer's kernel cannot be computed exactly.
        """
        X = check_batch(X)
        one_way = self.passes.takes_one_way
        n = min(len(X), _CHECKED_OF_ONE_WAY if one_way else _CHECKED_SAMPLES)
        # Samples between the first and the last, and others beside them.
        positions = np.linspace(0, len(X) - 1, n).astype(int).tolist()
        others = [(row + max(1, len(X) // (2 * n))) % len(X) for row in positions]
        with self._passing(), global_generators() as untouched:
            x = self.passes.tensor(X[positions])
            outputs = check_network(
                self._network, x, self.passes.tensor(X[others]), positions, one_way=one_way
            )
            self.n_outputs = outputs.shape[1]
            self._n_heads = self._heads(outputs[:0]).shape[1]
            self.passes.begin(x, positions, *self._few_heads())
            self._draws = not untouched()

    def _few_heads(self):
        """Stand for many heads: gradients are linear, so random combinations tell of all."""
        if self._n_heads <= _CHECKED_HEADS:
            return self._heads, self._n_heads
        generator = torch.Generator().manual_seed(0)
        mixture = torch.randn(self._n_heads, _CHECKED_HEADS, generator=generator)
        mixture = mixture.to(dtype=self._dtype, device=self.device)
        return lambda f: self._heads(f) @ mixture, _CHECKED_HEADS

    @property
    def autograd_layers(self):
        """Names of the layers of which some parameter goes by autograd; after `check`."""
        return self.passes.plan.autograd_layers

    @property
    def network(self):
        """The torch module, in evaluation mode on the CPU."""
        if self.device.type == "cpu":
            return self._network
        return copy.deepcopy(self._network).cpu()

    def network_outputs(self, X):
        """Outputs of the network in evaluation mode.

        Parameters
        ----------
        X : array-like or torch.Tensor of shape (n, ...)

        Returns
        -------
        ndarray of shape (n, O)
        """
        with self._passing():
            return self.passes.outputs(check_batch(X)).numpy()

    # -- the contract ---------------------------------------------------------------------------

    def prepare(self, X):
        """Validate samples and make their factors.

        Parameters
        ----------
        X : array-like or torch.Tensor of shape (n, ...)

        Returns
        -------
        Batch
            With slices, a length, and `nbytes`. It refers to X, of which no copy is made.

        Raises
        ------
        ValueError
            If the network cannot be applied to X, mixes its samples, or a kernel value is not
            finite or cannot be computed exactly.
        """
        batch = Batch(check_batch(X))
        if self._sizes.heads_at_once(len(batch)) >= self._n_heads:
            batch.factors = self._factors_of(batch.X)
        return batch

    def block(self, batch, other=None):
        """Layer kernels between two batches.

        Parameters
        ----------
        batch, other : what `prepare` returned, n and m samples
            ``other=None`` means the batch with itself: half the work, exactly symmetric planes.

        Returns
        -------
        ndarray of shape (H, L, n, m)
            One contiguous plane for each layer; H = 1 unless there are per-output kernels.

        Raises
        ------
        ValueError
            If a kernel value is not finite; the message names the layer.
        MemoryError
            If the result does not fit.
        """
        return self._kernels(batch, other, silent)

    def gram(self, batch, progress=None):
        """Kernels of a batch with itself, see `block`."""
        return self._kernels(batch, None, progress or silent)

    def tiles(self, batch, progress=None):
        """Yield the upper half of the kernels of a batch with itself, see `KernelSource.tiles`."""
        factors = self._current(batch)
        if factors is not None and self.device.type == "cpu":
            yield from shared_tiles(
                factors, per_output=self.per_output, n_jobs=self.n_jobs, progress=progress
            )
            return
        size = self._tile_rows(0 if factors is not None else self._n_heads)
        n_sides = len(slices(len(batch), size))
        with (progress or silent)(n_sides * (n_sides + 1) // 2, "layer kernels") as bar:
            pairs = matched_slices(self._slices(batch, self._all_heads), None, size)
            for rows, columns, x, y in pairs:
                other = None if y is None else Batch(batch.X[columns], y)
                yield rows, columns, self.block(Batch(batch.X[rows], x), other)
                bar.update()

    def diag(self, batch):
        """Kernels of each sample with itself, shape (H, L, n), in O(n) time and memory."""
        factors = self._current(batch)
        diagonals = self._deferred_diagonals(batch) if factors is None else factors.diagonals()
        diagonals = diagonals.cpu().numpy()
        return diagonals if self.per_output else diagonals.sum(axis=0, keepdims=True)

    def expansion(self, X, dual_coef, coefficients, *, normed=False):
        """Kernel expansions that autograd differentiates, see `KernelSource.expansion`."""
        return TangentExpansion(
            self.passes,
            self._passing,
            self._heads,
            X,
            dual_coef,
            coefficients,
            per_output=self.per_output,
            normed=normed,
        )

    # -- kernels from factors -------------------------------------------------------------------

    def _kernels(self, batch, other, progress):
        n_columns = len(batch if other is None else other)
        shape = (self._n_kernels, len(self.layers), len(batch), n_columns)
        n_bytes = self.dtype.itemsize * math.prod(shape)
        require_memory(n_bytes, f"A kernel stack of shape {shape}")
        operands = Operands(
            batch, other, self._current, self._factors_of, self._sizes, self._n_heads
        )
        factors = operands.kept()
        large = len(batch) * n_columns >= _SHARED_PAIRS
        if factors and large and self.device.type == "cpu" and n_workers(self.n_jobs) > 1:
            return gathered(
                *factors, per_output=self.per_output, n_jobs=self.n_jobs, progress=progress
            )

        def written(size):
            # On a GPU kernels stay where they are computed if they fit there.
            resident = self._may_stay(n_bytes)
            out = empty(shape, self._dtype, self.device if resident else torch.device("cpu"))
            streamed = None if resident else self.device
            write_in_turn(
                out, operands, size,
                per_output=self.per_output, streamed=streamed, progress=progress,
            )  # fmt: skip
            return out.cpu().numpy()

        return with_smaller_tiles(written, self._tile_rows(operands.made_heads))

    def _may_stay(self, n_bytes):
        return self._sizes.fits_on_device(n_bytes)

    def _tile_rows(self, made_heads=0):
        return self._sizes.tile_rows(self._n_kernels, made_heads)

    @property
    def _n_kernels(self):
        return self._n_heads if self.per_output else 1

    # -- factors from batches -------------------------------------------------------------------

    @contextmanager
    def _passing(self):
        """Have the network to oneself, with gradients, and leave global generators alone."""
        generators = global_generators() if self._draws else nullcontext()
        with self._lock, torch.inference_mode(False), torch.enable_grad(), generators:
            yield

    @property
    def _all_heads(self):
        return slice(0, self._n_heads)

    def _factors_of(self, X, heads=None):
        """Factors of samples, for all heads or a slice of them."""
        with self._passing():
            generator = torch.Generator().manual_seed(1)
            weights = torch.randn(self._n_heads, generator=generator, dtype=self._dtype)
            weights = weights.to(self.device)
            if heads is None or heads == self._all_heads:
                return self.passes.factors(X, self._heads, weights)
            return self.passes.factors(X, lambda f: self._heads(f)[:, heads], weights[heads])

    def _current(self, batch):
        """Factors of a batch by the plan as it is now; None for a deferred batch."""
        if not isinstance(batch, Batch):
            raise TypeError(f"A batch is what `prepare` returned, got {type(batch).__name__}.")
        factors = batch.factors
        if factors is not None and factors.version != self.passes.plan.version:
            batch.factors = factors = self._factors_of(batch.X)
        return factors

    def _slices(self, batch, heads):
        """Return a sequence whose slices are factors of some heads."""
        return Slices(batch, self._current, partial(self._factors_of, heads=heads))

    def _deferred_diagonals(self, batch):
        size = self._tile_rows(self._n_heads)
        n_heads = min(self._n_heads, max(1, self._sizes.heads_at_once(size)))
        of_heads = []
        for heads in slices(self._n_heads, n_heads):
            x = self._slices(batch, heads)
            size = self._tile_rows(n_heads)
            of_heads.append(torch.cat([x[r].diagonals() for r in slices(len(x), size)], dim=2))
        return torch.cat(of_heads)

    # -- on their way to another process or machine ---------------------------------------------

    def __getstate__(self):
        network = self.network
        state = {
            "outputs": self.outputs,
            "n_jobs": self.n_jobs,
            "device": str(self.device),
            "dtype": self.dtype.name,
            "layers": [[layer.name, list(layer.parameters)] for layer in self.layers],
            "n_outputs": self.n_outputs,
            "n_heads": self._n_heads,
            "draws": self._draws,
            "specification": self.specification,
            "passes": self.passes.state(),
        }
        if self.specification is None:
            return {**state, "network": network}
        tensors = (*network.named_parameters(), *network.named_buffers())
        return {**state, "arrays": {name: t.detach().numpy().copy() for name, t in tensors}}

    def __setstate__(self, state):
        self.outputs, self.n_jobs = state["outputs"], state["n_jobs"]
        self.specification = state["specification"]
        if self.specification is None:
            network = state["network"]
        else:
            network = self.specification.restore(state["arrays"]).eval()
        layers = [Layer(name, tuple(parameters)) for name, parameters in state["layers"]]
        device = resolve_device(state["device"], fallback=True)
        self._build(network, layers, device, state["dtype"])
        self.n_outputs, self._n_heads = state["n_outputs"], state["n_heads"]
        self._draws = state["draws"]
        self.passes.restore(state["passes"])
