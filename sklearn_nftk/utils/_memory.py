"""Memory that is available, the part that one step may take, and the error beyond it."""

import os
from functools import lru_cache
from pathlib import Path, PurePosixPath

from sklearn import get_config

MIB = 2**20

# Of a control group: its limit, what it uses, and what of that is given back at once.
_V1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
_V2 = "memory.max", "memory.current", "inactive_file"
_NO_LIMIT = 2**60  # version 1 states none as the largest multiple of a page


def available_memory(root="/"):
    """Bytes that new arrays can take on the host, or None where the system does not tell.

    The least of what the machine has and of what the control groups of this process leave it
    (containers, batch systems). There the kernel counts cached files as used, of which it gives
    the inactive ones back when memory is asked for.

    Parameters
    ----------
    root : path-like, default="/"
        Where ``proc`` and ``sys`` are.
    """
    root = Path(root)
    known = [free for free in (_of_machine(root), *_of_control_groups(root)) if free is not None]
    if known:
        return max(0, min(known))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _of_machine(root):
    kibibytes = _table(root / "proc/meminfo").get("MemAvailable:")
    return None if kibibytes is None else kibibytes * 1024


def _of_control_groups(root):
    """Yield what each group leaves that has a limit."""
    for group, (limit, usage, cache) in _control_groups(root):
        allowed = _number(group / limit)
        if allowed is not None and allowed < _NO_LIMIT:
            used = _number(group / usage) or 0
            yield allowed - used + _table(group / "memory.stat").get(cache, 0)


@lru_cache(maxsize=1)  # a process stays where it is
def _control_groups(root):
    """Folders of the groups of this process, up the trees of both versions, and their files."""
    groups = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        files = _V1 if controllers else _V2
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        # In a container the path is that on the host; its own group is then what is at the top.
        for group in dict.fromkeys([*(top / part for part in _ancestors(path)), top]):
            if (group / files[0]).exists():
                groups.append((group, files))
    return groups


def _ancestors(path):
    parts = PurePosixPath(path.strip().lstrip("/"))
    return [parts, *parts.parents]


def _lines(path):
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _table(path):
    rows = (line.split() for line in _lines(path))
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _number(path):
    """The number in a file; None where there is no file, or no limit ("max")."""
    first = next(iter(_lines(path)), "").strip()
    return int(first) if first.isdigit() else None


def working_memory():
    """Bytes that temporary arrays may take: scikit-learn's `working_memory` setting."""
    return max(1, int(get_config()["working_memory"] * MIB))


def fits(n_bytes):
    """Compare bytes with what can be allocated; True where the system does not tell."""
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
