"""The server's program: found, and its data initialised."""

import os
from pathlib import Path

import pytest

from mysqld import program as mysql_server
from mysqld.program import ServerError
from mysqld.shared import use


def test_without_a_server_the_error_names_three_ways_out(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, Docker and MYSQL_HOST, on one line."""
    monkeypatch.setenv("PATH", str(data_dir))
    monkeypatch.setattr(mysql_server, "_FOLDERS", ())

    with pytest.raises(ServerError) as error:
        use(data_dir)

    for way in ("mariadb-server-core", "docker run", "MYSQL_HOST"):
        assert way in str(error.value)
    assert "\n" not in str(error.value)


def test_a_failed_initialisation_leaves_nothing(tmp_path: Path) -> None:
    """A server that fails to initialise says why, and its folder does not exist."""
    program = tmp_path / "mysqld"
    program.write_text("#!/bin/sh\necho '[ERROR] no room' >&2\nexit 1\n")
    program.chmod(0o755)

    with pytest.raises(ServerError, match="no room"):
        mysql_server.initialise(mysql_server.Binary(program, "mysql", "9.7.4"), tmp_path / "data")

    assert os.listdir(tmp_path) == ["mysqld"]
