"""Whatever runs, in however many threads: the process is left as it was."""

import random
import subprocess
import sys
import threading
import warnings
from functools import partial
from textwrap import dedent

import cvxpy as cp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC
from threadpoolctl import threadpool_info
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier, MultiLayerNTKRegressor
from sklearn_nftk.networks import MLP, InfiniteMLP
from sklearn_nftk.utils import _sklearn
from sklearn_nftk.utils._device import full_precision
from sklearn_nftk.utils._threads import SharedChange
from sklearn_nftk.weights._solve import solve

# Settings of torch >= 2.9; the last ones are inherited where these say "none".
NEWER = [
    getattr(getattr(torch.backends, library), call)
    for library, calls in {
        "cuda": ["matmul"],
        "cudnn": ["conv", "rnn"],
        "mkldnn": ["matmul", "conv", "rnn"],
    }.items()
    for call in calls
    if hasattr(torch.backends.cuda.matmul, "fp32_precision")
]


def float32_precision():
    """All that torch lets one read, `NEWER` first; what it refuses to tell is None."""
    backends = torch.backends
    readings = [partial(getattr, part, "fp32_precision") for part in NEWER]
    readings += [partial(getattr, backends, "fp32_precision")] if NEWER else []
    readings += [
        partial(getattr, part, "allow_tf32") for part in (backends.cuda.matmul, backends.cudnn)
    ]
    values = []
    for read in (*readings, torch.get_float32_matmul_precision):
        try:
            values.append(read())
        except RuntimeError:
            values.append(None)
    return values


def global_state():
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - of others, who may use it
    return {
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "numpy": (name, keys.tolist(), *rest),
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "libraries": threadpool_info(),
        "precision": float32_precision(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "errors": np.geterr(),
    }


@pytest.fixture
def state():
    """Compared before and after a test, once all that is loaded late has been."""
    cp.Problem(cp.Minimize(cp.Variable(nonneg=True))).solve(solver=cp.CLARABEL)
    before = global_state()
    yield before
    after = global_state()
    assert {name for name in before if after[name] != before[name]} == set()


def in_four_threads(work):
    errors = []

    def run():
        try:
            work()
        except Exception as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads meet in the middle of things
    try:
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors


@pytest.mark.parametrize("network", [InfiniteMLP(), MLP(hidden_layer_sizes=(8,))])
@pytest.mark.parametrize("kernel_weights", ["alignment", "margin", "lp"])
@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_fits_in_four_threads(state, loss, kernel_weights, network, three_classes):
    X, y = three_classes
    model = MultiLayerNTKClassifier(network, loss=loss, kernel_weights=kernel_weights)
    model.set_params(random_state=0, n_jobs=2)
    in_four_threads(lambda: model.__sklearn_clone__().fit(X, y).predict(X))


class Interrupted(nn.Module):
    """Interrupts its training, when it is told to."""

    now = False

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        if self.now and self.training:
            raise KeyboardInterrupt
        return nn.functional.dropout(self.layer(x), training=self.training)


def trained(kind, three_classes):
    """A fit whose networks are trained; what that loads late has been loaded."""
    skorch = pytest.importorskip("skorch")
    parameters = {"criterion": nn.CrossEntropyLoss, "verbose": 0}
    network = MLP((8,), max_epochs=2)
    if kind == "net":
        network = skorch.NeuralNetClassifier(Interrupted, max_epochs=2, **parameters)
    model = MultiLayerNTKClassifier(network, cv=2, random_state=0)
    return model, model.__sklearn_clone__().fit(*three_classes).oof_scores_


@pytest.mark.parametrize("kind", ["mlp", "net"])
def test_training_in_four_threads(kind, request, three_classes):
    model, expected = trained(kind, three_classes)
    request.getfixturevalue("state")

    def work():
        scores = model.__sklearn_clone__().fit(*three_classes).oof_scores_
        assert_allclose(scores, expected, rtol=1e-9, atol=1e-12)

    in_four_threads(work)


def test_an_interrupted_training_leaves_no_trace(request, three_classes, monkeypatch):
    model, _ = trained("net", three_classes)
    torch.set_num_threads(2)
    request.addfinalizer(lambda: torch.set_num_threads(1))
    request.getfixturevalue("state")
    monkeypatch.setattr(Interrupted, "now", True)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*three_classes)


def test_regression_in_four_threads(state, rng):
    X = rng.standard_normal((40, 3))
    model = MultiLayerNTKRegressor(InfiniteMLP(), random_state=0)
    in_four_threads(lambda: model.__sklearn_clone__().fit(X, X).predict(X))


