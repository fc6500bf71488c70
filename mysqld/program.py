"""One MariaDB or MySQL server as a program: finding it, initialising its data, starting it, its greeting, its errors.

shared.py shares such a server between processes; the tests start their own with the same functions.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

INITIALISE_S_MAX = 120.0
VERSION_S_MAX = 30.0
GREETING_S_MAX = 2.0
LAST_WORDS_CHARS_MAX = 500
BUFFER_POOL_BYTES = 256 << 20
REDO_LOG_BYTES = 256 << 20
CONNECTIONS_MAX = 100
RESERVED_PERCENT = 1
"""Of the pages of a table, how many MySQL keeps empty. By default an eighth, by which a table grows from which days
leave as others come: measured, 10 % in eleven days, and with this nothing. MariaDB has no such setting."""
FAMILIES = {"mariadb": "MariaDB", "mysql": "MySQL"}

_SERVER_NAMES = ("mariadbd", "mysqld")
_INSTALLER_NAMES = ("mariadb-install-db", "mysql_install_db")
_CLIENT_NAMES = ("mariadb", "mysql")
_FOLDERS = (
    "/usr/sbin",
    "/usr/bin",
    "/usr/libexec",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/local/mysql/bin",
    "/usr/local/mariadb/bin",
    "/opt/homebrew/bin",
    "/opt/homebrew/opt/mariadb/bin",
    "/opt/homebrew/opt/mysql/bin",
    "/usr/local/opt/mariadb/bin",
    "/usr/local/opt/mysql/bin",
)
_WAYS_OUT = (
    "no MariaDB or MySQL server was found on this machine. Three ways out: install one (Debian: `apt-get install"
    " mariadb-server-core mariadb-client-core`; macOS: `brew install mariadb`); or start one with Docker (`docker run"
    " -d -p 127.0.0.1:3306:3306 -e MYSQL_ROOT_PASSWORD=... mysql:8.4`) and set MYSQL_HOST=127.0.0.1 and MYSQL_PASSWORD;"
    " or set MYSQL_HOST, MYSQL_USER and MYSQL_PASSWORD to a server that you have"
)


class ServerError(Exception):
    """The private server is not available; one line with the reason and the way out."""


class Binary(NamedTuple):
    """A server's program, its family (`mariadb` or `mysql`) and its version, such as `10.11.6`."""

    path: Path
    family: str
    version: str


def find_binary(family: str | None = None) -> Binary:
    """The server's program: that of `family`, or MariaDB's if both are there. Raises ServerError."""
    found = [inspect_binary(path) for path in _find(_SERVER_NAMES)]
    chosen = [binary for binary in found if family in (None, binary.family)]
    if not found:
        raise ServerError(_WAYS_OUT)
    return (chosen or found)[0]


def inspect_binary(path: Path) -> Binary:
    """What the program at `path` says about itself; Debian's `mysqld` is MariaDB. Raises ServerError."""
    try:
        answer = subprocess.run(
            [path, "--no-defaults", "--version"], capture_output=True, text=True, timeout=VERSION_S_MAX
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"{path} does not start: {error}") from error
    version = re.search(r"Ver ([\d.]+)", answer.stdout)
    if not version:
        raise ServerError(f"{path} is not a MariaDB or MySQL server: {_one_line(answer.stdout + answer.stderr)!r}")
    return Binary(path, "mariadb" if "MariaDB" in answer.stdout else "mysql", version[1])


def _find(names: tuple[str, ...], first: tuple[Path, ...] = ()) -> list[Path]:
    """The executables with these names, the first name first; from `first`, then PATH, then the usual folders."""
    folders = os.pathsep.join([*map(str, first), os.environ.get("PATH", os.defpath), *_FOLDERS]).split(os.pathsep)
    found = (shutil.which(name, path=folder) for name in names for folder in folders if folder)
    return [Path(path) for path in dict.fromkeys(found) if path]


def find_client(family: str | None = None) -> Path:
    """The `mariadb` or `mysql` command-line client, preferably that of `family`. Raises ServerError."""
    clients = _find(tuple(sorted(_CLIENT_NAMES, key=lambda name: name != family)))
    if not clients:
        raise ServerError("no mysql client was found: install mariadb-client-core (macOS: `brew install mariadb`)")
    return clients[0]


