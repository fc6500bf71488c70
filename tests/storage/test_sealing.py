"""Sealed bars equal their trades: whoever stores what, and when; and what is answered with them is what trades say."""

import itertools
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

import config
import db
from model import candles
from model.candles import Candle
from model.trade import Trade
from storage import pages, questions, ranges, sealing, session
from storage import ranges as db_ranges
from storage.pages import LATEST
from tests.makers import BTC, MIDNIGHT, trade
from tests.support.tables import ask, due, plain_bars, sealed

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_fresh = (f"BARS{number}" for number in itertools.count())


def seal(connection: db.Connection, symbol: str, until: datetime) -> bool:
    """Seals from where it is sealed."""
    return db.seal(connection, [symbol], db.sealable(connection)[symbol].sealed_until, until)


def bought(trade_id: int, when: datetime, price: str, quantity: str, taker_sold: bool = False) -> Trade:
    """A trade with all that a bar is made of."""
    return trade(trade_id, when, price)._replace(quantity=Decimal(quantity), buyer_is_maker=taker_sold)


# ---- Sealing.


def test_a_bar_is_made_of_the_trades_of_its_time(connection: db.Connection) -> None:
    """Whole rows, around midnight: what belongs to the minute, the hour and the day before and after, with sums."""
    ms = timedelta(milliseconds=1)
    rows = [
        bought(1, MIDNIGHT - 2 * ms, "5", "1"),
        bought(2, MIDNIGHT - ms, "3", "0.00000001", taker_sold=True),
        bought(3, MIDNIGHT, "4", "2", taker_sold=True),
        bought(4, MIDNIGHT + MINUTE, "9", "1.5"),
    ]
    db.insert_trades(connection, rows)
    assert sealed(connection, BTC) == []

    assert seal(connection, BTC, MIDNIGHT + HOUR)

    def bar(resolution: int, begin: datetime, prices: str, sums: Sequence[str], ids: tuple[int, int]) -> Candle:
        amounts = [*map(Decimal, prices), *map(Decimal, sums)]
        return Candle._make([BTC, resolution, begin, *amounts, ids[1] - ids[0] + 1, *ids])

    before = ["1.00000001", "5.00000003", "1", "5"]
    assert sealed(connection, BTC) == [
        bar(60, MIDNIGHT - MINUTE, "5533", before, (1, 2)),
        bar(60, MIDNIGHT, "4444", ["2", "8", "0", "0"], (3, 3)),
        bar(60, MIDNIGHT + MINUTE, "9999", ["1.5", "13.5", "1.5", "13.5"], (4, 4)),
        bar(3_600, MIDNIGHT - HOUR, "5533", before, (1, 2)),
        bar(3_600, MIDNIGHT, "4949", ["3.5", "21.5", "1.5", "13.5"], (3, 4)),
        bar(86_400, MIDNIGHT - DAY, "5533", before, (1, 2)),
    ]


def test_sums_are_exact_to_the_last_digit(connection: db.Connection) -> None:
    """The largest and the smallest amounts beside each other keep all their digits; so do ids as large as they get."""
    most, least = "999999999999.99999999", "0.00000001"
    amounts = [(most, most), (least, least), (most, least), ("123456789012.12345678", most), ("97000.1", "0.00012")]
    rows = [
        bought(2**63 - 10 + number, MIDNIGHT + timedelta(seconds=number), *pair, taker_sold=number % 2 == 1)
        for number, pair in enumerate(amounts)
    ]
    db.insert_trades(connection, rows)

    assert seal(connection, BTC, MIDNIGHT + DAY)

    assert sealed(connection, BTC) == due(connection, BTC)
    day = sealed(connection, BTC)[-1]
    with localcontext(prec=100):
        assert day.quote_volume == sum(row.price * row.quantity for row in rows)
    assert (day.low, day.high, day.open) == (Decimal(least), Decimal(most), Decimal(most))


def test_open_and_close_go_by_the_id(connection: db.Connection) -> None:
    """Where time stamps go backwards, the trade with the smaller id is the earlier one, also of hours and days."""
    rows = [trade(3, MIDNIGHT, "3"), trade(1, MIDNIGHT + timedelta(seconds=70), "9"), trade(2, MIDNIGHT, "1")]
    db.insert_trades(connection, rows)

    assert seal(connection, BTC, MIDNIGHT + DAY)

    ends = [(int(bar.open), int(bar.close)) for bar in sealed(connection, BTC)]
    assert ends == [(1, 3), (9, 9), (9, 3), (9, 3)]


