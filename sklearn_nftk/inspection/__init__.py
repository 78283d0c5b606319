"""Contributions to decisions: of each layer, each class and each training example.

Numbers are exact identities of the fitted machine (`layer_contributions`,
`training_contributions`), or evidence about its layers (`layer_ablation`, `layer_values`,
`kernel_similarity`, `weight_stability`). Displays draw them.
"""

from ._ablation import layer_ablation
from ._contributions import layer_contributions
from ._explain import explain
from ._similarity import kernel_similarity
from ._stability import weight_stability
from ._training import training_contributions
from ._values import layer_values
from .plots import (
    KernelAlignmentDisplay,
    LayerContributionsDisplay,
    LayerWeightsDisplay,
    TrainingContributionsDisplay,
)

__all__ = [
    "KernelAlignmentDisplay",
    "LayerContributionsDisplay",
    "LayerWeightsDisplay",
    "TrainingContributionsDisplay",
    "explain",
    "kernel_similarity",
    "layer_ablation",
    "layer_contributions",
    "layer_values",
    "training_contributions",
    "weight_stability",
]
