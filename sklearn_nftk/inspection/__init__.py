"""What each layer contributed to a decision, as numbers and as pictures."""

from ._contributions import layer_contributions
from ._layer_weights import LayerWeightsDisplay

__all__ = ["LayerWeightsDisplay", "layer_contributions"]
