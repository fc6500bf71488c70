"""Trades as they are stored: the newest, those of a second, the last one before a time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from model.times import MILLISECOND, floor_ms
from model.trade import Trade
from storage.errors import guard
from storage.session import Connection, select
from storage.values import naive, trade_of

_TRADE = ", ".join(Trade._fields)


@guard
def symbols(connection: Connection) -> list[str]:
    """The symbols that have trades, in order."""
    # From one to the next by the index: MariaDB reads every trade for SELECT DISTINCT.
    sql = "SELECT symbol FROM trades WHERE symbol > %s ORDER BY symbol LIMIT 1"
    found: list[str] = []
    while rows := select(connection, sql, found[-1:] or [""]):
        found.append(rows[0][0])
    return found


@guard
def latest(connection: Connection, symbol: str) -> Trade | None:
    """The newest trade of `symbol`, None when it has none."""
    return _one(connection, "symbol = %s ORDER BY timestamp DESC, trade_id DESC LIMIT 1", (symbol,))


@guard
def trades_in_second(connection: Connection, symbol: str, when: datetime) -> list[Trade]:
    """The trades of the second that `when` lies in: from its first millisecond to before the next second's first."""
    start = when.replace(microsecond=0)
    where = "symbol = %s AND timestamp >= %s AND timestamp < %s ORDER BY timestamp, trade_id"
    return _trades(connection, where, (symbol, start, start + timedelta(seconds=1)))


@guard
def price_as_of(connection: Connection, symbol: str, when: datetime) -> Trade | None:
    """The last trade up to and including the millisecond of `when`, whose price was the price then; None: none yet."""
    where = "symbol = %s AND timestamp < %s ORDER BY timestamp DESC, trade_id DESC LIMIT 1"
    return _one(connection, where, (symbol, floor_ms(when) + MILLISECOND))


def _trades(connection: Connection, where: str, parameters: Sequence[Any]) -> list[Trade]:
    return [
        trade_of(row) for row in select(connection, f"SELECT {_TRADE} FROM trades WHERE {where}", naive(parameters))
    ]


def _one(connection: Connection, where: str, parameters: Sequence[Any]) -> Trade | None:
    return next(iter(_trades(connection, where, parameters)), None)
