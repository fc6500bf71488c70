"""A WebSocket server whose every byte a test writes itself, one thread for each connection."""

import base64
import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
WAIT_S_MAX = 10.0


def frame(payload: bytes, opcode: int = TEXT, final: bool = True) -> bytes:
    """A frame as a server sends it, unmasked."""
    first = bytes([opcode | (0x80 if final else 0)])
    if len(payload) < 126:
        return first + bytes([len(payload)]) + payload
    if len(payload) < 65_536:
        return first + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return first + b"\x7f" + struct.pack("!Q", len(payload)) + payload


class Peer:
    """The server's end of one connection. `number`: 0 is the first, 1 the second …"""

    def __init__(self, raw: socket.socket, number: int, over: threading.Event) -> None:
        self.raw = raw
        self.number = number
        self.over = over
        self.path = ""
        raw.settimeout(WAIT_S_MAX)

    def read_request(self) -> dict[bytes, bytes]:
        """The headers of the handshake."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.raw.recv(65_536)
            if not piece:
                raise ConnectionError
            data += piece
        first, *lines = data.split(b"\r\n\r\n")[0].split(b"\r\n")
        self.path = first.split(b" ")[1].decode("latin-1")
        return {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}

    def accept(self) -> None:
        """Answers the handshake as a WebSocket server does."""
        key = self.read_request()[b"sec-websocket-key"]
        token = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.raw.sendall(upgrade + b"Sec-WebSocket-Accept: " + token + b"\r\n\r\n")

    def refuse(self, status: int, headers: dict[str, str], body: bytes = b"no") -> None:
        """Answers the handshake with an HTTP error."""
        self.read_request()
        lines = [f"HTTP/1.1 {status} Refused", *(f"{name}: {value}" for name, value in headers.items())]
        lines.append(f"Content-Length: {len(body)}")
        self.raw.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def send(self, *frames: bytes) -> None:
        """Sends frames in one piece."""
        self.raw.sendall(b"".join(frames))

    def receive(self) -> tuple[int, bytes]:
        """Opcode and payload of the client's next frame; raises ConnectionError at the end."""
        first, second = self._exactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._exactly(2))
        mask = self._exactly(4)
        return first & 0x0F, bytes(byte ^ mask[n % 4] for n, byte in enumerate(self._exactly(length)))

    def reset(self) -> None:
        """Ends the connection without a word."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()

    def stay(self) -> None:
        """Keeps the connection open until the test is over."""
        self.over.wait()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.raw.recv(count - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data


class ScriptedStream:
    """Runs `script` for each connection that comes; when it returns, the connection is closed. `tls`: over TLS."""

    def __init__(self, script: Callable[[Peer], None], tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self._tls = tls
        self.peers: list[Peer] = []
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'wss' if tls else 'ws'}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._listen, daemon=True)]

    def __enter__(self) -> "ScriptedStream":
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self.peers:
            peer.raw.close()
        for thread in self._threads:
            thread.join(WAIT_S_MAX)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(raw, len(self.peers), self._over)
            self.peers.append(peer)
            self._threads.append(threading.Thread(target=self._serve, args=(peer,), daemon=True))
            self._threads[-1].start()

    def _serve(self, peer: Peer) -> None:
        try:
            if self._tls is not None:
                peer.raw = self._tls.wrap_socket(peer.raw, server_side=True)
            self.script(peer)
        except OSError:
            # The client went away, which is what most tests make it do.
            pass
        finally:
            peer.raw.close()
