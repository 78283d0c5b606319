"""Kernel networks: layers of kernel machines, trained one after the other without backpropagation.

Each hidden layer is trained towards an explicit target, the ideal kernel matrix of the classes,
as the kernel of the layer after it sees its outputs (Duan, Yu, Chen, Principe 2020). The way the
data goes::

    samples -> centers, targets -> one layer after the other -> network -> Grams of its layers
               _samples            _training                    _network   _source
                                   _layers, _layer_training
                                   _objectives, _losses

:class:`sklearn_nftk.networks.KernelMLP` makes such a network the source of layer kernels.
"""

from ._classifier import KernelMLPClassifier
from ._regressor import KernelMLPRegressor

__all__ = ["KernelMLPClassifier", "KernelMLPRegressor"]
