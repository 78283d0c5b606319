"""Progress of long computations: a tqdm bar, scikit-learn's callbacks, or nothing."""

import sys
from contextlib import contextmanager


class _Silent:
    """Stands in for a bar where none is shown."""

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    def update(self, n=1):
        pass

    def set_description(self, description):
        pass


def silent(total, description):
    """Show nothing."""
    return _Silent()


def progress(total, description, *, enabled=True, terminal_only=False):
    """Return a context manager with ``update(n)`` that shows how far `total` steps have got.

    Parameters
    ----------
    total : int
    description : str
    enabled : bool
        Whether the user asked for it (``verbose``).
    terminal_only : bool
        Draw only when stderr is a terminal, so that logs and pipes stay clean.
    """
    if not enabled or (terminal_only and not sys.stderr.isatty()):
        return _Silent()
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _Silent()
    return tqdm(total=total, desc=description, leave=False)


class FitProgress:
    """Progress of a fit: called as ``progress(total, description)`` like `progress`.

    Each computation becomes a task of scikit-learn's callbacks and, with ``verbose``, a bar.

    Parameters
    ----------
    estimator : estimator
    context : sklearn.callback.CallbackContext
        Of the fit.
    """

    def __init__(self, estimator, context):
        self.estimator = estimator
        self.context = context

    @contextmanager
    def __call__(self, total, description):
        """Report one computation of `total` steps."""
        task = self.context.subcontext(task_name=description, max_subtasks=total)
        task.call_on_fit_task_begin(estimator=self.estimator)
        with progress(total, description, enabled=self.estimator.verbose) as bar:
            yield _Task(bar, task, self.estimator)
        task.call_on_fit_task_end(estimator=self.estimator)


class _Task:
    """One computation of a fit."""

    def __init__(self, bar, task, estimator):
        self.bar = bar
        self.task = task
        self.estimator = estimator

    def update(self, n=1):
        self.bar.update(n)
        for _ in range(n):
            step = self.task.subcontext(task_name="step")
            step.call_on_fit_task_begin(estimator=self.estimator)
            step.call_on_fit_task_end(estimator=self.estimator)


@contextmanager
def fit_progress(estimator, X, y, sample_weight=None):
    """Announce a fit to the callbacks of an estimator, and its end; yields a `FitProgress`."""
    context = estimator._init_callback_context(max_subtasks=None)
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    context.call_on_fit_task_begin(estimator=estimator, X=X, y=y, metadata=metadata)
    yield FitProgress(estimator, context)
    context.call_on_fit_task_end(
        estimator=estimator, X=X, y=y, metadata=metadata, reconstruction_attributes={}
    )
