"""Every fault that a month of unattended running brings: after each, the tables are what was traded.

The capture is the real program as a process of its own; the exchange is the stand-in; the database is a real server.
"""

import random
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

from tests.support.harness import QUICK, Rig
from tests.support.servers import PrivateServer, Server
from tools.lab.children import Capture, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

WAIT_S_MAX = 20.0
FLAGS = ("--rate", "300", "--ping-interval", "0.5")
CALM = ("--rate", "150", "--ping-interval", "0.5")


@pytest.fixture(scope="module")
def running(any_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Capture]]:
    """One capture for all the faults that it is to survive without being started again."""
    with Rig(any_server, tmp_path_factory.mktemp("running"), CALM) as rig, rig.capture() as capture:
        rig.stores()
        yield rig, capture


def _strike(rig: Rig, *wishes: dict[str, Any]) -> None:
    """Switches faults on and returns when the first of them has struck as often as it should."""
    name = wishes[0]["fault"]
    before = rig.exchange.struck(name)
    rig.exchange.faults(wishes)

    def is_over() -> bool:
        faults = rig.exchange.state()["faults"]
        return faults["struck"].get(name, 0) > before and all(one["fault"] != name for one in faults["on"])

    wait_for(f"{name} has struck", is_over, WAIT_S_MAX)


def _assert_survived(rig: Rig, capture: Capture) -> None:
    starts = capture.starts
    rig.settle()
    assert capture.running(), capture.process.last_words()
    assert capture.starts == starts


CUT = {"fault": "reset", "target": "all"}
LOST = {"fault": "skip", "count": 25, "target": "all"}

FRAMES = ("skip", "double", "swap", "delay", "truncate", "fragment", "binary", "replace", "restyle", "shuffle")
CONNECTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "reset": (CUT,),
    "reset of one": ({"fault": "reset", "target": -1},),
    "no close frame": ({"fault": "abrupt", "target": "all"},),
    **{f"close {code}": ({"fault": "close", "code": code, "target": "all"},) for code in (1000, 1001, 1008, 1011)},
    "frozen for ever, one": ({"fault": "freeze", "target": -1, "seconds": 0},),
    "frozen for ever, all": ({"fault": "freeze", "target": "all", "seconds": 0},),
    "frozen for a second, all": ({"fault": "freeze", "target": "all", "seconds": 1},),
    "refused": ({"fault": "refuse", "seconds": 1.0}, CUT),
    **{
        f"handshake {status}": ({"fault": "handshake_status", "status": status, "retry_after": 1, "count": 1}, CUT)
        for status in (403, 418, 429, 451, 500, 503)
    },
    "handshake reset": ({"fault": "handshake_reset", "count": 2}, CUT),
    "handshake without an answer": ({"fault": "handshake_hang", "count": 2, "delay": 3.0}, CUT),
    "slow handshake": ({"fault": "handshake_slow", "count": 2, "delay": 0.5}, CUT),
    "10 MB": ({"fault": "big", "size": 10 << 20, "variant": "symbol", "target": "all"},),
    "serverShutdown": ({"fault": "shutdown", "seconds": 1, "target": "all"},),
    "24 hours": ({"fault": "age", "target": "all"},),
    "every malformed frame": ({"fault": "inject", "target": "all"},),
}
REST: dict[str, dict[str, Any]] = {
    **{
        f"HTTP {status}": {"fault": "rest_status", "status": status, "retry_after": 1, "count": 1}
        for status in (403, 418, 429, 451, 500, 503)
    },
    **{name: {"fault": f"rest_{name}", "count": 2} for name in ("reset", "truncated", "not_json", "empty", "error")},
    "bad row": {"fault": "rest_bad_row", "count": 1, "path": "historicalTrades"},
    "slow": {"fault": "rest_slow", "count": 1, "delay": 10.0},
    "no answer": {"fault": "rest_hang", "count": 1, "delay": 3.0},
    "down": {"fault": "rest_down", "seconds": 1.0},
    "lag": {"fault": "rest_lag", "lag": 1.0, "seconds": 1.5},
}


@pytest.mark.parametrize("fault", FRAMES)
def test_spoiled_frames(running: tuple[Rig, Capture], fault: str) -> None:
    """Frames that are lost, repeated, out of order, late or spoiled on both connections change nothing in the end."""
    rig, capture = running
    _strike(rig, {"fault": fault, "target": "all", "count": 20, "probability": 0.5, "delay": 0.4})
    _assert_survived(rig, capture)


