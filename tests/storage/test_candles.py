"""Candles in the database: merged batch by batch, they are what a look at the trades gives."""

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import count
from typing import Any

import mysql.connector
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

import config
import db
from model import candles
from model.candles import Candle
from storage import ranges as db_ranges
from storage.values import ROWS_PER_STATEMENT_MAX
from tests.makers import MIDNIGHT, trade
from tests.support.tables import ask, merged, rebuilt

_fresh = (f"BARS{number}" for number in count())


def test_a_batch_makes_the_candles_of_its_trades(connection: db.Connection) -> None:
    """Whole rows, around midnight: what belongs to the minute, the hour and the day before and after."""
    ms = timedelta(milliseconds=1)
    before = [trade(1, MIDNIGHT - 2 * ms, "5"), trade(2, MIDNIGHT - ms, "3")]
    after = [trade(3, MIDNIGHT, "4"), trade(4, MIDNIGHT + timedelta(seconds=60), "9")]

    db.insert_trades(connection, before + after)

    def bar(resolution: int, begin: datetime, prices: Sequence[str], first: int, last: int) -> Candle:
        return Candle._make(["BTCUSDT", resolution, begin, *map(Decimal, prices), first, last])

    minute, hour, day = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
    assert merged(connection, "BTCUSDT") == [
        bar(60, MIDNIGHT - minute, ["5", "5", "3", "3"], 1, 2),
        bar(60, MIDNIGHT, ["4", "4", "4", "4"], 3, 3),
        bar(60, MIDNIGHT + minute, ["9", "9", "9", "9"], 4, 4),
        bar(3_600, MIDNIGHT - hour, ["5", "5", "3", "3"], 1, 2),
        bar(3_600, MIDNIGHT, ["4", "9", "4", "9"], 3, 4),
        bar(86_400, MIDNIGHT - day, ["5", "5", "3", "3"], 1, 2),
        bar(86_400, MIDNIGHT, ["4", "9", "4", "9"], 3, 4),
    ]


@pytest.mark.parametrize("together", [True, False])
def test_candles_are_as_exact_as_the_trades(connection: db.Connection, together: bool) -> None:
    """The largest and the smallest price beside each other keep all their digits, in one batch and in several."""
    prices = ["0.00000001", "999999999999.99999999", "0.00000071", "123456789012.12345678", "97000", "1E-8"]
    made = [trade(number, MIDNIGHT + timedelta(minutes=number % 2), price) for number, price in enumerate(prices, 1)]

    for batch in [made] if together else [[one] for one in made]:
        db.insert_trades(connection, batch)

    assert merged(connection, "BTCUSDT") == rebuilt(connection, "BTCUSDT")
    day = merged(connection, "BTCUSDT")[-1]
    assert (day.low, day.high, day.close) == (Decimal("1E-8"), Decimal("999999999999.99999999"), Decimal("1E-8"))


def test_more_candles_than_a_statement_takes(connection: db.Connection) -> None:
    """A page of a symbol that trades once a minute has as many candles as trades."""
    many = [trade(number, MIDNIGHT + timedelta(minutes=number), "1") for number in range(ROWS_PER_STATEMENT_MAX + 5)]

    db.insert_trades(connection, many)

    assert merged(connection, "BTCUSDT") == rebuilt(connection, "BTCUSDT")


TRADES = st.lists(st.tuples(st.integers(0, 8_000), st.integers(1, 9)), min_size=1, max_size=25)


@examples(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TRADES, st.data())
def test_merged_is_rebuilt(connection: db.Connection, made: list[tuple[int, int]], data: st.DataObject) -> None:
    """Random trades in random order, in random batches, some repeated, leave the candles of the plain definition."""
    symbol = next(_fresh)
    rows = [
        trade(number, MIDNIGHT + timedelta(seconds=second, milliseconds=number), str(price), symbol)
        for number, (second, price) in enumerate(made, 1)
    ]
    shuffled = data.draw(st.permutations(rows + rows[:: data.draw(st.integers(1, 5))]))
    size = data.draw(st.integers(1, len(shuffled)))

    for start in range(0, len(shuffled), size):
        db.insert_trades(connection, shuffled[start : start + size])

    assert merged(connection, symbol) == rebuilt(connection, symbol)


