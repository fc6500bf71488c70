"""The exchange's limits: the pause that it orders, its bound on connection attempts, and what its refusals mean."""

import threading
import time
from collections import deque
from collections.abc import Callable

CONNECTS_MAX = 250
CONNECTS_WINDOW_S = 300.0
"""Binance allows 300 attempts per 5 minutes and address (web-socket-streams.md); the rest is for other programs."""
RETRY_AFTER_S_MAX = 3 * 86_400.0
"""The longest ban that Binance announces (rest-api.md: 2 minutes to 3 days); more is not believed."""
RATE_LIMITED_S = 60.0
"""The wait after an HTTP 429 or 418 without Retry-After: Binance's windows are a minute long."""


def retry_after_s(text: str | None, default_s: float) -> float:
    """The seconds of a Retry-After header; `default_s` if it is missing or not a whole number of seconds."""
    if text is None or not (text.strip().isascii() and text.strip().isdigit()):
        return default_s
    return min(float(text), RETRY_AFTER_S_MAX)


class Cooldown:
    """How long the exchange wants no request from this address; the streams and REST share one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = 0.0
        self._lock = threading.Lock()

    def order(self, wait_s: float) -> None:
        """Nothing may be sent for `wait_s` seconds from now; a longer order that is already in force stays."""
        with self._lock:
            self._until = max(self._until, self._clock() + wait_s)

    def left_s(self) -> float:
        """The seconds still to wait; 0 if there is no order."""
        return max(0.0, self._until - self._clock())


class ConnectBudget:
    """At most CONNECTS_MAX connection attempts in any CONNECTS_WINDOW_S seconds, over all connections."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._attempts: deque[float] = deque(maxlen=CONNECTS_MAX)
        self._lock = threading.Lock()

    def wait_s(self) -> float:
        """The seconds until an attempt is allowed; 0 means that it is allowed now, and has been counted."""
        with self._lock:
            now = self._clock()
            if len(self._attempts) == CONNECTS_MAX and now - self._attempts[0] < CONNECTS_WINDOW_S:
                return CONNECTS_WINDOW_S - (now - self._attempts[0])
            self._attempts.append(now)
            return 0.0


def meaning(status: int, elsewhere: str) -> str | None:
    """What an HTTP status that refuses this client means; None for any other.

    `elsewhere` says which host may serve a client that this one never will.
    """
    return {
        403: f"the exchange's firewall refuses this address or request; {elsewhere}",
        418: "this address is banned for a while, because it carried on after HTTP 429; waiting as told",
        429: "too many requests from this address; waiting as told",
        451: f"Binance does not serve the country of this address; {elsewhere}",
    }.get(status)
