"""BLAS on one thread, for products too small to be shared."""

from functools import cache

from threadpoolctl import ThreadpoolController

# Finding the libraries takes longer than what is done under the limit: they are found once.
_libraries = cache(ThreadpoolController)


def one_blas_thread():
    """Context in which BLAS does not wait for threads: they cost more than they give."""
    return _libraries().limit(limits=1, user_api="blas")