def test_spoiled_frames_of_one_connection(running: tuple[Rig, Capture]) -> None:
    """What one connection spoils, in all of these ways at once, its sibling delivers."""
    rig, capture = running
    spoils = [{"fault": fault, "target": -1, "count": 20, "probability": 0.2, "delay": 0.4} for fault in FRAMES]
    _strike(rig, *spoils)
    _assert_survived(rig, capture)


@pytest.mark.parametrize("fault", CONNECTIONS)
def test_connections(running: tuple[Rig, Capture], fault: str) -> None:
    """However a connection ends, stalls or is refused, the next one goes on and the gap is filled."""
    rig, capture = running
    _strike(rig, *CONNECTIONS[fault])
    if fault.startswith("frozen for ever"):
        # Faults are not ended by the exchange: the capture must find the dead sockets by itself.
        frozen = {one["index"] for one in rig.exchange.state()["connections"] if one["frozen"]}
        wait_for(
            "the frozen connections are replaced",
            lambda: not frozen & {one["index"] for one in rig.exchange.state()["connections"]},
            WAIT_S_MAX,
        )
    _assert_survived(rig, capture)
    wait_for("both connections are up again", lambda: len(rig.exchange.state()["connections"]) == 2, WAIT_S_MAX)


@pytest.mark.parametrize("fault", REST)
def test_rest(running: tuple[Rig, Capture], fault: str) -> None:
    """Whatever REST answers while a gap is open, the gap is filled once REST is itself again."""
    rig, capture = running
    _strike(rig, REST[fault], LOST)
    _assert_survived(rig, capture)
    assert rig.exchange.state()["too_early"].get("rest", 0) == 0


def test_ids_that_rest_does_not_have(running: tuple[Rig, Capture]) -> None:
    """What REST jumps over silently stays an open gap with that reason, and is filled as soon as REST has it."""
    rig, capture = running
    rig.settle()
    first = rig.exchange.newest()["BTCUSDT"] + 50
    rig.exchange.fault("rest_hole", symbol="BTCUSDT", first=first, last=first + 200)
    wait_for("the tape is inside the hole", lambda: rig.exchange.newest()["BTCUSDT"] > first, WAIT_S_MAX)
    rig.exchange.fault("skip", count=30, target="all")
    wait_for("the gap is given up", lambda: any("not served" in gap[3] for gap in rig.open_gaps()), WAIT_S_MAX)
    compared = rig.compared()
    assert all(one.consistent for one in compared), "\n".join(map(str, compared))
    rig.settle()
    _assert_survived(rig, capture)


# The database.


@pytest.fixture
def doomed(killable_server: PrivateServer, tmp_path: Path) -> Iterator[tuple[Rig, Capture]]:
    """A capture with a database of its own, whose server may be killed."""
    with Rig(killable_server, tmp_path, FLAGS) as rig, rig.capture() as capture:
        rig.stores()
        yield rig, capture


def _log_has(capture: Capture, words: str) -> bool:
    return words in capture.process.log.read_text()


def test_the_database_server_dies_hangs_and_restarts(doomed: tuple[Rig, Capture]) -> None:
    """kill -9, a server that hangs longer than any time-out, killed connections, a restart: nothing is lost."""
    rig, capture = doomed
    server = rig.server
    assert isinstance(server, PrivateServer)
    server.kill()
    wait_for("trades wait on the disk", lambda: _log_has(capture, "they wait on the disk"), WAIT_S_MAX)
    server.start()
    _assert_survived(rig, capture)
    server.suspend()
    try:
        wait_for("the hang is noticed", lambda: _log_has(capture, "Lost connection"), WAIT_S_MAX)
        before = rig.exchange.newest()
        wait_for("the tape goes on", lambda: rig.exchange.newest()["BTCUSDT"] > before["BTCUSDT"] + 300, WAIT_S_MAX)
    finally:
        server.resume()
    _assert_survived(rig, capture)
    for _ in range(5):
        _kill_connections(rig)
        rig.stores()
    _assert_survived(rig, capture)
    server.stop()
    server.start()
    _assert_survived(rig, capture)


def _kill_connections(rig: Rig) -> None:
    with rig.server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (rig.database,))
        for (number,) in cursor.fetchall():
            with suppress(mysql.connector.Error):
                cursor.execute(f"KILL {number:d}")


