"""The choices of the learner, as they were at fit."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LearnerOptions:
    """Parameters of the estimators that `learn` reads, under their names."""

    normalize: str = "variance"
    kernel_weights: Any = "alignment"
    p: float = 2.0
    shrinkage: float | str = "auto"
    per_class: bool = True
    loss: str = "squared"
    C: float | str = "auto"
    tol: float = 1e-3
    max_iter: int = 100
    n_jobs: int | None = None
