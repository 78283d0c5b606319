"""How much memory there is, how much one step may take, and the error when it does not fit."""

import os

from sklearn import get_config

MIB = 2**20


def available_memory():
    """Bytes that new arrays can take on the host, or None where the system does not tell."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def working_memory():
    """Bytes that temporary arrays may take: scikit-learn's `working_memory` setting."""
    return max(1, int(get_config()["working_memory"] * MIB))


def fits(n_bytes):
    """Whether so many bytes can be allocated; true where the system does not tell."""
    available = available_memory()
    return available is None or n_bytes <= available


_FEWER_ROWS = (
    "Fit on fewer rows; an approximation by landmarks (`n_landmarks`) is not part of this version."
)


def require_memory(n_bytes, what, *, advice=_FEWER_ROWS):
    """Raise before the allocation rather than be killed after it.

    Parameters
    ----------
    n_bytes : int
        Bytes about to be allocated.
    what : str
        What they are for; begins the message.
    advice : str
        What the user can do; ends the message.

    Raises
    ------
    MemoryError
        Stating the bytes needed and the bytes available.
    """
    if not fits(n_bytes):
        available = available_memory()
        raise MemoryError(
            f"{what} needs {n_bytes:,.0f} bytes ({n_bytes / 2**30:.1f} GiB), but only "
            f"{available:,} bytes ({available / 2**30:.1f} GiB) are available. {advice}"
        )
