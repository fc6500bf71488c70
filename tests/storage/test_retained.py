"""Which part of a time is in a file, and which in the table."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

import db
from storage import past, retained
from storage.retained import GONE, LEAVING, RESTORED, RETURNING, Part, Retained
from tests.makers import BTC
from tests.support.tables import ask

DAY = timedelta(days=1)
START = datetime(2026, 8, 1, tzinfo=UTC)


def row(day: date, state: str, symbol: str = BTC) -> Retained:
    """A row of the table; each day has 100 ids."""
    first = 1 + 100 * (day - START.date()).days
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    times = start + timedelta(hours=1), start + timedelta(hours=23)
    path = f"symbol={symbol}/day={day}/trades.parquet"
    return Retained(symbol, day, state, first, first + 99, *times, 100, "a" * 64, path, "b" * 64, START)


def put(connection: db.Connection, one: Retained) -> None:
    """Writes a row by hand."""
    values: list[Any] = [value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in one]
    ask(connection, f"INSERT INTO retained ({retained.COLUMNS}) VALUES ({', '.join(['%s'] * len(one))})", *values)


@pytest.fixture
def rows(connection: db.Connection) -> list[Retained]:
    """The second, third and fifth day are in files, the sixth is restored; so is the second of another symbol."""
    found = [
        row(START.date() + n * DAY, state) for n, state in ((1, GONE), (2, LEAVING), (4, RETURNING), (5, RESTORED))
    ]
    for one in [*found, row(START.date() + DAY, GONE, "ETHUSDT")]:
        put(connection, one)
    return found


def test_a_time_is_cut_where_days_are_in_files(connection: db.Connection, rows: list[Retained]) -> None:
    """Half-open; a day that is restored is in the table."""
    start, end = START + DAY / 2, START + 8 * DAY
    assert list(retained.parts_of(connection, BTC, start, end)) == [
        Part(start, START + DAY, None),
        Part(START + DAY, START + 2 * DAY, rows[0]),
        Part(START + 2 * DAY, START + 3 * DAY, rows[1]),
        Part(START + 3 * DAY, START + 4 * DAY, None),
        Part(START + 4 * DAY, START + 5 * DAY, rows[2]),
        Part(START + 5 * DAY, end, None),
    ]
    within = START + 4.25 * DAY, START + 4.5 * DAY
    assert list(retained.parts_of(connection, BTC, *within)) == [Part(*within, rows[2])]
    for whole in ((START, START + DAY), (START + 5 * DAY, START + 6 * DAY)):
        assert list(retained.parts_of(connection, BTC, *whole)) == [Part(*whole, None)]
    assert list(retained.parts_of(connection, BTC, end, end)) == []
    assert list(retained.parts_of(connection, "BNBUSDT", start, end)) == [Part(start, end, None)]


def test_the_ends_of_what_is_in_files(connection: db.Connection, rows: list[Retained]) -> None:
    """Those that a table of trades alone would not tell."""
    assert retained.first_in_files(connection, BTC) == (101, rows[0].first_timestamp)
    assert retained.last_in_files(connection, BTC) == (500, rows[2].last_timestamp)
    assert retained.first_in_files(connection, "BNBUSDT") is None


def test_the_ends_of_all_symbols_are_found_by_the_key(connection: db.Connection) -> None:
    """However many days are in files, and whether the first or the last of some are restored."""
    days, symbols = 80, 20
    for n in range(days):
        put(connection, row(START.date() + n * DAY, GONE))
    others = retained.COLUMNS.replace("symbol", "CONCAT(symbol, n)", 1)
    numbers = " UNION ALL ".join(f"SELECT {n} AS n" for n in range(1, symbols))
    ask(
        connection,
        f"INSERT INTO retained ({retained.COLUMNS}) SELECT {others} FROM retained CROSS JOIN ({numbers}) AS numbers",
    )
    ask(connection, "ANALYZE TABLE retained")
    ask(connection, "FLUSH STATUS")
    spans, newest = past.file_spans(connection), past.newest_days(connection)
    read = ask(connection, "SHOW SESSION STATUS LIKE 'Handler_read%'")
    assert sum(int(value) for _, value in read) < 20 * symbols
    first, last = START + timedelta(hours=1), START + (days - 1) * DAY + timedelta(hours=23)
    assert spans == {BTC + (str(n) if n else ""): (first, last) for n in range(symbols)}
    assert {one.day for one in newest.values()} == {last.date()}
    ask(connection, "UPDATE retained SET state = 'restored' WHERE symbol = %s AND day = %s", BTC, last.date())
    ask(connection, "UPDATE retained SET state = 'restored' WHERE symbol = %s AND day = %s", f"{BTC}1", START.date())
    ask(connection, "UPDATE retained SET state = 'restored' WHERE symbol = %s", f"{BTC}2")
    spans |= {BTC: (first, last - DAY), f"{BTC}1": (first + DAY, last)}
    del spans[f"{BTC}2"]
    assert past.file_spans(connection) == spans
    assert past.newest_days(connection)[BTC].day == (last - DAY).date()
    assert f"{BTC}2" not in past.newest_days(connection)


def test_what_a_connection_knows_is_asked_again(
    connection: db.Connection, rows: list[Retained], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each question, but soon."""
    monkeypatch.setattr(retained, "KNOWN_S_MAX", 3_600.0)
    assert retained.retained_until(connection, BTC) == START + 6 * DAY
    put(connection, row(START.date() + 6 * DAY, LEAVING))
    assert retained.retained_until(connection, BTC) == START + 6 * DAY
    monkeypatch.setattr(retained, "KNOWN_S_MAX", -1.0)
    assert retained.retained_until(connection, BTC) == START + 7 * DAY


def test_a_database_of_an_earlier_version_has_no_files(connection: db.Connection) -> None:
    """Who only reads does not change it."""
    ask(connection, "DROP TABLE retained")
    assert list(retained.parts_of(connection, BTC, START, START + DAY)) == [Part(START, START + DAY, None)]
