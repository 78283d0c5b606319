"""What each decision would change without each training example."""

from numbers import Real

import numpy as np
from scipy.special import softmax
from sklearn.base import is_classifier
from sklearn.utils import Bunch, check_scalar

from ..estimators import (
    decisions,
    first_copies,
    fitted,
    fitted_problem,
    kernel_blocks,
    training_columns,
    validated_test_set,
)
from ..learner import leave_one_out
from ..utils._memory import require_memory
from ..utils._threads import computed
from ..utils._tiles import slices
from ._fidelity import n_outputs_of
from ._top import largest
from ._unwrap import final_estimator, transformed

# Prior variances of a decision, in units of the noise of the squared loss (``2 C``), and of
# log-odds: what orders training sets as retrained networks do, see the user guide.
ATTRIBUTION_C = {"squared": 0.3, "log_loss": 5.0}
# Rows of a block that are one task.
_ROWS = 256


def training_influence(
    estimator, X, *, per_layer=False, C=None, loss=None, output="decision", top=None
):
    """Change of each decision that each training example makes by being there.

    ``f_c(x) - f_c^(-i)(x)``, where ``f^(-i)`` is the machine that is learned without training
    example i at the same weights, scales and C. For the squared loss it is exact and needs no
    refit: with B and g of the inverse of the bordered system of the fit, and
    ``h_i(x) = (k_x' B)_i + g_i``,

        ``f_c(x) - f_c^(-i)(x) = h_i(x) a_ci / B_ii = h_i(x) (y_ci - f_c^(-i)(x_i))``,

    Cook's influence of an observation [1]_. For the logistic loss it is one Newton step from the
    solution with all examples, which has the same form [2]_. Unlike
    :func:`training_contributions`, whose terms cancel where C is large, influences are small where
    other examples say the same.

    Parameters
    ----------
    estimator : estimator of sklearn_nftk, Pipeline ending in one, or search over them
        Fitted. X is taken through the earlier steps of a pipeline. Estimators on precomputed
        kernels know those of their training set until they are pickled.
    X : array-like of shape (n_samples, n_features)
    per_layer : bool, default=False
        Split each influence over the layers and the intercept.
    C : float, "attribution" or None, default=None
        Regularisation of the machine that is asked, on the kernels and weights of `estimator`:
        None is ``C_``; see Notes for "attribution".
    loss : {"squared", "log_loss"} or None, default=None
        Loss of the machine that is asked; None is that of `estimator`. "log_loss" is one-vs-rest
        logistic regression on the same kernels, for classifiers.
    output : {"decision", "margin"}, default="decision"
        "margin": change of ``z_c - log sum_{k != c} exp(z_k)``, the log-odds of class c against
        all others, to first order: the change of decision c minus the mean of those of the others,
        weighted by their probabilities. These are the softmax of the outputs of the network where
        it has one for each class, else of the decisions divided by ``temperature_``. For two
        classes the decision itself.
    top : int, default=None
        Return the `top` influences of the largest absolute value alone; the array of all is then
        never built.

    Returns
    -------
    influence : ndarray or :class:`sklearn.utils.Bunch`
        Array of shape (n_samples, n_decisions, n_fit). n_decisions is 1 for two classes; n_fit
        counts the training rows of positive weight, in the order of ``X_fit_``. Copies of a row
        leave together, as in ``loo_scores_``, and each is given the whole change. With
        `per_layer` or `top` a Bunch of:

        influence : ndarray of shape (n_samples, n_decisions, n_fit or top[, n_layers])
            The last axis with `per_layer` alone.
        intercept : ndarray of shape (n_samples, n_decisions, n_fit or top)
            Change of the intercept, with `per_layer`: the sum over the layers and this is the
            influence.
        indices : ndarray of int, shape (n_samples, n_decisions, top)
            Training rows, the largest absolute influence first, of copies the first; with `top`.
        index : ndarray of shape (n_samples, n_decisions, top)
            Their ids in the table of the user, ``index_fit_[indices]``; with `top`, and only where
            the estimator has that attribute.

    Raises
    ------
    ValueError
        If a parameter is none of the above; for the hinge loss, where `loss` is not given; or if
        the kernels of the training set are not known any more.
    MemoryError
        If the result, or an inverse for each machine, would not fit into memory.

    References
    ----------
    .. [1] Cook, Weisberg. Residuals and Influence in Regression. 1982. Leave-one-out residuals:
       Allen. Technometrics 16, 1974.
    .. [2] Rad, Maleki. A scalable estimate of the out-of-sample prediction error via approximate
       leave-one-out cross-validation. JRSS B 82, 2020. Influence on networks: Koh, Liang.
       Understanding black-box predictions via influence functions. ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import training_influence
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MultiLayerNTKClassifier(random_state=0).fit(X, y)
    >>> own = training_influence(model, X)[range(150), :, range(150)]
    >>> bool(np.allclose(model.decision_function(X) - own, model.loo_scores_))
    True
    >>> training_influence(model, X[:2], top=5).indices.shape
    (2, 3, 5)
    """
    machine = final_estimator(estimator)
    loss = _checked_loss(machine, loss)
    if output not in ("decision", "margin"):
        raise ValueError(f"output must be 'decision' or 'margin', got {output!r}.")
    if output == "margin" and not is_classifier(machine):
        raise ValueError("output='margin' is about classes; for a regressor use 'decision'.")
    if top is not None:
        check_scalar(top, "top", target_type=int, min_val=1)
    X = validated_test_set(machine, transformed(estimator, X))
    n_decisions, n_layers = machine.kernel_weights_.shape
    copy_of, _ = training_columns(machine)
    first = first_copies(machine)
    n_kept = len(copy_of) if top is None else min(top, len(first))
    shape = (len(X), n_decisions, n_kept)
    layers = (n_layers,) if per_layer else ()
    require_memory(
        8 * np.prod(shape, dtype=float) * (n_layers + 2 if per_layer else 1),
        f"Training influence of shape {(*shape, *layers)}",
        advice="Ask for fewer samples, or for the largest influences alone by `top`.",
    )
    mix = _margins(machine, X) if output == "margin" and n_decisions > 1 else None
    machines = _machines(machine, loss, C)
    found = Bunch(influence=np.empty((*shape, *layers)))
    if per_layer:
        found["intercept"] = np.empty(shape)
    if top is not None:
        found["indices"] = np.empty(shape, dtype=np.intp)

    def tasks():
        for rows, block in kernel_blocks(machine, X):
            for part in slices(rows.stop - rows.start, _ROWS):
                of_part = slice(rows.start + part.start, rows.start + part.stop)
                part_mix = None if mix is None else mix[of_part]
                yield machines, block[:, :, part], part_mix, per_layer, top and n_kept

    start = 0
    for of_rows in computed(_of_rows, tasks(), machine.n_jobs, shared=True):
        rows = slice(start, start + len(of_rows["influence"]))
        for name, values in of_rows.items():
            if top is None:
                found[name][rows] = values[:, :, copy_of]
            else:
                found[name][rows] = first[values] if name == "indices" else values
        start = rows.stop
    if top is not None and hasattr(machine, "index_fit_"):
        found["index"] = machine.index_fit_[found.indices]
    return found.influence if list(found) == ["influence"] else found


