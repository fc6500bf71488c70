"""Whether the table stays as large as the days that are kept: 90 of two symbols, for 30 simulated days.

Each simulated day a day of trades is stored and sealed, as a capture does, and the oldest day leaves for its Parquet
file, with its proof, by the steps of `tools.retain`; only the wait for readers, of which there are none, is left out.
The size is that of the table's file, which grows by 4 MB at a time. It was built without a gap between rows, and a day
is stored before the oldest leaves, so the size is compared with that after the first simulated day. For comparison the
same trades are in a table with a partition for each month: the 90 days before are three whole months, of which the
first can be dropped one day after the last simulated one.
"""

import re
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import config
import db
from model.trade import Trade
from proof import leaving, record
from proof.leaving import Place
from storage import sealing
from storage.retained import Retained
from tools.bench.figures import Figure, at_most
from tools.bench.stage import Bench, say
from tools.lab.children import RigError

PART = "retention"
DATABASE = "bench_retention"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
READ_S_MAX = 120
PURGED, PURGE_S_MAX = 100, 20.0
"""The server frees the pages of deleted rows a little later; a day is longer than that."""
BATCH = 2_000
MONTHS = 6
GROWTH_MAX, GROWTH_AIM = 1.05, 1.02


class Sizes(NamedTuple):
    """How many days are kept, for how many days, and the trades of a symbol and day."""

    kept: int
    simulated: int
    trades: int


FULL, QUICK = Sizes(90, 30, 8_000), Sizes(4, 3, 200)


def run(bench: Bench) -> list[Figure]:
    """The sizes after the simulated days beside those before, and how long a day takes to leave."""
    sizes = QUICK if bench.quick else FULL
    with bench.database(DATABASE) as settings:
        connection = db.connect(settings, read_s_max=READ_S_MAX)
        try:
            _build(connection, sizes)
            return _simulate(bench, settings, connection, sizes)
        finally:
            db.close(connection)


def _simulate(bench: Bench, settings: config.Settings, connection: db.Connection, sizes: Sizes) -> list[Figure]:
    folder = bench.folder / "data" / DATABASE
    before, months_before = _size(folder, "trades.ibd"), _size(folder, "months#*.ibd")
    say(f"{PART}: {sizes.kept} days of {sizes.trades:,} trades of {len(SYMBOLS)} symbols: {before / 1e6:.0f} MB")
    days, months, seconds, files = list[int](), list[int](), list[float](), 0
    place = Place(settings, connection)
    for day in range(sizes.kept, sizes.kept + sizes.simulated):
        _store(connection, day, sizes)
        _copy(connection, BEGIN + day * DAY)
        begun_s = time.monotonic()
        for symbol in SYMBOLS:
            one = _leave(place, symbol, (BEGIN + (day - sizes.kept) * DAY).date())
            files += place.path(one).stat().st_size
        seconds.append((time.monotonic() - begun_s) / len(SYMBOLS))
        _await_purge(connection)
        days.append(_size(folder, "trades.ibd"))
        months.append(_size(folder, "months#*.ibd"))
    say(f"{PART}: MB after each day: {' '.join(f'{size / 1e6:.0f}' for size in days)}")
    _check(connection, sizes)
    rows = sizes.simulated * sizes.trades * len(SYMBOLS)
    return [
        Figure(PART, "table, largest / first day", "×", [max(days) / days[0]], at_most(GROWTH_MAX, GROWTH_AIM)),
        Figure(PART, "table, largest / as it was built", "×", [max(days) / before]),
        Figure(PART, "partitions by month, largest / as they were built", "×", [max(months) / months_before]),
        Figure(PART, "a trade in its file", "bytes", [files / rows]),
        Figure(PART, "a day leaves", "s", [sum(seconds) / len(seconds)]),
    ]


def _leave(place: Place, symbol: str, day: date) -> Retained:
    """A day leaves, without the wait for those who do not know yet which days have left: here they are asked anew."""
    place.connection.retained = None
    with record.auditor(place.settings, place.connection) as auditor:
        one = leaving.leave(place, auditor, symbol, day)
    leaving.delete(place, one)
    return one


