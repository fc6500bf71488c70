"""A running API as a process of its own, asked over real sockets."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

from process.child import ROOT

WAIT_S_MAX = 15.0


class Reply(NamedTuple):
    """What a question gave: status, headers in lower case, and the body, decoded where it is JSON."""

    status: int
    headers: dict[str, str]
    body: Any


class Event(NamedTuple):
    """A server-sent event; `id` None: it has none."""

    name: str
    id: str | None
    data: Any


class Stream:
    """An open stream of events."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self.last_id: str | None = None
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


class Api:
    """`python -m tools.api` on a free port, with these variables and flags. Use it in a `with` block."""

    def __init__(self, environ: Mapping[str, str], *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.api", "--port", "0", *flags],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        self.address = self.first_line.removeprefix("listening ").strip()
        self.port = int(self.address.rpartition(":")[2] or 0)
        self._streams: list[Stream] = []

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_error: object) -> None:
        self.hang_up()
        self.stop()

    def hang_up(self) -> None:
        """Ends every stream of this test."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()

    def stop(self) -> tuple[int, str]:
        """Ends it; the exit code and what it has written to stderr."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            _, errors = self.process.communicate(timeout=WAIT_S_MAX)
        except ValueError:
            errors = ""
        return self.process.returncode, errors

    def get(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        method: str = "GET",
    ) -> Reply:
        """One question."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S_MAX)
        try:
            connection.request(method, _with(path, query or {}), headers=dict(headers or {}))
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        is_json = found.get("content-type", "").startswith("application/json")
        return Reply(response.status, found, json.loads(text) if is_json else text.decode())

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
        stream = Stream(connection, response)
        self._streams.append(stream)
        return stream


def _with(path: str, query: Mapping[str, object]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


@contextmanager
def serving(environ: Mapping[str, str], *flags: str) -> Iterator[Api]:
    """An API that listens."""
    with Api(environ, *flags) as api:
        assert api.port, api.stop()
        yield api
