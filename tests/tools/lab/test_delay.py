"""The delay line: nothing arrives too early, out of order or changed, and nothing of it is left."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.child import WAIT_S_MAX, wait_until
from tools.lab import delay
from tools.lab.delay import DelayLine

LOAD_BYTES = 32 * 2**20


@contextmanager
def echo() -> Iterator[int]:
    """The port of a server that says what it hears, to one connection after another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    while piece := client.recv(2**16):
                        client.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(WAIT_S_MAX)
    assert not thread.is_alive()


def lines() -> list[threading.Thread]:
    """The threads of all delay lines."""
    return [thread for thread in threading.enumerate() if thread.name == "delay line"]


def call(port: int) -> socket.socket:
    """A connection that does not collect what it sends."""
    client = socket.create_connection(("127.0.0.1", port), WAIT_S_MAX)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def ask(client: socket.socket, question: bytes = b"?") -> float:
    """The seconds until all of `question` has come back."""
    begun_s, left = time.monotonic(), len(question)
    client.sendall(question)
    while left:
        left -= len(client.recv(left))
    return time.monotonic() - begun_s


def test_an_answer_takes_a_round_trip() -> None:
    """Never less than `rtt_ms`, also after it was changed; each question is one trip, and each byte is counted."""
    with echo() as port, DelayLine(port, 40) as line:
        begun_s = time.monotonic()
        with call(line.port) as client:
            ask(client)
            assert time.monotonic() - begun_s >= 0.1  # The line was opened first: three halves and one.
            assert min(ask(client) for _ in range(5)) >= 0.04
            line.rtt_ms = 0
            assert min(ask(client) for _ in range(50)) < 0.04
            assert (line.trips, line.sent_bytes, line.answered_bytes) == (55, 56, 56)


def test_a_load_is_delayed_but_not_held_up() -> None:
    """Far more than fits underway arrives unchanged, in much less time than a round trip for each piece."""
    wanted, found, size = hashlib.sha256(), hashlib.sha256(), 0
    with echo() as port, DelayLine(port, 40) as line, call(line.port) as client:

        def send() -> None:
            for _ in range(LOAD_BYTES // 2**16):
                piece = os.urandom(2**16)
                wanted.update(piece)
                client.sendall(piece)

        thread = threading.Thread(target=send)
        begun_s = time.monotonic()
        thread.start()
        while size < LOAD_BYTES:
            piece = client.recv(2**16)
            found.update(piece)
            size += len(piece)
        took_s = time.monotonic() - begun_s
        thread.join(WAIT_S_MAX)
    assert found.digest() == wanted.digest()
    assert took_s < 0.04 * LOAD_BYTES / 2**16


def test_the_end_of_what_is_said_comes_after_all_of_it() -> None:
    """A client that has said all is answered to the end."""
    with echo() as port, DelayLine(port, 20) as line, call(line.port) as client:
        client.sendall(b"the end")
        client.shutdown(socket.SHUT_WR)
        pieces = list(iter(lambda: client.recv(100), b""))
    assert b"".join(pieces) == b"the end"


def test_who_reads_nothing_is_sent_no_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound the line stops reading, and the sender has to wait; it goes on when there is room."""
    monkeypatch.setattr(delay, "UNDERWAY_BYTES_MAX", 2**20)
    with echo() as port, DelayLine(port) as line, call(line.port) as client:
        client.settimeout(0.2)
        with suppress(TimeoutError):
            while line.sent_bytes < 2**30:
                client.sendall(bytes(2**16))
        # The kernel's buffers hold some too.
        assert line.sent_bytes < 2**28
        client.settimeout(WAIT_S_MAX)
        heard = 0
        while heard < line.sent_bytes:
            heard += len(client.recv(2**16))


def test_a_rate_is_kept() -> None:
    """With `bits_per_s` a byte takes its time in each direction."""
    with echo() as port, DelayLine(port, bits_per_s=8e6) as line, call(line.port) as client:
        assert ask(client, bytes(100_000)) >= 0.1


def test_nothing_is_left_of_it() -> None:
    """After the block no connection, no port and no thread is there, even with bytes on their way."""
    with echo() as port, DelayLine(port, 50) as line, call(line.port) as client:
        ask(client)
        # Longer than a busy machine takes to the next step.
        line.rtt_ms = 4_000
        client.sendall(b"still on its way")
        line.stop()
        assert client.recv(100) == b""
        with pytest.raises(ConnectionRefusedError):
            call(line.port)
    wait_until(lambda: not lines(), WAIT_S_MAX)


def test_a_server_that_is_not_there_is_a_connection_that_ends(closed_port: int) -> None:
    """As if the other machine refused it."""
    with DelayLine(closed_port) as line, call(line.port) as client:
        assert client.recv(100) == b""


def test_a_connection_that_is_over_leaves_no_threads() -> None:
    """A line may be used for days."""
    with echo() as port, DelayLine(port) as line:
        before = len(lines())
        for _ in range(3):
            with call(line.port) as client:
                ask(client)
        wait_until(lambda: len(lines()) == before, WAIT_S_MAX)
        assert line.sent_bytes == 3
