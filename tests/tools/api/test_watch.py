"""Whether the capture runs, told by its lock."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from process import lock
from process.child import ROOT
from tests.support.child import wait_until
from tools.api.watch import CaptureWatch

HOLD = """
import sys
from pathlib import Path
from process import lock
lock.try_alone(lock.open_lock(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not tell who holds a lock")
def test_the_life_of_a_capture(tmp_path: Path) -> None:
    """Not known before one was seen; then it runs, is suspended, runs on and ends; the watch takes no lock."""
    watch = CaptureWatch(tmp_path)
    before = watch.look()
    path = tmp_path / "capture.lock"
    os.close(lock.open_lock(path))
    unheld = watch.look()
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        owner, running = lock.find_owner(path), watch.look()
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: watch.look() == "frozen")
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: watch.look() == "running")
        process.kill()
    wait_until(lambda: watch.look() == "stopped")

    assert (before, unheld, running, owner) == (None, None, "running", process.pid)
