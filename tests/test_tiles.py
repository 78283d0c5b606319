"""Tiles are the same whoever computes them, and the process is left as it was."""

import operator
import os
import threading

import joblib
import numpy as np
import pytest
import torch
from joblib import parallel_config
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context, get_config
from threadpoolctl import threadpool_info, threadpool_limits

from sklearn_nftk.utils import _threads
from sklearn_nftk.utils._threads import (
    computed,
    in_flight,
    lapack_threads,
    n_workers,
    one_blas_thread,
)
from sklearn_nftk.utils._tiles import computed_tiles, tile_rows

BACKENDS = ["threading", "loky", "multiprocessing"]


def product(x, other):
    """A tile; at module level, where other processes find it."""
    return x @ (x if other is None else other).T


def state(*_):
    """Of whoever computes a task: process, thread, its threads, scikit-learn's configuration."""
    blas = [library["num_threads"] for library in blas_libraries()]
    working_memory = get_config()["working_memory"]
    return os.getpid(), threading.get_ident(), torch.get_num_threads(), blas, working_memory


def blas_libraries():
    return [library for library in threadpool_info() if library["user_api"] == "blas"]


def blas_threads():
    return max(library["num_threads"] for library in blas_libraries())


def matrix(tiles, n, m):
    """Put tiles together; what none of them covers stays NaN."""
    K = np.full((n, m), np.nan)
    for rows, columns, tile in tiles:
        K[rows, columns] = tile
    return K


def number_of_new_threads():
    numbers = []
    thread = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return numbers[0]


@pytest.fixture
def two_threads():
    """Torch and BLAS may use two threads, as on a machine that the user has not limited."""
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(1)


