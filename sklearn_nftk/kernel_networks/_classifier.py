"""The classifier of kernel machines in layers."""

import numpy as np

from ..utils._classes import LogitClassifierMixin, class_codes
from ._base import BaseKernelMLP


class KernelMLPClassifier(LogitClassifierMixin, BaseKernelMLP):
    """Kernel machines in layers, trained one layer after the other without backpropagation.

    A layer is ``F_l(u) = W_l k_l(C_l, u) + b_l`` with the Gaussian kernel ``k_l(c, u) =
    exp(-||c - u||^2 / (2 sigma_l^2))``, whose centers C_l are what the layers below make of
    training rows [1]_. Each hidden layer has a target of its own, the ideal kernel matrix: it is
    trained until the kernel of the layer after it, on its outputs, is 1 for pairs of one class
    and 0 for pairs of different classes. Then it is frozen, and the next one is trained. No
    gradient passes through a layer that was trained before.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(15,)
        Kernel machines of each hidden layer. Empty for kernel machines on the samples (or on
        `features`) alone. The output layer has one machine for two classes, else one for each.
    sigmas : "median", float or sequence of float, default="median"
        Widths of the kernels; one value, or one for each trained layer. "median" is the median
        distance between the inputs of a layer, as they are before the layer below is trained.
    centers : int or None, default=None
        Training rows that become centers, as many of each class as there are. None is all
        (distinct) rows. Memory grows with their number, never with its square.
    objective : {"alignment", "upper", "l2", "l1", "cross-class", "contrastive"}, \
            default="alignment"
        What brings the Gram K of a batch near to its ideal kernel matrix G. "alignment": their
        cosine, not centred, the diagonal included. "upper": the same over pairs of different
        rows. "l2", "l1": mean squared or absolute differences. "cross-class": the mean kernel of
        pairs of different classes alone, the part that a bound on the loss of the next layer
        needs [1]_; it asks nothing of pairs of one class, which part too. "contrastive": minus
        the logarithm of the share of each row's kernel mass that is on rows of its class.
    learning_rates : float or sequence of float, default=0.03
        Steps of Adam, which fall to zero along a cosine; one value, or one for each trained layer.
    weight_decays : float or sequence of float, default=1e-3
        Factors of the penalty ``weight_decay / 2 * ||W||^2``, which is added to the objective or
        the loss, both means over rows or pairs; one value, or one for each trained layer.
    epochs : int or sequence of int, default=200
        One value, or one for each trained layer.
    batch_size : int, default=600
        Largest number of rows of a step.
    loss : {"log_loss", "hinge", "squared"}, default="log_loss"
        Of the output layer: cross-entropy, or the sum over one-vs-rest decisions of a loss on
        targets -1 and 1.
    penalty : {"l2", "rkhs"}, default="l2"
        What ``||W||^2`` is: the sum of squares, or ``tr(W k(C, C) W')``, the norm in the
        reproducing kernel Hilbert space.
    features : torch.nn.Module, default=None
        Network that comes before the kernel machines; copied, never modified.
    train_features : bool, default=False
        Whether the children of `features`, a :class:`torch.nn.Sequential`, are trained in the way
        of hidden layers, one after the other (children without parameters join the one before).
        They are trained layers: they come first wherever there is one value for each layer.
    early_stopping : bool, default=False
        Whether a part of the rows is held out, on which a layer is no longer trained when its loss
        does not fall any more, and its best epoch taken. Held-out rows are no centers.
    validation_fraction : float, default=0.1
        Share of the rows held out, of each class alike.
    n_iter_no_change : int, default=10
        Epochs without a smaller loss that end the training of a layer.
    warm_start : bool, default=False
        Whether `fit` goes on from the layers of the last fit, with its centers and widths, where
        their sizes are the same.
    device : str or torch.device, default="auto"
        "auto" is CUDA when there is one, else the CPU.
    dtype : {"auto", "float32", "float64"}, default="auto"
        Precision of the layers; "auto" is the floating type of X.
    random_state : int, RandomState instance or None, default=None
        Draws the centers and, for each layer from a seed of its own, its first weights and its
        batches.
    verbose : int, default=0
        1 shows a progress bar for each layer.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        Where X had string column names.
    network_ : KernelNetwork
        The trained layers. It can be given to :class:`sklearn_nftk.MultiLayerNTKClassifier` as
        `network`, whose kernels then are those of `layer_grams` (trained on the same rows, they
        know the labels: see :class:`sklearn_nftk.networks.KernelMLP` for cross-fitting).
    layer_names_ : list of str
        Of the L trained layers, the output layer the last.
    sigmas_ : ndarray of shape (L,)
    loss_curve_ : list of L ndarrays of shape (n_epochs,)
        Mean over the batches of each epoch of the objective (``1 - alignment`` for "alignment"
        and "upper") or loss, with the penalty.
    alignment_curve_ : list of L - 1 ndarrays of shape (n_epochs,)
        Mean alignment of the batches, for each hidden layer and whatever the objective.

    See Also
    --------
    KernelMLPRegressor : The same for real targets.
    sklearn_nftk.networks.KernelMLP : The kernels of such a network as a source of layer kernels.

    References
    ----------
    .. [1] Duan, Yu, Chen, Principe. On Kernel Method-Based Connectionist Models and Supervised
       Deep Learning Without Backpropagation. Neural Computation 32(1), 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_nftk.kernel_networks import KernelMLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), KernelMLPClassifier(random_state=0))
    >>> model.fit(X, y).score(X, y) > 0.95
    True
    >>> model.transform(X).shape
    (150, 15)
    """

    classes_: np.ndarray

    def __init__(
        self,
        hidden_layer_sizes=(15,),
        *,
        sigmas="median",
        centers=None,
        objective="alignment",
        learning_rates=0.03,
        weight_decays=1e-3,
        epochs=200,
        batch_size=600,
        loss="log_loss",
        penalty="l2",
        features=None,
        train_features=False,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        warm_start=False,
        device="auto",
        dtype="auto",
        random_state=None,
        verbose=0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.sigmas = sigmas
        self.centers = centers
        self.objective = objective
        self.learning_rates = learning_rates
        self.weight_decays = weight_decays
        self.epochs = epochs
        self.batch_size = batch_size
        self.loss = loss
        self.penalty = penalty
        self.features = features
        self.train_features = train_features
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    def _targets(self, y, previous):
        """Class codes; sets ``classes_``."""
        classes, codes = class_codes(y)
        if previous is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"warm_start=True needs the classes of the last fit, {self.classes_.tolist()}; "
                f"got {classes.tolist()}."
            )
        self.classes_ = classes
        return codes

    def _compared(self, y):
        return np.unique(y, return_inverse=True)[1].reshape(-1, 1).astype(float), True
