"""Ranges of any length: what the candles answer is what the trades answer, and every query goes by its index."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import config
import db
from model import candles
from model.trade import Trade
from storage import gaps as stored_gaps
from storage import sealing, transaction
from tests.support.servers import Server
from tests.support.tables import ask, due, plain_bars, sealed, stored

pytestmark = pytest.mark.slow

BEGIN = datetime(2025, 3, 1, 22, 13, 7, 250_000, tzinfo=UTC)
SPAN_MS = 60 * 3_600_000
ROWS = 6_000
BIG_ROWS = 1_000_000
BIG_STEP_MS = 250


def tape(seed: int) -> list[Trade]:
    """Trades of 60 hours, in bursts and lulls, many in one millisecond, some ids missing, prices that repeat."""
    chance = random.Random(seed)
    trades, at_ms, price = [], 0, 60_000_00
    for trade_id in range(1, ROWS + 1):
        at_ms += 0 if chance.random() < 0.4 else int(chance.expovariate(1 / (2 * SPAN_MS / ROWS)))
        price += chance.randint(-3, 3)
        if chance.random() > 0.01:
            when = BEGIN + timedelta(milliseconds=at_ms)
            trades.append(Trade("BTCUSDT", when, trade_id, Decimal(price) / 100, Decimal("0.1"), trade_id % 2 == 0))
    return trades


@pytest.fixture(scope="module")
def filled(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[db.Connection]:
    """A database with the tape, stored in shuffled batches."""
    name = "test_ranges"
    connection = db.connect(server.settings(name, tmp_path_factory.mktemp("ranges")))
    trades = tape(7)
    batches = [trades[start : start + 500] for start in range(0, len(trades), 500)]
    random.Random(8).shuffle(batches)
    for number, batch in enumerate(batches):
        db.insert_trades(connection, batch)
        if number == len(batches) // 2:
            # The rest comes late: into bars that are sealed.
            assert db.seal(connection, ["BTCUSDT"], None, trades[-300].timestamp.replace(microsecond=0))
    yield connection
    ask(connection, f"DROP DATABASE {name}")
    db.close(connection)


def moments() -> st.SearchStrategy[datetime]:
    """Times in and around the tape: on the boundaries of candles, beside them, and anywhere."""

    def moment(offset_us: int, resolution: int, nudge_us: int) -> datetime:
        when = BEGIN + timedelta(microseconds=offset_us)
        return (candles.floor(when, resolution) if resolution else when) + timedelta(microseconds=nudge_us)

    return st.builds(
        moment,
        st.integers(-3_600_000_000, (SPAN_MS + 3_600_000) * 1_000),
        st.sampled_from((0, *candles.RESOLUTIONS)),
        st.sampled_from((0, 0, 1_000, -1_000, 1, -1)),
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=moments(), length=st.one_of(st.integers(1, 120_000), st.integers(1, SPAN_MS)))
def test_any_range_from_candles_equals_the_scan(filled: db.Connection, start: datetime, length: int) -> None:
    """From a millisecond to the whole table, ends on and off the boundaries: every trade of the answer is the same."""
    end = start + timedelta(milliseconds=length)

    assert db.min_max(filled, "BTCUSDT", start, end) == db.min_max_by_scan(filled, "BTCUSDT", start, end)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=moments(), other=moments())
def test_both_ends_on_boundaries(filled: db.Connection, one: datetime, other: datetime) -> None:
    """Both ends may be begins of minutes, hours or days, in either order; a reversed range has no trade."""
    expected = db.min_max_by_scan(filled, "BTCUSDT", one, other)

    assert db.min_max(filled, "BTCUSDT", one, other) == expected
    assert one < other or expected is None


def test_sealed_candles_are_those_of_the_trades(filled: db.Connection) -> None:
    """The bars of the whole tape, of which a part was stored after it was sealed, by the plain definition."""
    assert sealed(filled, "BTCUSDT") == due(filled, "BTCUSDT")
    assert len(sealed(filled, "BTCUSDT")) > 1_000


def test_candles_of_a_range(filled: db.Connection) -> None:
    """Those that begin in the half-open range, oldest first."""
    start = datetime(2025, 3, 2, tzinfo=UTC)
    hours = db.candles(filled, "BTCUSDT", candles.HOUR, start, start + timedelta(hours=3))

    assert [hour.timestamp for hour in hours] == [start + timedelta(hours=number) for number in range(3)]
    assert hours == [
        bar for bar in plain_bars(stored(filled), candles.HOUR) if start <= bar.timestamp < start + timedelta(hours=3)
    ]


def test_candles_that_lie_are_an_error_that_says_what_helps(settings: config.Settings) -> None:
    """Trades that somebody deleted behind the candles' back are noticed."""
    connection = db.connect(settings)
    db.insert_trades(connection, tape(1)[:2_000])
    assert db.seal(connection, ["BTCUSDT"], None, BEGIN.replace(microsecond=0) + timedelta(days=3))
    found = db.min_max(connection, "BTCUSDT", BEGIN, BEGIN + timedelta(days=3))
    assert found is not None
    ask(connection, "DELETE FROM trades WHERE price = %s", str(found.low.price))

    with pytest.raises(db.DatabaseError, match=r"tools\.reseal"):
        db.min_max(connection, "BTCUSDT", BEGIN, BEGIN + timedelta(days=3))
    db.close(connection)


