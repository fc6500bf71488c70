"""Fault injection at the stand-in exchange: each does what it says, to whom it says, and the truth stays."""

import contextlib
import http.client
import itertools
import json
import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest
import websocket

from tests.support.child import WAIT_S_MAX, wait_until
from tests.support.stand_in import StandIn
from tools.exchange import answer_faults, archive_faults, malformed, stream_faults, tape
from tools.exchange.wishes import FaultError, parse_flag

pytestmark = pytest.mark.slow

SLOW_S = 1.5
"""Longer than a busy machine keeps a test from its next step."""
HISTORICAL = "/api/v3/historicalTrades?symbol=BTCUSDT&limit=4&fromId=4000000001"


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    """One lively exchange for all tests; `exchange` switches its faults off in between."""
    with StandIn(
        *("--rate", "1000", "--seed", "11", "--rest-lag", "0", "--connect-limit", "0", "--weight-limit", "1000000")
    ) as running:
        yield running


@pytest.fixture
def exchange(server: StandIn) -> Iterator[StandIn]:
    """The exchange without faults and without connections of earlier tests."""
    server.hang_up()
    wait_until(lambda: not server.state()["connections"])
    yield server
    server.clear()


def frame_of(connection: websocket.WebSocket) -> Any:
    """The next frame as it is on the wire, fragments unjoined and pings unanswered."""
    return connection.recv_frame()  # type: ignore[no-untyped-call]


def trades(connection: websocket.WebSocket, count: int) -> list[tuple[str, int]]:
    """Symbol and id of the next trades."""
    frames = (json.loads(connection.recv())["data"] for _ in range(count))
    return [(data["s"], data["t"]) for data in frames]


def ids(connection: websocket.WebSocket, count: int) -> list[int]:
    return [trade_id for _, trade_id in trades(connection, count)]


def btc(exchange: StandIn) -> websocket.WebSocket:
    """A connection that listens to BTCUSDT and has got its first trade."""
    connection = exchange.connect("/stream?streams=btcusdt@trade")
    connection.recv()
    return connection


def read_until_silent(connection: websocket.WebSocket) -> list[int]:
    """The ids that still come, until the connection's time-out."""
    found: list[int] = []
    with contextlib.suppress(websocket.WebSocketTimeoutException):
        while True:
            found += ids(connection, 1)
    return found


def answer_pings(connection: websocket.WebSocket) -> None:
    """Echoes pings until an exception ends it."""
    while True:
        connection.pong(frame_of(connection).data)


def struck(exchange: StandIn, name: str) -> int:
    return int(exchange.state()["faults"]["struck"].get(name, 0))


def missing(found: list[int]) -> list[int]:
    return sorted(set(range(min(found), max(found) + 1)) - set(found))


def frames_past(exchange: StandIn, connection: websocket.WebSocket) -> list[Any]:
    """The frames until well after the faults have struck: on a busy machine many are under way before they are on."""
    wait_until(lambda: not exchange.state()["faults"]["on"])
    last = exchange.json("/_truth?symbol=BTCUSDT")["last_id"]
    frames = [frame_of(connection)]
    while (_real_id(frames[-1].data) or 0) <= last + 50:
        frames.append(frame_of(connection))
    return frames


def ids_past(exchange: StandIn, connection: websocket.WebSocket) -> list[int]:
    """The ids of those frames."""
    return [json.loads(frame.data)["data"]["t"] for frame in frames_past(exchange, connection)]


# Frames.


