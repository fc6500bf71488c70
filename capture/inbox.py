"""The bounded queue between the connections and the writer, with the memory of which trades went through it.

Connection threads put into it what one read of the socket brought, and never wait; the writer drains whatever is there,
so a batch is one trade when it is calm and thousands in a burst.
"""

import logging
import queue
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from model import ids
from model.trade import Trade

log = logging.getLogger("inbox")


QUEUE_TRADES_MAX = 100_000
"""About 50 MB, 20 s of the busiest market. At the bound a trade is dropped and counted; its gap is filled later."""
BATCH_TRADES_MIN, BATCH_TRADES_MAX = 4_000, 16_000
"""A batch that has reached its size, which is between these, takes no more; the last read of it may bring a few hundred
above. The SQL of the largest has 1.8 MB, which most servers take in one request."""
COMMIT_S_GOAL = 0.5
"""What a full batch may take, so that nobody waits long for its first trade, nor for its locks."""
HOLES_MAX = 64
"""Runs of ids that are remembered as still to come, of each symbol; what is below the lowest is forgotten then."""


class Verdicts(NamedTuple):
    """What became of trades that were handed over: how many of each."""

    new: int
    repeated: int
    dropped: int


class _Seen:
    """Which ids of a symbol went through: those from `low` to `top`, but for those in `holes`. Repeats below `low` are
    left to the database to find."""

    __slots__ = ("holes", "low", "top")

    def __init__(self) -> None:
        self.low, self.top = 0, -1
        self.holes: list[ids.Run] = []

    def has(self, trade_id: int) -> bool:
        """Whether it went through, as far as is remembered."""
        return self.low <= trade_id <= self.top and not (self.holes and ids.inside(self.holes, trade_id))

    def add(self, trade_id: int) -> None:
        """It goes through now."""
        if trade_id == self.top + 1 and self.top >= 0:
            self.top = trade_id
        elif self.top < 0:
            self.low = self.top = trade_id
        elif trade_id > self.top:
            self.holes.append((self.top + 1, trade_id - 1))
            self.top = trade_id
        elif trade_id < self.low:
            self.holes[:0] = [(trade_id + 1, self.low - 1)] if trade_id + 1 < self.low else []
            self.low = trade_id
        else:
            self.holes = ids.without(self.holes, (trade_id, trade_id))
        if len(self.holes) > HOLES_MAX:
            self.low = self.holes.pop(0)[1] + 1


class BatchSize:
    """How many trades a batch has at most. What a transaction costs besides its trades, above all the way to a database
    on another machine, is paid once for all of them: so they become more, as long as they are stored quickly."""

    def __init__(self) -> None:
        self.trades_max = BATCH_TRADES_MIN

    def took(self, trades: int, seconds: float) -> None:
        """So many were stored in so long a time."""
        if seconds > COMMIT_S_GOAL:
            self.trades_max = max(BATCH_TRADES_MIN, self.trades_max // 2)
        elif trades >= self.trades_max and seconds < COMMIT_S_GOAL / 2:
            self.trades_max = min(BATCH_TRADES_MAX, self.trades_max * 2)

    def failed(self) -> None:
        """None were: perhaps they were too many."""
        self.trades_max = BATCH_TRADES_MIN


class Inbox:
    """The bounded queue between the callbacks, several threads that call `put`, and the writer."""

    def __init__(self, size_max: int | None = None) -> None:
        self._queue: queue.SimpleQueue[list[Trade] | None] = queue.SimpleQueue()
        self._size_max = QUEUE_TRADES_MAX if size_max is None else size_max
        self._overflowing = False
        self._lock = threading.Lock()
        # Of the symbols that were subscribed, since a connection refuses all others.
        self._seen = defaultdict[str, _Seen](_Seen)
        self._waiting = 0
        self.stop_asked = False
        self.stopped = False

    def put(self, trades: Sequence[Trade]) -> Verdicts:
        """Hands trades to the writer: those that have not gone through before, as long as there is room."""
        fresh: list[Trade] = []
        repeated = 0
        with self._lock:
            for trade in trades:
                seen, trade_id = self._seen[trade.symbol], trade.trade_id
                if trade_id <= seen.top and seen.has(trade_id):
                    repeated += 1
                elif not self._overflows(self._waiting + len(fresh)):
                    seen.add(trade_id)
                    fresh.append(trade)
            if fresh:
                self._waiting += len(fresh)
                self._queue.put(fresh)
        return Verdicts(len(fresh), repeated, len(trades) - len(fresh) - repeated)

    def _overflows(self, size: int) -> bool:
        """Whether the queue is full. It counts as full until it is half empty again, so that one run of ids
        per symbol is lost and not every other trade."""
        if size < self._size_max and not (self._overflowing and size > self._size_max // 2):
            self._overflowing = False
        elif not self._overflowing:
            self._overflowing = True
            log.error("the inbox is full (%d trades): new ones are dropped until it is half empty", size)
        return self._overflowing

    def stop(self) -> None:
        """Sends the last message: no trade follows."""
        self.stop_asked = True
        self._queue.put(None)

    def take(self, wait_s: float, trades_max: int = BATCH_TRADES_MIN) -> list[Trade]:
        """For the writer: what is there, about `trades_max` at most; waits up to `wait_s` seconds for the first."""
        trades: list[Trade] = []
        try:
            item = self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait()
            while True:
                # The last message need not be the last item: a connection that did not end in time may be behind it.
                self.stopped = self.stopped or item is None
                trades += item or ()
                if len(trades) >= trades_max:
                    break
                item = self._queue.get_nowait()
        except queue.Empty:
            pass
        with self._lock:
            self._waiting -= len(trades)
        return trades

    def __len__(self) -> int:
        return self._waiting
