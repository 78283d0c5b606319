"""Codes of the classes: targets of the decisions that mask no class.

One-vs-rest targets ask a decision to be large on one class and small on all others. Of classes in
a row, those between two others would need decisions that rise and fall, which a smooth kernel
shrinks away: they are never the largest, their classes are masked (Hastie, Tibshirani & Buja, JASA
1994). Sums of the decisions tell the classes apart all the same. Multinomial logistic regression
on the leave-one-out decisions finds these sums; and since kernel ridge is linear in its targets,
they are decisions themselves: those of other targets, a code of each class for each decision.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from ._targets import fit_temperature

# Penalties on the departure from one-vs-rest that are compared, and in how many folds.
_PENALTIES = (1e-2, 1e-3, 1e-4)
_FOLDS = 3
# Standard errors by which codes must be better than one-vs-rest.
_STANDARD_ERRORS = 2.0
# Gradients to which folds are fitted, and the codes themselves.
_ROUGH, _EXACT = 1e-3, 1e-9
_MAX_ITER = 500


class Coding(NamedTuple):
    """Targets of the classes, and what is added to the decisions.

    Attributes
    ----------
    codes : ndarray of shape (n_classes, n_classes)
        Target of each class (rows) in each decision.
    offsets : ndarray of shape (n_classes,)
        Added to each decision.
    """

    codes: np.ndarray
    offsets: np.ndarray


def one_vs_rest_codes(n_classes):
    """Codes -1 and 1, shape (n_classes, n_decisions); one column for two classes."""
    codes = 2.0 * np.eye(n_classes) - 1
    return codes[:, 1:] if n_classes == 2 else codes


class CodingStudy:
    """Codes that are fitted to leave-one-out decisions, and what they are worth.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        Classes, 0 to n_classes - 1, three or more.
    weights : ndarray of shape (n,)
        Positive weights of the rows.
    order : ndarray of int, shape (n,)
        The rows in an order that does not depend on theirs.
    """

    def __init__(self, labels, weights, order):
        self.labels = labels
        self.p = weights / weights.sum()
        self.n_classes = int(labels.max()) + 1
        self.folds = _stratified_folds(labels, order)
        self._starts: dict = {}

    def plain(self, scores):
        """Log-losses (n,) of decisions divided by their temperature."""
        return _log_losses(scores / self._temperature(scores), self.labels)

    def losses(self, scores, penalty, folds=range(_FOLDS)):
        """Cross-validated log-losses of codes fitted to one-vs-rest decisions.

        Returns
        -------
        ndarray of shape (n,)
            NaN for rows of other folds.
        """
        logits = scores / self._temperature(scores)
        losses = np.full(len(logits), np.nan)
        for fold in folds:
            held_out = self.folds == fold
            D = self._fit(logits, ~held_out, penalty, fold)
            losses[held_out] = _log_losses(_mixed(logits[held_out], D), self.labels[held_out])
        return losses

    def coding(self, scores, penalty):
        """Codes fitted to one-vs-rest decisions of all rows."""
        temperature = self._temperature(scores)
        D = self._fit(scores / temperature, slice(None), penalty, None, tol=_EXACT)
        mixing = np.eye(self.n_classes) + D[:-1]
        return Coding(one_vs_rest_codes(self.n_classes) @ mixing, D[-1] * temperature)

    def is_better(self, losses, than):
        """Tell whether losses are smaller beyond doubt: by two standard errors, row by row."""
        gains = than - losses
        mean = self.p @ gains
        return mean > _STANDARD_ERRORS * np.sqrt(self.p**2 @ (gains - mean) ** 2)

    def _fit(self, logits, rows, penalty, fold, tol=_ROUGH):
        start = self._starts.get(fold, self._starts.get(0))
        D = _logistic(logits[rows], self.labels[rows], self.p[rows], penalty, start, tol)
        self._starts[fold] = D
        return D

    def _temperature(self, scores):
        targets = one_vs_rest_codes(self.n_classes)[self.labels]
        return fit_temperature(scores, targets, self.p)


def choose_coding(study, scores, C):
    """Choose between one-vs-rest and codes, and C with the codes.

    Parameters
    ----------
    study : CodingStudy
    scores : dict of float to ndarray of shape (n, n_classes)
        One-vs-rest leave-one-out decisions at each value of C that may be chosen, ascending.
    C : float
        Value that was chosen for one-vs-rest.

    Returns
    -------
    Coding or None
        None where codes are not better beyond doubt.
    C : float or None
    """
    plain = study.plain(scores[C])
    # Most data need no codes, and a part of the rows tells so.
    first = study.folds == 0
    hint = study.losses(scores[C], _PENALTIES[0], folds=[0])[first]
    if study.p[first] @ (plain[first] - hint) <= 0:
        return None, None
    few = study.n_classes**2 > len(plain)  # rows for so many numbers
    losses = {p: study.losses(scores[C], p) for p in (_PENALTIES[:1] if few else _PENALTIES)}
    penalty = min(losses, key=lambda penalty: study.p @ losses[penalty])
    if not study.is_better(losses[penalty], plain):
        return None, None
    C = _descend(list(scores), C, lambda C: study.p @ study.losses(scores[C], penalty))
    return study.coding(scores[C], penalty), C


def _descend(grid, start, loss):
    """Go from a point of the grid to either side as long as the loss falls."""
    best, smallest = start, loss(start)
    position = grid.index(start)
    for side in (grid[position + 1 :], grid[:position][::-1]):
        if best != start:
            break
        for C in side:
            loss_of_C = loss(C)
            if loss_of_C >= smallest:
                break
            best, smallest = C, loss_of_C
    return best


def _stratified_folds(labels, order):
    """Fold of each row: each class is dealt out, in an order of content."""
    folds = np.empty(len(labels), dtype=int)
    for label in range(labels.max() + 1):
        members = order[labels[order] == label]
        folds[members] = np.arange(len(members)) % _FOLDS
    return folds


def _mixed(logits, D):
    return logits + logits @ D[:-1] + D[-1]


def _log_losses(logits, labels):
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def _logistic(logits, labels, p, penalty, start=None, tol=1e-6):
    """Multinomial logistic regression that starts from the decisions as they are.

    Minimises ``sum_i p_i log-loss_i(z + z D + c) + penalty / 2 ||D||^2``; returns D, shape
    (n_classes, n_classes), with c below it. Gradients in the coordinates below are less than
    `tol`.
    """
    n, k = logits.shape
    rows = np.arange(n)
    features = np.column_stack([logits, np.ones(n)])
    p = p / p.sum()
    ridge = np.r_[np.full(k, penalty), 0.0]
    start = np.zeros((k + 1, k)) if start is None else start
    # Decisions are nearly dependent where classes are masked. In coordinates in which the blocks
    # of the second derivative, one for each class, are the identity at the start, few steps do.
    roots = _inverse_roots(features, p, softmax(logits + features @ start, axis=1), ridge)

    def objective(flat):
        D = start + np.einsum("cjk,kc->jc", roots, flat.reshape(k + 1, k))
        combined = logits + features @ D
        losses = -log_softmax(combined, axis=1)[rows, labels]
        residuals = softmax(combined, axis=1)
        residuals[rows, labels] -= 1
        gradient = features.T @ (p[:, None] * residuals) + ridge[:, None] * D
        value = p @ losses + ridge @ np.sum(D**2, axis=1) / 2
        return value, np.einsum("cjk,jc->kc", roots, gradient).ravel()

    options = {"maxiter": _MAX_ITER, "maxcor": 20, "ftol": tol**2, "gtol": tol}
    result = minimize(
        objective, np.zeros(k * (k + 1)), jac=True, method="L-BFGS-B", options=options
    )
    D = start + np.einsum("cjk,kc->jc", roots, result.x.reshape(k + 1, k))
    D[-1] -= D[-1].mean()  # what is common to all classes means nothing
    return D


def _inverse_roots(features, p, probabilities, ridge):
    """``R_c`` with ``R_c' (X' diag(p pi_c (1 - pi_c)) X + ridge) R_c = I``, (n_classes, q, q)."""
    roots = []
    for weights in (p[:, None] * probabilities * (1 - probabilities)).T:
        block = (features * weights[:, None]).T @ features + np.diag(ridge)
        block.flat[:: len(block) + 1] += 1e-8 * block.trace() + np.finfo(float).tiny
        factor = np.linalg.cholesky(block)
        roots.append(np.linalg.inv(factor).T)
    return np.array(roots)
