"""History is brought in beside a capture and killed at any moment: afterwards the tables are what was traded."""

import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.harness import SYMBOLS, Rig
from tests.support.servers import Server
from tools.lab.children import Process, wait_for
from tools.lab.verdict import DIRECT, Row, compare, row_of

pytestmark = pytest.mark.slow

DAYS = 10
KILLS = 50
FLAGS = ("--rate", "60", "--days", str(DAYS), "--day-trades", "6000", "--weight-limit", "1000000")
RUN_S_MAX = 120.0


def _truth(rig: Rig, symbol: str) -> Iterator[tuple[int, Row]]:
    """Every trade of the exchange, from the first day of its history on."""
    today = datetime.now(UTC).date()
    day = today - timedelta(days=DAYS + 1)
    while day <= today:
        address = f"{rig.exchange.http}/_truth/day?symbol={symbol}&day={day}"
        with DIRECT.open(address, timeout=30.0) as answer:
            for line in answer:
                trade = json.loads(line)
                yield trade["id"], row_of(trade)
        day += timedelta(days=1)


@pytest.mark.timeout(300)
def test_killed_again_and_again(any_server: Server, tmp_path: Path) -> None:
    """50 times at random, with a capture that stores all the while: then one run to the end, and every trade of every
    day is there as it was traded, no gap is left, the sealed bars are what their trades make, and the audit says so."""
    chance = random.Random(11)
    since = str(datetime.now(UTC).date() - timedelta(days=DAYS))
    with Rig(any_server, tmp_path, FLAGS) as rig, rig.capture() as capture:
        rig.stores()
        command = ["backfill.py", "--since", since]
        unfinished = 0
        for number in range(KILLS):
            child = Process(command, rig.environ, tmp_path / f"child{number % 5}.log")
            time.sleep(chance.uniform(0.3, 1.3))
            unfinished += child.exit_code is None
            child.kill()
        # Most of them were killed at work; some may have had none left.
        assert unfinished > KILLS // 3
        last = Process(command, rig.environ, tmp_path / "last.log")
        assert last.wait(RUN_S_MAX) == 0, last.last_words()
        rig.stores()
        wait_for("no gap is open", lambda: not rig.open_gaps(), 30.0)
        capture.stop()
        for symbol in SYMBOLS:
            with rig.server.connect() as connection:
                found = compare(connection, rig.database, symbol, _truth(rig, symbol))
            assert found.exact, str(found)
            assert found.stored > DAYS * 6000
        audit = Process(["audit.py", "--json"], rig.environ, tmp_path / "audit.log")
        assert audit.wait(RUN_S_MAX) == 0, audit.last_words() + audit.out.read_text()
        verdicts = [json.loads(line) for line in audit.out.read_text().splitlines()]
        assert {one["verdict"] for one in verdicts} <= {"equal", "agrees"}
        assert len([one for one in verdicts if one["verdict"] == "equal"]) == DAYS * len(SYMBOLS)
