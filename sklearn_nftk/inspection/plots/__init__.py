"""Displays: the numbers of inspection as pictures, and as DataFrames."""

from ._alignment_curves_display import AlignmentCurvesDisplay
from ._alignment_display import KernelAlignmentDisplay
from ._contributions_display import LayerContributionsDisplay
from ._features_display import FeatureContributionsDisplay
from ._layer_grams_display import LayerGramsDisplay
from ._training_display import TrainingContributionsDisplay
from ._weights_display import LayerWeightsDisplay

__all__ = [
    "AlignmentCurvesDisplay",
    "FeatureContributionsDisplay",
    "KernelAlignmentDisplay",
    "LayerContributionsDisplay",
    "LayerGramsDisplay",
    "LayerWeightsDisplay",
    "TrainingContributionsDisplay",
]
