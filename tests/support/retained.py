"""Days that are in files, for tests of what stands beside them; the files themselves may not be there."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from model.trade import Trade
from storage import retained
from storage.day_files import path_of
from storage.retained import GONE, Retained
from tests.makers import BTC, trade
from tests.support.tables import ask

START = datetime(2026, 8, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAY_IDS = 100


def day_of(number: int) -> date:
    """The day `number` behind START."""
    return START.date() + number * DAY


def trades_of(number: int, symbol: str = BTC) -> list[Trade]:
    """All trades of a day, one every 13 minutes, from an hour after midnight on; ids rise from 1 on."""
    first, begin = 1 + DAY_IDS * number, START + number * DAY
    return [trade(first + n, begin + timedelta(minutes=13 * (n + 5)), symbol=symbol) for n in range(DAY_IDS)]


def row_of(trades: Sequence[Trade], state: str = GONE) -> Retained:
    """The row of the day of `trades`."""
    symbol, day = trades[0].symbol, trades[0].timestamp.date()
    ids, times = [one.trade_id for one in trades], [one.timestamp for one in trades]
    ends = min(ids), max(ids), min(times), max(times)
    return Retained(symbol, day, state, *ends, len(trades), "a" * 64, path_of(symbol, day), "b" * 64, START)


def put(connection: Any, one: Retained) -> None:
    """Writes a row by hand."""
    values: list[Any] = [value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in one]
    ask(connection, f"INSERT INTO retained ({retained.COLUMNS}) VALUES ({', '.join(['%s'] * len(one))})", *values)


def move(connection: Any, number: int, symbol: str = BTC) -> None:
    """Puts the stored day into the table `retained`, and takes its rows away."""
    start = START + number * DAY
    put(connection, row_of(trades_of(number, symbol)))
    bounds = [when.replace(tzinfo=None) for when in (start, start + DAY)]
    ask(connection, "DELETE FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s", symbol, *bounds)
