"""A child process that ends with this one, however this one ends, and that a Ctrl-C in the terminal does not reach."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger("child")

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder, from which `python -m tools.x` works."""
LINE_BYTES_MAX = 4_096


def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """`python ARGUMENTS`, whose standard input and output are pipes of ours; its errors go where ours go.

    The pipe to its input closes with this process, which a child that calls when_stdin_closes() takes as its end. A
    session of its own keeps the terminal's Ctrl-C from it, so that it can be ended in order.
    """
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def first_line(child: subprocess.Popen[str]) -> str:
    """The first line that `child` prints, without its line feed; empty when it ends without one."""
    assert child.stdout is not None
    return child.stdout.readline().rstrip("\n")


def end(child: subprocess.Popen[str], name: str, seconds: float) -> None:
    """Asks `child` to end, and kills it when it has not within `seconds`."""
    child.terminate()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        log.warning("%s did not end within %.0f s and is killed", name, seconds)
        child.kill()
        child.wait()


def when_stdin_closes(then: Callable[[], object]) -> None:
    """Calls `then` in a thread of its own once nobody can write to our standard input any more."""

    def wait() -> None:
        # Not through sys.stdin, whose lock a thread that waits would hold when the interpreter ends.
        while os.read(0, LINE_BYTES_MAX):
            pass
        then()

    threading.Thread(target=wait, name="stdin", daemon=True).start()
