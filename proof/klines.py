"""The sealed minutes of a time compared with the exchange's own klines: count, prices and volumes."""

import logging
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from binance.klines import Kline
from binance.rest import Rest, RestError
from model.amounts import EXACT
from model.candles import MINUTE, Candle
from model.times import midnight

log = logging.getLogger("audit")

SETTLE = timedelta(minutes=2)
"""The exchange's klines are behind its streams; younger minutes are not compared."""
KLINES_MAX = 1_000
"""In an answer."""
UNIT = Decimal("0.00000001")
MINUTE_LONG = timedelta(seconds=MINUTE)
_PRICES = ("open", "high", "low", "close")
_VOLUMES = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


class MinuteDifference(NamedTuple):
    """A minute that is not as the exchange's kline: the columns, and the number of trades on both sides."""

    start: datetime
    columns: list[str]
    trades_here: int
    trades_there: int

    def __str__(self) -> str:
        what = f"{self.start:%H:%M}: {', '.join(self.columns)}"
        return f"{what} ({self.trades_here} trades here, {self.trades_there} there)"


class Agreement(NamedTuple):
    """How many minutes were compared, how many trades they have in the exchange's klines, and which do not agree."""

    minutes: int
    trades: int
    different: list[MinuteDifference]

    @property
    def missing(self) -> int:
        """How many trades the exchange has more, in all minutes."""
        return sum(max(0, minute.trades_there - minute.trades_here) for minute in self.different)

    @property
    def wrong(self) -> list[MinuteDifference]:
        """The minutes that differ, and not because trades are missing here."""
        return [minute for minute in self.different if minute.trades_here >= minute.trades_there]


def fetch(rest: Rest, symbol: str, start: datetime, end: datetime) -> Iterator[Kline]:
    """The exchange's minutes that begin in [start, end). Raises RestError."""
    while start < end:
        limit = min(KLINES_MAX, -(-(end - start) // MINUTE_LONG))
        klines = [kline for kline in rest.fetch_klines(symbol, "1m", start, limit) if kline.start < end]
        yield from klines
        if not klines:
            return
        start = klines[-1].start + MINUTE_LONG


def day_count(rest: Rest, symbol: str, day: date) -> int | None:
    """How many trades the exchange says a UTC day has; None: it could not be asked, or has no such day."""
    start = midnight(day)
    try:
        found = rest.fetch_klines(symbol, "1d", start, 1)
    except RestError as error:
        log.info("how many trades %s has on %s is not known: %s", symbol, day, error)
        return None
    return found[0].trades if found and found[0].start == start else None


def compare(minutes: Sequence[Candle], klines: Sequence[Kline]) -> Agreement:
    """The stored `minutes` beside the exchange's of the same time."""
    here = {minute.timestamp: minute for minute in minutes}
    there = {kline.start: kline for kline in klines}
    different = []
    for start in sorted(here.keys() | there.keys()):
        columns = _columns(here.get(start), there.get(start))
        if columns:
            trades = (side[start].trades if start in side else 0 for side in (here, there))
            different.append(MinuteDifference(start, columns, *trades))
    return Agreement(len(there), sum(kline.trades for kline in klines), different)


def _columns(here: Candle | None, there: Kline | None) -> list[str]:
    if here is None or there is None:
        # A minute without a trade is no row here, and a kline of zeros there.
        return ["trades"] if (here or there).trades else []  # type: ignore[union-attr]
    names = ["trades"] if here.trades != there.trades else []
    names += [name for name in _PRICES if getattr(here, name) != getattr(there, name)]
    return names + [name for name in _VOLUMES if not _is_same(getattr(here, name), getattr(there, name), here.trades)]


def _is_same(here: Decimal, there: Decimal, trades: int) -> bool:
    """Whether a sum here, which is exact, is that there, which has eight decimals: where the exact one has more, the
    exchange has cut off a part, of each trade or of the sum."""
    return here == there if not EXACT.remainder(here, UNIT) else abs(here - there) <= trades * UNIT
