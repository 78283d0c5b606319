"""What estimators on networks share: a network of their own, its kernel source, and decisions."""

import copy

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ._multiple_kernel import BaseMultipleKernelMachine
from .kernels import tangent_source
from .networks import MLP, build_network
from .utils._device import resolve_device
from .weights import cosine_normalise


class BaseMultiLayerNTK(BaseMultipleKernelMachine):
    """Adds to the learner the chain network -> layers -> factors -> layer kernels.

    Subclasses provide the parameters ``network, layers, outputs, device, dtype, n_jobs,
    random_state, verbose``.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = self._allow_nd()
        return tags

    def _allow_nd(self):
        """Whether samples may be images, sequences, ...: only a user's network can take them."""
        return not (self.network is None or isinstance(self.network, MLP))

    def _draw_network(self, X, n_outputs):
        """Set `network_`, a module of our own on the CPU."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        self.network_ = build_network(self.network, X.shape[1], n_outputs, int(seed))

    def _kernel_source(self, X, *, fitted):
        """Kernel source of `network_`, checked on the first rows of X.

        A copy of the network is used, so that two threads can predict at once and the fitted
        estimator stays on the CPU, from where any machine can load it.
        """
        dtype = next(self.network_.parameters()).dtype if fitted else self.dtype
        source = tangent_source(
            copy.deepcopy(self.network_),
            X,
            layers=self.layers,
            outputs=self.outputs,
            device=resolve_device(self.device, fallback=fitted),
            dtype=dtype,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )
        self.network_.to(dtype=source.dtype)
        return source

    def _contributions(self, X):
        """Contribution of each layer to each decision, shape (n, n_decisions, L).

        Test rows are taken in blocks, so memory beyond the result does not depend on their number.
        """
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=self._allow_nd(), reset=False)
        source = self._kernel_source(self.X_fit_, fitted=True)
        training_set = source.prepare(self.X_fit_)
        cosine = self.normalize == "cosine"
        training_diagonal = source.diag(training_set) if cosine else None
        contributions = np.empty((len(X), *self.kernel_weights_.shape))
        step = self._rows_per_block(source.dtype.itemsize)
        for start in range(0, len(X), step):
            rows = slice(start, start + step)
            batch = source.prepare(X[rows])
            block = source.block(batch, training_set)
            if cosine:
                cosine_normalise(block, source.diag(batch), training_diagonal)
            contributions[rows] = self._block_contributions(block)
        return contributions
