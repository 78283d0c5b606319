"""The affine map of the NTK parametrisation."""

from torch import nn


class NTKLinear(nn.Linear):
    """Affine map in the NTK parametrisation: ``weight_scale * W x + bias_scale * b``.

    Parameters
    ----------
    in_features, out_features : int
    weight_scale, bias_scale : float
        Fixed multipliers of the trainable parameters, which themselves are of unit variance.
    device : torch.device, default=None
    """

    def __init__(self, in_features, out_features, *, weight_scale, bias_scale, device=None):
        super().__init__(in_features, out_features, device=device)
        self.weight_scale = weight_scale
        self.bias_scale = bias_scale

    def forward(self, input):
        # The input is smaller than the weight, most of all that of a single sample.
        return nn.functional.linear(
            self.weight_scale * input, self.weight, self.bias_scale * self.bias
        )

    def extra_repr(self):
        return (
            f"{super().extra_repr()}, weight_scale={self.weight_scale:.4g}, "
            f"bias_scale={self.bias_scale:.4g}"
        )
