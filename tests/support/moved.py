"""Days that are moved from the table into Parquet files by hand, and trades of several days to move."""

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import db
from model.proof import DayHash
from model.times import midnight
from model.trade import Trade
from storage import canonical, day_files, lines, retained, sealing
from storage.retained import GONE, Retained
from tests.makers import BTC
from tests.support.tables import ask, stored

FIRST = date(2025, 3, 1)
DAYS, DAY_TRADES = 5, 400
ONE_DAY = timedelta(days=1)


def tape(symbol: str = BTC, seed: int = 1) -> list[Trade]:
    """Trades of DAYS days from FIRST on: several in a millisecond, times that run back below a second, at midnight too,
    prices that repeat, 12 and 8 digits, ids that are missing, and trades that were back-filled."""
    chance = random.Random(seed)
    trades: list[Trade] = []
    for n in range(DAYS * DAY_TRADES):
        when = midnight(FIRST) + n * ONE_DAY / DAY_TRADES
        # Half of them in bursts, so that some share a second and a minute; at midnight by a few milliseconds.
        spread = timedelta(milliseconds=chance.choice((0, 0, 1, 400, -400)))
        when = when.replace(microsecond=when.microsecond // 1000 * 1000) + spread
        if n % 4:
            when = max(trades[-1].timestamp + spread, midnight(FIRST)) if trades else when
        price = Decimal(60_000_00 + chance.randint(-40, 40)).scaleb(-2)
        quantity = chance.choice([Decimal("0.00000001"), Decimal("1.5"), Decimal(chance.randint(1, 10**9)).scaleb(-8)])
        at = None if chance.random() < 0.2 else when + timedelta(microseconds=chance.randint(500, 90_000))
        if chance.random() > 0.02:
            trades.append(Trade(symbol, when, 1_000 + n, price, quantity, chance.random() < 0.5, at))
    trades[7] = trades[7]._replace(price=Decimal("999999999999.99999999"), quantity=Decimal("0.00000003"))
    return trades


def fill(connection: db.Connection, trades: Sequence[Trade]) -> None:
    """Stores trades, and seals all but the last day."""
    db.insert_trades(connection, trades)
    for symbol in {trade.symbol for trade in trades}:
        sealing.seal_history(connection, symbol)


def write(path: Path, symbol: str, chunks: Iterable[lines.Chunk]) -> str:
    """The hash of the file of a day, which is written."""
    with day_files.written(path, symbol, chunks) as part:
        day_files.put(part, path)
    return day_files.hash_of(path)


def move(connection: db.Connection, day: date, symbol: str = BTC, state: str = GONE, keep_rows: bool = False) -> Path:
    """The file that the trades of a day, which is sealed first, are in; `keep_rows`: they are in the table too."""
    start, end = midnight(day), midnight(day) + ONE_DAY
    rows = [trade for trade in stored(connection, symbol) if start <= trade.timestamp < end]
    assert rows, "nothing to move"
    sealed = db.sealable(connection, [symbol])[symbol].sealed_until
    if sealed is None or sealed < end:
        assert db.seal(connection, [symbol], sealed, end)
    path = connection.files / day_files.path_of(symbol, day)
    digest = write(path, symbol, lines.lines(connection, symbol, start, end, lines.PLAIN))
    ids = [trade.trade_id for trade in rows]
    one = Retained(
        symbol,
        day,
        state,
        min(ids),
        max(ids),
        rows[0].timestamp,
        rows[-1].timestamp,
        len(rows),
        _hash_of(connection, symbol, start, end),
        day_files.path_of(symbol, day),
        digest,
        datetime.now(UTC).replace(microsecond=0),
    )
    values: list[Any] = [value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in one]
    ask(connection, f"REPLACE INTO retained ({retained.COLUMNS}) VALUES ({', '.join(['%s'] * len(one))})", *values)
    if not keep_rows:
        bounds = start.replace(tzinfo=None), end.replace(tzinfo=None)
        ask(connection, "DELETE FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s", symbol, *bounds)
    # As after KNOWN_S_MAX.
    connection.retained = None
    return path


def _hash_of(connection: db.Connection, symbol: str, start: datetime, end: datetime) -> str:
    whole = DayHash()
    for block in canonical.blocks(connection, symbol, start, end, by_id=True):
        whole.add(block.number, block.lines)
    return whole.sha256


def days(*numbers: int) -> list[date]:
    """The days of the tape with these numbers."""
    return [FIRST + number * ONE_DAY for number in numbers]


def moments(trades: Sequence[Trade], count: int, seed: int = 3) -> list[datetime]:
    """Times in and around the tape: midnights, those of trades, right before and behind them, and any."""
    chance = random.Random(seed)
    found = [midnight(FIRST) + n * ONE_DAY for n in range(-1, DAYS + 2)]
    for _ in range(count):
        when = chance.choice(trades).timestamp
        found.append(when + timedelta(milliseconds=chance.choice((0, 0, 1, -1, 500, -3_000, 70_000))))
    return found
