"""The trades of the stand-in exchange: the truth that a capture is compared with, and the store behind REST.

A trade takes 33 bytes, so an hour at 5,000 trades/s fits in memory. Pure except for the truth file.
"""

import hashlib
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple, TextIO

from tools.exchange.history import Columns, Past
from tools.exchange.memory import Memory
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
    """The trades of one symbol, ordered by id: the history, which was never streamed, then the emitted trades.

    A deep history (`past`) is not stored here: its ids are below all others, and REST shows all of it.
    """

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.ids = array("q")
        self.first_streamed_id: int | None = None
        self.holes: list[tuple[int, int]] = []
        self.past: Past | None = None
        self.forgotten = 0
        self.reordered = 0
        self._prices, self._quantities, self._times = array("q"), array("q"), array("q")
        self._makers = bytearray()
        self._emitted = 0
        self._hash = hashlib.sha256()
        self._hashed_to = -1
        self._aggregates = array("q")
        self._aggregates_forgotten = 0
        self._aggregated = 0
        self._marks: deque[tuple[float, int]] = deque()
        self._shown_to = -1

    def add_past(self, past: Past) -> None:
        """Puts a deep history below all trades; there each trade is an aggregate, with the trade's id."""
        self.past = past
        self._aggregates_forgotten = past.end_id - 1

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
        self.reordered += 1
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
        self.forgotten += count

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

    def columns(self, begin: int, end: int) -> Columns:
        """A copy of the trades at these positions."""
        part = slice(begin, end)
        makers = bytes(self._makers[part])
        return Columns(self.ids[part], self._prices[part], self._quantities[part], self._times[part], makers)

    def positions(self, begin_us: int, end_us: int) -> tuple[int, int]:
        """Where the trades from `begin_us` to before `end_us` are, without those of a deep history."""
        return bisect_left(self._times, begin_us), bisect_left(self._times, end_us)

    def between(self, begin_us: int, end_us: int) -> Iterator[Columns]:
        """All trades from `begin_us` to before `end_us`, in parts; the deep history is made as it is read."""
        traded = self.columns(*self.positions(begin_us, end_us))
        return chain(self.past.between(begin_us, end_us) if self.past else (), (traded,))

    def first_us(self) -> int | None:
        """The time of the first trade there is, deep history included."""
        if self.past is not None:
            return self.past.trade(self.past.first_id).time_us
        return self._times[0] if self._times else None

    def last_us(self) -> int | None:
        """The time of the newest trade, the deep history excepted."""
        return self._times[-1] if self._times else None

    def first_id_since(self, time_us: int) -> int:
        """The id of the first trade at that time or later, deep history included; above all ids if all are older."""
        found = self.past.id_at(time_us) if self.past else 0
        if self.past is not None and found < self.past.end_id:
            return found
        position = bisect_left(self._times, time_us)
        return self.ids[position] if position < len(self.ids) else self.newest_id() + 1

    def newest_id(self, shown: int | None = None) -> int:
        """The highest id, or that of the first `shown` trades; 0 if there is none."""
        count = len(self.ids) if shown is None else shown
        return self.ids[count - 1] if count else self.past.end_id - 1 if self.past else 0

    def shown(self, now_s: float, lag_s: float) -> int:
        """How many trades REST shows at `now_s` if its database is `lag_s` behind the stream."""
        while self._marks and self._marks[0][0] <= now_s - lag_s:
            self._shown_to = max(self._shown_to, self._marks.popleft()[1])
        return bisect_right(self.ids, self._shown_to)

    def hides(self, trade_id: int) -> bool:
        """Whether an id is in one of REST's holes."""
        return self._hole(trade_id) is not None

    def _hole(self, trade_id: int) -> tuple[int, int] | None:
        return next((hole for hole in self.holes if hole[0] <= trade_id <= hole[1]), None)

    def from_id(self, from_id: int, limit: int, end: int) -> list[Trade]:
        """The first `limit` trades from `from_id` on, among the first `end`; silently skips REST's holes."""
        found = self._deep(from_id, limit)
        index = bisect_left(self.ids, from_id)
        while index < end and len(found) < limit:
            hole = self._hole(self.ids[index])
            if hole is None:
                found.append(self.trade(index))
                index += 1
            else:
                index = bisect_right(self.ids, hole[1])
        return found

    def _deep(self, from_id: int, limit: int) -> list[Trade]:
        """The first `limit` trades from an id on in the deep history, without those in REST's holes."""
        found: list[Trade] = []
        while self.past is not None and len(found) < limit and from_id < self.past.end_id:
            hole = self._hole(from_id)
            if hole is None:
                rows = self.past.rows(from_id, limit - len(found))
                found += [trade for trade in rows if self._hole(trade.trade_id) is None]
                from_id = rows[-1].trade_id + 1
            else:
                from_id = hole[1] + 1
        return found

    def newest(self, limit: int, end: int) -> list[Trade]:
        """The last `limit` trades among the first `end`, oldest first."""
        wanted = range(max(0, end - limit), end)
        deep = self._deep(self.past.end_id - (limit - len(wanted)), limit - len(wanted)) if self.past else []
        return deep + [self.trade(index) for index in wanted if self._hole(self.ids[index]) is None]

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
        start_us, end_us = times_us
        lowest = self.past.first_id if self.past else self._aggregates_forgotten + 1
        low, high = lowest, self._aggregates_forgotten + 1 + len(self._aggregates)
        if end_us is not None:
            high = self._aggregate_from(end_us + 1)
        if from_id is not None:
            low = max(lowest, from_id)
        elif start_us is not None:
            low = self._aggregate_from(start_us)
        else:
            low = max(lowest, high - limit)
        return self._numbered(low, min(high, low + limit))

    def _aggregate_from(self, time_us: int) -> int:
        """The id of the first aggregate at that time or later."""
        if self.past is not None:
            found = self.past.id_at(time_us)
            if found < self.past.end_id:
                return found
        position = bisect_left(self._aggregates, time_us, key=lambda start: self._times[start])
        return self._aggregates_forgotten + 1 + position

    def _numbered(self, low: int, high: int) -> list[Aggregate]:
        """The aggregates with the ids from `low` to before `high`."""
        deep, offset = list[Trade](), self._aggregates_forgotten + 1
        while self.past is not None and low < min(high, self.past.end_id):
            rows = self.past.rows(low, min(high, self.past.end_id) - low)
            deep += rows
            low += len(rows)
        found = [Aggregate(trade.trade_id, trade, trade, trade.quantity_e8) for trade in deep]
        return found + [self._aggregate_at(number - offset) for number in range(max(low, offset), high)]

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
        history = len(self.ids) + self.forgotten - self._emitted
        oldest = self.ids[0] if self.ids else None
        oldest_history = oldest if history else None
        if self.past is not None:
            history += self.past.end_id - self.past.first_id
            oldest = oldest_history = self.past.first_id
        return {
            "symbol": self.symbol,
            "count": self._emitted,
            "first_id": self.first_streamed_id,
            "last_id": self.ids[-1] if self._emitted else None,
            "sha256": self._hash.hexdigest(),
            "history_count": history,
            "history_first_id": oldest_history,
            "oldest_kept_id": oldest,
        }


