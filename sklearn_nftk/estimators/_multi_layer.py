"""What estimators on networks share: a network of their own, its kernel source, and decisions."""

import numpy as np
from sklearn.utils import check_random_state

from ..grams import StoredGrams, StreamedGrams, cosine_normalise
from ..networks import NetworkParameter, allow_nd, make_source, validated
from ..utils._memory import fits
from ..utils._progress import progress
from ._base import BaseMultipleKernelMachine


class BaseMultiLayerNTK(NetworkParameter, BaseMultipleKernelMachine):
    """Adds to the learner the chain network -> layers -> factors -> layer kernels.

    Subclasses provide the parameters ``network, layers, outputs, device, dtype, n_jobs,
    random_state, verbose``.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = self._allow_nd()
        return tags

    def _allow_nd(self):
        return allow_nd(self.network)

    def _validated(self, X, y="no_validation", **checks):
        return validated(self.network, self, X, y, **checks)

    def _rows(self, X, kept):
        return X[kept]

    def _fit_layers(self, X, Y, s, sample_weight, n_outputs, report):
        """Fit on validated rows; `n_outputs` is what a network drawn here would need."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        self._source = make_source(
            self.network, X, seed=int(seed), layers=self.layers, outputs=self._heads(),
            device=self.device, dtype=self.dtype, n_jobs=self.n_jobs, n_outputs=n_outputs,
        )  # fmt: skip
        self.network_ = getattr(self._source, "network", self._source)
        source = self._kernel_source(X, fitted=False)
        source.progress = report
        self._check_outputs(source, n_outputs)
        grams = self._layer_grams(source, X, Y.shape[1])
        self._fit_grams(grams, source.layer_names, Y, s, sample_weight, report)
        self.X_fit_ = X
        return self

    def _kernel_source(self, X, *, fitted):
        """TEMPORARY: the old interface of sources."""
        return _OldSource(self._source)

    def _heads(self):
        """What is kernelised of the outputs; one decision on two classes is their difference."""
        two_classes = len(getattr(self, "classes_", ())) == 2
        return "difference" if self.outputs == "per_class" and two_classes else self.outputs

    def _check_outputs(self, source, n_outputs):
        if self.outputs == "per_class" and source.n_outputs != n_outputs:
            raise ValueError(
                "outputs='per_class' needs a network with one output for each class or target: "
                f"{n_outputs}, not {source.n_outputs}. Use outputs='mean' for other networks."
            )

    def _layer_grams(self, source, X, n_decisions):
        """The kernels of the training set, in memory if they fit there beside the solver."""
        n_families = n_decisions if self.outputs == "per_class" else 1
        stack_bytes = n_families * len(source.layer_names) * len(X) ** 2 * source.dtype.itemsize
        cosine = self.normalize == "cosine"
        if not fits(stack_bytes + 2 * 8 * len(X) ** 2):
            return StreamedGrams(source, X, cosine=cosine)
        stack = source.block(X)
        return StoredGrams.normalised(stack) if cosine else StoredGrams(stack)

    def _training_grams(self, X, n_decisions):
        """The kernels of a training set under the fitted network."""
        return self._layer_grams(self._kernel_source(X, fitted=True), X, n_decisions)

    def _test_set(self, X):
        return self._validated(X, reset=False)

    def _blocks(self, X):
        """Yield ``(rows, kernels with the training set)``, (L, b, n_fit) or (C, L, b, n_fit)."""
        source = self._kernel_source(self.X_fit_, fitted=True)
        training_set = source.prepare(self.X_fit_)
        cosine = self.normalize == "cosine"
        training_diagonal = source.diag(training_set) if cosine else None
        step = self._rows_per_block(source.dtype.itemsize)
        with progress(len(X), "contributions", enabled=self.verbose) as bar:
            for start in range(0, len(X), step):
                rows = slice(start, start + step)
                batch = source.prepare(X[rows])
                block = source.block(batch, training_set)
                if cosine:
                    cosine_normalise(block, source.diag(batch), training_diagonal)
                yield rows, block
                bar.update(len(batch))


class _OldSource:
    """TEMPORARY: until estimators use the contract."""

    def __init__(self, source):
        self.source, self.layer_names, self.dtype = source, source.layer_names, source.dtype
        self.n_outputs, self.progress = source.n_outputs, None

    def prepare(self, X):
        return self.source.prepare(X) if isinstance(X, np.ndarray) else X

    def block(self, X, Y=None):
        if Y is None:
            planes = self.source.gram(self.prepare(X), self.progress)
        else:
            planes = self.source.block(self.prepare(X), self.prepare(Y))
        return planes[0] if len(planes) == 1 else planes

    def diag(self, X):
        planes = self.source.diag(self.prepare(X))
        return planes[0] if len(planes) == 1 else planes

    def tiles(self, X):
        for rows, columns, tile in self.source.tiles(self.prepare(X), self.progress):
            yield rows, columns, tile[0] if len(tile) == 1 else tile
