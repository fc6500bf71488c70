"""The command of the private server: status, stop and cli."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mysqld import program, shared
from mysqld.program import ServerError
from mysqld.shared import leave, use
from process.child import ROOT
from tests.support.child import wait_until
from tests.support.private import WAIT_S_MAX, User, is_running, on_linux, pid_of

pytestmark = pytest.mark.slow


def run_script(data_dir: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The outcome of `python private_mysql.py` with these arguments."""
    return subprocess.run(
        [sys.executable, "private_mysql.py", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"DATA_DIR": str(data_dir)} | environ,
        timeout=WAIT_S_MAX,
    )


def test_without_flock_the_error_says_what_to_set(data_dir: Path) -> None:
    """On Windows the module can be imported, and its error names MYSQL_HOST."""
    code = "import sys; sys.modules['fcntl'] = None; import private_mysql; sys.exit(private_mysql.main(['status']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert done.returncode == 2
    assert "MYSQL_HOST" in done.stderr
    assert done.stderr.count("\n") == 1


def test_waiting_for_a_server_that_hangs_has_a_bound(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended server is reported by who waits for its answer and by who waits for its end."""
    use(data_dir)
    os.kill(pid_of(data_dir), signal.SIGSTOP)
    monkeypatch.setattr(shared, "STOP_S_MAX", 0.1)
    monkeypatch.setattr(program, "GREETING_S_MAX", 0.1)
    try:
        assert "does not answer" in run_script(data_dir, "status").stdout
        with pytest.raises(ServerError, match="has not stopped"):
            leave(data_dir)
    finally:
        os.kill(pid_of(data_dir), signal.SIGCONT)
    wait_until(lambda: not is_running(data_dir), WAIT_S_MAX)


@on_linux
def test_status_tells_whether_it_runs_and_who_uses_it(data_dir: Path) -> None:
    """Exit code 1 while it does not run, 0 while it does, and the facts to find it."""
    assert run_script(data_dir, "status").stdout == f"not running\ndata:    none yet; {data_dir}/mysql\n"
    assert not data_dir.exists()

    socket_path = use(data_dir)
    running = run_script(data_dir, "status")
    assert running.returncode == 0
    lines = [line.split(maxsplit=1) for line in running.stdout.splitlines()]
    assert [name for name, _ in lines] == [
        "running:",
        "pid:",
        "socket:",
        "data:",
        "log:",
        "used",
    ]
    assert [text for _, text in lines[1:5]] == [
        str(pid_of(data_dir)),
        str(socket_path),
        f"{data_dir}/mysql",
        f"{data_dir}/mysql.log",
    ]
    assert lines[5][1].startswith(f"by: {os.getpid()} ")

    leave(data_dir)
    stopped = run_script(data_dir, "status")
    assert stopped.returncode == 1
    assert f"{data_dir}/mysql, of MariaDB 1" in stopped.stdout


@on_linux
def test_stop_spares_a_server_in_use_unless_forced(data_dir: Path, new_user: Callable[[], User]) -> None:
    """It names who uses the server; `--force` stops it, and an orphan needs no force."""
    user = new_user()
    user.socket()

    spared = run_script(data_dir, "stop")
    assert spared.returncode == 1
    assert f"in use by {user.process.pid} " in spared.stderr
    assert is_running(data_dir)

    forced = run_script(data_dir, "stop", "--force")
    assert (forced.returncode, forced.stdout) == (0, "stopped\n")
    assert not is_running(data_dir)
    assert run_script(data_dir, "stop").stdout == "not running\n"

    orphan = new_user()
    orphan.socket()
    user.kill()
    orphan.kill()
    assert run_script(data_dir, "stop").returncode == 0
    assert not is_running(data_dir)


def test_cli_opens_the_client_and_leaves(data_dir: Path) -> None:
    """Further arguments are the client's; it is in the database of the settings, in UTC; the server ends with it."""
    first = run_script(data_dir, "cli", "-N", "-e", "CREATE DATABASE binance_demo; SELECT 1 + 1")
    assert (first.returncode, first.stdout) == (0, "2\n")
    assert "no database binance yet" in first.stderr

    second = run_script(data_dir, "cli", "--demo", "-N", "-e", "SELECT DATABASE(), @@time_zone")
    assert (second.returncode, second.stdout, second.stderr) == (0, "binance_demo\t+00:00\n", "")

    assert run_script(data_dir, "cli", "-e", "nonsense").returncode == 1
    assert not is_running(data_dir)


@pytest.mark.parametrize(
    ("arguments", "environ", "word"),
    [
        (["cli"], {"MYSQL_HOST": "db.example"}, "db.example"),
        (["status"], {"MYSQL_PORT": "x"}, "MYSQL_PORT='x'"),
        (["status", "--all"], {}, "--all"),
        ([], {}, "action"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    data_dir: Path, arguments: list[str], environ: dict[str, str], word: str
) -> None:
    """No traceback, and the wrong value is named."""
    done = run_script(data_dir, *arguments, **environ)

    assert done.returncode == 2
    assert word in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
