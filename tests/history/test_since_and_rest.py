"""All trades from a day on: which days are asked for, what is known without klines, and what REST mends."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

import db
from backfill import fill_all
from binance.archive import Archive
from binance.limits import Cooldown
from binance.rest import Rest
from capture.gap_filler import Filler
from capture.rejects import Rejects
from history.since import History, Outcome, Wanted
from model.times import midnight
from storage import sealing
from tests.support.audited import BTC, COIN, Audited, audited, days_ago
from tests.support.days import not_published, of_today
from tests.support.past import stored_trades, true_days
from tests.support.servers import Server
from tests.support.stand_in import StandIn
from tests.support.tables import ask, check, due, runs, sealed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_filling")]

DAYS, DAY_TRADES = 6, 60
LISTED = "ETHUSDT"
ALWAYS = {"seconds": 3_600.0}


@pytest.fixture(scope="module")
def market_of_days() -> Iterator[Callable[[], StandIn]]:
    """An exchange with six days of history, whose tape waits; one symbol was listed in the middle of a day."""
    flags = ("--days", str(DAYS), "--day-trades", str(DAY_TRADES), "--symbols", f"{BTC},{COIN},{LISTED}")
    more = ("--wait-clients", "1", "--weight-limit", "1000000", "--rest-lag", "0")
    with of_today(lambda: (*flags, *more, "--listed", f"{LISTED}={days_ago(2)}T13:00")) as running:
        yield running


@pytest.fixture
def exchange(market_of_days: Callable[[], StandIn]) -> Iterator[StandIn]:
    """That exchange without faults of other tests."""
    running = market_of_days()
    yield running
    running.clear()


@pytest.fixture
def case(any_server: Server, exchange: StandIn, tmp_path: Path) -> Iterator[Audited]:
    """A database that does not exist yet."""
    with audited(any_server, exchange, tmp_path) as made:
        yield made


@pytest.fixture
def connection(case: Audited, tmp_path: Path) -> Iterator[db.Connection]:
    """A connection to it that may send files."""
    (tmp_path / "history").mkdir()
    with closing(db.connect(case.settings, files_from=tmp_path / "history")) as opened:
        yield opened


@pytest.fixture
def history(connection: db.Connection, exchange: StandIn, tmp_path: Path) -> Iterator[History]:
    """What is under test; nothing of a file is left when it has done its work."""
    folder = tmp_path / "history"
    archive = Archive(exchange.http, folder, lambda _: None)
    rest = Rest(exchange.http, Cooldown(), lambda _: None)
    yield History(connection, archive, rest, folder)
    archive.close()
    rest.close()
    assert list(folder.iterdir()) == []


@pytest.fixture
def rejects(tmp_path: Path) -> Iterator[Rejects]:
    """Where what is refused goes."""
    made = Rejects(tmp_path)
    made.start()
    yield made
    made.close()


def wanted(first: int, last: int = 0, *symbols: str) -> Wanted:
    """So many days ago, to so many."""
    return Wanted(symbols or (BTC,), days_ago(first), days_ago(last))


def load(history: History, what: Wanted) -> list[Outcome]:
    """What became of each day."""
    return list(history.days(what, lambda _: None))


def whole(symbol: str, *days: int, new: int = DAY_TRADES) -> list[Outcome]:
    """Days that came from the archive."""
    return [Outcome(symbol, days_ago(day), DAY_TRADES, new, None) for day in days]


def fill(connection: db.Connection, exchange: StandIn, rejects: Rejects, symbol: str = BTC) -> None:
    """Fills the gaps by REST as backfill.py does."""
    with closing(Rest(exchange.http, Cooldown(), lambda _: None)) as rest:
        fill_all(connection, Filler(rest, rejects), symbol)
    db.seal_history(connection, symbol)


def assert_exact(connection: db.Connection, exchange: StandIn, days: Sequence[int], symbol: str = BTC) -> None:
    """The table is all trades of these days and no others, nothing is missing, and the bars are theirs."""
    assert stored_trades(connection, symbol) == true_days(exchange, symbol, *map(days_ago, days))
    assert runs(connection, symbol) == []
    assert sealed(connection, symbol) == due(connection, symbol)


# ---- Which days.


def test_days_newest_first(history: History, connection: db.Connection, exchange: StandIn) -> None:
    """One symbol after the other; afterwards each day is there as it was traded, and its file is remembered."""
    progress: list[int] = []
    what = wanted(3, 0, BTC, COIN)
    found = list(history.days(what, progress.append))
    assert found == whole(BTC, 1, 2, 3) + whole(COIN, 1, 2, 3)
    assert sum(progress) == history.count(what._replace(until=days_ago(1))) == 6 * DAY_TRADES
    for symbol in (BTC, COIN):
        assert_exact(connection, exchange, [3, 2, 1], symbol)
    files = ask(connection, "SELECT symbol, day FROM archive_files ORDER BY symbol, day")
    assert files == [(symbol, days_ago(day)) for symbol in (BTC, COIN) for day in (3, 2, 1)]


def test_what_is_stored_is_not_loaded_again(history: History, connection: db.Connection, exchange: StandIn) -> None:
    """A day that is whole is not even asked for; of one that is there in part the rest is loaded."""
    assert load(history, wanted(2, 2)) == whole(BTC, 2)
    last = true_days(exchange, BTC, days_ago(1))[-20:]
    db.insert_trades(connection, last)
    exchange.fault("archive_status", path=str(days_ago(2)), **ALWAYS)
    assert load(history, wanted(3)) == [
        *whole(BTC, 1, new=DAY_TRADES - 20),
        *whole(BTC, 2, new=0),
        *whole(BTC, 3),
    ]
    assert_exact(connection, exchange, [3, 2, 1])


def test_a_day_that_was_published_again(history: History, connection: db.Connection, exchange: StandIn) -> None:
    """What is stored stays; where an id of the day is missing the other file is asked for and remembered too."""
    load(history, wanted(1, 1))
    gone = stored_trades(connection, BTC)[10]
    ask(connection, "DELETE FROM trades WHERE trade_id = %s", gone.trade_id)
    ask(
        connection,
        "INSERT INTO gaps VALUES (%s, %s, %s, 'missing in the stream', %s, NULL, %s, %s)",
        *(BTC, gone.trade_id, gone.trade_id, *[gone.timestamp.replace(tzinfo=None)] * 3),
    )
    # On some days the trade is the first, the last or an extreme of its bars.
    sealing.reseal(connection, BTC)
    exchange.fault("archive_changed", path=str(days_ago(1)))
    assert load(history, wanted(1, 1)) == whole(BTC, 1, new=1)
    assert_exact(connection, exchange, [1])
    assert ask(connection, "SELECT COUNT(DISTINCT sha256) FROM archive_files WHERE day = %s", days_ago(1)) == [(2,)]


def test_the_file_of_a_day_that_is_not_over(history: History, exchange: StandIn, connection: db.Connection) -> None:
    """Is not asked for, though it is there."""
    exchange.fault("archive_early")
    assert load(history, wanted(1)) == whole(BTC, 1)
    assert_exact(connection, exchange, [1])


# ---- REST, and what nobody serves.


def test_klines_are_away(
    history: History, connection: db.Connection, exchange: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """Then how many trades a day has is not known, which is said; each day is asked for and loaded all the same."""
    exchange.fault("rest_status", status=503, path="klines", **ALWAYS)
    found = load(history, wanted(5, 1, LISTED))
    assert [(one.day, one.why is None) for one in found] == [(days_ago(n), n <= 2) for n in range(1, 6)]
    assert "how many trades a day has is not known: " in caplog.text
    assert_exact(connection, exchange, [2, 1], LISTED)


def test_ids_that_nobody_serves(
    history: History, connection: db.Connection, exchange: StandIn, rejects: Rejects, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that REST does not have, of a day that is not published: exactly it stays a gap; once the file is there it
    is healed, and only its day is asked for."""
    caplog.set_level(logging.WARNING)
    run = tuple(trade.trade_id for trade in true_days(exchange, BTC, days_ago(1))[20:31:10])
    not_published(exchange, days_ago(1))
    exchange.fault("rest_hole", symbol=BTC, first=run[0], last=run[1])
    load(history, wanted(2))
    history.join(wanted(2))
    fill(connection, exchange, rejects)
    assert runs(connection) == [run]
    check(connection)
    (failed,) = history.heal(db.open_gaps(connection), lambda _: None)
    assert "not published yet" in str(failed.why)
    assert runs(connection) == [run]
    exchange.clear()
    exchange.fault("rest_hole", symbol=BTC, first=run[0], last=run[1])
    assert list(history.heal(db.open_gaps(connection), lambda _: None)) == whole(BTC, 1, new=11)
    assert_exact(connection, exchange, [2, 1, 0])


