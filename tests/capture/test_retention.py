"""RETENTION_DAYS in the capture: days leave the table beside it, while it stores all that comes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import config
import db
from capture import aside
from capture import retention as captured
from capture.retention import Retention
from process import lock
from process.child import ROOT
from storage import retention
from tests.support.harness import PATCHED, Rig
from tests.support.keeping import days_ago, trades_of
from tests.support.servers import Server
from tools.lab.children import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

WAIT_S_MAX = 60.0
COIN = "OLDUSDT"
FLAGS = ("--rate", "2000")


@pytest.fixture
def rig(any_server: Server, tmp_path: Path) -> Iterator[Rig]:
    """An exchange at full speed, and a database."""
    with Rig(any_server, tmp_path, FLAGS) as joined:
        yield joined


def _fill(rig: Rig) -> config.Settings:
    """Stores old days of a symbol that is not captured any more."""
    settings = rig.server.settings(rig.database, rig.folder / "data")
    with closing(db.connect(settings)) as connection:
        for day in (5, 4, 3):
            db.insert_trades(connection, trades_of(days_ago(day), COIN))
        db.seal_history(connection, COIN)
    return settings


def _rows(rig: Rig) -> Any:
    return rig.rows("SELECT COUNT(*) FROM {}.trades WHERE symbol = %s", COIN)[0][0]


def test_old_days_leave_beside_a_capture_that_loses_nothing(rig: Rig) -> None:
    """What the child says is in the log; each trade of the stream is stored, as if nothing had been."""
    _fill(rig)
    with rig.capture(RETENTION_DAYS="4", name="captured") as capture:
        wait_for("a day has left", lambda: _states(rig) == [(days_ago(5), "gone")], WAIT_S_MAX)
        rig.stores()
        rig.settle()
        # The end of the capture would end the child before its last line.
        told = "1 days left the table, 40 trades"
        wait_for("the child has told all", lambda: told in capture.process.log.read_text(), WAIT_S_MAX)
        capture.stop()
        log = capture.process.log.read_text()
    assert f"retention: {COIN} {days_ago(5)}: 40 trades" in log
    assert _rows(rig) == 80
    assert (rig.folder / "data" / "parquet" / rig.database).exists()


def _states(rig: Rig) -> list[Any]:
    return rig.rows("SELECT day, state FROM {}.retained ORDER BY day")


def test_the_child_ends_with_the_capture(rig: Rig) -> None:
    """Even killed: rows that are on their way out stay, and nothing is lost."""
    settings = _fill(rig)
    with rig.capture(RETENTION_DAYS="1", name="captured") as capture:
        wait_for("days are recorded", lambda: len(_states(rig)) == 2, WAIT_S_MAX)
        capture.process.kill()
        wait_for("nobody holds the lock", lambda: not _is_locked(settings), WAIT_S_MAX)
    with closing(db.connect(settings)) as connection:
        assert {one.state for one in retention.recorded_days(connection)} <= {"leaving", "gone"}


def _is_locked(settings: config.Settings) -> bool:
    return lock.is_held_alone(settings.retained_dir / "lock")


def test_without_the_package_the_capture_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with exit code 2, before anything is started."""
    monkeypatch.setattr(captured, "PACKAGE", "no_such_package_here")
    with pytest.raises(config.ConfigError, match=r"RETENTION_DAYS=90: .*pip install -r requirements-tools.txt"):
        captured.check(config.Settings(retention_days=90))
    captured.check(config.Settings())
    done = subprocess.run(
        [sys.executable, *PATCHED],
        cwd=ROOT,
        env={**_quiet(tmp_path), "RETENTION_DAYS": "90", "PATCHES": '{"capture.retention.PACKAGE": "no_such_package"}'},
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def _quiet(folder: Path) -> dict[str, str]:
    return os.environ | {"DATA_DIR": str(folder)}


def test_a_failure_is_tried_again_after_growing_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning each time; what needs a look is no failure."""
    codes = iter([2, 2, 1, 0])
    asked: list[Any] = []

    def run(words: Any, *_: Any) -> int:
        asked.append(words)
        return next(codes)

    monkeypatch.setattr(aside, "run", run)
    thread = Retention(config.Settings(retention_days=90))
    waits = [thread._step(90) for _ in range(4)]
    assert asked == [["-m", "tools.retain", "--keep", "90d"]] * 4
    assert waits[2:] == [captured.EVERY_S] * 2
    assert captured.AGAIN_S <= waits[0] < 1.5 * captured.AGAIN_S
    assert 2 * captured.AGAIN_S <= waits[1] < 3 * captured.AGAIN_S
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert "need a look: python -m tools.retain --keep 90d" in caplog.records[2].message


def test_without_the_setting_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread ends at once."""
    monkeypatch.setattr(aside, "run", lambda *_: pytest.fail("started"))
    thread = Retention(config.Settings())
    thread.start()
    thread.join(5.0)
    assert not thread.is_alive()