def test_candles_of_symbols_do_not_mix(connection: db.Connection) -> None:
    """A batch of several symbols makes the candles of each."""
    names = ["BTCUSDT", "ETHUSDT", "币安人生USDT", "A'B\\"]
    rows = [trade(number, MIDNIGHT, str(number), name) for name in names for number in range(1, 4)]

    db.insert_trades(connection, rows[::-1])

    for name in names:
        assert merged(connection, name) == rebuilt(connection, name)
        assert len(merged(connection, name)) == 3


# ---- What is answered with them.

DAYS_S = 3 * 86_400
SECONDS = st.one_of(
    st.integers(0, DAYS_S),
    st.builds(lambda unit, number: unit * number, st.sampled_from([60, 3_600]), st.integers(0, 72)),
)
BOUNDS_MS = st.builds(lambda second, ms: 1_000 * second + ms, SECONDS, st.sampled_from([-1, 0, 0, 0, 1, 500]))


@examples(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(SECONDS, st.integers(1, 6), st.booleans()), min_size=1, max_size=40),
    st.lists(st.tuples(BOUNDS_MS, BOUNDS_MS), min_size=1, max_size=8),
)
def test_a_range_by_candles_is_the_range_by_trades(
    connection: db.Connection, made: list[tuple[int, int, bool]], ranges: list[tuple[int, int]]
) -> None:
    """Any range over days, on and off the boundaries of bars, with gaps: the answer is that of every trade's."""
    symbol = next(_fresh)
    rows = [
        trade(number, MIDNIGHT + timedelta(seconds=second), str(price), symbol)
        for number, (second, price, kept) in enumerate(sorted(made), 1)
        if kept or number == 1
    ]
    db.insert_trades(connection, rows)
    for bounds in ranges:
        start, end = (MIDNIGHT + timedelta(milliseconds=bound) for bound in bounds)
        inside = [row for row in rows if start <= row.timestamp < end]
        answer = db.min_max(connection, symbol, start, end)

        assert answer == db.min_max_by_scan(connection, symbol, start, end)
        assert (answer is None) == (not inside)
        if answer:
            low, high = min(inside, key=lambda row: row.price), max(inside, key=lambda row: row.price)
            assert answer == db.MinMax(symbol, start, end, len(inside), inside[0], inside[-1], low, high)


def test_a_range_of_another_zone_is_the_same_range(connection: db.Connection) -> None:
    """The days of a bound's own zone are not those of the candles, and must not become them."""
    hours = [trade(hour, MIDNIGHT + timedelta(hours=hour), str(hour % 24 + 1)) for hour in range(1, 100)]
    db.insert_trades(connection, hours)
    start, end = MIDNIGHT + timedelta(hours=6), MIDNIGHT + timedelta(hours=90)

    for zone in (timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-8))):
        answer = db.min_max(connection, "BTCUSDT", start.astimezone(zone), end.astimezone(zone))
        bars = db.candles(connection, "BTCUSDT", candles.DAY, start.astimezone(zone), end.astimezone(zone))

        assert answer == db.min_max(connection, "BTCUSDT", start, end)
        assert answer == db.min_max_by_scan(connection, "BTCUSDT", start, end)
        assert bars == merged(connection, "BTCUSDT")[-4:-1]


def test_candles_are_read_by_their_begin(connection: db.Connection) -> None:
    """Those that begin in the half-open range, oldest first, with how many trades each has; none for an empty bar."""
    minutes = [0, 1, 1, 3]
    db.insert_trades(
        connection, [trade(number, MIDNIGHT + timedelta(minutes=at), "1") for number, at in enumerate(minutes, 1)]
    )
    end = MIDNIGHT + timedelta(minutes=3)

    found = db.candles(connection, "BTCUSDT", candles.MINUTE, MIDNIGHT, end)

    assert [(bar.timestamp.minute, bar.trades) for bar in found] == [(0, 1), (1, 2)]
    assert found == merged(connection, "BTCUSDT")[:2]
    later = db.candles(
        connection, "BTCUSDT", candles.MINUTE, MIDNIGHT + timedelta(microseconds=1), end + timedelta(minutes=1)
    )
    assert [bar.timestamp.minute for bar in later] == [1, 3]
    assert db.candles(connection, "BTCUSDT", candles.HOUR, MIDNIGHT, end) == merged(connection, "BTCUSDT")[3:4]
    assert db.candles(connection, "ETHUSDT", candles.HOUR, MIDNIGHT, end) == []


