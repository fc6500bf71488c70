"""One connection of the capture: how it reads, answers, gives up, comes back and ends. Real sockets throughout."""

import functools
import json
import logging
import math
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import websocket

import ws_client
from binance import limits, network, units
from binance.limits import ConnectBudget, Cooldown
from capture import socket_reader
from capture.inbox import Inbox
from capture.rejects import Rejects
from capture.shared import Downs, Shared
from process import retry
from tests.support.child import WAIT_S_MAX, wait_until
from tests.support.scripted_stream import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Peer, ScriptedStream, frame
from tests.support.stand_in import StandIn
from tests.support.tls import needs_openssl
from tools.lab.tls import make_certificate
from ws_client import Connection

pytestmark = pytest.mark.slow

SYMBOLS = ("BTCUSDT", "ETHUSDT")
QUICK_S = 4.0
"""Well below the time-outs that would end a wait otherwise."""
Script = Callable[[Peer], None]


def trade(trade_id: int, symbol: str = "BTCUSDT") -> bytes:
    """The text of a combined trade frame."""
    data = {
        "e": "trade",
        "E": 1_723_161_255_343_210,
        "s": symbol,
        "t": trade_id,
        "p": "1.5",
        "q": "2",
        "T": 1_723_161_255_342_789,
    }
    stream = f"{symbol.lower()}@trade"
    return json.dumps({"stream": stream, "data": data | {"m": True, "M": True}}, ensure_ascii=False).encode()


