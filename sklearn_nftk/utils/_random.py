"""The global generators of torch and numpy: used by one thread at a time, without a trace."""

import threading
from contextlib import contextmanager

import torch
from sklearn.utils import check_random_state

# They are those of the process. Threads that draw at the same time would take from each other's
# sequences, and one that puts them back would repeat what another has drawn.
_LOCK = threading.RLock()


@contextmanager
def global_generators(seed=None):
    """Have the global generators to oneself, and put them back in the end.

    Whoever saves and restores them, or lets a network draw, does it in here.

    Parameters
    ----------
    seed : int, default=None
        Seeds them; None leaves them as they are.

    Yields
    ------
    untouched : callable
        Tells whether nothing was drawn from them so far.
    """
    numpy_generator = check_random_state(None)
    devices = range(torch.cuda.device_count())
    with _LOCK, torch.random.fork_rng(devices=devices):
        before = numpy_generator.get_state()
        if seed is not None:
            torch.manual_seed(seed)
            numpy_generator.seed(seed)
        start = _states(numpy_generator)
        try:
            yield lambda: _states(numpy_generator) == start
        finally:
            numpy_generator.set_state(before)


def _states(numpy_generator):
    """Whatever drawing changes."""
    devices = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        devices += torch.cuda.get_rng_state_all()
    _, keys, position, *_ = numpy_generator.get_state()
    return [*(state.numpy().tobytes() for state in devices), keys.tobytes(), position]
