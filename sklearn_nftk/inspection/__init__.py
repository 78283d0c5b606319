"""What each layer, each class and each training example contributed to a decision.

Numbers are exact identities of the fitted machine (`layer_contributions`,
`training_contributions`), or evidence about its layers (`layer_ablation`, `kernel_similarity`,
`weight_stability`). Displays draw them.
"""

from ._ablation import layer_ablation
from ._contributions import layer_contributions
from ._layer_weights import LayerWeightsDisplay
from ._similarity import kernel_similarity
from ._stability import weight_stability
from ._training import training_contributions

__all__ = [
    "LayerWeightsDisplay",
    "kernel_similarity",
    "layer_ablation",
    "layer_contributions",
    "training_contributions",
    "weight_stability",
]
