"""A private PostgreSQL server for the tests, run by an ordinary user where the tests are root's, which it refuses."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.support.servers import POLL_S

START_S_MAX = 30.0
STOP_S_MAX = 30.0
USERS = ("postgres", "nobody")
FOLDERS = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin")
MISSING = "no PostgreSQL server; Debian, Ubuntu: apt-get install postgresql"

# The tests may be killed too: then the pipe to this process closes, and it removes what they cannot.
_GUARD = """read -r _; kill -QUIT "$1"; sleep 1; rm -rf "$2" """


def find_programs() -> Path | None:
    """The folder of `postgres` and `initdb`, of the newest version; None when there is none."""
    found = [path for pattern in FOLDERS for path in Path("/").glob(pattern.lstrip("/")) if (path / "initdb").exists()]
    on_path = shutil.which("initdb")
    return max(found, key=_version) if found else Path(on_path).parent if on_path else None


def _version(folder: Path) -> int:
    digits = "".join(filter(str.isdigit, folder.parent.name))
    return int(digits or 0)


class Postgres:
    """A server in `folder`, which must have a short path, on a Unix socket only; its data are worth nothing."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = _ordinary_user()
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command = [str(programs / "initdb"), *options, "-D", str(folder / "data")]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, **self._as)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        settings = {"fsync": "off", "shared_buffers": "16MB", "listen_addresses": "", "max_connections": "30"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [
            str(self._programs / "postgres"),
            "-D",
            str(self._folder / "data"),
            "-k",
            str(self._folder),
            *options,
        ]
        log = self._folder / "log"
        with log.open("ab") as out:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **self._as
            )
        self._process = process
        guard = ["sh", "-c", _GUARD, "guard", str(process.pid), str(self._folder)]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
        deadline = time.monotonic() + START_S_MAX
        while not self._answers():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Ends it, by default with an orderly shutdown that cuts off its clients; SIGQUIT is as a crash."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(number)
        self._process.wait(STOP_S_MAX)
        assert self._guard is not None
        self._guard.kill()
        self._guard.communicate()

    @contextmanager
    def bouncer(self, program: str) -> Iterator[str]:
        """A running pgbouncer before it that pools transactions over two sessions; yields its host, on port 6432."""
        folder = self._folder / "bouncer"
        folder.mkdir()
        (folder / "users").write_text('"postgres" ""\n')
        (folder / "ini").write_text(
            f"[databases]\n* = host={self._folder}\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n"
            f"unix_socket_dir = {folder}\nauth_type = trust\nauth_file = {folder / 'users'}\npool_mode = transaction\n"
            "default_pool_size = 2\nserver_reset_query =\n"
        )
        if self._as:
            for path in (folder, *folder.iterdir()):
                os.chown(path, self._as["user"], self._as["group"])
        process = subprocess.Popen([program, "-q", str(folder / "ini")], stderr=subprocess.DEVNULL, **self._as)
        try:
            deadline = time.monotonic() + START_S_MAX
            while not (folder / ".s.PGSQL.6432").exists():
                assert time.monotonic() < deadline
                time.sleep(POLL_S)
            yield str(folder)
        finally:
            process.kill()
            process.wait()

    def url(self, database: str = "postgres") -> str:
        """The address of a database."""
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection in autocommit, whose times are UTC."""
        return psycopg.connect(self.url(database), autocommit=True, options="-c TimeZone=UTC")


def _ordinary_user() -> pwd.struct_passwd:
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise LookupError(f"no user {' or '.join(USERS)} to run PostgreSQL as, which refuses root")