def test_a_minute_is_sealed_second_by_second_and_then_whole(connection: db.Connection) -> None:
    """The seconds of the minute that goes on have bars; when it is over, only the minute has one."""
    db.insert_trades(connection, [trade(number, MIDNIGHT + timedelta(seconds=7 * number)) for number in range(1, 20)])

    for second in (3, 20, 21, 60, 75, 121):
        assert seal(connection, BTC, MIDNIGHT + timedelta(seconds=second))
        assert sealed(connection, BTC) == due(connection, BTC)

    assert [bar.resolution for bar in sealed(connection, BTC)] == [60, 60]


def test_symbols_are_sealed_together_and_do_not_mix(connection: db.Connection) -> None:
    """One statement makes the bars of several; one that is not as far as the others stops it, and nothing is done."""
    names = ["BTCUSDT", "ETHUSDT", "币安人生USDT", "A'B\\"]
    for name in names:
        db.insert_trades(connection, [trade(number, MIDNIGHT, str(number), name) for number in range(1, 4)])

    assert db.seal(connection, names, None, MIDNIGHT + HOUR)
    for name in names:
        assert sealed(connection, name) == due(connection, name)
        assert len(sealed(connection, name)) == 2
    assert seal(connection, names[0], MIDNIGHT + 2 * HOUR)
    assert not db.seal(connection, names, MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR)
    assert db.sealable(connection)[names[1]].sealed_until == MIDNIGHT + HOUR


def test_late_trades_are_in_the_bars_at_once(connection: db.Connection) -> None:
    """Trades of every kind of place before sealed_until: the transaction that stores them makes their bars again."""
    start = MIDNIGHT - timedelta(hours=30)
    rows = [trade(number, start + timedelta(minutes=11 * number), str(number % 9 + 1)) for number in range(1, 200)]
    db.insert_trades(connection, rows[:50] + rows[100:])
    assert seal(connection, BTC, start + timedelta(minutes=11 * 190, seconds=17))
    assert sealed(connection, BTC) == due(connection, BTC)

    db.insert_trades(connection, rows[70:72])
    assert sealed(connection, BTC) == due(connection, BTC)
    db.insert_trades(connection, rows[50:100])
    assert sealed(connection, BTC) == due(connection, BTC)
    # Far before everything; in a second of the open minute; and repeats.
    db.insert_trades(connection, [trade(0, start - 40 * DAY, "5")])
    db.insert_trades(connection, [trade(200, start + timedelta(minutes=11 * 190, seconds=5), "5")])
    db.insert_trades(connection, rows)
    assert sealed(connection, BTC) == due(connection, BTC)
    assert len(sealed(connection, BTC)) > 200


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.lists(st.integers(1, 60), min_size=1, max_size=12), st.booleans()),
        st.tuples(st.just("seal"), st.integers(1, 8_000), st.booleans()),
    ),
    min_size=1,
    max_size=14,
)


@examples(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 8_000), st.integers(1, 9)), min_size=60, max_size=60), OPERATIONS)
def test_sealed_is_due_whatever_happens(
    connection: db.Connection, settings: config.Settings, made: list[tuple[int, int]], operations: list[Any]
) -> None:
    """Two writers store any trades in any order, some again and again, and seal up to anywhere in between."""
    symbol = next(_fresh)
    rows = {
        number: bought(
            number, MIDNIGHT + timedelta(seconds=second, milliseconds=number), str(price), f"0.{price}", number % 3 == 0
        )._replace(symbol=symbol)
        for number, (second, price) in enumerate(made, 1)
    }
    with_other = db.connect(settings)
    for operation, argument, other in operations:
        writer = with_other if other else connection
        if operation == "store":
            db.insert_trades(writer, [rows[number] for number in argument])
        else:
            found = db.sealable(writer, [symbol]).get(symbol)
            until = MIDNIGHT + timedelta(seconds=argument)
            if found and (found.sealed_until is None or found.sealed_until < until):
                assert db.seal(writer, [symbol], found.sealed_until, until)
        assert sealed(connection, symbol) == due(connection, symbol)
    db.close(with_other)


# ---- Sealing while others store.


