"""History beside the capture: the child that brings it in, and what is healed from the archive without being asked."""

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from capture.historian import old_gaps
from model.gaps import MISSED, Gap
from tests.support.harness import PATCHED, QUICK, Rig
from tests.support.servers import Server
from tools.lab.children import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

WAIT_S_MAX = 40.0
FLAGS = ("--rate", "60", "--days", "2", "--day-trades", "3000", "--weight-limit", "1000000")
OFTEN: dict[str, Any] = QUICK | {
    "capture.historian.LOOK_S": 0.2,
    "capture.historian.OLD_S": 0.0,
    "capture.historian.AGAIN_S": 0.2,
}


def _since(days: int) -> str:
    return str(datetime.now(UTC).date() - timedelta(days=days))


def _children(rig: Rig) -> list[int]:
    """The processes that bring history into the database of `rig`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environ = (folder / "environ").read_bytes()
        except OSError:
            continue
        if b"backfill.py" in words and f"MYSQL_DATABASE={rig.database}".encode() in environ.split(b"\0"):
            found.append(int(folder.name))
    return found


def _first_day(rig: Rig) -> Any:
    return rig.rows("SELECT MIN(DATE(timestamp)) FROM {}.trades")[0][0]


@pytest.fixture
def rig(any_server: Server, tmp_path: Path) -> Iterator[Rig]:
    """An exchange with two days of history, and a database."""
    with Rig(any_server, tmp_path, FLAGS) as joined:
        yield joined


def test_all_trades_from_a_day_on(rig: Rig) -> None:
    """With --since, while the capture stores: what was said by the child is in the log, and it ends by itself."""
    with rig.capture((*PATCHED, "--since", _since(2))) as capture:
        rig.stores()
        wait_for("history is there", lambda: str(_first_day(rig)) == _since(2), WAIT_S_MAX)
        wait_for("the child has ended", lambda: not _children(rig), WAIT_S_MAX)
        wait_for("no gap is open", lambda: not rig.open_gaps(), WAIT_S_MAX)
        summary = capture.stop()
    assert "history: BTCUSDT" in capture.process.last_words()
    assert "3,000 trades in the archive, 3,000 of them new" in capture.process.log.read_text()
    assert "gaps open 0" in summary
    counts = rig.rows(
        "SELECT symbol, COUNT(*) FROM {}.trades WHERE timestamp < %s GROUP BY symbol", str(datetime.now(UTC).date())
    )
    assert dict(counts) == {"BTCUSDT": 6_000, "ETHUSDT": 6_000}


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes as Linux shows them")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_child_ends_with_the_capture(any_server: Server, tmp_path: Path, number: signal.Signals) -> None:
    """However it ends."""
    flags = ("--rate", "60", "--days", "40", "--day-trades", "20000", "--weight-limit", "1000000")
    with Rig(any_server, tmp_path, flags) as rig, rig.capture((*PATCHED, "--since", _since(40))) as capture:
        rig.stores()
        wait_for("the child works", lambda: rig.rows("SELECT COUNT(*) FROM {}.archive_files")[0][0], WAIT_S_MAX)
        children = _children(rig)
        assert len(children) == 1
        os.kill(capture.process.pid, number)
        wait_for("the child has ended", lambda: not _children(rig), WAIT_S_MAX)


def test_it_is_tried_again(rig: Rig) -> None:
    """The exchange's REST interface is away at first, and the archive too: nothing is lost but time."""
    rig.exchange.faults([{"fault": "archive_status", "count": 30}, {"fault": "rest_status", "status": 503, "count": 5}])
    with rig.capture((*PATCHED, "--since", _since(1)), OFTEN) as capture:
        rig.stores()
        wait_for("history is there", lambda: str(_first_day(rig)) == _since(1), WAIT_S_MAX)
        wait_for("no gap is open", lambda: not rig.open_gaps(), WAIT_S_MAX)
        assert capture.running()


def test_old_gaps_are_healed_from_the_archive(rig: Rig) -> None:
    """Ids of yesterday that REST does not serve: the capture starts the back-fill from the archive by itself."""
    with rig.capture((*PATCHED, "--since", _since(1)), OFTEN) as capture:
        rig.stores()
        wait_for("history is there", lambda: str(_first_day(rig)) == _since(1), WAIT_S_MAX)
        wait_for("no gap is open", lambda: not rig.open_gaps(), WAIT_S_MAX)
        capture.stop()
        first = rig.rows("SELECT MIN(trade_id) FROM {}.trades WHERE symbol = 'BTCUSDT'")[0][0] + 1_000
        rig.exchange.faults([{"fault": "rest_hole", "symbol": "BTCUSDT", "first": first, "last": first + 99}])
        with rig.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {rig.database}.gaps SELECT 'BTCUSDT', {first}, {first + 99}, '{MISSED}',"
                f" MIN(timestamp), NULL, MIN(timestamp), MAX(timestamp) FROM {rig.database}.trades"
                f" WHERE symbol = 'BTCUSDT' AND trade_id IN ({first - 1}, {first + 100})"
            )
            cursor.execute(
                f"DELETE FROM {rig.database}.trades WHERE symbol = 'BTCUSDT'"
                f" AND trade_id BETWEEN {first} AND {first + 99}"
            )
            connection.commit()
        capture.start()
        wait_for("the gap is filled", lambda: not rig.open_gaps(), WAIT_S_MAX)
        wait_for("that is said", lambda: "100 of them new" in capture.process.log.read_text(), WAIT_S_MAX)
    stored = rig.rows(
        "SELECT COUNT(*) FROM {}.trades WHERE symbol = 'BTCUSDT' AND trade_id BETWEEN %s AND %s", first, first + 99
    )
    assert stored == [(100,)]


def test_which_gaps_are_the_archive_s() -> None:
    """Those of our symbols that reach into a day that is over, once REST has had its time; also those that were found
    while the clock was ahead."""
    now = datetime(2025, 3, 2, 12, tzinfo=UTC)
    yesterday, today = datetime(2025, 3, 1, 23, tzinfo=UTC), datetime(2025, 3, 2, 1, tzinfo=UTC)

    def gap(symbol: str, before: datetime, age: timedelta) -> Gap:
        return Gap(symbol, 5, 9, MISSED, now - age, None, before, today)

    old = gap("BTCUSDT", yesterday, timedelta(hours=4))
    ahead = gap("BTCUSDT", yesterday, timedelta(days=-400))
    others = [
        gap("ETHUSDT", yesterday, timedelta(hours=4)),
        gap("BTCUSDT", today, timedelta(hours=4)),
        gap("BTCUSDT", yesterday, timedelta(hours=2)),
    ]
    assert old_gaps([old, *others, ahead], ["BTCUSDT"], now) == [old, ahead]
