"""The multi-layer NTK classifier: network, layer kernels, statistics, weights, coefficients."""

from typing import ClassVar

from ._classification import KernelClassifierMixin
from ._multi_layer import BaseMultiLayerNTK
from ._parameters import CLASSIFIER, KERNELISED, LEARNER


class MultiLayerNTKClassifier(KernelClassifierMixin, BaseMultiLayerNTK):
    """Kernel classifier on a learned convex combination of one tangent kernel per layer.

    For each decision c (one for two classes, else one for each class against the rest) it learns
    weights ``w_cl >= 0, sum_l w_cl = 1`` over the layers and decides by

    ``f_c(x) = sum_l w_cl sum_i a_ci K_l(x, x_i) + b_c``,

    so every decision is a sum of what each layer and each training example contributed. The
    kernel of layer l is ``Theta_l(x, z) = (1/O) sum_o <d f_o(x)/d theta_l, d f_o(z)/d theta_l>``
    over the O outputs of the network, divided by its scale: ``K_l = Theta_l / s_l`` [1]_.

    Parameters
    ----------
    network : None, MLP, InfiniteMLP, InfiniteRNN, KernelSource, torch.nn.Module, \
            skorch.NeuralNet or callable, default=None
        What is kernelised, at its present parameters. None means ``MLP(activation="silu",
        weight_variance=1.0, bias_variance=0.3)``, a smooth random network with two hidden layers
        of 512. An infinitely wide network has kernels in closed form and no parameters: nothing is
        drawn. A module must map (n, ...) to (n, O); it is copied, put into evaluation mode and
        otherwise left alone. An ``MLP(max_epochs=...)`` or an unfitted net of skorch is trained in
        `fit`, the net on a clone; a fitted one is used as it is (but clones of an estimator hold
        unfitted nets; put it into a :class:`sklearn.frozen.FrozenEstimator`, or give its
        ``module_``). On the CPU training takes one thread, so that a seed is one network on any
        machine. A callable is called as ``network(n_features, n_outputs, random_state)``, with
        n_outputs the number of classes. A :class:`~sklearn_nftk.kernels.KernelSource` yields
        kernels of its own, and any object with a method ``kernel_source`` yields a source.
    layers : {"module", "block"} or dict, default="module"
        "module": each module that owns parameters is a layer. "block": each top-level child is
        one. ``{layer name: [parameter-name patterns]}`` groups parameters by hand. Infinitely wide
        networks have one set of layers, whose names the patterns are for.
    outputs : {"mean", "sum", "per_class"}, default="mean"
        What several outputs of a network are to the kernels: "mean" of their kernels, the kernel
        of their "sum", or "per_class": the decision of a class uses the kernels of that class's
        output alone (of the difference of both outputs, divided by ``sqrt(2)``, for two classes).
    n_networks : int, default=1
        Networks that are drawn, whose kernels are averaged layer by layer: K of them cost K times
        as much, and weights and predictions depend less on `random_state`. A network that is not
        drawn, such as a module, has no second one.
    cv : int, cross-validation splitter, iterable or None, default=None
        Cross-fitting of a network that is trained in `fit`: one network for each fold, trained on
        the rows of all others, and ``Theta_l`` is the mean of their kernels. Kernels of rows that
        a network was trained on know the labels, and leave-one-out on them is optimistic; so what
        is chosen or calibrated - weights by alignment, `shrinkage`, `C`, codes, temperature - is
        judged on rows that are new to the network: by machines which learn from the rows that it
        was trained on, on its kernels, or, for alignment, by its kernels among the new rows. An
        integer deals the rows out by class, keeping `groups` together where they are given. None
        is one network and leave-one-out. Networks that are not trained ignore it.
    normalize : {"variance", "trace", "cosine", "none"}, default="variance"
        Scale of each layer: its variance in feature space over the training set, its mean
        diagonal, each sample's own norm, or 1. The choice decides the learned weights.
    kernel_weights : {"alignment", "margin", "lp", "uniform", "sum"} or array-like, \
            default="alignment"
        "alignment": maximal centred alignment with the targets (ALIGNF) [2]_. "margin": the
        smallest objective of the kernel machine itself, sparse (l1-norm multiple kernel learning)
        [3]_. "lp": the same with a norm between "margin" (p near 1) and "uniform" (large p) [4]_.
        "uniform". "sum": proportional to the scales, which is the plain neural tangent kernel. An
        array of shape (n_layers,) or (n_decisions, n_layers) is normalised to sum to one.
    p : float, default=2.0
        Norm of the weights for ``kernel_weights="lp"``, larger than 1.
    shrinkage : float in [0, 1] or "auto", default="auto"
        Share of uniform weights mixed into alignment weights. "auto" takes 1, 0.5 or 0, leaving
        uniform weights only where leave-one-out errors are two standard errors better; on large
        data they are compared on a sample of the rows.
    per_class : bool, default=True
        Whether each class learns weights of its own. False: one set for all.
    loss : {"squared", "hinge"}, default="squared"
        "squared" is kernel ridge on targets -1 and 1 with exact leave-one-out scores; "hinge" is
        the support vector machine.
    C : float or "auto", default="auto"
        Inverse regularisation, as in :class:`sklearn.svm.SVC`: the objective is
        ``1/2 ||f||^2 + C sum_i s_i loss_i``. "auto" chooses by leave-one-out from
        ``10 ** linspace(-3, 5, 17)`` for the squared loss and is 1 for the hinge loss. For
        "margin" and "lp" it is chosen with uniform weights first, because weights depend on it.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, multiplied with the sample weights. "balanced":
        ``sum(w) / (n_classes * sum of w in the class)``.
    tol : float, default=1e-3
        Relative duality gap to which "margin" and "lp" weights are solved.
    max_iter : int, default=100
        Largest number of kernel machines solved for the "margin" or "lp" weights of a decision.
    device : str or torch.device, default="auto"
        Where the kernels are computed. "auto" is CUDA when there is one, else the CPU.
    dtype : {"auto", "float32", "float64"}, default="auto"
        Precision of the kernels; "auto" is the floating type of X, float64 for integers and for
        infinitely wide networks. Combined kernels and solvers are in float64.
    n_jobs : int or None, default=None
        Threads that tiles of the kernels, passes through the network and machines of the decisions
        are shared among. None means all cores that are there to be used, and one inside a worker
        of joblib.
    random_state : int, RandomState instance or None, default=None
        Seeds networks that are drawn in `fit`.
    verbose : int, default=0
        1 shows a progress bar while kernels are computed.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        Where X had string column names.
    network_ : torch.nn.Module, InfiniteMLP or InfiniteRNN
        The network as it was kernelised, on the CPU, in evaluation mode.
    networks_ : list of torch.nn.Module
        All that were drawn, `network_` the first of them; with `cv`, in the order of the folds.
    layer_names_ : list of str
    layer_scales_ : ndarray of shape (n_layers,), or (n_decisions, n_layers)
        What each layer's kernel is divided by; 1 for a kernel that is zero or constant. With
        ``outputs="per_class"`` each decision has kernels, and so scales, of its own.
    kernel_weights_ : ndarray of shape (n_decisions, n_layers)
        Non-negative, each row sums to one.
    dual_coef_ : ndarray of shape (n_decisions, n_fit)
        Each row sums to zero.
    intercept_ : ndarray of shape (n_decisions,)
    C_ : float
    X_fit_ : ndarray of shape (n_fit, n_features)
        Training rows of positive weight, all copies of a row included.
    index_fit_ : ndarray of shape (n_fit,)
        Index of these rows in the table of the user, by which reports name them: that of X, or
        where X has none (an array, as most steps of a pipeline make of a DataFrame) that of y.
        Absent where neither has one.
    loo_scores_ : ndarray of shape (n_fit, n_decisions)
        Leave-one-out decision values, exact for fixed weights, scales, codes and C (squared loss
        only). Identical rows are left out together. Of a network that has seen the labels they
        are optimistic. Absent with cross-fitting.
    oof_scores_ : ndarray of shape (n_fit, n_decisions)
        Decision values of each row by the machine of its fold, which neither learned from the row
        nor has a network that did (cross-fitting only).
    class_codes_ : ndarray of shape (n_classes, n_decisions)
        Target of each class in each decision: -1 and 1, or codes where one-vs-rest targets would
        mask classes, on leave-one-out evidence (squared loss; not "margin" and "lp") [5]_.
    kernel_source_ : KernelSource
        What yielded the layer kernels.
    temperature_ : float
        Divides the decision values in `predict_proba` (squared loss only).
    layer_alignment_ : ndarray of shape (n_layers, n_layers), or (n_decisions, n_layers, n_layers)
        Centred alignment (cosine) between the kernels of the layers.
    target_alignment_ : ndarray of shape (n_decisions, n_layers)
        Centred alignment of each kernel with the targets.
    mean_contributions_ : ndarray of shape (n_decisions, n_layers)
        Mean contribution of each layer over the training set.
    dual_gap_ : float
        Certified relative gap of the weights, the largest of the decisions ("margin" and "lp").
    n_iter_ : int
        Kernel machines solved for the weights, the most of any decision; 1 for other weights.

    References
    ----------
    .. [1] Alemohammad et al. NFT-K: Non-Fungible Tangent Kernels. ICASSP 2022. arXiv 2110.04945.
    .. [2] Cortes, Mohri, Rostamizadeh. Algorithms for Learning Kernels Based on Centered
       Alignment. JMLR 2012.
    .. [3] Lanckriet et al. Learning the Kernel Matrix with Semidefinite Programming. JMLR 2004;
       Xu et al. An Extended Level Method for Efficient Multiple Kernel Learning. NeurIPS 2008.
    .. [4] Kloft, Brefeld, Sonnenburg, Zien. lp-Norm Multiple Kernel Learning. JMLR 2011.
    .. [5] Hastie, Tibshirani, Buja. Flexible Discriminant Analysis by Optimal Scoring. JASA 1994.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_nftk import MultiLayerNTKClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), MultiLayerNTKClassifier(random_state=0))
    >>> model.fit(X, y).score(X, y) > 0.95
    True
    >>> model[-1].kernel_weights_.shape  # classes x layers
    (3, 3)
    """

    _parameter_constraints: ClassVar[dict] = {**KERNELISED, **LEARNER, **CLASSIFIER}

    def __init__(
        self,
        network=None,
        *,
        layers="module",
        outputs="mean",
        n_networks=1,
        cv=None,
        normalize="variance",
        kernel_weights="alignment",
        p=2.0,
        shrinkage="auto",
        per_class=True,
        loss="squared",
        C="auto",
        class_weight=None,
        tol=1e-3,
        max_iter=100,
        device="auto",
        dtype="auto",
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.network = network
        self.layers = layers
        self.outputs = outputs
        self.n_networks = n_networks
        self.cv = cv
        self.normalize = normalize
        self.kernel_weights = kernel_weights
        self.p = p
        self.shrinkage = shrinkage
        self.per_class = per_class
        self.loss = loss
        self.C = C
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.device = device
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
