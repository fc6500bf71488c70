"""The HTTP connections: uvicorn's protocol with time-outs and sizes for what a client sends, and a bound on how many.

Whoever sends half a request, or nothing, holds nothing but a connection, and the one that has waited longest gives way
to the next client: so nobody can be shut out by others who have not shown a token, and memory is bounded.
"""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tools.api import shapes

CONNECTIONS_MAX = 400
"""At once, streams included. At the bound one that is waiting for its next request is closed for a new one."""
HEAD_S_MAX = 10.0
"""For a whole head of a request, from its first byte or the connection's beginning."""
BODY_S_MAX = 10.0
HEAD_BYTES_MAX = 32 * 2**10
"""Of the address and all headers; Last-Event-ID, the longest of ours, has up to 16,000."""


class Connection(HttpToolsProtocol):
    """One connection."""

    waiting: ClassVar[dict["Connection", None]] = {}
    """Those without a whole request, whose next byte may never come; who has waited longest is first."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Makes room for it, and waits for the head of its request."""
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > CONNECTIONS_MAX:
            oldest = next(iter(self.waiting))
            self.waiting.pop(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets it."""
        self._set_timer(None)
        self.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, unless the head is too long."""
        if self._refused:
            return
        if self in self.waiting:
            if self._timer is None:
                self._wait_for_head()
            self._head_bytes += len(data)
        super().data_received(data)
        # A body that came with it is not counted, since then the head is complete.
        if self in self.waiting and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431, f"the head of a request may have {HEAD_BYTES_MAX:,} bytes")

    def on_headers_complete(self) -> None:
        """The head is whole: the request is answered, unless it is too long."""
        self.waiting.pop(self, None)
        self._set_timer(BODY_S_MAX)
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES_MAX:
            self._refuse(431, f"the head of a request may have {HEAD_BYTES_MAX:,} bytes")
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole too."""
        self._set_timer(None)
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The next request may come, for which uvicorn waits as long as the connection is kept."""
        super().on_response_complete()
        if not self.transport.is_closing() and not self.pipeline:
            self._head_bytes = 0
            self.waiting[self] = None

    def _wait_for_head(self) -> None:
        self._head_bytes = 0
        self.waiting[self] = None
        self._set_timer(HEAD_S_MAX)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._refuse(408, "the request was not complete in time")

    def _refuse(self, status: int, why: str) -> None:
        """Answers, where that is still possible, and hangs up."""
        self._refused = True
        self._set_timer(None)
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            answer = shapes.Refusal(shapes.problem(status, why), {"Connection": "close"})
            head = [f"HTTP/1.1 {status} {shapes.problem(status, why).title}".encode()]
            head += [name + b": " + value for name, value in answer.raw_headers]
            self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        self.transport.close()
