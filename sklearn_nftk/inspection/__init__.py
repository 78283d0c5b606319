"""Contributions to decisions: of each layer, class, feature and training example.

Numbers are exact identities of the fitted machine (`layer_contributions`,
`training_contributions`, `training_influence`), integrals of its derivatives
(`feature_contributions`), or evidence about its layers (`layer_ablation`, `layer_values`,
`kernel_similarity`, `weight_stability`), its training examples (`nearest_examples`,
`mislabelled`) and how well it stands for its network (`network_fidelity`). Displays draw them.
"""

from ._ablation import layer_ablation
from ._contributions import layer_contributions
from ._explain import explain
from ._features import feature_contributions
from ._fidelity import network_fidelity
from ._influence import training_influence
from ._mislabelled import mislabelled
from ._neighbors import nearest_examples
from ._similarity import kernel_similarity
from ._stability import weight_stability
from ._training import training_contributions
from ._values import layer_values
from .plots import (
    AlignmentCurvesDisplay,
    FeatureContributionsDisplay,
    KernelAlignmentDisplay,
    LayerContributionsDisplay,
    LayerGramsDisplay,
    LayerWeightsDisplay,
    TrainingContributionsDisplay,
)

__all__ = [
    "AlignmentCurvesDisplay",
    "FeatureContributionsDisplay",
    "KernelAlignmentDisplay",
    "LayerContributionsDisplay",
    "LayerGramsDisplay",
    "LayerWeightsDisplay",
    "TrainingContributionsDisplay",
    "explain",
    "feature_contributions",
    "kernel_similarity",
    "layer_ablation",
    "layer_contributions",
    "layer_values",
    "mislabelled",
    "nearest_examples",
    "network_fidelity",
    "training_contributions",
    "training_influence",
    "weight_stability",
]
