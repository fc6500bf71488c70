"""The private server: shared by processes, stopped by the last, and back after every kind of death."""

import errno
import os
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

from mysqld import program, shared
from mysqld.program import ServerError
from mysqld.shared import leave, revive, use
from process import lock
from tests.support import servers
from tests.support.child import wait_until
from tests.support.private import WAIT_S_MAX, User, is_running, kill_server, on_linux, pid_of

pytestmark = pytest.mark.slow

USERS = 4
ROUNDS = 3


def ask(socket_path: Path, *statements: str) -> Any:
    """The first row of the last statement's answer."""
    connection: Any = mysql.connector.connect(unix_socket=str(socket_path), user="root", autocommit=True)
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchone() if cursor.with_rows else None


@pytest.mark.parametrize("family", ["mariadb", "mysql"])
def test_the_first_use_starts_a_durable_server_without_network(data_dir: Path, family: str) -> None:
    """It is initialised, answers on its socket only, in a folder of mode 0700, and ends when its user leaves."""
    binary = servers.find_server(family)
    if isinstance(binary, str):
        pytest.skip(f"no {family}: {binary}")

    socket_path = use(data_dir, binary.path)

    settings = "@@innodb_flush_log_at_trx_commit, @@log_bin, @@skip_networking, @@innodb_doublewrite"
    durable, binary_log, no_network, doublewrite = ask(socket_path, f"SELECT {settings}")
    assert (durable, binary_log, no_network, str(doublewrite)) in [(1, 0, 1, "1"), (1, 0, 1, "ON")]
    assert ("MariaDB" in (program.fetch_version(socket_path) or "")) == (family == "mariadb")
    if family == "mysql":
        assert ask(socket_path, "SELECT @@innodb_segment_reserve_factor") == (program.RESERVED_PERCENT,)
    assert stat.S_IMODE((data_dir / "mysql").stat().st_mode) == 0o700
    assert (data_dir / "mysql" / "family").read_text() == f"{family} {binary.version}\n"
    leave(data_dir)
    assert not is_running(data_dir)
    assert program.fetch_version(socket_path) is None


