"""Pages of trades: each trade once, in order, by the index; ids are found wherever they are, or would be."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

import db
from model import candles as bars
from model.trade import Trade
from storage import gaps as stored_gaps
from storage import pages as db_pages
from storage import sealing
from storage.gaps import OpenGaps
from storage.pages import EARLIEST, LATEST, Place
from tests.storage.test_ranges import plans
from tests.support.servers import Server
from tests.support.tables import ask

BEGIN = datetime(2025, 3, 1, 23, 58, tzinfo=UTC)
ALL = (EARLIEST, LATEST)
MS = timedelta(milliseconds=1)
MANY_ROWS = 100_000


def trade(trade_id: int, at_ms: int, symbol: str = "BTCUSDT") -> Trade:
    """A trade so many milliseconds after BEGIN."""
    received = BEGIN + timedelta(milliseconds=at_ms, microseconds=1_500)
    return Trade(symbol, BEGIN + timedelta(milliseconds=at_ms), trade_id, Decimal(trade_id), Decimal(1), True, received)


def pages(connection: db.Connection, symbol: str, start: datetime, end: datetime, size: int) -> Iterator[list[Trade]]:
    """The trades of [start, end), a page at a time, each asked for from the place that the one before it reached."""
    after: db_pages.Place | None = None
    while trades := db_pages.page(connection, symbol, after, (start, end), size):
        yield trades
        if len(trades) < size:
            return
        after = db_pages.place_of(trades[-1])


def crowd(count: int) -> list[Trade]:
    """Trades over a few minutes around midnight, up to nine of them in the same millisecond."""
    chance, at_ms, trades = random.Random(5), 0, []
    for trade_id in range(1, count + 1):
        at_ms += 0 if chance.random() < 0.7 else chance.randrange(4_000)
        trades.append(trade(trade_id, at_ms))
    return trades


@pytest.mark.parametrize("size", [1, 2, 7, 300, 1_000])
def test_pages_are_all_trades_once_and_in_order(connection: db.Connection, size: int) -> None:
    """Whatever the size of a page, also where it ends inside of a millisecond; another symbol's are not among them."""
    trades = crowd(300)
    db.insert_trades(connection, [*trades, *(trade(one, one, "ETHUSDT") for one in range(1, 50))])

    found = list(pages(connection, "BTCUSDT", EARLIEST, LATEST, size))

    assert [one for page in found for one in page] == trades
    assert {len(page) for page in found[:-1]} <= {size}
    assert all(len(page) > 0 for page in found)


def test_pages_of_a_range_are_half_open(connection: db.Connection) -> None:
    """The trade at the first moment is in, that at the last is not; microseconds of a bound are not rounded away."""
    db.insert_trades(connection, [trade(number, number * 10) for number in range(10)])

    def ids(start: datetime, end: datetime) -> list[int]:
        return [one.trade_id for page in pages(connection, "BTCUSDT", start, end, 3) for one in page]

    assert ids(BEGIN + 20 * MS, BEGIN + 80 * MS) == [2, 3, 4, 5, 6, 7]
    assert ids(BEGIN + 20 * MS + MS / 1000, BEGIN + 80 * MS + MS / 1000) == [3, 4, 5, 6, 7, 8]
    assert ids(BEGIN + 80 * MS, BEGIN + 20 * MS) == []
    assert ids(datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)) == list(range(10))