def trades(first: int, count: int) -> bytes:
    """Frames with consecutive ids."""
    return b"".join(frame(trade(n)) for n in range(first, first + count))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits between two attempts."""
    monkeypatch.setattr(retry, "BACKOFF_S_MIN", 0.01)
    monkeypatch.setattr(retry, "BACKOFF_S_MAX", 0.05)


class Desk:
    """What the connections of a capture share."""

    def __init__(self, folder: Path, url: str, inbox: Inbox | None = None) -> None:
        self.inbox = Inbox() if inbox is None else inbox
        self.rejects = Rejects(folder)
        self.cooldown = Cooldown()
        self.shared = Shared(SYMBOLS, url, self.inbox, self.rejects, self.cooldown, ConnectBudget(), Downs())

    def ids(self) -> list[int]:
        """The ids that wait in the inbox."""
        found: list[int] = []
        while batch := self.inbox.take(0):
            found += [each.trade_id for each in batch]
        return found


@contextmanager
def reading(
    folder: Path, script: Script, inbox: Inbox | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[Connection, Desk, ScriptedStream]]:
    """A connection to a scripted server, stopped at the end."""
    with ScriptedStream(script, tls) as server:
        desk = Desk(folder, server.url, inbox)
        desk.rejects.start()
        connection = Connection("connection 1", desk.shared)
        connection.start()
        try:
            yield connection, desk, server
        finally:
            connection.stop()
            connection.join(QUICK_S * 2)
            desk.rejects.close()
        assert not connection.is_alive()


def sending(*frames: bytes) -> Script:
    """Accepts, sends one by one, and stays."""

    def script(peer: Peer) -> None:
        peer.accept()
        for each in frames:
            peer.send(each)
        peer.stay()

    return script


# Reading.


def test_every_trade_of_the_tape_arrives_in_order(tmp_path: Path) -> None:
    """From the stand-in exchange at full speed: each trade of the truth once, with our clock's time of receipt."""
    with StandIn("--trades", "3000", "--wait-clients", "1", "--rate", "5000", "--ping-interval", "0.05") as exchange:
        desk = Desk(tmp_path, exchange.ws)
        connection = Connection("connection 1", desk.shared)
        connection.start()
        wait_until(lambda: connection.parsed == 3_000)
        connection.stop()
        connection.join(QUICK_S)
        found = [each for _ in range(10) for each in desk.inbox.take(0)]
        for symbol in SYMBOLS:
            expected = [(line["id"], line["time_us"] // 1000) for line in exchange.truth(symbol)]
            mine = [
                (each.trade_id, math.floor(each.timestamp.timestamp() * 1000))
                for each in found
                if each.symbol == symbol
            ]
            assert mine == expected
    assert all(each.received_at is not None and each.received_at.utcoffset() is not None for each in found)
    assert (connection.frames, connection.refused, connection.verdicts["new"]) == (3_000, 0, 3_000)
    assert connection.pings > 0


def test_the_address_has_every_stream_in_lower_case(tmp_path: Path) -> None:
    """It asks for microseconds, and is ASCII, because a symbol need not be."""
    shared = Desk(tmp_path, "wss://x:9443").shared
    path = "/stream?streams=btcusdt@trade/ethusdt@trade&timeUnit=MICROSECOND"
    assert shared.stream_url == f"wss://x:9443{path}"
    with reading(tmp_path, sending()) as (_, _, server):
        wait_until(lambda: bool(server.peers and server.peers[0].path))
        assert server.peers[0].path == path
    foreign = shared._replace(symbols=("币安人生USDT",)).stream_url
    assert foreign.isascii()
    assert "%E5%B8%81" in foreign


def in_milliseconds(text: bytes) -> bytes:
    """The same trade, as a host sends it that does not know microseconds."""
    return text.replace(b"1723161255342789", b"1723161255342")


@pytest.mark.parametrize("slow", [(), (0, 1, 2), (1, 2)], ids=["never", "always", "later"])
def test_a_stream_in_milliseconds_is_stored_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, slow: tuple[int, ...]
) -> None:
    """Each connection's first trade is looked at, whatever comes before it; one in microseconds is nothing to say."""
    monkeypatch.setattr(units, "_said", set())

    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(frame(b"{}"))
        wait_until(lambda: bool(started) and started[0].refused == peer.number + 1)
        text = trade(peer.number + 1)
        peer.send(frame(in_milliseconds(text) if peer.number in slow else text))
        peer.stay()

    started: list[Connection] = []
    with reading(tmp_path, script) as (connection, desk, server):
        started.append(connection)
        for n in (1, 2, 3):
            wait_until(lambda n=n: connection.parsed == n)  # type: ignore[misc]
            # The last one stays, so that no fourth trade comes.
            if n < 3:
                connection.drop()
        found = [each for batch in iter(lambda: desk.inbox.take(0), []) for each in batch]
        assert [each.timestamp for each in found] == [datetime(2024, 8, 8, 23, 54, 15, 342_000, tzinfo=UTC)] * 3
        said = [record.getMessage() for record in caplog.records if record.name == "units"]
        assert len(said) == bool(slow)
        assert all(f"the stream (BINANCE_WS_URL={server.url}) answers in milliseconds" in line for line in said)


def test_a_symbol_that_is_not_ascii_is_captured(tmp_path: Path) -> None:
    """Name in the address, in the frames and in the inbox."""
    name = "币安人生USDT"
    with ScriptedStream(sending(frame(trade(7, name)))) as server:
        desk = Desk(tmp_path, server.url, Inbox())
        connection = Connection("connection 1", desk.shared._replace(symbols=(name,)))
        connection.start()
        wait_until(lambda: connection.newest == {name: 7})
        connection.stop()
        connection.join(QUICK_S)


@pytest.mark.parametrize("form", ["one piece", "byte by byte", "fragments", "binary", "16-bit length", "64-bit length"])
def test_frames_of_every_form_are_trades(tmp_path: Path, form: str) -> None:
    """However they are cut, with a ping between the fragments, and with lengths of every size."""
    text = trade(1)
    padding = {"16-bit length": 200, "64-bit length": 70_000}.get(form, 0)
    first = frame(text[:-1] + b',"x":"' + b"x" * padding + b'"}') if padding else frame(text)
    if form == "fragments":
        parts = [text[:10], text[10:11], text[11:]]
        first = frame(parts[0], TEXT, False) + frame(b"between", PING) + frame(parts[1], CONTINUATION, False)
        first += frame(b"", CONTINUATION, False) + frame(parts[2], CONTINUATION)
    if form == "binary":
        first = frame(text, BINARY)

    def script(peer: Peer) -> None:
        peer.accept()
        whole = first + trades(2, 500)
        if form == "byte by byte":
            for n in range(2_000):
                peer.send(whole[n : n + 1])
            whole = whole[2_000:]
        peer.send(whole)
        peer.stay()

    with reading(tmp_path, script) as (connection, desk, _):
        wait_until(lambda: connection.parsed == 501)
        assert desk.ids() == list(range(1, 502))
        assert connection.refused == 0


def test_a_handshake_and_trades_in_one_piece(tmp_path: Path) -> None:
    """What comes right behind the answer to the handshake is not lost."""

    def script(peer: Peer) -> None:
        send = peer.raw.sendall
        held: list[bytes] = []
        peer.send = lambda *frames: held.extend(frames)  # type: ignore[method-assign]
        original = peer.raw

        class Joined:
            def __getattr__(self, name: str) -> object:
                return getattr(original, name)

            def sendall(self, data: bytes) -> None:
                send(data + trades(1, 100))

        peer.raw = Joined()  # type: ignore[assignment]
        peer.accept()
        peer.stay()

    with reading(tmp_path, script) as (connection, desk, _):
        wait_until(lambda: connection.parsed == 100)
        assert desk.ids() == list(range(1, 101))


def test_what_is_no_trade_is_kept_and_what_follows_is_read(tmp_path: Path) -> None:
    """Malformed frames, bad UTF-8 and 10 MB of nonsense cost a reject each and not the connection."""
    hostile = [b"{", b"\xff\xfe", b"", b"[" * 100_000, b"x" * (10 * 2**20), trade(3).replace(b'"1.5"', b"1.5")]
    with reading(tmp_path, sending(*map(frame, hostile), trades(1, 10))) as (connection, desk, server):
        wait_until(lambda: connection.parsed == 10)
        assert (connection.frames, connection.refused, desk.rejects.counted) == (16, 6, 6)
        assert len(server.peers) == 1
        desk.rejects.close()
        assert (tmp_path / "rejects.jsonl").read_bytes().count(b"\n") == 6


def test_messages_beside_trades_are_counted_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of it is a reject; an error of the exchange is logged, but not without end."""
    error = frame(b'{"error":{"code":2,"msg":"Invalid request"},"id":2}')
    other = frame(b'{"e":"aggTrade","s":"BTCUSDT"}')
    with reading(tmp_path, sending(error * 100, other, frame(b'{"result":null,"id":1}'), trades(1, 1))) as (c, desk, _):
        wait_until(lambda: c.parsed == 1)
        assert c.others == {"error": 100, "aggTrade": 1, "answer": 1}
        assert (c.refused, desk.rejects.counted) == (0, 0)
    assert sum("Invalid request" in record.message for record in caplog.records) == ws_client.ERRORS_LOGGED_MAX


def test_the_names_that_are_counted_are_bounded(tmp_path: Path) -> None:
    """A stream of ever new names does not fill the memory."""
    names = b"".join(frame(b'{"e":"kind%d"}' % n) for n in range(1_000))
    with reading(tmp_path, sending(names, trades(1, 1))) as (connection, _, _):
        wait_until(lambda: connection.parsed == 1)
        assert len(connection.others) == ws_client.KINDS_MAX + 1
        assert connection.others.total() == 1_000


@pytest.mark.parametrize(
    "message", [b'{"e":"serverShutdown","E":1}', b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}']
)
def test_an_announced_shutdown_is_known_until_the_next_connection(tmp_path: Path, message: bytes) -> None:
    """Raw or combined; trades go on meanwhile."""

    def script(peer: Peer) -> None:
        peer.accept()
        if not peer.number:
            peer.send(frame(message), trades(1, 5))
        peer.stay()

    with reading(tmp_path, script) as (connection, _, server):
        wait_until(lambda: connection.parsed == 5)
        assert connection.shutdown_announced
        connection.drop()
        wait_until(lambda: len(server.peers) == 2 and connection.opened_at is not None)
        assert not connection.shutdown_announced


def test_the_newest_id_is_the_largest(tmp_path: Path) -> None:
    """A shuffled order must not make a connection look late; symbols are apart."""
    order = [frame(trade(n)) for n in (5, 7, 6)] + [frame(trade(3, "ETHUSDT"))]
    with reading(tmp_path, sending(*order)) as (connection, _, _):
        wait_until(lambda: connection.parsed == 4)
        assert connection.newest == {"BTCUSDT": 7, "ETHUSDT": 3}


def test_the_second_copy_of_a_trade_is_dropped_in_memory(tmp_path: Path) -> None:
    """Two connections with the same streams: each trade is queued once."""
    with ScriptedStream(sending(trades(1, 1_000))) as server:
        desk = Desk(tmp_path, server.url)
        both = [Connection(f"connection {n}", desk.shared) for n in (1, 2)]
        for connection in both:
            connection.start()
        wait_until(lambda: all(connection.parsed == 1_000 for connection in both))
        for connection in both:
            connection.stop()
            connection.join(QUICK_S)
        verdicts = both[0].verdicts + both[1].verdicts
        assert sorted(set(desk.ids())) == list(range(1, 1_001))
        assert verdicts["new"] + verdicts["repeated"] == 2_000
        # Two threads may let a few through at once, which the database then takes for one.
        assert verdicts["new"] < 1_100


def test_who_brings_nothing_new_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is behind its sibling is read now and then; one that brings trades, or no trade, at once."""
    rests: list[float] = []
    monkeypatch.setattr(socket_reader, "sleep", rests.append)
    go_on = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        peer.accept()
        for part in (trades(1, 2), frame(b"x", PING), trades(1, 2), trades(2, 1), trades(2, 2), trades(4, 1)):
            peer.send(part)
            go_on.acquire(timeout=QUICK_S)
        peer.stay()

    with reading(tmp_path, script) as (connection, _, _):
        for signs, rested in ((2, 0), (3, 0), (5, 1), (6, 2), (8, 2), (9, 2)):
            wait_until(functools.partial(_has_seen, connection, signs))
            # What comes next must not be there before the rest.
            wait_until(functools.partial(_has_length, rests, rested))
            go_on.release()
        wait_until(lambda: connection.newest["BTCUSDT"] == 4)
    assert rests == [ws_client.STANDBY_S] * 2


def _has_seen(connection: Connection, signs: int) -> bool:
    return connection.signs == signs


def _has_length(found: list[float], length: int) -> bool:
    return len(found) == length


def test_a_read_takes_no_more_memory_than_it_brings() -> None:
    """Taking the most that may come, and giving nearly all of it back, takes the memory to pieces."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reading = socket_reader.Socket(ours)
        theirs.sendall(b"some" * 50)
        tracemalloc.start()
        try:
            assert reading.recv(socket_reader.READ_BYTES_MAX) == b"some" * 50
            assert tracemalloc.get_traced_memory()[1] < 2_000
        finally:
            tracemalloc.stop()


def test_what_waits_is_read_before_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many reads it takes: a connection that is behind catches up at once, and only then rests."""
    monkeypatch.setattr(socket_reader, "READ_BYTES_MAX", len(trades(1, 1)))
    with reading(tmp_path, sending(trades(1, 1), trades(1, 1) * 2_000)) as (connection, _, _):
        # With a rest before each of the reads it would take minutes.
        wait_until(lambda: connection.verdicts["repeated"] == 2_000)


# Over TLS, as the exchange's own: each read is one record.


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ssl.SSLContext]:
    """A server's context; the client trusts the CA."""
    folder = tmp_path_factory.mktemp("tls")
    make_certificate(folder, "exchange")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "exchange-cert.pem", folder / "exchange-key.pem")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "exchange-ca.pem"))
        yield context


