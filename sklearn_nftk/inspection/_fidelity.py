"""How well the kernel machine stands for the network whose tangent kernels it combines."""

import numpy as np
from scipy.special import logsumexp
from scipy.stats import kendalltau
from sklearn.base import is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import Bunch

from ..estimators import contributions, fitted, validated_test_set
from ..learner import both_sides
from ._unwrap import final_estimator, transformed

# Agreement below which what the layers do in the machine is no evidence about the network.
_LOW_AGREEMENT = 0.9


def network_fidelity(estimator, X, y=None):
    """How well the kernel machine stands for the network that its kernels come from.

    The machine learns from the targets, not from the outputs of the network. Weights and
    contributions of layers are facts about the machine; they tell something about a trained
    network only as far as both rank and decide alike, which is measured in the way of surrogate
    models by tangent kernels [1]_. A network that was not trained has nothing to be faithful to.

    Parameters
    ----------
    estimator : estimator of sklearn_nftk, Pipeline ending in one, or search over them
        Fitted, on a network with one output for each class or target. Outputs of a classifier's
        network are logits in the order of ``classes_``; with two classes it may have one output,
        the logit of ``classes_[1]``. X is taken through the earlier steps of a pipeline.
    X : array-like of shape (n_samples, ...)
        Samples to compare on; on those of the training set both follow the targets, and look more
        alike than they are.
    y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
        True classes or targets, for the scores.

    Returns
    -------
    result : :class:`sklearn.utils.Bunch`
        With the attributes:

        kendall_tau : float
            Rank correlation over the samples (tau-b) of the probabilities that network and machine
            give to the class that the network predicts: the softmax of the outputs, and that of
            the decisions divided by ``temperature_``, as in ``predict_proba`` (by 1 for the hinge
            loss); probabilities that round to 1 are ranked by their log-odds. For regressors of
            outputs and predictions, the mean over the targets. nan where either is constant, or
            there is one sample only.
        agreement : float
            Share of the samples for which both predict the same class. For regressors the
            :math:`R^2` of the predictions with the outputs for targets, nan for one sample.
        network_score, machine_score, difference : float or None
            Accuracies, or :math:`R^2`, of both, and that of the machine minus that of the network;
            None without y.
        layer_kendall_tau, layer_agreement : ndarray of shape (n_layers,)
            The same of a machine that decides by one layer alone, as in ``alone`` of
            :func:`layer_ablation`: the others contribute what they contribute on average.
        layer_names : list of str
            In the order of the arrays.
        n_samples : int
            How many were compared.

    Raises
    ------
    ValueError
        If there is no network, as for kernels that are precomputed or of infinitely wide networks,
        or it has not one output for each class or target; or y does not fit X.

    References
    ----------
    .. [1] Engel et al. Faithful and Efficient Explanations for Neural Networks via Neural Tangent
       Kernel Surrogate Models. ICLR 2024.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> from sklearn_nftk.inspection import network_fidelity
    >>> X, X_test, y, y_test = train_test_split(*load_iris(return_X_y=True), random_state=0)
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)
    ... ).double()
    >>> optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     loss = torch.nn.functional.cross_entropy(
    ...         network(torch.from_numpy(X)), torch.from_numpy(y)
    ...     )
    ...     loss.backward()
    ...     _ = optimizer.step()
    >>> model = MultiLayerNTKClassifier(network).fit(X, y)
    >>> fidelity = network_fidelity(model, X_test, y_test)
    >>> fidelity.agreement > 0.9
    True
    >>> fidelity.layer_agreement.shape
    (2,)
    """
    machine = final_estimator(estimator)
    _require_outputs(machine)
    X = transformed(estimator, X)
    outputs = machine.kernel_source_.network_outputs(validated_test_set(machine, X)).astype(float)
    n_samples = len(outputs)
    if y is not None and len(y) != n_samples:
        raise ValueError(
            f"y must have one entry for each of the {n_samples} samples of X, got {len(y)}."
        )
    learned, phi = fitted(machine), contributions(machine, X)
    layers = [True, *np.eye(phi.shape[2], dtype=bool)]  # all, then each alone
    decisions = np.stack(
        [np.where(some, phi, learned.mean_contributions).sum(axis=2) for some in layers]
    )
    decisions += learned.intercept
    compared = _classes if is_classifier(machine) else _targets
    ranked, predicted, score = compared(machine, outputs, decisions)
    taus = np.array([_tau(ranked[0], values) for values in ranked[1:]])
    agreements = np.array([score(predicted[0], values) for values in predicted[1:]])
    scores = dict.fromkeys(("network_score", "machine_score", "difference"))
    if y is not None:
        network_score, machine_score = (score(y, values) for values in predicted[:2])
        scores = {
            "network_score": network_score,
            "machine_score": machine_score,
            "difference": machine_score - network_score,
        }
    return Bunch(
        kendall_tau=float(taus[0]),
        agreement=float(agreements[0]),
        **scores,
        layer_kendall_tau=taus[1:],
        layer_agreement=agreements[1:],
        layer_names=list(machine.layer_names_),
        n_samples=n_samples,
    )


