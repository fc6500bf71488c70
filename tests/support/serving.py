"""A running API as a process of its own, asked over real sockets."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests.support.child import WAIT_S_MAX, Answer, Child, answer


class Event(NamedTuple):
    """A server-sent event; `id` None: it has none."""

    name: str
    id: str | None
    data: Any


class Stream:
    """An open stream of events."""

    def __init__(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, last_id: str | None
    ) -> None:
        # As in a browser: one that is cut before its first event comes back with the id that it came with.
        self.last_id = last_id
        self._connection = connection
        self._response = response

    def close(self) -> None:
        """Hangs up."""
        self._response.close()
        self._connection.close()

    def next(self, *names: str) -> Event:
        """The next event of one of these names (default: any); raises TimeoutError when none comes."""
        while True:
            event = self._read()
            self.last_id = event.id or self.last_id
            if not names or event.name in names:
                return event

    def ids(self, count: int) -> list[int]:
        """The ids of the next `count` trades."""
        return [self.next("trade").data["trade_id"] for _ in range(count)]

    def _read(self) -> Event:
        fields: dict[str, str] = {}
        while True:
            line = self._response.readline().decode()
            if not line:
                raise ConnectionError("the stream has ended")
            if line == "\n" and "data" in fields:
                return Event(fields["event"], fields.get("id"), json.loads(fields["data"]))
            name, separator, value = line.rstrip("\n").partition(": ")
            if separator and name:
                fields[name] = value


class Api(Child):
    """`python -m tools.api` on a free port, with these variables and flags. Use it in a `with` block."""

    def __init__(self, environ: Mapping[str, str], *flags: str) -> None:
        super().__init__("tools.api", environ, *flags)
        self.address = self.first_line.removeprefix("listening ").strip()
        self.port = int(self.address.rpartition(":")[2] or 0)

    def get(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        method: str = "GET",
    ) -> Answer:
        """One question."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S_MAX)
        try:
            connection.request(method, _with(path, query or {}), headers=dict(headers or {}))
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        return answer(response.status, response.headers, text)

    def json(self, path: str, **query: object) -> Any:
        """The body of an answer that must be good."""
        reply = self.get(path, query=query)
        assert reply.status == 200, reply
        return reply.body

    def stream(self, symbols: str, mode: str = "trades", last_id: str | None = None) -> Stream:
        """A stream that has been accepted; it is closed with the block."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S_MAX)
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        connection.request("GET", _with("/api/stream", {"symbols": symbols, "mode": mode}), headers=headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        stream = Stream(connection, response, last_id)
        self._open.append(stream.close)
        return stream


def _with(path: str, query: Mapping[str, object]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


@contextmanager
def serving(environ: Mapping[str, str], *flags: str) -> Iterator[Api]:
    """An API that listens."""
    with Api(environ, *flags) as api:
        assert api.port, api.stop()
        yield api
