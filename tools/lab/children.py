"""A capture under test: the stand-in exchange and the capture as child processes that can be disturbed and ended."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from process.child import ROOT
from tools.lab.verdict import DIRECT

CALL_S_MAX = 30.0
START_S_MAX = 60.0
STOP_S_MAX = 180.0
"""How long the capture may take after SIGTERM: it first stores the trades that wait for the database."""
REFUSED_S_MAX = 20.0
"""How long the exchange may refuse all connections, which is one of its faults."""
POLL_S = 0.02
LOG_CHARS_MAX = 3_000
FATES = 4
"""Inserted, duplicate, dropped, left over."""


class RigError(Exception):
    """Something under test did not do what it must; the message says what, and shows the end of its log."""


def wait_for(what: str, condition: Callable[[], object], seconds: float) -> None:
    """Returns when `condition` is true. After `seconds` raises RigError, which names `what`."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RigError(f"not within {seconds:.0f} s: {what}")
        time.sleep(POLL_S)


class Process:
    """A child process whose output and errors go to files; `arguments` are those of `python`."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.out, self.log = log.with_suffix(".out"), log
        with self.out.open("ab") as out, self.log.open("ab") as err:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                # Ctrl-C in the terminal goes only to this process, which then ends the children in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The child's pid."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code: None while it runs, negative if a signal ended it."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; does nothing if the process has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it with SIGKILL, even if it is suspended, and waits."""
        self._process.kill()
        self._process.wait(STOP_S_MAX)

    def wait(self, seconds: float = STOP_S_MAX) -> int:
        """Its exit code. Raises RigError if it still runs after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise RigError(f"process {self.pid} has not ended within {seconds:.0f} s\n{self.last_words()}") from None

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-LOG_CHARS_MAX:]

    def peak_rss_mb(self) -> float:
        """Its peak resident memory in MB; 0 if it has ended or the system does not tell."""
        return self._memory_mb("VmHWM")

    def rss_mb(self) -> float:
        """Its resident memory in MB, now; 0 as above."""
        return self._memory_mb("VmRSS")

    def _memory_mb(self, name: str) -> float:
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0.0
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else 0.0


class Exchange(Process):
    """`python -m tools.exchange` on a free port; `ws` and `http` are its addresses. Use it in a `with` block."""

    def __init__(self, folder: Path, *flags: str, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(["-m", "tools.exchange", "--port", "0", *flags], environ or {}, folder / "exchange.log")
        wait_for("the stand-in exchange listens", self._first_line, START_S_MAX)
        _, self.ws, self.http = self._first_line().split()

    def __enter__(self) -> "Exchange":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def environ(self) -> dict[str, str]:
        """The variables that make a capture use this exchange."""
        return {"BINANCE_WS_URL": self.ws, "BINANCE_REST_URL": self.http, "BINANCE_ARCHIVE_URL": self.http}

    def fault(self, name: str, **fields: object) -> None:
        """Switches on a fault (GET /_faults lists them)."""
        self.faults([{"fault": name, **fields}])

    def faults(self, wishes: Sequence[Mapping[str, object]]) -> None:
        """Switches on several faults in one call: after the first, the exchange may refuse connections."""
        self._call("/_faults", "POST", json.dumps(wishes).encode())

    def clear(self) -> None:
        """Switches all faults off."""
        self._call("/_faults", "DELETE")

    def state(self) -> Any:
        """The answer to GET /_state: what has happened so far."""
        return self._call("/_state")

    def struck(self, name: str) -> int:
        """How often a fault has struck so far."""
        return int(self.state()["faults"]["struck"].get(name, 0))

    def newest(self) -> dict[str, int]:
        """The id of the last emitted trade of each symbol."""
        return {summary["symbol"]: summary["last_id"] or 0 for summary in self._call("/_truth")}

    def _first_line(self) -> str:
        if self.exit_code is not None:
            raise RigError(f"the stand-in exchange did not start\n{self.last_words()}")
        line, end, _ = self.out.read_text().partition("\n")
        return line if end else ""

    def _call(self, path: str, method: str = "GET", body: bytes | None = None) -> Any:
        request = urllib.request.Request(self.http + path, body, method=method)
        until = time.monotonic() + REFUSED_S_MAX
        while True:
            try:
                with DIRECT.open(request, timeout=CALL_S_MAX) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                raise RigError(f"{method} {path} {body!r}: {error.read()!r}") from None
            except urllib.error.URLError as error:
                # A fault may be refusing connections.
                if time.monotonic() > until:
                    raise RigError(f"the stand-in exchange is not reached: {error}\n{self.last_words()}") from None
            time.sleep(POLL_S)


class Capture:
    """`python ws_client.py`, which can be killed and restarted with the same settings. `starts` counts the starts.

    Use it in a `with` block, which leaves nothing running.
    """

    def __init__(self, environ: Mapping[str, str], folder: Path, arguments: Sequence[str] = ("ws_client.py",)) -> None:
        self.starts = 0
        self.peak_rss_mb = 0.0
        self._environ = environ
        self._folder = folder
        self._arguments = arguments
        self._process: Process | None = None

    def __enter__(self) -> "Capture":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()

    @property
    def process(self) -> Process:
        """The most recently started process."""
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Starts it; the previous process must have ended."""
        self.starts += 1
        log = self._folder / f"capture-{self.starts}.log"
        self._process = Process(self._arguments, self._environ, log)

    def running(self) -> bool:
        """Whether it runs; remembers its peak memory."""
        self.peak_rss_mb = max(self.peak_rss_mb, self.process.peak_rss_mb())
        return self.process.exit_code is None

    def kill(self) -> None:
        """Ends it at once, like a crash."""
        self.process.kill()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Asks it to end. Returns its summary. Raises RigError if it fails."""
        self.running()
        self.process.send(number)
        code = self.process.wait()
        if code != 0:
            raise RigError(f"the capture ended with exit code {code}\n{self.process.last_words()}")
        return self.process.out.read_text()


def broken_identities(folder: Path) -> list[str]:
    """The summaries in `folder` whose numbers do not add up: some parsed trade has no fate, or two."""
    found = []
    for path in sorted(folder.glob("capture-*.out")):
        text = path.read_text()
        for line in re.findall(r"^parsed .*", text, re.M):
            parsed, *fates = map(int, re.findall(r"\d+", line))
            if parsed != sum(fates) or len(fates) != FATES:
                found.append(f"{path.name}: {line}")
    return found
