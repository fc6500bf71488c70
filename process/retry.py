"""When to retry: the back-off and its jitter."""

import random

BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 30.0
JITTER = 0.25
"""A wait is lengthened by up to this part of itself, so that clients that failed together do not return together."""


def backoff_s(attempt: int) -> float:
    """The wait in seconds before retry `attempt` (0 is the first); it doubles, up to BACKOFF_S_MAX."""
    return float(min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(attempt, 16)))


def jittered(wait_s: float) -> float:
    """`wait_s`, lengthened by a random part of up to JITTER."""
    return wait_s * (1 + JITTER * random.random())
