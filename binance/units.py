"""The unit of the exchange's times: every source is asked for microseconds, so that they are floored in one place.

Sources: web-socket-streams.md (`timeUnit` in the address), rest-api.md (the header X-MBX-TIME-UNIT). Milliseconds are
the default of both, and no document says whether the exchange floors or rounds to them.
"""

import logging
import threading

from binance import checks

log = logging.getLogger("units")

STREAM_QUERY = "timeUnit=MICROSECOND"
REST_HEADERS = {"X-MBX-TIME-UNIT": "MICROSECOND"}

_said: set[str] = set()
"""Sources that answer in milliseconds all the same, each said once."""
_lock = threading.Lock()


def look(source: str, address: str, stamp: int) -> None:
    """Warns, once per source and process, if `stamp`, a trade's time as it was sent, is in milliseconds."""
    if not checks.is_in_milliseconds(stamp) or source in _said:
        return
    with _lock:
        first = source not in _said
        _said.add(source)
    if first:
        log.warning(
            "%s (%s) answers in milliseconds, though microseconds are asked for: a stand-in, a proxy or an old host."
            " Its trades are stored; that it floors their times, as is done here, is not checked but trusted",
            source,
            address,
        )
