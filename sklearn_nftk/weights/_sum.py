"""``kernel_weights="sum"``: the ordinary neural tangent kernel."""

from ._base import LayerWeights, WeightMethod, on_simplex


class Sum(WeightMethod):
    """Weights proportional to the scales: the plain sum of the unscaled kernels, the NTK."""

    name = "sum"

    def weights(self, problem, statistics, mask):
        """Weight the active layers by their scales."""
        weights = on_simplex((problem.grams.scales * mask)[problem.kernels])
        return LayerWeights(weights, weights)
