"""History is brought in beside a capture and killed at any moment: afterwards the tables are what was traded."""

import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from history import place
from tests.support.harness import SYMBOLS, Rig
from tests.support.servers import Server
from tools.lab.children import Process, wait_for
from tools.lab.verdict import DIRECT, Row, compare, row_of

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

DAYS, DAY_TRADES = 8, 6_000
KILLS = 50
FLAGS = ("--rate", "40", "--days", str(DAYS), "--day-trades", str(DAY_TRADES), "--weight-limit", "1000000")
PIECES = {"history.importer.PIECE_ROWS_MAX": 500, "binance.archive_file.CHUNK_BYTES": 30_000}
"""A day comes in a dozen transactions, so that it can be cut in the middle."""
BEGIN_S_MAX, AT_WORK = 1.0, 0.85
"""How long a process is let live that is killed while it begins; the share of those that are killed later."""
ROWS_MAX = 1_000
"""Those may store up to so many trades first: 50 of them do not come to the end."""
RUN_S_MAX = 120.0


def _truth(rig: Rig, symbol: str, since: date) -> Iterator[tuple[int, Row]]:
    """Every trade of the exchange from the day `since` on."""
    day = since
    while day <= datetime.now(UTC).date():
        address = f"{rig.exchange.http}/_truth/day?symbol={symbol}&day={day}"
        with DIRECT.open(address, timeout=30.0) as answer:
            for line in answer:
                trade = json.loads(line)
                yield trade["id"], row_of(trade)
        day += timedelta(days=1)


def _brought(rig: Rig, today: date) -> int:
    """How many trades of days that are over are stored."""
    return int(rig.rows("SELECT COUNT(*) FROM {}.trades WHERE timestamp < %s", str(today))[0][0])


def _kill(rig: Rig, child: Process, chance: random.Random, today: date) -> bool:
    """Kills a back-fill at a random moment, mostly after it has stored some trades; whether it still ran."""
    if chance.random() < AT_WORK:
        enough = _brought(rig, today) + chance.randrange(1, ROWS_MAX)
        wait_for("it stores", lambda: _brought(rig, today) >= enough or child.exit_code is not None, RUN_S_MAX)
        time.sleep(chance.uniform(0.0, 0.05))
    else:
        time.sleep(chance.uniform(0.0, BEGIN_S_MAX))
    ran = child.exit_code is None
    child.kill()
    return ran


@pytest.mark.timeout(300)
def test_killed_again_and_again(any_server: Server, tmp_path: Path) -> None:
    """50 times at random, with a capture that stores all the while: then one run to the end, and every trade of every
    day is there as it was traded, no gap is left, the sealed bars are what their trades make, and the audit says so."""
    chance = random.Random(11)
    today = datetime.now(UTC).date()
    since = today - timedelta(days=DAYS)
    command = ["-m", "tests.support.patched_backfill", "--since", str(since)]
    with Rig(any_server, tmp_path, FLAGS) as rig, rig.capture() as capture:
        rig.stores()
        ran, brought = 0, [0]
        for number in range(KILLS):
            environ = rig.environ | {"PATCHES": json.dumps(PIECES)}
            child = Process(command, environ, tmp_path / f"child{number % 5}.log")
            ran += _kill(rig, child, chance, today)
            brought.append(_brought(rig, today))
        # Each went on where the one before it was killed, and many were in the middle of a day.
        assert brought == sorted(brought)
        assert ran > KILLS // 2
        assert len({count for count in brought if count % DAY_TRADES}) >= KILLS // 5
        last = Process(["backfill.py", "--since", str(since)], rig.environ, tmp_path / "last.log")
        assert last.wait(RUN_S_MAX) == 0, last.last_words()
        rig.stores()
        wait_for("no gap is open", lambda: not rig.open_gaps(), 30.0)
        capture.stop()
        for symbol in SYMBOLS:
            truth = list(_truth(rig, symbol, since))
            with rig.server.connect() as connection:
                found = compare(connection, rig.database, symbol, truth)
            assert found.exact, str(found)
            first = rig.rows("SELECT MIN(trade_id) FROM {}.trades WHERE symbol = %s", symbol)
            assert first == [(truth[0][0],)]
            assert found.stored > DAYS * DAY_TRADES
        # Nothing that the killed ones have left is there.
        assert [path.name for path in (rig.folder / "data" / place.FOLDER).iterdir()] == [place.LOCK]
        _assert_audited(rig, tmp_path)


def _assert_audited(rig: Rig, folder: Path) -> None:
    audit = Process(["audit.py", "--json"], rig.environ, folder / "audit.log")
    assert audit.wait(RUN_S_MAX) == 0, audit.last_words() + audit.out.read_text()
    verdicts = [json.loads(line) for line in audit.out.read_text().splitlines()]
    assert {one["verdict"] for one in verdicts} <= {"equal", "agrees"}
    assert len([one for one in verdicts if one["verdict"] == "equal"]) == DAYS * len(SYMBOLS)
