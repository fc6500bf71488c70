"""All trades from a day on: from the archive, whatever is wrong with it, and as a gap what it does not have."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pytest

import backfill
import config
import db
from binance import archive as binance_archive
from binance.archive import Archive
from binance.limits import Cooldown
from binance.rest import Rest
from capture.gap_filler import Filler
from capture.rejects import Rejects
from history import since
from history.since import History, Outcome, Wanted
from tests.makers import BTC
from tests.support.days import (
    DAY_TRADES,
    FLAGS,
    assert_sound,
    assert_whole,
    daily,
    day_before,
    last_month,
    monthly,
    not_published,
    of_today,
    rows_of,
    true_rows,
)
from tests.support.history import LONG_S
from tests.support.servers import Server
from tests.support.stand_in import StandIn
from tests.support.tables import ask, check, runs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_filling")]


@pytest.fixture(scope="session")
def server(any_server: Server) -> Server:
    """What the two families do differently is tested in tests/storage/test_loading.py."""
    return any_server


@pytest.fixture(scope="module")
def past() -> Iterator[Callable[[], StandIn]]:
    """An exchange with days of history."""
    with of_today(lambda: FLAGS) as exchange:
        yield exchange


@pytest.fixture
def market(past: Callable[[], StandIn]) -> Iterator[StandIn]:
    """It, without faults of other tests."""
    running = past()
    running.clear()
    yield running
    running.clear()


class Work(NamedTuple):
    """What brings history in, and the connection by which it does."""

    history: History
    connection: db.Connection
    rest: Rest
    folder: Path

    def bring(self, since: date, until: date, symbols: tuple[str, ...] = (BTC,)) -> list[Outcome]:
        """What became of each day."""
        return list(self.history.days(Wanted(symbols, since, until), lambda _: None))

    def fill(self) -> None:
        """Fills from REST what is missing."""
        rejects = Rejects(self.folder)
        rejects.start()
        backfill.fill_all(self.connection, Filler(self.rest, rejects), BTC)
        rejects.close()
        db.seal_history(self.connection, BTC)


def work_of(connection: db.Connection, exchange: StandIn, folder: Path) -> Work:
    """The parts joined, with waits that are none."""
    rest = Rest(exchange.http, Cooldown(), lambda _: None)
    archive = Archive(exchange.http, folder, lambda _: None)
    return Work(History(connection, archive, rest, folder), connection, rest, folder.parent)


@pytest.fixture
def work(settings: config.Settings, market: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    """History into an empty database; its folder must be empty in the end."""
    monkeypatch.setattr(since, "GRACE_S", 0.01)
    folder = tmp_path / "history"
    folder.mkdir()
    connection = db.connect(settings, files_from=folder)
    yield work_of(connection, market, folder)
    db.close(connection)
    assert list(folder.iterdir()) == []


def test_days_that_are_over(work: Work, market: StandIn) -> None:
    """Newest first, so that what is stored stays joined; today has no file; a second run loads nothing."""
    days = [day_before(number) for number in (1, 2, 3)]
    assert work.bring(days[-1], day_before(0)) == [Outcome(BTC, day, DAY_TRADES, DAY_TRADES, None) for day in days]
    assert_whole(work.connection, market, days)
    before = market.state()["archive_calls"]
    assert work.bring(days[-1], days[0]) == [Outcome(BTC, day, DAY_TRADES, 0, None) for day in days]
    assert market.state()["archive_calls"] == before
    assert (
        str(Outcome(BTC, days[0], 1_500, 7, None)) == f"BTCUSDT {days[0]}: 1,500 trades in the archive, 7 of them new"
    )


def test_a_day_in_between_that_is_missing_is_a_gap(work: Work, market: StandIn) -> None:
    """Its neighbours say which ids; then the file is there, and the gap is filled from the archive."""
    days = [day_before(number) for number in (3, 2, 1)]
    not_published(market, days[1])
    outcomes = {outcome.day: outcome.why for outcome in work.bring(days[0], days[2])}
    assert outcomes == {days[0]: None, days[1]: f"BTCUSDT-trades-{days[1]}.zip is not published yet", days[2]: None}
    ids = [row[0] for row in true_rows(market, [days[1]])]
    assert runs(work.connection) == [(ids[0], ids[-1])]
    assert_sound(work.connection, market, days)
    market.clear()
    healed = list(work.history.heal(db.open_gaps(work.connection), lambda _: None))
    assert [outcome for outcome in healed if outcome.new] == [Outcome(BTC, days[1], DAY_TRADES, DAY_TRADES, None)]
    assert_whole(work.connection, market, days)


def test_today_is_joined_by_rest(work: Work, market: StandIn) -> None:
    """The archive up to yesterday, a page of the newest trades, and what is between is a gap that REST fills."""
    wanted = Wanted((BTC,), day_before(1), day_before(0))
    work.bring(wanted.since, wanted.until)
    assert work.history.join(wanted)
    work.fill()
    newest = work.rest.fetch_newest_id(BTC)
    truth = true_rows(market, [day_before(1), day_before(0)])
    assert rows_of(work.connection) == [row for row in truth if row[0] <= newest]
    check(work.connection)


@pytest.mark.parametrize("number", [1, 3])
def test_a_day_without_a_file_comes_from_rest(work: Work, market: StandIn, number: int) -> None:
    """Into an empty database, with nothing stored behind it: both its ends are known, so all of it is."""
    day = day_before(number)
    market.fault("archive_missing", seconds=LONG_S)
    (outcome,) = work.bring(day, day)
    assert (outcome.new, outcome.why) == (0, f"BTCUSDT-trades-{day}.zip is not published yet")
    assert work.history.join(Wanted((BTC,), day, day))
    assert_sound(work.connection, market, [day])
    work.fill()
    assert_whole(work.connection, market, [day])


SPOILT = {
    "archive_missing": "is not published yet",
    "archive_no_checksum": "is there without its CHECKSUM",
    "archive_bad_checksum": "and its CHECKSUM says",
    "archive_status": "HTTP 503",
    "archive_truncated": "IncompleteRead",
    "archive_reset": "Connection",
    "archive_damaged": "cannot be unpacked",
    "archive_cut_short": f"has {DAY_TRADES - DAY_TRADES // 10} of the {DAY_TRADES} trades of the day",
    "archive_hole": "lacks the ids",
    "archive_doubled": "after id",
    "archive_unsorted": "",
    "archive_bad_row": "not a trade: b'",
    "archive_other_day": "have a trade of another day",
    "archive_two_members": "it should hold",
    "archive_wrong_member": "it should hold",
    "archive_bomb": "a line of more than",
}
UNREACHED = ("archive_status", "archive_truncated", "archive_reset")
"""Of these the archive is not asked for the monthly file."""


@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_file(work: Work, market: StandIn, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said what is wrong; nothing of it is stored; the monthly file serves, and without that REST."""
    monkeypatch.setattr(binance_archive, "FILE_S_MAX", 20.0)
    day = last_month()
    size = {"size": 1 << 24} if fault == "archive_bomb" else {}
    wish = {"seconds": LONG_S, **size, **({"status": 503} if fault == "archive_status" else {})}
    market.fault(fault, path=daily(day), **wish)
    (outcome,) = work.bring(day, day)
    if fault in UNREACHED:
        assert SPOILT[fault] in str(outcome)
    else:
        assert outcome == Outcome(BTC, day, DAY_TRADES, DAY_TRADES, None)
        assert_whole(work.connection, market, [day])
        ask(work.connection, "DELETE FROM trades")
        ask(work.connection, "DELETE FROM candles")
        ask(work.connection, "UPDATE symbols SET sealed_until = NULL, fence = '1970-01-01'")
        market.fault("archive_missing", path=monthly(), seconds=LONG_S)
        (outcome,) = work.bring(day, day)
        assert SPOILT[fault] in str(outcome)
    assert (outcome.new, rows_of(work.connection), runs(work.connection)) == (0, [], [])
    assert work.history.join(Wanted((BTC,), day, day))
    work.fill()
    assert_whole(work.connection, market, [day])


