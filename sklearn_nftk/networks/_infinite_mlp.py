"""The infinitely wide fully connected network: every layer kernel in closed form."""

from numbers import Real

from ..closed_form import InfiniteMLPKernels, dual_activation
from ..closed_form._mlp import layer_names
from ..closed_form._parameters import check_depth, layer_variances
from ..utils._arrays import check_batch
from ._infinite import InfiniteNetwork


class InfiniteMLP(InfiniteNetwork):
    """Infinitely wide fully connected network with `depth` hidden layers.

    Its parameter layers are "layer0" to "layer<depth>"; the last is the read-out. In the NTK
    parametrisation, with variances ``w_l`` and ``b_l`` of weights (times fan-in) and biases,

    ``S_0 = w_0 <x, z> / d + b_0``, ``S_l = w_l V(S_(l-1)) + b_l``, ``D_l = w_l V'(S_(l-1))``,
    ``Theta_l = S_l * D_(l+1) * ... * D_depth`` [1]_,

    where V and V' are the dual activations: what comes into a layer times what comes back to it.
    Their sum is the neural tangent kernel, the last is the kernel of the Gaussian process (NNGP).
    A random finite `MLP` of the same depth and variances approaches these kernels as it widens.

    Parameters
    ----------
    depth : int, default=2
        Hidden layers, at least 1.
    activation : str or callable, default="relu"
        "relu", "leaky_relu", "abs", "erf", "sin", "cos" and "linear" (or "identity") are exact.
        "gelu", "silu", "tanh", "sigmoid", "softplus" and any elementwise torch function go by
        Gauss-Hermite quadrature: dual activations to 1e-8 while the standard deviations of the
        pre-activations stay below 2.5 (tanh) or 5.1 (the others), with a warning where the error
        may be more than 1e-6, as it is for functions with kinks.
    weight_variance : float or sequence of float, default=2.0
        Variance of the weights times fan-in; one value, or one for each parameter layer, the
        read-out included.
    bias_variance : float or sequence of float, default=0.1
        Variance of the biases; one value, or one for each parameter layer.
    negative_slope : float, default=0.01
        Of "leaky_relu".
    split_bias : bool, default=False
        Whether weights and biases are layers of their own: "layer0.weight", "layer0.bias", ...
        The kernel of the bias of the read-out is constant: estimators say so, and do without.

    References
    ----------
    .. [1] Jacot, Gabriel, Hongler. Neural Tangent Kernel: Convergence and Generalization in Neural
       Networks. NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_nftk.kernels import layer_kernels, layer_names
    >>> from sklearn_nftk.networks import InfiniteMLP
    >>> network = InfiniteMLP(depth=2, weight_variance=2.0, bias_variance=0.0)
    >>> layer_names(network)
    ['layer0', 'layer1', 'layer2']
    >>> layer_kernels(network, np.eye(2))[0, 0]
    array([1., 1., 1.])
    """

    allow_nd = False

    def __init__(
        self,
        depth=2,
        activation="relu",
        weight_variance=2.0,
        bias_variance=0.1,
        *,
        negative_slope=0.01,
        split_bias=False,
    ):
        self.depth = depth
        self.activation = activation
        self.weight_variance = weight_variance
        self.bias_variance = bias_variance
        self.negative_slope = negative_slope
        self.split_bias = split_bias

    def validate(self):
        """Raise a ValueError that names the parameter which is not acceptable."""
        check_depth(self.depth)
        if not isinstance(self.negative_slope, Real):
            raise ValueError(f"negative_slope must be a number, got {self.negative_slope!r}.")
        dual_activation(self.activation, self.negative_slope)
        self.variances()

    def variances(self):
        """Variances of weights and biases, two lists of depth + 1."""
        return layer_variances(self.depth, self.weight_variance, self.bias_variance)

    def check_batch(self, X, name="X"):
        """Validate samples: an array of shape (n, d)."""
        return check_batch(X, name, allow_nd=False)

    def to_gp_kernel(self, **options):
        """Kernel for :class:`sklearn.gaussian_process.GaussianProcessClassifier` and its kin.

        Parameters
        ----------
        **options
            ``kind="nngp"`` for the NNGP kernel instead of the tangent kernel;
            ``weight_variance_bounds=(1e-2, 1e2)`` and ``bias_variance_bounds=(1e-5, 1e2)``, or
            "fixed", for the hyperparameters that Gaussian processes optimise.

        Returns
        -------
        sklearn.gaussian_process.kernels.Kernel
        """
        from ..closed_form._gp_kernel import InfiniteMLPKernel  # loads Gaussian processes

        self.validate()
        parameters = self.get_params()
        del parameters["split_bias"]
        return InfiniteMLPKernel(**parameters, **options)

    def _names(self, X=None):
        return layer_names(self.depth + 1, self.split_bias)

    def _is_readout(self, name):
        return name.partition(".")[0] == f"layer{self.depth}"

    def _source(self, X, **options):
        dual = dual_activation(self.activation, self.negative_slope)
        weights, biases = self.variances()
        return InfiniteMLPKernels(
            X.shape[1], weights, biases, dual, split_bias=self.split_bias, **options
        )
