"""What the log line shows of the stream: per symbol the last price, trades per second and the lag."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from operator import itemgetter
from typing import NamedTuple

from db import Trade

LAGS_MAX = 10_000
"""Lags kept per symbol and interval; a batch contributes LAGS_PER_BATCH_MAX at most, spread evenly over it."""
LAGS_PER_BATCH_MAX = 64

_symbol = itemgetter(0)
_MILLISECOND = timedelta(milliseconds=1)


class Line(NamedTuple):
    """One symbol in one interval. Lags are milliseconds from the exchange's clock to ours, None when there are none;
    they are negative where the exchange's clock runs ahead."""

    symbol: str
    price: Decimal | None
    trades: int
    lag_ms_median: int | None
    lag_ms_p99: int | None


class Stats:
    """Collects over an interval. The writer adds; another thread may take the lines."""

    def __init__(self) -> None:
        self._trades: Counter[str] = Counter()
        self._lags: dict[str, list[int]] = {}
        self._last: dict[str, Trade] = {}

    def add(self, trades: Sequence[Trade]) -> None:
        """Counts a batch, in the order of its arrival."""
        if not trades:
            return
        self._trades.update(map(_symbol, trades))
        self._last.update(zip(map(_symbol, trades), trades, strict=True))
        for trade in trades[:: -(-len(trades) // LAGS_PER_BATCH_MAX)]:
            lags = self._lags.setdefault(trade.symbol, [])
            if trade.received_at is not None and len(lags) < LAGS_MAX:
                lags.append((trade.received_at - trade.timestamp) // _MILLISECOND)

    def take(self, symbols: Sequence[str]) -> list[Line]:
        """A line per symbol of what was added since the last call, and begins a new interval."""
        trades, self._trades = self._trades, Counter()
        lags, self._lags = self._lags, {}
        return [
            Line(
                symbol,
                self._last[symbol].price if symbol in self._last else None,
                trades[symbol],
                *percentiles(lags.get(symbol, [])),
            )
            for symbol in symbols
        ]


def percentiles(values: list[int]) -> tuple[int | None, int | None]:
    """The median and the 99th percentile (nearest rank) of `values`; None when there are none."""
    if not values:
        return None, None
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2], ordered[-(-99 * len(ordered) // 100) - 1]
