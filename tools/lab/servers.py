"""Private database servers for measuring and testing, which can be started, killed, suspended and restarted at will.

They listen on a Unix socket and on a TCP port of 127.0.0.1. Their data are disposable: a loss of power may damage them.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mysql.connector

import config
from mysqld import program
from process.child import ROOT

MYSQL_CACHE = ROOT / ".cache" / "mysql"
"""Where tests/fetch_mysql.sh unpacks a MySQL that is not installed."""
START_S_MAX = 60.0
STOP_S_MAX = 30.0
POLL_S = 0.01
LOG_CHARS_MAX = 4000
PORT_TRIES_MAX = 10
TAKEN_S = 0.2
_TAKEN = "Bind on TCP/IP port"
"""What both families log if they cannot start because their port is taken."""

# root may connect by TCP too; without name resolution, 127.0.0.1 is not localhost.
_ACCOUNTS = """\
CREATE USER IF NOT EXISTS 'root'@'127.0.0.1';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;
"""

# If the tests themselves are killed, the pipe to this process closes, and it cleans up instead of them.
_GUARD = """read -r _; kill -9 "$1"; rm -rf "$2" """


class Server:
    """One database server. `environ` is what a script needs to find it, except for MYSQL_DATABASE."""

    family: str
    socket_path: Path | None
    host: str
    port: int
    user: str = "root"
    password: str = ""

    @property
    def environ(self) -> dict[str, str]:
        """The MYSQL_* variables for a subprocess; by TCP, as for a server on another machine."""
        return {
            "MYSQL_HOST": self.host,
            "MYSQL_PORT": str(self.port),
            "MYSQL_UNIX_SOCKET": "",
            "MYSQL_USER": self.user,
            "MYSQL_PASSWORD": self.password,
        }

    def settings(self, database: str, data_dir: Path) -> config.Settings:
        """The settings for `database` on this server: by the Unix socket if it has one, since that is faster."""
        environ = self.environ | {"MYSQL_DATABASE": database, "DATA_DIR": str(data_dir)}
        if self.socket_path:
            environ |= {"MYSQL_HOST": "", "MYSQL_UNIX_SOCKET": str(self.socket_path)}
        return config.load(environ)

    def connect(self) -> Any:
        """A plain connection of the driver, without a database; autocommit is off."""
        where = {"unix_socket": str(self.socket_path)} if self.socket_path else {"host": self.host, "port": self.port}
        return mysql.connector.connect(user=self.user, password=self.password, **where)


class PrivateServer(Server):
    """A server in `folder`, which must have a short path, with its data copied from `template`; `options` come after
    its own and before its port."""

    host = "127.0.0.1"

    def __init__(self, binary: program.Binary, template: Path, folder: Path, options: Sequence[str] = ()) -> None:
        self.family = binary.family
        self.socket_path: Path = folder / "socket"
        self.port = free_port()
        self._has_run = False
        self._log = folder / "log"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        copy_sparse(template, folder / "data")
        (folder / "accounts.sql").write_text(_ACCOUNTS)
        self._command = [
            *program.command(binary, folder / "data", self.socket_path, folder / "pid"),
            "--skip-networking=0",
            "--bind-address=127.0.0.1",
            f"--init-file={folder / 'accounts.sql'}",
            "--innodb-buffer-pool-size=64M",
            # A killed process loses nothing that it has given to the kernel: only a loss of power would.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-doublewrite=0",
            *(["--innodb-log-file-size=32M"] if self.family == "mariadb" else ["--innodb-redo-log-capacity=32M"]),
            *options,
        ]

    @property
    def pid(self) -> int:
        """The pid of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it on the same socket and port as before, and waits until it answers. Raises ServerError.

        A port that was free when it was chosen may have been taken since. The first start then chooses another port, so
        read `environ` after it; later starts wait for the port, which their clients already know.
        """
        for left in reversed(range(PORT_TRIES_MAX)):
            try:
                self._launch()
                self._has_run = True
                return
            except program.ServerError as error:
                if not left or _TAKEN not in str(error):
                    raise
            if self._has_run:
                time.sleep(TAKEN_S)
            else:
                self.port = free_port()

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            before = log.tell()
            command = [*self._command, f"--port={self.port}"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        guard = ["sh", "-c", _GUARD, "guard", str(self._process.pid), str(self._folder)]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
        deadline = time.monotonic() + START_S_MAX
        while program.fetch_version(self.socket_path) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end(signal.SIGKILL)
                raise program.ServerError(self._log.read_bytes()[before:].decode(errors="replace")[-LOG_CHARS_MAX:])
            time.sleep(POLL_S)

    def kill(self) -> None:
        """Ends it with SIGKILL, like a crash; does nothing if it is not running."""
        if self._process and self._process.poll() is None:
            self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shuts it down cleanly; does nothing if it is not running."""
        if self._process and self._process.poll() is None:
            self._end(signal.SIGTERM)

    def suspend(self) -> None:
        """Makes it hang: it keeps its connections but answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it continue after suspend()."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, signal_number: int) -> None:
        assert self._process is not None
        self._process.send_signal(signal_number)
        # A suspended process handles no signal except SIGKILL until it is resumed.
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(STOP_S_MAX)
        if self._guard:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def copy_sparse(source: Path, target: Path) -> None:
    """Copies a server's data folder; most of it is holes or zeros, which GNU cp does not write."""
    if subprocess.run(["cp", "-a", "--sparse=always", source, target], capture_output=True).returncode != 0:
        shutil.copytree(source, target, dirs_exist_ok=True)


def find_server(family: str) -> program.Binary | str:
    """The program of `family`, or the reason why there is none; MySQL may come from the cache."""
    try:
        binary = program.find_binary(family)
        if binary.family != family and family == "mysql" and (MYSQL_CACHE / "mysqld").exists():
            binary = program.inspect_binary(MYSQL_CACHE / "mysqld")
    except program.ServerError as error:
        return str(error)
    if binary.family == family:
        return binary
    why = MYSQL_CACHE / "why"
    return why.read_text().strip() if why.exists() else f"no {family} server; `make test` fetches MySQL on Debian"


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path leaves room for a Unix socket's name; pytest's own can be too long."""
    with tempfile.TemporaryDirectory(prefix="ts-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
