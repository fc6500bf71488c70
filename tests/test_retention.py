"""Days leave the table for Parquet files and come back: nothing is lost, doubled or changed, wherever it is killed."""

import hashlib
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

import db
from process.child import ROOT
from proof import leaving, record
from storage import retention, sealing
from storage.day_files import path_of
from storage.retained import Retained
from tests.makers import BTC
from tests.support.keeping import COIN, DAY_TRADES, Keeping, days_ago, keeping, trades_of
from tests.support.servers import Server
from tools import retain

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

OLD = [5, 4, 3]
"""The days that leave if two are kept."""


@pytest.fixture
def case(server: Server, tmp_path: Path) -> Iterator[Keeping]:
    """Five days and today, of which an id of four days ago is missing and was given up."""
    with keeping(server, tmp_path) as case:
        case.fill(without=[DAY_TRADES + 10])
        yield case


@pytest.fixture
def any_case(any_server: Server, tmp_path: Path) -> Iterator[Keeping]:
    """The same where the family does not matter."""
    with keeping(any_server, tmp_path) as case:
        case.fill(without=[DAY_TRADES + 10])
        yield case


def test_old_days_leave_and_nothing_else_changes(case: Keeping) -> None:
    """By UTC days, with a line each; candles, gaps, span and proofs stay, and a second run does nothing."""
    case.fill(COIN)
    before, coin = case.state(), case.state(COIN)
    done = case.retain()
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    names = [f"{name} {days_ago(day)}" for name in (BTC, COIN) for day in OLD]
    assert [line.split(":")[0] for line in lines[:6]] == names
    path = case.settings.retained_dir / path_of(BTC, days_ago(4))
    assert lines[1].startswith(f"{BTC} {days_ago(4)}: 39 trades, 0.0 MB: {path}")
    assert lines[6].startswith(f"database {case.name} on ")
    assert lines[6].endswith(f": 6 days left the table, 239 trades, 0.0 MB in {case.settings.retained_dir}")
    assert (case.state(), case.state(COIN)) == (before, coin)
    assert case.days() == case.days(COIN) == dict.fromkeys(OLD, "gone")
    assert case.in_table() == dict.fromkeys([2, 1, 0], DAY_TRADES)
    assert case.files() == sorted(path_of(name, days_ago(day)) for name in (BTC, COIN) for day in OLD)
    # Each has a proof, which was made where there was none.
    sql = "SELECT COUNT(*) FROM retained JOIN proofs USING (symbol, day, sha256, trades, first_trade_id, last_trade_id)"
    assert case.sql(sql) == [(6,)]
    assert case.sql("SELECT DISTINCT verdict FROM proofs ORDER BY 1") == [("contiguous",), ("gapped",)]
    again = case.retain()
    assert (again.code, again.out.count("\n")) == (0, 1)
    assert case.state() == before


def test_a_dry_run_changes_nothing(any_case: Keeping) -> None:
    """It says which days would leave."""
    before = any_case.state()
    done = any_case.retain("--keep", "4", "--dry-run")
    first, last = done.out.splitlines()
    assert first == f"{BTC} {days_ago(5)}: 40 trades would leave"
    assert last.endswith(f": 1 days, 40 trades would leave for {any_case.settings.retained_dir}")
    assert (any_case.state(), any_case.days(), any_case.settings.retained_dir.exists()) == (before, {}, False)


DEATHS = [
    "before 1 INSERT INTO proofs",
    "before 1 replace",
    "after 1 replace",
    "before 1 INSERT INTO retained",
    "after 1 INSERT INTO retained",
    "after 2 INSERT INTO retained",
    "before 1 DELETE FROM trades",
    "after 1 DELETE FROM trades",
    "before 3 DELETE FROM trades",
    "before 1 SET state",
    "after 1 SET state",
    "after 3 SET state",
]


