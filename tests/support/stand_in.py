"""The stand-in exchange as a process of its own, for the tests that talk to it over real sockets."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

import websocket

from process.child import ROOT

WAIT_S_MAX = 10.0
BOTH = "/stream?streams=btcusdt@trade/ethusdt@trade"


class Answer(NamedTuple):
    """What a call gave: status, headers (lower case) and the body, decoded where it is JSON."""

    status: int
    headers: dict[str, str]
    body: Any


class StandIn:
    """A running `python -m tools.exchange`, stopped when the block ends."""

    def __init__(self, *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.exchange", "--port", "0", *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        words = self.first_line.split() or ["", "", ""]
        self.ws, self.http = words[1], words[2]
        self._open: list[websocket.WebSocket] = []

    def __enter__(self) -> "StandIn":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()
        self.stop()

    def hang_up(self) -> None:
        """Ends every connection of this test."""
        for connection in self._open:
            if connection.sock is not None:
                connection.sock.close()
        self._open.clear()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Ends it by a signal; the exit code and the rest of the two outputs."""
        if self.process.poll() is None:
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

    def connect(self, path: str = BOTH) -> websocket.WebSocket:
        """An open stream connection; it is closed with the block."""
        connection = websocket.create_connection(self.ws + path, timeout=WAIT_S_MAX, skip_utf8_validation=True)
        self._open.append(connection)
        return connection

    def get(self, path: str, micro: bool = False) -> Answer:
        """One GET; an HTTP error is an answer too."""
        headers = {"X-MBX-TIME-UNIT": "MICROSECOND"} if micro else {}
        return self._call(urllib.request.Request(self.http + path, headers=headers))

    def json(self, path: str, micro: bool = False) -> Any:
        """The body of a GET that must succeed."""
        answer = self.get(path, micro)
        assert answer.status == 200, answer
        return answer.body

    def post(self, path: str, body: object) -> Answer:
        """One POST of a JSON body."""
        return self._call(urllib.request.Request(self.http + path, json.dumps(body).encode(), method="POST"))

    def fault(self, name: str, **fields: object) -> Any:
        """Switches a fault on."""
        answer = self.post("/_faults", {"fault": name, **fields})
        assert answer.status == 200, answer
        return answer.body

    def clear(self) -> None:
        """Switches all faults off."""
        self._call(urllib.request.Request(self.http + "/_faults", method="DELETE"))

    def state(self) -> Any:
        """What has happened so far."""
        return self.json("/_state")

    def truth(self, symbol: str) -> list[dict[str, Any]]:
        """Every emitted trade of the symbol."""
        lines = self.get(f"/_truth/trades?symbol={symbol}").body
        return [json.loads(line) for line in lines.splitlines()]

    def _call(self, request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S_MAX) as response:
                return _answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.headers, error.read())


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    names = {name.lower(): value for name, value in headers.items()}
    is_json = names.get("content-type", "").startswith("application/json")
    return Answer(status, names, json.loads(body) if is_json else body.decode())


def wait_until(what: Callable[[], bool], seconds: float = WAIT_S_MAX) -> None:
    """Returns when `what` is true; fails after `seconds`."""
    until_s = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.005)
