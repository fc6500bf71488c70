"""What goes wrong between a program and its database, with real servers: which error it is, and what is left."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

import config
import db
from model.trade import Trade
from storage import errors, session
from tests.makers import MIDNIGHT, trade
from tests.support.servers import PrivateServer, Server
from tests.support.tables import ask

pytestmark = pytest.mark.slow

QUICK_S_MAX = float(session.WRITE_S_MAX)
"""A server that does not answer is known to be gone within that time, the usual limit, where the limit is a second."""
WAIT_S_MAX = 20.0
STATEMENTS_MAX = 30
"""More than the transaction of a batch has."""


@pytest.fixture
def root(server: Server, database: str) -> Iterator[Any]:
    """The operator's connection: no database, every right."""
    with closing(server.connect()) as opened:
        opened.autocommit = True
        yield opened


def stored_ids(connection: Any, database: str) -> list[int]:
    """The ids of all trades of `database`."""
    return [number for (number,) in ask(connection, f"SELECT trade_id FROM {database}.trades ORDER BY trade_id")]


# ---- The table of numbers.

KINDS = [
    (
        db.GoneError,
        [1040, 1053, 1158, 1159, 1160, 1161, 1203, 1317, 1927, 2002, 2003, 2005, 2006, 2013, 2055, 3168, 1153, 1969],
    ),
    (db.GoneError, [3024, 3169, 4031, 1047, 1129, 1226, 2026]),
    (db.ContentionError, [1205, 1062, 1213, 1020, 3572, 8002, 8022, 9007]),
    (db.NotWritableError, [3, 28, 1021, 1026, 1030, 1036, 1037, 1114, 1290, 1792, 1836, 3675]),
    (db.RefusedError, [1048, 1264, 1265, 1292, 1366, 1406, 1690, 3819, 4025]),
    (db.FatalError, [1044, 1046, 1049, 1054, 1142, 1146]),
    (db.AccessError, [1045, 1130, 1251, 1698, 1820, 1862, 2059, 2061, 3118, 3159, 4151]),
]


@pytest.mark.parametrize(
    ("kind", "errno"),
    [(kind, errno) for kind, errnos in KINDS for errno in errnos],
    ids=[f"{errno}" for _, errnos in KINDS for errno in errnos],
)
def test_each_number_has_its_class(kind: type[db.DatabaseError], errno: int) -> None:
    """What to do about an error is its class, and its message has the server's words and its number."""
    raised = _guarded(errno, "so it said")

    assert type(raised) is kind
    assert str(raised).startswith(f"so it said (error {errno})")
    assert isinstance(raised.__cause__, mysql.connector.Error)


def test_the_numbers_of_a_full_disk_are_worth_a_slow_retry() -> None:
    """A full disk, a full table and a read-only server go away some day, so nothing is thrown away because of them."""
    words = {
        3: "Error writing file '/tmp/x' (Errcode: 28 - No space left on device)",
        1021: "Disk full (/tmp/x); waiting for someone to free some space...",
        1026: "Error writing file './binance/trades' (errno: 28 - No space left on device)",
        1030: "Got error 28 - No space left on device from storage engine InnoDB",
        1114: "The table 'trades' is full",
        1290: "The MySQL server is running with the --read-only option so it cannot execute this statement",
    }
    for errno, text in words.items():
        raised = _guarded(errno, text)

        assert type(raised) is db.NotWritableError
        assert text in str(raised)


def test_an_unknown_number_is_no_class_of_its_own() -> None:
    """A number that nobody thought of is the base class, which no loop retries."""
    assert type(_guarded(1064, "You have an error in your SQL syntax")) is db.DatabaseError
    assert type(_raised(mysql.connector.ProgrammingError("Not all parameters were used"))) is db.DatabaseError


def test_a_driver_that_has_lost_its_connection_is_gone() -> None:
    """The driver's own 'not connected' has no number, and means that the connection is dead."""
    assert type(_raised(mysql.connector.OperationalError("MySQL Connection not available."))) is db.GoneError


def _guarded(errno: int, text: str) -> db.DatabaseError:
    """What the guard makes of a number, which the driver itself sorts into one of its own classes."""
    return _raised(mysql.connector.errors.get_mysql_exception(errno, msg=text, sqlstate="HY000"))


def _raised(error: Any) -> db.DatabaseError:
    @errors.guard
    def fail() -> None:
        raise error

    with pytest.raises(db.DatabaseError) as caught:
        fail()
    return caught.value


# ---- While it works.