@pytest.mark.timeout(300)
def test_killed_at_each_step(any_case: Keeping) -> None:
    """At every moment each trade is in exactly one place that counts; the next run goes on to the end."""
    before = any_case.state()
    for death in DEATHS:
        any_case.retain(die_at=death)
        assert any_case.state() == before, death
    assert any_case.retain().code == 0
    assert any_case.state() == before
    assert any_case.days() == dict.fromkeys(OLD, "gone")
    assert any_case.in_table() == dict.fromkeys([2, 1, 0], DAY_TRADES)
    assert any_case.files() == [path_of(BTC, days_ago(day)) for day in OLD]


def test_a_file_that_another_database_needs_is_left_alone(any_case: Keeping) -> None:
    """One of the same name, on another server, with the same DATA_DIR: its file may be all that it has of the day."""
    assert any_case.retain("--keep", "4").code == 0
    path = any_case.settings.retained_dir / path_of(BTC, days_ago(5))
    theirs = path.read_bytes()
    any_case.sql(f"DROP DATABASE {any_case.name}")
    any_case.fill(without=[3])
    # Once as it is, and once with a reason to stay that is found after the file was written.
    for words, spoil in (
        (f"{BTC} {days_ago(5)} stays: {path} is there already, and this database has not recorded it: if ", "SELECT 1"),
        (f"{BTC} {days_ago(5)} stays: 38 trades of it are stored, and ", "DELETE FROM trades WHERE trade_id = 1"),
    ):
        any_case.sql(spoil)
        done = any_case.retain("--keep", "4")
        assert (done.code, words in done.out) == (1, True)
        assert (path.read_bytes(), any_case.files()) == (theirs, [path_of(BTC, days_ago(5))])
        assert (any_case.days(), any_case.in_table()[5] >= 38) == ({}, True)
    any_case.sql(f"DROP DATABASE {any_case.name}")
    any_case.fill(without=[3])
    path.rename(any_case.folder / "moved away")
    assert any_case.retain("--keep", "4").code == 0
    assert (any_case.days(), 5 in any_case.in_table()) == ({5: "gone"}, False)


@pytest.mark.timeout(300)
def test_days_come_back_wherever_it_is_killed(case: Keeping) -> None:
    """And leave again only if that is asked for."""
    before = case.state()
    case.retain()
    argv = ["--day", str(days_ago(5)), "--until", str(days_ago(4))]
    for death in (
        "before 1 SET state",
        "before 2 SET state",
        "after 1 INSERT INTO trades",
        "before 4 INSERT INTO trades",
        "after 2 SET state",
        "after 3 SET state",
    ):
        case.restore(*argv, die_at=death)
        assert case.state() == before, death
    done = case.restore(*argv)
    assert (done.code, done.err, case.state()) == (0, "", before)
    assert case.days() == {5: "restored", 4: "restored", 3: "gone"}
    assert case.in_table() == {5: 40, 4: 39, 2: 40, 1: 40, 0: 40}
    assert case.retain().code == 0
    assert case.days() == {5: "restored", 4: "restored", 3: "gone"}
    assert case.retain("--keep", "2", "--again").code == 0
    assert case.days() == dict.fromkeys(OLD, "gone")
    assert case.state() == before