def test_skipped_for_all_clients_a_trade_is_still_true_and_in_rest(exchange: StandIn) -> None:
    """Every client misses the same ids; the truth and historicalTrades have them."""
    first, second = btc(exchange), btc(exchange)
    exchange.fault("skip", count=7, symbol="BTCUSDT", after=3)
    gone = missing(ids_past(exchange, first))
    assert len(gone) == 7
    assert missing(ids_past(exchange, second)) == gone
    rows = exchange.json(f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={gone[0]}&limit=7")
    assert [row["id"] for row in rows] == gone
    assert gone[0] in [line["id"] for line in exchange.truth("BTCUSDT")]


def test_skipped_for_one_client_the_other_has_it(exchange: StandIn) -> None:
    """With a connection's index the fault strikes that connection alone."""
    first, second = btc(exchange), btc(exchange)
    index = exchange.state()["connections"][0]["index"]
    exchange.fault("skip", count=5, after=5, target=index)
    assert len(missing(ids_past(exchange, first))) == 5
    assert missing(ids_past(exchange, second)) == []


def test_the_newest_connection_can_be_meant(exchange: StandIn) -> None:
    """Target -1 is the newest one."""
    first, second = btc(exchange), btc(exchange)
    assert exchange.fault("skip", count=5, after=5, target=-1)["applied"] == 1
    assert missing(ids_past(exchange, first)) == []
    assert len(missing(ids_past(exchange, second))) == 5


def test_doubled_frames_come_twice(exchange: StandIn) -> None:
    """The same id twice in a row, and no other is touched."""
    connection = btc(exchange)
    exchange.fault("double", count=4, after=5, symbol="BTCUSDT")
    found = ids_past(exchange, connection)
    assert len(found) - len(set(found)) == 4
    assert sorted(found) == found
    assert missing(found) == []


def test_swapped_frames_change_places(exchange: StandIn) -> None:
    """Each swap is one step back; nothing is lost."""
    connection = btc(exchange)
    exchange.fault("swap", count=3, after=5, symbol="BTCUSDT")
    found = ids_past(exchange, connection)
    assert sum(after < before for before, after in itertools.pairwise(found)) == 3
    assert missing(found) == []


def test_a_frame_that_waits_for_its_partner_is_not_kept_for_ever() -> None:
    """The last trade of a tape has no successor to be swapped with; it comes after a second."""
    with StandIn("--trades", "1", "--wait-clients", "1", "--fault", "swap") as exchange:
        began = time.monotonic()
        connection = exchange.connect()
        assert len(ids(connection, 1)) == 1
        assert time.monotonic() - began >= stream_faults.HOLD_S_MAX * 0.9


def test_shuffled_ids_stay_within_their_millisecond(exchange: StandIn) -> None:
    """The order changes among trades of one symbol and one millisecond only."""
    connection = btc(exchange)
    exchange.fault("shuffle", count=30, after=3)
    data = [json.loads(frame.data)["data"] for frame in frames_past(exchange, connection)]
    found = [item["t"] for item in data]
    assert found != sorted(found)
    assert missing(found) == []
    assert [item["T"] for item in data] == sorted(item["T"] for item in data)


def test_a_delayed_frame_comes_later(exchange: StandIn) -> None:
    """It arrives after frames that were traded after it, and is not lost."""
    connection = btc(exchange)
    exchange.fault("delay", count=1, after=5, symbol="BTCUSDT", delay=SLOW_S)
    found = ids_past(exchange, connection)
    while missing(found):
        found += ids(connection, 1)
    late = [n for n, (before, after) in enumerate(itertools.pairwise(found)) if after < before]
    assert len(late) == 1
    assert found[late[0]] - found[late[0] + 1] > 5


def test_truncated_frames_are_not_json(exchange: StandIn) -> None:
    """Text frames whose JSON ends early replace the real ones."""
    connection = btc(exchange)
    exchange.fault("truncate", count=20, target=-1)
    torn = [frame.data for frame in frames_past(exchange, connection) if _real_id(frame.data) is None]
    assert len(torn) == 20
    for text in torn:
        assert text.startswith(b"{")
        with pytest.raises(ValueError, match=r"."):
            json.loads(text)


def test_fragments_are_continuations_with_a_ping_between(exchange: StandIn) -> None:
    """On the wire: a first part, a ping, continuations; joined it is the trade."""
    connection = btc(exchange)
    exchange.fault("fragment", count=1, after=3, target=-1)
    frame = frame_of(connection)
    while frame.fin:
        frame = frame_of(connection)
    ping, text = frame_of(connection), frame.data
    assert (frame.opcode, ping.opcode, ping.data) == (tape.TEXT, tape.PING, b"between")
    while True:
        part = frame_of(connection)
        assert part.opcode == tape.CONTINUATION
        text += part.data
        if part.fin:
            break
    assert json.loads(text)["data"]["e"] == "trade"


def test_a_client_that_joins_fragments_gets_every_trade(exchange: StandIn) -> None:
    """Fragmentation changes nothing for a reader that knows the protocol; nor does other JSON for the same trade."""
    connection = btc(exchange)
    exchange.fault("fragment", count=50)
    exchange.fault("restyle", count=50, after=10)
    assert missing(ids(connection, 200)) == []


def test_binary_frames_carry_the_same_json(exchange: StandIn) -> None:
    """Opcode 2 instead of 1."""
    connection = btc(exchange)
    exchange.fault("binary", count=5, target=-1)
    frames = frames_past(exchange, connection)
    assert [frame.opcode for frame in frames].count(tape.BINARY) == 5
    assert missing([json.loads(frame.data)["data"]["t"] for frame in frames]) == []


def test_a_replaced_frame_is_one_of_the_malformed(exchange: StandIn) -> None:
    """The real trade is not sent; the variant that was named comes instead."""
    connection = btc(exchange)
    exchange.fault("replace", count=3, variant="price_nan", target=-1)
    data = [json.loads(frame.data)["data"] for frame in frames_past(exchange, connection)]
    assert [item["p"] for item in data].count("NaN") == 3


def test_a_fault_ends_after_its_seconds_and_strikes_by_chance(exchange: StandIn) -> None:
    """With seconds and a probability some frames are struck, and after the time none is."""
    connection = btc(exchange)
    exchange.fault("skip", seconds=0.3, probability=0.3)
    wait_until(lambda: not exchange.state()["faults"]["on"])
    last = exchange.json("/_truth?symbol=BTCUSDT")["last_id"]
    found = ids(connection, 1)
    while found[-1] < last:
        found += ids(connection, 1)
    assert len(missing(found)) > 5
    assert missing(ids(connection, 100)) == []


@pytest.mark.parametrize("name", sorted(malformed.MALFORMED))
def test_no_malformed_variant_is_the_trade(name: str) -> None:
    """Each variant differs from the good text, in both forms."""
    frame = tape.TradeFrame(
        "btcusdt@trade", tape.Trade("BTCUSDT", 5, 10**12, 10**6, 1_735_689_600_000_000, True), 10**15
    )
    for combined in (True, False):
        good = frame.text(tape.Form(combined, False))
        spoiled = malformed.MALFORMED[name](good)
        # Text and not bytes, of which json would take a BOM away; repr, because to Python 1 is True.
        with contextlib.suppress(ValueError, RecursionError):
            assert repr(json.loads(spoiled.decode())) != repr(json.loads(good))


@pytest.mark.parametrize("name", sorted(malformed.HARMLESS))
def test_every_harmless_variant_is_the_same_trade(name: str) -> None:
    """Key for key the same values, however it is written."""
    trade = tape.Trade("BTCUSDT", 5, 6_123_450_000_000, 10**6, 1_735_689_600_000_000, True)
    good = tape.TradeFrame("btcusdt@trade", trade, 10**15).text(tape.Form(True, False))
    again = tape.recorded_frame(malformed.HARMLESS[name](good))
    assert (again.stream, again.trade) == ("btcusdt@trade", trade)


# Connections.


def test_a_reset_is_a_reset(exchange: StandIn) -> None:
    """The client's read fails with ECONNRESET."""
    connection = btc(exchange)
    exchange.fault("reset")
    with pytest.raises(ConnectionResetError):
        trades(connection, 1000)


def test_an_abrupt_end_has_no_close_frame(exchange: StandIn) -> None:
    """End of file without a close frame: what a client reports as 1006."""
    connection = btc(exchange)
    exchange.fault("abrupt")
    with pytest.raises(websocket.WebSocketConnectionClosedException):
        trades(connection, 100_000)


@pytest.mark.parametrize("code", [1000, 1001, 1008])
def test_a_close_has_the_code_and_the_reason(exchange: StandIn, code: int) -> None:
    """The close frame carries both; the other connection goes on."""
    other, connection = btc(exchange), btc(exchange)
    exchange.fault("close", code=code, reason="because", target=-1)
    frame = frame_of(connection)
    while frame.opcode != tape.CLOSE:
        frame = frame_of(connection)
    assert (int.from_bytes(frame.data[:2], "big"), frame.data[2:]) == (code, b"because")
    assert missing(ids(other, 50)) == []


def test_a_frozen_connection_is_open_and_silent(exchange: StandIn) -> None:
    """No frame, no pong, no end; another connection goes on; thawed it goes on with new trades."""
    frozen, other = btc(exchange), btc(exchange)
    index = exchange.state()["connections"][0]["index"]
    exchange.fault("freeze", target=index)
    frozen.settimeout(SLOW_S)
    last = read_until_silent(frozen)[-1]
    frozen.ping("anyone there?")
    with pytest.raises(websocket.WebSocketTimeoutException):
        frame_of(frozen)
    assert missing(ids(other, 50)) == []
    assert [item["frozen"] for item in exchange.state()["connections"]] == [True, False]
    exchange.fault("thaw", target=index)
    assert ids(frozen, 1)[0] > last + 1


def test_a_frozen_connection_gets_no_pings() -> None:
    """With pings every 50 ms none comes for longer than a pong may take, and the missing pongs do not end it."""
    with StandIn("--ping-interval", "0.05", "--pong-timeout", str(SLOW_S), "--rate", "1") as exchange:
        connection = exchange.connect("/ws")
        connection.pong(frame_of(connection).data)
        exchange.fault("freeze")
        connection.settimeout(SLOW_S * 1.5)
        with pytest.raises(websocket.WebSocketTimeoutException):
            answer_pings(connection)
        assert exchange.state()["connections"][0]["frozen"]


def test_server_shutdown_in_both_forms(exchange: StandIn) -> None:
    """Wrapped as `!serverShutdown` on a combined stream, bare on a raw one; then the announced end."""
    combined, raw = exchange.connect("/stream"), exchange.connect("/ws")
    exchange.fault("shutdown", seconds=0.2)
    wrapped, bare = json.loads(combined.recv()), json.loads(raw.recv())
    assert (wrapped["stream"], wrapped["data"]["e"]) == ("!serverShutdown", "serverShutdown")
    assert (list(bare), bare["e"]) == (["e", "E"], "serverShutdown")
    assert frame_of(raw).opcode == tape.CLOSE


def test_a_connection_is_cut_for_its_age(exchange: StandIn) -> None:
    """The 24 h cut at will."""
    connection = exchange.connect("/ws")
    exchange.fault("age")
    frame = frame_of(connection)
    assert (frame.opcode, int.from_bytes(frame.data[:2], "big")) == (tape.CLOSE, 1001)


def test_every_malformed_variant_can_be_injected_between_real_frames(exchange: StandIn) -> None:
    """All of them come as extra text frames, and no real trade is missing."""
    connection = btc(exchange)
    exchange.fault("inject", target=-1)
    real: list[int] = []
    extra = 0
    # Real frames may be under way already, and many come for each that is injected.
    while (extra < len(malformed.MALFORMED) or len(real) < 100) and len(real) < 20_000:
        trade_id = _real_id(frame_of(connection).data)
        if trade_id is None:
            extra += 1
        else:
            real.append(trade_id)
    assert extra == len(malformed.MALFORMED)
    assert missing(real) == []


def _real_id(body: bytes) -> int | None:
    """The id of a frame of the tape; None: it was injected."""
    try:
        trade_id = json.loads(body)["data"]["t"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return trade_id if type(trade_id) is int and 4e9 < trade_id < 4_000_900_000 else None


def test_a_big_frame_has_its_size(exchange: StandIn) -> None:
    """Ten megabytes in one frame."""
    connection = exchange.connect("/ws")
    exchange.fault("big", size=10_000_000, variant="string")
    assert len(frame_of(connection).data) == 10_000_002


def test_any_text_can_be_sent(exchange: StandIn) -> None:
    """`raw` sends its reason as a frame."""
    connection = exchange.connect("/ws")
    exchange.fault("raw", reason='{"error":{"code":4,"msg":"Too many subscriptions"},"id":19}')
    assert json.loads(connection.recv())["error"]["code"] == 4


# Handshakes.


@pytest.mark.parametrize("status", [429, 418, 403, 451, 500, 503])
def test_a_handshake_is_refused_with_a_status(exchange: StandIn, status: int) -> None:
    """One handshake is answered so, the next one is good; 429 and 418 carry Retry-After."""
    exchange.fault("handshake_status", status=status, retry_after=7)
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        exchange.connect()
    assert refused.value.status_code == status
    headers = refused.value.resp_headers or {}
    assert headers.get("retry-after") == ("7" if status in (429, 418) else None)
    exchange.connect().recv()


def test_handshakes_are_reset_for_a_time(exchange: StandIn) -> None:
    """Accepted, then RST, until the seconds are over."""
    exchange.fault("handshake_reset", seconds=SLOW_S)
    with pytest.raises(ConnectionResetError):
        exchange.connect()

    def connected() -> bool:
        try:
            exchange.connect().recv()
        except ConnectionResetError:
            return False
        return True

    wait_until(connected)
    assert struck(exchange, "handshake_reset") >= 2


def test_the_port_refuses_and_comes_back_with_the_same_number(exchange: StandIn) -> None:
    """New connections are refused; the open one goes on; then the port listens again."""
    open_one = btc(exchange)
    exchange.fault("refuse", seconds=SLOW_S)
    with pytest.raises(ConnectionRefusedError):
        exchange.connect()
    with pytest.raises(urllib.error.URLError):
        exchange.get("/api/v3/ping")
    assert missing(ids(open_one, 50)) == []

    def connected() -> bool:
        try:
            exchange.connect().recv()
        except ConnectionRefusedError:
            return False
        return True

    wait_until(connected)


# REST.


def test_rest_jumps_over_a_hole(exchange: StandIn) -> None:
    """Ids that REST does not have are passed over with status 200; other symbols have theirs."""
    exchange.fault("rest_hole", symbol="BTCUSDT", first=4_000_000_001, last=4_000_000_006)
    assert exchange.json(HISTORICAL)[0]["id"] == 4_000_000_007
    assert exchange.json(HISTORICAL.replace("BTC", "ETH"))[0]["id"] == 4_000_000_001
    assert exchange.truth("BTCUSDT")[0]["id"] == 4_000_000_001


def test_rest_begins_late_for_a_time(exchange: StandIn) -> None:
    """Ids behind the one that was asked for, with status 200; afterwards that one."""
    exchange.fault("rest_late", count=40, seconds=SLOW_S)
    assert exchange.json(HISTORICAL)[0]["id"] == 4_000_000_041
    wait_until(lambda: exchange.json(HISTORICAL)[0]["id"] == 4_000_000_001)


def test_a_symbol_is_not_trading(exchange: StandIn) -> None:
    """As exchangeInfo says; the others are, and it is again when the fault is switched off."""

    def statuses() -> dict[str, str]:
        return {one["symbol"]: one["status"] for one in exchange.json("/api/v3/exchangeInfo")["symbols"]}

    exchange.fault("rest_symbol", symbol="ETHUSDT", reason="HALT")
    assert statuses() == {"BTCUSDT": "TRADING", "ETHUSDT": "HALT"}
    exchange.clear()
    assert statuses() == {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING"}


def test_rest_lags_for_a_time(exchange: StandIn) -> None:
    """While it lags the newest trade of the stream is not there; afterwards it is."""
    connection = btc(exchange)
    exchange.fault("rest_lag", lag=30, seconds=SLOW_S)
    seen = ids(connection, 60)[-1]
    address = f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={seen}&limit=1"
    assert exchange.json(address) == []
    wait_until(lambda: bool(exchange.json(address)))


@pytest.mark.parametrize("status", [429, 418, 500, 502, 503])
def test_rest_answers_with_a_status(exchange: StandIn, status: int) -> None:
    """One call is answered so, with Retry-After and code where the exchange has them; the next one is good."""
    exchange.fault("rest_status", status=status, retry_after=9)
    answer = exchange.get(HISTORICAL)
    assert answer.status == status
    assert answer.headers.get("retry-after") == ("9" if status in (429, 418) else None)
    assert "x-mbx-used-weight-1m" in answer.headers
    assert [row["id"] for row in exchange.json(HISTORICAL)] == list(range(4_000_000_001, 4_000_000_005))


def test_calls_before_retry_after_is_over_are_counted(exchange: StandIn) -> None:
    """Whoever does not obey is found out."""
    before = exchange.state()["too_early"].get("rest", 0)
    exchange.fault("rest_status", status=429, retry_after=3)
    exchange.get(HISTORICAL)
    answered = time.monotonic()
    exchange.get(HISTORICAL)
    wait_until(lambda: time.monotonic() - answered > 3)
    exchange.get(HISTORICAL)
    assert exchange.state()["too_early"]["rest"] == before + 1


def test_only_the_calls_that_are_meant_are_struck(exchange: StandIn) -> None:
    """A path and a symbol narrow a fault."""
    exchange.fault("rest_status", status=500, path="historical", symbol="ETHUSDT")
    assert exchange.get("/api/v3/trades?symbol=ETHUSDT").status == 200
    assert exchange.get(HISTORICAL).status == 200
    assert exchange.get(HISTORICAL.replace("BTC", "ETH")).status == 500


@pytest.mark.parametrize("name", ["rest_slow", "handshake_slow"])
def test_an_answer_can_be_slow(exchange: StandIn, name: str) -> None:
    """It comes, late, and others are not held up."""
    exchange.fault(name, delay=SLOW_S)
    began = time.monotonic()
    assert exchange.get(HISTORICAL).status == 200 if name == "rest_slow" else exchange.connect().recv()
    assert SLOW_S <= time.monotonic() - began < WAIT_S_MAX


@pytest.mark.parametrize("name", ["rest_reset", "rest_down", "rest_hang"])
def test_a_call_is_reset(exchange: StandIn, name: str) -> None:
    """At once, or after a silence; the controls are never struck."""
    exchange.fault(name, delay=0.2)
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected, urllib.error.URLError)):
        exchange.get(HISTORICAL)
    assert struck(exchange, name) >= 1


def test_rest_is_down_for_long(exchange: StandIn) -> None:
    """With seconds every call is reset until they are over; streams go on."""
    exchange.fault("rest_down", seconds=SLOW_S)
    connection = btc(exchange)
    for _ in range(2):
        with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected, urllib.error.URLError)):
            exchange.get(HISTORICAL)
    wait_until(lambda: not exchange.state()["faults"]["on"])
    assert exchange.get(HISTORICAL).status == 200
    assert missing(ids(connection, 10)) == []


