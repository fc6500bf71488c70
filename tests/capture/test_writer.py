"""The writer against real servers: whatever happens to them, the tables end equal to what was received."""

import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import mysql.connector
import pytest

import config
import db
from capture import spool, writer
from capture.inbox import BATCH_TRADES_MIN, QUEUE_TRADES_MAX, Inbox
from capture.rejects import Rejects
from capture.writer import Writer
from model.gaps import NOT_SERVED
from model.trade import Trade
from process import retry
from storage import retained, session, values
from tests.makers import RECEIVED, stream, streamed
from tests.support import servers
from tests.support.child import wait_until
from tests.support.retained import DAY, START, day_of, move, trades_of
from tests.support.servers import PrivateServer, Server

pytestmark = pytest.mark.slow

SYMBOLS = ("BTCUSDT", "ETHUSDT")
WAIT_S = 30.0
READ_TRADES = 300
"""What one read of a busy socket brings."""


class Run:
    """A writer that runs until the block ends, and what was put into its inbox."""

    def __init__(self, settings: config.Settings, size_max: int = QUEUE_TRADES_MAX) -> None:
        settings.capture_dir.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.verdicts: Counter[str] = Counter()
        self.rejects = Rejects(settings.capture_dir)
        self.inbox = Inbox(size_max)
        self.writer = Writer(settings, self.inbox, self.rejects)

    def __enter__(self) -> "Run":
        self.rejects.start()
        self.writer.start()
        assert self.writer.ready.wait(WAIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def put(self, trades: Sequence[Trade]) -> None:
        """Hands trades over, as a callback does."""
        for start in range(0, len(trades), READ_TRADES):
            self.verdicts.update(self.inbox.put(trades[start : start + READ_TRADES])._asdict())

    def stop(self) -> None:
        """Stops the writer as the capture does, and checks the identity of the counters."""
        if self.writer.is_alive():
            self.inbox.stop()
            self.writer.join(WAIT_S + 30)
        assert not self.writer.is_alive()
        self.rejects.close()
        self.check()

    def check(self) -> None:
        """parsed = inserted + duplicate + dropped + left over."""
        end = self.writer
        assert self.verdicts.total() == self.settled_trades() + end.left_over
        assert end.taken == end.inserted + end.duplicate + end.refused + end.left_over - len(self.inbox)

    def settled_trades(self) -> int:
        """How many trades are inserted, duplicate or dropped."""
        end, seen = self.writer, self.verdicts
        return end.inserted + end.duplicate + end.refused + seen["repeated"] + seen["dropped"]

    def settled(self) -> bool:
        """Whether nothing waits, in memory, on the disk, or in the writer's hands between the two."""
        counted = self.settled_trades() == self.verdicts.total()
        return self.writer.online and counted and self.writer.left_over == 0 and not spool_files(self.settings)

    def settle(self) -> None:
        """Waits until everything is stored."""
        wait_until(self.settled, WAIT_S)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait of this file is a real one: back-offs and lock waits are short. The time-outs are the real ones: a busy
    machine may let a server that is there wait for seconds."""
    monkeypatch.setattr(retry, "BACKOFF_S_MIN", 0.01)
    monkeypatch.setattr(retry, "BACKOFF_S_MAX", 0.1)
    monkeypatch.setattr(writer, "NOT_WRITABLE_S_MIN", 0.1)
    monkeypatch.setattr(writer, "IDLE_S_MAX", 0.05)
    monkeypatch.setattr(session, "LOCK_WAIT_S_MAX", 1)


def stored(settings: config.Settings) -> list[Trade]:
    """Every row, in order of symbol and id."""
    connection = db.connect(settings)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(Trade._fields)} FROM trades ORDER BY symbol, trade_id")
        rows = [values.trade_of(list(row)) for row in cursor.fetchall()]
    db.close(connection)
    return rows


def open_gaps(settings: config.Settings) -> list[tuple[str, int, int, str]]:
    """The open gaps: symbol, first and last id, reason."""
    connection = db.connect(settings)
    found = [(gap.symbol, gap.first_trade_id, gap.last_trade_id, gap.reason) for gap in db.open_gaps(connection)]
    db.close(connection)
    return found


def execute(server: Server, *statements: str) -> None:
    """Statements of an administrator; what they return is not looked at."""
    with server.connect() as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in statements:
            cursor.execute(statement)
            cursor.fetchall()


def spool_files(settings: config.Settings) -> list[Path]:
    """What waits on the disk."""
    return sorted((settings.capture_dir / "spool").glob("*.spool"))


def kill_connections(server: Server) -> int:
    """Ends every other connection to the server; how many there were."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'root' AND id <> CONNECTION_ID()")
        found = [row[0] for row in cursor.fetchall()]
        ended = 0
        for number in found:
            try:
                cursor.execute(f"KILL CONNECTION {number}")
                ended += 1
            except mysql.connector.Error:
                # It has ended by itself meanwhile.
                continue
        return ended