class Truth:
    """The ledgers of all symbols, and the file that lists every emitted trade."""

    def __init__(self, symbols: list[str], file: TextIO | None = None, memory: Memory | None = None) -> None:
        self.ledgers = {symbol: Ledger(symbol) for symbol in symbols}
        self.file = file
        self.memory = memory

    def add_history(self, trades: list[Trade]) -> None:
        """Stores trades from before the stream."""
        for trade in trades:
            self.ledgers[trade.symbol].add_history(trade)

    def add(self, trade: Trade, at_s: float) -> None:
        """Stores an emitted trade and writes its line; an unannounced symbol gets a new ledger."""
        ledger = self.ledgers.get(trade.symbol)
        if ledger is None:
            ledger = self.ledgers[trade.symbol] = Ledger(trade.symbol)
        if ledger.add(trade, at_s):
            if self.file is not None:
                self.file.write(truth_line(trade))
            if self.memory is not None:
                self.memory.add(trade)

    def keep(self) -> None:
        """Puts what was added where the next run finds it, before anybody is told of it."""
        if self.memory is not None:
            self.memory.write()

    def newest_us(self) -> int:
        """The time of the newest emitted trade of all symbols; 0 if there is none."""
        return max((ledger.last_us() or 0 for ledger in self.ledgers.values()), default=0)

    def flush(self) -> None:
        """Hands the file's lines to the operating system."""
        if self.file is not None:
            self.file.flush()

    def summaries(self) -> list[dict[str, object]]:
        """One summary per symbol."""
        return [ledger.summary() for ledger in self.ledgers.values()]
