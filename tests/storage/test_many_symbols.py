"""What readers ask about all symbols at once: the answers are those about each, by a few statements."""

import itertools
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

import db
from model.trade import Trade
from storage import follow, pages, questions, retained, trades
from storage import gaps as stored_gaps
from tests.makers import MIDNIGHT, trade
from tests.support.many import with_time
from tests.support.servers import Server
from tests.support.tables import ask

SYMBOLS = 1_200
"""More than a recursion is deep by default, and than a list that MySQL's optimizer still makes ranges of."""
NAME = "test_many_symbols"
SECOND = timedelta(seconds=1)
STATEMENTS_MAX = trades.FEW_SYMBOLS + 2


def name_of(number: int) -> str:
    """Not in the order of the numbers, and not only ASCII."""
    return f"{'币S'[number % 2]}{number * 7919 % SYMBOLS:04d}USDT"


def stored_of(number: int) -> list[Trade]:
    """Three trades, the last two in one millisecond; of every fifth symbol one is missing before these, of every
    seventh one further back."""
    ids = [1, 3 if number % 7 == 0 else 2, 5]
    ids = [*ids, 6] if number % 5 == 0 else [*ids[:2], 3 + (number % 7 == 0), 4 + (number % 7 == 0)]
    times = [number, number + 1, number + 2, number + 2]
    return [
        trade(trade_id, MIDNIGHT + at * SECOND, f"{100 + trade_id}.5", name_of(number))
        for trade_id, at in zip(ids, times, strict=True)
    ]


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine would let the time of a question be up, and ask for the symbols one by one; and what is known of
    the files would be asked again, by a statement more."""
    monkeypatch.setattr(retained, "KNOWN_S_MAX", 3_600.0)
    for name in ("_SYMBOLS", "_TIMES", "_NEWEST"):
        monkeypatch.setattr(trades, name, with_time(getattr(trades, name), 60.0))


@pytest.fixture(scope="module")
def many(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[db.Connection]:
    """A database with SYMBOLS symbols; what counts their rows has looked at them."""
    opened = db.connect(server.settings(NAME, tmp_path_factory.mktemp("many")))
    rows = [one for number in range(SYMBOLS) for one in stored_of(number)]
    for start in range(0, len(rows), 2_000):
        db.insert_trades(opened, rows[start : start + 2_000])
    ask(opened, "ANALYZE TABLE trades, gaps, symbols")
    yield opened
    ask(opened, f"DROP DATABASE {NAME}")
    db.close(opened)


def counted(connection: db.Connection, question: Callable[[], Any]) -> tuple[Any, int, int]:
    """The answer, how many statements it took, and how many rows the server read for them."""
    ask(connection, "FLUSH STATUS")
    connection.asked = []
    answer = question()
    statements, connection.asked = connection.asked, None
    read = ask(connection, "SHOW SESSION STATUS LIKE 'Handler_read%'")
    return answer, len(statements), sum(int(value) for _, value in read)


NAMES = sorted(name_of(number) for number in range(SYMBOLS))


def test_the_symbols(many: db.Connection) -> None:
    """All of them in order, by a few statements that go from one to the next by the index."""
    found, statements, read = counted(many, lambda: db.symbols(many))

    assert found == NAMES
    assert statements <= STATEMENTS_MAX
    assert read <= 2 * SYMBOLS


def test_the_newest_trade_of_each(many: db.Connection) -> None:
    """Of several in its millisecond that with the highest id; as one by one; a part of them behind a symbol."""
    found, statements, read = counted(many, lambda: db.latest_of_all(many))

    assert found == [db.latest(many, name) for name in NAMES]
    assert statements <= STATEMENTS_MAX
    assert read <= 8 * SYMBOLS
    assert db.latest_of_all(many, NAMES[9], 3) == found[10:13]
    assert db.latest_of_all(many, NAMES[-3], 9) == found[-2:]
    assert db.latest_of_all(many, NAMES[-1]) == []


def test_a_server_that_reads_too_much_is_asked_one_by_one(many: db.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends the statement when its time is up, the connection lives, and the answers are the same."""
    expected = db.symbols(many), db.latest_of_all(many, "", 20), trades.time_spans(many)
    hint = with_time(trades._DIVE, 0.02)
    endless = f"{hint} a.symbol FROM trades AS a, trades AS b, trades AS c WHERE a.price + b.price + c.price < 0"
    monkeypatch.setattr(trades, "_SYMBOLS", endless)
    monkeypatch.setattr(trades, "_TIMES", endless)
    monkeypatch.setattr(trades, "_NEWEST", f"{endless} AND a.symbol > %s LIMIT %s")

    assert (db.symbols(many), db.latest_of_all(many, "", 20), trades.time_spans(many)) == expected
    now = MIDNIGHT + timedelta(days=1)
    assert [one.trade for one in questions.latest_prices(many, now, "", 20)] == expected[1]


