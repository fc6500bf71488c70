"""A child process that ends when this one ends, however it ends, and that Ctrl-C in the terminal does not reach."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

log = logging.getLogger("child")

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder, where `python -m tools.x` works."""
LINE_BYTES_MAX = 4_096


def start(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """`python ARGUMENTS`, with pipes to us as its standard input and output; its errors go where ours go.

    `environment`: what is set on top of ours.

    The pipe to its input closes when this process ends; a child that calls when_stdin_closes() then ends too. In a
    session of its own the child does not get the terminal's Ctrl-C, so it can be ended in order.
    """
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def first_line(child: subprocess.Popen[str]) -> str:
    """The first line that `child` prints, without its line feed; empty if it ends without one."""
    assert child.stdout is not None
    return child.stdout.readline().rstrip("\n")


def end(child: subprocess.Popen[str], name: str, seconds: float) -> None:
    """Asks `child` to end, and kills it if it has not ended within `seconds`."""
    child.terminate()
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        log.warning("%s did not end within %.0f s; killing it", name, seconds)
        child.kill()
        child.wait()


def when_stdin_closes(then: Callable[[], object]) -> None:
    """Calls `then`, in a thread of its own, once nobody can write to our standard input any more."""

    def wait() -> None:
        # Not through sys.stdin: the waiting thread would hold its lock when the interpreter exits.
        while os.read(0, LINE_BYTES_MAX):
            pass
        then()

    threading.Thread(target=wait, name="stdin", daemon=True).start()
