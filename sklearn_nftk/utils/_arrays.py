"""Validation of batches of samples outside of estimators."""

import numpy as np
import torch

from ._sklearn import check_array


def check_batch(X, name="X", *, allow_nd=True):
    """Validate a batch of samples: floats or integers, of any number of dimensions >= 2."""
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().numpy()
    X = check_array(X, allow_nd=allow_nd, input_name=name)
    return X if X.dtype.kind in "iu" or X.dtype == np.float32 else X.astype(np.float64, copy=False)
