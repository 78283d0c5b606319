"""The fitted kernel machine, which splits its decisions over the layers."""

from dataclasses import dataclass

import numpy as np

from ._options import LearnerOptions


@dataclass(frozen=True)
class Fitted:
    """A fitted kernel machine on n distinct rows.

    ``f_c(x) = sum_l w_cl sum_i a_ci K_l(x, x_i) + b_c`` with ``K_l = Theta_l / s_l``.

    Attributes
    ----------
    options : LearnerOptions
    layer_names : list of str
    layer_scales : ndarray of shape (H, L)
    kernel_weights : ndarray of shape (n_decisions, L)
    dual_coef : ndarray of shape (n_decisions, n)
    intercept : ndarray of shape (n_decisions,)
    C : float
    held_out_scores : ndarray of shape (n, n_decisions) or None
        Decision values on rows that were not learned from: leave-one-out (squared loss), or those
        of machines of the folds, where there are some.
    cross_fitted : bool
        Whether there are folds.
    class_codes : ndarray of shape (n_classes, n_decisions) or None
        Target of each class in each decision, where there are classes.
    temperature : float or None
        Of the probabilities of classes (squared loss).
    n_iter : int
    dual_gap : float or None
        Where the weights come with a certificate.
    layer_alignment : ndarray of shape (H, L, L)
    target_alignment, mean_contributions : ndarray of shape (n_decisions, L)
    row_means : ndarray of shape (H, L, n)
        Mean of each row of the scaled kernels over the training set.
    """

    options: LearnerOptions
    layer_names: list
    layer_scales: np.ndarray
    kernel_weights: np.ndarray
    dual_coef: np.ndarray
    intercept: np.ndarray
    C: float
    held_out_scores: np.ndarray | None
    cross_fitted: bool
    class_codes: np.ndarray | None
    temperature: float | None
    n_iter: int
    dual_gap: float | None
    layer_alignment: np.ndarray
    target_alignment: np.ndarray
    mean_contributions: np.ndarray
    row_means: np.ndarray

    def contributions(self, block):
        """``phi_cl(x) = w_cl sum_i a_ci K_l(x, x_i)``.

        Parameters
        ----------
        block : ndarray of shape (H, L, b, n)
            Unscaled kernels of b samples with the rows.

        Returns
        -------
        ndarray of shape (b, n_decisions, L)
        """
        if len(block) == 1:
            sums = block[0] @ self.dual_coef.T  # (L, b, C)
            return np.einsum("lbc,cl->bcl", sums, self.coefficients)
        sums = np.array([planes @ a for planes, a in zip(block, self.dual_coef, strict=True)])
        return np.einsum("clb,cl->bcl", sums, self.coefficients)

    @property
    def coefficients(self):
        """``w_cl / s_l``, shape (n_decisions, L)."""
        return self.kernel_weights / self.layer_scales