def test_a_range_that_still_grows_is_answered_as_it_was(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new extreme of the running day, stored between two statements of an answer, neither breaks nor mixes it."""
    db.insert_trades(connection, [trade(1, MIDNIGHT, "5"), trade(2, MIDNIGHT + timedelta(seconds=1), "6")])
    end = MIDNIGHT + timedelta(days=1)
    before = db.min_max(connection, "BTCUSDT", MIDNIGHT, end)
    reader, extremes = db.connect(settings, read_only=True), db_ranges._extremes

    def and_then_it_trades(*arguments: Any) -> Any:
        found = extremes(*arguments)
        db.insert_trades(connection, [trade(3, MIDNIGHT + timedelta(seconds=2), "1"), trade(4, MIDNIGHT, "9")])
        return found

    monkeypatch.setattr(db_ranges, "_extremes", and_then_it_trades)
    assert db.min_max(reader, "BTCUSDT", MIDNIGHT, end) == before
    monkeypatch.undo()

    after = db.min_max(reader, "BTCUSDT", MIDNIGHT, end)
    assert after
    assert (after.low.trade_id, after.high.trade_id) == (3, 4)


def test_rebuilt_candles_are_those_that_were_merged(connection: db.Connection) -> None:
    """Deleted, altered and surplus candles become those of the trades again, exact, for one symbol only."""
    prices = ["0.00000001", "999999999999.99999999", "97000", "0.00000071"]
    rows = [
        trade(number, MIDNIGHT + timedelta(minutes=37 * number), prices[number % 4], name)
        for name in ("BTCUSDT", "ETHUSDT")
        for number in range(1, 120)
    ]
    db.insert_trades(connection, rows)
    right = merged(connection, "BTCUSDT")
    ask(connection, "DELETE FROM candles WHERE resolution = 3600 AND symbol = 'BTCUSDT'")
    ask(connection, "UPDATE candles SET high = 1, first_trade_id = 1")
    ask(connection, "UPDATE candles SET timestamp = timestamp + INTERVAL 30 MINUTE WHERE resolution = 86400 LIMIT 1")
    other = merged(connection, "ETHUSDT")

    assert db.rebuild_candles(connection, "BTCUSDT") == len(right)

    assert merged(connection, "BTCUSDT") == right == rebuilt(connection, "BTCUSDT")
    assert merged(connection, "ETHUSDT") == other
    assert db.rebuild_candles(connection, "NONE") == 0


def test_no_writer_comes_between_the_halves_of_a_rebuild(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the deletion of an hour's or a day's candles and their return the symbol is locked for all writers."""
    db.insert_trades(connection, [trade(1, MIDNIGHT, "1")])
    other, rebuild, refused = db.connect(settings), db_ranges._rebuild_sql, []

    def and_try_to_write(*arguments: Any) -> Any:
        with pytest.raises(mysql.connector.Error) as caught:
            ask(other, "SELECT * FROM writers FOR UPDATE NOWAIT")
        refused.append(caught.value.errno)
        return rebuild(*arguments)

    monkeypatch.setattr(db_ranges, "_rebuild_sql", and_try_to_write)
    db.rebuild_candles(connection, "BTCUSDT")

    # The minutes of each hour, then the hours and the day.
    assert len(refused) == 24 + 1 + 1
    assert set(refused) <= {1205, 3572}


def test_rebuilding_beside_a_capture_loses_nothing(connection: db.Connection, settings: config.Settings) -> None:
    """While the candles are made anew, trades go on to be stored; in the end the candles are those of all trades."""
    writer, stop = db.connect(settings), threading.Event()
    stored = 0

    def capture() -> None:
        nonlocal stored
        while not stop.is_set() or stored < 50:
            stored += db.insert_trades(
                writer, [trade(stored + 1, MIDNIGHT + timedelta(minutes=7 * stored), str(stored + 1))]
            )

    thread = threading.Thread(target=capture)
    thread.start()
    try:
        for _ in range(10):
            db.rebuild_candles(connection, "BTCUSDT")
    finally:
        stop.set()
        thread.join()

    assert stored >= 50
    assert merged(connection, "BTCUSDT") == rebuilt(connection, "BTCUSDT")
