"""The only file that imports private names of scikit-learn.

Whatever moves between releases is met here, so that the rest of the package can be read without
knowing which scikit-learn is installed.
"""

from functools import wraps
from inspect import signature
from threading import RLock

import numpy as np
from sklearn.base import _fit_context as fit_context
from sklearn.svm import _libsvm
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, validate_data

try:
    from sklearn.utils._repr_html.estimator import _VisualBlock
except ImportError:  # scikit-learn < 1.7
    from sklearn.utils._estimator_html_repr import _VisualBlock

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn < 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nobody is told."""

        def _init_callback_context(self, **kwargs):
            return _Unheard()


class _Unheard:
    """Callback context of a scikit-learn without callbacks."""

    def subcontext(self, **kwargs):
        return self

    def call_on_fit_task_begin(self, **kwargs):
        return self

    def call_on_fit_task_end(self, **kwargs):
        return False


__all__ = [
    "CallbackSupportMixin",
    "Interval",
    "StrOptions",
    "check_array",
    "check_classification_targets",
    "check_sample_weight",
    "fit_context",
    "libsvm",
    "one_at_a_time",
    "type_of_target",
    "validate_data",
    "visual_block",
]

_validation = RLock()


def one_at_a_time(function):
    """Not in two threads at once: scikit-learn changes the filters of warnings while it validates.

    Two threads that put them back in the order they came leave the first one's change behind.
    """

    @wraps(function)
    def alone(*args, **kwargs):
        with _validation:
            return function(*args, **kwargs)

    return alone


check_array = one_at_a_time(check_array)
check_classification_targets = one_at_a_time(check_classification_targets)
type_of_target = one_at_a_time(type_of_target)
validate_data = one_at_a_time(validate_data)

# The keyword that refuses negative weights was renamed between releases.
_NON_NEGATIVE = next(
    name
    for name in ("ensure_non_negative", "only_non_negative")
    if name in signature(_check_sample_weight).parameters
)


def check_sample_weight(sample_weight, X):
    """Sample weights, float64 of shape (n_samples,); None is ones, negative ones are refused."""
    with _validation:
        return _check_sample_weight(sample_weight, X, dtype="float64", **{_NON_NEGATIVE: True})


def libsvm(K, y, C, sample_weight, *, tol, cache_size, max_iter=-1):
    """Support vector machine on a precomputed kernel: what `SVC` calls, and nothing besides.

    `SVC` looks through the kernel first, draws from a random state, and warns when it is stopped,
    under filters of warnings that belong to the whole process.

    Parameters
    ----------
    K : ndarray of shape (n, n)
        C-contiguous float64.
    y : ndarray of shape (n,)
        -1 and 1, both of them.
    C : float
    sample_weight : ndarray of shape (n,)
    tol, cache_size, max_iter
        As those of `SVC`; the cache is in MB.

    Returns
    -------
    dual_coef : ndarray of shape (n,)
        ``alpha_i y_i``.
    intercept : float
    n_iter : int
        At least `max_iter` if it was stopped there.

    Raises
    ------
    ValueError
        If the solution is not finite.
    """
    _libsvm.set_verbosity_wrap(0)  # it talks unless it is told not to
    support, _, _, coefficients, intercept, *_, n_iter = _libsvm.fit(
        K, y.astype(np.float64), kernel="precomputed", C=C, tol=tol, cache_size=cache_size,
        max_iter=max_iter, sample_weight=np.asarray(sample_weight, dtype=np.float64),
    )  # fmt: skip
    dual_coef = np.zeros(len(y))
    dual_coef[support] = -coefficients[0]  # libsvm's positive class is the first one
    if not (np.isfinite(dual_coef).all() and np.isfinite(intercept).all()):
        raise ValueError(f"C={C:g}: the support vector machine has no finite solution.")
    return dual_coef, -float(intercept[0]), int(np.max(n_iter))


def visual_block(estimator, boxes):
    """Diagram of an estimator in notebooks.

    Parameters
    ----------
    estimator : estimator
    boxes : list of (name, caption, details)
        What is shown side by side below it; without any it is shown alone.
    """
    if not boxes:
        name = type(estimator).__name__
        return _VisualBlock("single", estimator, names=name, name_details=str(estimator))
    captions = "name_caption" in signature(_VisualBlock).parameters  # scikit-learn >= 1.7
    blocks = []
    for name, caption, details in boxes:
        label = {"names": name, "name_caption": caption} if captions else {"names": name}
        blocks.append(_VisualBlock("single", None, name_details=details, **label))
    return _VisualBlock("parallel", blocks, dash_wrapped=False)