@needs_openssl
def test_every_trade_arrives_over_tls(tmp_path: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record for each frame, frames in two records, many in one, a ping among them, and a quiet time."""
    monkeypatch.setattr(ws_client, "CONNECT_S_MAX", 2.0)

    def script(peer: Peer) -> None:
        peer.accept()
        for number in range(1, 1_001):
            peer.send(trades(number, 1))
        text = trades(1_001, 1)
        peer.send(text[:1])
        peer.send(text[1:50])
        peer.send(text[50:], frame(b"now", PING))
        assert peer.receive() == (PONG, b"now")
        # Longer than the time-out of the client's socket.
        peer.over.wait(2.3)
        peer.send(trades(1_002, 999))
        peer.stay()

    with reading(tmp_path, script, tls=tls) as (connection, desk, server):
        wait_until(lambda: connection.parsed == 2_000)
        assert desk.ids() == list(range(1, 2_001))
        assert len(server.peers) == 1


@needs_openssl
def test_a_standby_over_tls_does_not_fall_behind(tmp_path: Path, tls: ssl.SSLContext) -> None:
    """Two thousand records of what is known already are read at once, not one in each rest."""
    with reading(tmp_path, sending(trades(1, 1), *[trades(1, 1)] * 2_000), tls=tls) as (connection, _, _):
        wait_until(lambda: connection.verdicts["repeated"] == 2_000)


@needs_openssl
def test_an_unknown_ca_is_not_trusted(
    tmp_path: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The trades of somebody who only says that he is the exchange are not wanted, and the log says why."""
    monkeypatch.delenv("SSL_CERT_FILE")
    with reading(tmp_path, sending(trades(1, 1)), tls=tls) as (connection, _, _):
        wait_until(lambda: "certificate" in caplog.text.lower())
        assert connection.parsed == 0


# Answering.


@pytest.mark.parametrize("payload", [b"", b"1770123456789", b"\x00\xff\x80" * 41], ids=["empty", "stamp", "binary"])
def test_a_ping_is_answered_with_its_payload_whatever_the_database_does(tmp_path: Path, payload: bytes) -> None:
    """Nobody takes from the full inbox; the pong comes at once, once, and behind thousands of trades."""
    answers: list[tuple[int, bytes]] = []

    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(trades(1, 3_000), frame(payload, PING))
        answers.append(peer.receive())
        peer.send(frame(payload, PING))
        answers.append(peer.receive())
        peer.stay()

    with reading(tmp_path, script, Inbox(10)) as (connection, _, _):
        wait_until(lambda: len(answers) == 2)
        assert answers == [(PONG, payload)] * 2
        assert (connection.verdicts["new"], connection.verdicts["dropped"]) == (10, 2_990)
        wait_until(lambda: connection.pings == 2)
        assert connection.signs == 3_002


# Going down and coming back.


@contextmanager
def noted_attempts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The numbers for which the back-off was asked."""
    attempts: list[int] = []

    def backoff_s(attempt: int) -> float:
        attempts.append(attempt)
        return 0.001

    monkeypatch.setattr(ws_client, "backoff_s", backoff_s)
    yield attempts


def test_a_good_trade_starts_the_back_off_anew_and_a_connect_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that only open, ping, answer or send nonsense count up; one that brought a trade is a start."""
    scripts = [
        b"",
        frame(b"x", PING),
        frame(b"{"),
        frame(b'{"result":null,"id":1}'),
        trades(1, 1),
        b"",
        trades(1, 1),
        b"",
        b"",
    ]

    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(scripts[min(peer.number, len(scripts) - 1)])

    with noted_attempts(monkeypatch) as attempts, reading(tmp_path, script):
        wait_until(lambda: len(attempts) >= 10)
    assert attempts[:10] == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3]


