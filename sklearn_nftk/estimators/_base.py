"""Base of all estimators: options, validation, fitted attributes."""

from dataclasses import fields

import numpy as np
from sklearn.base import BaseEstimator

from ..learner import LearnerOptions
from ..utils._memory import require_memory
from ..utils._sklearn import CallbackSupportMixin, visual_block
from ._diagram import fitted_layers
from ._training_set import training_set

# Attributes that not every fit sets: those of an earlier fit would be wrong.
_NOT_ALWAYS_SET = ("dual_gap_", "index_fit_", "loo_scores_", "oof_scores_", "temperature_")


class BaseKernelMachine(CallbackSupportMixin, BaseEstimator):
    """Kernel machine on a convex combination of layer kernels.

    Subclasses provide the parameters of `LearnerOptions` and ``verbose``; targets by
    ``_targets(y, sample_weight)``; and kernels: keys of training rows by ``_keys(X, rows)``, what
    is to be learned from another training set on the fitted kernels by ``_problem_of(X,
    training)``, validated samples by ``_validated(X, y)`` and ``_test_set(X)``, and their kernels
    with the training set by ``_blocks(X, step)``, those of the training set with itself by
    ``_training_grams()``.
    """

    # Where notebooks link to.
    _doc_link_module = "sklearn_nftk"
    _doc_link_template = (
        "https://sklearn-nftk.readthedocs.io/generated/sklearn_nftk.{estimator_name}.html"
    )

    def _sk_visual_block_(self):
        return visual_block(self, fitted_layers(self))

    def _options(self):
        """Parameters of the learner as they are now."""
        return LearnerOptions(**{f.name: getattr(self, f.name) for f in fields(LearnerOptions)})

    def _training_set(self, X, y, sample_weight):
        """Rows to learn from; X and y are validated."""
        targets = self._targets(y, sample_weight)
        return training_set(lambda rows: self._keys(X, rows), targets)

    def _check_parameters(self, training):
        """Refuse what has no meaning or no room, before any kernel is computed."""
        n = len(training.Y)
        require_memory(2 * 8 * n**2, f"Solving for a combined kernel of {n} rows")
        weights = self.kernel_weights
        if isinstance(weights, str) and weights == "sum" and self.normalize == "cosine":
            raise ValueError(
                "kernel_weights='sum' weights layers by their scales, and normalize='cosine' has "
                "none; use another normalize or other kernel_weights."
            )

    def _keep(self, fitted, training, ids=None):
        """Set what a fit leaves behind; copies of a row share its coefficients.

        `ids` are those of the rows of X and y, shape (n_samples,), where they have any.
        """
        for name in _NOT_ALWAYS_SET:
            self.__dict__.pop(name, None)
        self._fitted = fitted
        self._training = training
        copy_of = training.rows.copy_of
        self.layer_names_ = list(fitted.layer_names)
        self.layer_scales_ = self._squeezed(fitted.layer_scales)
        self.kernel_weights_ = fitted.kernel_weights
        self.dual_coef_ = fitted.dual_coef[:, copy_of] * training.share()
        self.intercept_ = fitted.intercept
        self.C_ = fitted.C
        self.n_iter_ = fitted.n_iter
        self.layer_alignment_ = self._squeezed(fitted.layer_alignment)
        self.target_alignment_ = fitted.target_alignment
        self.mean_contributions_ = fitted.mean_contributions
        if ids is not None:
            self.index_fit_ = ids[training.kept]
        if fitted.dual_gap is not None:
            self.dual_gap_ = fitted.dual_gap
        if fitted.held_out_scores is not None:
            name = "oof_scores_" if fitted.cross_fitted else "loo_scores_"
            setattr(self, name, fitted.held_out_scores[copy_of])
        if fitted.class_codes is not None:
            self.class_codes_ = fitted.class_codes
        if fitted.temperature is not None:
            self.temperature_ = fitted.temperature

    def _squeezed(self, of_kernels):
        """One array where all decisions share their kernels, one for each decision else."""
        return of_kernels if self._has_own_kernels(of_kernels) else of_kernels[0]

    def _has_own_kernels(self, of_kernels):
        return len(of_kernels) > 1

    def _problem_again(self, X, y, sample_weight):
        """State the learning problem of a training set again, for `training_problem`."""
        n_features, classes = self.n_features_in_, getattr(self, "classes_", None)
        X, y = self._validated(X, y)
        training = self._training_set(X, y, sample_weight)
        if self.n_features_in_ != n_features:
            raise ValueError(
                f"X has {self.n_features_in_} features, but the estimator was fitted on "
                f"{n_features}."
            )
        if classes is not None and not np.array_equal(self.classes_, classes):
            raise ValueError(
                f"y must have the classes of the estimator, {classes.tolist()}; got "
                f"{self.classes_.tolist()}."
            )
        return self._problem_of(X, training)