def between(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Does `act` once, after the bars were made and before the sealing is committed: statements are sent singly."""
    send, acts = session._send, iter([act])

    def sent(connection: db.Connection, part: Sequence[str]) -> list[int]:
        if part[0].startswith("UPDATE symbols SET fence = IF("):
            for one in acts:
                one()
        return send(connection, part)

    monkeypatch.setattr(session, "_send", sent)
    for manners in session._manners.values():
        monkeypatch.setattr(manners, "singly", True)


@pytest.mark.parametrize("again", [False, True])
def test_a_late_trade_stops_a_sealing(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Stored after the bars were made without it: they are not kept, even if another sealing of the same time, which
    sets the same fence but for its part of a second, has begun since."""
    writer, sealer = db.connect(settings), db.connect(settings)
    db.insert_trades(writer, [trade(1, MIDNIGHT, "1"), trade(3, MIDNIGHT + 2 * MINUTE, "2")])

    def late() -> None:
        db.insert_trades(writer, [trade(2, MIDNIGHT + timedelta(seconds=1), "9")])
        if again:
            ask(sealer, "UPDATE symbols SET fence = '2025-03-01 00:01:00.123457'")

    between(monkeypatch, late)
    assert not seal(connection, BTC, MIDNIGHT + MINUTE)

    assert sealed(connection, BTC) == due(connection, BTC) == []
    assert seal(connection, BTC, MIDNIGHT + MINUTE)
    assert [bar.high for bar in sealed(connection, BTC)] == [9]


def test_a_trade_behind_the_fence_waits_for_nothing(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While bars are made, the writer stores what comes next in one statement, and the sealing goes through."""
    writer = db.connect(settings)
    db.insert_trades(writer, [trade(1, MIDNIGHT, "1")])

    def next_ones() -> None:
        for number in (2, 3):
            db.insert_trades(writer, [trade(number, MIDNIGHT + MINUTE + timedelta(seconds=number), "2")])
        db.insert_trades(writer, [trade(number, MIDNIGHT + 2 * MINUTE, "3") for number in range(4, 20)])

    between(monkeypatch, next_ones)
    assert seal(connection, BTC, MIDNIGHT + MINUTE)

    assert sealed(connection, BTC) == due(connection, BTC)
    assert len(sealed(connection, BTC)) == 1


def test_of_two_that_seal_one_does(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another has sealed further in the meantime: the bars are those that it made, and only once."""
    other = db.connect(settings)
    db.insert_trades(connection, [trade(1, MIDNIGHT, "1"), trade(2, MIDNIGHT + MINUTE, "2")])
    fence = "UPDATE symbols SET fence = '2025-03-01 00:02:00.5'"
    between(monkeypatch, lambda: ask(other, fence))

    assert not seal(connection, BTC, MIDNIGHT + MINUTE)
    assert sealed(connection, BTC) == []
    assert seal(other, BTC, MIDNIGHT + 2 * MINUTE)
    assert not db.seal(connection, [BTC], None, MIDNIGHT + MINUTE)
    assert sealed(connection, BTC) == due(connection, BTC)


def test_a_fence_that_was_left_behind_does_no_harm(connection: db.Connection) -> None:
    """As by a sealing that was killed: trades before it are stored, and the next sealing has its own."""
    db.insert_trades(connection, [trade(1, MIDNIGHT, "1")])
    ask(connection, "UPDATE symbols SET fence = '2025-03-02 00:00:00.5'")

    db.insert_trades(connection, [trade(2, MIDNIGHT, "2")])
    assert ask(connection, "SELECT fence FROM symbols WHERE fence = '1970-01-01'")
    assert seal(connection, BTC, MIDNIGHT + MINUTE)
    assert sealed(connection, BTC) == due(connection, BTC)


def test_sealing_with_the_lock(connection: db.Connection) -> None:
    """For a symbol whose late trades never end; it too sees what others have sealed."""
    db.insert_trades(connection, [trade(1, MIDNIGHT, "1"), trade(2, MIDNIGHT + MINUTE, "2")])

    assert db.seal_locked(connection, BTC, None, MIDNIGHT + timedelta(seconds=70))
    assert sealed(connection, BTC) == due(connection, BTC)
    assert db.seal_locked(connection, BTC, MIDNIGHT + timedelta(seconds=70), MIDNIGHT + DAY)
    assert not db.seal_locked(connection, BTC, None, MIDNIGHT + DAY)
    assert sealed(connection, BTC) == due(connection, BTC)


def test_bars_of_version_1_are_made_again(connection: db.Connection) -> None:
    """They have no volumes and 0 trades; nothing reads them before they are sealed, and then they are as all others."""
    db.insert_trades(connection, [trade(1, MIDNIGHT, "5")])
    for resolution, begin in ((60, "00:00"), (60, "00:07"), (3_600, "00:00"), (86_400, "00:00")):
        ask(
            connection,
            f"INSERT INTO candles VALUES ('BTCUSDT', {resolution}, '2025-03-01 {begin}',"
            " 7, 7, 7, 7, 0, 0, 0, 0, 0, 1, 1)",
        )
    assert [bar.high for bar in db.candles(connection, BTC, 60, MIDNIGHT, MIDNIGHT + DAY)] == [5]

    assert seal(connection, BTC, MIDNIGHT + DAY)
    assert sealed(connection, BTC) == due(connection, BTC)


# ---- Made again by hand.


def test_resealed_candles_are_those_of_the_trades(connection: db.Connection) -> None:
    """Deleted, altered and surplus candles become those of the trades again, for one symbol only; what was loaded
    without this program is sealed too."""
    rows = [
        trade(number, MIDNIGHT + timedelta(minutes=37 * number), str(number % 7 + 1), name)
        for name in (BTC, "ETHUSDT")
        for number in range(1, 120)
    ]
    db.insert_trades(connection, rows)
    for name in (BTC, "ETHUSDT"):
        assert seal(connection, name, MIDNIGHT + timedelta(minutes=37 * 118, seconds=20))
    right, other = sealed(connection, BTC), sealed(connection, "ETHUSDT")
    ask(connection, "DELETE FROM candles WHERE resolution = 3600 AND symbol = 'BTCUSDT'")
    ask(connection, "UPDATE candles SET high = 1, volume = 0, first_trade_id = 1 WHERE symbol = 'BTCUSDT'")
    ask(connection, "UPDATE candles SET timestamp = timestamp - INTERVAL 30 DAY WHERE symbol = 'BTCUSDT' LIMIT 1")

    sealing.reseal(connection, BTC)

    assert sealed(connection, BTC) == due(connection, BTC)
    assert len(sealed(connection, BTC)) >= len(right)
    assert sealed(connection, "ETHUSDT") == other
    ask(connection, "DELETE FROM trades WHERE symbol = 'ETHUSDT'")
    sealing.reseal(connection, "ETHUSDT")
    assert sealed(connection, "ETHUSDT") == []
    ask(connection, "INSERT INTO trades SELECT 'LOADED', timestamp, trade_id, 1, 1, 0, NULL FROM trades")
    sealing.reseal(connection, "LOADED")
    assert sealed(connection, "LOADED") == due(connection, "LOADED")
    assert len(sealed(connection, "LOADED")) > 100


def test_a_part_is_resealed(connection: db.Connection) -> None:
    """The days that a range reaches into, and no other."""
    db.insert_trades(connection, [trade(number, MIDNIGHT + number * HOUR, "1") for number in range(1, 100)])
    assert seal(connection, BTC, MIDNIGHT + 90 * HOUR)
    ask(connection, "UPDATE candles SET high = 7")

    sealing.reseal(connection, BTC, MIDNIGHT + 30 * HOUR, MIDNIGHT + 31 * HOUR)

    wrong = {bar.timestamp.day for bar in sealed(connection, BTC) if bar.high == 7}
    assert wrong == {1, 3, 4}


def test_resealing_beside_a_capture_loses_nothing(connection: db.Connection, settings: config.Settings) -> None:
    """While the candles are made anew, trades go on to be stored; in the end the candles are those of all trades."""
    writer, stop = db.connect(settings), threading.Event()
    stored = 0

    def capture() -> None:
        nonlocal stored
        while not stop.is_set() or stored < 50:
            stored += db.insert_trades(
                writer, [trade(stored + 1, MIDNIGHT + timedelta(seconds=7 * stored), str(stored + 1))]
            )

    thread = threading.Thread(target=capture)
    thread.start()
    try:
        for _ in range(10):
            sealing.reseal(connection, BTC)
    finally:
        stop.set()
        thread.join()

    assert stored >= 50
    assert sealed(connection, BTC) == due(connection, BTC)
    assert sealed(connection, BTC)


def test_resealing_stops_a_sealing_that_has_read_what_is_wrong(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour is sealed from minutes that are made again meanwhile, because a trade was changed by hand: it is not
    kept."""
    other = db.connect(settings)
    # The second keeps the range that is made again away from the rows that the sealing has locked.
    times = [MIDNIGHT, MIDNIGHT + 20 * MINUTE, MIDNIGHT + HOUR]
    db.insert_trades(connection, [trade(number, when, "1") for number, when in enumerate(times, 1)])
    assert seal(connection, BTC, MIDNIGHT + 30 * MINUTE)
    ask(connection, "UPDATE trades SET price = 7 WHERE trade_id = 1")
    between(monkeypatch, lambda: sealing._remake(other, BTC, (candles.MINUTE,), (MIDNIGHT, MIDNIGHT + 10 * MINUTE)))

    assert not seal(connection, BTC, MIDNIGHT + HOUR)
    assert seal(connection, BTC, MIDNIGHT + HOUR)
    assert sealed(connection, BTC) == due(connection, BTC)
    assert [bar.high for bar in sealed(connection, BTC)] == [7, 1, 7]


def test_resealing_beside_who_seals(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A capture stores and seals the same symbol all the time: the command gets through, and the bars are right."""
    monkeypatch.setattr("process.retry.BACKOFF_S_MIN", 0.01)
    db.insert_trades(connection, [trade(number, MIDNIGHT + timedelta(seconds=number)) for number in range(1, 600)])
    stop, failed = threading.Event(), list[BaseException]()

    def capture() -> None:
        opened, number = db.connect(settings), 600
        while not stop.is_set():
            try:
                db.insert_trades(opened, [trade(number, MIDNIGHT + timedelta(seconds=number))])
                seal(opened, BTC, MIDNIGHT + timedelta(seconds=number - 1))
                number += 1
            except db.ContentionError:
                continue
            except BaseException as error:
                failed.append(error)
                raise
        db.close(opened)

    thread = threading.Thread(target=capture)
    thread.start()
    try:
        for _ in range(5):
            sealing.reseal(connection, BTC)
    finally:
        stop.set()
        thread.join()
    assert failed == []
    assert sealed(connection, BTC) == due(connection, BTC)


# ---- What is answered with them.

RESOLUTIONS = (1, 60, 300, 900, 3_600, 14_400, 86_400)
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
    st.lists(SECONDS.filter(bool), max_size=3, unique=True),
)
def test_a_range_by_candles_is_the_range_by_trades(
    connection: db.Connection, made: list[tuple[int, int, bool]], asked: list[tuple[int, int]], seals: list[int]
) -> None:
    """Any range over days, on and off the boundaries of bars, with gaps, sealed up to anywhere: the answers are those
    of its trades."""
    symbol = next(_fresh)
    rows = [
        bought(number, MIDNIGHT + timedelta(seconds=second), str(price), f"1.0{price}", number % 2 == 0)._replace(
            symbol=symbol
        )
        for number, (second, price, kept) in enumerate(sorted(made), 1)
        if kept or number == 1
    ]
    db.insert_trades(connection, rows)
    for second in sorted(seals):
        assert seal(connection, symbol, MIDNIGHT + timedelta(seconds=second))
    for bounds in asked:
        start, end = (MIDNIGHT + timedelta(milliseconds=bound) for bound in bounds)
        inside = [row for row in rows if start <= row.timestamp < end]
        answer = db.min_max(connection, symbol, start, end)

        assert answer == db.min_max_by_scan(connection, symbol, start, end)
        assert (answer is None) == (not inside)
        if answer:
            low, high = min(inside, key=lambda row: row.price), max(inside, key=lambda row: row.price)
            assert answer == db.MinMax(symbol, start, end, len(inside), inside[0], inside[-1], low, high)
        found = ranges.totals(connection, symbol, start, end)
        sums = [sum((row.quantity for row in part), Decimal()) for part in (inside, [r for r in inside if r[5] == 0])]
        quotes = [sum(row.price * row.quantity for row in part) for part in (inside, [r for r in inside if r[5] == 0])]
        assert found[:5] == (len(inside), sums[0], quotes[0], sums[1], quotes[1])
        for resolution in RESOLUTIONS:
            assert db.candles(connection, symbol, resolution, start, end) == [
                bar for bar in plain_bars(rows, resolution) if start <= bar.timestamp < end
            ]


def test_a_range_of_another_zone_is_the_same_range(connection: db.Connection) -> None:
    """The days of a bound's own zone are not those of the candles, and must not become them."""
    db.insert_trades(connection, [trade(hour, MIDNIGHT + hour * HOUR, str(hour % 24 + 1)) for hour in range(1, 100)])
    assert seal(connection, BTC, MIDNIGHT + 80 * HOUR)
    start, end = MIDNIGHT + 6 * HOUR, MIDNIGHT + 90 * HOUR
    days = db.candles(connection, BTC, candles.DAY, start, end)
    assert [bar.timestamp.day for bar in days] == [2, 3, 4]

    for zone in (timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-8))):
        answer = db.min_max(connection, BTC, start.astimezone(zone), end.astimezone(zone))

        assert answer == db.min_max(connection, BTC, start, end)
        assert answer == db.min_max_by_scan(connection, BTC, start, end)
        assert db.candles(connection, BTC, candles.DAY, start.astimezone(zone), end.astimezone(zone)) == days
        assert ranges.totals(connection, BTC, start.astimezone(zone), end).trades == 84