def test_a_killed_connection_is_gone_and_leaves_nothing_half(
    connection: db.Connection, root: Any, settings: config.Settings, database: str
) -> None:
    """Killed while it is idle: the batch is not stored, the connection stays gone, a new one stores it."""
    db.insert_trades(connection, [trade(1)])
    ask(root, f"KILL {connection.connection_id}")

    for _ in range(2):
        with pytest.raises(db.GoneError):
            db.insert_trades(connection, [trade(2)])
    with pytest.raises(db.GoneError):
        db.latest(connection, "BTCUSDT")
    db.close(connection)

    assert stored_ids(root, database) == [1]
    assert db.insert_trades(db.connect(settings), [trade(2)]) == 1


def test_a_connection_killed_within_its_transaction_leaves_nothing(
    root: Any, settings: config.Settings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before any of its statements, none of them counts; the same batch then goes in whole."""
    run = db.Connection.cmd_query
    left = 0

    def kill_before(opened: db.Connection, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            ask(root, f"KILL {opened.connection_id}")
        return run(opened, *arguments, **options)

    monkeypatch.setattr(db.Connection, "cmd_query", kill_before)
    batch = [trade(5), trade(20)]
    survived = False
    for count in range(1, STATEMENTS_MAX):
        left = 0
        opened = db.connect(settings)
        db.insert_trades(opened, [trade(1), trade(9)])
        left = count
        with suppress(db.GoneError):
            survived = db.insert_trades(opened, batch) == 2
        if survived:
            break
        left = 0
        assert stored_ids(root, database) == [1, 9]
        assert ask(root, f"SELECT first_trade_id, last_trade_id FROM {database}.gaps") == [(2, 8)]
        again = db.connect(settings)
        assert db.insert_trades(again, batch) == 2
        assert [gap[1:3] for gap in db.open_gaps(again)] == [(2, 4), (6, 8), (10, 19)]
        ask(root, f"DROP DATABASE {database}")
    # Begin and lock, the old gap, what was filled before it, its parts; the rest goes together with the commit.
    assert survived
    assert count > 4


def test_a_lock_that_is_held_is_contention(connection: db.Connection, settings: config.Settings) -> None:
    """A writer that cannot have the lock in time raises what means 'repeat', stores nothing, and can repeat."""
    db.insert_trades(connection, [trade(1)])
    other = db.connect(settings)
    ask(connection, "SET innodb_lock_wait_timeout = 1")
    ask(other, "BEGIN")
    ask(other, "SELECT * FROM symbols FOR UPDATE")

    with pytest.raises(db.ContentionError):
        db.insert_trades(connection, [trade(3)])

    ask(other, "ROLLBACK")
    assert db.latest(connection, "BTCUSDT") == trade(1)
    assert db.insert_trades(connection, [trade(3)]) == 1
    assert [gap[1:3] for gap in db.open_gaps(connection)] == [(2, 2)]


def test_a_deadlock_is_contention(connection: db.Connection, settings: config.Settings) -> None:
    """Who is chosen to be the victim of a deadlock raises what means 'repeat', and repeating works."""
    db.insert_trades(connection, [trade(1, symbol="A"), trade(1, symbol="B")])
    other = db.connect(settings)
    ask(other, "BEGIN")
    # The server ends the transaction that has changed less, so this one changes more.
    for number in range(9):
        ask(other, f"INSERT INTO symbols (symbol, token) VALUES ('OTHER{number}', 0)")
    ask(other, "SELECT * FROM symbols WHERE symbol = 'B' FOR UPDATE")
    raised: list[db.DatabaseError] = []

    def insert() -> None:
        try:
            db.insert_trades(connection, [trade(2, symbol="A"), trade(2, symbol="B")])
        except db.DatabaseError as error:
            raised.append(error)

    thread = threading.Thread(target=insert)
    thread.start()
    _await_a_waiting_lock(settings)
    ask(other, "SELECT * FROM symbols WHERE symbol = 'A' FOR UPDATE")
    thread.join(WAIT_S_MAX)
    ask(other, "ROLLBACK")

    assert [type(error) for error in raised] == [db.ContentionError]
    assert db.latest(connection, "A") == trade(1, symbol="A")
    assert db.insert_trades(connection, [trade(2, symbol="A"), trade(2, symbol="B")]) == 2


def _await_a_waiting_lock(settings: config.Settings) -> None:
    """Until a transaction of the server waits for a lock."""
    sql = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    deadline = time.monotonic() + WAIT_S_MAX
    with closing(db.connect(settings)) as watcher:
        while ask(watcher, sql) == [(0,)]:
            assert time.monotonic() < deadline
            # The server makes this table anew only when it was not read for 0.1 s.
            time.sleep(0.15)


def test_what_was_dropped_is_fatal(connection: db.Connection, root: Any, database: str) -> None:
    """A table, a column or the whole database that is gone under a running capture: one clear word for the operator."""
    db.insert_trades(connection, [trade(1)])
    ask(root, f"ALTER TABLE {database}.trades DROP COLUMN received_at")
    with pytest.raises(db.FatalError, match=r"received_at.*MYSQL_DATABASE"):
        db.insert_trades(connection, [trade(2)])
    ask(root, f"DROP TABLE {database}.trades")
    with pytest.raises(db.FatalError, match=r"trades.*MYSQL_DATABASE"):
        db.insert_trades(connection, [trade(2)])
    ask(root, f"DROP DATABASE {database}")
    for question in (lambda: db.insert_trades(connection, [trade(2)]), lambda: db.latest(connection, "BTCUSDT")):
        with pytest.raises(db.FatalError, match="MYSQL_DATABASE"):
            question()


def test_a_constraint_of_the_operator_refuses_one_trade(connection: db.Connection, root: Any, database: str) -> None:
    """A CHECK that a trade violates is a refusal with the server's words; the rest of its batch is stored."""
    ask(root, f"ALTER TABLE {database}.trades ADD CONSTRAINT not_one CHECK (price <> 1)")
    batch = [trade(1), trade(2, price="1"), trade(3)]

    with pytest.raises(db.RefusedError, match="not_one"):
        db.insert_trades(connection, batch)

    assert stored_ids(root, database) == []
    refused: list[tuple[Trade, str]] = []
    assert db.insert_acceptable(connection, batch, lambda made, why: refused.append((made, why))) == 2
    assert [(made, "not_one" in why) for made, why in refused] == [(batch[1], True)]
    assert stored_ids(root, database) == [1, 3]


def test_a_server_that_hangs_is_gone(settings: config.Settings) -> None:
    """A statement that is not answered within the named time is a dead connection, and not a wait for ever."""
    opened = db.connect(settings, read_s_max=1)
    before = time.monotonic()

    with pytest.raises(db.GoneError):
        errors.guard(session.select)(opened, "SELECT SLEEP(30)")

    assert time.monotonic() - before < QUICK_S_MAX


def test_a_server_that_dies_is_gone_until_it_is_back(killable_server: PrivateServer, tmp_path: Path) -> None:
    """SIGKILL under an open connection: GoneError, also for a new one, until the server runs; then nothing is lost."""
    settings = killable_server.settings("ticks", tmp_path)
    opened = db.connect(settings)
    db.insert_trades(opened, [trade(1), trade(5)])
    killable_server.kill()

    with pytest.raises(db.GoneError):
        db.insert_trades(opened, [trade(6)])
    with pytest.raises(db.GoneError):
        db.connect(settings)

    killable_server.start()
    again = db.connect(settings)
    assert db.insert_trades(again, [trade(5), trade(6)]) == 1
    assert [made.trade_id for made in db.trades_in_second(again, "BTCUSDT", MIDNIGHT)] == [1, 5, 6]
    assert [gap[1:3] for gap in db.open_gaps(again)] == [(2, 4)]


def test_a_closed_connection_is_gone(settings: config.Settings) -> None:
    """Whoever goes on with a connection that was closed is told to connect again, by reads and writes alike."""
    opened = db.connect(settings)
    db.close(opened)

    with pytest.raises(db.GoneError):
        db.latest(opened, "BTCUSDT")
    with pytest.raises(db.GoneError):
        db.insert_trades(opened, [trade(1)])


def test_few_trades_of_several_symbols_cross_nobody(connection: db.Connection, settings: config.Settings) -> None:
    """Two captures that get the symbols in another order each store them without ever being in each other's way."""
    other, raised = db.connect(settings), list[db.DatabaseError]()
    for symbol in ("A", "B"):
        db.insert_trades(connection, [trade(1, symbol=symbol)])

    def store(opened: db.Connection, symbols: str) -> None:
        for number in range(2, 150):
            try:
                db.insert_trades(opened, [trade(number, symbol=symbol) for symbol in symbols])
            except db.DatabaseError as error:
                raised.append(error)

    threads = [threading.Thread(target=store, args=args) for args in ((connection, "AB"), (other, "BA"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []
    assert ask(connection, "SELECT COUNT(*) FROM trades") == [(298,)]