@pytest.fixture
def settings(two_threads):
    """What a process is set to; a call compares."""

    def now():
        return (
            torch.get_num_threads(),
            number_of_new_threads(),
            threadpool_info(),
            get_config(),
            threading.active_count(),
        )

    before = now()
    yield
    assert now() == before


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_backend_of_joblib_gives_the_same_tiles(backend, symmetric, rng):
    X = rng.standard_normal((50, 3))
    Y = None if symmetric else rng.standard_normal((30, 3))
    with parallel_config(backend=backend, n_jobs=2):
        K = matrix(computed_tiles(product, X, Y, size=8), 50, 50 if symmetric else 30)
    assert_array_equal(K, matrix(computed_tiles(product, X, Y, size=8, n_jobs=1), *K.shape))
    tile = np.arange(50) // 8
    below = symmetric & (tile[:, None] > tile[: K.shape[1]])
    assert_allclose(K, np.where(below, np.nan, product(X, Y)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_a_backend_of_processes_is_used(backend):
    with parallel_config(backend=backend, n_jobs=2), config_context(working_memory=17):
        states = list(computed(state, [()] * 8))
    assert os.getpid() not in {process for process, *_ in states}
    for *_, torch_threads, blas, working_memory in states:
        assert torch_threads == 1
        assert set(blas) == {1}
        assert working_memory == 17


def test_tasks_run_alone_in_their_threads_and_know_the_configuration(settings):
    with config_context(working_memory=17):
        states = list(computed(state, [()] * 20, n_jobs=2))
    assert threading.get_ident() not in {thread for _, thread, *_ in states}
    for process, _, torch_threads, blas, working_memory in states:
        assert process == os.getpid()
        assert torch_threads == 1
        assert set(blas) == {1}
        assert working_memory == 17


def test_one_thread_is_the_callers_own_and_lazy(settings):
    drawn = []

    def arguments():
        for k in range(5):
            drawn.append(k)
            yield (k,)

    results = computed(state, arguments(), n_jobs=1)
    assert not drawn
    _, thread, torch_threads, blas, _ = next(results)
    assert (thread, torch_threads, set(blas)) == (threading.get_ident(), 1, {1})
    assert drawn == [0]
    assert torch.get_num_threads() == 2  # while the generator waits
    results.close()


@pytest.mark.parametrize("n_jobs", [2, 3])
def test_results_keep_their_order_and_few_are_in_memory(n_jobs, settings):
    drawn, most = 0, 0

    def arguments():
        nonlocal drawn
        for k in range(40):
            drawn += 1
            yield (k, 1)

    for taken, result in enumerate(computed(operator.add, arguments(), n_jobs)):
        assert result == taken + 1
        most = max(most, drawn - taken)
    assert taken == 39
    assert most == in_flight(n_jobs) == n_jobs + 2


def test_no_thread_waits_for_another():
    """A task that stands still holds nobody back: the others are done before it."""
    last = threading.Event()

    def work(k):
        if k == 0:
            assert last.wait(60)
        if k == in_flight(2) - 1:
            last.set()
        return k

    assert list(computed(work, ((k,) for k in range(10)), n_jobs=2)) == list(range(10))


def test_settings_are_as_before_when_a_task_fails(settings):
    def fail(k):
        if k == 3:
            raise FloatingPointError("task 3")
        return k

    for n_jobs in (1, 2):
        with pytest.raises(FloatingPointError, match="task 3"):
            list(computed(fail, ((k,) for k in range(20)), n_jobs))


def test_settings_are_as_before_when_interrupted(settings):
    def interrupt(k):
        if k == 3:
            raise KeyboardInterrupt
        return k

    for n_jobs in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            list(computed(interrupt, ((k,) for k in range(20)), n_jobs))


def test_settings_are_as_before_when_arguments_fail(settings):
    def arguments():
        yield (1, 2)
        raise MemoryError

    for n_jobs in (1, 2):
        with pytest.raises(MemoryError):
            list(computed(operator.add, arguments(), n_jobs))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_settings_are_as_before_when_nobody_wants_the_rest(n_jobs, settings, rng):
    X = rng.standard_normal((50, 3))
    tiles = computed_tiles(product, X, size=8, n_jobs=n_jobs)
    next(tiles)
    tiles.close()


def test_settings_are_as_before_after_calls_from_several_threads(settings, rng):
    X = rng.standard_normal((60, 3))

    def work():
        for _ in range(5):
            matrix(computed_tiles(product, X, size=8, n_jobs=2), 60, 60)
            with one_blas_thread():
                product(X, None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class TestNumberOfThreads:
    def test_all_where_nothing_is_set(self, two_threads, monkeypatch):
        monkeypatch.setattr(_threads, "cpu_count", lambda: 2)
        assert n_workers() == 2

    def test_no_more_than_cores(self, two_threads, monkeypatch):
        monkeypatch.setattr(_threads, "cpu_count", lambda: 1)
        assert n_workers() == 1

    def test_the_users_limits(self, two_threads, monkeypatch):
        monkeypatch.setattr(_threads, "cpu_count", lambda: 2)
        with threadpool_limits(1, user_api="blas"):
            assert n_workers() == 1
        torch.set_num_threads(1)
        assert n_workers() == 1
        assert n_workers(2) == 2

    def test_our_own_limit_is_not_the_users(self, two_threads, monkeypatch):
        monkeypatch.setattr(_threads, "cpu_count", lambda: 2)
        with one_blas_thread():
            assert n_workers() == 2

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_what_is_configured(self, backend, two_threads):
        with parallel_config(backend=backend, n_jobs=3):
            assert n_workers() == 3
            assert n_workers(2) == 2
        with parallel_config(n_jobs=3):
            assert n_workers() == 3
        with parallel_config(n_jobs=1):
            assert n_workers() == 1

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_one_in_a_worker_of_joblib(self, backend, two_threads):
        tasks = (joblib.delayed(n_workers)() for _ in range(3))
        assert joblib.Parallel(n_jobs=2, backend=backend)(tasks) == [1, 1, 1]

    def test_one_in_a_thread_of_the_pool(self, two_threads):
        assert list(computed(n_workers, [(None,), (2,), (-1,)], n_jobs=2)) == [1, 1, 1]

    def test_none_at_all(self):
        with pytest.raises(ValueError, match="n_jobs == 0"):
            n_workers(0)


class TestThreadsOfLapack:
    @pytest.fixture
    def probes(self, settings, monkeypatch):
        """A probe without memory; threads that it was run on, and seconds that it then takes."""
        probe, probes, seconds = _threads._Probe(), [], {1: 2.0, 2: 1.0}

        def timed():
            probes.append(blas_threads())
            return seconds[probes[-1]]

        monkeypatch.setattr(probe, "_seconds", timed, raising=False)
        monkeypatch.setattr(_threads, "_threads_pay", probe)
        return probes, seconds

    @pytest.mark.parametrize("alone", [0.5, 2.0])
    def test_as_many_as_are_the_fastest(self, alone, probes):
        probes, seconds = probes
        seconds[1] = alone
        for _ in range(2):
            with lapack_threads(2000):
                assert blas_threads() == (2 if alone > seconds[2] else 1)
            assert blas_threads() == 2
        assert sorted(probes) == [1, 2]  # once a moment

    def test_the_answer_is_for_a_moment(self, probes, monkeypatch):
        probes, seconds = probes
        now = 0.0
        monkeypatch.setattr(_threads, "perf_counter", lambda: now)
        for now in (1.0, 1.9, 2.5):
            with lapack_threads(2000):
                assert blas_threads() == (1 if now > 2 else 2)
            seconds[1] = 0.5
        assert len(probes) == 4

    def test_one_for_small_matrices(self, probes):
        with lapack_threads(100):
            assert blas_threads() == 1
        assert blas_threads() == 2
        assert not probes[0]

    def test_whoever_has_decided_is_not_overruled(self, probes):
        with one_blas_thread(), lapack_threads(2000):
            assert blas_threads() == 1
        with threadpool_limits(1, user_api="blas"), lapack_threads(2000):
            assert blas_threads() == 1
        assert not probes[0]

    def test_threads_are_as_before_when_the_factorisation_fails(self, probes):
        for n in (100, 2000):
            with pytest.raises(np.linalg.LinAlgError), lapack_threads(n):
                raise np.linalg.LinAlgError


def test_tiles_in_flight_fit_the_working_memory():
    with config_context(working_memory=1):
        for n_jobs in (1, 2, 16):
            rows = tile_rows(24, n_jobs=n_jobs)
            assert in_flight(n_jobs) * 24 * rows**2 <= 2**20
            assert in_flight(n_jobs) * 24 * (rows + 1) ** 2 > 2**20
        assert tile_rows(24, most=7) == 7
    with config_context(working_memory=0):
        assert tile_rows(24) == 1


def test_progress_hears_of_every_tile(rng):
    heard = []

    class Progress:
        def __init__(self, total, description):
            heard.append(total)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            heard.append("end")

        def update(self):
            heard.append("tile")

    list(computed_tiles(product, rng.standard_normal((9, 2)), size=3, n_jobs=2, progress=Progress))
    assert heard == [6, *["tile"] * 6, "end"]