def command(binary: Binary, data: Path, socket_path: Path, pid_file: Path) -> list[str]:
    """The server's command line: durable, one Unix socket, no network, no settings from elsewhere.

    The folder `tmp` beside `data` is created: a starting server deletes what looks like a forgotten table in its folder
    of temporary files, which in a shared folder may belong to another server.
    """
    temporary = data.parent / "tmp"
    temporary.mkdir(mode=0o700, exist_ok=True)
    line = [
        str(binary.path),
        "--no-defaults",
        f"--datadir={data}",
        f"--socket={socket_path}",
        f"--pid-file={pid_file}",
        f"--tmpdir={temporary}",
        "--skip-networking",
        "--skip-name-resolve",
        "--innodb-flush-log-at-trx-commit=1",
        # The binary log is for replication; InnoDB's own log makes a commit durable.
        "--skip-log-bin",
        f"--innodb-buffer-pool-size={BUFFER_POOL_BYTES}",
        f"--max-connections={CONNECTIONS_MAX}",
        "--max-allowed-packet=64M",
        "--character-set-server=utf8mb4",
        "--performance-schema=OFF",
        # For history, which is loaded as files of the client; MySQL refuses them by default.
        "--local-infile=1",
    ]
    if binary.family == "mariadb":
        line += [f"--innodb-log-file-size={REDO_LOG_BYTES}", "--log-warnings=1"]
    else:
        # `loose`: MySQL before 8.0.30 does not know all. The folder for secure-file-priv comes with another package.
        line += [f"--loose-innodb-redo-log-capacity={REDO_LOG_BYTES}", "--mysqlx=OFF", "--secure-file-priv=NULL"]
        line += [f"--loose-innodb-segment-reserve-factor={RESERVED_PERCENT}"]
    return line + _as_root()


def _as_root() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []


def initialise(binary: Binary, data: Path) -> None:
    """Make `data` the folder of a new server whose root has no password, or leave nothing. Raises ServerError."""
    with contextlib.ExitStack() as stack:
        new = Path(tempfile.mkdtemp(prefix="new-", dir=data.parent))
        stack.callback(shutil.rmtree, new, ignore_errors=True)
        # MariaDB's script does not quote the folder, which may have a space in its name; this link's name has none.
        link = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mysql-"))) / "new"
        link.symlink_to(new)
        line = _initialise_command(binary, link if binary.family == "mariadb" else new)
        try:
            done = subprocess.run(
                line, capture_output=True, text=True, timeout=INITIALISE_S_MAX, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServerError(f"the database could not be initialised in {data}: {error}") from error
        if done.returncode != 0:
            reason = last_words(done.stderr + done.stdout) + _hint(binary)
            raise ServerError(f"{line[0]} could not initialise {data}: {reason}")
        new.rename(data)


def _initialise_command(binary: Binary, folder: Path) -> list[str]:
    if binary.family == "mysql":
        options = [f"--datadir={folder}", "--mysqlx=OFF", "--secure-file-priv=NULL", "--skip-log-bin", *_as_root()]
        return [str(binary.path), "--no-defaults", "--initialize-insecure", *options]
    beside = binary.path.parent
    installers = _find(_INSTALLER_NAMES, (beside, beside.parent / "bin", beside.parent / "scripts"))
    if not installers:
        raise ServerError(
            f"{binary.path} is installed but mariadb-install-db is not; it comes with mariadb-server-core"
        )
    # `--rpm` keeps the script from looking up this machine's name and, as root, from changing the PAM plug-in's files.
    options = ["--rpm", "--skip-name-resolve", "--skip-test-db", "--auth-root-authentication-method=normal"]
    return [str(installers[0]), "--no-defaults", f"--datadir={folder}", *options, *_as_root()]


def fetch_version(socket_path: Path) -> str | None:
    """The version in the server's greeting, such as `10.11.6-MariaDB`; None if it does not answer or is stopping."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(GREETING_S_MAX)
            connection.connect(str(socket_path))
            packet = connection.recv(256)
    except OSError:
        return None
    # Length (3 bytes), number, protocol 10, version up to a zero byte. Protocol 255 is an error, such as "stopping".
    if packet[4:5] != b"\x0a":
        return None
    return packet[5:].partition(b"\0")[0].decode("latin-1").removeprefix("5.5.5-")


def last_words(text: str) -> str:
    """The first two errors in a server's messages, which are the cause; if there is none, its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line and "Aborting" not in line]
    return _one_line(" | ".join(errors[:2] or lines[-1:])) or "it said nothing"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:LAST_WORDS_CHARS_MAX]


def _hint(binary: Binary) -> str:
    if binary.family == "mysql" and Path("/etc/apparmor.d/usr.sbin.mysqld").exists():
        return " (AppArmor confines mysqld to its own folders here: install mariadb-server-core, which is free of that)"
    return ""