def test_candles_are_read_by_their_begin(connection: db.Connection) -> None:
    """Those that begin in the half-open range, oldest first, with how many trades each has; none for an empty bar."""
    db.insert_trades(connection, [trade(n, MIDNIGHT + at * MINUTE, "1") for n, at in enumerate([0, 1, 1, 3], 1)])
    end = MIDNIGHT + 3 * MINUTE

    for until in (None, MIDNIGHT + MINUTE, MIDNIGHT + 10 * MINUTE):
        assert until is None or seal(connection, BTC, until)
        found = db.candles(connection, BTC, candles.MINUTE, MIDNIGHT, end)
        later = db.candles(connection, BTC, candles.MINUTE, MIDNIGHT + timedelta(microseconds=1), end + MINUTE)

        assert [(bar.timestamp.minute, bar.trades) for bar in found] == [(0, 1), (1, 2)]
        assert [bar.timestamp.minute for bar in later] == [1, 3]
        assert [bar.trades for bar in db.candles(connection, BTC, candles.HOUR, MIDNIGHT, end)] == [4]
        assert db.candles(connection, "ETHUSDT", candles.HOUR, MIDNIGHT, end) == []


def test_a_bar_says_how_many_ids_are_missing_in_it(connection: db.Connection) -> None:
    """A gap counts in every bar that it reaches into, since nobody knows where its trades belong; one between two
    trades of a bar in that one only."""
    minutes = {1: 0.0, 2: 0.5, 5: 0.9, 9: 3.0, 10: 3.5, 11: 4.0, 13: 4.0}
    db.insert_trades(connection, [trade(number, MIDNIGHT + at * MINUTE) for number, at in minutes.items()])
    db.insert_trades(connection, [trade(1, MIDNIGHT, symbol="ETHUSDT"), trade(9, MIDNIGHT + HOUR, symbol="ETHUSDT")])

    found = questions.candles(connection, BTC, 60, MIDNIGHT, MIDNIGHT + DAY)
    assert [(bar.timestamp.minute, number) for bar, number in zip(found.candles, found.missing, strict=True)] == [
        (0, 2 + 3),
        (3, 3),
        (4, 1),
    ]
    last = questions.last_candles(connection, BTC, 300, LATEST, 5)
    assert last is not None
    assert last.missing == [6]
    assert questions.volume(connection, BTC, MIDNIGHT, MIDNIGHT + MINUTE).missing == 5
    assert questions.volume(connection, BTC, MIDNIGHT + 4 * MINUTE, MIDNIGHT + DAY).missing == 1
    assert questions.volume(connection, BTC, MIDNIGHT + HOUR, MIDNIGHT + DAY).missing == 0
    db.insert_trades(connection, [trade(number, MIDNIGHT + MINUTE) for number in (6, 7, 8)])
    assert questions.candles(connection, BTC, 60, MIDNIGHT, MIDNIGHT + MINUTE).missing == [2]


