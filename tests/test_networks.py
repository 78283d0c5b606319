import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone

from sklearn_nftk.kernels import layer_kernels
from sklearn_nftk.networks import MLP


def effective_weights(layer):
    return (layer.weight * getattr(layer, "weight_scale", 1.0)).detach().numpy()


@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
def test_weights_are_he_initialised(parametrization):
    mlp = MLP((2000, 2000), parametrization=parametrization, random_state=0)
    module = mlp.build(50, 1)
    for name, fan_in in [("layer0", 50), ("layer1", 2000), ("layer2", 2000)]:
        weights = effective_weights(getattr(module, name))
        assert_allclose(weights.mean(), 0, atol=4 * np.sqrt(2 / fan_in / weights.size))
        assert_allclose(weights.var() * fan_in, 2, rtol=0.05)
    bias = module.layer1.bias * getattr(module.layer1, "bias_scale", 1.0)
    assert_allclose(bias.detach().var(), 0.1, rtol=0.1)


def test_weight_vectors_are_orthogonal_in_blocks_and_gaussian_alone():
    W = MLP((4000,), random_state=0).build(40, 1).layer0.weight.detach().numpy()
    block = W[:40] @ W[:40].T
    assert_allclose(block - np.diag(block.diagonal()), 0, atol=1e-10)
    squared_norms = np.sum(W**2, axis=1)  # chi-squared with 40 degrees of freedom
    assert_allclose(squared_norms.mean(), 40, rtol=0.02)
    assert_allclose(squared_norms.var(), 80, rtol=0.1)
    assert_allclose(np.mean(W**4), 3, rtol=0.05)


def test_function_is_the_same_in_both_parametrizations(rng):
    X = torch.as_tensor(rng.standard_normal((5, 3)))
    ntk, standard = (
        MLP((6, 6), parametrization=name, random_state=1).build(3, 2)(X).detach()
        for name in ("ntk", "standard")
    )
    assert_allclose(ntk, standard, rtol=1e-12)


def closed_form(X, weight_variance, bias_variance):
    """Layer kernels of the infinitely wide ReLU network with one hidden layer (Jacot et al.)."""
    d = X.shape[1]
    S = weight_variance * X @ X.T / d + bias_variance
    q = np.sqrt(S.diagonal())
    c = np.clip(S / np.outer(q, q), -1, 1)
    angle = np.pi - np.arccos(c)
    V = np.outer(q, q) * (np.sqrt(1 - c**2) + c * angle) / (2 * np.pi)
    derivative = angle / (2 * np.pi)
    return np.array([S * weight_variance * derivative, weight_variance * V + bias_variance])


def test_kernels_approach_the_closed_form_as_width_grows(rng):
    X = rng.standard_normal((6, 4))
    limit = closed_form(X, 1.5, 0.3)

    def error(width, layer):
        errors = []
        for seed in range(8):
            mlp = MLP((width,), weight_variance=1.5, bias_variance=0.3, random_state=seed)
            difference = layer_kernels(mlp, X)[..., layer] - limit[layer]
            errors.append(np.linalg.norm(difference) / np.linalg.norm(limit[layer]))
        return np.sqrt(np.mean(np.square(errors)))

    for layer in range(2):
        narrow, wide = error(64, layer), error(4096, layer)
        slope = np.log(wide / narrow) / np.log(64)
        assert -0.7 < slope < -0.35
        assert wide < 0.05


def test_variances_per_layer():
    module = MLP((3,), weight_variance=[1.0, 4.0], bias_variance=[0.0, 0.25]).build(4, 1, 0)
    assert_allclose(module.layer0.weight_scale, 0.5)
    assert_allclose(module.layer1.weight_scale, np.sqrt(4 / 3))
    assert_allclose([module.layer0.bias_scale, module.layer1.bias_scale], [0, 0.5])


def test_own_random_state_comes_first():
    def weight(mlp, seed):
        return mlp.build(3, 1, seed).layer0.weight

    assert torch.equal(weight(MLP((4,), random_state=1), 7), weight(MLP((4,), random_state=1), 8))
    assert not torch.equal(weight(MLP((4,)), 7), weight(MLP((4,)), 8))


def test_is_a_small_scikit_learn_object():
    mlp = MLP((3, 3), "tanh", bias_variance=0.0)
    assert clone(mlp).get_params() == mlp.get_params()
    assert (
        mlp.set_params(activation="gelu").build(2, 1, 0).activation0.__class__.__name__ == "GELU"
    )
