"""The servers that the other tests stand on."""

from typing import Any

import mysql.connector
import pytest

from config import Settings
from tests.support.servers import PrivateServer, Server


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


def test_settings_lead_to_an_empty_place(settings: Settings, server: Server, database: str) -> None:
    """The settings of a test are not the private server's, and its database does not exist yet."""
    assert not settings.private
    assert settings.mysql_database == database
    assert _ask(server, f"SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = '{database}'") == 0