# ---- By index, on a table of a million rows.


@pytest.fixture(scope="module")
def big(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[db.Connection]:
    """A million trades of one symbol in three days and a few of another; made by the server, candles rebuilt."""
    name = "test_big"
    connection = db.connect(server.settings(name, tmp_path_factory.mktemp("big")), read_s_max=300)
    digits = "SELECT 0 AS d UNION ALL " + " UNION ALL ".join(f"SELECT {digit}" for digit in range(1, 10))
    n = "a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d + 100000 * g.d"
    tables = ", ".join(f"({digits}) AS {alias}" for alias in "abcefg")
    ask(
        connection,
        "INSERT INTO trades SELECT 'BTCUSDT', TIMESTAMP('2025-03-01 00:00:00') + INTERVAL n * %s * 1000 MICROSECOND,"
        " n + 1, 60000 + MOD(n * 7919, 100003) / 100, 0.1, 0, NULL"
        f" FROM (SELECT {n} AS n FROM {tables}) AS numbers ORDER BY n",
        BIG_STEP_MS,
    )
    ask(connection, "INSERT INTO trades SELECT 'ETHUSDT', timestamp, trade_id, 2600, 1, 0, NULL FROM trades LIMIT 1000")
    sealing.seal_history(connection, "BTCUSDT")
    ask(connection, "ANALYZE TABLE trades, candles, gaps")
    yield connection
    ask(connection, f"DROP DATABASE {name}")
    db.close(connection)


def asked(connection: db.Connection) -> list[str]:
    """Every statement that the reading functions send, for usual arguments."""
    noon = datetime(2025, 3, 2, 12, 0, 0, tzinfo=UTC)
    connection.asked = []
    db.symbols(connection)
    db.latest(connection, "BTCUSDT")
    db.trades_in_second(connection, "BTCUSDT", noon)
    db.price_as_of(connection, "BTCUSDT", noon)
    db.min_max(
        connection, "BTCUSDT", noon - timedelta(days=1, hours=1, seconds=7), noon + timedelta(minutes=3, seconds=9)
    )
    db.min_max(connection, "BTCUSDT", noon, noon + timedelta(seconds=20))
    db.candles(connection, "BTCUSDT", candles.MINUTE, noon, noon + timedelta(hours=1))
    db.open_gaps(connection)
    db.open_gaps(connection, "BTCUSDT")
    statements, connection.asked = connection.asked, None
    return statements


def plans(connection: db.Connection, statement: str) -> list[dict[str, Any]]:
    """EXPLAIN's rows, as dictionaries with lower-case keys."""
    with connection.cursor() as cursor:
        # MySQL 9 explains as a tree unless it is asked for the table that both families have.
        cursor.execute(("EXPLAIN FORMAT=TRADITIONAL " if is_mysql(connection) else "EXPLAIN ") + statement)
        names = [str(column[0]).lower() for column in cursor.description or ()]
        rows: list[Any] = list(cursor.fetchall())
        return [dict(zip(names, row, strict=True)) for row in rows]


def is_mysql(connection: db.Connection) -> bool:
    """Whether the server is MySQL and not MariaDB."""
    return "mariadb" not in str(ask(connection, "SELECT VERSION()")[0][0]).lower()


def test_every_query_goes_by_its_index(big: db.Connection) -> None:
    """No full scan, no filesort, no temporary table over the trades, the candles or the gaps."""
    statements = asked(big)
    wrong = [
        (statement, plan)
        for statement in statements
        for plan in plans(big, statement)
        if plan["table"] in ("trades", "candles", "gaps")
        and (
            plan["type"] in ("ALL", "index")
            or "filesort" in (plan["extra"] or "")
            or "temporary" in (plan["extra"] or "")
        )
    ]

    assert len(statements) > 12
    assert wrong == []


def test_no_query_reads_more_than_its_answer_needs(big: db.Connection) -> None:
    """The server's own count of rows read, for a month's question as for a second's: thousands, not a million."""
    ask(big, "FLUSH STATUS")
    asked(big)
    read = sum(
        int(value)
        for name, value in ask(big, "SHOW SESSION STATUS LIKE 'Handler_read%'")
        if name.lower() in ("handler_read_next", "handler_read_prev", "handler_read_rnd_next", "handler_read_key")
    )

    assert read < 10_000


def test_the_locks_of_a_writer_go_by_the_key(big: db.Connection) -> None:
    """The statements before a batch: the lock of the symbols, and the first and last trade after a new connection."""
    with transaction.transaction(big, ["BTCUSDT", "ETHUSDT"]) as work:
        big.asked = []
        stored_gaps.spans(big, work.states)
        statements, big.asked = big.asked, None
        wrong = [
            (statement, plan)
            for statement in statements
            for plan in plans(big, statement)
            if plan["table"] == "trades" and plan["type"] in ("ALL", "index") and int(plan["rows"]) > 10_000
        ]

    assert wrong == []
