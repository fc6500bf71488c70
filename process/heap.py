"""What the process asks of the C library's malloc."""

import ctypes

MAPPED_BYTES_MIN = 64 * 2**10
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""malloc.h of glibc; mallopt(3)."""


def keep_small() -> None:
    """Has malloc take what is large from the system by itself, and give it back at once, as long as the process runs.

    By default glibc raises the size from which it does so to that of the largest piece that was given back. From then
    on the SQL of thousands of trades lies among what is small and stays, and the process grows for hours: measured
    with 1,500 symbols. Nor does each thread get a part of its own: what one connection gave back would be of no use to
    the others, and Python's threads wait for each other anyway. Another C library is left as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
    mallopt(_M_ARENA_MAX, 1)
