"""Training examples whose label the machine that was learned without them would not give."""

import numpy as np
from scipy.special import log_softmax
from sklearn.base import is_classifier
from sklearn.utils import Bunch

from ..estimators import fitted, training_classes
from ..learner import both_sides
from ._unwrap import final_estimator


def mislabelled(estimator):
    """Rank the training examples by how little a machine without them believes their label.

    The margin of an example is the decision of its own class minus the largest of the others, by
    the machine that was learned without it: ``loo_scores_``, or ``oof_scores_`` where there is
    `cv`. Labels that are wrong have the smallest margins [1]_. Networks that were trained on the
    labels know them, so use `cv` for these.

    Parameters
    ----------
    estimator : classifier of sklearn_nftk, Pipeline ending in one, or search over them
        Fitted, with the squared loss or `cv`.

    Returns
    -------
    result : :class:`sklearn.utils.Bunch`
        With the attributes:

        indices : ndarray of int, shape (n_fit,)
            Training rows of positive weight, the most suspicious first.
        index : ndarray of shape (n_fit,)
            Their ids in the table of the user; only where the estimator has ``index_fit_``.
        margins : ndarray of shape (n_fit,)
            Of these rows, ascending; in units of decisions, below 0 where another class wins.
        probabilities : ndarray of shape (n_fit,)
            Of another label, from the same scores as in ``predict_proba``.
        expected_precision : ndarray of shape (n_fit,)
            Share of the first k = 1, 2, ... that is expected to have another label: the mean of
            their probabilities, as far as these are calibrated. Rows of overlapping classes count
            as well as rows with an error.
        suggested : ndarray of shape (n_fit,)
            The class of the largest decision, of those that are not the label.

    Raises
    ------
    ValueError
        For a regressor, or a machine that has no such scores.

    References
    ----------
    .. [1] Ranking by held-out scores: Northcutt, Jiang, Chuang. Confident Learning. JAIR 70, 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import mislabelled
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2
    >>> found = mislabelled(MultiLayerNTKClassifier(random_state=0).fit(X, y))
    >>> int(found.indices[0]), int(found.suggested[0])
    (7, 0)
    """
    machine = final_estimator(estimator)
    if not is_classifier(machine):
        raise ValueError("estimator must be a classifier; targets of a regressor are no labels.")
    scores = getattr(machine, "oof_scores_", getattr(machine, "loo_scores_", None))
    if scores is None:
        raise ValueError(
            "estimator must have loo_scores_ (loss='squared') or oof_scores_ (cv), decisions of "
            "machines that have not seen the example."
        )
    scores, codes = both_sides(scores), training_classes(machine)
    rows = np.arange(len(codes))
    others = scores.copy()
    others[rows, codes] = -np.inf
    margins = scores[rows, codes] - others.max(axis=1)
    log_probabilities = log_softmax(scores / (fitted(machine).temperature or 1.0), axis=1)
    probabilities = -np.expm1(log_probabilities[rows, codes])
    order = np.argsort(margins, kind="stable")
    found = Bunch(
        indices=order,
        margins=margins[order],
        probabilities=probabilities[order],
        expected_precision=np.cumsum(probabilities[order]) / (rows + 1),
        suggested=machine.classes_[others.argmax(axis=1)[order]],
    )
    if hasattr(machine, "index_fit_"):
        found["index"] = machine.index_fit_[order]
    return found
