"""Who stores trades of a day that is in a file: repeats are passed over, and anything new is refused in words."""

from pathlib import Path

import pytest

import config
import db
from binance.archive import Archive
from binance.limits import Cooldown
from binance.rest import Page, Rest
from capture.gap_filler import Filler
from capture.rejects import Rejects
from history.since import History
from model.gaps import NOT_SERVED
from storage import loading, retained
from storage.loading import Lines
from tests.makers import BTC, trade
from tests.support.retained import DAY, START, day_of, move, put, row_of, trades_of
from tests.support.tables import ask, runs, sealed, stored_ids

RESTORE = f"python -m tools.restore --symbol {BTC} --day {day_of(1)}"


@pytest.fixture
def gone(connection: db.Connection, monkeypatch: pytest.MonkeyPatch) -> db.Connection:
    """Days 0 to 2 were stored and sealed without id 150, of which day 1 is in a file now."""
    monkeypatch.setattr(retained, "KNOWN_S_MAX", -1.0)
    found = [one for number in range(3) for one in trades_of(number)]
    db.insert_trades(connection, [one for one in found if one.trade_id != 150])
    db.give_up(connection, BTC, 150, 150, NOT_SERVED)
    db.seal_history(connection, BTC)
    move(connection, 1)
    return connection


def test_repeats_are_passed_over(gone: db.Connection) -> None:
    """Alone, and among others that are new; by this connection, and by one that has just come."""
    day, other = [one for one in trades_of(1) if one.trade_id != 150], trades_of(3)
    bars, ids = sealed(gone, BTC), stored_ids(gone)
    assert db.insert_trades(gone, day) == 0
    assert (stored_ids(gone), sealed(gone, BTC), runs(gone)) == (ids, bars, [(150, 150)])
    assert db.insert_trades(gone, [*day[:3], *other[:50], *trades_of(0), *trades_of(1, "ETHUSDT")]) == 150
    gone.spans.clear()
    assert db.insert_trades(gone, [*other, *day]) == 50
    assert stored_ids(gone) == [*ids, *range(301, 401)]
    assert runs(gone) == [(150, 150)]


@pytest.mark.parametrize("number", [150, 90])
def test_what_is_missing_in_a_file_is_refused_in_words(gone: db.Connection, number: int) -> None:
    """An id of an open gap, and one that the day never had; nothing of the batch is stored, and it is no bad trade."""
    late = trade(number, trades_of(1)[49].timestamp)
    refused: list[object] = []
    ids = stored_ids(gone)
    with pytest.raises(db.RetainedError, match=f"{BTC} {day_of(1)} is in a Parquet file.*trade {number}.*{RESTORE}"):
        db.insert_acceptable(gone, [trade(301, START + 3 * DAY), late], lambda *words: refused.append(words))
    assert refused == []
    assert stored_ids(gone) == ids
    assert runs(gone) == [(150, 150)]
    ask(gone, "UPDATE retained SET state = 'restored'")
    assert db.insert_trades(gone, [trades_of(1)[49]]) == 1


def test_a_day_that_is_being_restored_is_still_in_its_file(gone: db.Connection) -> None:
    """Nobody stores trades in it before it is."""
    for state in ("leaving", "returning"):
        ask(gone, "UPDATE retained SET state = %s", state)
        with pytest.raises(db.RetainedError):
            db.insert_trades(gone, [trades_of(1)[49]])


def _lines(first: int, last: int) -> Lines:
    found = [one for number in range(3) for one in trades_of(number) if first <= one.trade_id <= last]
    rows = [f"{one.trade_id},1.5,2,3,{int(one.timestamp.timestamp() * 1000)},True,True\n" for one in found]
    return Lines(BTC, first, last, "".join(rows).encode())


def test_history_is_not_loaded_into_such_a_day(gone: db.Connection, tmp_path: Path) -> None:
    """Nor into two days of which it is one; the others take it."""
    ids = stored_ids(gone)
    for first, last in ((150, 150), (90, 150), (150, 220)):
        with pytest.raises(db.RetainedError, match=RESTORE):
            db.load_history(gone, _lines(first, last), tmp_path / "lines.csv")
    assert db.load_history(gone, _lines(1, 100), tmp_path / "lines.csv") == 0
    assert stored_ids(gone) == ids


def test_a_day_that_leaves_while_history_is_loaded_refuses_it(
    gone: db.Connection, settings: config.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows were not there yet for who recorded the day, so they are taken back."""
    ask(gone, "DELETE FROM trades WHERE trade_id = 250")
    insert = loading._insert

    def leaving(connection: db.Connection, lines: Lines, file: Path) -> int:
        with db.connect(settings) as other:
            put(other, row_of(trades_of(2), "leaving"))
        return insert(connection, lines, file)

    monkeypatch.setattr(loading, "_insert", leaving)
    with pytest.raises(db.RetainedError):
        db.load_history(gone, _lines(250, 250), tmp_path / "lines.csv")
    assert 250 not in stored_ids(gone)


def test_the_back_fill_says_it_once_and_goes_on(
    gone: db.Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The gap of a day in a file stays, is asked for after growing waits, and does not end the thread."""
    rejects = Rejects(tmp_path)
    rejects.start()
    filler = Filler(Rest("http://127.0.0.1:9", Cooldown()), rejects, lambda: 0.0)
    page = Page([trades_of(1)[49]], [], 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filler, "_fetch", lambda *_: page)
        (gap,) = db.open_gaps(gone, BTC)
        assert filler.fill_pages(gone, gap) == 0
        assert not filler.is_due(gap)
        assert filler.fill_pages(gone, gap) == 0
    rejects.close()
    assert [RESTORE in record.message for record in caplog.records if record.levelname == "WARNING"] == [True]
    assert rejects.counted == 0
    assert runs(gone) == [(150, 150)]


def test_the_archive_is_not_asked_for_such_a_day(
    gone: db.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it has more trades than the file: one line says how it could be completed."""
    archive = Archive("http://127.0.0.1:9", tmp_path)
    history = History(gone, archive, Rest("http://127.0.0.1:9", Cooldown()), tmp_path)
    monkeypatch.setattr(history, "_count", lambda *_: 100)
    assert history.day(BTC, day_of(1), list[int]().append) == (BTC, day_of(1), 100, 0, None)
    monkeypatch.setattr(history, "_count", lambda *_: 101)
    outcome = history.day(BTC, day_of(1), list[int]().append)
    archive.close()
    assert (outcome.trades, outcome.new) == (100, 0)
    assert str(outcome).endswith(f"bring it back before, by `{RESTORE}`")
