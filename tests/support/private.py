"""Processes that use a private server, and what can be seen of it from outside."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mysqld import shared
from process.child import ROOT
from tests.support.child import wait_until

WAIT_S_MAX = 30.0


on_linux = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who holds a lock (/proc)")


# Python acts on a Ctrl-C between two steps of its own: on one that comes just before a read without an end, after the
# read, which is never. So it waits a little at a time.
_USER = """
import pathlib, select, sys
from mysqld import shared
print(shared.use(pathlib.Path(sys.argv[1])), flush=True)
while not select.select([sys.stdin], [], [], 0.05)[0]:
    pass
"""


class User:
    """A process that uses the private server of `data_dir` until it is told to leave or is killed."""

    def __init__(self, data_dir: Path) -> None:
        line = [sys.executable, "-c", _USER, str(data_dir)]
        self.process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
        )

    def socket(self) -> str:
        """The socket that it was given, once it was."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def tell_to_leave(self) -> None:
        """Let it end, without waiting for that."""
        assert self.process.stdin
        self.process.stdin.close()

    def leave(self) -> None:
        """Let it end, and wait for that."""
        self.tell_to_leave()
        assert self.process.wait(WAIT_S_MAX) == 0

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait(WAIT_S_MAX)


def pid_of(data_dir: Path) -> int:
    """The pid of the running server of `data_dir`."""
    return int((data_dir / "mysql" / "pid").read_text())


def is_running(data_dir: Path) -> bool:
    """Whether the server of `data_dir` runs."""
    return shared.is_running(data_dir / "mysql")


def kill_server(data_dir: Path) -> None:
    """End the server of `data_dir` with SIGKILL."""
    os.kill(pid_of(data_dir), signal.SIGKILL)
    wait_until(lambda: not is_running(data_dir), WAIT_S_MAX)