def _checked_loss(machine, loss):
    loss = fitted(machine).options.loss if loss is None else loss
    if loss == "hinge":
        raise ValueError(
            "loss=None is that of the estimator, 'hinge', which leaving one example out changes "
            "by no formula; ask for the machine of loss='squared' or 'log_loss' on its kernels."
        )
    if loss not in ATTRIBUTION_C:
        raise ValueError(f"loss must be 'squared', 'log_loss' or None, got {loss!r}.")
    if loss == "log_loss" and not is_classifier(machine):
        raise ValueError("loss='log_loss' is about classes; for a regressor use 'squared'.")
    return loss


class _Decisions:
    """Decisions that share a `LeaveOneOut`.

    Parameters
    ----------
    learned : Fitted
    which : ndarray of int
    loo : LeaveOneOut
    """

    def __init__(self, learned, which, loo):
        self.which = which
        self.loo = loo
        self.kernel = which[0] if len(learned.layer_scales) > 1 else 0
        self.coefficients = learned.coefficients[which[0]]
        self.factors = np.array([loo.factors(j) for j in range(len(which))])

    def parts(self, mix):
        """Yield outputs, and the factors (n,) or (b, n) of what they change with these."""
        if mix is None:
            yield from zip(self.which, self.factors, strict=True)
        else:
            for output in range(mix.shape[1]):
                yield output, mix[:, output, self.which] @ self.factors


