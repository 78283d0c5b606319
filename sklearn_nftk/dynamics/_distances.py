"""How far two kernels, two functions and two patterns of rectifiers are from each other."""

import numpy as np
import torch
from scipy.spatial.distance import pdist, squareform
from scipy.special import softmax
from sklearn.utils import Bunch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..utils._classes import logits
from ..utils._sklearn import check_array
from ._models import network_outputs, own_copy, passes, samples

_RECTIFIERS = {
    functional.relu,
    functional.relu_,
    torch.relu,
    torch.relu_,
    torch.Tensor.relu,
    torch.Tensor.relu_,
}


def kernel_distance(K, L, *, center=False):
    """Distance between two kernels in direction: one minus their cosine.

    ``1 - <K, L>_F / (||K||_F ||L||_F)`` [1]_: 0 where one is a positive multiple of the other,
    between 0 and 1 for positive semidefinite kernels.

    Parameters
    ----------
    K, L : array-like of shape (n, m)
        Gram matrices of the same samples.
    center : bool, default=False
        Whether both are centred first; one minus their centred alignment then.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes differ, or a kernel is zero (constant, if centred) and has no direction.

    References
    ----------
    .. [1] Fort, Dziugaite, Paul, Kharaghani, Roy, Ganguli. Deep Learning versus Kernel Learning:
       an Empirical Study of Loss Landscape Geometry and the Time Evolution of the Neural Tangent
       Kernel. NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nftk.dynamics import kernel_distance
    >>> kernel_distance(np.eye(2), 2 * np.eye(2))
    0.0
    >>> round(kernel_distance(np.eye(2), np.ones((2, 2))), 4)
    0.2929
    """
    K, L = (check_array(A, dtype=np.float64, input_name=name) for A, name in ((K, "K"), (L, "L")))
    if K.shape != L.shape:
        raise ValueError(f"K and L must have one shape, got {K.shape} and {L.shape}.")
    if center:
        K, L = (A - A.mean(axis=0) - A.mean(axis=1, keepdims=True) + A.mean() for A in (K, L))
    for A, name in ((K, "K"), (L, "L")):
        if not A.any():
            raise ValueError(
                f"{name} is {'constant' if center else 'zero'}: it has no direction, and no "
                "distance from another kernel."
            )
    return float(direction_distance(K, L))


def direction_distance(K, L):
    """`kernel_distance` of arrays of equal shape; nan where one of them is zero.

    Half the squared distance of the normed arrays, which keeps the digits of small distances that
    ``1 - cosine`` loses.
    """
    K, L = (np.asarray(A, dtype=np.float64).ravel() for A in (K, L))
    norms = np.linalg.norm(K), np.linalg.norm(L)
    if not all(norms):
        return np.nan
    difference = K / norms[0] - L / norms[1]
    return difference @ difference / 2


def distance_matrix(kernels):
    """Distances between T kernels (T, n, m), each with each: (T, T)."""
    rows = kernels.reshape(len(kernels), -1).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, norms, out=np.full_like(rows, np.nan), where=norms > 0)
    return squareform(pdist(rows, "sqeuclidean")) / 2


def function_distance(a, b, X):
    """How differently two trained networks decide.

    Parameters
    ----------
    a, b : torch.nn.Module or fitted skorch.NeuralNet
        Classifiers with one output for each class, logits; or with one, the logit of the second of
        two classes. Both are applied in evaluation mode.
    X : array-like of shape (n_samples, ...)

    Returns
    -------
    result : :class:`sklearn.utils.Bunch`
        A mapping, with the entries:

        disagreement : float
            Share of the samples for which they predict different classes.
        total_variation : float
            Mean total variation between their probabilities, the softmax of the outputs: half the
            L1 distance, between 0 and 1.

    Raises
    ------
    ValueError
        If the networks cannot be applied to X, or differ in the number of outputs.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nftk.dynamics import function_distance
    >>> a = torch.nn.Linear(2, 3).double()
    >>> function_distance(a, a, [[1.0, 2.0], [0.0, 1.0]])
    {'disagreement': 0.0, 'total_variation': 0.0}
    """
    X = samples(X)
    models = {name: own_copy(model, name) for name, model in (("a", a), ("b", b))}
    of_a, of_b = (logits(network_outputs(model, X, name)) for name, model in models.items())
    if of_a.shape != of_b.shape:
        raise ValueError(
            f"a and b must have equally many outputs, got {of_a.shape[1]} and {of_b.shape[1]}."
        )
    differences = np.abs(softmax(of_a, axis=1) - softmax(of_b, axis=1))
    return Bunch(
        disagreement=float(np.mean(of_a.argmax(axis=1) != of_b.argmax(axis=1))),
        total_variation=float(differences.sum(axis=1).mean() / 2),
    )


def relu_distance(a, b, X):
    """Share of the rectifiers that are on in one network and off in the other.

    The Hamming distance between the patterns of activation, as a fraction [1]_. A unit is on where
    its pre-activation is positive; each position of a convolution is a unit, and a rectifier that
    is used twice counts twice.

    Parameters
    ----------
    a, b : torch.nn.Module or fitted skorch.NeuralNet
        With the same units in the same order, called as ``torch.nn.ReLU``,
        ``torch.nn.functional.relu`` or ``torch.relu``. Both are applied in evaluation mode.
    X : array-like of shape (n_samples, ...)

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If a network has no rectifier, or they differ in their units.

    References
    ----------
    .. [1] Fort et al. Deep Learning versus Kernel Learning. NeurIPS 2020.

    Examples
    --------
    >>> import torch
    >>> from sklearn_nftk.dynamics import relu_distance
    >>> def network(weights):
    ...     linear = torch.nn.Linear(1, 2, bias=False)
    ...     linear.weight = torch.nn.Parameter(torch.tensor(weights))
    ...     return torch.nn.Sequential(linear, torch.nn.ReLU())
    >>> relu_distance(network([[1.0], [1.0]]), network([[1.0], [-1.0]]), [[1.0], [2.0]])
    0.5
    """
    X = samples(X)
    of_a, of_b = (
        _patterns(own_copy(model, name), X, name) for name, model in (("a", a), ("b", b))
    )
    shapes = [[pattern.shape[1:] for pattern in patterns] for patterns in (of_a, of_b)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "a and b must have the same rectifiers in the same order, but their shapes are "
            f"{[tuple(s) for s in shapes[0]]} and {[tuple(s) for s in shapes[1]]}."
        )
    pairs = list(zip(of_a, of_b, strict=True))
    differing = sum(int((p != q).sum()) for p, q in pairs)
    return differing / sum(p.numel() for p, _ in pairs)


class _Rectifiers(TorchFunctionMode):
    """Keeps the pattern of each rectifier that is applied."""

    def __init__(self):
        super().__init__()
        self.patterns = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in _RECTIFIERS:
            self.patterns.append(result > 0)
        return result


def _patterns(module, X, name):
    """Patterns (n, ...) of all rectifiers of a module of our own, in the order of their use."""
    parts = []
    with torch.no_grad():
        for x in passes(module, X):
            with _Rectifiers() as rectifiers:
                try:
                    module(x)
                except Exception as error:  # whatever the network itself raises
                    raise ValueError(
                        f"{name} cannot be applied to X of shape {X.shape}: {error}"
                    ) from error
            if not rectifiers.patterns:
                raise ValueError(
                    f"{name} has no ReLU (torch.nn.ReLU, torch.nn.functional.relu or torch.relu), "
                    "so there is no pattern to compare."
                )
            parts.append(rectifiers.patterns)
    return [torch.cat(patterns) for patterns in zip(*parts, strict=True)]
