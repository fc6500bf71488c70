"""The private server: an embedded MariaDB or MySQL for users who have configured none, shared by all scripts.

Everything is in DATA_DIR/mysql, a folder of mode 0700; the server's messages are in DATA_DIR/mysql.log:

    data/        the server's own folder; it appears by a rename, so it is complete or absent
    family       what initialised it, and so what may open it, such as `mariadb 10.11.6`
    socket       one line: the path of the Unix socket, which is the only way in (there is no network)
    pid          written by the server
    users.lock   each process that uses the server holds it shared; whoever leaves and gets it alone was the last
    start.lock   held alone by whoever starts or stops the server, so that only one process decides at a time
    server.lock  held by the server itself, which inherits it, so the kernel knows whether the server runs

The locks are flocks: the kernel drops them with their process, so a killed one leaves no trace, and a server whose
users were all killed is joined by the next one.
"""

import atexit
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mysqld.program import (
    FAMILIES,
    INITIALISE_S_MAX,
    Binary,
    ServerError,
    command,
    fetch_version,
    find_binary,
    initialise,
    inspect_binary,
    last_words,
)
from process import lock as file_lock

START_S_MAX = 120.0
"""From the start of the server until it answers; recovery after a crash is part of it."""
STOP_S_MAX = 60.0
"""From the request to stop until the server is gone; it writes its dirty pages first."""
DECIDE_S_MAX = INITIALISE_S_MAX + START_S_MAX + STOP_S_MAX
"""How long to wait while another process starts or stops the server."""
LOCK_S_MAX = 5.0
"""A process that checks whether the server runs holds its lock for a moment."""
SOCKET_PATH_BYTES_MAX = 100
"""macOS takes 103 bytes, Linux 107."""
LOG_BYTES_MAX = 1 << 20
"""A longer log is renamed to mysql.log.1, replacing the previous one, when the server starts."""


class ServerGoneError(ServerError):
    """The server ran for this process, is gone, and cannot be restarted now."""


class _Use:
    """This process's share in one private server."""

    def __init__(self, lock: int, binary: Path | None) -> None:
        self.lock = lock
        self.binary = binary
        self.process: subprocess.Popen[bytes] | None = None


_uses: dict[Path, _Use] = {}
_mutex = threading.RLock()


def use(data_dir: Path, binary: Path | None = None) -> Path:
    """The Unix socket of the server of `data_dir`, which is answering; the first user starts it.

    The process counts as a user until it ends or calls leave(). Calling again is cheap, and restarts the server if its
    process is gone. `binary` overrides the search for a server. Raises ServerError.
    """
    revive(data_dir, binary)
    return socket_of(home_of(data_dir))


def revive(data_dir: Path, binary: Path | None = None) -> bool:
    """Joins the server of `data_dir`. Returns whether it had to be started. Raises ServerError; if this process has
    used the server before, ServerGoneError."""
    home = prepare_home(data_dir)
    with _mutex:
        held = _uses.get(home)
        try:
            return _join(home, binary) if held is None else _rejoin(home, held)
        except OSError as error:
            raise ServerError(unusable(data_dir, error)) from error


def _rejoin(home: Path, held: _Use) -> bool:
    if is_running(home):
        return False
    try:
        with deciding(home):
            return _start_if_gone(home, held)
    except ServerError as error:
        raise ServerGoneError(str(error)) from error


def leave(data_dir: Path) -> None:
    """Ends this process's use of the server of `data_dir`; the last user stops it. Raises ServerError."""
    home = home_of(data_dir)
    with _mutex:
        held = _uses.pop(home, None)
        if held is None:
            return
        try:
            with deciding(home):
                _stop_if_last(home, held)
        except FileNotFoundError:
            # The folder was removed while the server ran, so nobody else can find it any more.
            if held.process:
                held.process.terminate()
        finally:
            os.close(held.lock)


def _join(home: Path, binary: Path | None) -> bool:
    require_owner(home)
    held = _Use(file_lock.open_lock(home / "users.lock"), binary)
    try:
        with deciding(home):
            # Nobody holds it alone outside deciding(), so this never fails.
            file_lock.try_shared(held.lock)
            try:
                started = _start_if_gone(home, held)
            except ServerError:
                _stop_if_last(home, held)
                raise
            except BaseException:
                # Ctrl-C. A MariaDB that is asked to stop while it starts hangs for ever, one time in five.
                with contextlib.suppress(ServerError):
                    if is_running(home):
                        _await_greeting(home, _log_bytes(home))
                    _stop_if_last(home, held)
                raise
    except BaseException:
        os.close(held.lock)
        raise
    _uses[home] = held
    return started


def _stop_if_last(home: Path, held: _Use) -> None:
    # The kernel gives up the shared lock before it tries for the exclusive one: either way this process has left.
    if file_lock.try_alone(held.lock):
        stop(home, held.process)


