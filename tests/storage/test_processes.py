"""Several processes on one database, and processes that are killed: nothing doubled, nothing half, no false gap."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import config
import db
from model import gaps
from model.candles import Candle
from model.trade import Trade
from process.child import ROOT
from storage import session
from tests.support.child import wait_until
from tests.support.servers import Server
from tests.support.tables import COMPLETENESS, age, ask, check, due, runs, sealed, stored_ids

pytestmark = pytest.mark.slow

MIDNIGHT = datetime(2025, 3, 1, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT")
WAIT_S_MAX = 40.0
STATEMENTS_MAX = 30
"""More than the transaction of a batch has."""


def trade(symbol: str, trade_id: int) -> Trade:
    """The trade of that id, the same in every process."""
    price = Decimal(10**8 + trade_id * 7_919 % 1_009) / 10**4
    when = MIDNIGHT + timedelta(milliseconds=37 * trade_id)
    return Trade(symbol, when, trade_id, price, Decimal("1"), trade_id % 2 == 0, when)


# ---- Several at once.

IDS = range(1, 1_201)
LOST = {*range(300, 320), 777}
"""No process has these."""
WRITERS = 3
WRITER = """
import sys
import db
from tests.storage.test_processes import plan
connection = db.connect()
print("ready", flush=True)
input()
print(sum(db.insert_trades(connection, batch) for batch in plan(int(sys.argv[1]))))
"""


def plan(number: int) -> list[list[Trade]]:
    """The batches of writer `number`: two thirds of all ids, each id with two writers, a little out of order."""
    chance = random.Random(number)
    mine = [one for one in IDS if one not in LOST and one // 40 % WRITERS != number]
    batches, start = [], 0
    while start < len(mine):
        part = mine[start : start + chance.randint(1, 60)]
        start += len(part)
        rows = [trade(symbol, one) for symbol in SYMBOLS for one in part]
        chance.shuffle(rows)
        batches.append(rows)
    swapped = sorted(range(len(batches)), key=lambda index: index + chance.uniform(0, 3))
    return [batches[index] for index in swapped]


def test_captures_that_share_a_database(
    connection: db.Connection, server: Server, database: str, tmp_path: Path
) -> None:
    """Writers with overlapping batches at the same time: each trade once, no error, and only true gaps are left."""
    environ = os.environ | server.environ | {"MYSQL_DATABASE": database, "DATA_DIR": str(tmp_path)}
    pipe = subprocess.PIPE
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(number)],
            cwd=ROOT,
            env=environ,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for number in range(WRITERS)
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n", writer.communicate(timeout=WAIT_S_MAX)
    answers = [start(writer) for writer in writers]
    counts = [int(answer(WAIT_S_MAX)) for answer in answers]

    expected = [one for one in IDS if one not in LOST]
    assert sum(counts) == len(SYMBOLS) * len(expected)
    for symbol in SYMBOLS:
        assert stored_ids(connection, symbol) == expected
        assert runs(connection, symbol) == [(300, 319), (777, 777)]
        assert sealed(connection, symbol) == due(connection, symbol)
        check(connection, symbol)


def start(writer: subprocess.Popen[str]) -> Callable[[float], str]:
    """Lets a writer go, and gives a function that waits for its count."""
    assert writer.stdin
    writer.stdin.write("\n")
    writer.stdin.flush()

    def answer(s_max: float) -> str:
        out, errors = writer.communicate(timeout=s_max)
        assert (errors, writer.returncode) == ("", 0)
        return out

    return answer


# ---- Killed.


def forked(
    settings: config.Settings, work: Callable[[db.Connection], None], before: Callable[[], None] = lambda: None
) -> int:
    """The pid of a new process that does `work` with a connection of its own, and nothing else before it ends but what
    is to be done `before` it connects."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        before()
        work(db.connect(settings))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(pid: int) -> int:
    """The exit code of a process, negative when a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def tables(connection: Any, symbols: tuple[str, str]) -> list[list[Any]]:
    """The rows of all tables without names and clocks, so that they can be compared between pairs of symbols."""
    wanted = {
        "trades": "timestamp, trade_id, price, quantity, buyer_is_maker, received_at",
        "candles": ", ".join(Candle._fields[1:]),
        "gaps": "first_trade_id, last_trade_id, reason, filled_at IS NULL, timestamp_before, timestamp_after",
    }
    return [
        ask(connection, f"SELECT {columns} FROM {table} WHERE symbol = %s ORDER BY 1, 2", symbol)
        for table, columns in wanted.items()
        for symbol in symbols
    ]


def prepare(connection: db.Connection, name: str) -> tuple[tuple[str, str], list[Trade]]:
    """Two symbols, one of them sealed and with an old gap, and a batch that does everything: fills, follows, jumps,
    begins, and changes bars."""
    one, other = f"{name}1", f"{name}2"
    db.insert_trades(connection, [trade(one, 1), trade(one, 9)])
    age(connection)
    assert db.seal(connection, [one], None, MIDNIGHT + timedelta(hours=1))
    return (one, other), [trade(one, 5), trade(one, 10), trade(one, 20), trade(other, 3), trade(other, 7)]


@pytest.mark.parametrize("together", [False, True])
def test_killed_at_every_statement(connection: db.Connection, settings: config.Settings, together: bool) -> None:
    """SIGKILL before or after any statement of the transaction: all or nothing, and repeating gives the same tables.

    Once as usual, the last statements in one packet, and once each on its own, as without the driver's C extension.
    """
    reference, batch = prepare(connection, "REFERENCE")
    db.insert_trades(connection, batch)
    whole = tables(connection, reference)
    outcomes: list[tuple[int, int]] = []
    for number in range(1, STATEMENTS_MAX):
        symbols, batch = prepare(connection, f"KILLED{number}X")
        before = tables(connection, symbols)

        code = ended(forked(settings, partial(_insert_and_die, rows=batch, number=number, together=together)))

        left = tables(connection, symbols)
        assert left in (before, whole)
        outcomes.append((code, left == whole))
        assert db.insert_trades(connection, batch) == (0 if left == whole else len(batch))
        assert tables(connection, symbols) == whole
        for symbol in symbols:
            check(connection, symbol)
        if code == 0:
            break
    # Killed before each statement of the transaction, then killed after the last one, which is the commit; then not.
    killed = -signal.SIGKILL
    assert outcomes == [(killed, False)] * (len(outcomes) - 2) + [(killed, True), (0, True)]
    assert len(outcomes) > (8 if together else 12)


def _insert_and_die(connection: db.Connection, rows: list[Trade], number: int, together: bool) -> None:
    """Inserts `rows` but is killed before the statement of that number, which may be one after the last."""
    run = type(connection).cmd_query
    sent = 0

    def count(opened: db.Connection, *arguments: Any, **options: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(opened, *arguments, **options)

    type(connection).cmd_query = count  # type: ignore[method-assign]
    if not together:
        session.is_fast = lambda: False
    db.insert_trades(connection, rows)
    # The moment after the commit, before anything is done with what it returned.
    if sent + 1 == number:
        os.kill(os.getpid(), signal.SIGKILL)


KILLS = 12


def test_killed_at_any_moment(connection: db.Connection, settings: config.Settings) -> None:
    """SIGKILL at random moments under load, again and again: complete or marked as missing, and nothing twice."""
    chance = random.Random(20250301)
    position = 1
    for _ in range(KILLS):
        pid = forked(settings, partial(_insert_for_ever, position=position))
        _await_progress(connection, position)
        time.sleep(chance.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == -signal.SIGKILL
        _await_its_session(connection)

        for symbol in SYMBOLS:
            check(connection, symbol)
        assert [row[3] for row in ask(connection, COMPLETENESS)] == [1, 1]
        # The time that a start takes is lost.
        position = max(stored_ids(connection, SYMBOLS[0])) + 5

    for symbol in SYMBOLS:
        last = stored_ids(connection, symbol)[-1]
        for first in range(1, last + 1, 1_000):
            db.insert_trades(connection, [trade(symbol, one) for one in range(first, min(first + 1_000, last + 1))])
        assert stored_ids(connection, symbol) == list(range(1, last + 1))
        assert runs(connection, symbol) == []
        assert sealed(connection, symbol) == due(connection, symbol)


def _insert_for_ever(connection: db.Connection, position: int) -> None:
    """Batches with a jump now and then, part of which comes later."""
    while True:
        ids = [*range(position, position + 40), *range(position + 45, position + 60), position + 42]
        db.insert_trades(connection, [trade(symbol, one) for one in ids for symbol in SYMBOLS], reason=gaps.MISSED)
        position += 60


def _await_its_session(connection: db.Connection) -> None:
    """Until the server has noticed: a commit that was under way may still come to its end."""
    deadline = time.monotonic() + WAIT_S_MAX
    database = ask(connection, "SELECT DATABASE()")[0][0]
    while sum(row[3] == database for row in ask(connection, "SHOW PROCESSLIST")) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _await_progress(connection: db.Connection, position: int) -> None:
    """Until a trade of that id or a later one is stored."""
    deadline = time.monotonic() + WAIT_S_MAX
    while True:
        newest = db.latest(connection, SYMBOLS[0])
        if newest and newest.trade_id >= position:
            return
        assert time.monotonic() < deadline
        time.sleep(0.002)


# ---- Sealed bars, whoever is killed.

ROUNDS = 12
STEP = timedelta(milliseconds=500)


def sparse(trade_id: int) -> Trade:
    """The trade of that id of a symbol that has 120 a minute, some of them a little out of order."""
    when = MIDNIGHT + STEP * (trade_id - 3 * (trade_id % 17 == 0))
    return trade("BTCUSDT", trade_id)._replace(timestamp=when, received_at=when)


def _capture_for_ever(connection: db.Connection, lost: int) -> None:
    """Stores what comes next in batches of any size, without every id that `lost` divides."""
    chance = random.Random()
    newest = db.latest(connection, "BTCUSDT")
    position = newest.trade_id + 1 if newest else 1
    while True:
        ids = [one for one in range(position, position + chance.randint(1, 12)) if one % lost]
        db.insert_trades(connection, [sparse(one) for one in ids])
        position += 12
        time.sleep(0.002)


def _fill_for_ever(connection: db.Connection) -> None:
    """Stores what is missing, oldest first, a page at a time."""
    while True:
        for gap in db.open_gaps(connection, "BTCUSDT"):
            ids = range(gap.first_trade_id, min(gap.last_trade_id, gap.first_trade_id + 50) + 1)
            db.insert_trades(connection, [sparse(one)._replace(received_at=None) for one in ids])
        time.sleep(0.02)


def _seal_for_ever(connection: db.Connection) -> None:
    """Seals as far as it can, by seconds and by minutes, with and without the lock."""
    for number in itertools.count():
        found = db.sealable(connection, ["BTCUSDT"]).get("BTCUSDT")
        if found and found.newest:
            until = found.newest[1].replace(microsecond=0) - timedelta(seconds=1)
            until = until.replace(second=0) if number % 3 else until
            if found.sealed_until is None or found.sealed_until < until:
                seal = db.seal_locked if number % 5 == 0 else db.seal
                seal(connection, "BTCUSDT" if number % 5 == 0 else ["BTCUSDT"], found.sealed_until, until)  # type: ignore[arg-type]
        time.sleep(0.003)


def _persistently(connection: db.Connection, work: Callable[[db.Connection], None]) -> None:
    """`work` again whenever others were in the way, as a capture does."""
    while True:
        try:
            work(connection)
        except db.ContentionError:
            continue


def test_sealed_bars_equal_their_trades_whoever_is_killed(connection: db.Connection, settings: config.Settings) -> None:
    """Two captures that lose trades, a back-fill and two sealings at once, one of which is killed at any moment, again
    and again: at every moment each sealed bar is what its trades give, and nothing is forgotten."""
    chance = random.Random(20250301)
    works = [partial(_capture_for_ever, lost=11), partial(_capture_for_ever, lost=13)]
    works += [_fill_for_ever, _seal_for_ever, _seal_for_ever]  # type: ignore[list-item]
    pids = [forked(settings, partial(_persistently, work=work)) for work in works]
    reached: list[datetime | None] = []
    try:
        wait_until(lambda: any(one.sealed_until for one in db.sealable(connection).values()), WAIT_S_MAX)
        for _ in range(ROUNDS):
            time.sleep(chance.uniform(0.02, 0.2))
            victim = chance.randrange(len(works))
            pid = pids.pop(victim)
            os.kill(pid, signal.SIGKILL)
            assert ended(pid) == -signal.SIGKILL
            # One moment of the tables, whatever the others do meanwhile.
            ask(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            ask(connection, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            assert sealed(connection, "BTCUSDT") == due(connection, "BTCUSDT")
            check(connection)
            ask(connection, "COMMIT")
            reached.append(db.sealable(connection)["BTCUSDT"].sealed_until)
            pids.insert(victim, forked(settings, partial(_persistently, work=works[victim])))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            ended(pid)
    assert len(set(reached)) > ROUNDS // 3
    assert {bar.resolution for bar in sealed(connection, "BTCUSDT")} >= {60}
