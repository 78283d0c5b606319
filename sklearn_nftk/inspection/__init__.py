"""What each layer, each class and each training example contributed to a decision.

Numbers are exact identities of the fitted machine (`layer_contributions`,
`training_contributions`), or evidence about its layers (`layer_ablation`, `kernel_similarity`,
`weight_stability`). Displays draw them.
"""

from ._ablation import layer_ablation
from ._alignment_display import KernelAlignmentDisplay
from ._contributions import layer_contributions
from ._contributions_display import LayerContributionsDisplay
from ._explain import explain
from ._similarity import kernel_similarity
from ._stability import weight_stability
from ._training import training_contributions
from ._training_display import TrainingContributionsDisplay
from ._weights_display import LayerWeightsDisplay

__all__ = [
    "KernelAlignmentDisplay",
    "LayerContributionsDisplay",
    "LayerWeightsDisplay",
    "TrainingContributionsDisplay",
    "explain",
    "kernel_similarity",
    "layer_ablation",
    "layer_contributions",
    "training_contributions",
    "weight_stability",
]
