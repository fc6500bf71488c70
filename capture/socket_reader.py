"""A WebSocketApp that reads its socket in large pieces.

The library makes four system calls for each frame: is there something, two bytes, the length, the payload. Each call
also offers the interpreter lock to the writer. So all that is there is read at once, and whole text frames, of which a
stream of trades consists, are cut out of it here. Everything else is still the library's: it gets all other frames, as
those that are fragmented, longer than 65,535 bytes, or no text.
"""

import functools
import selectors
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from time import sleep
from typing import Any, cast

import websocket
from websocket import _socket
from websocket._dispatcher import DispatcherBase

READ_BYTES_MAX = 64 * 2**10
"""The most that one read takes: about 300 frames."""
FRAME_BYTES_MAX = 64 * 2**20
"""A frame that announces more than this ends the connection instead of filling the memory; a trade is 200 bytes."""


_TEXT = 0x81
"""The first byte of a text frame that is whole: FIN, no extension, opcode 1 (RFC 6455, section 5.2)."""
_SHORT_MAX, _LENGTH_16 = 125, 126
"""The second byte of a server's frame: its length, or that the length is in the next two bytes (or eight)."""


class Socket:
    """A socket whose `recv` always reads into the same memory, and gives out no more than came. Python's own takes the
    most that may come from malloc and gives most of it back, for each read: with many connections the memory goes to
    pieces, and the process grows for hours."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._memory = bytearray(READ_BYTES_MAX)
        self.fileno, self.gettimeout = sock.fileno, sock.gettimeout

    def recv(self, size: int) -> bytes:
        """As socket.recv; `size` is at most READ_BYTES_MAX."""
        return bytes(memoryview(self._memory)[: self._sock.recv_into(self._memory, size)])


class Reader:
    """A buffer between the socket and the library's frame parser; `take` replaces its `recv_strict`.

    `received_at`: this machine's clock when the socket was last read.
    """

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._data = b""
        self._at = 0
        self.received_at = datetime.now(UTC)

    @property
    def empty(self) -> bool:
        """Whether the next byte must come from the socket."""
        return self._at >= len(self._data)

    def fill(self) -> None:
        """Waits for more, at most for the socket's time-out; the buffer must be empty. Raises as receiving does."""
        self._data, self._at = self._more(), 0

    def _more(self) -> bytes:
        data = self._receive(READ_BYTES_MAX)
        self.received_at = datetime.now(UTC)
        return data

    def texts(self) -> list[bytes]:
        """The payloads of the whole text frames that come next in the buffer, which must be at the start of a frame.

        It stops at the first frame of another kind or that is not complete, and leaves it to the library.
        """
        data, at, found = self._data, self._at, list[bytes]()
        size = len(data)
        while at + 4 <= size and data[at] == _TEXT:
            length = data[at + 1]
            start = at + 2
            if length > _SHORT_MAX:
                if length != _LENGTH_16:
                    break
                length = data[at + 2] << 8 | data[at + 3]
                start = at + 4
            if start + length > size:
                break
            at = start + length
            found.append(data[start:at])
        self._at = at
        return found

    def take(self, size: int) -> bytes:
        """The next `size` bytes; waits for them as long as the socket's time-out allows. Raises as receiving does."""
        if size > FRAME_BYTES_MAX:
            raise websocket.WebSocketPayloadException(f"a frame of {size} bytes; at most {FRAME_BYTES_MAX} are taken")
        end = self._at + size
        if end <= len(self._data):
            piece = self._data[self._at : end]
            self._at = end
            return piece
        parts = [self._data[self._at :]]
        missing = end - len(self._data)
        # If receiving raises, nothing is lost: the library may call again after a time-out.
        while missing > 0:
            try:
                parts.append(self._more())
            except BaseException:
                self._data, self._at = b"".join(parts), 0
                raise
            missing -= len(parts[-1])
        self._data, self._at = b"".join(parts), size
        return self._data[:size]


class _Dispatcher(DispatcherBase):
    """The loop of the library's own dispatchers, except that it waits for a bufferful and not for a frame.

    The socket must have a time-out: that is how often the loop checks whether the connection is still wanted. `pause_s`
    says how long to rest before the next read if no data is waiting. `on_texts` gets the text frames that a read
    brought, and when; what it raises is reported and ends nothing.
    """

    def __init__(
        self,
        app: websocket.WebSocketApp,
        pause_s: Callable[[], float],
        on_texts: Callable[[list[bytes], datetime], None],
    ) -> None:
        super().__init__(app, None)
        self._pause_s = pause_s
        self._on_texts = on_texts

    def read(self, sock: Any, read_frame: Callable[[], bool], check: Callable[[], bool]) -> None:
        """Reads frames until the connection ends."""
        connection = self.app.sock
        if connection is None or connection.sock is None:
            return
        buffer, fragments = connection.frame_buffer, connection.cont_frame
        # What the library's recv makes of time-outs and of TLS stays.
        reader = Reader(functools.partial(_socket.recv, cast(socket.socket, Socket(connection.sock))))
        buffer.recv_strict = reader.take  # type: ignore[method-assign, assignment]
        self.app.on_message = lambda _app, frame: self._on_texts([frame], reader.received_at)
        while self.app.keep_running:
            try:
                # Waiting here and not in a selector saves one of three system calls per wake-up.
                if reader.empty:
                    self._rest(sock)
                    reader.fill()
            except websocket.WebSocketTimeoutException:
                check()
                continue
            # Neither in the middle of a frame nor between the fragments of one.
            if buffer.header is None and not fragments.recving_frames and (texts := reader.texts()):
                self.app._callback(lambda _app, found=texts: self._on_texts(found, reader.received_at))
            elif not read_frame():
                break

    def _rest(self, sock: Any) -> None:
        seconds = self._pause_s()
        # Resting while data waits would let the connection fall behind: over TLS a read is one record, often a frame.
        if seconds and not _has_more(sock):
            sleep(seconds)


# Not epoll, which would be made and closed for each look.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


def _has_more(sock: Any) -> bool:
    """Whether a read would return at once."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    with _Selector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(0))


class BufferedApp(websocket.WebSocketApp):
    """websocket.WebSocketApp without its reconnecting; `pause_s` is called before each read: the seconds to rest.

    `on_texts` gets the text frames of a read, in their order, and this machine's clock when they arrived.
    """

    def __init__(
        self,
        url: str,
        pause_s: Callable[[], float],
        on_texts: Callable[[list[bytes], datetime], None],
        **callbacks: Any,
    ) -> None:
        super().__init__(url, **callbacks)
        self._pause_s = pause_s
        self._on_texts = on_texts

    def create_dispatcher(self, *_arguments: Any, **_options: Any) -> Any:
        return _Dispatcher(self, self._pause_s, self._on_texts)