def _machines(machine, loss, C):
    """The machines of all decisions, a list of `_Decisions`."""
    learned = fitted(machine)
    problem, targets = fitted_problem(machine)
    C = _checked_C(C, machine, problem, loss)
    n_machines = 1 if loss == "squared" else len(learned.kernel_weights)
    n_machines = max(n_machines, len(np.unique(learned.kernel_weights, axis=0)))
    require_memory(
        8 * (n_machines + 2) * len(problem.Y) ** 2,
        f"Inverses of {n_machines} machine(s) on {len(problem.Y)} rows",
        advice="Fit on fewer rows, or ask for loss='squared' where decisions share weights.",
    )
    Y = targets if loss == "squared" else problem.Y
    loos = leave_one_out(problem, learned.kernel_weights, C, Y, loss)
    return [_Decisions(learned, which, loo) for which, loo in loos]


def _checked_C(C, machine, problem, loss):
    if C is None:
        return machine.C_
    if isinstance(C, str) and C == "attribution":
        return _attribution_C(machine, problem, loss)
    if isinstance(C, bool) or not isinstance(C, Real) or not 0 < float(C) < np.inf:
        raise ValueError(f"C must be a positive number, 'attribution' or None, got {C!r}.")
    return float(C)


def _attribution_C(machine, problem, loss):
    """The value of `ATTRIBUTION_C` for rows of mean weight 1 and kernels of variance 1."""
    learned, variance = fitted(machine), 1.0
    if learned.options.normalize != "variance":
        weights = learned.kernel_weights.mean(axis=0)
        K = next(problem.grams.combined(weights[None], [0]))
        variance = problem.p @ K.diagonal() - problem.p @ K @ problem.p
    return ATTRIBUTION_C[loss] / (problem.s.mean() * (variance or 1.0))


def _margins(machine, X):
    """Derivatives of the log-odds of each class by the decisions, (n, n_classes, n_classes)."""
    if n_outputs_of(machine) == len(machine.classes_):
        logits = machine.kernel_source_.network_outputs(X).astype(float)
    else:
        logits = decisions(machine, X) / (fitted(machine).temperature or 1.0)
    own = np.eye(logits.shape[1], dtype=bool)
    others = softmax(np.where(own, -np.inf, logits[:, None]), axis=2)
    return own - others


def _of_rows(machines, planes, mix, per_layer, k):
    """Influences of all distinct rows, or the k largest, on some samples.

    Parameters
    ----------
    machines : list of _Decisions
    planes : ndarray of shape (H, L, b, n)
    mix : ndarray of shape (b, n_decisions, n_decisions) or None
    per_layer : bool
    k : int or None

    Returns
    -------
    dict of ndarray
        As `training_influence` returns them.
    """
    n_decisions = sum(len(machine.which) for machine in machines)
    b, n = planes.shape[2:]
    total = np.zeros((b, n_decisions, n))
    for machine in machines:
        combined = np.tensordot(machine.coefficients, planes[machine.kernel], axes=1)
        changes = machine.loo.smoothed(combined) + machine.loo.gamma
        for c, factors in machine.parts(mix):
            total[:, c] += changes * factors
    if k is None:
        chosen, found = None, {"influence": total}
    else:
        chosen = np.stack([largest(total[:, c], k) for c in range(n_decisions)], axis=1)
        found = {"influence": np.take_along_axis(total, chosen, axis=2), "indices": chosen}
    if per_layer:
        found |= _split(machines, planes, mix, chosen, n_decisions)
    return found


def _split(machines, planes, mix, chosen, n_decisions):
    """Split influences over layers and intercept, of the chosen rows (b, n_decisions, k)."""
    n_layers, b, n = planes.shape[1:]
    shape = (b, n_decisions, n) if chosen is None else chosen.shape
    influence, intercept = np.zeros((*shape, n_layers)), np.zeros(shape)
    for machine in machines:
        kernels = planes[machine.kernel] * machine.coefficients[:, None, None]
        changes, gamma = None, machine.loo.gamma
        for c, factors in machine.parts(mix):
            if chosen is None:
                changes = machine.loo.smoothed(kernels) if changes is None else changes
            else:
                rows = chosen[:, c]
                changes = machine.loo.smoothed_at(kernels, rows)
                gamma = machine.loo.gamma[rows]
                factors = np.take_along_axis(np.broadcast_to(factors, (b, n)), rows, axis=1)
            influence[:, c] += np.moveaxis(changes * factors, 0, -1)
            intercept[:, c] += gamma * factors
    return {"influence": influence, "intercept": intercept}
