"""The servers that the other tests stand on."""

import socket
from collections.abc import Iterator
from typing import Any

import mysql.connector
import pytest

from config import Settings
from mysqld.program import ServerError
from tests.support.servers import PrivateServer, Server
from tools.lab import servers

pytestmark = pytest.mark.slow


def _ask(server: Server, sql: str) -> object:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def test_each_family_answers_with_its_own_version(server: Server) -> None:
    """The mariadb server is MariaDB and the mysql server is not."""
    version = str(_ask(server, "SELECT VERSION()"))

    assert ("MariaDB" in version) == (server.family == "mariadb") or server.family == "environment"


def test_a_server_answers_on_tcp_too(server: Server) -> None:
    """The variables for a subprocess lead to the same server by TCP."""
    if not server.host:
        pytest.skip("the server that MYSQL_* names is reached by its socket only")
    environ = server.environ
    connection: Any = mysql.connector.connect(
        host=environ["MYSQL_HOST"],
        port=int(environ["MYSQL_PORT"]),
        user=environ["MYSQL_USER"],
        password=environ["MYSQL_PASSWORD"],
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@hostname, @@port")
        assert cursor.fetchone()[1] == server.port


def test_a_killed_server_comes_back_with_what_was_committed(killable_server: PrivateServer) -> None:
    """SIGKILL loses no commit, and the port and the socket stay the same."""
    with killable_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE here")
        cursor.execute("CREATE TABLE here.t (i INT)")
        cursor.execute("INSERT INTO here.t VALUES (7)")
        connection.commit()
    port, pid = killable_server.port, killable_server.pid

    killable_server.kill()
    killable_server.start()

    assert _ask(killable_server, "SELECT i FROM here.t") == 7
    assert killable_server.port == port
    assert killable_server.pid != pid


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port that the next server chooses, and that somebody else has when it starts."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port: int = other.getsockname()[1]
        ports = iter([port, port])
        free_port = servers.free_port
        monkeypatch.setattr(servers, "free_port", lambda: next(ports, None) or free_port())
        yield port


def test_a_server_whose_port_was_taken_comes_up_on_another(taken: int, killable_server: PrivateServer) -> None:
    """It chooses again, also a second time, and answers where its variables say."""
    assert killable_server.port != taken
    connection: Any = mysql.connector.connect(host="127.0.0.1", port=killable_server.port, user="root")
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@port")
        assert cursor.fetchone() == (killable_server.port,)


def test_a_server_waits_for_its_port_when_it_starts_again(
    killable_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clients know the port; if nobody gives it back, the error has the server's own words."""
    monkeypatch.setattr(servers, "TAKEN_S", 0.0)
    monkeypatch.setattr(servers, "PORT_TRIES_MAX", 2)
    port = killable_server.port
    killable_server.kill()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ServerError, match="Bind on TCP/IP port"):
        killable_server.start()
    killable_server.start()
    assert _ask(killable_server, "SELECT @@port") == killable_server.port == port


def test_settings_lead_to_an_empty_place(settings: Settings, server: Server, database: str) -> None:
    """The settings of a test are not the private server's, and its database does not exist yet."""
    assert not settings.private
    assert settings.mysql_database == database
    assert _ask(server, f"SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = '{database}'") == 0
