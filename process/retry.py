"""When to retry: the back-off and its jitter."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 30.0
DOUBLINGS_MAX = 30
"""Beyond any wait; 2.0 to the power of the tries of some days would be no number any more."""
JITTER = 0.25
"""A wait is lengthened by up to this part of itself, so that clients that failed together do not return together."""


def backoff_s(attempt: int) -> float:
    """The wait in seconds before retry `attempt` (0 is the first); it doubles, up to BACKOFF_S_MAX."""
    return doubled(BACKOFF_S_MIN, attempt, BACKOFF_S_MAX)


def doubled(wait_s: float, times: int, most_s: float) -> float:
    """`wait_s` in seconds, doubled `times` times (not at all below 1), up to `most_s`."""
    return min(most_s, wait_s * 2.0 ** min(max(0, times), DOUBLINGS_MAX))


def jittered(wait_s: float) -> float:
    """`wait_s`, lengthened by a random part of up to JITTER."""
    return wait_s * (1 + JITTER * random.random())


def insisted(step: Callable[[], T], kind: type[Exception], tries: int) -> T:
    """What `step` returns; while it raises an error of `kind`, it is tried again after growing waits, `tries` times in
    all. Raises what it raises at last."""
    for attempt in range(1, tries):
        try:
            return step()
        except kind:
            time.sleep(jittered(backoff_s(attempt)))
    return step()