def has_network(estimator):
    """Tell whether there is a network that was trained, or may have been, to compare with."""
    machine = final_estimator(estimator)
    source = getattr(machine, "kernel_source_", None)
    made_of = getattr(source, "specification", None)
    drawn = made_of is not None and not getattr(made_of, "is_trained", False)
    return not drawn and n_outputs_of(machine) in _accepted(machine)


def fidelity_sentence(estimator, fidelity):
    """State a fidelity, and what the weights of layers are worth where it is low."""
    agreement, tau = fidelity.agreement, fidelity.kendall_tau
    if np.isnan(agreement):
        return ""
    low = agreement < _LOW_AGREEMENT
    samples = f"{fidelity.n_samples} sample{'s' * (fidelity.n_samples > 1)}"
    figures = [] if np.isnan(tau) else [f"Kendall's tau {tau:.2f}"]
    if is_classifier(estimator):
        figures.append(f"agrees on {100 * agreement:.1f} %")
    else:
        figures.append(f"R2 {agreement:.2f} with its outputs")
    sentence = (
        f"The machine {'does not stand' if low else 'stands'} for the network on {samples}: "
        f"{', '.join(figures)}."
    )
    if low:
        sentence += " Weights of layers are facts about the machine, not about the network."
    return sentence


# -- the network ------------------------------------------------------------------------------


def n_outputs_of(machine):
    """Outputs of the network; None without one."""
    source = getattr(machine, "kernel_source_", None)
    return getattr(source, "n_outputs", None) if hasattr(source, "network_outputs") else None


def _accepted(machine):
    """Numbers of outputs that stand for the classes or targets."""
    if not is_classifier(machine):
        return (len(machine.intercept_),)
    n_classes = len(machine.classes_)
    return (1, 2) if n_classes == 2 else (n_classes,)


def _require_outputs(machine):
    n_outputs = n_outputs_of(machine)
    accepted = _accepted(machine)
    if n_outputs in accepted:
        return
    kind = "class (or one logit for two classes)" if is_classifier(machine) else "target"
    found = "no network" if n_outputs is None else f"a network with n_outputs={n_outputs}"
    raise ValueError(
        f"estimator: fidelity needs a network with one output per {kind}, "
        f"{' or '.join(map(str, accepted))} here; got {found}."
    )


# -- what is compared: the network first, then the machine, then each layer -------------------


def _classes(machine, outputs, decisions):
    """Log-odds (L + 2, n, 1) of the network's class, labels (L + 2, n), and accuracy."""
    # The logit of the second of two classes is split as decisions are.
    network = outputs if outputs.shape[1] > 1 else both_sides(outputs / 2)
    temperature = fitted(machine).temperature or 1.0
    logits = np.stack([network, *(both_sides(of) / temperature for of in decisions)])
    codes = logits.argmax(axis=2)
    own = np.arange(logits.shape[2]) == codes[0][:, None]
    # Log-odds rank as probabilities do, and do not round to 1 where a network is sure.
    log_odds = logits[:, own] - logsumexp(np.where(own, -np.inf, logits), axis=2)
    return log_odds[..., None], machine.classes_[codes], accuracy_score


def _targets(machine, outputs, decisions):
    """Values (L + 2, n, n_targets), twice, and R2."""
    values = np.stack([outputs, *decisions])
    return values, values, _r2


def _tau(values, others):
    """Kendall's tau-b, the mean over columns."""
    if len(values) < 2:
        return np.nan
    pairs = zip(values.T, others.T, strict=True)
    return np.mean([kendalltau(*pair).statistic for pair in pairs])


def _r2(true, predicted):
    return r2_score(true, predicted) if len(predicted) > 1 else np.nan
