"""The stand-in exchange as a process of its own, for the tests that talk to it over real sockets."""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import websocket

from tests.support.child import WAIT_S_MAX, Answer, Child, answer
from tools.lab.verdict import DIRECT

BOTH = "/stream?streams=btcusdt@trade/ethusdt@trade"


class StandIn(Child):
    """A running `python -m tools.exchange`; `ws` and `http` are its addresses."""

    def __init__(self, *flags: str) -> None:
        super().__init__("tools.exchange", {}, *flags)
        words = self.first_line.split() or ["", "", ""]
        self.ws, self.http = words[1], words[2]

    def connect(self, path: str = BOTH) -> websocket.WebSocket:
        """An open stream connection; it is closed with the block."""
        connection = websocket.create_connection(self.ws + path, timeout=WAIT_S_MAX, skip_utf8_validation=True)
        self._open.append(connection.shutdown)
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

    def file(self, path: str, method: str = "GET") -> Answer:
        """A file, its body as bytes; `path` may have any characters."""
        request = urllib.request.Request(self.http + urllib.parse.quote(path), method=method)
        try:
            with DIRECT.open(request, timeout=WAIT_S_MAX) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def day(self, symbol: str, day: str) -> list[dict[str, Any]]:
        """Every true trade of a UTC day, deep history included."""
        lines = self.get(f"/_truth/day?symbol={urllib.parse.quote(symbol)}&day={day}").body
        return [json.loads(line) for line in lines.splitlines()]

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
            with DIRECT.open(request, timeout=WAIT_S_MAX) as response:
                return answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return answer(error.code, error.headers, error.read())