def test_a_page_begins_behind_its_place_or_at_the_start(connection: db.Connection) -> None:
    """A place before the range does not widen it; one behind it leaves nothing."""
    trades = [trade(number, number // 3) for number in range(1, 13)]
    db.insert_trades(connection, trades)
    inside = (BEGIN + 2 * MS, BEGIN + 4 * MS)

    def ids(after: Place | None) -> list[int]:
        return [one.trade_id for one in db_pages.page(connection, "BTCUSDT", after, inside, 100)]

    assert ids(None) == [6, 7, 8, 9, 10, 11]
    assert ids(db_pages.place_of(trades[0])) == [6, 7, 8, 9, 10, 11]
    assert ids(db_pages.place_of(trades[6])) == [8, 9, 10, 11]
    assert ids(db_pages.place_of(trades[11])) == []


def test_the_newest_trades_come_first(connection: db.Connection) -> None:
    """As many as there are, if more are asked for; none of a symbol that is not stored."""
    trades = crowd(30)
    db.insert_trades(connection, trades)

    assert db_pages.newest(connection, "BTCUSDT", 4) == trades[:-5:-1]
    assert db_pages.newest(connection, "BTCUSDT", 99) == trades[::-1]
    assert db_pages.newest(connection, "NONE", 99) == []


def test_what_is_newer_has_a_higher_id_even_if_it_is_a_little_earlier(connection: db.Connection) -> None:
    """A trade whose time is up to a second before that of its predecessor is found."""
    trades = [trade(1, 5_000), trade(2, 4_100), trade(3, 5_000), trade(4, 6_000)]
    db.insert_trades(connection, trades)

    def ids(place: Place, size: int = 9) -> list[int]:
        return [one.trade_id for one in db_pages.newer(connection, {"BTCUSDT": place}, size).get("BTCUSDT", [])]

    assert ids(db_pages.place_of(trades[0])) == [2, 3, 4]
    assert ids(db_pages.place_of(trades[0]), 2) == [2, 3]
    assert ids(db_pages.place_of(trades[3])) == []


def test_every_id_is_found(connection: db.Connection) -> None:
    """Over minutes, hours and days, where ids are missing, and below and above all of them."""
    trades = [one for one in crowd(400) if one.trade_id % 7 and not 100 < one.trade_id < 150]
    trades += [trade(number, number * 7_200_000) for number in range(401, 440)]
    db.insert_trades(connection, trades)
    places = {one.trade_id: db_pages.place_of(one) for one in trades}

    for number in range(0, 450):
        lower = max((stored for stored in places if stored <= number), default=None)
        assert db_pages.find(connection, "BTCUSDT", number) == (None if lower is None else places[lower])
    assert db_pages.find(connection, "BTCUSDT", 2**63 - 1) == db_pages.place_of(trades[-1])
    assert db_pages.find(connection, "NONE", 5) is None


def test_an_id_is_found_where_times_and_ids_cross_at_midnight(connection: db.Connection) -> None:
    """The later id lies before midnight, the earlier one behind it: each still has its own place."""
    trades = [trade(1, 119_000), trade(2, 120_010), trade(3, 119_990), trade(4, 121_000)]
    db.insert_trades(connection, trades)

    assert [db_pages.find(connection, "BTCUSDT", one.trade_id) for one in trades] == [*map(db_pages.place_of, trades)]


def test_trades_by_their_ids(connection: db.Connection) -> None:
    """A run of ids, of which some are missing, and which may begin before and end behind what is stored."""
    trades = [one for one in crowd(200) if not 50 < one.trade_id < 80 and one.trade_id > 5]
    db.insert_trades(connection, trades)

    def ids(first: int, last: int, size: int = 999) -> list[int]:
        return [one.trade_id for one in db_pages.with_ids(connection, "BTCUSDT", first, last, size)]

    assert ids(40, 90) == [*range(40, 51), *range(80, 91)]
    assert ids(40, 90, 3) == [40, 41, 42]
    assert ids(55, 75) == []
    assert ids(0, 8) == [6, 7, 8]
    assert ids(0, 3) == []
    assert ids(190, 999) == [*range(190, 201)]


def test_the_ends_of_what_is_stored(connection: db.Connection) -> None:
    """The times of the first and the last trade; None without one."""
    trades = crowd(50)
    db.insert_trades(connection, trades)

    assert db_pages.ends(connection, "BTCUSDT") == (trades[0].timestamp, trades[-1].timestamp)
    assert db_pages.ends(connection, "NONE") is None


def test_the_last_candles(connection: db.Connection) -> None:
    """So many that begin before the bound, oldest first, however long nothing traded between them."""
    db.insert_trades(connection, [trade(1, 0), trade(2, 60_000), trade(3, 86_400_000), trade(4, 86_460_000)])
    minutes = db.candles(connection, "BTCUSDT", bars.MINUTE, *ALL)

    assert len(minutes) == 4
    assert db_pages.last_candles(connection, "BTCUSDT", bars.MINUTE, LATEST, 3) == minutes[1:]
    assert db_pages.last_candles(connection, "BTCUSDT", bars.MINUTE, minutes[3].timestamp, 2) == minutes[1:3]
    assert db_pages.last_candles(connection, "BTCUSDT", bars.MINUTE, minutes[0].timestamp, 2) == []


def test_open_gaps_are_counted_and_the_last_listed(connection: db.Connection) -> None:
    """Per symbol; what was filled does not count."""
    db.insert_trades(connection, [trade(number, number) for number in (1, 3, 7, 9)])
    db.insert_trades(connection, [trade(number, number, "ETHUSDT") for number in (1, 3)])
    db.insert_trades(connection, [trade(2, 2, "ETHUSDT"), trade(8, 8)])

    def runs(symbol: str | None, size: int) -> list[tuple[int, int]]:
        found = stored_gaps.last_open_gaps(connection, symbol, size)
        return [(gap.first_trade_id, gap.last_trade_id) for gap in found]

    assert stored_gaps.count_open_gaps(connection) == {"BTCUSDT": OpenGaps(2, 4)}
    assert runs(None, 9) == runs("BTCUSDT", 9) == [(4, 6), (2, 2)]
    assert runs("BTCUSDT", 1) == [(4, 6)]
    assert runs("ETHUSDT", 9) == []


@pytest.fixture(scope="module")
def many(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[db.Connection]:
    """A hundred thousand trades of seven hours, made by the server."""
    name = "test_pages"
    opened = db.connect(server.settings(name, tmp_path_factory.mktemp("pages")), read_s_max=300)
    digits = "SELECT 0 AS d UNION ALL " + " UNION ALL ".join(f"SELECT {digit}" for digit in range(1, 10))
    ask(
        opened,
        "INSERT INTO trades SELECT 'BTCUSDT', TIMESTAMP('2025-03-01 20:00:00') + INTERVAL n * 250000 MICROSECOND,"
        " n + 1, 60000, 0.1, 0, NULL FROM (SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS n FROM "
        + ", ".join(f"({digits}) AS {alias}" for alias in "abcef")
        + ") AS numbers ORDER BY n",
    )
    sealing.seal_history(opened, "BTCUSDT")
    ask(opened, "ANALYZE TABLE trades, candles, gaps")
    yield opened
    ask(opened, f"DROP DATABASE {name}")
    db.close(opened)


def test_every_statement_goes_by_the_index(many: db.Connection) -> None:
    """EXPLAIN knows no full scan, and no sorting but that of a minute's ids; few rows are read for a page."""
    place = db_pages.find(many, "BTCUSDT", 70_000)
    assert place is not None
    ask(many, "FLUSH STATUS")
    many.asked = []
    db_pages.page(many, "BTCUSDT", place, ALL, 100)
    db_pages.page(many, "BTCUSDT", None, ALL, 100)
    db_pages.newest(many, "BTCUSDT", 20)
    db_pages.newer(many, {"BTCUSDT": Place(place.timestamp, MANY_ROWS - 2)}, 100)
    db_pages.find(many, "BTCUSDT", 60_000)
    db_pages.with_ids(many, "BTCUSDT", 60_000, 60_010, 100)
    db_pages.ends(many, "BTCUSDT")
    db_pages.last_candles(many, "BTCUSDT", bars.MINUTE, LATEST, 50)
    stored_gaps.count_open_gaps(many)
    stored_gaps.last_open_gaps(many, "BTCUSDT", 5)
    statements, many.asked = many.asked, None
    read = {name: int(value) for name, value in ask(many, "SHOW SESSION STATUS LIKE 'Handler_read%'")}

    seen = [plan for statement in statements for plan in plans(many, statement)]
    assert len(statements) >= 18
    assert [plan for plan in seen if plan["type"] == "ALL" and plan["table"] in ("trades", "candles", "gaps")] == []
    assert {plan["key"] for plan in seen if plan["table"] == "trades"} == {"PRIMARY"}
    # `newer` was asked from the middle on purpose: it reads to the end, which for the last seconds is nothing.
    assert sum(value for name, value in read.items() if "rnd_next" not in name.lower()) < 40_000


def test_ids_in_pages(connection: db.Connection) -> None:
    """By rising id, whatever the times and wherever the gaps are, also where a gap has several rows; what is not stored
    is passed over and counted."""
    chance = random.Random(8)
    gone = {*range(1, 30), *range(200, 420), *(number for number in range(30, 900) if chance.random() < 0.1)}
    rows = [one for one in crowd(900) if one.trade_id not in gone]
    # Times that run back, by less than those of one history do.
    rows = [one._replace(timestamp=one.timestamp - chance.choice([0, 0, 0, 300]) * MS) for one in rows]
    stored = {one.trade_id for one in rows}
    db.insert_trades(connection, rows)
    db.give_up(connection, "BTCUSDT", 250, 260, "not served by the exchange")
    for size in (7, 40, 1_000) * 4:
        first = chance.randrange(1, 1_000)
        last = chance.randrange(first, 1_100)
        found: list[Trade] = []
        missing, start = 0, first
        while True:
            page = db_pages.by_id(connection, "BTCUSDT", (start, last), size)
            found += page.trades
            missing += page.missing
            assert len(page.trades) <= size
            if page.next_id is None:
                break
            assert page.next_id > start
            assert page.next_id in stored
            start = page.next_id
        assert found == [one for one in rows if first <= one.trade_id <= last]
        assert missing == last - first + 1 - len(found)


def test_the_newest_up_to_a_place(connection: db.Connection) -> None:
    """By time and by id: of the trades of one millisecond none that comes later."""
    rows = crowd(300)
    db.insert_trades(connection, rows)
    for place in map(db_pages.place_of, rows[::37]):
        expected = [one for one in reversed(rows) if one.trade_id <= place.trade_id][:5]
        assert db_pages.newest_until(connection, "BTCUSDT", place, 5) == expected