def test_ctrl_c_during_the_start_lets_the_server_start_before_it_is_stopped(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A MariaDB that is asked to stop while it starts may hang for ever, and with it whoever needs it next."""
    greet, stop = shared._await_greeting, shared.stop
    greeted: list[str | None] = []

    def interrupt(_home: Path, _log_offset: int) -> None:
        monkeypatch.setattr(shared, "_await_greeting", greet)
        raise KeyboardInterrupt

    def stop_then(home: Path, process: Any) -> None:
        greeted.append(program.fetch_version(shared.socket_of(home)))
        stop(home, process)

    monkeypatch.setattr(shared, "_await_greeting", interrupt)
    monkeypatch.setattr(shared, "stop", stop_then)
    with pytest.raises(KeyboardInterrupt):
        use(data_dir)

    assert len(greeted) == 1
    assert greeted[0] is not None
    assert not is_running(data_dir)
    assert ask(use(data_dir), "SELECT 1") == (1,)


def test_using_it_again_is_the_same_use(data_dir: Path) -> None:
    """A second use() in a process starts nothing, and one leave() ends both."""
    socket_path = use(data_dir)
    pid = pid_of(data_dir)

    assert use(data_dir) == socket_path
    assert revive(data_dir) is False
    assert pid_of(data_dir) == pid
    leave(data_dir)
    assert not is_running(data_dir)
    leave(data_dir)


def test_what_was_committed_is_there_the_next_time(data_dir: Path) -> None:
    """The data outlive a clean stop."""
    ask(use(data_dir), "CREATE DATABASE d", "CREATE TABLE d.t (i INT)", "INSERT INTO d.t VALUES (7)")
    leave(data_dir)

    assert ask(use(data_dir), "SELECT i FROM d.t") == (7,)


def test_the_last_to_leave_stops_it(data_dir: Path, new_user: Callable[[], User]) -> None:
    """While one of two processes remains, the server does too."""
    first, second = new_user(), new_user()
    assert first.socket() == second.socket() != ""
    pid = pid_of(data_dir)

    first.leave()
    assert is_running(data_dir)
    assert pid_of(data_dir) == pid
    second.leave()
    assert not is_running(data_dir)


def test_several_that_start_at_once_share_one_server(data_dir: Path, new_user: Callable[[], User]) -> None:
    """One of them initialises and starts, the others wait for that."""
    crowd = [new_user() for _ in range(USERS)]

    assert {user.socket() for user in crowd} == {str(data_dir / "mysql" / "mysqld.sock")}
    for user in crowd:
        user.tell_to_leave()
    for user in crowd:
        user.leave()
    assert not is_running(data_dir)
    assert (data_dir / "mysql.log").read_text().count("ready for connections") == 1


def test_joining_while_the_last_one_leaves_gives_a_server_that_answers(
    data_dir: Path, new_user: Callable[[], User]
) -> None:
    """Whether the old server is met or a new one started, the one who joins has a server."""
    old = new_user()
    old.socket()
    for _ in range(ROUNDS):
        new = new_user()
        old.tell_to_leave()
        socket_path = new.socket()
        old.leave()
        assert program.fetch_version(Path(socket_path))
        old = new


@on_linux
def test_an_orphaned_server_is_reused_and_then_stopped(data_dir: Path, new_user: Callable[[], User]) -> None:
    """A user that was killed leaves the server running and no lock; the next one joins it and stops it at the end."""
    killed = new_user()
    killed.socket()
    pid = pid_of(data_dir)
    killed.kill()
    assert is_running(data_dir)
    assert lock.find_holders(data_dir / "mysql" / "users.lock") == []

    assert program.fetch_version(use(data_dir))
    assert pid_of(data_dir) == pid
    leave(data_dir)
    assert not is_running(data_dir)


def test_a_killed_server_is_started_again_by_the_next_process(data_dir: Path, new_user: Callable[[], User]) -> None:
    """After SIGKILL a new process has a new server, with everything that was committed."""
    ask(use(data_dir), "CREATE DATABASE d", "CREATE TABLE d.t (i INT)", "INSERT INTO d.t VALUES (7)")
    pid = pid_of(data_dir)
    kill_server(data_dir)

    socket_path = Path(new_user().socket())

    assert pid_of(data_dir) != pid
    assert ask(socket_path, "SELECT i FROM d.t") == (7,)


@on_linux
def test_a_killed_server_is_started_again_by_who_uses_it(data_dir: Path) -> None:
    """A capture that runs for months gets its server back, by use() as by revive(), and leaves no zombie."""
    use(data_dir)
    kill_server(data_dir)
    assert revive(data_dir) is True
    assert revive(data_dir) is False
    killed = pid_of(data_dir)
    kill_server(data_dir)

    assert program.fetch_version(use(data_dir))
    assert not Path(f"/proc/{killed}").exists()


def test_ctrl_c_reaches_the_users_and_not_the_server(data_dir: Path, new_user: Callable[[], User]) -> None:
    """The terminal's SIGINT ends the process that started the server; the server goes on for the others."""
    starter = new_user()
    starter.socket()
    socket_path = use(data_dir)

    os.killpg(starter.process.pid, signal.SIGINT)
    starter.process.wait(WAIT_S_MAX)

    assert program.fetch_version(socket_path)
    # MariaDB happens to ignore SIGINT, but not the SIGHUP of a terminal that is closed.
    assert os.getsid(pid_of(data_dir)) == pid_of(data_dir)


@on_linux
def test_a_forked_child_does_not_give_its_parents_use_away(data_dir: Path) -> None:
    """The child has no use of its own to leave, so the server runs on for the parent."""
    use(data_dir)
    child = os.fork()
    if child == 0:
        try:
            leave(data_dir)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    assert is_running(data_dir)
    assert lock.find_holders(data_dir / "mysql" / "users.lock") == [os.getpid()]


def test_a_folder_that_takes_no_socket_has_it_elsewhere(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the shares of WSL, of virtual machines and of containers; also while the runtime folder is gone."""
    real = socket.socket.bind

    def bind(self: socket.socket, address: Any) -> None:
        if str(address).startswith(str(data_dir)):
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        real(self, address)

    monkeypatch.setattr(socket.socket, "bind", bind)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere/at/all")

    socket_path = use(data_dir)
    assert socket_path.parent.parent == Path(tempfile.gettempdir())
    assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
    assert program.fetch_version(socket_path)


def test_no_folder_that_takes_a_socket_is_one_line(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what was tried and the way out."""

    def bind(_self: socket.socket, _address: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(ServerError, match=r"no folder takes the socket.*TMPDIR.*DATA_DIR") as error:
        use(data_dir)
    assert "\n" not in str(error.value)
    assert str(data_dir) in str(error.value)


def test_a_long_path_has_its_socket_elsewhere(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that no Unix socket can have gets one in a private runtime folder, which others find on file."""
    deep = data_dir.joinpath(*["a-rather-long-name"] * 6)
    data_dir.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(data_dir))

    socket_path = use(deep)

    try:
        assert socket_path.parent.parent == data_dir
        assert stat.S_IMODE(socket_path.parent.stat().st_mode) == 0o700
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
        user = User(deep)
        assert user.socket() == str(socket_path)
        user.leave()
        assert program.fetch_version(socket_path)
    finally:
        leave(deep)


@pytest.mark.parametrize("recorded", ["mysql 9.7.4", "mariadb 99.1.2"])
def test_data_of_another_server_are_refused(data_dir: Path, recorded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data of the other family or of a newer release are named with the program that cannot open them."""
    mariadb = program.find_binary("mariadb").path
    (data_dir / "mysql" / "data").mkdir(parents=True)
    (data_dir / "mysql" / "family").write_text(f"{recorded}\n")

    with pytest.raises(ServerError, match=rf"{recorded.split()[1]}.*mariadbd.*cannot open.*DATA_DIR"):
        use(data_dir, mariadb)

    assert (data_dir / "mysql" / "family").read_text() == f"{recorded}\n"


@on_linux
def test_a_refused_start_carries_the_servers_own_words(data_dir: Path) -> None:
    """A folder of data that is no database: the server's error is in ours, on one line, and no lock remains."""
    (data_dir / "mysql" / "data").mkdir(parents=True)

    with pytest.raises(ServerError, match=r"refused to start: .*ERROR.*mysql\.log") as error:
        use(data_dir)

    assert "\n" not in str(error.value)
    assert not is_running(data_dir)
    assert lock.find_holders(data_dir / "mysql" / "users.lock") == []


def test_what_an_interrupted_initialisation_left_is_removed(data_dir: Path) -> None:
    """Half a database under its temporary name is not taken for a database."""
    half = data_dir / "mysql" / "new-half"
    half.mkdir(parents=True)
    (half / "ibdata1").write_bytes(b"half")

    assert program.fetch_version(use(data_dir))
    assert not half.exists()


def test_a_folder_that_others_can_enter_is_closed(data_dir: Path) -> None:
    """The folder of a server without a password is made private again."""
    (data_dir / "mysql").mkdir(parents=True)
    (data_dir / "mysql").chmod(0o755)

    use(data_dir)

    assert stat.S_IMODE((data_dir / "mysql").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to someone else")
def test_a_folder_of_someone_else_is_refused(data_dir: Path) -> None:
    """Files of root in a user's database would lock the user out."""
    (data_dir / "mysql").mkdir(parents=True)
    os.chown(data_dir / "mysql", 65534, 65534)

    with pytest.raises(ServerError, match="belongs to user 65534"):
        use(data_dir)


def test_a_data_dir_that_cannot_be_is_named(data_dir: Path) -> None:
    """A file in the place of DATA_DIR is an error of one line."""
    data_dir.write_text("")

    with pytest.raises(ServerError, match=r"DATA_DIR=.*cannot be used"):
        use(data_dir)

    data_dir.unlink()


def test_a_long_log_is_set_aside(data_dir: Path) -> None:
    """The log is bounded: a long one becomes mysql.log.1 when the server starts."""
    data_dir.mkdir()
    (data_dir / "mysql.log").write_bytes(b"x" * (shared.LOG_BYTES_MAX + 1))

    use(data_dir)

    assert (data_dir / "mysql.log.1").stat().st_size == shared.LOG_BYTES_MAX + 1
    assert (data_dir / "mysql.log").stat().st_size < shared.LOG_BYTES_MAX


@on_linux
def test_the_server_does_not_inherit_the_password_of_another(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No MYSQL_* variable reaches the server's process."""
    monkeypatch.setenv("MYSQL_PASSWORD", "secret")

    use(data_dir)

    assert b"secret" not in Path(f"/proc/{pid_of(data_dir)}/environ").read_bytes()


@on_linux
def test_a_removed_folder_does_not_leave_its_server_behind(data_dir: Path) -> None:
    """Who deletes DATA_DIR while the capture runs is not left with a server that nobody can find."""
    use(data_dir)
    pid = pid_of(data_dir)
    shutil.rmtree(data_dir)

    leave(data_dir)

    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text(), WAIT_S_MAX)


def test_waiting_for_another_process_has_a_bound(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who holds the start lock for too long is reported."""
    monkeypatch.setattr(shared, "DECIDE_S_MAX", 0.1)
    (data_dir / "mysql").mkdir(parents=True)

    with lock.alone(data_dir / "mysql" / "start.lock", WAIT_S_MAX), pytest.raises(ServerError, match="busy"):
        use(data_dir)