def test_locks_and_deadlocks(doomed: tuple[Rig, Capture]) -> None:
    """A lock that is held for longer than the server waits, and a deadlock that the writer loses, are repeated."""
    rig, capture = doomed
    with rig.server.connect() as other, other.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {rig.database}.symbols FOR UPDATE")
        cursor.fetchall()
        wait_for("the lock is noticed", lambda: _log_has(capture, "Lock wait timeout"), WAIT_S_MAX)
        other.rollback()
        _assert_survived(rig, capture)
        cursor.execute(f"CREATE TABLE {rig.database}.heavy (number INT PRIMARY KEY, text CHAR(200) NOT NULL)")

        def deadlocked() -> bool:
            # Should the writer's wait time out before our second lock is asked for, there is no deadlock: once more.
            _cross_the_writers_locks(rig, cursor)
            other.rollback()
            return _log_has(capture, "Deadlock found")

        wait_for("the writer loses a deadlock", deadlocked, WAIT_S_MAX)
    _assert_survived(rig, capture)


def _cross_the_writers_locks(rig: Rig, cursor: Any) -> None:
    """Takes the writer's two locks in the other order, in a transaction that is costlier to undo than the writer's."""
    rows = ", ".join(f"({number}, '')" for number in range(20_000))
    cursor.execute(f"INSERT INTO {rig.database}.heavy VALUES {rows}")
    # The gap behind the newest trade, into which the writer inserts.
    cursor.execute(f"SELECT COUNT(*) FROM {rig.database}.trades WHERE timestamp > '2020-01-01' FOR UPDATE")
    cursor.fetchall()

    def waits() -> bool:
        # The server brings this table up to date only when nobody has read it for 0.1 s.
        time.sleep(0.15)
        return bool(rig.rows("SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"))

    wait_for("the writer waits for us", waits, WAIT_S_MAX)
    cursor.execute(f"SELECT * FROM {rig.database}.symbols FOR UPDATE")
    cursor.fetchall()


def test_a_server_that_is_read_only_for_a_while(killable_server: PrivateServer, tmp_path: Path) -> None:
    """While the server takes no writes the trades wait on the disk; they are stored when it does again."""
    variable = "read_only" if killable_server.family == "mariadb" else "super_read_only"
    with killable_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER 'capture'@'127.0.0.1' IDENTIFIED BY 'secret'")
        rights = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, CREATE VIEW"
        cursor.execute(f"GRANT {rights} ON `rig\\_%`.* TO 'capture'@'127.0.0.1'")
        with (
            Rig(killable_server, tmp_path, FLAGS) as rig,
            rig.capture(MYSQL_USER="capture", MYSQL_PASSWORD="secret") as capture,
        ):
            rig.stores()
            cursor.execute(f"SET GLOBAL {variable} = 1")
            wait_for("it is noticed", lambda: _log_has(capture, "option so it cannot execute"), WAIT_S_MAX)
            cursor.execute(f"SET GLOBAL {variable} = 0")
            cursor.execute("SET GLOBAL read_only = 0")
            _assert_survived(rig, capture)
            assert "secret" not in capture.process.log.read_text()


def test_a_server_without_space(killable_server: PrivateServer, tmp_path: Path) -> None:
    """A full tablespace refuses the trades, which wait on the disk; with space again all of them are stored."""
    server = killable_server
    _limit_space(server, "autoextend:max:14M")
    with Rig(server, tmp_path, FLAGS) as rig, rig.capture() as capture:
        rig.stores()
        _use_up_space(rig)
        wait_for("there is no space", lambda: _log_has(capture, "is full"), WAIT_S_MAX)
        assert capture.running()
        _limit_space(server, "autoextend")
        _assert_survived(rig, capture)


def _use_up_space(rig: Rig) -> None:
    with rig.server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {rig.database}.ballast (text LONGBLOB NOT NULL)")
        connection.autocommit = True
        for size in (1 << 20, 1 << 15, 1 << 12):
            with suppress(mysql.connector.Error):
                while True:
                    cursor.execute(f"INSERT INTO {rig.database}.ballast VALUES (REPEAT('x', {size}))")


def _limit_space(server: PrivateServer, how: str) -> None:
    """Restarts the server with all tables in one file that may grow as `how` says."""
    server.stop()
    server._command = [
        option for option in server._command if "innodb-data-file" not in option and "per-table" not in option
    ]
    server._command += [f"--innodb-data-file-path=ibdata1:12M:{how}", "--innodb-file-per-table=0"]
    server.start()


def test_a_dropped_database_is_fatal_and_clear(doomed: tuple[Rig, Capture]) -> None:
    """The capture ends with one line and exit code 2; what it had goes into the new database at the next start."""
    rig, capture = doomed
    with rig.server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {rig.database}")
    assert capture.process.wait(WAIT_S_MAX) == 2
    last = capture.process.log.read_text().splitlines()[-1]
    assert last.startswith("ws_client.py: ")
    assert "MYSQL_DATABASE" in last
    capture.start()
    rig.settle()
    assert "recovered 0" not in capture.stop()


