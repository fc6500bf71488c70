"""What the connections of a capture have in common, and the address of the streams that some of them read."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

from binance import units
from binance.limits import ConnectBudget, Cooldown
from capture.inbox import Inbox
from capture.rejects import Rejects

log = logging.getLogger("ws_client")

STREAMS_NAMED_MAX = 10
SAME_MAX = 4
"""So many connections say the same reason why they are down, each SAME_S seconds; then how many more there were."""
SAME_S = 60.0


class Downs:
    """Tells of connections that are down: with thousands of symbols many are at once, all for the same reason."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._said = Counter[str]()

    def tell(self, name: str, why: str, wait_s: float) -> None:
        """Connection `name` is down and tries again after `wait_s` seconds."""
        with self._lock:
            unsaid = 0
            if self._clock() - self._since >= SAME_S:
                unsaid = sum(max(0, times - SAME_MAX) for times in self._said.values())
                self._since = self._clock()
                self._said.clear()
            self._said[why] += 1
            is_said = self._said[why] <= SAME_MAX
        if unsaid:
            log.warning("connections were down %d times more in the last minute, for reasons that were said", unsaid)
        log.log(logging.WARNING if is_said else logging.DEBUG, "%s is down: %s; next try in %.1f s", name, why, wait_s)


class Shared(NamedTuple):
    """What the connections that read the same streams have in common; all but `symbols` is the whole capture's."""

    symbols: tuple[str, ...]
    ws_url: str
    inbox: Inbox
    rejects: Rejects
    cooldown: Cooldown
    budget: ConnectBudget
    downs: Downs

    @property
    def stream_url(self) -> str:
        """The address of the combined stream; its names are lower case (web-socket-streams.md), and some not ASCII.
        The unit of time is the connection's."""
        streams = "/".join(f"{quote(symbol.lower())}@trade" for symbol in self.symbols)
        return f"{self.ws_url}/stream?streams={streams}&{units.STREAM_QUERY}"

    @property
    def words(self) -> str:
        """The address, for the log; of many streams only how many there are."""
        if len(self.symbols) <= STREAMS_NAMED_MAX:
            return self.stream_url
        return f"{self.ws_url}/stream with {len(self.symbols)} streams"
