"""Device and precision of tangent kernels: the one place that decides."""

from contextlib import suppress
from functools import partial

import numpy as np
import torch

from ._memory import working_memory
from ._threads import SharedChange

# Besides matrix products: of which cuDNN and oneDNN keep settings of their own.
_CALLS = ["conv", "rnn"]
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


def full_precision():
    """Context in which float32 products stay in float32.

    TF32 and bfloat16 have 10 and 7 bits of mantissa, too few for kernels.
    """
    return _full_precision


def _require_float32():
    """Set what torch has to say on float32 products in its two ways; returns what undoes it.

    What the newer way has set (``fp32_precision``, torch >= 2.9) the older one cannot read, and
    what the older one has set is put back by it alone.
    """
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    newer = hasattr(cuda.matmul, "fp32_precision")
    parts = [
        part
        for library, names in ((cuda, ["matmul"]), (cudnn, _CALLS), (mkldnn, ["matmul", *_CALLS]))
        for part in (getattr(library, name) for name in names if newer)
    ]
    undo = [partial(setattr, part, "fp32_precision", part.fp32_precision) for part in parts]
    with suppress(RuntimeError):
        undo.insert(0, partial(setattr, cudnn, "allow_tf32", cudnn.allow_tf32))
        cudnn.allow_tf32 = False
    with suppress(RuntimeError):
        precision = torch.get_float32_matmul_precision()
        undo.insert(0, partial(torch.set_float32_matmul_precision, precision))
        torch.set_float32_matmul_precision("highest")
    for part in parts:
        if part.fp32_precision not in ("ieee", "none"):
            part.fp32_precision = "ieee"

    def restore():
        for setting in undo:
            setting()

    return restore


_full_precision = SharedChange(_require_float32)


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