def test_what_is_missing_is_of_the_moment_of_the_bars(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap that is filled after the bars were read: they are without its trades, and the answer says that."""
    db.insert_trades(connection, [trade(1, MIDNIGHT), trade(3, MIDNIGHT)])
    reader, read = db.connect(settings, read_only=True), ranges.candles

    def and_then_it_is_filled(*arguments: Any) -> Any:
        found = read(*arguments)
        db.insert_trades(connection, [trade(2, MIDNIGHT)])
        return found

    monkeypatch.setattr(ranges, "candles", and_then_it_is_filled)
    answer = questions.candles(reader, BTC, 60, MIDNIGHT, MIDNIGHT + MINUTE)
    assert [bar.trades for bar in answer.candles] == [2]
    assert answer.missing == [1]
    monkeypatch.undo()
    assert questions.candles(reader, BTC, 60, MIDNIGHT, MIDNIGHT + MINUTE).missing == [0]


@pytest.mark.parametrize(
    ("amounts", "average"),
    [
        ([("100", "1"), ("200", "3")], "175.00000000"),
        ([("1", "1"), ("1.00000001", "2")], "1.00000001"),
        # Exactly half: to the even neighbour, down and up.
        ([("1", "1"), ("1.00000001", "1")], "1.00000000"),
        ([("1.00000001", "1"), ("1.00000002", "1")], "1.00000002"),
        ([("999999999999.99999999", "999999999999.99999999")] * 2, "999999999999.99999999"),
        ([("0.00000001", "0.00000001"), ("999999999999.99999999", "0.00000001")], "500000000000.00000000"),
    ],
)
def test_the_average_price_is_rounded_once(
    connection: db.Connection, amounts: list[tuple[str, str]], average: str
) -> None:
    """Exact sums, one division, half to even; and from sealed bars it is the same."""
    rows = [bought(number, MIDNIGHT + number * MINUTE, *pair) for number, pair in enumerate(amounts)]
    db.insert_trades(connection, rows)

    for until in (None, MIDNIGHT + DAY):
        assert until is None or seal(connection, BTC, until)
        found = questions.volume(connection, BTC, MIDNIGHT, MIDNIGHT + DAY)
        assert str(found.vwap) == average
        assert found.count == len(amounts)
    assert questions.volume(connection, BTC, MIDNIGHT - DAY, MIDNIGHT).vwap is None


def test_a_range_that_still_grows_is_answered_as_it_was(
    connection: db.Connection, settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new extreme of the running day, stored and sealed between two statements of an answer, neither breaks nor mixes
    it."""
    db.insert_trades(connection, [trade(1, MIDNIGHT, "5"), trade(2, MIDNIGHT + timedelta(seconds=1), "6")])
    end = MIDNIGHT + DAY
    before = db.min_max(connection, BTC, MIDNIGHT, end)
    reader, extremes = db.connect(settings, read_only=True), db_ranges._extremes

    def and_then_it_trades(*arguments: Any) -> Any:
        found = extremes(*arguments)
        db.insert_trades(connection, [trade(3, MIDNIGHT + timedelta(seconds=2), "1"), trade(4, MIDNIGHT, "9")])
        assert seal(connection, BTC, MIDNIGHT + DAY)
        return found

    monkeypatch.setattr(db_ranges, "_extremes", and_then_it_trades)
    assert db.min_max(reader, BTC, MIDNIGHT, end) == before
    monkeypatch.undo()

    after = db.min_max(reader, BTC, MIDNIGHT, end)
    assert after
    assert (after.low.trade_id, after.high.trade_id) == (3, 4)


def test_the_last_candles_of_any_resolution(connection: db.Connection) -> None:
    """However long nothing traded in between, and wherever the sealing is."""
    rows = [trade(number, MIDNIGHT + number**3 * MINUTE, str(number)) for number in range(1, 30)]
    db.insert_trades(connection, rows)
    for until in (None, MIDNIGHT + 20**3 * MINUTE, MIDNIGHT + 30**3 * MINUTE):
        assert until is None or seal(connection, BTC, until)
        for resolution in RESOLUTIONS:
            bars = plain_bars(rows, resolution)
            assert pages.last_candles(connection, BTC, resolution, LATEST, 7) == bars[-7:]
            assert pages.last_candles(connection, BTC, resolution, bars[-2].timestamp, 100) == bars[:-2][-100:]
            assert pages.last_candles(connection, BTC, resolution, bars[0].timestamp, 3) == []
