"""The fit of linear models in the tangents of a network at a checkpoint."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.kernel_ridge import KernelRidge
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..networks import (
    CONSTRAINTS,
    MLP,
    NetworkParameter,
    allow_nd,
    is_trained,
    make_source,
    specification,
    validated,
)
from ..networks._training import train
from ..tangents import TangentKernels
from ..utils._device import resolve_device
from ..utils._memory import require_memory
from ..utils._progress import progress
from ..utils._sklearn import (
    Interval,
    StrOptions,
    check_sample_weight,
    fit_context,
)
from ..utils._skorch import import_skorch
from ..utils._tiles import slices
from ._linearization import Linearization, OneOutput
from ._models import network_outputs

# Rows that are predicted at once.
_ROWS = 1024


class BaseLinearized(NetworkParameter, BaseEstimator):
    """Fit of a linear model in the tangents of a network.

    Subclasses turn y into targets as networks are trained on them by ``_encoded(y)``, say which
    numbers of outputs they accept by ``_accepted(Y)``, and what the outputs are to be: by
    ``_targets(Y)`` for squared errors, by ``_loss(Y)``, a criterion and its targets, for steps.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **{name: CONSTRAINTS[name] for name in ("network", "device", "dtype", "random_state")},
        "solver": [StrOptions({"closed", "gradient"})],
        "kernel": [StrOptions({"trace", "block"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        network=None,
        *,
        solver="closed",
        kernel="trace",
        alpha=1.0,
        lr=0.1,
        momentum=0.0,
        batch_size=None,
        max_epochs=100,
        device="auto",
        dtype="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.network = network
        self.solver = solver
        self.kernel = kernel
        self.alpha = alpha
        self.lr = lr
        self.momentum = momentum
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.device = device
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = allow_nd(self.network)
        return tags

    @property
    def network_(self):
        """The network at the checkpoint, on the CPU, in evaluation mode."""
        check_is_fitted(self)
        return self._linear.network

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Learn the steps from the checkpoint.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
        y : array-like of shape (n_samples,), or (n_samples, n_targets) for a regressor
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. Gradient steps repeat rows in proportion.

        Returns
        -------
        estimator
            The fitted estimator itself.

        Raises
        ------
        ValueError
            For invalid data or parameters, a network whose outputs do not fit the targets, one
            without exact tangent kernels, or gradient steps that diverge.
        MemoryError
            If the kernel would not fit into memory.
        """
        X, y = self._validated(X, y)
        weights = check_sample_weight(sample_weight, X)
        kept = weights > 0
        if not kept.any():
            raise ValueError("sample_weight must be positive for at least one sample.")
        X, y, weights = X[kept], y[kept], weights[kept]
        Y = self._encoded(y)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        source = self._source(X, Y, weights, seed)
        self.n_outputs_ = source.n_outputs
        self._linear = Linearization(source.network)
        self._dual = None  # of the trace kernel, which has no steps
        self._allow_nd = allow_nd(self.network)
        if self.solver == "gradient":
            self._take_steps(X, Y, weights, seed)
            return self
        residuals = self._targets(Y) - network_outputs(self._linear.network, X, "network")
        if self.kernel == "block" and self.n_outputs_ > 1:
            self._linear.step_along(X, self._block_solution(source, X, residuals, weights))
        else:
            planes = source.gram(source.prepare(X), self._report())[0]
            dual_coef = self._ridge(planes.sum(axis=0, dtype=float), residuals, weights)
            self._dual = source, X, dual_coef
        return self

    def _outputs(self, X):
        """Outputs of the linear model, (n, O)."""
        check_is_fitted(self)
        X = validated(self.network_, self, X, reset=False, allow_nd=self._allow_nd)
        if self._dual is None:
            return network_outputs(self._linear, X, "network")
        outputs = network_outputs(self._linear.network, X, "network")
        source, X_fit, dual_coef = self._dual
        training = source.prepare(X_fit)
        for rows in slices(len(X), _ROWS):
            block = source.block(source.prepare(X[rows]), training)[0]
            outputs[rows] += block.sum(axis=0, dtype=float) @ dual_coef
        return outputs

    # -- the network ----------------------------------------------------------------------------

    def _source(self, X, Y, weights, seed):
        """Tangent kernels of the checkpoint, the mean over its outputs."""
        network, accepted = self.network, self._accepted(Y)
        chosen = specification(network)
        if isinstance(chosen, MLP) and not is_trained(chosen):
            network = chosen.build  # whose kernels would be those of one output, for all
        source = make_source(
            network, X, Y, weights, seed, device=self.device, dtype=self.dtype,
            n_jobs=self.n_jobs, n_outputs=accepted[-1], progress=self._report(),
        )  # fmt: skip
        if not isinstance(source, TangentKernels):
            raise ValueError(
                f"network must have parameters to expand in, and {type(chosen).__name__} has none."
            )
        if source.n_outputs not in accepted:
            raise ValueError(
                f"network must have {' or '.join(map(str, accepted))} output(s) for these "
                f"targets, got {source.n_outputs}."
            )
        return source

    def _report(self):
        return lambda total, description: progress(total, description, enabled=self.verbose)

    # -- closed form ----------------------------------------------------------------------------

    def _ridge(self, K, residuals, weights):
        """Dual coefficients ``(K + alpha / s)^-1 r``; least squares where K is singular."""
        solution = KernelRidge(alpha=self.alpha, kernel="precomputed")
        return solution.fit(K, residuals, sample_weight=weights).dual_coef_

    def _block_solution(self, source, X, residuals, weights):
        """Dual coefficients (n, O) by the full block kernel of pairs of samples and outputs."""
        n_pairs = residuals.size
        require_memory(
            2 * 8 * n_pairs**2,
            f"The block kernel of {len(X)} rows and {self.n_outputs_} outputs",
            advice="kernel='trace' is smaller by the square of the outputs.",
        )
        pairs = OneOutput.pairs(X, self.n_outputs_)
        blocks = TangentKernels(
            OneOutput(source.network, X.shape[1:]),
            device=source.device,
            dtype=source.dtype,
            n_jobs=self.n_jobs,
        )
        blocks.check(pairs)
        K = blocks.gram(blocks.prepare(pairs), self._report())[0].sum(axis=0, dtype=float)
        solution = self._ridge(K, residuals.ravel(), np.repeat(weights, self.n_outputs_))
        return solution.reshape(residuals.shape)

    # -- gradient steps -------------------------------------------------------------------------

    def _take_steps(self, X, Y, weights, seed):
        """Train the steps by (stochastic) gradient descent."""
        if not self.max_epochs:
            return
        skorch = import_skorch()
        criterion, targets = self._loss(Y)
        net = skorch.NeuralNet(
            self._linear,
            criterion=criterion,
            optimizer=torch.optim.SGD,
            optimizer__momentum=self.momentum,
            # the gradient of alpha / sum(s) * ||steps||^2
            optimizer__weight_decay=2 * self.alpha / weights.sum(),
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=-1 if self.batch_size is None else self.batch_size,
            iterator_train__shuffle=self.batch_size is not None,
            train_split=None,
            device=str(resolve_device(self.device)),
            verbose=0,
        )
        train(net, X, targets, weights, seed, self._report())
        self._linear = self._linear.cpu()


class SquaredError(nn.Module):
    """Squared errors summed over the outputs, the mean over the samples."""

    def forward(self, outputs, targets):
        """Mean squared length of the errors."""
        return (outputs - targets).square().sum(dim=1).mean()