@pytest.mark.parametrize("fault", ["archive_header", "archive_ms"])
def test_a_file_that_only_looks_different(work: Work, market: StandIn, fault: str) -> None:
    """A header, or milliseconds: the same rows."""
    day = day_before(1)
    market.fault(fault, path=daily(day), seconds=LONG_S)
    assert work.bring(day, day) == [Outcome(BTC, day, DAY_TRADES, DAY_TRADES, None)]
    assert_whole(work.connection, market, [day])


def test_what_rest_does_not_serve_either_is_said(work: Work, market: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """The first trades of the day are nowhere to be had: that the day is not whole is not passed over in silence."""
    day = day_before(2)
    first = true_rows(market, [day])[0][0]
    market.fault("archive_missing", seconds=LONG_S)
    market.fault("rest_hole", symbol=BTC, first=first, last=first + 9, seconds=LONG_S)
    work.bring(day, day)
    assert not work.history.join(Wanted((BTC,), day, day))
    assert f"BTCUSDT: id {first} is neither in the archive nor served" in caplog.text


def test_rest_is_away(work: Work, market: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    """The days come from the archive all the same; how many trades they have is not known, which is said."""
    market.fault("rest_status", status=503, seconds=LONG_S)
    day = day_before(1)
    assert work.bring(day, day) == [Outcome(BTC, day, DAY_TRADES, DAY_TRADES, None)]
    assert "how many trades a day has is not known" in caplog.text
    market.clear()
    assert_whole(work.connection, market, [day])


def test_a_symbol_that_is_listed_in_the_middle_of_a_day(settings: config.Settings, tmp_path: Path) -> None:
    """Days from before are not asked for; that of the listing is as whole as it can be; nothing is missing."""
    with of_today(lambda: (*FLAGS, "--listed", f"BTCUSDT={day_before(2)}T13:00")) as started:
        exchange, listed = started(), day_before(2)
        connection = db.connect(settings, files_from=tmp_path)
        work = work_of(connection, exchange, tmp_path)
        wanted = Wanted((BTC,), day_before(5), day_before(1))
        assert [outcome.day for outcome in work.bring(wanted.since, wanted.until)] == [day_before(1), listed]
        assert work.history.join(wanted)
        assert_whole(connection, exchange, [listed, day_before(1)])
        early = Wanted((BTC,), day_before(5), day_before(4))
        assert work.bring(early.since, early.until) == []
        assert work.history.join(early)
        assert_whole(connection, exchange, [listed, day_before(1)])
        db.close(connection)
