"""The infinitely wide recurrent network: specification of the recurrent neural tangent kernel."""

import math
from numbers import Integral, Real

import numpy as np

from ..closed_form import InfiniteRNNKernels, dual_activation
from ..closed_form._parameters import check_depth
from ..closed_form._sequences import LAYOUTS, check_sequences, time_first, validate_sequences
from ._infinite import InfiniteNetwork

CHOICES = {
    "initial_state": ("shared", "independent", "zero"),
    "pooling": ("last", "mean-tied", "mean-untied"),
    "groups": ("layer", "param", "time"),
    "layout": LAYOUTS,
}
_SIGMAS = ("sigma_w", "sigma_u", "sigma_b", "sigma_h", "sigma_v")


class InfiniteRNN(InfiniteNetwork):
    """Infinitely wide recurrent network, which compares sequences of any lengths.

    Its kernel is the recurrent neural tangent kernel (RNTK) [1]_ of layers l = 1..depth,

    ``g^l_t = sigma_w W^l h^l_(t-1) / sqrt(N) + sigma_u U^l h^(l-1)_t / sqrt(d) + sigma_b b^l``,
    ``h^l_t = phi(g^l_t)``, ``h^0_t = x_t``, ``f(x) = sigma_v V h^depth_T / sqrt(N)``,

    with d the fan-in of U, as the width N grows, split into what each group of parameters
    contributes. The weights are the same at all times, so two sequences of different lengths are
    compared from their ends.

    Parameters
    ----------
    depth : int, default=1
        Recurrent layers.
    activation : str or callable, default="relu"
        As in `InfiniteMLP`.
    sigma_w, sigma_u, sigma_b : float, default=1.4, 1.0, 0.2
        Scales of the recurrent weights, of those of the input, and of the biases. With "relu"
        ``sigma_w`` up to ``sqrt(2)`` keeps long sequences from growing.
    sigma_h : float, default=0.5
        Standard deviation of the initial state.
    sigma_v : float, default=1.0
        Scale of the read-out, which has no bias.
    initial_state : {"shared", "independent", "zero"}, default="shared"
        One initial state for all sequences; one for each sample, as in the code of [1]_; or none
        (``sigma_h = 0``). "independent" adds to the kernel of a sample with itself alone, like a
        nugget: kernels of training samples with themselves are not what a copy of them would have
        as a test sample.
    pooling : {"last", "mean-tied", "mean-untied"}, default="last"
        What is read out: the last state; the mean over the states, at a cost that is quadratic in
        the length; or a mean with a read-out of its own for each time, counted from the start.
    bidirectional : bool, default=False
        Add a second network, with parameters of its own, which reads sequences backwards. Its
        layers are its own: "forward.layer0", ..., "backward.layer0", ...
    groups : {"layer", "param", "time"}, default="layer"
        What the layers of the kernel are. "layer": "layer0" to "layer<depth>", the last being the
        read-out. "param": recurrent weights, input weights and biases of each layer
        ("layer0.W", "layer0.U", "layer0.b", ..., "layer<depth>.V"). "time": the uses of all
        parameters at one step, "t=-1" (the last step), "t=-2", ..., and "readout"; steps from the
        start, "t=0", ..., for "mean-untied"; not with "mean-tied".
    n_steps : int or None, default=None
        Number of steps that "time" distinguishes; the last group takes all others. None is the
        length of the longest training sequence.
    negative_slope : float, default=0.01
        Of "leaky_relu".
    layout : {"time_first", "channels_first"}, default="time_first"
        Whether sequences are (T_i, m) and arrays (n, T, m), or (m, T_i) and (n, m, T) as aeon and
        sktime have them. Arrays (n, T) are univariate.

    Notes
    -----
    X may be a list or an object array of sequences, or an array; NaN after the last step of a
    sequence marks its end. Estimators take the number of channels for ``n_features_in_``, and the
    number of columns of arrays (n, T). Time is O(n^2 T depth^2), and O(n^2 T^2 depth^2) for
    "mean-tied"; memory beyond the result is O(depth^2) for each pair of a tile, O(T depth) for
    "time".

    References
    ----------
    .. [1] Alemohammad, Wang, Balestriero, Baraniuk. The Recurrent Neural Tangent Kernel.
       ICLR 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nftk.kernels import layer_kernels, layer_names
    >>> from sklearn_nftk.networks import InfiniteRNN
    >>> X = [np.array([[1.0], [0.5]]), np.array([[-1.0], [2.0], [0.3]])]
    >>> layer_kernels(InfiniteRNN(), X)[0, 1].round(4)
    array([1.4629, 1.2296])
    >>> layer_names(InfiniteRNN(groups="param"))
    ['layer0.W', 'layer0.U', 'layer0.b', 'layer1.V']
    """

    allow_nd = True

    def __init__(
        self,
        depth=1,
        activation="relu",
        *,
        sigma_w=1.4,
        sigma_u=1.0,
        sigma_b=0.2,
        sigma_h=0.5,
        sigma_v=1.0,
        initial_state="shared",
        pooling="last",
        bidirectional=False,
        groups="layer",
        n_steps=None,
        negative_slope=0.01,
        layout="time_first",
    ):
        self.depth = depth
        self.activation = activation
        self.sigma_w = sigma_w
        self.sigma_u = sigma_u
        self.sigma_b = sigma_b
        self.sigma_h = sigma_h
        self.sigma_v = sigma_v
        self.initial_state = initial_state
        self.pooling = pooling
        self.bidirectional = bidirectional
        self.groups = groups
        self.n_steps = n_steps
        self.negative_slope = negative_slope
        self.layout = layout

    def validate(self):
        """Raise a ValueError that names the parameter which is not acceptable."""
        check_depth(self.depth)
        for name, accepted in CHOICES.items():
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"{name} must be one of {list(accepted)}, got {getattr(self, name)!r}."
                )
        for name in _SIGMAS:
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
                raise ValueError(f"{name} must be a finite number >= 0, got {value!r}.")
        if not isinstance(self.bidirectional, bool | np.bool_):
            raise ValueError(f"bidirectional must be a bool, got {self.bidirectional!r}.")
        if not isinstance(self.negative_slope, Real):
            raise ValueError(f"negative_slope must be a number, got {self.negative_slope!r}.")
        n_steps = self.n_steps
        if n_steps is not None and (not isinstance(n_steps, Integral) or n_steps < 1):
            raise ValueError(f"n_steps must be None or an integer >= 1, got {n_steps!r}.")
        if self.groups == "time" and self.pooling == "mean-tied":
            raise ValueError(
                "groups='time' has no meaning for pooling='mean-tied', where every step of one "
                "sequence meets every step of the other."
            )
        dual_activation(self.activation, self.negative_slope)

    def _names(self, X=None):
        """Names of the groups; those of ``groups="time"`` need `n_steps` or the training set."""
        if self.groups == "time":
            names = [*self._step_names(X), "readout"]
        else:
            parts = [""] if self.groups == "layer" else [".W", ".U", ".b"]
            names = [f"layer{index}{part}" for index in range(self.depth) for part in parts]
            names.append(f"layer{self.depth}" + (".V" if self.groups == "param" else ""))
        if not self.bidirectional:
            return names
        return [f"{direction}.{name}" for direction in ("forward", "backward") for name in names]

    def _step_names(self, X):
        longest = None if X is None else time_first(X, self.layout).shape[1]
        known = [n for n in (longest, self.n_steps) if n is not None]
        if not known:
            raise ValueError(
                "groups='time' has one layer for each step of the longest sequence; give n_steps "
                "to fix their number."
            )
        n_steps = min(known)
        if self.pooling == "last":
            names = [f"t=-{step + 1}" for step in range(n_steps)]
        else:
            names = [f"t={step}" for step in range(n_steps)]
        if n_steps != longest:
            names[-1] = names[-1].replace("=", "<=" if self.pooling == "last" else ">=")
        return names

    def check_batch(self, X, name="X"):
        """Validate sequences: see the Notes."""
        return check_sequences(X, name, layout=self.layout)

    def validate_data(self, estimator, X, y="no_validation", **checks):
        """Validate sequences, and targets, for an estimator."""
        return validate_sequences(estimator, X, y, layout=self.layout, **checks)

    def _is_readout(self, name):
        name = name.rpartition("ward.")[2]
        return name == "readout" or name.partition(".")[0] == f"layer{self.depth}"

    def _source(self, X, *, network, **options):
        n_channels = time_first(X, self.layout).shape[2]
        return InfiniteRNNKernels(network, self._names(X), n_channels, **options)
