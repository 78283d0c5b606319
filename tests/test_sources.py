import sys
import textwrap
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import load_iris
from torch import nn

from sklearn_nftk import MultiLayerNTKClassifier, MultiLayerNTKRegressor
from sklearn_nftk.dynamics import CheckpointNTK
from sklearn_nftk.grams import AverageKernels
from sklearn_nftk.inspection import layer_contributions
from sklearn_nftk.kernels import KernelSource, layer_kernel_diag, layer_kernels, layer_names
from sklearn_nftk.networks import MLP, InfiniteMLP, InfiniteRNN, KernelMLP, make_source

from .conformance import SourceConformance

EXTENDING = Path(__file__).parents[1] / "doc" / "extending.rst"


class TestMLP(SourceConformance):
    def make_source(self):
        return MLP((16, 16)).kernel_source(self.samples(), seed=0)


class TestSinglePrecision(TestMLP):
    rtol = 1e-4

    def samples(self):
        return super().samples().astype(np.float32)


class TestAverage(SourceConformance):
    def make_source(self):
        network, X = MLP((16, 16)), self.samples()
        return AverageKernels([network.kernel_source(X, seed=seed) for seed in range(3)])


class TestCheckpoints(SourceConformance):
    average = False

    def make_source(self):
        torch.manual_seed(0)
        networks = [
            nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double() for _ in range(3)
        ]
        return CheckpointNTK(networks, average=self.average).kernel_source(self.samples())


class TestAverageOfCheckpoints(TestCheckpoints):
    average = True


class TestKernelMLP(SourceConformance):
    def make_source(self):
        X = self.samples()
        return KernelMLP((5, 4), epochs=5).kernel_source(X, (X[:, 0] > 0).astype(int))


class TestPerClass(SourceConformance):
    n_kernels = 3

    def make_source(self):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        return make_source(network, self.samples(), outputs="per_class")


class TestImages(SourceConformance):
    def samples(self):
        return np.random.default_rng(0).standard_normal((9, 1, 5, 4))

    def make_source(self):
        def network(n_features, n_outputs, random_state):
            return nn.Sequential(
                nn.Conv2d(n_features, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1)
            )

        return make_source(network, self.samples())


class TestInfiniteMLP(SourceConformance):
    def make_source(self):
        return InfiniteMLP(2, split_bias=True).kernel_source(self.samples(), n_jobs=2)


class TestQuadrature(SourceConformance):
    def make_source(self):
        return InfiniteMLP(1, "gelu").kernel_source(self.samples())


class TestInfiniteRNN(SourceConformance):
    network = InfiniteRNN(2, bidirectional=True)

    def samples(self):
        rng = np.random.default_rng(0)
        return [rng.standard_normal((length, 2)) for length in (3, 5, 1, 5, 2, 4, 7, 3, 6, 1)]

    def make_source(self):
        return self.network.kernel_source(self.samples())

    def refused(self):
        X = self.samples()
        gap = X[1].copy()
        gap[2] = np.nan
        return [
            ([*X, gap], "NaN"),
            ([x[:, :1] for x in X], "1 channels"),
            ([*X, np.zeros((0, 2))], "0 time steps"),
        ]


class TestSteps(TestInfiniteRNN):
    network = InfiniteRNN(groups="time", pooling="mean-untied")


class TestTiedMean(TestInfiniteRNN):
    network = InfiniteRNN(pooling="mean-tied", groups="param")


@cache
def documented():
    """The module that the code of the last section of the page makes."""
    _, _, section = EXTENDING.read_text().partition("A source of layer kernels\n")
    blocks = [block.partition("\n\n")[2] for block in section.split(".. code-block:: python")[1:]]
    code = [
        line for block in blocks for line in block.splitlines()
        if not line or line.startswith("   ")
    ]  # fmt: skip
    module = ModuleType("extending")
    sys.modules["extending"] = module  # where pickle looks for it
    exec(textwrap.dedent("\n".join(code)), module.__dict__)
    return module


class TestDocumentedSource(SourceConformance):
    def make_source(self):
        return documented().GaussianKernels({"first": [0], "others": [1, 2, 3]}, gamma=0.3)


def test_documented_source_takes_the_place_of_a_network():
    X, y = load_iris(return_X_y=True)
    names = documented()
    source = names.GaussianKernels({"sepals": [0, 1], "petals": [2, 3]}, gamma=0.5)
    assert layer_names(source) == ["sepals", "petals"]
    kernels = layer_kernels(source, X, X[:9])
    assert kernels.shape == (150, 9, 2)
    assert_allclose(layer_kernel_diag(source, X), 1)
    model = MultiLayerNTKClassifier(source).fit(X[::2], y[::2])
    assert model.score(X[1::2], y[1::2]) > 0.9
    assert model.layer_names_ == ["sepals", "petals"]
    phi = layer_contributions(model, X)
    assert_allclose(phi.sum(axis=2) + model.intercept_, model.decision_function(X), rtol=1e-9)
    assert MultiLayerNTKRegressor(source).fit(X[:, :], X[:, 3]).score(X, X[:, 3]) > 0.9
    # The specification that the page ends with was fitted in a grid there.
    assert names.search.best_score_ > 0.9


class TwoKernels(KernelSource):
    layer_names = ["all"]  # noqa: RUF012 - as short as users write it

    def block(self, batch, other=None):
        products = batch @ (batch if other is None else other).T
        return np.stack([products, 2 * products])[:, None]

    def diag(self, batch):
        norms = np.sum(batch**2, axis=1)
        return np.stack([norms, 2 * norms])[:, None]


class TestDefaults(SourceConformance):
    """A source that has the two methods it must have, and two kernels for each layer."""

    n_kernels = 2

    def make_source(self):
        return TwoKernels()

    def refused(self):
        return super().refused()[:1]


def test_several_kernels_of_a_layer_are_handed_out(rng):
    X = rng.standard_normal((6, 3))
    assert layer_kernels(TwoKernels(), X).shape == (2, 6, 6, 1)
    assert layer_kernels(TwoKernels(), X, X[:4]).shape == (2, 6, 4, 1)
    assert layer_kernel_diag(TwoKernels(), X).shape == (2, 6, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestInfiniteMLPOnCUDA(SourceConformance):
    def make_source(self):
        return InfiniteMLP(2).kernel_source(self.samples(), device="cuda")