def test_a_body_can_end_early(exchange: StandIn) -> None:
    """The promised length does not come."""
    exchange.fault("rest_truncated")
    with pytest.raises(http.client.IncompleteRead):
        exchange.get(HISTORICAL)


def test_bodies_of_another_kind(exchange: StandIn) -> None:
    """HTML, an empty list, an error object, a row with a bad price: all with status 200."""
    bodies = []
    for name in ("rest_not_json", "rest_empty", "rest_error", "rest_bad_row"):
        exchange.fault(name)
        bodies.append(exchange.get(HISTORICAL))
    html, empty, error, rows = bodies
    assert [answer.status for answer in bodies] == [200] * 4
    assert str(html.body).startswith("<html>")
    assert empty.body == []
    assert error.body["code"] == -1000
    assert [row["price"] == "NaN" for row in rows.body] == [False, False, True, False]
    assert all("x-mbx-used-weight-1m" in answer.headers for answer in bodies)


# How faults are asked for.


def test_every_fault_says_what_it_does(exchange: StandIn) -> None:
    """GET /_faults lists each fault of the tables with a sentence."""
    listed = exchange.json("/_faults")["faults"]
    tables: list[dict[str, Any]] = [stream_faults.FRAMES, stream_faults.CONNECTIONS]
    tables += [answer_faults.HANDSHAKES, answer_faults.CALLS, archive_faults.ARCHIVE, archive_faults.CONTENT]
    others = {"shuffle", "refuse", "rest_lag", "rest_hole", "rest_late", "rest_symbol"}
    assert set(listed) == {name for table in tables for name in table} | others
    assert all(text.endswith(".") for text in listed.values())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"fault": "nope"},
        {"fault": "skip", "count": 0},
        {"fault": "skip", "count": 1.5},
        {"fault": "skip", "count": True},
        {"fault": "skip", "wat": 1},
        {"fault": "skip", "target": "some"},
        {"fault": "skip", "symbol": 1},
        {"fault": "close", "code": 99},
        {"fault": "inject", "variant": "nope"},
        {"fault": "skip", "variant": "price_nan"},
    ],
)
def test_a_wrong_wish_is_refused(exchange: StandIn, body: dict[str, object]) -> None:
    """HTTP 400 with a sentence that names the field; nothing is switched on."""
    answer = exchange.post("/_faults", body)
    assert answer.status == 400
    assert answer.body["error"]
    assert exchange.state()["faults"]["on"] == []


