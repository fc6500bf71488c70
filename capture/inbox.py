"""The bounded queue between the connections and the writer, with the memory of which trades went through it.

Connection threads put trades into it and never wait; the writer drains whatever is there, so a batch is one trade when
it is calm and thousands in a burst.
"""

import logging
import queue
from collections.abc import Sequence

from model.trade import Trade

log = logging.getLogger("inbox")


QUEUE_TRADES_MAX = 100_000
"""About 50 MB, 20 s of the busiest market. At the bound a trade is dropped and counted; its gap is filled later."""
BATCH_TRADES_MAX = 4_000
RECENT_IDS = 65_536
"""How many ids back a repeated trade is recognised in memory; a power of two."""


class Inbox:
    """The bounded queue between the callbacks and the writer, with the memory of which trades went through it.

    Several threads call `put`. A race can only let a repeat through, which the database ignores.
    """

    def __init__(self, symbols: Sequence[str], size_max: int | None = None) -> None:
        # SimpleQueue is several times faster than Queue; put() keeps the bound, to within one trade per thread.
        self._queue: queue.SimpleQueue[Trade | None] = queue.SimpleQueue()
        self._size_max = QUEUE_TRADES_MAX if size_max is None else size_max
        self._overflowing = False
        self._recent = {symbol: [0] * RECENT_IDS for symbol in symbols}
        self.stop_asked = False
        self.stopped = False

    def put(self, trade: Trade) -> str:
        """Hands a trade to the writer. Returns what became of it: "new", "repeated" or "dropped"."""
        recent = self._recent[trade.symbol]
        slot = trade.trade_id % RECENT_IDS
        if recent[slot] == trade.trade_id:
            return "repeated"
        if self._overflows():
            return "dropped"
        recent[slot] = trade.trade_id
        self._queue.put(trade)
        return "new"

    def _overflows(self) -> bool:
        """Whether the queue is full. It counts as full until it is half empty again, so that one run of ids
        per symbol is lost and not every other trade."""
        size = self._queue.qsize()
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

    def take(self, wait_s: float) -> list[Trade]:
        """For the writer: what is there, BATCH_TRADES_MAX at most; waits up to `wait_s` seconds for the first."""
        try:
            items = [self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait()]
        except queue.Empty:
            return []
        more = min(self._queue.qsize(), BATCH_TRADES_MAX - 1)
        items += [self._queue.get_nowait() for _ in range(more)]
        trades = [trade for trade in items if trade is not None]
        # It need not be the last item: a connection that did not end in time may put a trade behind it.
        self.stopped = self.stopped or len(trades) < len(items)
        return trades

    def __len__(self) -> int:
        # The message to stop is not a trade.
        return max(0, self._queue.qsize() - (self.stop_asked and not self.stopped))