@pytest.mark.parametrize("max_iter", [-1, 5])
def test_libsvm_is_that_of_scikit_learn_but_silent(max_iter, state, rng):
    X, y = rng.standard_normal((60, 8)), rng.choice([-1.0, 1.0], 60)
    K, weight, stops = X @ X.T, rng.uniform(0.5, 2, 60), {"tol": 1e-6, "max_iter": max_iter}
    svc = SVC(kernel="precomputed", C=3.0, random_state=0, **stops)
    if max_iter > 0:
        with pytest.warns(ConvergenceWarning, match="terminated early"):
            svc.fit(K, y, weight)
    else:
        svc.fit(K, y, weight)
    dual_coef, intercept, n_iter = _sklearn.libsvm(K, y, 3.0, weight, cache_size=200, **stops)
    np.testing.assert_array_equal(dual_coef[svc.support_], svc.dual_coef_[0])
    assert np.count_nonzero(dual_coef) == len(svc.support_)
    assert intercept == svc.intercept_[0]
    assert n_iter == svc.n_iter_[0]


def test_libsvm_without_finite_solution(rng):
    K, y = np.full((4, 4), 1e308), np.array([-1.0, 1.0, -1.0, 1.0])
    with pytest.raises(ValueError, match="no finite solution"):
        _sklearn.libsvm(K, y, 1e308, np.ones(4), tol=1e-3, cache_size=1, max_iter=100)


def test_inaccurate_solutions_are_taken_silently(state):
    rng = np.random.default_rng(1)
    n, scale = 5, 10
    A, b = np.zeros((n, n)), np.zeros(n)
    for power in (6, 8, scale):
        A = rng.standard_normal((n, n)) * 10.0 ** rng.uniform(-power, power, (n, 1))
        b = rng.standard_normal(n) * 10.0 ** rng.uniform(-power, power, n)
    v = cp.Variable(n, nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ v) - 2 * b @ v))
    with pytest.warns(UserWarning, match="inaccurate"):
        problem.solve(solver=cp.CLARABEL)
    expected, v.value = v.value, np.zeros(n)
    assert solve(problem)
    assert problem.status == cp.OPTIMAL_INACCURATE
    np.testing.assert_allclose(v.value, expected, rtol=1e-9)  # the second one begins warm


def test_unsolvable_problems_leave_values_alone(state):
    v = cp.Variable(nonneg=True)
    problem = cp.Problem(cp.Maximize(v))
    v.value = 3.0
    assert not solve(problem)
    assert v.value == 3.0


def test_full_precision_in_four_threads():
    # Each in a process of its own, for torch remembers which of its two ways was taken.
    users = [
        "pass",
        "torch.backends.cuda.matmul.allow_tf32 = True",
        "torch.set_float32_matmul_precision('medium')",
    ]
    if NEWER:
        users.append("torch.backends.cuda.matmul.fp32_precision = 'tf32'")
        users.append("torch.backends.fp32_precision = 'tf32'")
    code = f"""
        import os, torch
        from sklearn_nftk.utils._device import full_precision
        from tests.test_global_state import NEWER, float32_precision, in_four_threads

        def work():
            for _ in range(50):
                with full_precision():
                    assert not {{True, "tf32", "bf16"}} & set(float32_precision()[: len(NEWER)])

        for user in {users}:
            if child := os.fork():
                assert os.waitpid(child, 0)[1] == 0, user
                continue
            exec(user)
            before = float32_precision()
            in_four_threads(work)
            assert float32_precision() == before
            os._exit(0)
    """
    run = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_full_precision_is_restored_after_an_error(state):
    with pytest.raises(KeyboardInterrupt), full_precision():
        raise KeyboardInterrupt


def test_a_shared_change_is_undone_by_the_last():
    setting = [1]

    def change():
        before, setting[0] = setting[0], 0
        return lambda: setting.__setitem__(0, before)

    zero = SharedChange(change)
    with zero:
        with zero:
            assert setting == [0]
        assert setting == [0]
    assert setting == [1]
    first_in, first_out = threading.Event(), threading.Event()

    def overlapping():
        with zero:
            first_in.set()
            first_out.wait(60)
            assert setting == [0]

    thread = threading.Thread(target=overlapping)
    thread.start()
    first_in.wait(60)
    with zero:
        first_out.set()
        thread.join()
        assert setting == [0]
    assert setting == [1]


def test_import_loads_nothing_that_only_some_need():
    code = "import sys, sklearn_nftk; print([m for m in {!r} if m in sys.modules])"
    late = ["cvxpy", "clarabel", "matplotlib", "sklearn.gaussian_process"]
    run = subprocess.run(
        [sys.executable, "-c", code.format(late)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
