"""A trained kernel network: what its layers make of samples, and their kernels."""

import copy

import numpy as np
import torch
from torch import nn

from ..closed_form._parameters import check_width
from ..utils._arrays import check_batch
from ..utils._device import full_precision, resolve_device, resolve_dtype
from ._gaussian import median_distance
from ._layers import KernelLayer, ModuleLayer
from ._source import KernelNetworkKernels


class KernelNetwork:
    """Layers of kernel machines, each on the outputs of the one below, perhaps on features.

    Its arrays are of numpy, so that it is stored without any object of torch, unless it has
    features. It can be kernelised as it is: it takes the place of `network` in any estimator.

    Parameters
    ----------
    sample_shape : tuple of int
        Shape of a sample.
    dtype : str
        "float32" or "float64".
    features : torch.nn.Module or None
        Belongs to the network; frozen.

    Attributes
    ----------
    layers : list of KernelLayer or ModuleLayer
        Those that are trained, the output layer the last.
    layer_names : list of str
    centers : ndarray of shape (p, ...)
        Samples, of whose images the kernel machines are made.
    target_center, target_unit : ndarray of shape (n_outputs,)
        Of real targets, which hidden layers see standardised.
    """

    is_trained = False  # any more: kernels are those of its layers as they are

    def __init__(self, sample_shape, dtype, features=None):
        self.sample_shape = tuple(sample_shape)
        self.dtype = dtype
        self.features = features
        self.layers: list[KernelLayer | ModuleLayer] = []
        self.layer_names: list[str] = []
        self.centers: np.ndarray | None = None
        self.target_center, self.target_unit = np.zeros(1), np.ones(1)

    @property
    def allow_nd(self):
        """Whether samples may be images: where there are features to take them."""
        return len(self.sample_shape) > 1

    @property
    def n_outputs(self):
        """Outputs of the last layer."""
        return len(self.target_unit)

    @property
    def sigmas(self):
        """Width of the kernel on the inputs of each layer, (L,)."""
        return np.array([layer.sigma for layer in self.layers])

    # -- what layers make of samples --------------------------------------------------------------

    def check_batch(self, X, name="X"):
        """Validate samples."""
        X = check_batch(X, name, allow_nd=True)
        if X.ndim - 1 == len(self.sample_shape) == 1:
            check_width(X.shape[1], self.sample_shape[0])
        elif X.shape[1:] != self.sample_shape:
            raise ValueError(
                f"{name} has samples of shape {X.shape[1:]}, but the kernels are of samples of "
                f"shape {self.sample_shape}."
            )
        return X

    @torch.no_grad()
    def inputs(self, X, device="cpu"):
        """Samples as the first trained layer takes them: tensor of shape (n, ...)."""
        x = as_samples(X, self.features, resolve_dtype(self.dtype, None), device)
        return x if self.features is None else ModuleLayer(self.features, None)(x)

    def images(self, X, *, device="cpu", initial=False):
        """Yield the inputs of each trained layer, and in the end the outputs of the last.

        Parameters
        ----------
        X : ndarray of shape (n, ...)
        device : torch.device
        initial : bool, default=False
            Whether what a layer is given is what the layer below made before it was trained,
            itself on trained layers.

        Yields
        ------
        tensor of shape (n, ...)
        """
        with torch.no_grad(), full_precision():
            u = self.inputs(X, device)
            yield u
            for layer in self.layers:
                trained = layer(u)
                yield layer(u, initial=True) if initial else trained
                u = trained

    def image(self, X, layer, device="cpu"):
        """Outputs (n, ...) of a trained layer, an ndarray."""
        for index, u in enumerate(self.images(X, device=device)):
            if index == layer + 1:
                return u.cpu().numpy()
        raise IndexError(layer)

    def outputs(self, X, device="cpu"):
        """Outputs of the network, (n, n_outputs) in float64."""
        return self.image(X, len(self.layers) - 1, device).astype(np.float64)

    # -- kernels ----------------------------------------------------------------------------------

    def kernel_source(
        self,
        X,
        *,
        layers="module",
        device="auto",
        dtype="auto",
        n_jobs=None,
        initial=False,
        specification=None,
    ):
        """Gaussian kernels on the inputs of each trained layer.

        Parameters
        ----------
        X : array-like of shape (n, ...)
        layers : {"module", "block"} or dict, default="module"
            A dictionary of patterns of layer names adds kernels up.
        device, dtype, n_jobs
            As in `sklearn_nftk.kernels.layer_kernels`.
        initial : bool, default=False
            Kernels before the layer below each was trained.
        specification : object, default=None
            What the network was made from.

        Returns
        -------
        KernelNetworkKernels
        """
        X = self.check_batch(X)
        return KernelNetworkKernels(
            self.layer_names,
            network=self,
            layers=layers,
            device=resolve_device(device),
            dtype=str(resolve_dtype(dtype, X.dtype)).removeprefix("torch."),
            n_jobs=n_jobs,
            initial=initial,
            specification=specification,
        )


def as_samples(X, features, dtype, device):
    """Samples as a tensor: integers stay what they are for features that look them up."""
    x = torch.tensor(X)
    modules = [] if features is None else features.modules()
    looks_up = any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in modules)
    return x.to(device, torch.long if looks_up and not x.is_floating_point() else dtype)


def blocks(features):
    """Parts of a sequence of modules, each with the parameters of one.

    Parameters
    ----------
    features : torch.nn.Sequential

    Returns
    -------
    dict of str to torch.nn.Sequential
        By the name of the child that has the parameters; those without join the one before, or
        before the first the first.

    Raises
    ------
    ValueError
        If there is no sequence.
    """
    if not isinstance(features, nn.Sequential):
        raise ValueError(
            "train_features=True trains the children of features one after the other, which must "
            f"be a torch.nn.Sequential; got features={features!r}."
        )
    parts: list[list[nn.Module]] = []
    names: list[str] = []
    waiting: list[nn.Module] = []
    for name, child in features.named_children():
        if any(p.requires_grad for p in child.parameters()):
            parts.append([*waiting, child])
            names.append(f"features.{name}")
            waiting = []
        elif parts:
            parts[-1].append(child)
        else:
            waiting.append(child)
    return {name: nn.Sequential(*part) for name, part in zip(names, parts, strict=True)}


def suggested_width(sigma, u):
    """Width of the Gaussian kernel on inputs u: as it is given, or their median distance."""
    return median_distance(u.flatten(1)) if isinstance(sigma, str) else float(sigma)


def private(module, dtype):
    """Copy of a module of features, in evaluation mode on the CPU."""
    with torch.inference_mode(False):
        return copy.deepcopy(module).cpu().to(dtype).eval()
