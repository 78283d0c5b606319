"""Progress bars: tqdm where it is installed and somebody is looking, nothing otherwise."""

import sys


class _Silent:
    """Stands in for a bar where none is shown."""

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    def update(self, n=1):
        pass

    def set_description(self, description):
        pass


def progress(total, description, *, enabled=True, terminal_only=False):
    """Return a context manager with ``update(n)`` that shows how far `total` steps have got.

    Parameters
    ----------
    total : int
    description : str
    enabled : bool
        Whether the user asked for it (``verbose``).
    terminal_only : bool
        Draw only when stderr is a terminal, so that logs and pipes stay clean.
    """
    if not enabled or (terminal_only and not sys.stderr.isatty()):
        return _Silent()
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _Silent()
    return tqdm(total=total, desc=description, leave=False)
