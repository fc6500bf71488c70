"""Several nodes in MYSQL_HOST: the first that serves is used, in their order."""

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import config
import db
from capture.inbox import Inbox
from capture.rejects import Rejects
from capture.writer import Writer
from storage import nodes
from tests.makers import stream
from tests.support.child import wait_until
from tests.support.servers import PrivateServer, Server
from tests.support.tables import ask, stored_ids

pytestmark = pytest.mark.slow

S_MAX = 20.0
NAME = "test_nodes"


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_passed_over", set())


@pytest.fixture
def first(killable_server: PrivateServer) -> PrivateServer:
    """The first node, which the test may stop."""
    return killable_server


@pytest.fixture
def second(any_server: Server) -> Iterator[Server]:
    """The second one, which stays."""
    yield any_server
    with any_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {NAME}")


def _settings(folder: Path, *ports: int) -> config.Settings:
    host = ",".join(f"127.0.0.1:{port}" for port in ports)
    return config.load({"MYSQL_HOST": host, "MYSQL_DATABASE": NAME, "DATA_DIR": str(folder)})


def _port(connection: db.Connection) -> int:
    return int(ask(connection, "SELECT @@port")[0][0])


def _set_read_only(server: Server, value: int) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"SET GLOBAL read_only = {value}")


def test_a_node_that_is_away_is_passed_over(
    first: PrivateServer, second: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By who writes and by who reads, with one line for each; it is used again once it is back."""
    settings = _settings(tmp_path, first.port, second.port)
    with closing(db.connect(settings)) as connection:
        assert _port(connection) == first.port
    first.kill()
    for read_only in (False, False, True, True):
        with closing(db.connect(settings, read_only=read_only)) as connection:
            assert _port(connection) == second.port
    passed = f"the node 127.0.0.1:{first.port} of MYSQL_HOST is passed over"
    assert [passed in line for line in caplog.messages] == [True, True]
    first.start()
    with closing(db.connect(settings)) as connection:
        assert _port(connection) == first.port
    assert caplog.messages[-1] == f"the node 127.0.0.1:{first.port} of MYSQL_HOST is used again"


def test_a_node_that_is_read_only_is_for_readers(first: PrivateServer, second: Server, tmp_path: Path) -> None:
    """Who writes passes it over."""
    settings = _settings(tmp_path, first.port, second.port)
    db.close(db.connect(settings))
    _set_read_only(first, 1)
    with closing(db.connect(settings)) as writer, closing(db.connect(settings, read_only=True)) as reader:
        assert (_port(writer), _port(reader)) == (second.port, first.port)
    alone = _settings(tmp_path, first.port)
    db.close(db.connect(alone))
    _set_read_only(first, 0)
    with closing(db.connect(settings)) as writer:
        assert _port(writer) == first.port


def test_an_account_that_sees_its_database_alone(first: PrivateServer, closed_port: int, tmp_path: Path) -> None:
    """Is let in, whatever the server does not tell it about a group."""
    settings = _settings(tmp_path, closed_port, first.port)
    db.close(db.connect(settings))
    with first.connect() as connection:
        ask(connection, "CREATE USER 'half'@'%' IDENTIFIED BY 'x'")
        ask(connection, f"GRANT ALL ON {NAME}.* TO 'half'@'%'")
    for read_only in (False, True):
        half = settings._replace(mysql_user="half", mysql_password="x")
        with closing(db.connect(half, read_only=read_only)) as found:
            assert _port(found) == first.port


def test_no_node_that_serves(first: PrivateServer, closed_port: int, tmp_path: Path) -> None:
    """The error names each node and what is wrong with it, and its class says when to try again."""
    db.close(db.connect(_settings(tmp_path, first.port)))
    _set_read_only(first, 1)
    with pytest.raises(db.GoneError, match=rf":{closed_port}: .*:{first.port}: it is read only"):
        db.connect(_settings(tmp_path, closed_port, first.port))
    twice = f"127.0.0.1:{first.port},localhost:{first.port}"
    with pytest.raises(db.NotWritableError, match=r"read only.*read only"):
        db.connect(_settings(tmp_path, first.port)._replace(mysql_host=twice))
    with pytest.raises(db.AccessError, match="MYSQL_USER"):
        db.connect(_settings(tmp_path, first.port, closed_port)._replace(mysql_user="nobody", mysql_password="x"))


def test_a_capture_goes_on_with_the_next_node(
    first: PrivateServer, second: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When its node dies, with what it has not stored yet."""
    rejects, inbox = Rejects(tmp_path), Inbox()
    rejects.start()
    writer = Writer(_settings(tmp_path, first.port, second.port), inbox, rejects)
    writer.start()
    inbox.put(stream(1, 100))
    wait_until(lambda: writer.inserted == 100, S_MAX)
    first.kill()
    inbox.put(stream(101, 100))
    wait_until(lambda: writer.inserted + writer.recovered == 200, S_MAX)
    inbox.stop()
    writer.join(S_MAX)
    rejects.close()
    with closing(db.connect(_settings(tmp_path, second.port))) as connection:
        assert stored_ids(connection) == list(range(101, 201))
    assert [record.levelno for record in caplog.records if "is passed over" in record.message] == [logging.WARNING]
