"""An HTTP proxy on this machine: CONNECT for streams and TLS, whole addresses for plain HTTP; it can fail in some ways.

Every name is this machine's, so that a client which may not go to the loopback through a proxy can be sent through one
to the stand-in exchange.
"""

import select
import socket
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit

from process.lock import POLL_S

HEAD_BYTES_MAX = 64 * 2**10
PIECE_BYTES = 64 * 2**10
STEP_S_MAX = 10.0
NAME = "exchange.test"
"""A name that nobody resolves (RFC 6761)."""


class Proxy:
    """Listens on a port of its own until the block ends. `login`: what Proxy-Authorization must say, if anything.

    `answers`: the status that each new request gets instead of its answer, 0: none at all; None: it does its work.
    `served` counts what it has done, `asked` has the hosts that it was asked for.
    """

    def __init__(self, login: str | None = None) -> None:
        self.answers: int | None = None
        self.served = 0
        self.asked: set[str] = set()
        self._login = login
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuses connections from now on, and cuts those that are open."""
        # A thread that accepts is woken only by this.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def start(self) -> None:
        """Listens on the same port again."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start()

    def cut(self) -> None:
        """Ends every connection that is open."""
        with self._lock:
            found = list(self._open)
        for one in found:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _start(self) -> None:
        threading.Thread(target=self._listen, args=(self._listener,), name="proxy", daemon=True).start()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="proxy client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(STEP_S_MAX)
        self._keep(client)
        try:
            with client, suppress(OSError, ValueError):
                self._answer(client)
        finally:
            self._forget(client)

    def _answer(self, client: socket.socket) -> None:
        head, rest = _head(client)
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        if self.answers == 0:
            client.recv(1)
            return
        knows = self._login is None or f"proxy-authorization: {self._login}".lower() in head.decode("latin-1").lower()
        if self.answers is not None or not knows:
            client.sendall(_refusal(407 if self.answers is None else self.answers))
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        self.asked.add(parts.hostname or "")
        try:
            there = socket.create_connection(("127.0.0.1", parts.port or 80), STEP_S_MAX)
        except OSError:
            client.sendall(_refusal(502))
            return
        self._keep(there)
        try:
            with there:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    there.sendall(rest)
                else:
                    there.sendall(_forwarded(method, target, lines[1:]) + rest)
                self.served += 1
                _pump(client, there)
        finally:
            self._forget(there)

    def _keep(self, one: socket.socket) -> None:
        with self._lock:
            self._open.add(one)

    def _forget(self, one: socket.socket) -> None:
        with self._lock:
            self._open.discard(one)


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(PIECE_BYTES)
        if not piece or len(data) > HEAD_BYTES_MAX:
            raise ValueError("no whole head")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _forwarded(method: str, target: str, headers: list[str]) -> bytes:
    """The request as the host itself gets it; one for each connection, since the next may be for another host."""
    path = target.partition("//")[2].partition("/")[2]
    kept = [line for line in headers if line and not line.lower().startswith(("proxy-", "connection:"))]
    return "\r\n".join([f"{method} /{path} HTTP/1.1", *kept, "Connection: close", "", ""]).encode("latin-1")


def _refusal(status: int) -> bytes:
    extra = 'Proxy-Authenticate: Basic realm="proxy"\r\n' if status == 407 else ""
    return f"HTTP/1.1 {status} Refused\r\n{extra}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Hands on what either says, until one of them ends."""
    while True:
        readable, _, _ = select.select([one, other], [], [], POLL_S * 50)
        for source in readable:
            piece = source.recv(PIECE_BYTES)
            if not piece:
                return
            (other if source is one else one).sendall(piece)
