"""The tables compared with the trades of the stand-in exchange: trade by trade, id by id, candle by candle.

Because this judges the capture, it shares no code with it: it reads the tables with its own SQL, and computes the
candles of the stored trades in its own way: those that are over by the time up to which the symbol is sealed.
"""

import json
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

from model.times import EPOCH

CALL_S_MAX = 30.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The exchange is on this machine, whatever http_proxy says."""
PAGE_TRADES = 100_000
"""Trades in one answer of the exchange's truth."""
SECOND, MINUTE = 1, 60
RESOLUTIONS = (SECOND, MINUTE, 3_600, 86_400)

_TRADES = "SELECT trade_id, timestamp, price, quantity, buyer_is_maker FROM {}.trades WHERE symbol = %s"
_GAPS = "SELECT first_trade_id, last_trade_id FROM {}.gaps WHERE symbol = %s AND filled_at IS NULL"
_CANDLES = (
    "SELECT resolution, timestamp, open, high, low, close, volume, quote_volume, taker_buy_volume,"
    " taker_buy_quote_volume, trades, first_trade_id, last_trade_id FROM {}.candles WHERE symbol = %s"
)
_SEALED = "SELECT sealed_until FROM {}.symbols WHERE symbol = %s"

Row = tuple[datetime, Decimal, Decimal, bool]
"""A trade without its id: time (UTC, whole milliseconds), price, quantity, whether the buyer is the maker."""


class Comparison(NamedTuple):
    """One symbol, from its first stored trade to its last: counts, lists of ids, descriptions of wrong candles, and for
    how many seconds before the last trade no candle is sealed (None: there is none at all)."""

    symbol: str
    emitted: int
    stored: int
    missing: list[int]
    extra: list[int]
    altered: list[int]
    doubled: list[int]
    open_gaps: list[int]
    wrong_candles: list[str]
    unsealed_s: float | None

    @property
    def consistent(self) -> bool:
        """Whether everything stored is right, and the open gaps list exactly the missing ids."""
        spoiled = self.extra or self.altered or self.doubled or self.wrong_candles
        return self.stored > 0 and not spoiled and self.missing == self.open_gaps

    @property
    def exact(self) -> bool:
        """Whether the tables equal what was traded: consistent, and nothing is missing."""
        return self.consistent and not self.missing

    def __str__(self) -> str:
        faults = ("missing", "extra", "altered", "doubled", "open_gaps", "wrong_candles")
        words = [f"{self.symbol}: emitted {self.emitted}, stored {self.stored}"]
        words += [f"{name.replace('_', ' ')} {_short(getattr(self, name))}" for name in faults]
        words += ["not sealed" if self.unsealed_s is None else f"sealed but for {self.unsealed_s:.0f} s"]
        return ", ".join(words)


def _short(found: list[Any]) -> str:
    return f"{len(found)} ({', '.join(map(str, found[:5]))}{' …' if len(found) > 5 else ''})" if found else "0"


def fetch_truth(http: str, symbol: str, first: int = 0) -> Iterator[tuple[int, Row]]:
    """The trades of `symbol` that the exchange at `http` has emitted from id `first` on, ordered by id."""
    while True:
        address = f"{http}/_truth/trades?symbol={symbol}&from_id={first}&limit={PAGE_TRADES}"
        with DIRECT.open(address, timeout=CALL_S_MAX) as answer:
            lines = answer.read().splitlines()
        for line in lines:
            trade = json.loads(line)
            yield trade["id"], row_of(trade)
            first = trade["id"] + 1
        if len(lines) < PAGE_TRADES:
            return


def row_of(trade: dict[str, Any]) -> Row:
    """A line of the exchange's truth, without its id."""
    when = EPOCH + timedelta(milliseconds=trade["time_us"] // 1000)
    return when, Decimal(trade["price"]), Decimal(trade["quantity"]), trade["maker"]


def compare(connection: Any, database: str, symbol: str, truth: Iterable[tuple[int, Row]]) -> Comparison:
    """`symbol` of `database` against `truth`, between the first and the last stored trade.

    `connection` is one of the driver, outside a transaction. The tables may be written to meanwhile, since one snapshot
    is read; `truth` must reach at least as far, so fetch it lazily (as fetch_truth does).
    """
    connection.start_transaction(consistent_snapshot=True, isolation_level="REPEATABLE READ")
    rows = _read(connection, _TRADES.format(database), symbol)
    gaps = _read(connection, _GAPS.format(database), symbol)
    bars = _read(connection, _CANDLES.format(database), symbol)
    until = [when.replace(tzinfo=UTC) for (when,) in _read(connection, _SEALED.format(database), symbol) if when]
    connection.rollback()
    times = Counter(trade_id for trade_id, *_ in rows)
    stored = {row[0]: _stored(row) for row in rows}
    low, high = min(stored, default=0), max(stored, default=0)
    emitted = {trade_id: row for trade_id, row in truth if low <= trade_id <= high}
    candles = {(resolution, begin.replace(tzinfo=UTC)): tuple(bar) for resolution, begin, *bar in bars}
    return Comparison(
        symbol=symbol,
        emitted=len(emitted),
        stored=len(stored),
        missing=sorted(emitted.keys() - stored.keys()),
        extra=sorted(stored.keys() - emitted.keys()),
        altered=sorted(
            trade_id for trade_id in stored.keys() & emitted.keys() if stored[trade_id] != emitted[trade_id]
        ),
        doubled=sorted(trade_id for trade_id, count in times.items() if count > 1),
        open_gaps=sorted(trade_id for first, last in gaps for trade_id in range(first, last + 1)),
        wrong_candles=_differences(candles, candles_of(stored, until[0]) if until else {}),
        unsealed_s=(max(row[0] for row in stored.values()) - until[0]).total_seconds() if until and stored else None,
    )


def _read(connection: Any, sql: str, symbol: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, (symbol,))
        rows: list[Any] = cursor.fetchall()
    return rows


def _stored(row: Any) -> Row:
    _, when, price, quantity, maker = row
    return when.replace(tzinfo=UTC), price, quantity, bool(maker)


def candles_of(trades: dict[int, Row], until: datetime) -> dict[tuple[int, datetime], tuple[Any, ...]]:
    """The candles of `trades` that are over by `until`, by resolution (seconds) and start; of seconds those of the last
    minute only. A candle is its open, high, low, close, four volumes, number of trades, and first and last id."""
    bars: dict[tuple[int, datetime], list[Any]] = {}
    minute = until.replace(second=0, microsecond=0)
    with localcontext(prec=100):
        for trade_id, (when, price, quantity, maker) in sorted(trades.items()):
            for resolution in RESOLUTIONS:
                begin = when - (when - EPOCH) % timedelta(seconds=resolution)
                if begin + timedelta(seconds=resolution) > until or (resolution == SECOND and begin < minute):
                    continue
                bar = bars.setdefault((resolution, begin), [price, price, price, price, 0, 0, 0, 0, 0, trade_id, None])
                bar[1], bar[2], bar[3], bar[10] = max(bar[1], price), min(bar[2], price), price, trade_id
                bar[8] += 1
                for column, number in ((4, quantity), (5, price * quantity)):
                    bar[column] += number
                    bar[column + 2] += 0 if maker else number
    return {key: tuple(bar) for key, bar in bars.items()}


def _differences(found: dict[Any, Any], wanted: dict[Any, Any]) -> list[str]:
    keys = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    return [f"{key[0]} s at {key[1]:%Y-%m-%d %H:%M}: {found.get(key)} for {wanted.get(key)}" for key in keys]
