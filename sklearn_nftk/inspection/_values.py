"""Shapley values: the score, divided among the layers that it is learned from."""

from itertools import chain

import numpy as np
from scipy.special import comb
from sklearn.base import is_classifier
from sklearn.utils import Bunch, check_random_state, check_scalar, resample

from ..estimators import kernel_blocks, validated_test_set
from ..utils._progress import progress
from ._subsets import decision_scorer, learn_from_subsets, training_again
from ._unwrap import final_estimator, transformed

# Up to so many layers all subsets are learned from: 256 machines.
_ALL_SUBSETS = 8
_CONFIDENCE = 0.95
# Alignment from which layers are compared entry by entry, and how far copies may differ there: in
# units of rounding of the largest entry.
_ALIGNED = 1 - 1e-6
_ROUNDING = 64


class _Values(Bunch):
    """A Bunch whose ``values`` are its entry of that name, not the method of a dictionary."""

    @property
    def values(self):
        return self["values"]


def layer_values(
    estimator,
    X,
    y,
    *,
    training,
    scoring=None,
    sample_weight=None,
    n_permutations=50,
    n_resamples=100,
    random_state=None,
    verbose=0,
):
    r"""Shapley values of the layers: what each is worth to the score, whoever else is there.

    Without a layer, another that says much the same takes its place, and neither seems to be
    needed; alone, both are worth the same score twice. The Shapley value [1]_ is what a layer adds
    to those that came before it, averaged over all orders of the layers:

    .. math::

       \varphi_l = \frac{1}{L} \sum_{S \not\ni l} \binom{L - 1}{|S|}^{-1}
       \left( v(S \cup \{l\}) - v(S) \right)

    with ``v(S)`` the score of the machine whose weights, C and dual coefficients are learned from
    the layers S alone, on kernels that are computed once, as `layer_ablation` does with
    ``refit=True``; of no layer, it is that of the intercept. The values sum to what all layers
    together add to that. Layers with equal kernels have equal values; those whose kernel is zero
    or constant, or that are given weight 0 by an array of `kernel_weights`, have value 0.

    Up to 8 layers values are exact: the average over all subsets. Of more they are the average
    over random permutations, each taken in both directions [2]_: unbiased, with the same sum.

    Parameters
    ----------
    estimator : estimator of sklearn_nftk, Pipeline ending in one, or search over them
        Fitted, and left as it is. X is taken through the earlier steps of a pipeline.
    X : array-like of shape (n_samples, n_features)
        Samples to score on; those of the training set flatter every layer.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
    training : tuple (X, y) or (X, y, sample_weight)
        The training set.
    scoring : str, callable or None, default=None
        As in :func:`layer_ablation`.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples in the score.
    n_permutations : int, default=50
        Permutations of more than 8 layers, both directions counted: an even number, 4 or more.
        Each takes up to ``n_layers - 1`` machines.
    n_resamples : int, default=100
        Bootstrap resamples that the intervals are taken from.
    random_state : int, RandomState instance or None, default=None
        Of the permutations and of the resamples.
    verbose : int, default=0
        1 shows progress bars.

    Returns
    -------
    result : :class:`sklearn.utils.Bunch`
        With the attributes:

        values : ndarray of shape (n_layers,)
            In units of the score; their sum is ``score - score_none``.
        score : float
            Learned from all layers: that of the estimator, if `training` is what it was fitted on.
        score_none : float
            Of the intercept alone.
        intervals : ndarray of shape (n_layers, 2)
            Percentile intervals, 95 %, over bootstrap resamples of the samples X, within each
            class, and where permutations were drawn, of these too: how far the values depend on
            the samples that were scored, and on the permutations. Machines are not learned again,
            so the intervals know nothing of another training set.
        layer_names : list of str
            In the order of the arrays.

    Raises
    ------
    ValueError
        If `training` is no training set of the estimator, or another parameter is invalid.
    MemoryError
        If the layer kernels of the training set, or the decisions of all machines, would not fit
        into memory.

    See Also
    --------
    layer_ablation : Scores without each layer, and with it alone; far fewer machines.

    References
    ----------
    .. [1] Shapley. A Value for n-Person Games. Contributions to the Theory of Games II, 1953.
    .. [2] Mitchell, Cooper, Frank, Holmes. Sampling Permutations for Shapley Value Estimation.
       JMLR 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import layer_values
    >>> X, X_test, y, y_test = train_test_split(*load_iris(return_X_y=True), random_state=0)
    >>> model = MultiLayerNTKClassifier(random_state=0).fit(X, y)
    >>> found = layer_values(model, X_test, y_test, training=(X, y), random_state=0)
    >>> bool(abs(found.values.sum() - (found.score - found.score_none)) < 1e-8)
    True
    """
    check_scalar(n_permutations, "n_permutations", target_type=int, min_val=4)
    if n_permutations % 2:
        raise ValueError(
            "n_permutations must be even, since each permutation is taken in both directions; got "
            f"{n_permutations}."
        )
    check_scalar(n_resamples, "n_resamples", target_type=int, min_val=1)
    random_state = check_random_state(random_state)
    machine = final_estimator(estimator)
    X = validated_test_set(machine, transformed(estimator, X))
    normalised = training_again(estimator, training)
    n_layers = len(machine.layer_names_)
    if n_layers <= _ALL_SUBSETS:
        subsets, samples = _all_subsets(n_layers)
    else:
        subsets, samples = _permutations(n_layers, n_permutations // 2, random_state)
    first = _copies(machine, X, normalised)
    refits = learn_from_subsets(machine, X, normalised, _exchanged(subsets, first), verbose)

    def values(scores, drawn=slice(None)):
        mean = samples(scores)[drawn].mean(axis=0)
        # Values of copies differ by the permutations alone.
        return np.bincount(first, mean, n_layers)[first] / np.bincount(first)[first]

    scores = refits.scores(decision_scorer(machine, X, y, scoring, sample_weight))
    n_samples = len(samples(scores))
    y = np.asarray(y)
    weights = None if sample_weight is None else np.asarray(sample_weight)
    resampled = np.empty((n_resamples, n_layers))
    with progress(n_resamples, "resamples", enabled=verbose) as bar:
        for of_resample in resampled:
            rows = resample(
                np.arange(len(X)),
                stratify=y if is_classifier(machine) else None,
                random_state=random_state,
            )
            weighting = None if weights is None else weights[rows]
            score = decision_scorer(machine, X[rows], y[rows], scoring, weighting)
            drawn = random_state.randint(n_samples, size=n_samples)
            of_resample[:] = values(refits.scores(score, rows), drawn)
            bar.update()
    tail = 50 * (1 - _CONFIDENCE)
    return _Values(
        values=values(scores),
        score=float(scores[-1]),
        score_none=float(scores[0]),
        intervals=np.percentile(resampled, [tail, 100 - tail], axis=0).T,
        layer_names=list(machine.layer_names_),
    )


def _all_subsets(n_layers):
    """All subsets (n_subsets, L), from none to all layers, and a function of their scores.

    It returns the values, shape (1, L).
    """
    layers = np.arange(n_layers)
    subsets = (np.arange(2**n_layers)[:, None] >> layers) & 1 == 1
    without = np.array([np.flatnonzero(~of_layer) for of_layer in subsets.T])
    joined = without + 2 ** layers[:, None]
    weights = 1 / (n_layers * comb(n_layers - 1, subsets.sum(axis=1)[without]))
    return subsets, lambda scores: (weights * (scores[joined] - scores[without])).sum(axis=1)[None]


def _permutations(n_layers, n_pairs, random_state):
    """Subsets (n_subsets, L) along random permutations, and a function of their scores.

    It returns one sample of the values for each permutation and its reverse, (n_pairs, L), which
    are independent. Subsets that several permutations pass are there once; the first and the last
    are no layer and all layers.
    """
    drawn = np.array([random_state.permutation(n_layers) for _ in range(n_pairs)])
    orders = np.stack([drawn, drawn[:, ::-1]], axis=1)  # (n_pairs, 2, L)
    place = np.argsort(orders, axis=-1)
    passed = place[..., None, :] < np.arange(n_layers + 1)[:, None]  # (n_pairs, 2, L + 1, L)
    subsets, index = np.unique(passed.reshape(-1, n_layers), axis=0, return_inverse=True)
    index = index.reshape(passed.shape[:-1])

    def samples(scores):
        added = np.diff(scores[index], axis=-1)
        return np.take_along_axis(added, place, axis=-1).mean(axis=1)

    return subsets, samples


def _copies(machine, X, normalised):
    """First layer of equal kernels, on the training set and on X, of each layer: (L,) int."""
    problem, statistics = normalised.problem, normalised.statistics
    alike = np.all([of.layer_alignment >= _ALIGNED for of in statistics], axis=0)
    given = problem.options.kernel_weights
    if not isinstance(given, str):
        rows = np.atleast_2d(given)
        alike &= (rows[:, :, None] == rows[:, None]).all(axis=0)
    pairs = [(i, j) for j in range(len(alike)) for i in range(j) if alike[i, j]]
    if pairs:
        blocks = (block for _, block in kernel_blocks(machine, X))
        for planes in chain([problem.grams.planes], blocks):
            pairs = [(i, j) for i, j in pairs if _equal(planes[:, i], planes[:, j])]
    first = np.arange(len(alike))
    for i, j in reversed(pairs):
        first[j] = i
    return first


def _equal(kernels, others):
    tolerance = _ROUNDING * np.finfo(kernels.dtype).eps * np.abs(kernels).max()
    return np.abs(kernels - others).max() <= tolerance


def _exchanged(subsets, first):
    """Subsets with the first ones in place of any copies of a layer.

    Machines are then the same to the last digit, which no iterative weight method would make them,
    and learned once.
    """
    exchanged = np.empty_like(subsets)
    for layer in np.unique(first):
        copies = np.flatnonzero(first == layer)
        n_present = subsets[:, copies].sum(axis=1, keepdims=True)
        exchanged[:, copies] = np.arange(len(copies)) < n_present
    return exchanged