def test_few_symbols_are_found_one_by_one(connection: db.Connection) -> None:
    """With a table whose rows the server has not counted yet."""
    for count in range(trades.FEW_SYMBOLS + 2):
        names = NAMES[:count]
        assert db.symbols(connection) == names
        assert [one.symbol for one in db.latest_of_all(connection)] == names
        assert list(trades.time_spans(connection)) == names
        db.insert_trades(connection, [trade(1, symbol=NAMES[count])])


def test_the_latest_prices_say_what_is_missing(many: db.Connection) -> None:
    """As for each symbol: the ids of an open gap that reaches up to the newest millisecond, and of no other."""
    now = MIDNIGHT + timedelta(days=1)
    found, statements, _ = counted(many, lambda: questions.latest_prices(many, now))

    assert found == [questions.latest_price(many, name, now) for name in NAMES]
    assert statements <= STATEMENTS_MAX + 1
    assert 0 < sum(one.missing for one in found) < sum(one.missing for one in db.open_gaps(many))


def test_a_filled_gap_is_not_missing_at_the_newest(connection: db.Connection) -> None:
    """Nor is one before it; only that whose end the newest trade is."""
    db.insert_trades(connection, [trade(n, MIDNIGHT + n * SECOND) for n in (1, 3, 5)])
    assert stored_gaps.missing_at_newest(connection) == {"BTCUSDT": 1}
    db.insert_trades(connection, [trade(4, MIDNIGHT + 4 * SECOND)])
    assert stored_gaps.missing_at_newest(connection) == {}


def test_what_there_is_to_seal(many: db.Connection) -> None:
    """Up to when each is sealed, and its newest trade, by one statement."""
    found, statements, read = counted(many, lambda: db.sealable(many))

    assert sorted(found) == NAMES
    assert {name: one.newest for name, one in found.items()} == {
        newest.symbol: (newest.trade_id, newest.timestamp) for newest in db.latest_of_all(many)
    }
    assert statements == 1
    assert read <= 10 * SYMBOLS
    assert db.sealable(many, NAMES[:2]) == {name: found[name] for name in NAMES[:2]}
    assert db.sealable(many, []) == {}
    assert db.sealable(many, ["NONE"]) == {}


def test_a_symbol_that_has_a_row_and_no_trade(connection: db.Connection) -> None:
    """There is nothing to seal of it, and no trade of it is the newest."""
    db.insert_trades(connection, [trade(1)])
    ask(connection, "INSERT INTO symbols (symbol, token) VALUES ('ETHUSDT', 1)")

    assert db.sealable(connection)["ETHUSDT"] == db.Sealable(None, None)
    assert [one.symbol for one in db.latest_of_all(connection)] == ["BTCUSDT"]


def test_prices_as_of_many_moments(many: db.Connection) -> None:
    """As of each; PARTS_MAX of them are one statement."""
    moments = [
        (name_of(number), MIDNIGHT + (number + shift) * SECOND + timedelta(microseconds=extra))
        for number, shift, extra in itertools.product(range(0, SYMBOLS, 30), (-1, 0, 1, 2, 9), (0, 999))
    ]
    found, statements, _ = counted(many, lambda: trades.prices_as_of(many, moments))

    assert found == {(name, when): db.price_as_of(many, name, when) for name, when in moments}
    assert statements == -(-len(moments) // trades.PARTS_MAX)


def test_what_is_newer_of_many(many: db.Connection) -> None:
    """Of each symbol behind its own place; those of which nothing is newer are left out."""
    places = {name_of(number): pages.place_of(stored_of(number)[1 if number < 10 else -1]) for number in range(SYMBOLS)}
    found, statements, _ = counted(many, lambda: pages.newer(many, places, 9))

    assert {name: sorted(rows) for name, rows in found.items()} == {
        name_of(number): stored_of(number)[2:] for number in range(10)
    }
    assert statements == SYMBOLS // trades.PARTS_MAX


def look(connection: db.Connection) -> follow.Look:
    """How the one symbol looks."""
    (found,) = follow.looks(connection).values()
    return found


def test_a_symbol_looks_different_once_something_was_stored(connection: db.Connection) -> None:
    """Behind the newest trade, in its millisecond, in a gap, and before the first; and only then."""

    def stored(trade_id: int, when: datetime) -> bool:
        before = look(connection)
        assert look(connection) == before
        db.insert_trades(connection, [trade(trade_id, when)])
        return look(connection) != before

    db.insert_trades(connection, [trade(10, MIDNIGHT + 10 * SECOND), trade(14, MIDNIGHT + 14 * SECOND)])
    assert stored(15, MIDNIGHT + 15 * SECOND)
    assert stored(16, MIDNIGHT + 15 * SECOND)
    assert stored(12, MIDNIGHT + 12 * SECOND)
    assert stored(9, MIDNIGHT + 9 * SECOND)
    assert not stored(9, MIDNIGHT + 9 * SECOND)


def test_looks_at_many(many: db.Connection) -> None:
    """One for each, by a number of statements that does not grow with them."""
    found, statements, _ = counted(many, lambda: follow.looks(many))

    assert list(found) == NAMES
    assert statements <= 2 * STATEMENTS_MAX + 1