@atexit.register
def _leave_all() -> None:
    for home in list(_uses):
        try:
            leave(home.parent)
        except ServerError as error:
            print(error, file=sys.stderr)
        except KeyboardInterrupt:
            # The server has already been asked to stop, and does so without us.
            return


def _forget_uses() -> None:
    """In a forked child: its copies of the locks are its parent's, so close them without unlocking."""
    global _mutex
    _mutex = threading.RLock()
    for held in _uses.values():
        os.close(held.lock)
    _uses.clear()


if file_lock.AVAILABLE:
    os.register_at_fork(after_in_child=_forget_uses)


# The folder and its locks


def home_of(data_dir: Path) -> Path:
    """The folder of the private server of `data_dir`."""
    return data_dir.expanduser().resolve() / "mysql"


def has_data(data_dir: Path) -> bool:
    """Whether a private server was initialised there. Raises ServerError."""
    try:
        return (home_of(data_dir) / "data").exists()
    except OSError as error:
        raise ServerError(unusable(data_dir, error)) from error


def unusable(data_dir: Path, error: OSError) -> str:
    """Why a DATA_DIR cannot be used, and what to do, in one line."""
    words = f"DATA_DIR={str(data_dir)!r} cannot be used: {error.strerror or error}"
    if isinstance(error, PermissionError):
        words += f" ({error.filename}); it belongs to another account, as after a first run as root: use that account"
        return f"{words}, or set DATA_DIR to a folder of your own"
    return f"{words}; set it to a folder of your own, on a disk of this machine"


def prepare_home(data_dir: Path, create: bool = True) -> Path:
    """As home_of; the folder is created unless `create` is false. Raises ServerError."""
    if not file_lock.AVAILABLE:
        raise ServerError("there is no private server on Windows: set MYSQL_HOST, MYSQL_USER and MYSQL_PASSWORD")
    home = home_of(data_dir)
    if not create:
        return home
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ServerError(unusable(data_dir, error)) from error
    return home


def require_owner(folder: Path) -> None:
    """Refuses someone else's folder: the server would leave files in it that its owner cannot open."""
    status = folder.lstat()
    if status.st_uid != os.geteuid():
        raise ServerError(
            f"{folder} belongs to user {status.st_uid} and not to you: use that account or another DATA_DIR"
        )
    if status.st_mode & 0o077:
        folder.chmod(0o700)


@contextlib.contextmanager
def deciding(home: Path) -> Iterator[None]:
    """While the block runs, no other process starts or stops the server."""
    with file_lock.alone(home / "start.lock", DECIDE_S_MAX) as ours:
        if not ours:
            raise ServerError(f"another process has been busy with the server of {home} for {DECIDE_S_MAX:.0f} s")
        yield


def is_running(home: Path) -> bool:
    """Whether the process of the server of `home` (DATA_DIR/mysql) exists; it may be starting or stopping."""
    return file_lock.is_held_alone(home / "server.lock")


def users_of(home: Path) -> list[str]:
    """The pid and the command line of each process that uses the server."""
    return [f"{pid} {_command_line(pid)}" for pid in file_lock.find_holders(home / "users.lock")]


def _command_line(pid: int) -> str:
    """What process `pid` was started with, or an empty text; /proc where there is one (a slim container has no ps)."""
    with contextlib.suppress(OSError):
        if Path("/proc/self").exists():
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        ps = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        return subprocess.run(ps, capture_output=True, text=True).stdout.strip()
    return ""


# Start and stop


