"""Tasks in several threads, and the settings of the process meanwhile.

The unit of parallel work is a task of some milliseconds (a tile, a machine to solve), on one
thread of BLAS and torch. A product shared among all threads waits for the slowest core at every
call; tasks wait once, in the end.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import islice
from numbers import Integral
from threading import Lock
from time import perf_counter

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.parallel import get_active_backend
from scipy.linalg.lapack import dpotrf
from sklearn import config_context, get_config, set_config
from threadpoolctl import ThreadpoolController

# Rows of a matrix whose factorisation is worth several threads, and of the one that tells; for so
# many seconds.
_LARGE, _PROBE, _MOMENT = 1000, 400, 1.0


def computed(function, arguments, n_jobs=None, *, shared=False):
    """Yield ``function(*a)`` for each a of `arguments`, in their order, several at a time.

    Threads take the tasks as they come; under a joblib backend of other processes they are
    joblib's tasks. Arguments are drawn, and results handed out, as there is room: at most
    `in_flight` of them are in memory. With one thread nothing runs before it is asked for.

    Who takes the results works beside the threads: more than copies is better done in `function`,
    and products of torch under `one_torch_thread`, or its threads wait for each other at every
    one of them while the cores are busy.

    Parameters
    ----------
    function : callable
        Runs on one thread of BLAS and torch, with scikit-learn's configuration of the caller.
        Must be picklable for backends of other processes, and so must what it takes and returns.
    arguments : iterable of tuple
        Drawn by the caller's thread.
    n_jobs : int or None
        See `n_workers`.
    shared : bool, default=False
        Whether `function` needs the memory of this process: threads whatever the backend is.
    """
    backend, n = _workers(n_jobs)
    if n == 1:
        for some in arguments:
            yield _alone(function, some, {})
    elif shared or getattr(backend, "uses_threads", False):
        yield from _by_threads(function, iter(arguments), n)
    else:
        yield from _by_joblib(function, iter(arguments), n)


def n_workers(n_jobs=None):
    """Number of tasks that `computed` works on at once.

    Parameters
    ----------
    n_jobs : int or None
        As in joblib. None is what ``joblib.parallel_config`` says; 1 inside a worker of joblib;
        else all cores that joblib counts (affinity and CPU quota), but no more than the threads
        that torch and BLAS may use.

    Raises
    ------
    ValueError
        If `n_jobs` is 0.
    """
    return _workers(n_jobs)[1]


def in_flight(n):
    """Number of tasks of n workers in memory: those at work, and two that wait or are done."""
    return 1 if n == 1 else n + 2


def _workers(n_jobs):
    """The joblib backend that is active, and the number of workers."""
    with parallel_config() as settings:  # as they are: what was not set is no number
        configured = settings["n_jobs"]
    backend, _ = get_active_backend(prefer="threads")
    if n_jobs is None and isinstance(configured, Integral):
        n_jobs = configured
    if n_jobs is not None:
        return backend, backend.effective_n_jobs(n_jobs)
    if not getattr(backend, "uses_threads", False):
        return backend, backend.effective_n_jobs(None)
    allowed = min(cpu_count(), torch.get_num_threads(), _blas_threads())
    return backend, 1 if backend.nesting_level else max(1, allowed)


def _by_threads(function, arguments, n):
    pool = ThreadPoolExecutor(n, "sklearn_nftk", _begin_alone, (get_config(),))
    with one_blas_thread():
        try:
            under_way = deque(pool.submit(function, *a) for a in islice(arguments, in_flight(n)))
            while under_way:
                yield under_way.popleft().result()
                under_way.extend(pool.submit(function, *a) for a in islice(arguments, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def _by_joblib(function, arguments, n):
    # Lists and not a generator of joblib, which runs ahead of whoever takes the results.
    with Parallel(n_jobs=n) as parallel:
        while some := list(islice(arguments, in_flight(n))):
            yield from parallel(delayed(_alone)(function, a, get_config()) for a in some)


def _begin_alone(config):
    """Make a thread of the pool one that shares its work with no other."""
    set_config(**config)
    parallel_config(backend="sequential")  # nested calls stay in this thread
    _set_torch_threads(1)


def _alone(function, arguments, config):
    with one_blas_thread(), one_torch_thread(), config_context(**config):
        return function(*arguments)


# -- settings of the process ----------------------------------------------------------------


class SharedChange:
    """A change of the whole process that several threads ask for, each for a while.

    The first of them makes it and the last one undoes it: saved and restored by each thread, the
    setting would end as whichever of them saw it last.

    Parameters
    ----------
    change : callable
        Makes the change, and returns what undoes it.
    """

    def __init__(self, change):
        self._change = change
        self._lock = Lock()
        self._holders = 0

    def __enter__(self):
        with self._lock:
            if not self._holders:
                self._undo = self._change()
            self._holders += 1

    def __exit__(self, *_):
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._undo()


# Finding the libraries takes longer than what is done under the limit: they are looked up once.
_libraries = cache(ThreadpoolController)


class _BlasLimit:
    """BLAS on one thread, and the number that it had before."""

    before: int | None = None

    def __call__(self):
        self.before = _blas_threads()
        limiter = _libraries().limit(limits=1, user_api="blas")

        def undo():
            limiter.restore_original_limits()
            self.before = None

        return undo


_blas_limit = _BlasLimit()
_one_blas_thread = SharedChange(_blas_limit)


def one_blas_thread():
    """Context in which BLAS does not wait for threads: they cost more than they give."""
    return _one_blas_thread


@contextmanager
def lapack_threads(n):
    """Context for a factorisation of an n x n matrix, which does not split into tasks.

    Its threads wait for each other at every step, so that on busy cores several take longer than
    one: a small factorisation tells what the machine is like now.

    Parameters
    ----------
    n : int
    """
    if _blas_limit.before is not None or _blas_threads() == 1:
        yield  # somebody has decided
    elif n >= _LARGE and _threads_pay():
        yield
    else:
        with one_blas_thread():
            yield


class _Probe:
    """Race of all BLAS threads together against one, at this moment."""

    def __init__(self):
        self._until, self._answer = 0.0, False

    def __call__(self):
        if perf_counter() > self._until:
            together = self._seconds()
            with one_blas_thread():
                self._answer = together < self._seconds()
            self._until = perf_counter() + _MOMENT
        return self._answer

    @staticmethod
    def _seconds():
        matrix = np.eye(_PROBE) + 0.5 / _PROBE
        times = []
        for _ in range(3):
            start = perf_counter()
            dpotrf(matrix, lower=1)
            times.append(perf_counter() - start)
        return max(times[1:])  # threads that wait now and then are late


_threads_pay = _Probe()


def _blas_threads():
    """Threads that BLAS may use where `one_blas_thread` does not hold it back."""
    if (before := _blas_limit.before) is not None:
        return before
    # The largest: some libraries have been compiled for one thread.
    libraries = _libraries().select(user_api="blas").info()
    return max((library["num_threads"] for library in libraries), default=cpu_count())


@contextmanager
def one_torch_thread():
    """Context in which torch uses one thread of the CPU; other threads are not concerned."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    _set_torch_threads(1)
    try:
        yield
    finally:
        _set_torch_threads(before)


_torch_lock = Lock()


def _set_torch_threads(n):
    """``torch.set_num_threads`` for this thread alone.

    OpenMP and MKL keep the number for each thread, but torch remembers the last one that was set
    anywhere, and new threads begin with it. One of them tells that number and puts it back.
    """
    if torch.get_num_threads() == n:
        return
    with _torch_lock, ThreadPoolExecutor(1) as newcomer:
        remembered = newcomer.submit(torch.get_num_threads).result()
        torch.set_num_threads(n)
        newcomer.submit(torch.set_num_threads, remembered)
