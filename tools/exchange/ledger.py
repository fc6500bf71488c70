"""The trades of the stand-in exchange: the truth that a capture is compared with, and the store behind REST.

A trade takes 33 bytes, so an hour at 5,000 trades/s fits in memory. Pure except for the truth file.
"""

import hashlib
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, TextIO

from tools.exchange.tape import Trade, truth_line

TRADES_MAX = 20_000_000
"""Trades kept per symbol (660 MB); above it the oldest tenth is forgotten, and REST no longer has it."""

_LAG_STEP_S = 0.01
"""Marks of what REST may already show are at least this far apart, so that there are few of them."""


class Aggregate(NamedTuple):
    """One row of aggTrades: trades of one taker order at one price. `first` and `last` are trade ids."""

    aggregate_id: int
    first: Trade
    last: Trade
    quantity_e8: int


class Ledger:
    """The trades of one symbol, ordered by id: the history, which was never streamed, then the emitted trades."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.ids = array("q")
        self.first_streamed_id: int | None = None
        self.holes: list[tuple[int, int]] = []
        self._prices, self._quantities, self._times = array("q"), array("q"), array("q")
        self._makers = bytearray()
        self._emitted = 0
        self._forgotten = 0
        self._hash = hashlib.sha256()
        self._hashed_to = -1
        self._aggregates = array("q")
        self._aggregates_forgotten = 0
        self._aggregated = 0
        self._marks: deque[tuple[float, int]] = deque()
        self._shown_to = -1

    def add_history(self, trade: Trade) -> None:
        """Stores a trade from before the stream; REST shows it at once."""
        self._append(trade)
        self._shown_to = trade.trade_id

    def add(self, trade: Trade, at_s: float) -> bool:
        """Stores a trade emitted at `at_s` (monotonic seconds). Returns False if its id is already stored."""
        if self.first_streamed_id is None:
            self.first_streamed_id = self._hashed_to = trade.trade_id
        if not self.ids or trade.trade_id > self.ids[-1]:
            self._append(trade)
        elif not self._insert(trade):
            return False
        self._emitted += 1
        if self._marks and at_s - self._marks[-1][0] < _LAG_STEP_S:
            self._marks[-1] = (self._marks[-1][0], self.ids[-1])
        else:
            self._marks.append((at_s, self.ids[-1]))
        return True

    def _append(self, trade: Trade) -> None:
        _, trade_id, price, quantity, time_us, maker = trade
        self.ids.append(trade_id)
        self._prices.append(price)
        self._quantities.append(quantity)
        self._times.append(time_us)
        self._makers.append(maker)
        if len(self.ids) > TRADES_MAX:
            self._forget(TRADES_MAX // 10)

    def _insert(self, trade: Trade) -> bool:
        """Stores a trade whose id is not the highest, which only recorded tapes have: rare, so it may be slow. Returns
        False if its id is already stored."""
        index = bisect_left(self.ids, trade.trade_id)
        if self.ids[index] == trade.trade_id:
            return False
        self.ids.insert(index, trade.trade_id)
        self._prices.insert(index, trade.price_e8)
        self._quantities.insert(index, trade.quantity_e8)
        self._times.insert(index, trade.time_us)
        self._makers.insert(index, trade.buyer_is_maker)
        self._aggregates, self._aggregated = array("q"), 0
        self.first_streamed_id = min(trade.trade_id, self.first_streamed_id or trade.trade_id)
        self._hash, self._hashed_to = hashlib.sha256(), self.first_streamed_id
        return True

    def _forget(self, count: int) -> None:
        self._hash_to(self.ids[count])
        self._aggregate()
        cut = bisect_left(self._aggregates, count)
        self._aggregates = array("q", (start - count for start in self._aggregates[cut:]))
        self._aggregates_forgotten += cut
        self._aggregated -= count
        for column in (self.ids, self._prices, self._quantities, self._times, self._makers):
            del column[:count]
        self._forgotten += count

    def trade(self, index: int) -> Trade:
        """The trade at position `index`."""
        return Trade(
            self.symbol,
            self.ids[index],
            self._prices[index],
            self._quantities[index],
            self._times[index],
            bool(self._makers[index]),
        )

    def shown(self, now_s: float, lag_s: float) -> int:
        """How many trades REST shows at `now_s` if its database is `lag_s` behind the stream."""
        while self._marks and self._marks[0][0] <= now_s - lag_s:
            self._shown_to = max(self._shown_to, self._marks.popleft()[1])
        return bisect_right(self.ids, self._shown_to)

    def _hole(self, trade_id: int) -> tuple[int, int] | None:
        return next((hole for hole in self.holes if hole[0] <= trade_id <= hole[1]), None)

    def from_id(self, from_id: int, limit: int, end: int) -> list[Trade]:
        """The first `limit` trades from `from_id` on, among the first `end`; silently skips REST's holes."""
        found: list[Trade] = []
        index = bisect_left(self.ids, from_id)
        while index < end and len(found) < limit:
            hole = self._hole(self.ids[index])
            if hole is None:
                found.append(self.trade(index))
                index += 1
            else:
                index = bisect_right(self.ids, hole[1])
        return found

    def newest(self, limit: int, end: int) -> list[Trade]:
        """The last `limit` trades among the first `end`, oldest first."""
        wanted = range(max(0, end - limit), end)
        return [self.trade(index) for index in wanted if self._hole(self.ids[index]) is None]

    def _aggregate(self) -> None:
        for index in range(self._aggregated, len(self.ids)):
            if index == 0 or not self._belongs(index):
                self._aggregates.append(index)
        self._aggregated = len(self.ids)

    def _belongs(self, index: int) -> bool:
        before = index - 1
        return (
            self._times[before] == self._times[index]
            and self._prices[before] == self._prices[index]
            and self._makers[before] == self._makers[index]
        )

    def aggregates(self, limit: int, from_id: int | None, times_us: tuple[int | None, int | None]) -> list[Aggregate]:
        """Up to `limit` aggregates: from an aggregate id on, in a time range (both ends inclusive), or the newest."""
        self._aggregate()
        starts, (start_us, end_us) = self._aggregates, times_us
        low, high = 0, len(starts)
        if end_us is not None:
            high = bisect_right(starts, end_us, key=lambda start: self._times[start])
        if from_id is not None:
            low = max(0, from_id - 1 - self._aggregates_forgotten)
        elif start_us is not None:
            low = bisect_left(starts, start_us, key=lambda start: self._times[start])
        else:
            low = max(0, high - limit)
        return [self._aggregate_at(position) for position in range(low, min(high, low + limit))]

    def _aggregate_at(self, position: int) -> Aggregate:
        starts = self._aggregates
        first = starts[position]
        end = starts[position + 1] if position + 1 < len(starts) else len(self.ids)
        number = position + 1 + self._aggregates_forgotten
        return Aggregate(number, self.trade(first), self.trade(end - 1), sum(self._quantities[first:end]))

    def emitted(self, from_id: int, limit: int) -> Iterator[Trade]:
        """The emitted trades from an id on, including those in REST's holes: the truth."""
        start = max(from_id, self.first_streamed_id) if self.first_streamed_id is not None else from_id
        begin = bisect_left(self.ids, start) if self.first_streamed_id is not None else len(self.ids)
        return (self.trade(index) for index in range(begin, min(len(self.ids), begin + limit)))

    def _hash_to(self, end_id: int) -> None:
        if self.first_streamed_id is None:
            return
        for index in range(bisect_left(self.ids, self._hashed_to), bisect_left(self.ids, end_id)):
            self._hash.update(truth_line(self.trade(index)).encode())
        self._hashed_to = max(self._hashed_to, end_id)

    def summary(self) -> dict[str, object]:
        """Count, first and last id and sha256 of the lines of the emitted trades; the history is counted separately."""
        if self.ids:
            self._hash_to(self.ids[-1] + 1)
        history = len(self.ids) + self._forgotten - self._emitted
        return {
            "symbol": self.symbol,
            "count": self._emitted,
            "first_id": self.first_streamed_id,
            "last_id": self.ids[-1] if self._emitted else None,
            "sha256": self._hash.hexdigest(),
            "history_count": history,
            "history_first_id": self.ids[0] if history and self.ids else None,
            "oldest_kept_id": self.ids[0] if self.ids else None,
        }


class Truth:
    """The ledgers of all symbols, and the file that lists every emitted trade."""

    def __init__(self, symbols: list[str], file: TextIO | None = None) -> None:
        self.ledgers = {symbol: Ledger(symbol) for symbol in symbols}
        self.file = file

    def add_history(self, trades: list[Trade]) -> None:
        """Stores trades from before the stream."""
        for trade in trades:
            self.ledgers[trade.symbol].add_history(trade)

    def add(self, trade: Trade, at_s: float) -> None:
        """Stores an emitted trade and writes its line; an unannounced symbol gets a new ledger."""
        ledger = self.ledgers.get(trade.symbol)
        if ledger is None:
            ledger = self.ledgers[trade.symbol] = Ledger(trade.symbol)
        if ledger.add(trade, at_s) and self.file is not None:
            self.file.write(truth_line(trade))

    def flush(self) -> None:
        """Hands the file's lines to the operating system."""
        if self.file is not None:
            self.file.flush()

    def summaries(self) -> list[dict[str, object]]:
        """One summary per symbol."""
        return [ledger.summary() for ledger in self.ledgers.values()]