def _trades(symbol: str, day: int, count: int) -> Iterator[Trade]:
    """The trades of a day; three share a millisecond."""
    start, step = BEGIN + day * DAY, DAY // count
    for n in range(count):
        at = start + n // 3 * 3 * step
        at = at.replace(microsecond=at.microsecond // 1_000 * 1_000)
        price, quantity = (
            Decimal(6_000_000 + n * 7_919 % 9_973).scaleb(-2),
            Decimal(1 + n * 104_729 % 99_991).scaleb(-5),
        )
        yield Trade(symbol, at, 1 + day * count + n, price, quantity, n % 2 == 0, at + timedelta(microseconds=45_123))


def _store(connection: db.Connection, day: int, sizes: Sizes) -> None:
    """Stores a day of each symbol, by turns as they come, and seals it up to the minute of its last trade."""
    trades = {symbol: list(_trades(symbol, day, sizes.trades)) for symbol in SYMBOLS}
    for start in range(0, sizes.trades, BATCH):
        for symbol in SYMBOLS:
            db.insert_trades(connection, trades[symbol][start : start + BATCH])
    _seal(connection, day)


def _seal(connection: db.Connection, day: int) -> None:
    for symbol in SYMBOLS:
        since = db.sealable(connection, [symbol])[symbol].sealed_until
        if not sealing.seal(connection, [symbol], since, BEGIN + (day + 1) * DAY):
            raise RigError(f"day {day} of {symbol} was not sealed")


def _build(connection: db.Connection, sizes: Sizes) -> None:
    """The kept days, of which the server makes all from the first, sealed; and the same in a table with partitions."""
    _store(connection, 0, sizes)
    for day in range(1, sizes.kept):
        sql = f"INSERT INTO trades SELECT symbol, timestamp + INTERVAL {day} DAY, trade_id + {day * sizes.trades},"
        sql += f" price, quantity, buyer_is_maker, received_at + INTERVAL {day} DAY FROM trades"
        sql += " WHERE symbol = %s AND timestamp < %s"
        for symbol in SYMBOLS:
            _run(connection, sql, symbol, (BEGIN + DAY).replace(tzinfo=None))
        _seal(connection, day)
    # They were stored behind its back.
    connection.spans.clear()
    _make_months(connection)


def _make_months(connection: db.Connection) -> None:
    starts = [datetime(2025, 2 + month, 1, tzinfo=UTC) for month in range(MONTHS)]
    parts = ", ".join(f"PARTITION p{n} VALUES LESS THAN ('{start:%Y-%m-%d}')" for n, start in enumerate(starts))
    _run(connection, "CREATE TABLE months LIKE trades")
    _run(connection, f"ALTER TABLE months PARTITION BY RANGE COLUMNS(timestamp) ({parts})")
    ((first, last),) = _run(connection, "SELECT MIN(timestamp), MAX(timestamp) FROM trades")
    day = first.replace(hour=0, minute=0, second=0, microsecond=0)
    while day <= last:
        _copy(connection, day)
        day += DAY


def _copy(connection: db.Connection, start: datetime) -> None:
    """A day goes into the table with partitions too."""
    sql = "INSERT INTO months SELECT * FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s"
    for symbol in SYMBOLS:
        _run(connection, sql, symbol, start.replace(tzinfo=None), (start + DAY).replace(tzinfo=None))


def _run(connection: db.Connection, sql: str, *values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall()) if cursor.description else []


def _await_purge(connection: db.Connection) -> None:
    until_s = time.monotonic() + PURGE_S_MAX
    while time.monotonic() < until_s:
        ((*_, status),) = _run(connection, "SHOW ENGINE INNODB STATUS")
        found = re.search(r"History list length (\d+)", str(status))
        if found and int(found[1]) <= PURGED:
            return
        time.sleep(0.05)


def _size(folder: Path, pattern: str) -> int:
    """The bytes of the files of a table."""
    return sum(path.stat().st_size for path in folder.glob(pattern))


def _check(connection: db.Connection, sizes: Sizes) -> None:
    """Raises RigError unless just the kept days are in the table, and the others in files."""
    ((rows,),) = _run(connection, "SELECT COUNT(*) FROM trades")
    ((gone,),) = _run(connection, "SELECT SUM(trades) FROM retained WHERE state = 'gone'")
    kept, left = (days * sizes.trades * len(SYMBOLS) for days in (sizes.kept, sizes.simulated))
    if (rows, gone) != (kept, left):
        raise RigError(f"{rows} rows are kept and {gone} are in files, not {kept} and {left}")