def test_gaps_are_healed_newest_day_first(history: History, connection: db.Connection, exchange: StandIn) -> None:
    """Of each symbol the days that a gap reaches into; not today, which has no file yet."""
    for symbol in (BTC, COIN):
        ends = true_days(exchange, symbol, days_ago(3))[-5:], true_days(exchange, symbol, days_ago(1))[:5]
        db.insert_trades(connection, [*ends[0], *ends[1]])
    last = true_days(exchange, BTC, days_ago(1))[-1]
    # The exchange may have none of today yet.
    db.insert_trades(connection, [last._replace(trade_id=last.trade_id + 9, timestamp=midnight(days_ago(0)))])
    found = history.heal(db.open_gaps(connection), lambda _: None)
    loaded = [(one.day, one.symbol, one.new) for one in found]
    assert [day for day, *_ in loaded] == [days_ago(day) for day in (1, 1, 2, 2, 3, 3)]
    new = {1: DAY_TRADES - 5, 2: DAY_TRADES, 3: DAY_TRADES - 5}
    assert set(loaded) == {(days_ago(day), symbol, new[day]) for day in new for symbol in (BTC, COIN)}
    check(connection, COIN)
    assert runs(connection, COIN) == []


@pytest.mark.parametrize("missing", [3, 4, 5])
def test_a_time_that_is_over(
    history: History, connection: db.Connection, exchange: StandIn, rejects: Rejects, missing: int
) -> None:
    """Whichever of its days the archive does not have, REST fills it: also at either end, where nothing is stored
    beside it."""
    not_published(exchange, days_ago(missing))
    what = wanted(5, 3)
    assert [one.day for one in load(history, what) if one.why] == [days_ago(missing)]
    history.join(what)
    fill(connection, exchange, rejects)
    known = {trade.trade_id for trade in stored_trades(connection, BTC)}
    assert known >= {trade.trade_id for trade in true_days(exchange, BTC, *map(days_ago, (5, 4, 3)))}
    check(connection)
    assert runs(connection) == []