# The process.


def test_killed_at_random_moments(any_server: Server, tmp_path: Path) -> None:
    """kill -9, ten times, with the database refusing for the first moments of each run: nothing is lost or doubled."""
    rng = random.Random(20240808)
    with Rig(any_server, tmp_path, FLAGS) as rig, rig.capture(AWAY_S="0.3") as capture:
        rig.stores()
        for _ in range(10):
            time.sleep(rng.uniform(0.0, 0.9))
            capture.kill()
            capture.start()
        rig.settle()


STATEMENTS = (
    "SELECT symbol, token",
    "INSERT INTO trades",
    "REPLACE INTO gaps",
    "UPDATE symbols SET fence",
    "INSERT INTO candles",
    "UPDATE symbols SET fence = IF(",
    "COMMIT",
)
POINTS = (
    *(f"{when} 3 {statement}" for statement in STATEMENTS for when in ("before", "after")),
    *(f"{when} 1 {step}" for step in ("append", "unlink") for when in ("before", "after")),
)


def test_killed_at_every_boundary(server: Server, tmp_path: Path) -> None:
    """Death before or after any statement of a transaction, or step of the spool, leaves nothing half done."""
    with Rig(server, tmp_path, FLAGS) as rig:
        rig.exchange.fault("skip", seconds=200, probability=0.02, target="all")
        for number, point in enumerate(POINTS):
            spooling = "0.3" if point.endswith(("append", "unlink")) else ""
            with rig.capture(name=f"dying-{number}", DIE_AT=point, AWAY_S=spooling) as capture:
                assert capture.process.wait(WAIT_S_MAX) == -signal.SIGKILL, point
            compared = rig.compared() if any(rig.newest_stored().values()) else []
            assert all(one.consistent for one in compared if one.stored), f"{point}: {compared}"
        with rig.capture():
            rig.settle()


def test_suspended_and_stopped_under_load(any_server: Server, tmp_path: Path) -> None:
    """SIGSTOP for longer than the exchange waits for a pong, then SIGTERM under load and a new start."""
    flags = ("--rate", "2000", "--ping-interval", "0.3", "--pong-timeout", "1")
    with Rig(any_server, tmp_path, flags) as rig, rig.capture() as capture:
        rig.stores()
        capture.process.send(signal.SIGSTOP)
        wait_for("the exchange gives up", lambda: not rig.exchange.state()["connections"], WAIT_S_MAX)
        capture.process.send(signal.SIGCONT)
        _assert_survived(rig, capture)
        summary = capture.stop()
        assert "left over 0" in summary
        capture.start()
        rig.settle()


def test_the_clock_steps(any_server: Server, tmp_path: Path) -> None:
    """An hour ahead and an hour back, with gaps open: they are filled all the same, and soon."""
    with Rig(any_server, tmp_path, FLAGS) as rig, rig.capture() as capture:
        rig.stores()
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR2, signal.SIGUSR1):
            rig.exchange.fault("rest_down", seconds=0.5)
            _strike(rig, LOST)
            capture.process.send(number)
            _assert_survived(rig, capture)
        (stepped,) = rig.rows("SELECT MAX(received_at) > MAX(timestamp) + INTERVAL 50 MINUTE FROM {}.trades")
        assert stepped == (1,)


def test_no_space_under_data_dir(killable_server: PrivateServer, tmp_path: Path) -> None:
    """With the database away and no room for the spool, memory serves to its bound; what it drops is filled later."""
    patches = QUICK | {"capture.inbox.QUEUE_TRADES_MAX": 500}
    with Rig(killable_server, tmp_path, ("--rate", "800")) as rig, rig.capture(patches=patches) as capture:
        rig.stores()
        # A bound on the size of the process's files is what a full disk looks like from inside.
        no_limit = resource.prlimit(capture.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(capture.process.pid, resource.RLIMIT_FSIZE, (20_000, no_limit[1]))
        killable_server.kill()
        wait_for("the spool is full", lambda: _log_has(capture, "the spool takes nothing"), WAIT_S_MAX)
        before = rig.exchange.newest()["BTCUSDT"]
        wait_for("more is traded than fits", lambda: rig.exchange.newest()["BTCUSDT"] > before + 900, WAIT_S_MAX)
        killable_server.start()
        resource.prlimit(capture.process.pid, resource.RLIMIT_FSIZE, no_limit)
        _assert_survived(rig, capture)
        summary = capture.stop()
        assert "dropped 0" not in summary