class Door:
    """The way to a server: a name for its socket, which can be taken away, together with all connections."""

    def __init__(self, server: Server, name: Path) -> None:
        self._server = server
        self._name = name

    def close(self) -> None:
        """Nobody reaches the server any more."""
        self._name.unlink()
        kill_connections(self._server)

    def open(self) -> None:
        """The server can be reached."""
        self._name.symlink_to(str(self._server.socket_path))


@pytest.fixture
def door(server: Server, settings: config.Settings) -> Iterator[tuple[Door, config.Settings]]:
    """An open way to the server, and the settings that go that way: an outage that costs no start of a server."""
    if server.socket_path is None:
        pytest.skip("the server has no Unix socket")
    with servers.short_folder() as folder:
        way = Door(server, folder / "door")
        way.open()
        yield way, settings._replace(mysql_unix_socket=str(folder / "door"))


# Storing.


def test_what_comes_is_stored_field_by_field(settings: config.Settings) -> None:
    """Two symbols, repetitions and a shuffled order; the counters say what became of each."""
    with Run(settings) as run:
        batch = stream(1, 500) + stream(1, 300, "ETHUSDT")
        run.put([*batch[::-1], *batch[:100]])
        run.settle()
    # The writer counts a batch for the line of the log a moment after it was stored.
    assert run.writer.stats.take(["BTCUSDT"], 1)[0].trades == 500
    assert stored(settings) == batch
    assert open_gaps(settings) == []
    assert (run.writer.inserted, run.writer.duplicate, run.verdicts["repeated"]) == (800, 0, 100)
    assert (run.writer.spooled, run.writer.recovered, run.writer.gaps_opened) == (0, 0, 0)
    assert spool_files(settings) == []


def test_a_trade_that_was_stored_by_another_run_is_a_duplicate(settings: config.Settings) -> None:
    """It is counted as such, and the row stays as it was."""
    with Run(settings) as run:
        run.put(stream(1, 10))
    with Run(settings) as run:
        run.put([each._replace(received_at=RECEIVED) for each in stream(1, 20)])
    assert (run.writer.inserted, run.writer.duplicate) == (10, 10)
    assert stored(settings)[:10] == stream(1, 10)


def test_a_jump_is_a_gap_and_a_stop_is_one_too(settings: config.Settings) -> None:
    """What is missing in the stream, and what traded while nobody captured, with the reason of each."""
    with Run(settings) as run:
        run.put(stream(1, 10))
        run.settle()
        run.put(stream(15, 5))
        run.settle()
    assert run.writer.gaps_opened == 1
    with Run(settings) as run:
        run.put(stream(25, 5))
        run.settle()
        run.put(stream(35, 5))
    assert open_gaps(settings) == [
        ("BTCUSDT", 11, 14, "missing in the stream"),
        ("BTCUSDT", 20, 24, "capture was not running"),
        ("BTCUSDT", 30, 34, "missing in the stream"),
    ]


def test_nothing_to_store_is_no_error(settings: config.Settings) -> None:
    """A run in which no trade comes."""
    with Run(settings) as run:
        pass
    assert stored(settings) == []
    assert run.writer.failure is None


def test_all_that_was_put_before_the_stop_is_stored(settings: config.Settings) -> None:
    """Several batches wait when the stop comes."""
    with Run(settings) as run:
        run.put(stream(1, 3 * BATCH_TRADES_MIN))
    assert len(stored(settings)) == 3 * BATCH_TRADES_MIN
    assert run.writer.left_over == 0


# The database's faults.


