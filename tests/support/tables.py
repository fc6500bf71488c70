"""What the tests put into the tables and read from the tables themselves, without db.py, and what must hold of it."""

import json
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any, NoReturn

import config
import db
from model import candles
from model.candles import Candle
from model.trade import Trade

COMPLETENESS = """
SELECT t.symbol, t.trades_stored, COALESCE(SUM(g.last_trade_id - g.first_trade_id + 1), 0) AS ids_missing,
       t.trades_stored + COALESCE(SUM(g.last_trade_id - g.first_trade_id + 1), 0)
       = t.last_id - t.first_id + 1 AS accounted_for
FROM (SELECT symbol, COUNT(*) AS trades_stored, MIN(trade_id) AS first_id, MAX(trade_id) AS last_id
      FROM trades GROUP BY symbol) AS t
LEFT JOIN gaps AS g ON g.symbol = t.symbol AND g.filled_at IS NULL AND g.first_trade_id > t.first_id
GROUP BY t.symbol, t.trades_stored, t.first_id, t.last_id ORDER BY t.symbol;
"""
"""One row per symbol: how many trades are stored, how many are known to be missing, and whether that is all of them."""


def ask(connection: Any, sql: str, *parameters: Any) -> list[Any]:
    """The rows of a statement, as the driver gives them."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall()) if cursor.description else []


def store(settings: config.Settings, trades: Sequence[Trade]) -> None:
    """Creates the database of `settings` and puts `trades` into it."""
    with closing(db.connect(settings)) as connection:
        db.insert_trades(connection, trades)


def exact(text: str) -> Any:
    """The JSON document `text`, which must not have a float in it."""

    def refuse(number: str) -> NoReturn:
        raise AssertionError(f"a float: {number}")

    return json.loads(text, parse_float=refuse, parse_constant=refuse)


def stored(connection: Any, symbol: str = "BTCUSDT") -> list[Trade]:
    """The rows of a symbol in the order of their key."""
    rows = ask(connection, "SELECT * FROM trades WHERE symbol = %s ORDER BY timestamp, trade_id", symbol)
    return [
        Trade(name, when.replace(tzinfo=UTC), number, price, quantity, bool(maker), at and at.replace(tzinfo=UTC))
        for name, when, number, price, quantity, maker, at in rows
    ]


def runs(connection: Any, symbol: str = "BTCUSDT", filled: bool = False) -> list[tuple[int, int]]:
    """First and last id of the gaps that are open, or of those that were filled."""
    sql = f"SELECT first_trade_id, last_trade_id FROM gaps WHERE symbol = %s AND filled_at IS {'NOT' * filled} NULL"
    return [(first, last) for first, last in ask(connection, sql + " ORDER BY 1", symbol)]


def age(connection: Any) -> None:
    """Makes every gap old enough not to be a mere reordering."""
    ask(connection, "UPDATE gaps SET detected_at = detected_at - INTERVAL 2 HOUR")


def ids_of(pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Every id of these runs."""
    return [number for first, last in pairs for number in range(first, last + 1)]


def stored_ids(connection: Any, symbol: str = "BTCUSDT") -> list[int]:
    """The ids of the trades of a symbol, in order."""
    return [number for (number,) in ask(connection, "SELECT trade_id FROM trades WHERE symbol=%s ORDER BY 1", symbol)]


def check(connection: Any, symbol: str = "BTCUSDT") -> None:
    """The invariant, and that nothing is called filled that is not stored."""
    stored, missing = stored_ids(connection, symbol), ids_of(runs(connection, symbol))
    done = ids_of(runs(connection, symbol, filled=True))
    assert sorted(stored + missing) == (list(range(stored[0], stored[-1] + 1)) if stored else [])
    assert len(done) == len(set(done))
    assert set(stored).issuperset(done)


def sealed(connection: Any, symbol: str) -> list[Candle]:
    """The rows of the table `candles`."""
    columns = ", ".join(Candle._fields)
    sql = f"SELECT {columns} FROM candles WHERE symbol = %s ORDER BY resolution, timestamp"
    return [Candle._make([*row[:2], row[2].replace(tzinfo=UTC), *row[3:]]) for row in ask(connection, sql, symbol)]


def due(connection: Any, symbol: str) -> list[Candle]:
    """The bars that must be in that table: those that are over by `symbols.sealed_until`, made of the stored trades by
    the plain definition; of seconds those of the minute that goes on."""
    rows = ask(connection, "SELECT sealed_until FROM symbols WHERE symbol = %s", symbol)
    if not rows or rows[0][0] is None:
        return []
    until, trades = rows[0][0].replace(tzinfo=UTC), stored(connection, symbol)
    minute = until.replace(second=0)
    return [
        bar
        for resolution in (candles.FINE, *candles.RESOLUTIONS)
        for bar in plain_bars(trades, resolution)
        if bar.timestamp + timedelta(seconds=resolution) <= until
        and (resolution > candles.FINE or bar.timestamp >= minute)
    ]


def plain_bars(trades: Sequence[Trade], resolution: int) -> list[Candle]:
    """The bars of trades of one symbol by the plain definition, oldest first."""
    groups: dict[int, list[Trade]] = {}
    for trade in sorted(trades, key=lambda one: one.trade_id):
        groups.setdefault(int(trade.timestamp.timestamp()) // resolution, []).append(trade)
    return [
        Candle(
            group[0].symbol,
            resolution,
            datetime.fromtimestamp(number * resolution, UTC),
            group[0].price,
            max(trade.price for trade in group),
            min(trade.price for trade in group),
            group[-1].price,
            _sum(trade.quantity for trade in group),
            _sum(trade.price * trade.quantity for trade in group),
            _sum(trade.quantity for trade in group if not trade.buyer_is_maker),
            _sum(trade.price * trade.quantity for trade in group if not trade.buyer_is_maker),
            len(group),
            group[0].trade_id,
            group[-1].trade_id,
        )
        for number, group in sorted(groups.items())
    ]


def _sum(values: Iterable[Decimal]) -> Decimal:
    # Decimal's own context would round after 28 digits. The values are made lazily, so inside it.
    with localcontext(prec=100):
        return sum(values, Decimal())
