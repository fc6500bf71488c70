"""What is true of gaps, spans and bars where days are in files: nothing else than if they were still in the table."""

from datetime import datetime
from pathlib import Path

import pytest

import db
from model.gaps import HISTORY, NOT_SERVED
from storage import gaps, retained, runs, sealing
from storage.loading import Lines
from storage.transaction import snapshot
from tests.makers import BTC, trade
from tests.support.retained import DAY, START, move, put, row_of, trades_of
from tests.support.tables import ask, sealed
from tests.support.tables import runs as open_runs


@pytest.fixture
def stored(connection: db.Connection) -> db.Connection:
    """Days 0 to 3, sealed, of which id 150 is missing and was given up."""
    found = [one for number in range(4) for one in trades_of(number)]
    db.insert_trades(connection, [one for one in found if one.trade_id != 150])
    db.give_up(connection, BTC, 150, 150, NOT_SERVED)
    db.seal_history(connection, BTC)
    return connection


@pytest.fixture(autouse=True)
def _asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests move days between two questions."""
    monkeypatch.setattr(retained, "KNOWN_S_MAX", -1.0)


def test_the_span_counts_what_is_in_files(stored: db.Connection) -> None:
    """Also where nothing is left in the table; what was restored is in the table."""
    span = gaps.read_span(stored, BTC)
    assert span is not None
    for number in range(4):
        move(stored, number)
        assert gaps.read_span(stored, BTC) == span
        until = db.sealable(stored, [BTC])[BTC].sealed_until
        assert gaps.proven_span(stored, BTC, span, until) == span
    ask(stored, "UPDATE retained SET state = 'restored'")
    assert gaps.read_span(stored, BTC) is None


def test_a_gap_of_a_day_in_a_file_stays_open(stored: db.Connection) -> None:
    """It was found there, and is told and counted as before; it is not taken for one of old rows that were deleted."""
    before = db.open_gaps(stored)
    for number in range(4):
        move(stored, number)
        assert db.forget_history(stored) == 0
        assert db.open_gaps(stored) == before
        assert gaps.count_open_gaps(stored) == {BTC: (1, 1)}
        assert gaps.last_open_gaps(stored, None, 5) == before
    assert [(gap.first_trade_id, gap.reason) for gap in before] == [(150, NOT_SERVED)]


def test_a_gap_before_all_that_is_stored_is_forgotten(stored: db.Connection) -> None:
    """Old rows that were deleted by hand, before the first day that is in a file or in the table."""
    move(stored, 2)
    ask(stored, "DELETE FROM trades WHERE timestamp < %s", str(START + 2 * DAY)[:19])
    assert db.open_gaps(stored) == []
    assert db.forget_history(stored) == 1


def test_a_capture_that_comes_back_after_months_sees_the_gap(stored: db.Connection) -> None:
    """Although all that it had stored is in files."""
    for number in range(4):
        move(stored, number)
    other = trade(1_000, START + 60 * DAY)
    assert db.insert_trades(stored, [other], resumed=[BTC]) == 1
    assert open_runs(stored) == [(150, 150), (401, 999)]
    (_, gap) = db.open_gaps(stored)
    assert (gap.timestamp_before, gap.timestamp_after) == (trades_of(3)[-1].timestamp, other.timestamp)


def test_history_before_a_file_joins_it(stored: db.Connection, tmp_path: Path) -> None:
    """What lies behind it is in the file, and no gap; what lies between is one."""
    for number in range(2):
        move(stored, number)
    ask(stored, "DELETE FROM retained WHERE day = %s", str(START.date()))
    ask(stored, "DELETE FROM gaps")
    lines = [f"{n},1.5,2,3,{_ms(trades_of(0)[n - 1].timestamp)},True,True\n" for n in range(41, 91)]
    db.load_history(stored, Lines(BTC, 41, 90, "".join(lines).encode()), tmp_path / "lines.csv")
    assert open_runs(stored) == [(91, 100)]
    assert db.open_gaps(stored)[0].reason == HISTORY
    assert runs.missing_runs(stored, BTC, 1, 400) == [(1, 40), (91, 100)]


def _ms(when: datetime) -> int:
    return int(when.timestamp() * 1000)


def test_resealing_leaves_the_bars_of_days_in_files(stored: db.Connection) -> None:
    """There are no trades to make them from; those of the other days are made again."""
    before = sealed(stored, BTC)
    move(stored, 0)
    move(stored, 2)
    ask(stored, "UPDATE candles SET volume = 7 WHERE timestamp >= %s", str(START + 3 * DAY)[:19])
    sealing.reseal(stored, BTC)
    assert sealed(stored, BTC) == before
    sealing.reseal(stored, BTC, START, START + 2 * DAY)
    assert sealed(stored, BTC) == before


def test_a_long_snapshot_does_not_make_old_knowledge_new(
    stored: db.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a snapshot shows of the days is as old as the snapshot, so a question after it asks again."""
    with snapshot(stored):
        assert not retained.has_files(stored)
        assert stored.retained is not None
        assert stored.retained[0] == stored.moment
    monkeypatch.setattr(retained, "KNOWN_S_MAX", 60.0)
    stored.retained = stored.moment - 61.0, {}
    move(stored, 0)
    assert retained.has_files(stored)


def test_gaps_are_found_quickly_beside_files(stored: db.Connection) -> None:
    """Of the subqueries of a gap each reads a row or two, however many days are in files and rows in the table."""
    for number in range(3):
        move(stored, number)
    for number in range(100, 400):
        put(stored, row_of(trades_of(number)[:1]))
    ask(stored, "ANALYZE TABLE retained, gaps, trades")
    for question in (db.open_gaps, db.forget_history, gaps.count_open_gaps):
        ask(stored, "FLUSH STATUS")
        question(stored)
        read = ask(stored, "SHOW SESSION STATUS LIKE 'Handler_read%'")
        assert sum(int(number) for _, number in read) < 30, read
