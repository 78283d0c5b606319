"""The only file that imports private names of scikit-learn.

Whatever moves between releases is met here, so that the rest of the package can be read without
knowing which scikit-learn is installed.
"""

from inspect import signature

from sklearn.base import _fit_context as fit_context
from sklearn.svm import SVC
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight

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
    "QuietSVC",
    "StrOptions",
    "check_sample_weight",
    "fit_context",
    "visual_block",
]

# The keyword that refuses negative weights was renamed between releases.
_NON_NEGATIVE = next(
    name
    for name in ("ensure_non_negative", "only_non_negative")
    if name in signature(_check_sample_weight).parameters
)


def check_sample_weight(sample_weight, X):
    """Sample weights, float64 of shape (n_samples,); None is ones, negative ones are refused."""
    return _check_sample_weight(sample_weight, X, dtype="float64", **{_NON_NEGATIVE: True})


class QuietSVC(SVC):
    """SVC that says nothing when it stops at `max_iter`; ``fit_status_`` is 1 then.

    Filters of warnings belong to the whole process: they are not for what runs in threads.
    """

    def _warn_from_fit_status(self):
        pass


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
