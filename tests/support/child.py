"""A server of tools/ as a process of its own, on a port that it chooses, for the tests that talk to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

from process.child import ROOT

WAIT_S_MAX = 15.0


class Answer(NamedTuple):
    """What a call gave: status, headers (lower case) and the body, decoded where it is JSON."""

    status: int
    headers: dict[str, str]
    body: Any


def answer(status: int, headers: Any, body: bytes) -> Answer:
    """The Answer that this is."""
    names = {name.lower(): value for name, value in headers.items()}
    is_json = names.get("content-type", "").startswith(("application/json", "application/problem+json"))
    return Answer(status, names, json.loads(body) if is_json and body else body.decode())


class Child:
    """A running `python -m MODULE`, from its first line on; stopped when the block ends."""

    def __init__(self, module: str, environ: Mapping[str, str], *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "--port", "0", *flags],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        self._open: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.hang_up()
        self.stop()

    def hang_up(self) -> None:
        """Ends every connection of this test."""
        for close in self._open:
            close()
        self._open.clear()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Ends it by a signal; the exit code and the rest of the two outputs."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> tuple[int, str, str]:
        """Waits until it has ended by itself; the exit code and the rest of the two outputs."""
        try:
            out, err = self.process.communicate(timeout=WAIT_S_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        except ValueError:
            # The outputs were read by an earlier call.
            out = err = ""
        return self.process.wait(), out, err


def wait_until(what: Callable[[], bool], seconds: float = WAIT_S_MAX) -> None:
    """Returns when `what` is true; fails after `seconds`."""
    until_s = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.005)
