"""What the log line shows of the stream: per symbol the last price, trades per second and the lag."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from operator import itemgetter
from typing import NamedTuple

from model.lag import lag_ms, percentiles
from model.trade import Trade

LAGS_MAX = 10_000
"""Lags kept per symbol and interval; a batch contributes at most LAGS_PER_BATCH_MAX, spread evenly over it."""
LAGS_PER_BATCH_MAX = 64

_symbol = itemgetter(0)


class Line(NamedTuple):
    """One symbol in one interval. Lags are milliseconds from the exchange's clock to ours, None when there are none;
    they are negative if the exchange's clock is ahead of ours."""

    symbol: str
    price: Decimal | None
    trades: int
    lag_ms_median: int | None
    lag_ms_p99: int | None


class Stats:
    """What was received in an interval. The writer adds to it; another thread may take the lines."""

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
            lag = lag_ms(trade)
            if lag is not None and len(lags) < LAGS_MAX:
                lags.append(lag)

    def take(self, symbols: Sequence[str]) -> list[Line]:
        """One line per symbol for what was added since the last call; a new interval starts."""
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


def symbol_text(line: Line, seconds: float) -> str:
    """One symbol's part of the line: last price, trades per second, lag (median/p99, exchange's clock to ours)."""
    if line.price is None:
        return f"{line.symbol} no trade yet"
    lag = "" if line.lag_ms_median is None else f" lag {line.lag_ms_median}/{line.lag_ms_p99} ms"
    return f"{line.symbol} {price_text(line.price)} {line.trades / seconds:.1f}/s{lag}"


def price_text(price: Decimal) -> str:
    """The price as the exchange wrote it, without padding zeros, but with at least two decimals."""
    whole, _, decimals = f"{price:f}".partition(".")
    return f"{whole}.{decimals.rstrip('0'):0<2}"
