"""A delay line: a TCP proxy on this machine which makes a server as far away as a network would.

Every byte is handed on half a round trip after it came, in both directions, however much else is on its way: the line
limits how soon, not how much, unless it is given a rate. What TCP itself does on a long way (slow start after a pause,
losses) is not imitated.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

PIECE_BYTES = 64 * 2**10
UNDERWAY_BYTES_MAX = 8 * 2**20
"""In each direction of a connection; at the bound the line reads no more, so that the sender has to wait."""
CONNECT_S_MAX = 10.0
END_S_MAX = 10.0


class DelayLine:
    """Listens on a port of its own of 127.0.0.1 until the block ends, and hands on to `port` of the same machine.

    `rtt_ms`: the round trip as ping shows it, half of it each way, in milliseconds; it may be changed at any time, for
    what comes after. `bits_per_s`: of each direction of each connection; None: as fast as it goes. Counters, of all
    connections: `sent_bytes` to the server, `answered_bytes` from it, and `trips`, how often a client said something
    after it had been answered.
    """

    def __init__(self, port: int, rtt_ms: float = 0.0, bits_per_s: float | None = None) -> None:
        self.rtt_ms, self.bits_per_s = rtt_ms, bits_per_s
        self.sent_bytes = self.answered_bytes = self.trips = 0
        self._there = port
        self._lock = threading.Lock()
        self._stopped = False
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._begin(self._listen)

    def __enter__(self) -> Self:
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
        with self._lock:
            self._stopped = True
            left, found = list(self._threads), list(self._open)
        for one in found:
            _end(one)
        for thread in left:
            thread.join(END_S_MAX)

    def note(self, size: int, upward: bool) -> None:
        """Counts bytes, for the pipes."""
        with self._lock:
            if upward:
                self.sent_bytes += size
            else:
                self.answered_bytes += size

    def note_trip(self) -> None:
        """Counts a round trip, for the pipes."""
        with self._lock:
            self.trips += 1

    def _begin(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        def run() -> None:
            try:
                work(*arguments)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="delay line", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._begin(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client:
            # Three messages open a connection of TCP, before the server hears of it.
            time.sleep(1.5 * self.rtt_ms / 1_000)
            try:
                there = socket.create_connection(("127.0.0.1", self._there), CONNECT_S_MAX)
            except OSError:
                return
            with there:
                self._join(client, there)

    def _join(self, client: socket.socket, there: socket.socket) -> None:
        """Hands on what either says, until both have ended."""
        both = {client, there}
        for one in both:
            one.settimeout(None)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            if self._stopped:
                return
            self._open |= both
        down = _Pipe(self, there, client)
        pipes = [_Pipe(self, client, there, answers=down), down]
        work = [one for pipe in pipes for one in (pipe.read, pipe.write)]
        threads = [threading.Thread(target=one, name="delay line", daemon=True) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with self._lock:
            self._open -= both


class _Pipe:
    """One direction of a connection. `answers`: the other one, if this is that to the server."""

    def __init__(
        self, line: DelayLine, source: socket.socket, target: socket.socket, answers: "_Pipe | None" = None
    ) -> None:
        self.heard = False
        self._line, self._source, self._target, self._answers = line, source, target, answers
        self._changed = threading.Condition()
        self._underway = deque[tuple[float, bytes]]()
        self._size = 0
        self._free_s = 0.0
        self._broken = False

    def read(self) -> None:
        """Puts what comes in on its way; an empty piece is the end."""
        piece = b"-"
        while piece:
            try:
                piece = self._source.recv(PIECE_BYTES)
            except OSError:
                piece = b""
            due_s = self._note(len(piece))
            with self._changed:
                self._changed.wait_for(lambda: self._size < UNDERWAY_BYTES_MAX or self._broken)
                self._underway.append((due_s, piece))
                self._size += len(piece)
                self._changed.notify_all()

    def write(self) -> None:
        """Hands on each piece when it is due."""
        piece = b"-"
        while piece:
            with self._changed:
                self._changed.wait_for(lambda: self._underway)
                due_s, piece = self._underway.popleft()
            time.sleep(max(0.0, due_s - time.monotonic()))
            try:
                if not self._broken:
                    self._target.sendall(piece) if piece else self._target.shutdown(socket.SHUT_WR)
            except OSError:
                self._broken = True
                _end(self._source)
            with self._changed:
                self._size -= len(piece)
                self._changed.notify_all()

    def _note(self, size: int) -> float:
        """Counts what came in; when it is due at the other end."""
        self._line.note(size, upward=self._answers is not None)
        if self._answers is None:
            self.heard = True
        elif self._answers.heard and size:
            self._answers.heard = False
            self._line.note_trip()
        bits_per_s = self._line.bits_per_s
        self._free_s = max(self._free_s, time.monotonic()) + (size * 8 / bits_per_s if bits_per_s else 0.0)
        return self._free_s + self._line.rtt_ms / 2_000


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
