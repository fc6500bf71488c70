"""Private database servers for measuring and testing: started, killed, suspended and started again at will.

They listen on a Unix socket and on a TCP port of 127.0.0.1, and their data are worth nothing: a machine that loses its
power may spoil them.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mysql.connector

import config
from mysqld import program as mysql_server
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
"""What both families write before they end because their port is taken."""

# root may come over TCP too; without names to resolve, 127.0.0.1 is not localhost.
_ACCOUNTS = """\
CREATE USER IF NOT EXISTS 'root'@'127.0.0.1';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;
"""

# The tests may be killed too: then the pipe to this process closes, and it removes what they cannot.
_GUARD = """read -r _; kill -9 "$1"; rm -rf "$2" """


class Server:
    """One database server. `environ` is what a script needs to find it, without MYSQL_DATABASE."""

    family: str
    socket_path: Path | None
    host: str
    port: int
    user: str = "root"
    password: str = ""

    @property
    def environ(self) -> dict[str, str]:
        """The MYSQL_* variables, for a subprocess; by TCP, which is how a server elsewhere is reached."""
        return {
            "MYSQL_HOST": self.host,
            "MYSQL_PORT": str(self.port),
            "MYSQL_UNIX_SOCKET": "",
            "MYSQL_USER": self.user,
            "MYSQL_PASSWORD": self.password,
        }

    def settings(self, database: str, data_dir: Path) -> config.Settings:
        """The settings for `database` on this server: by the Unix socket, which is the faster way, where it has one."""
        environ = self.environ | {"MYSQL_DATABASE": database, "DATA_DIR": str(data_dir)}
        if self.socket_path:
            environ |= {"MYSQL_HOST": "", "MYSQL_UNIX_SOCKET": str(self.socket_path)}
        return config.load(environ)

    def connect(self) -> Any:
        """A plain connection of the driver, without a database; autocommit is off."""
        where = {"unix_socket": str(self.socket_path)} if self.socket_path else {"host": self.host, "port": self.port}
        return mysql.connector.connect(user=self.user, password=self.password, **where)


class PrivateServer(Server):
    """A server in `folder`, which must have a short path, with its data copied from `template`."""

    host = "127.0.0.1"

    def __init__(self, binary: mysql_server.Binary, template: Path, folder: Path) -> None:
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
            *mysql_server.command(binary, folder / "data", self.socket_path, folder / "pid"),
            "--skip-networking=0",
            "--bind-address=127.0.0.1",
            f"--init-file={folder / 'accounts.sql'}",
            "--innodb-buffer-pool-size=64M",
            # A killed process loses nothing that the kernel has: only a machine that loses its power would.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-doublewrite=0",
            *(["--innodb-log-file-size=32M"] if self.family == "mariadb" else ["--innodb-redo-log-capacity=32M"]),
        ]

    @property
    def pid(self) -> int:
        """The pid of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on the same socket and port as before, and wait until it answers. Raises ServerError.

        A port that was free when it was chosen may be taken by now: then the first start chooses another, so read
        `environ` after it. Later ones wait for the port, which their clients know.
        """
        for left in reversed(range(PORT_TRIES_MAX)):
            try:
                self._launch()
                self._has_run = True
                return
            except mysql_server.ServerError as error:
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
        while mysql_server.fetch_version(self.socket_path) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._end(signal.SIGKILL)
                raise mysql_server.ServerError(
                    self._log.read_bytes()[before:].decode(errors="replace")[-LOG_CHARS_MAX:]
                )
            time.sleep(POLL_S)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash does; nothing happens if it does not run."""
        if self._process and self._process.poll() is None:
            self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut it down cleanly; nothing happens if it does not run."""
        if self._process and self._process.poll() is None:
            self._end(signal.SIGTERM)

    def suspend(self) -> None:
        """Let it hang: it keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after suspend()."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, signal_number: int) -> None:
        assert self._process is not None
        self._process.send_signal(signal_number)
        # One that is suspended takes no other signal than SIGKILL before it is resumed.
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(STOP_S_MAX)
        if self._guard:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a server's data folder; most of it is holes or zeros, which GNU cp does not write."""
    if subprocess.run(["cp", "-a", "--sparse=always", source, target], capture_output=True).returncode != 0:
        shutil.copytree(source, target, dirs_exist_ok=True)


def find_server(family: str) -> mysql_server.Binary | str:
    """The program of `family`, or the reason why there is none; MySQL may come from the cache."""
    try:
        binary = mysql_server.find_binary(family)
        if binary.family != family and family == "mysql" and (MYSQL_CACHE / "mysqld").exists():
            binary = mysql_server.inspect_binary(MYSQL_CACHE / "mysqld")
    except mysql_server.ServerError as error:
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