def test_a_server_that_is_killed_and_stopped_and_started_loses_nothing(
    killable_server: PrivateServer, tmp_path: Path
) -> None:
    """kill -9 under load, a start, an orderly stop under load, a start: each trade once."""
    settings = killable_server.settings("binance", tmp_path)
    with Run(settings) as run:
        for number, end in enumerate((killable_server.kill, killable_server.stop)):
            first = 10_000 * number
            run.put(stream(first + 1, 3_000))
            end()
            run.put(stream(first + 3_001, 3_000))
            # A batch is out of the inbox for a while before it is on the disk.
            wait_until(lambda: not run.writer.online and len(run.inbox) == 0 and run.writer.spooled > 0, WAIT_S)
            wait_until(lambda: run.writer.left_over >= 3_000, WAIT_S)
            killable_server.start()
            run.put(stream(first + 6_001, 4_000))
            run.settle()
            assert spool_files(settings) == []
    assert stored(settings) == stream(1, 20_000)
    assert open_gaps(settings) == []
    assert (run.writer.refused, run.verdicts["dropped"], run.writer.failure) == (0, 0, None)


def test_a_server_that_hangs_is_given_up_and_taken_back(
    killable_server: PrivateServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP in the middle of a statement: the time-out ends it, the disk takes over, and nothing comes twice."""
    monkeypatch.setattr(session, "WRITE_S_MAX", 2)
    monkeypatch.setattr(session, "CONNECT_S_MAX", 2)
    settings = killable_server.settings("binance", tmp_path)
    with Run(settings) as run:
        run.put(stream(1, 100))
        run.settle()
        killable_server.suspend()
        try:
            run.put(stream(101, 5_000))
            wait_until(lambda: run.writer.spooled > 0, WAIT_S)
        finally:
            killable_server.resume()
        run.settle()
    assert stored(settings) == stream(1, 5_100)
    assert open_gaps(settings) == []


def test_the_server_is_away_at_the_start(door: tuple[Door, config.Settings]) -> None:
    """The capture begins all the same; the trades wait on the disk."""
    way, settings = door
    way.close()
    with Run(settings) as run:
        run.put(stream(1, 100))
        wait_until(lambda: run.writer.spooled == 100)
        way.open()
        run.settle()
    assert stored(settings) == stream(1, 100)


def test_a_server_that_stays_away_leaves_the_trades_on_the_disk(door: tuple[Door, config.Settings]) -> None:
    """The end does not wait for it for ever, the summary counts what is left, and the next run stores it first."""
    way, settings = door
    way.close()
    with Run(settings) as run:
        run.put(stream(1, 100))
    assert (run.writer.left_over, run.writer.inserted) == (100, 0)
    assert len(spool_files(settings)) == 1
    way.open()
    with Run(settings) as later:
        later.put(stream(101, 10))
    assert (later.writer.recovered, later.writer.inserted, later.writer.left_over) == (100, 10, 0)
    assert stored(settings) == stream(1, 110)
    assert open_gaps(settings) == []
    assert spool_files(settings) == []


def test_connections_that_are_killed_lose_and_double_nothing(server: Server, settings: config.Settings) -> None:
    """Under load, again and again."""
    with Run(settings) as run:
        for first in range(1, 20_000, 1_000):
            run.put(stream(first, 1_000))
            # The writer may be about to connect again.
            wait_until(lambda: kill_connections(server) > 0, WAIT_S)
        run.settle()
    assert stored(settings) == stream(1, 20_000)
    assert open_gaps(settings) == []
    assert run.writer.inserted + run.writer.duplicate == 20_000


@pytest.fixture
def plain_user(server: Server, settings: config.Settings) -> Iterator[config.Settings]:
    """Settings of a user that may do everything in the database, and nothing else."""
    if server.family == "environment":
        pytest.skip("the server that MYSQL_* names is not ours to change")
    name = settings.mysql_database
    user = f"u{name[-8:]}"
    execute(
        server,
        f"CREATE DATABASE {name}",
        f"CREATE USER '{user}'@'localhost' IDENTIFIED BY 'secret'",
        f"GRANT ALL PRIVILEGES ON {name}.* TO '{user}'@'localhost'",
    )
    yield settings._replace(mysql_user=user, mysql_password="secret")
    execute(server, f"DROP USER '{user}'@'localhost'")


@pytest.mark.parametrize("mode", ["read_only", "super_read_only"])
def test_a_read_only_server_is_waited_for(server: Server, plain_user: config.Settings, mode: str) -> None:
    """As after a switch to a replica: the trades wait, and the connection that is there need not end."""
    if mode == "super_read_only" and server.family != "mysql":
        pytest.skip("MariaDB has no super_read_only")
    with Run(plain_user) as run:
        run.put(stream(1, 100))
        run.settle()
        execute(server, f"SET GLOBAL {mode} = 1")
        try:
            run.put(stream(101, 1_000))
            wait_until(lambda: run.writer.spooled == 1_000)
            assert run.writer.failure is None
        finally:
            execute(server, "SET GLOBAL read_only = 0")
        run.settle()
    assert stored(plain_user) == stream(1, 1_100)


def test_a_lock_that_is_held_is_waited_for(server: Server, settings: config.Settings) -> None:
    """Someone holds the row of the symbol for longer than the lock wait: the trades go over the disk."""
    with Run(settings) as run:
        run.put(stream(1, 10))
        run.settle()
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {settings.mysql_database}.symbols FOR UPDATE")
            cursor.fetchall()
            run.put(stream(11, 1_000))
            wait_until(lambda: run.writer.spooled > 0)
            assert run.writer.online
        run.settle()
    assert stored(settings) == stream(1, 1_010)
    assert run.writer.refused == 0


def test_a_dropped_schema_is_fatal_and_clear_and_nothing_is_lost(server: Server, settings: config.Settings) -> None:
    """Failure names the setting; what comes goes to the disk; a new start makes the schema and stores it."""
    with Run(settings) as run:
        run.put(stream(1, 10))
        run.settle()
        execute(server, f"DROP DATABASE {settings.mysql_database}")
        run.put(stream(11, 500))
        wait_until(lambda: run.writer.failure is not None)
        assert "MYSQL_DATABASE" in str(run.writer.failure)
        assert "\n" not in str(run.writer.failure)
        run.put(stream(511, 500))
    assert run.writer.left_over == 1_000
    with Run(settings) as later:
        pass
    assert later.writer.recovered == 1_000
    assert stored(settings) == stream(11, 1_000)


@pytest.mark.parametrize("positions", [(0,), (999,), (5, 6, 500), tuple(range(0, 1_000, 50))])
def test_poison_goes_to_the_rejects_and_its_batch_goes_on(
    server: Server, settings: config.Settings, positions: tuple[int, ...]
) -> None:
    """A trade that the database refuses for good, alone, in pairs, at the ends; its id is missing and says so."""
    with Run(settings):
        pass
    execute(server, f"ALTER TABLE {settings.mysql_database}.trades ADD CONSTRAINT cheap CHECK (price < 100000)")
    batch = [streamed(n + 2, price="666666" if n in positions else "1") for n in range(1_000)]
    with Run(settings) as run:
        run.put([streamed(1), *batch, streamed(1_002)])
        run.settle()
    assert run.writer.refused == len(positions)
    assert stored(settings) == [streamed(1), *(each for each in batch if each.price == 1), streamed(1_002)]
    kept = (settings.capture_dir / "rejects.jsonl").read_text().splitlines()
    assert len(kept) == len(positions)
    assert all("the database refuses it" in line and "666666" in line and "cheap" in line for line in kept)
    missing = [n for _, first, last, _ in open_gaps(settings) for n in range(first, last + 1)]
    assert missing == [n + 2 for n in positions]


def test_poison_in_the_spool_does_not_stop_the_rest(server: Server, door: tuple[Door, config.Settings]) -> None:
    """Refused when it is replayed; all others are stored, and the disk is empty."""
    way, settings = door
    with Run(settings):
        pass
    execute(server, f"ALTER TABLE {settings.mysql_database}.trades ADD CONSTRAINT cheap CHECK (price < 100000)")
    way.close()
    with Run(settings) as run:
        run.put([*stream(1, 50), streamed(51, price="666666"), *stream(52, 50)])
        wait_until(lambda: run.writer.spooled == 101)
        way.open()
        run.settle()
    assert (run.writer.refused, run.writer.inserted) == (1, 100)
    assert stored(settings) == stream(1, 50) + stream(52, 50)


@pytest.mark.parametrize("is_spooled", [False, True], ids=["at once", "spooled"])
def test_trades_of_a_day_that_has_left_the_table_do_not_stop_the_rest(
    door: tuple[Door, config.Settings],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_spooled: bool,
) -> None:
    """They are set aside, with words that name the way out, and stay missing; repeats are passed over, and all others
    are stored."""
    monkeypatch.setattr(retained, "KNOWN_S_MAX", -1.0)
    way, settings = door
    with Run(settings):
        connection = db.connect(settings)
        for symbol, lost in (("BTCUSDT", (150, 152)), ("ETHUSDT", (160, 160))):
            before = [one for number in range(2) for one in trades_of(number, symbol)] + trades_of(2, symbol)[:1]
            db.insert_trades(connection, [one for one in before if not lost[0] <= one.trade_id <= lost[1]])
            db.give_up(connection, symbol, *lost, NOT_SERVED)
            db.seal_history(connection, symbol)
            move(connection, 1, symbol)
        db.close(connection)
    with Run(settings) as run:
        if is_spooled:
            way.close()
            run.put(trades_of(0)[:1])
            wait_until(lambda: run.writer.spooled == 1)
        late = [*trades_of(1)[40:60], trades_of(2)[1], trades_of(1, "ETHUSDT")[59]]
        run.put([*late, streamed(203, price="1E+20")._replace(timestamp=START + 2.9 * DAY), *trades_of(3)])
        if is_spooled:
            wait_until(lambda: run.writer.spooled == 1 + len(late) + 101)
            way.open()
        run.settle()
    assert (run.writer.refused, run.writer.inserted, run.writer.duplicate) == (5, 101, 17 + is_spooled)
    assert [each.trade_id for each in stored(settings) if each.symbol == "BTCUSDT"] == [
        *range(1, 101),
        *(201, 202),
        *range(301, 401),
    ]
    assert [gap[:3] for gap in open_gaps(settings)] == [
        ("BTCUSDT", 150, 152),
        ("BTCUSDT", 203, 300),
        ("ETHUSDT", 160, 160),
    ]
    kept = (settings.capture_dir / "rejects.jsonl").read_text()
    assert kept.count(f"tools.restore --symbol BTCUSDT --day {day_of(1)}") == 3
    assert kept.count(f"tools.restore --symbol ETHUSDT --day {day_of(1)}") == 1
    words = [record.message for record in caplog.records if "tools.restore" in record.message]
    assert ["trade 150 and 2 more are" in one for one in words] == [True, False]


# The disk's faults.


def test_a_corrupt_line_of_an_earlier_run_becomes_a_gap(settings: config.Settings) -> None:
    """The line is kept among the rejects, its id is missing, and this run's counters are its own."""
    settings.capture_dir.mkdir(parents=True, exist_ok=True)
    before = spool.Spool(settings.capture_dir / "spool")
    before.append(stream(1, 100))
    before.close()
    (segment,) = spool_files(settings)
    segment.write_bytes(segment.read_bytes().replace(b'",50,"', b'",51,"', 1))
    with Run(settings) as run:
        run.put(stream(101, 10))
    assert (run.writer.recovered, run.writer.inserted, run.writer.refused) == (99, 10, 0)
    assert [each.trade_id for each in stored(settings)] == [n for n in range(1, 111) if n != 50]
    assert [gap[1:3] for gap in open_gaps(settings)] == [(50, 50)]
    assert "spool" in (settings.capture_dir / "rejects.jsonl").read_text()
    assert spool_files(settings) == []


def _full(_self: object, _trades: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_disk_and_database_memory_is_bounded_and_the_rest_is_counted(
    door: tuple[Door, config.Settings], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The inbox fills to its bound, then trades are dropped and counted; later their ids are gaps. One line says so."""
    way, settings = door
    with Run(settings, size_max=1_000) as run:
        run.put(stream(1, 10))
        run.settle()
        with monkeypatch.context() as patch:
            patch.setattr(spool.Spool, "append", _full)
            way.close()
            run.put(stream(11, 100))
            wait_until(lambda: not run.writer.online and len(run.inbox) == 0)
            run.put(stream(111, 3_000))
            assert len(run.inbox) <= 1_000
            assert run.verdicts["dropped"] >= 2_000
            assert not spool_files(settings)
            way.open()
            run.settle()
        run.put(stream(5_000, 10))
    kept = list(range(1, 111 + 3_000 - run.verdicts["dropped"]))
    assert [each.trade_id for each in stored(settings)] == kept + list(range(5_000, 5_010))
    assert [gap[1:3] for gap in open_gaps(settings)] == [(kept[-1] + 1, 4_999)]
    assert sum("the spool takes nothing" in record.message for record in caplog.records) == 1


def test_a_full_disk_alone_loses_nothing(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the database there, the disk is not needed."""
    monkeypatch.setattr(spool.Spool, "append", _full)
    with Run(settings) as run:
        run.put(stream(1, 1_000))
        run.settle()
    assert stored(settings) == stream(1, 1_000)


def test_a_stop_without_disk_and_database_ends_and_counts(
    door: tuple[Door, config.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be done for the trades in memory: the writer ends soon all the same."""
    way, settings = door
    monkeypatch.setattr(spool.Spool, "append", _full)
    way.close()
    with Run(settings) as run:
        run.put(stream(1, 10))
        wait_until(lambda: len(run.inbox) == 0)
        run.put(stream(11, 10))
        run.inbox.stop()
        run.writer.join(WAIT_S)
        assert not run.writer.is_alive()
    assert run.writer.left_over == 20


def test_a_stop_drains_memory_when_the_database_returns_in_time(
    door: tuple[Door, config.Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full disk, several batches wait in memory when the stop comes, and the last try succeeds."""
    way, settings = door
    monkeypatch.setattr(spool.Spool, "append", _full)
    way.close()
    with Run(settings) as run:
        monkeypatch.setattr(writer, "backoff_s", lambda _attempt: 1_000.0)
        run.put(stream(1, 10))
        wait_until(lambda: len(run.inbox) == 0 and run.writer._retry_at > time.monotonic() + 100)
        run.put(stream(11, 2 * BATCH_TRADES_MIN))
        way.open()
    assert run.writer.left_over == 0
    assert len(stored(settings)) == 10 + 2 * BATCH_TRADES_MIN


# Defects.


def test_a_defect_is_said_and_what_is_in_memory_goes_to_the_disk(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody expected ends the storing, not the keeping, even if the end was asked for before it."""

    with Run(settings) as run:

        def defect(*_arguments: Any) -> int:
            # Meanwhile the rest of the trades and the message to stop are in the inbox.
            wait_until(lambda: run.inbox.stop_asked)
            raise ZeroDivisionError("a defect")

        run.put(stream(1, 10))
        run.settle()
        with monkeypatch.context() as patch:
            patch.setattr(db, "insert_acceptable", defect)
            run.put(stream(11, 10))
            wait_until(lambda: len(run.inbox) == 0)
            run.put(stream(21, 10))
            run.stop()
    assert "a defect" in str(run.writer.failure)
    assert run.writer.left_over == 20
    with Run(settings) as later:
        pass
    assert later.writer.recovered == 20
    assert stored(settings) == stream(1, 30)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("moment", ["commit", "done"])
def test_a_crash_around_the_removal_of_a_segment_doubles_nothing(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Ended right after the commit, or right after the removal: the next run finds each trade once."""
    settings.capture_dir.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(spool, "REPLAY_BYTES_MAX", 5_000)
    before = spool.Spool(settings.capture_dir / "spool")
    before.append(stream(1, 300))
    before.close()
    real = spool.Spool.done

    def crash(store: spool.Spool) -> None:
        if moment == "done":
            real(store)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(spool.Spool, "done", crash)
        run = Run(settings)
        run.rejects.start()
        run.writer.start()
        run.writer.join(WAIT_S)
        run.rejects.close()
    assert 0 < len(stored(settings)) < 300
    with Run(settings):
        pass
    assert stored(settings) == stream(1, 300)
    assert spool_files(settings) == []


def test_the_steps_back_by_the_class_of_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first repetition is at once, the next ones wait longer; a full server longer still; a fatal one for ever."""
    now = [100.0]
    monkeypatch.setattr(writer, "NOT_WRITABLE_S_MIN", 5.0)
    monkeypatch.setattr(retry, "BACKOFF_S_MIN", 0.5)
    monkeypatch.setattr(retry, "BACKOFF_S_MAX", 30.0)
    monkeypatch.setattr(writer, "jittered", lambda wait_s: wait_s)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def waits(errors: Sequence[db.DatabaseError]) -> list[float]:
        subject = Writer(config.Settings(data_dir=tmp_path), Inbox(), Rejects(tmp_path))
        found = []
        for error in errors:
            subject._step_back(error)
            found.append(subject._retry_at - now[0])
        return found

    gone: Callable[[], db.DatabaseError] = lambda: db.GoneError("x")  # noqa: E731
    assert waits([gone() for _ in range(10)]) == [0.0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert waits([db.NotWritableError("x")] * 6) == [5.0, 5, 5, 5, 5, 8]
    assert waits([db.ContentionError("x"), db.DatabaseError("x")]) == [0.0, 0.5]
    assert waits([db.FatalError("x")]) == [float("inf")]
    # What a server refuses for weeks is tried at the same pace for weeks.
    assert waits([db.DatabaseError("x")] * 2_000)[-1] == writer.REFUSED_S_MAX
