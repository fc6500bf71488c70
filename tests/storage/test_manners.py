"""Servers, and proxies before them, that do not take what is usually sent: it goes on, and says what it found out."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import config
import db
from capture.inbox import Inbox
from capture.rejects import Rejects
from capture.writer import Writer
from storage import session
from storage.session import REQUEST_BYTES_MIN, Manners
from tests.makers import stream
from tests.support.child import wait_until
from tests.support.mysql_proxy import MysqlProxy
from tests.support.servers import Server
from tests.support.tables import ask, check, runs, stored_ids

pytestmark = pytest.mark.slow

S_MAX = 20.0


@pytest.fixture
def behind(server: Server, database: str, tmp_path: Path) -> Iterator[tuple[MysqlProxy, config.Settings]]:
    """A proxy, and the settings of a database behind it."""
    if server.family != "mariadb":
        pytest.skip("what a proxy cannot read, over TLS, it cannot refuse")
    with MysqlProxy(server.port) as proxy:
        settings = server.settings(database, tmp_path)
        db.close(db.connect(settings))
        yield proxy, settings._replace(mysql_unix_socket=None, mysql_host="127.0.0.1", mysql_port=proxy.port)


@pytest.fixture
def writer(behind: tuple[MysqlProxy, config.Settings], tmp_path: Path) -> Iterator[Writer]:
    """The writer of a capture, as a thread, through the proxy."""
    _, settings = behind
    rejects = Rejects(tmp_path)
    rejects.start()
    thread = Writer(settings, Inbox(), rejects)
    thread.start()
    yield thread
    thread._inbox.stop()
    thread.join(S_MAX)
    rejects.close()


@pytest.mark.parametrize("way", ["refuses_several", "only_first"])
def test_a_proxy_that_takes_one_statement_at_a_time(
    behind: tuple[MysqlProxy, config.Settings], writer: Writer, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything is stored, one by one from then on, exactly; it is said once."""
    proxy, settings = behind
    setattr(proxy, way, True)
    for first in (1, 5_000, 10_000):
        writer._inbox.put(stream(first, 3_000))
        wait_until(lambda first=first: writer.inserted >= first // 5_000 * 3_000 + 3_000, S_MAX)  # type: ignore[misc]
    assert writer.failure is None
    assert proxy.refused >= 1
    assert caplog.text.count("does not take several statements") == 1
    assert "next try in" not in caplog.text or caplog.text.count("next try in") == 1
    connection = db.connect(settings, read_only=True)
    check(connection)
    assert len(stored_ids(connection)) == 9_000
    assert runs(connection) == [(3_001, 4_999), (8_000, 9_999)]
    refused = proxy.refused
    db.min_max(connection, "BTCUSDT", *(trade.timestamp for trade in (stream(1, 1)[0], stream(9_000, 1)[0])))
    assert proxy.refused == refused
    db.close(connection)


def test_a_proxy_that_ends_long_requests(
    behind: tuple[MysqlProxy, config.Settings], writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests become shorter until they pass; nothing is lost, and the log says what was found out."""
    proxy, settings = behind
    writer._inbox.put(stream(1, 10))
    wait_until(lambda: writer.inserted == 10, S_MAX)
    proxy.bytes_max = 150_000
    for first in range(11, 8_011, 4_000):
        writer._inbox.put(stream(first, 4_000))
    wait_until(lambda: writer.inserted == 8_010, S_MAX)
    assert proxy.cut >= 2
    assert session._manners["127.0.0.1", proxy.port, None].bytes_max <= 150_000
    assert "ends the connection: from now on they have at most" in caplog.text
    assert "the database is back: it stores trades again" in caplog.text
    assert proxy.cut < 10
    connection = db.connect(settings, read_only=True)
    check(connection)
    db.close(connection)


@pytest.mark.parametrize("packet_bytes", [262_144, 131_072])
def test_a_server_that_takes_small_packets(
    server: Server, settings: config.Settings, packet_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are as long as it says that they may be, so nothing is refused; gaps too."""
    with server.connect() as root:
        ((before,),) = ask(root, "SELECT @@GLOBAL.max_allowed_packet")
        ask(root, f"SET GLOBAL max_allowed_packet = {packet_bytes}")
    session._manners.clear()
    try:
        connection = db.connect(settings)
        ids = [number for number in range(1, 24_000) if number % 3 < 2]
        trades = [one for one in stream(1, 24_000) if one.trade_id % 3 < 2][: len(ids)]
        assert db.insert_trades(connection, trades) == len(trades)
        check(connection)
        db.close(connection)
    finally:
        with server.connect() as root:
            ask(root, f"SET GLOBAL max_allowed_packet = {before}")
        session._manners.clear()
    assert caplog.records == []


def test_a_server_that_takes_next_to_nothing_is_named(server: Server, settings: config.Settings) -> None:
    """Before anything is stored; the line names the setting."""
    with server.connect() as root:
        ((before,),) = ask(root, "SELECT @@GLOBAL.max_allowed_packet")
        ask(root, "SET GLOBAL max_allowed_packet = 16384")
    try:
        with pytest.raises(db.FatalError, match="max_allowed_packet is 16384"):
            db.connect(settings)
    finally:
        with server.connect() as root:
            ask(root, f"SET GLOBAL max_allowed_packet = {before}")
        session._manners.clear()


def test_one_lost_connection_shortens_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A server that is killed now and then is no reason; the second time in a row, or the server's own word, is."""
    caplog.set_level(logging.WARNING)
    manners = Manners()
    whole = manners.bytes_max
    for _ in range(5):
        manners.lose(900_000, certain=False)
        manners.succeed(900_000)
    assert manners.bytes_max == whole
    manners.lose(900_000, certain=False)
    manners.lose(900_000, certain=False)
    assert manners.bytes_max == 450_000
    for _ in range(9):
        manners.lose(manners.bytes_max, certain=True)
    assert manners.bytes_max == REQUEST_BYTES_MIN
    manners.lose(REQUEST_BYTES_MIN, certain=True)
    assert manners.bytes_max == REQUEST_BYTES_MIN


def test_an_error_of_no_known_kind_that_stays_is_said_in_one_line(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """After a few tries what the server refuses and what to do; the trades stay on the disk, the waits grow."""
    monkeypatch.setattr("process.retry.BACKOFF_S_MIN", 0.01)
    monkeypatch.setattr("process.retry.BACKOFF_S_MAX", 0.02)

    def refuse(*_arguments: object, **_options: object) -> int:
        raise db.DatabaseError("Query execution was interrupted by a rule of the firewall (error 9999)")

    monkeypatch.setattr(db, "insert_acceptable", refuse)
    rejects = Rejects(tmp_path)
    inbox = Inbox()
    thread = Writer(settings, inbox, rejects)
    thread.start()
    inbox.put(stream(1, 3))
    wait_until(lambda: "refuses trades each time for the same reason" in caplog.text, S_MAX)
    wait_until(lambda: caplog.text.count("next try in") >= 6, S_MAX)
    monkeypatch.undo()
    wait_until(lambda: thread.inserted == 3, S_MAX)
    inbox.stop()
    thread.join(S_MAX)
    assert caplog.text.count("refuses trades each time for the same reason") == 1
    assert "error 9999" in caplog.text
    assert str(tmp_path / "spool") in caplog.text
