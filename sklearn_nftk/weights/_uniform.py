"""``kernel_weights="uniform"``: all layers alike."""

from ._base import LayerWeights, WeightMethod, uniform_weights


class Uniform(WeightMethod):
    """Equal weights: each scaled kernel counts the same."""

    name = "uniform"

    def weights(self, problem, statistics, mask):
        """Weight the active layers equally."""
        uniform = uniform_weights(problem, mask)
        return LayerWeights(uniform, uniform)