def test_a_trade_that_comes_between_hash_and_record_stops_the_record(
    any_case: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The day stays with it, and leaves at the next run."""
    late = trades_of(days_ago(4))[9]
    with closing(db.connect(any_case.settings)) as connection:
        place = leaving.Place(any_case.settings, connection)
        prove = leaving._prove

        def stored_meanwhile(*arguments: object) -> None:
            prove(*arguments)  # type: ignore[arg-type]
            with closing(db.connect(any_case.settings)) as other:
                assert db.insert_trades(other, [late]) == 1

        monkeypatch.setattr(leaving, "_prove", stored_meanwhile)
        with (
            record.auditor(any_case.settings, connection) as auditor,
            pytest.raises(leaving.StaysError, match="stored meanwhile") as stays,
        ):
            leaving.leave(place, auditor, BTC, days_ago(4))
    assert not stays.value.needs_a_look
    assert (any_case.days(), any_case.files()) == ({}, [])
    before = any_case.state()
    assert late in before.trades
    assert any_case.retain().code == 0
    assert (any_case.state(), any_case.days()) == (before, dict.fromkeys(OLD, "gone"))


def test_rows_that_are_looked_at_are_not_deleted(any_case: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """By tools.retain on another machine, while tools.restore finds that all are there still."""
    before = any_case.state()
    any_case.retain("--keep", "4", die_at="before 1 DELETE FROM trades")
    is_in_table = leaving._is_in_table

    def deleted_meanwhile(place: leaving.Place, one: Retained) -> bool:
        found = is_in_table(place, one)
        with closing(db.connect(any_case.settings)) as other:
            retention.delete_piece(other, one, one.start)
        return found

    monkeypatch.setattr(leaving, "_is_in_table", deleted_meanwhile)
    with closing(db.connect(any_case.settings)) as connection:
        (one,) = retention.leaving(connection)
        leaving.bring_back(leaving.Place(any_case.settings, connection), one)
        # The second call would bring back from the file what the first had let go.
        assert (any_case.state(), any_case.days()) == (before, {5: "restored"})
        with pytest.raises(leaving.StaysError, match="it was restored, or left the table, meanwhile"):
            leaving.bring_back(leaving.Place(any_case.settings, connection), one)
    assert (any_case.state(), any_case.days()) == (before, {5: "restored"})


def test_a_day_that_is_not_what_was_proven_stays(any_case: Keeping) -> None:
    """It is named, and so is what shows the difference; the others leave."""
    with (
        closing(db.connect(any_case.settings)) as connection,
        record.auditor(any_case.settings, connection) as auditor,
    ):
        for day in OLD:
            db.add_proof(connection, auditor.audit(BTC, days_ago(day), "none").proof)
    any_case.sql("UPDATE trades SET price = price + 1 WHERE trade_id = %s", 1 + DAY_TRADES)
    any_case.sql("DELETE FROM trades WHERE trade_id = 1")
    done = any_case.retain()
    assert done.code == 1
    stay = [line for line in done.out.splitlines() if " stays: " in line]
    assert stay[0].startswith(f"{BTC} {days_ago(5)} stays: 39 trades of it are stored, and its candles count [40")
    assert stay[1].startswith(f"{BTC} {days_ago(4)} stays: it is not what was proven on ")
    assert stay[1].endswith(f"python audit.py --symbol {BTC} --day {days_ago(4)} shows what is wrong")
    assert "; 2 days stay, 2 of them for a reason that needs a look" in done.out
    assert any_case.days() == {3: "gone"}
    assert any_case.files() == [path_of(BTC, days_ago(3))]


def test_a_day_without_whole_candles_stays(any_case: Keeping) -> None:
    """They could not be made again afterwards."""
    any_case.sql("DELETE FROM candles WHERE timestamp = %s AND resolution = 86400", str(days_ago(4)))
    done = any_case.retain()
    assert done.code == 1
    assert f"{BTC} {days_ago(4)} stays: its candles are not whole: python -m tools.reseal --symbol {BTC} " in done.out
    assert any_case.days() == {5: "gone", 3: "gone"}


def test_a_gap_that_may_still_be_filled_stops_its_day(any_server: Server, tmp_path: Path) -> None:
    """Only its day, with a line that names the ids; one that nobody serves any more does not."""
    with keeping(any_server, tmp_path) as case:
        case.fill(without=[3, 90, 92], given_up=False)
        with closing(db.connect(case.settings)) as connection:
            db.give_up(connection, BTC, 3, 3, "not served by the exchange")
        before = case.state()
        done = case.retain()
        assert done.code == 0
        words = "2 of its ids 90 to 92 are missing, and may still be filled"
        assert f"{BTC} {days_ago(3)} stays: {words}\n" in done.out
        assert done.out.endswith("; 1 day stays\n")
        assert (case.state(), case.days()) == (before, {5: "gone", 4: "gone"})
        with closing(db.connect(case.settings)) as connection:
            assert db.insert_trades(connection, trades_of(days_ago(3))) == 2
        assert case.retain().code == 0
        assert case.days() == dict.fromkeys(OLD, "gone")


def test_a_day_that_is_not_sealed_stays(any_server: Server, tmp_path: Path) -> None:
    """No capture has made its bars yet."""
    with keeping(any_server, tmp_path) as case, closing(db.connect(case.settings)) as connection:
        db.insert_trades(connection, trades_of(days_ago(4)))
        done = case.retain()
        assert (done.code, case.days()) == (0, {})
        assert f"{BTC} {days_ago(4)} stays: its bars are not sealed yet" in done.out


def test_a_file_that_is_not_as_it_was_is_not_trusted(any_case: Keeping) -> None:
    """Rows are not deleted for it, nor come back from it; one line names it, and nothing is changed."""
    before = any_case.state()
    any_case.retain("--keep", "4", die_at="before 1 DELETE FROM trades")
    path = any_case.settings.retained_dir / path_of(BTC, days_ago(5))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    done = any_case.retain("--keep", "4")
    assert done.code == 1
    assert f"{BTC} {days_ago(5)} stays: its file {path} was changed since it was written" in done.out
    assert any_case.in_table()[5] == DAY_TRADES
    # All its rows are still there, so it need not come back from the file.
    assert any_case.restore("--day", str(days_ago(5))).code == 0
    assert any_case.retain("--keep", "4", "--again").code == 0
    assert any_case.state() == before
    for spoil, words in ((lambda: path.write_bytes(b"PAR1"), "was changed"), (path.unlink, "is not there")):
        spoil()
        done = any_case.restore("--day", str(days_ago(5)))
        assert (done.code, done.err.count("\n"), done.out) == (2, 1, "")
        assert f"tools.restore: {BTC} {days_ago(5)} is not restored: its file {path} {words}" in done.err
        assert (any_case.days()[5], 5 in any_case.in_table()) == ("gone", False)


def test_one_process_at_a_time(any_case: Keeping) -> None:
    """The other says which file is locked."""
    with leaving.alone(any_case.settings):
        for done in (any_case.retain(), any_case.restore("--day", str(days_ago(5)))):
            # Restoring looks first whether there is such a day.
            assert (done.code, done.err.count("\n")) == (2, 1)
    done = any_case.retain()
    assert done.code == 0
    with leaving.alone(any_case.settings):
        done = any_case.restore("--day", str(days_ago(5)))
        assert (done.code, "is locked): wait until it ends" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--keep", "0"], "'0' is not a number of days from 1 to 36500; give 90d or 90"),
        (["--keep", "90h"], "'90h' is not a number of days"),
        (["--keep", "2", "--symbol", "XRPUSDT"], f"--symbol=XRPUSDT: no trade of it is stored; stored: {BTC}"),
        (["--restore", "--day", "2020-01-01"], "--day=2020-01-01: no such day is in a Parquet file: none is"),
        (["--restore", "--day", "2020-01-02", "--until", "2020-01-01"], "--until=2020-01-01 is before"),
    ],
)
def test_a_mistake_is_one_line(any_case: Keeping, argv: list[str], words: str) -> None:
    """With the value and the way out, and exit code 2."""
    done = any_case.retain(*argv)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert words in done.err


def test_without_the_package_it_says_what_to_install(any_case: Keeping, tmp_path: Path) -> None:
    """Before anything is done."""
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "pyarrow.py").write_text("raise ImportError('no pyarrow')")
    for argv in (["--keep", "2"], ["--restore", "--day", "2020-01-01"]):
        done = any_case.retain(*argv, PYTHONPATH=str(tmp_path / "no"))
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "pip install -r requirements-tools.txt" in done.err


def test_only_the_symbols_that_are_asked_for(any_case: Keeping) -> None:
    """The others keep their days."""
    any_case.fill(COIN)
    assert any_case.retain("--keep", "2", "--symbol", COIN).code == 0
    assert (any_case.days(), any_case.days(COIN)) == ({}, dict.fromkeys(OLD, "gone"))


def test_ids_that_do_not_rise_with_time_are_hashed_by_id(case: Keeping) -> None:
    """As its proof is; the day leaves and comes back."""
    rows = trades_of(days_ago(4))
    swapped = [rows[20]._replace(trade_id=rows[25].trade_id), rows[25]._replace(trade_id=rows[20].trade_id)]
    case.sql("DELETE FROM trades WHERE trade_id IN (%s, %s)", rows[20].trade_id, rows[25].trade_id)
    with closing(db.connect(case.settings)) as connection:
        assert db.insert_trades(connection, swapped) == 2
    _reseal(case)
    before = case.state()
    assert case.retain().code == 0
    assert (case.state(), case.days()) == (before, dict.fromkeys(OLD, "gone"))
    sql = "SELECT COUNT(*) FROM retained JOIN proofs USING (symbol, day, sha256, trades)"
    assert case.sql(sql) == [(3,)]
    assert case.restore("--day", str(days_ago(4))).code == 0
    assert case.state() == before


@pytest.mark.parametrize("far", [False, True])
def test_the_memory_for_ids_that_do_not_rise_is_bounded(far: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of a day do not, and however far they are from their place."""
    monkeypatch.setattr(retention, "HELD_ROWS", 5_000)
    ids = list(range(1, 60_001))
    places = [n ^ 1023 for n in range(59_392)] + list(range(59_392, 60_000))
    moved = ids[30_000:] + ids[:30_000] if far else [ids[place] for place in places]

    def lines(numbers: Sequence[int]) -> Iterator[bytes]:
        for start in range(0, len(numbers), 1_000):
            some = enumerate(numbers[start : start + 1_000], start)
            yield b"".join(b"%d,60000.00000000,0.00010000,%d,0\n" % (one, 1_700_000_000_000 + at) for at, one in some)

    every = [line for text in lines(moved) for line in text.splitlines(True)]
    by_id = sorted(every, key=lambda line: int(line.partition(b",")[0]))
    expected = hashlib.sha256(b"".join(by_id)).hexdigest()
    tracemalloc.start()
    try:
        found = retention._content(lambda: lines(moved))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found is not None
    assert (found.trades, found.first_trade_id, found.last_trade_id, found.sha256) == (60_000, 1, 60_000, expected)
    # All of them take 15 MB.
    assert peak < 5_000_000


def _reseal(case: Keeping) -> None:
    with closing(db.connect(case.settings)) as connection:
        sealing.reseal(connection, BTC)


def test_the_commands_themselves(any_case: Keeping) -> None:
    """As the documentation writes them, with the real waits."""
    for module, argv in (("tools.retain", ["--keep", "4d"]), ("tools.restore", ["--day", str(days_ago(5))])):
        done = subprocess.run(
            [sys.executable, "-m", module, *argv],
            cwd=ROOT,
            env=os.environ | any_case.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert any_case.days() == {5: "restored"}


@pytest.mark.parametrize("size", [1, 15])
def test_rows_go_a_piece_at_a_time(any_case: Keeping, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece begins where the one before ended, and has all of a millisecond, even if those are too many."""
    before = any_case.state()
    any_case.retain("--keep", "4", die_at="before 1 DELETE FROM trades")
    monkeypatch.setattr(retention, "PIECE_ROWS", size)
    with closing(db.connect(any_case.settings)) as connection:
        (one,) = retention.leaving(connection)
        start: datetime | None = one.start
        left = [DAY_TRADES]
        while start is not None:
            after = retention.delete_piece(connection, one, start)
            assert after is None or after > start
            start = after
            left.append(any_case.in_table().get(5, 0))
            assert any_case.state() == before
    # Two trades share each millisecond.
    assert list(dict.fromkeys(left)) == (list(range(40, -1, -2)) if size == 1 else [40, 26, 12, 0])


def test_a_symbol_with_nothing_to_move_costs_two_questions(any_case: Keeping) -> None:
    """So that many symbols are looked through in seconds; one with old days costs one more for each."""
    before = days_ago(2)
    with closing(db.connect(any_case.settings)) as connection:
        for number in range(20):
            db.insert_trades(connection, trades_of(days_ago(0), f"NEW{number}USDT"))
        for symbol, days in ((BTC, OLD), ("NEW1USDT", [])):
            connection.asked = []
            found = [day for day, _ in retain._old_days(connection, symbol, before)]
            assert found == [days_ago(number) for number in days]
            assert len(connection.asked) == 2 + len(days)
