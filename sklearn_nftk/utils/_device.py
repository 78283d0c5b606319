"""Where and in which precision tangent kernels are computed: the one place that decides."""

from contextlib import contextmanager

import numpy as np
import torch

from ._memory import working_memory

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def resolve_device(device, *, fallback=False):
    """Turn the `device` parameter into a usable ``torch.device``.

    Parameters
    ----------
    device : {"auto"} or str or torch.device
        "auto" is CUDA when there is one, else the CPU. Anything else is what torch accepts.
    fallback : bool
        Take the CPU where the device is not present: for estimators fitted on another machine.

    Raises
    ------
    ValueError
        If torch does not know the device or it is not present on this machine.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={device!r} is not known to torch; use 'auto', 'cpu', 'cuda' or 'cuda:N'."
        ) from error
    present = {
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(resolved.type, 1)
    if resolved.type == "cpu" or (resolved.index or 0) < present:
        return resolved
    if fallback:
        return torch.device("cpu")
    raise ValueError(
        f"device={device!r} was asked for, but torch finds {present} {resolved.type.upper()} "
        "device(s) here; use device='auto' or device='cpu'."
    )


def resolve_dtype(dtype, X_dtype):
    """Turn the `dtype` parameter into ``torch.float32`` or ``torch.float64``.

    "auto" keeps the floating type of `X` (float64 for anything that is not float32).
    """
    if isinstance(dtype, str) and dtype == "auto":
        return torch.float32 if X_dtype == np.float32 else torch.float64
    if dtype in _DTYPES.values():
        return dtype
    try:
        return _DTYPES[np.dtype(dtype).name]
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"dtype={dtype!r} is not accepted; use 'auto', 'float32' or 'float64'."
        ) from error


@contextmanager
def full_precision():
    """Keep float32 products in float32: TF32 has 10 bits of mantissa, too few for kernels."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def free_memory(device):
    """Bytes that temporary arrays may take on a device.

    Half of what is free on a GPU; on the CPU scikit-learn's `working_memory` setting.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return working_memory()


def empty(shape, dtype, device):
    """``torch.empty`` for large arrays: numpy asks the system for huge pages, torch does not.

    The first write into ordinary pages takes about as long as a small matrix product.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty(shape, str(dtype).removeprefix("torch.")))
