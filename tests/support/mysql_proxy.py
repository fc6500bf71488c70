"""A proxy before a database that refuses what some proxies do: several statements in a request, and long requests."""

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType

COM_QUERY = 3
PARSE_ERROR = b"\xff" + struct.pack("<H", 1064) + b"#42000You have an error in your SQL syntax; near '; '"


class MysqlProxy:
    """Listens on a port of its own and hands on to `port`. `refuses_several`: answers such requests with error 1064;
    `only_first`: does no more than the first statement; `bytes_max`: ends the connection after a longer request."""

    def __init__(self, port: int) -> None:
        self.refuses_several = self.only_first = False
        self.bytes_max = 2**30
        self.refused = self.cut = 0
        self._there = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> "MysqlProxy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._there))
            threading.Thread(target=self._pump, args=(there, client), daemon=True).start()
            threading.Thread(target=self._serve, args=(client, there), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(65_536):
                target.sendall(piece)
        except OSError:
            pass
        finally:
            _end(target)

    def _serve(self, client: socket.socket, there: socket.socket) -> None:
        try:
            while packet := _packet(client):
                if not self._refuse(client, packet):
                    there.sendall(self._shortened(packet))
        except OSError:
            pass
        finally:
            _end(client)
            _end(there)

    def _refuse(self, client: socket.socket, packet: bytes) -> bool:
        """Whether the request was answered here."""
        if len(packet) > self.bytes_max:
            self.cut += 1
            raise ConnectionError
        if self.refuses_several and _has_several(packet):
            self.refused += 1
            client.sendall(struct.pack("<I", len(PARSE_ERROR))[:3] + b"\x01" + PARSE_ERROR)
            return True
        return False

    def _shortened(self, packet: bytes) -> bytes:
        if not self.only_first or not _has_several(packet):
            return packet
        self.refused += 1
        body = packet[4:].partition(b"; ")[0]
        return struct.pack("<I", len(body))[:3] + b"\x00" + body


def _end(one: socket.socket) -> None:
    """Hangs up, even while another thread reads from it."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


def _has_several(packet: bytes) -> bool:
    return packet[3] == 0 and packet[4] == COM_QUERY and b"; " in packet


def _packet(client: socket.socket) -> bytes:
    head = _exactly(client, 4)
    return head + _exactly(client, int.from_bytes(head[:3], "little")) if head else b""


def _exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            return b""
        data += piece
    return data