@pytest.mark.parametrize("how", ["reset", "end", "1000", "1001", "1008", "refused", "rsv", "masked", "opcode"])
def test_however_it_ends_it_comes_back(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """One line says why, and the next connection goes on."""
    started: list[ws_client.Connection] = []

    def script(peer: Peer) -> None:
        if peer.number == 0:
            if how == "refused":
                peer.reset()
                return
            peer.accept()
            peer.send(trades(1, 5))
            wait_until(lambda: bool(started) and started[0].parsed == 5)
            if how == "reset":
                peer.reset()
            elif how.isdigit():
                peer.send(frame(int(how).to_bytes(2, "big") + b"Pong timeout", CLOSE))
                peer.stay()
            elif how != "end":
                peer.send({"rsv": b"\xc1\x01x", "masked": b"\x81\x81abcdx", "opcode": b"\x83\x01x"}[how], b"\x00" * 20)
            return
        peer.accept()
        peer.send(trades(6, 5))
        peer.stay()

    with reading(tmp_path, script) as (connection, desk, server):
        started.append(connection)
        first = 1 if how != "refused" else 6
        wait_until(lambda: connection.parsed == 11 - first)
        assert connection.connects == 2 == len(server.peers)
        assert desk.ids() == list(range(first, 11))
    lines = [record for record in caplog.records if "is down" in record.message]
    assert len(lines) == 1
    assert "\n" not in lines[0].getMessage()
    assert how not in ("1001", "1008") or "Pong timeout" in lines[0].getMessage()
    assert not any(record.exc_info for record in caplog.records)


def test_a_dropped_connection_comes_back_by_itself(tmp_path: Path) -> None:
    """The watcher cuts a silent one; the thread opens the next."""
    with reading(tmp_path, sending(trades(1, 1))) as (connection, _, server):
        for n in range(1, 4):
            wait_until(lambda n=n: len(server.peers) == n and connection.opened_at is not None)  # type: ignore[misc]
            connection.drop()
        wait_until(lambda: len(server.peers) == 4)


@pytest.mark.parametrize("status", [403, 451])
def test_a_refusal_on_purpose_names_the_way_out(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with the setting and the other address, and no fast repetition."""
    monkeypatch.setattr(retry, "BACKOFF_S_MAX", 30.0)
    with reading(tmp_path, lambda peer: peer.refuse(status, {})) as (_, desk, _):
        wait_until(lambda: any("is down" in record.message for record in caplog.records))
        assert desk.cooldown.left_s() == 0
    (line, *_) = [record.getMessage() for record in caplog.records if "is down" in record.message]
    assert f"HTTP {status}" in line
    assert "BINANCE_WS_URL=wss://data-stream.binance.vision" in line
    assert "\n" not in line
    assert float(line.rpartition("in ")[2].split()[0]) >= 30.0


@pytest.mark.parametrize("status", [429, 418])
@pytest.mark.parametrize(("headers", "wait_s"), [({"Retry-After": "700"}, 700), ({"retry-AFTER": "7"}, 7), ({}, 60)])
def test_too_many_connections_are_obeyed_by_all(
    tmp_path: Path, status: int, headers: dict[str, str], wait_s: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The order counts for REST and the other connections too; a stop does not wait for its end."""
    with reading(tmp_path, lambda peer: peer.refuse(status, headers)) as (connection, desk, server):
        wait_until(lambda: desk.cooldown.left_s() > 0)
        assert wait_s - 5 < desk.cooldown.left_s() <= wait_s
        sibling = Connection("connection 2", desk.shared)
        sibling.start()
        threading.Event().wait(0.2)
        assert (len(server.peers), connection.connects, sibling.connects) == (1, 1, 0)
        for each in (sibling, connection):
            each.stop()
            each.join(QUICK_S)
            assert not each.is_alive()
    assert any(f"HTTP {status}" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("status", [200, 400, 404, 500, 503])
def test_any_other_answer_is_tried_again(tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the usual back-off, and no order to the others."""
    with (
        noted_attempts(monkeypatch) as attempts,
        reading(tmp_path, lambda peer: peer.refuse(status, {"Retry-After": "99"})) as (_, desk, _),
    ):
        wait_until(lambda: len(attempts) >= 3)
        assert desk.cooldown.left_s() == 0
    assert attempts[:3] == [0, 1, 2]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ws://no-such-host.invalid", ("BINANCE_WS_URL=ws://no-such-host.invalid", "make demo")),
        ("ws://127.0.0.1:{port}", ("refused",)),
    ],
)
def test_nobody_there_is_said_in_one_line(
    tmp_path: Path, url: str, words: tuple[str, ...], caplog: pytest.LogCaptureFixture, closed_port: int
) -> None:
    """No name, or nobody who listens."""
    desk = Desk(tmp_path, url.format(port=closed_port))
    connection = Connection("connection 1", desk.shared)
    connection.start()
    wait_until(lambda: any("is down" in record.message for record in caplog.records))
    connection.stop()
    connection.join(QUICK_S)
    line = next(record.getMessage() for record in caplog.records if "is down" in record.message)
    assert all(word in line for word in words)
    assert "\n" not in line


def test_attempts_are_counted_over_all_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exchange that ends each connection at once is not called more often than the limit allows."""
    monkeypatch.setattr(limits, "CONNECTS_MAX", 6)
    monkeypatch.setattr(ws_client, "backoff_s", lambda _attempt: 0.0)
    with ScriptedStream(lambda peer: peer.accept()) as server:
        desk = Desk(tmp_path, server.url)
        both = [Connection(f"connection {n}", desk.shared) for n in (1, 2)]
        for connection in both:
            connection.start()
        wait_until(lambda: len(server.peers) == 6)
        threading.Event().wait(0.3)
        assert len(server.peers) == 6
        for connection in both:
            connection.stop()
            connection.join(QUICK_S)
            assert not connection.is_alive()


# Ending.


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails if the block takes longer."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@pytest.mark.parametrize("state", ["idle", "busy", "waiting", "handshake", "half a frame"])
def test_stop_ends_the_thread_soon_in_every_state(tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing comes, under load, in the back-off, in a handshake that hangs, in the middle of a frame."""
    if state == "waiting":
        monkeypatch.setattr(ws_client, "backoff_s", lambda _attempt: 1_000.0)

    def script(peer: Peer) -> None:
        if state == "handshake":
            peer.stay()
        peer.accept()
        if state == "waiting":
            return
        peer.send(trades(1, 1), b"\x81\x7d{" if state == "half a frame" else b"")
        first = 2
        while state == "busy":
            peer.send(trades(first, 100))
            first += 100
        peer.stay()

    with reading(tmp_path, script) as (connection, _, server):
        wait_until(lambda: bool(server.peers) and (state in ("handshake", "waiting") or connection.parsed > 0))
        threading.Event().wait(0.05)
        with within(QUICK_S):
            connection.stop()
            connection.join(QUICK_S * 2)
        assert not connection.is_alive()
        assert len(server.peers) == 1


def test_stop_says_goodbye(tmp_path: Path) -> None:
    """The exchange gets a close frame."""
    got: list[int] = []

    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(trades(1, 1))
        got.append(peer.receive()[0])

    with reading(tmp_path, script) as (connection, _, _):
        wait_until(lambda: connection.parsed == 1)
        connection.stop()
        wait_until(lambda: got == [CLOSE])


def test_a_stop_before_the_start_is_obeyed(tmp_path: Path) -> None:
    """No connection is opened then."""
    with ScriptedStream(sending()) as server:
        desk = Desk(tmp_path, server.url)
        connection = Connection("connection 1", desk.shared)
        connection.stop()
        connection.start()
        connection.join(QUICK_S)
        assert not connection.is_alive()
        assert server.peers == []


def test_a_stop_while_it_opens_does_not_wait_for_the_handshake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is there only after the stop has looked for it, and the exchange would never answer."""
    open_stream, opened, stopped = network.open_stream, threading.Event(), threading.Event()

    def slow(url: str, seconds: float) -> socket.socket:
        found = open_stream(url, seconds)
        opened.set()
        stopped.wait(WAIT_S_MAX)
        return found

    monkeypatch.setattr(network, "open_stream", slow)
    with reading(tmp_path, Peer.stay) as (connection, _, _):
        assert opened.wait(WAIT_S_MAX)
        with within(QUICK_S):
            connection.stop()
            stopped.set()
            connection.join(QUICK_S * 2)
        assert not connection.is_alive()


def test_a_stop_while_it_ends_by_itself_is_no_error(tmp_path: Path) -> None:
    """The connection's own thread takes the library's socket away between two looks at it."""

    class Ending:
        keep_running = True

        def __init__(self) -> None:
            self._left = [websocket.WebSocket()]

        @property
        def sock(self) -> websocket.WebSocket | None:
            return self._left.pop() if self._left else None

    connection = Connection("connection 1", Desk(tmp_path, "ws://x").shared)
    vars(connection)["_app"] = Ending()
    connection.stop()
    vars(connection)["_app"] = Ending()
    connection.drop()


def test_a_frame_that_announces_more_than_memory_has_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A length of 2**62 ends the connection, and the next one goes on."""

    def script(peer: Peer) -> None:
        peer.accept()
        if not peer.number:
            peer.send(b"\x81\x7f" + (2**62).to_bytes(8, "big") + b"x" * 1_000_000)
        else:
            peer.send(trades(1, 1))
        peer.stay()

    with reading(tmp_path, script) as (connection, _, _):
        wait_until(lambda: connection.parsed == 1)
        assert connection.connects == 2
    assert any("is down" in record.message and "bytes" in record.getMessage() for record in caplog.records)


def test_no_level_of_the_log_shows_a_traceback_of_an_ordinary_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections that end again and again are a line each."""
    caplog.set_level(logging.DEBUG)
    with reading(tmp_path, lambda peer: peer.accept()) as (connection, _, _):
        wait_until(lambda: connection.connects >= 4)
    assert not any(record.exc_info for record in caplog.records if record.name == "ws_client")
