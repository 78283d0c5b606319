import matplotlib
import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from threadpoolctl import threadpool_limits
from torch import nn

matplotlib.use("Agg")
# Small problems: threads of matrix products would only get in each other's way.
torch.set_num_threads(1)
threadpool_limits(1)


@pytest.fixture
def three_classes():
    """60 samples of 5 features in three classes."""
    X, y = make_classification(
        60, 5, n_informative=4, n_redundant=0, n_classes=3, class_sep=1.0, random_state=0
    )
    return X, y


@pytest.fixture
def two_classes():
    """50 samples of 4 features in two classes."""
    return make_classification(50, 4, n_redundant=0, random_state=1)


@pytest.fixture
def network():
    """A small network of Linear layers with two outputs, in float64."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6, bias=False), nn.ReLU(), nn.Linear(6, 2)
    ).double()


@pytest.fixture
def rng():
    return np.random.default_rng(0)
