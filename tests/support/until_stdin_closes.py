"""Runs a command until stdin closes: so it ends with the process that started it, whatever becomes of that."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from process.child import ROOT

END_S_MAX = 10.0


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The block has the command running, with its output in `log`; it ends with the block, or with this process."""
    guard = [sys.executable, "-m", "tests.support.until_stdin_closes", *command]
    with log.open("wb") as file:
        process = subprocess.Popen(guard, cwd=ROOT, stdin=subprocess.PIPE, stdout=file, stderr=file)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(2 * END_S_MAX)


if __name__ == "__main__":
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    sys.stdin.read()
    child.terminate()
    try:
        child.wait(END_S_MAX)
    except subprocess.TimeoutExpired:
        child.kill()
