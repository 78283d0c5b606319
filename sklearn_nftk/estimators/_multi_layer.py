"""Base of estimators on networks: X -> network -> layer kernels -> machine -> decisions."""

import numpy as np
from sklearn.utils import check_random_state

from ..grams import AverageKernels, CosineKernels, StreamedGrams, fold_grams, layer_grams
from ..learner import array_keys, learn
from ..networks import NetworkParameter, allow_nd, is_trained, make_source, validated
from ..utils._memory import working_memory
from ..utils._progress import fit_progress, progress
from ..utils._row_ids import row_ids
from ..utils._sklearn import fit_context
from ._base import BaseKernelMachine
from ._cross_fitting import folds_of


class BaseMultiLayerNTK(NetworkParameter, BaseKernelMachine):
    """Adds to the learner the way from a network to its layer kernels.

    Subclasses provide the parameters ``network, layers, outputs, n_networks, cv, device, dtype,
    random_state``.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = allow_nd(self.network)
        return tags

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_batch", None)  # what is computed again from X_fit_
        return state

    @property
    def network_(self):
        """The network as it was kernelised, on the CPU, in evaluation mode."""
        source = self.kernel_source_
        return getattr(source, "network", source)

    @property
    def networks_(self):
        """The networks whose kernels are averaged."""
        return getattr(self.kernel_source_, "networks", [self.network_])

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, groups=None):
        """Learn from a training set.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, ...)
            More than two dimensions (images, sequences) where the network takes them; integers
            reach networks that look them up in an embedding as integers. `InfiniteRNN` also takes
            lists of sequences of different lengths.
        y : array-like of shape (n_samples,), or (n_samples, n_targets) for a regressor
            Class labels of any type, or real targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A weight of k means the same as k repetitions of the row; a factor
            common to all changes nothing but ``C_``. Rows of weight 0 are dropped first.
        groups : array-like of shape (n_samples,), default=None
            Groups of samples, which `cv` keeps together.

        Returns
        -------
        estimator
            The fitted estimator itself.

        Raises
        ------
        ValueError
            For invalid data or parameters, a network without exact tangent kernels, a device that
            is not there, or kernel values that overflow.
        MemoryError
            If the kernels would not fit into memory.
        """
        rows, targets = self._validated(X, y)
        training = self._training_set(rows, targets, sample_weight)
        self._check_parameters(training)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        folds = None
        if self.cv is not None and is_trained(self.network):
            folds = folds_of(training, self.cv, rows, targets, groups, seed)
        distinct = rows[training.first]
        no_copies = len(training.first) == len(training.kept)
        with fit_progress(self, X, y, sample_weight) as report:
            source = self._source(distinct, training, folds, seed, report)  # network -> layers
            batch = source.prepare(distinct)  # -> tangent factors
            grams, cross_fit = _grams(source, batch, distinct, folds, report)  # -> layer kernels
            problem = training.problem(grams, self._options(), seed, cross_fit)
            fitted = learn(problem, report)  # -> statistics -> weights -> dual coefficients
            self.kernel_source_ = source
            self.X_fit_ = distinct if no_copies else rows[training.kept]
            self._allow_nd = allow_nd(self.network)
            self._folds = folds
            self._keep(fitted, training, row_ids(X, y))
            self._remember(batch)
        return self

    def _source(self, X, training, folds, seed, report):
        """Kernel source of the networks, made for the distinct rows X of a training set."""
        n_outputs = self._n_outputs(training)
        if folds is None:
            source = self._drawn(X, training, np.ones(len(X), dtype=bool), seed, report)
        else:
            seeds = _seeds(seed, folds.max() + 1)
            source = AverageKernels(
                [
                    self._drawn(X, training, folds != fold, of_fold, report)
                    for fold, of_fold in enumerate(seeds)
                ]
            )
        if self.outputs == "per_class" and source.n_outputs != n_outputs:
            raise ValueError(
                "outputs='per_class' needs a network with one output for each class or target: "
                f"{n_outputs}, not {source.n_outputs}. Use outputs='mean' for other networks."
            )
        self._outputs = self.outputs
        return CosineKernels(source) if self.normalize == "cosine" else source

    def _drawn(self, X, training, seen, seed, report):
        """Kernel source of `n_networks` networks that are made from the rows of a mask."""
        n_decisions, n_outputs = training.Y.shape[1], self._n_outputs(training)
        per_class = self.outputs == "per_class"
        rows = slice(None)
        if is_trained(self.network):  # in an order that is not that of the rows as they came
            rows = training.order[seen[training.order]]
        targets = self._trained_on(training)
        sources = [
            make_source(
                self.network,
                X[rows],
                targets[rows],
                training.weights[rows],
                of_network,
                layers=self.layers,
                # one decision on two classes is about the difference of their outputs
                outputs="difference" if per_class and n_decisions < n_outputs else self.outputs,
                device=self.device,
                dtype=self.dtype,
                n_jobs=self.n_jobs,
                n_outputs=n_outputs,
                progress=report,
            )
            for of_network in _seeds(seed, self.n_networks)
        ]
        return sources[0] if len(sources) == 1 else averaged(sources, X)

    @staticmethod
    def _trained_on(training):
        """Targets as networks are trained on them: class codes, or real ones."""
        if training.strata is not None:
            return training.strata
        return training.Y[:, 0] if training.Y.shape[1] == 1 else training.Y

    def _has_own_kernels(self, of_kernels):
        return self._outputs == "per_class" or super()._has_own_kernels(of_kernels)

    # -- data ------------------------------------------------------------------------------------

    def _validated(self, X, y="no_validation", **checks):
        return validated(self.network, self, X, y, **checks)

    def _test_set(self, X):
        return validated(self.network_, self, X, reset=False, allow_nd=self._allow_nd)

    def _keys(self, X, rows):
        return array_keys(X[rows])

    # -- kernels ---------------------------------------------------------------------------------

    def _problem_of(self, X, training):
        """State what is to be learned from a training set under the fitted networks."""
        source, distinct = self.kernel_source_, X[training.first]
        folds = self._folds
        if folds is not None and not _same_rows(distinct, self.X_fit_[self._training.rows.first]):
            raise ValueError(
                "X must be the training set where the estimator has cv: of other rows it is not "
                "known which network has seen them."
            )
        grams, cross_fit = _grams(source, source.prepare(distinct), distinct, folds)
        return training.problem(grams.stored(), self._fitted.options, cross_fit=cross_fit)

    def _remember(self, batch):
        """Keep the training set as it was prepared, where it is small beside working memory."""
        self.__dict__.pop("_batch", None)
        if getattr(batch, "nbytes", np.inf) <= working_memory():
            self._batch = batch

    def _training_batch(self):
        batch = getattr(self, "_batch", None)
        if batch is None:
            batch = self.kernel_source_.prepare(self.X_fit_[self._training.rows.first])
            self._remember(batch)
        return batch

    def _training_grams(self):
        return StreamedGrams(self.kernel_source_, self._training_batch())

    def _blocks(self, X, step):
        """Yield ``(rows, kernels with the distinct training rows)``, (H, L, b, m)."""
        source, training_batch = self.kernel_source_, self._training_batch()
        with progress(len(X), "contributions", enabled=self.verbose) as bar:
            for start in range(0, len(X), step):
                rows = slice(start, min(start + step, len(X)))
                yield rows, source.block(source.prepare(X[rows]), training_batch)
                bar.update(rows.stop - rows.start)


def _seeds(seed, n):
    """Seeds of n networks, the first that of a single one."""
    later = check_random_state(seed).randint(np.iinfo(np.int32).max, size=n - 1)
    return [seed, *map(int, later)]


def _same_rows(X, others):
    return X.shape == others.shape and (array_keys(X) == array_keys(others)).all()


def _grams(source, batch, X, folds, progress=None):
    """Kernels of a training set, and what a `CrossFittedProblem` needs besides."""
    if folds is None:
        return layer_grams(source, batch, progress), None
    of_folds, grams = fold_grams(source, batch, X, progress)
    return grams, {"folds": folds, "grams_of_folds": of_folds}


def averaged(sources, X):
    """Mean of kernels, where it is of several networks indeed."""
    first, second = (source.diag(source.prepare(X[:1])) for source in sources[:2])
    if np.array_equal(first, second):
        raise ValueError(
            f"n_networks={len(sources)} averages over networks that are drawn from random_state, "
            "but the kernels of network do not depend on it; use n_networks=1, and give the "
            "network no random_state of its own."
        )
    return AverageKernels(sources)
