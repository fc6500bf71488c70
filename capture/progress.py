"""What the log line shows of the stream: per symbol the last price, trades per second and the lag."""

import heapq
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple

from model.lag import lag_ms, percentiles
from model.trade import Trade

LAGS_MAX = 50_000
"""Lags kept per interval; a batch contributes at most LAGS_PER_BATCH_MAX, spread evenly over it."""
LAGS_PER_BATCH_MAX = 64
LAG_MS_MAX = 2**31 - 1
"""Three weeks, as much as four bytes hold."""
SYMBOLS_SHOWN_MAX = 5
"""Of more symbols than that the line shows the busiest, and what all have in common."""

_symbol = itemgetter(0)


BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000)
"""Of the histogram of lags: how many are at most so long."""


class Lags:
    """How many lags there were since the start, by their length; those that are negative count as 0."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_MS) + 1)
        self.sum_ms = 0

    def add(self, lag: int) -> None:
        """Counts a lag in milliseconds."""
        self._counts[bisect_left(BOUNDS_MS, lag)] += 1
        self.sum_ms += max(0, lag)

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def cumulative(self) -> list[tuple[int, int]]:
        """Each bound in milliseconds, and how many lags were at most so long."""
        return list(zip(BOUNDS_MS, accumulate(self._counts), strict=False))


class Snapshot(NamedTuple):
    """The state of a capture: `counters` as Capture.counters(); `last_at`: the time of the newest trade of each symbol
    that had one since the start."""

    counters: Mapping[str, int]
    last_at: Mapping[str, datetime]
    lags: Lags
    on_disk: int
    online: bool
    connections: int
    groups: int
    closed_groups: int


class Line(NamedTuple):
    """One symbol in one interval. Lags are milliseconds from the exchange's clock to ours, None when there are none;
    they are negative if the exchange's clock is ahead of ours."""

    symbol: str
    price: Decimal | None
    trades: int
    lag_ms_median: int | None
    lag_ms_p99: int | None


class _Kept:
    """Some lags of an interval, and the numbers of their symbols: in two pieces of memory, however many symbols there
    are. With a list for each of 1,500, malloc's memory goes to pieces."""

    def __init__(self) -> None:
        self.numbers = array("i")
        self.lags = array("i")

    def add(self, number: int, lag: int) -> None:
        """Keeps it, if there is room."""
        if len(self.lags) < LAGS_MAX:
            self.numbers.append(number)
            self.lags.append(max(-LAG_MS_MAX, min(LAG_MS_MAX, lag)))

    def of(self, numbers: Iterable[int]) -> dict[int, list[int]]:
        """The lags of some symbols."""
        found: dict[int, list[int]] = {number: [] for number in numbers}
        for number, lag in zip(self.numbers, self.lags, strict=False):
            if number in found:
                found[number].append(lag)
        return found


class Stats:
    """What was received in an interval. The writer adds to it; another thread may take the lines."""

    def __init__(self) -> None:
        self.lags = Lags()
        self._trades: Counter[str] = Counter()
        self._numbers: dict[str, int] = {}
        self._kept = _Kept()
        self._last: dict[str, Trade] = {}

    def add(self, trades: Sequence[Trade]) -> None:
        """Counts a batch, in the order of its arrival."""
        if not trades:
            return
        self._trades.update(map(_symbol, trades))
        self._last.update(zip(map(_symbol, trades), trades, strict=True))
        kept = self._kept
        for trade in trades[:: -(-len(trades) // LAGS_PER_BATCH_MAX)]:
            lag = lag_ms(trade)
            if lag is not None:
                self.lags.add(lag)
                kept.add(self._numbers.setdefault(trade.symbol, len(self._numbers)), lag)

    def last_at(self) -> dict[str, datetime]:
        """The exchange's time of the newest trade of each symbol that had one."""
        return {symbol: trade.timestamp for symbol, trade in self._last.copy().items()}

    def take(self, symbols: Sequence[str], most: int) -> list[Line]:
        """One line per symbol for what was added since the last call; a new interval starts.

        Of more than `most` symbols the busiest, in the order of `symbols`, and one line more for all of them together,
        without a price and with their number as its symbol.
        """
        trades, self._trades = self._trades, Counter()
        kept, self._kept = self._kept, _Kept()
        shown: Sequence[str] = symbols
        if len(symbols) > most:
            busiest = frozenset(heapq.nlargest(most, symbols, key=trades.__getitem__))
            shown = [symbol for symbol in symbols if symbol in busiest]
        numbers = {symbol: self._numbers.get(symbol, -1) for symbol in shown}
        lags = kept.of(numbers.values())
        lines = [
            Line(
                symbol,
                self._last[symbol].price if symbol in self._last else None,
                trades[symbol],
                *percentiles(lags[numbers[symbol]]),
            )
            for symbol in shown
        ]
        if len(symbols) > most:
            lines.append(Line(f"all {len(symbols):,}", None, trades.total(), *percentiles(kept.lags)))
        return lines


def symbol_text(line: Line, seconds: float) -> str:
    """One symbol's part of the line: last price, trades per second, lag (median/p99, exchange's clock to ours)."""
    if line.price is None and not line.trades:
        return f"{line.symbol} no trade yet"
    price = "" if line.price is None else f" {price_text(line.price)}"
    lag = "" if line.lag_ms_median is None else f" lag {line.lag_ms_median}/{line.lag_ms_p99} ms"
    return f"{line.symbol}{price} {line.trades / seconds:.1f}/s{lag}"


def price_text(price: Decimal) -> str:
    """The price as the exchange wrote it, without padding zeros, but with at least two decimals."""
    whole, _, decimals = f"{price:f}".partition(".")
    return f"{whole}.{decimals.rstrip('0'):0<2}"