def _start_if_gone(home: Path, held: _Use) -> bool:
    if is_running(home):
        _await_greeting(home, _log_bytes(home))
        return False
    binary = _choose_binary(home, held.binary)
    if not (home / "data").exists():
        for leftover in home.glob("new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        initialise(binary, home / "data")
    if held.process:
        held.process.wait()  # It was ours and is dead.
    _rotate_log(home)
    offset = _log_bytes(home)
    held.process = _spawn(home, binary)
    _await_greeting(home, offset)
    # Only now: a newer release that refused to start has not changed the data.
    _record(home / "family", f"{binary.family} {binary.version}")
    return True


def _record(path: Path, line: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(f"{line}\n")
    new.replace(path)


def _choose_binary(home: Path, path: Path | None) -> Binary:
    """The program for the data of `home`, refusing one of the other family or of an older release."""
    family, version = recorded(home)
    binary = inspect_binary(path) if path else find_binary(family)
    if family not in (None, binary.family) or _release(binary.version) < _release(version):
        raise ServerError(
            f"{home} is a database of {FAMILIES.get(family or '', family)} {version}, which {binary.path}"
            f" ({FAMILIES[binary.family]} {binary.version}) cannot open: install that version, or set another DATA_DIR"
        )
    return binary


def recorded(home: Path) -> tuple[str | None, str]:
    """The family and version that created the data of `home` or opened them last; None if there are no data."""
    try:
        family, _, version = (home / "family").read_text().strip().partition(" ")
    except FileNotFoundError:
        return None, "0"
    return (family, version) if (home / "data").exists() else (None, "0")


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _rotate_log(home: Path) -> None:
    if _log_bytes(home) > LOG_BYTES_MAX:
        log_of(home).replace(home.parent / "mysql.log.1")


def _log_bytes(home: Path) -> int:
    return log_of(home).stat().st_size if log_of(home).exists() else 0


def log_of(home: Path) -> Path:
    """The file with the server's messages."""
    return home.parent / "mysql.log"


def _spawn(home: Path, binary: Binary) -> subprocess.Popen[bytes]:
    """Starts the server in a session of its own, so that Ctrl-C in our terminal does not reach it."""
    socket_path = _choose_socket_path(home)
    # MySQL refuses to start if its socket's lock file names a living process, which may by now be any program.
    for stale in (home / "pid", socket_path, socket_path.with_name("mysqld.sock.lock")):
        stale.unlink(missing_ok=True)
    _record(home / "socket", str(socket_path))
    lock = file_lock.open_lock(home / "server.lock")
    log = os.open(log_of(home), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if not file_lock.wait_alone(lock, LOCK_S_MAX):
            raise ServerError(f"{home}/server.lock is held by something other than the server")
        line = command(binary, home / "data", socket_path, home / "pid")
        return subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home,
            env=_server_environ(),
            pass_fds=(lock,),
            start_new_session=True,
        )
    finally:
        os.close(log)
        os.close(lock)


def _server_environ() -> dict[str, str]:
    """The environment without another server's password and without what systemd meant for us."""
    strange = ("MYSQL", "NOTIFY_", "LISTEN_")
    return {name: value for name, value in os.environ.items() if not name.startswith(strange)}


def _choose_socket_path(home: Path) -> Path:
    """In `home`, or, if its path is too long or its file system takes no socket, as a share of WSL or of a virtual
    machine, in a folder of the runtime or of temporary files. Raises ServerError if none takes one."""
    name = f"mysql-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    others = [Path(folder) / name for folder in (runtime, tempfile.gettempdir(), "/tmp") if folder]
    why: list[str] = []
    for folder in dict.fromkeys([home, *others]):
        try:
            _try_socket(home, folder)
        except (OSError, ServerError) as error:
            why.append(f"{folder}: {error}")
        else:
            return folder / "mysqld.sock"
    raise ServerError(
        f"no folder takes the socket of the private server ({'; '.join(why)}): set TMPDIR to a short path of your own,"
        " or DATA_DIR to one on a disk of this machine"
    )


def _try_socket(home: Path, folder: Path) -> None:
    """Raises OSError or ServerError if no Unix socket of ours can be in `folder`, which is made if it is not `home`."""
    if folder != home:
        folder.mkdir(mode=0o700, exist_ok=True)
        require_owner(folder)
    if len(os.fsencode(folder / "mysqld.sock")) > SOCKET_PATH_BYTES_MAX:
        raise OSError(f"its path has more than {SOCKET_PATH_BYTES_MAX} bytes")
    path = folder / "try.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as tried:
        tried.bind(str(path))
    path.unlink(missing_ok=True)


def socket_of(home: Path) -> Path:
    """The server's socket, as whoever started it chose it: another process may have another XDG_RUNTIME_DIR."""
    return Path((home / "socket").read_text().rstrip("\n"))


def _await_greeting(home: Path, log_offset: int) -> None:
    deadline = time.monotonic() + START_S_MAX
    while fetch_version(socket_of(home)) is None:
        if not is_running(home):
            reason = last_words(log_of(home).read_bytes()[log_offset:].decode(errors="replace"))
            raise ServerError(f"the private server refused to start: {reason} (see {log_of(home)})")
        if time.monotonic() > deadline:
            raise ServerError(f"the private server has not answered within {START_S_MAX:.0f} s; see {log_of(home)}")
        time.sleep(file_lock.POLL_S)


def stop(home: Path, process: subprocess.Popen[bytes] | None) -> None:
    """Shuts the server down cleanly if it runs; if we are its parent, also reaps it. Raises ServerError."""
    deadline = time.monotonic() + STOP_S_MAX
    if is_running(home):
        os.kill(server_pid(home, process), signal.SIGTERM)
    while is_running(home):
        if time.monotonic() > deadline:
            raise ServerError(
                f"the private server of {home} has not stopped within {STOP_S_MAX:.0f} s; see {log_of(home)}"
            )
        time.sleep(file_lock.POLL_S)
    if process:
        process.wait()


def server_pid(home: Path, process: subprocess.Popen[bytes] | None = None) -> int:
    """The pid of the running server. Raises ServerError if the pid on file is not our server's."""
    if process and process.poll() is None:
        return process.pid
    try:
        pid = int((home / "pid").read_text())
    except (OSError, ValueError) as error:
        raise ServerError(f"the private server of {home} runs, but its pid is not known") from error
    if f"--datadir={home / 'data'}" not in _command_line(pid):
        raise ServerError(f"the private server of {home} runs, but not as process {pid} of this machine or container")
    return pid