def test_a_fault_can_be_scheduled_and_repeated(exchange: StandIn) -> None:
    """`at`, `every` and `times` strike later and again, a bounded number of times."""
    before = struck(exchange, "raw")
    connection = exchange.connect("/ws")
    exchange.fault("raw", reason="x", at=0.1, every=0.1, times=3)
    assert [connection.recv() for _ in range(3)] == ["x"] * 3
    assert struck(exchange, "raw") == before + 3
    assert exchange.state()["faults"]["scheduled"] == 0


def test_clearing_switches_everything_off(exchange: StandIn) -> None:
    """Nothing is on, scheduled, frozen, lagging or missing any more."""
    connection = btc(exchange)
    exchange.fault("skip", seconds=60)
    exchange.fault("freeze")
    exchange.fault("close", at=60)
    exchange.fault("rest_lag", lag=60)
    exchange.fault("rest_hole", first=4_000_000_001)
    exchange.clear()
    assert len(ids(connection, 5)) == 5
    assert exchange.state()["faults"]["on"] == []
    assert exchange.state()["faults"]["scheduled"] == 0
    assert exchange.json(HISTORICAL)[0]["id"] == 4_000_000_001


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("skip", {"fault": "skip"}),
        ("skip=10", {"fault": "skip", "count": 10}),
        ("close=1008", {"fault": "close", "code": 1008}),
        ("refuse=2.5", {"fault": "refuse", "seconds": 2.5}),
        ("inject=price_nan", {"fault": "inject", "variant": "price_nan"}),
        ("skip=count:5,after:10,symbol:BTCUSDT", {"fault": "skip", "count": 5, "after": 10, "symbol": "BTCUSDT"}),
        ('close={"code":1000,"reason":"a,b"}', {"fault": "close", "code": 1000, "reason": "a,b"}),
    ],
)
def test_a_flag_is_a_wish(text: str, wish: dict[str, object]) -> None:
    """NAME, NAME=ARGUMENT, NAME=field:value,… and NAME={JSON}."""
    assert parse_flag(text) == wish


def test_a_flag_with_broken_json_is_refused() -> None:
    """An operator's mistake, named."""
    with pytest.raises(FaultError, match="close"):
        parse_flag("close={")


def test_the_same_seed_strikes_the_same_trades() -> None:
    """Two runs of one seed lose the same ids by chance; another seed loses others."""

    def lost(seed: str) -> list[int]:
        flags = ["--clock", "virtual", "--speed", "full", "--trades", "400", "--wait-clients", "1", "--seed", seed]
        flags += ["--symbols", "BTCUSDT", "--fault", "skip=seconds:60,probability:0.2"]
        with StandIn(*flags) as exchange:
            connection = exchange.connect()
            wait_until(lambda: bool(exchange.state()["tape"] == "ended"))
            sent = exchange.state()["connections"][0]["frames_sent"]
            return missing([4_000_000_000, *ids(connection, sent), 4_000_000_401])

    assert lost("1") == lost("1") != lost("2")
