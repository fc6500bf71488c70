"""The stand-in exchange, over real sockets: it must behave as the exchange does, and know what it has traded."""

import gzip
import hashlib
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from process.child import ROOT
from tests.support.child import WAIT_S_MAX, wait_until
from tests.support.stand_in import BOTH, StandIn
from tools.exchange import commands, tape
from tools.exchange import rest as exchange_rest

pytestmark = pytest.mark.slow

REAL_TAPE = ROOT.parent / "shared" / "data" / "2024-08-08_btcusdt_ethusdt_trades.ndjson.gz"
FILL_S_MAX = 60.0
KEYS = ["e", "E", "s", "t", "p", "q", "T", "m", "M"]


@pytest.fixture(scope="module")
def shared() -> Iterator[StandIn]:
    """One exchange with a lively tape for all tests that need nothing special."""
    with StandIn(
        "--rate", "400", "--seed", "5", "--rest-lag", "0", "--connect-limit", "0", "--weight-limit", "1000000"
    ) as server:
        yield server


def payloads(connection: websocket.WebSocket, count: int) -> list[dict[str, Any]]:
    return [json.loads(connection.recv())["data"] for _ in range(count)]


def command(connection: websocket.WebSocket, text: str | dict[str, object]) -> Any:
    """The answer to a command, past the frames that come before it."""
    connection.send(text if isinstance(text, str) else json.dumps(text))
    while True:
        message = json.loads(connection.recv())
        if "stream" not in message and message.get("e") != "trade":
            return message


def frame_of(connection: websocket.WebSocket) -> Any:
    """The next frame as it is, a ping unanswered."""
    return connection.recv_frame()  # type: ignore[no-untyped-call]


def closed_with(connection: websocket.WebSocket) -> tuple[int, str]:
    """Code and reason of the close frame that comes, pings unanswered."""
    while True:
        frame = frame_of(connection)
        if frame.opcode == tape.CLOSE:
            return int.from_bytes(frame.data[:2], "big"), frame.data[2:].decode()


# The process.


def test_the_first_line_gives_the_addresses_and_a_signal_ends_it_with_a_summary() -> None:
    """A parent process can read the port, and SIGINT ends with the truth of each symbol and exit code 0."""
    with StandIn("--trades", "100", "--speed", "full") as server:
        assert re.fullmatch(r"listening ws://127\.0\.0\.1:(\d+) http://127\.0\.0\.1:\1\n", server.first_line)
        wait_until(lambda: bool(server.state()["tape"] == "ended"))
        code, out, err = server.stop(signal.SIGINT)
    summaries = [json.loads(line.removeprefix("truth ")) for line in out.splitlines() if line.startswith("truth ")]
    assert (code, err) == (0, "")
    assert [summary["symbol"] for summary in summaries] == ["BTCUSDT", "ETHUSDT"]
    assert sum(summary["count"] for summary in summaries) == 100


def test_help_starts_with_the_purpose() -> None:
    """`--help` works and says what the script is."""
    run = [sys.executable, "-m", "tools.exchange", "--help"]
    out = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "The stand-in exchange" in out
    assert "--replay" in out


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--rate", "0"], "--rate"),
        (["--port", "70000"], "--port"),
        (["--speed", "fast"], "--speed"),
        (["--symbols", "BTC'USDT"], "--symbols"),
        (["--replay", "no/such/file"], "no/such/file"),
        (["--truth", "no/such/folder/file"], "no/such/folder/file"),
        (["--fault", "nope"], "nope"),
        (["--fault", "skip=count:0"], "count"),
    ],
)
def test_an_operators_mistake_is_one_line_and_exit_code_2(flags: list[str], named: str) -> None:
    """No traceback, and the line names what was wrong."""
    run = [sys.executable, "-m", "tools.exchange", "--port", "0", *flags]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False, timeout=WAIT_S_MAX)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert named in done.stderr


def test_a_port_that_is_taken_is_an_operators_mistake(shared: StandIn) -> None:
    """A second exchange on the same port says so in one line."""
    port = shared.http.rpartition(":")[2]
    run = [sys.executable, "-m", "tools.exchange", "--port", port]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False, timeout=WAIT_S_MAX)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)


# Streams.


def test_a_combined_frame_has_the_keys_types_and_order_of_a_real_one(shared: StandIn) -> None:
    """Wrapper, key order, 13-digit times, decimals with eight places, M always true."""
    for text in [shared.connect().recv() for _ in range(3)]:
        frame = json.loads(text)
        data = frame["data"]
        assert list(frame) == ["stream", "data"]
        assert list(data) == KEYS
        assert frame["stream"] == data["s"].lower() + "@trade"
        assert (data["e"], data["M"], type(data["t"]), type(data["m"])) == ("trade", True, int, bool)
        assert len(str(data["T"])) == len(str(data["E"])) == 13
        assert data["E"] >= data["T"]
        assert all(re.fullmatch(r"\d+\.\d{8}", data[key]) for key in "pq")
        assert text == json.dumps(frame, separators=(",", ":"))


def test_trades_happen_now(shared: StandIn) -> None:
    """In live mode the trade time is the machine's clock."""
    began_s = time.time()
    at_s = payloads(shared.connect(), 1)[0]["T"] / 1000
    assert began_s - 2 < at_s < time.time() + 2


def test_a_raw_stream_is_the_bare_payload(shared: StandIn) -> None:
    """`/ws/<stream>` sends the payload without the wrapper, and only that stream."""
    frames = [json.loads(shared.connect("/ws/ethusdt@trade").recv()) for _ in range(3)]
    assert [(list(frame), frame["s"]) for frame in frames] == [(KEYS, "ETHUSDT")] * 3


def test_several_raw_streams_share_an_address(shared: StandIn) -> None:
    """`/ws/<a>/<b>` sends both."""
    connection = shared.connect("/ws/btcusdt@trade/ethusdt@trade")
    wait_until(lambda: json.loads(connection.recv())["s"] == "BTCUSDT")
    wait_until(lambda: json.loads(connection.recv())["s"] == "ETHUSDT")


@pytest.mark.parametrize(
    "path", ["/stream?streams=btcusdt@trade&timeUnit=MICROSECOND", "/ws/btcusdt@trade?timeUnit=microsecond"]
)
def test_microseconds_are_a_matter_of_the_address(shared: StandIn, path: str) -> None:
    """With timeUnit both E and T have 16 digits."""
    message = json.loads(shared.connect(path).recv())
    data = message.get("data", message)
    assert (len(str(data["E"])), len(str(data["T"]))) == (16, 16)


def test_an_encoded_address_is_understood(shared: StandIn) -> None:
    """Percent signs for @ and / are decoded."""
    connection = shared.connect("/stream?streams=btcusdt%40trade%2Fethusdt%40trade")
    listed = command(connection, {"method": "LIST_SUBSCRIPTIONS", "id": 3})
    assert listed == {"result": ["btcusdt@trade", "ethusdt@trade"], "id": 3}


@pytest.mark.parametrize("name", ["BTCUSDT@trade", "nosuchusdt@trade", "btcusdt@aggTrade"])
def test_a_stream_of_nothing_is_acknowledged_and_silent(shared: StandIn, name: str) -> None:
    """Wrong case, unknown symbol, a product that is not served: a success that proves nothing."""
    connection = shared.connect("/ws")
    assert command(connection, {"method": "SUBSCRIBE", "params": [name], "id": 1}) == {"result": None, "id": 1}
    connection.settimeout(0.3)
    with pytest.raises(websocket.WebSocketTimeoutException):
        connection.recv()


def test_live_commands(shared: StandIn) -> None:
    """SUBSCRIBE, LIST_SUBSCRIPTIONS, SET_PROPERTY and UNSUBSCRIBE are answered and obeyed."""
    connection = shared.connect("/stream")
    subscribe = {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1}
    assert command(connection, subscribe) == {"result": None, "id": 1}
    assert json.loads(connection.recv())["stream"] == "btcusdt@trade"
    assert command(connection, {"method": "LIST_SUBSCRIPTIONS", "id": "a1"}) == {
        "result": ["btcusdt@trade"],
        "id": "a1",
    }
    assert command(connection, {"method": "SET_PROPERTY", "params": ["combined", False], "id": 5})["result"] is None
    assert list(json.loads(connection.recv())) == KEYS
    assert command(connection, subscribe | {"method": "UNSUBSCRIBE", "id": None}) == {"result": None, "id": None}
    connection.settimeout(0.3)
    with pytest.raises(websocket.WebSocketTimeoutException):
        connection.recv()


def test_combined_is_a_property_of_the_connection() -> None:
    """False on /ws, true on /stream, until SET_PROPERTY."""
    get: dict[str, object] = {"method": "GET_PROPERTY", "params": ["combined"], "id": 2}
    raw, combined = commands.Subscriptions([], False), commands.Subscriptions([], True)
    assert commands.answer(raw, json.dumps(get)) == {"result": False, "id": 2}
    assert commands.answer(combined, json.dumps(get)) == {"result": True, "id": 2}


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('{"method":"SET_PROPERTY","params":["x",true],"id":1}', 0, "Unknown property"),
        ('{"method":"SET_PROPERTY","params":["combined",1],"id":1}', 1, "Invalid value type: expected Boolean"),
        ('{"method":"SET_PROPERTY","params":[1],"id":1}', 2, "Invalid request: property name must be a string"),
        ('{"method":"SUBSCRIBE","params":[],"id":1.5}', 2, "Invalid request: request ID must be an unsigned integer"),
        ('{"method":"SUBSCRIBE","params":["x"],"id":1}', 2, "Invalid request: invalid stream"),
        ('{"method":"SUB","id":1}', 2, "Invalid request: unknown variant `SUB`, expected one of `SUBSCRIBE`"),
        ('{"method":"LIST_SUBSCRIPTIONS","params":[1],"id":1}', 2, "Invalid request: too many parameters"),
        ('{"id":1}', 2, "Invalid request: missing field `method` at line 1 column 8"),
        ("nonsense", 3, "Invalid JSON: expected value at line 1 column 1"),
        ("[1]", 2, "Invalid request: missing field `method`"),
        ("[" * 5000, 3, "Invalid JSON"),
    ],
)
def test_a_wrong_command_gets_the_documented_error(text: str, code: int, message: str) -> None:
    """Code and text as in the documentation; the command changes nothing."""
    subscriptions = commands.Subscriptions(["btcusdt@trade"], True)
    with pytest.raises(commands.Refused) as refused:
        commands.answer(subscriptions, text)
    assert refused.value.code == code
    assert str(refused.value).startswith(message)
    assert (list(subscriptions.streams), subscriptions.combined) == (["btcusdt@trade"], True)


def test_an_error_is_flat_as_documented_or_nested_as_observed(shared: StandIn) -> None:
    """Both shapes carry code, msg and the id."""
    asked = {"method": "SUBSCRIBE", "params": ["x"], "id": 7}
    message = "Invalid request: invalid stream"
    body = {"code": 2, "msg": message}
    assert command(shared.connect("/ws"), asked) == {**body, "id": 7}
    nested = commands.error_of(commands.Refused(2, message), json.dumps(asked), nested=True)
    assert nested == {"error": body, "id": 7}


def test_the_sixth_message_in_a_second_ends_the_connection(shared: StandIn) -> None:
    """Five commands, pings or pongs a second; then close 1008."""
    connection = shared.connect("/ws")
    # In one piece: of six writes, one may be more than a second late.
    pings = (websocket.ABNF.create_frame(str(number), tape.PING).format() for number in range(6))
    assert connection.sock is not None
    connection.sock.sendall(b"".join(pings))
    assert closed_with(connection) == (1008, "Too many requests")


def test_a_ping_of_the_client_is_answered_with_its_payload(shared: StandIn) -> None:
    """RFC 6455: the pong echoes the ping."""
    connection = shared.connect("/ws")
    connection.ping("mine")
    frame = frame_of(connection)
    assert (frame.opcode, frame.data) == (tape.PONG, b"mine")


def test_more_than_1024_streams_are_refused(shared: StandIn) -> None:
    """1,024 is the limit of one connection, in the address as in a command."""
    subscriptions = commands.Subscriptions([f"s{n}@trade" for n in range(1024)], True)
    with pytest.raises(commands.TooManyStreams):
        commands.answer(subscriptions, '{"method":"SUBSCRIBE","params":["one@trade"],"id":1}')
    assert closed_with(shared.connect("/ws/" + "/".join(f"s{n}@t" for n in range(1025))))[0] == 1008


def test_a_command_of_more_than_4096_bytes_gets_no_answer(shared: StandIn) -> None:
    """As reported of the exchange; the next command is answered."""
    connection = shared.connect("/ws")
    connection.send(json.dumps({"method": "SUBSCRIBE", "params": ["a@trade" * 600], "id": 1}))
    assert command(connection, {"method": "LIST_SUBSCRIPTIONS", "id": 2}) == {"result": [], "id": 2}


def test_a_connection_that_echoes_the_pings_lives() -> None:
    """The server pings with a payload; a pong that copies it keeps the connection, more often than the time-out."""
    with StandIn("--ping-interval", "0.4", "--pong-timeout", "2.5", "--rate", "1") as server:
        connection = server.connect("/ws")
        payload = set()
        for _ in range(8):
            frame = frame_of(connection)
            assert frame.opcode == tape.PING
            payload.add(bytes(frame.data))
            connection.pong(frame.data)
        assert len(payload) == 8
        assert all(payload)


@pytest.mark.parametrize("answer", [None, b"", b"something else"])
def test_a_connection_that_does_not_echo_is_cut(answer: bytes | None) -> None:
    """No pong, an empty one or another payload: close 1008 after the time-out."""
    with StandIn("--ping-interval", "0.2", "--pong-timeout", "0.5", "--rate", "1") as server:
        connection = server.connect("/ws")
        if answer is not None:
            assert frame_of(connection).opcode == tape.PING
            connection.pong(answer.decode())
        assert closed_with(connection) == (1008, "Pong timeout")


def test_a_connection_lives_no_longer_than_its_age_and_attempts_are_limited() -> None:
    """The 24 h cut, shortened; and the handshake after the allowed number of attempts is refused with 429."""
    with StandIn("--max-age", "0.3", "--connect-limit", "2") as server:
        began = time.monotonic()
        connection = server.connect()
        assert closed_with(connection)[0] == 1001
        assert 0.3 <= time.monotonic() - began < WAIT_S_MAX
        server.connect()
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            server.connect()
    assert refused.value.status_code == 429
    assert refused.value.resp_headers is not None
    assert refused.value.resp_headers["retry-after"] == "300"


def test_a_client_that_does_not_read_is_disconnected_at_the_bound() -> None:
    """Memory is bounded: what waits for a client has a limit, and the others go on."""
    with StandIn("--rate", "20000", "--client-buffer", "100000", "--connect-limit", "0") as server:
        server.connect()
        # The kernel's buffers hold megabytes, which a busy machine is long in filling.
        wait_until(lambda: bool(server.state()["slow_dropped"] == 1), FILL_S_MAX)
        assert server.state()["connections"] == []
        assert json.loads(server.connect().recv())["data"]["e"] == "trade"


# REST.


def test_ping_and_time(shared: StandIn) -> None:
    """The two simplest calls, and the unit header."""
    assert shared.json("/api/v3/ping") == {}
    for micro, unit in ((False, 1e3), (True, 1e6)):
        began_s = time.time()
        at_s = shared.json("/api/v3/time", micro=micro)["serverTime"] / unit
        assert began_s - 2 < at_s < time.time() + 2


def test_exchange_info_has_symbols_filters_and_limits(shared: StandIn) -> None:
    """What a client validates its symbols with."""
    info = shared.json("/api/v3/exchangeInfo")
    assert [symbol["symbol"] for symbol in info["symbols"]] == ["BTCUSDT", "ETHUSDT"]
    filters = {item["filterType"]: item for item in info["symbols"][0]["filters"]}
    assert filters["PRICE_FILTER"]["tickSize"] == "0.01000000"
    assert filters["LOT_SIZE"]["stepSize"] == "0.00001000"
    assert info["symbols"][1]["baseAsset"] == "ETH"
    assert info["rateLimits"][0] == {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": 1_000_000,
    }
    one = shared.json("/api/v3/exchangeInfo?symbols=%5B%22ETHUSDT%22%5D")
    assert [symbol["symbol"] for symbol in one["symbols"]] == ["ETHUSDT"]


def test_historical_trades_page_by_from_id_into_the_stream() -> None:
    """Pages from history on, by last id + 1, give every id once and equal the truth where the stream begins."""
    flags = ["--trades", "3000", "--speed", "full", "--history", "700", "--rest-lag", "0", "--symbols", "BTCUSDT"]
    with StandIn(*flags) as server:
        wait_until(lambda: bool(server.state()["tape"] == "ended"))
        rows: list[dict[str, Any]] = []
        next_id = 4_000_000_001 - 700
        while page := server.json(f"/api/v3/historicalTrades?symbol=BTCUSDT&limit=1000&fromId={next_id}", micro=True):
            rows += page
            next_id = page[-1]["id"] + 1
        truth = server.truth("BTCUSDT")
    assert [row["id"] for row in rows] == list(range(4_000_000_001 - 700, 4_000_003_001))
    assert [(row["id"], row["price"], row["qty"], row["time"], row["isBuyerMaker"]) for row in rows[700:]] == [
        (line["id"], line["price"], line["quantity"], line["time_us"], line["maker"]) for line in truth
    ]
    assert len(truth) == 3000


def test_without_from_id_the_newest_come_oldest_first(shared: StandIn) -> None:
    """`limit` defaults to 500, and the page is chronological."""
    for call in ("historicalTrades", "trades"):
        ids = [row["id"] for row in shared.json(f"/api/v3/{call}?symbol=BTCUSDT")]
        assert ids == list(range(ids[0], ids[0] + 500))
        assert ids[-1] >= 4_000_000_000


def test_the_database_lags_behind_the_stream_and_memory_does_not() -> None:
    """historicalTrades shows a trade later than the stream; `trades` shows it at once."""
    flags = ["--trades", "50", "--speed", "full", "--weight-limit", "1000000"]
    with StandIn("--rest-lag", "3600", *flags) as server:
        wait_until(lambda: bool(server.state()["tape"] == "ended"))
        assert server.json("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=4000000001") == []
        assert server.json("/api/v3/trades?symbol=BTCUSDT&limit=1")[0]["id"] > 4_000_000_001
    began = time.monotonic()
    with StandIn("--rest-lag", "1.5", *flags) as server:
        wait_until(lambda: bool(server.json("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=4000000001")))
        assert time.monotonic() - began >= 1.5


def test_an_id_that_is_no_longer_served_jumps_forward_silently() -> None:
    """Below the oldest served id the page starts there, with status 200; so it does above a hole."""
    with StandIn("--rest-oldest-id", "4000000000", "--fault", "rest_hole=first:4000000001,last:4000000009") as server:
        address = "/api/v3/historicalTrades?symbol=BTCUSDT&limit=2&fromId="
        wait_until(lambda: len(server.json(address + "4000000011")) == 2)
        assert [row["id"] for row in server.json(address + "1")] == [4_000_000_000, 4_000_000_010]
        assert [row["id"] for row in server.json(address + "4000000003")] == [4_000_000_010, 4_000_000_011]


def test_agg_trades_translate_a_time_into_trade_ids(shared: StandIn) -> None:
    """f and l cover the ids without a gap, and a time range finds the aggregate of a trade of that millisecond."""
    rows = shared.json("/api/v3/aggTrades?symbol=BTCUSDT&fromId=1&limit=300")
    assert [row["a"] for row in rows] == list(range(1, 301))
    assert all(after["f"] == before["l"] + 1 for before, after in itertools.pairwise(rows))
    assert list(rows[0]) == ["a", "p", "q", "f", "l", "T", "m", "M"]
    wanted = rows[150]
    found = shared.json(f"/api/v3/aggTrades?symbol=BTCUSDT&startTime={wanted['T']}&endTime={wanted['T']}")
    assert wanted in found
    assert {row["T"] for row in found} == {wanted["T"]}
    trades = shared.json(f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={wanted['f']}&limit=1000")
    own = [tape.to_e8(row["qty"]) for row in trades if row["id"] <= wanted["l"]]
    assert tape.from_e8(sum(own)) == wanted["q"]


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        ("historicalTrades", 400, -1102),
        ("historicalTrades?symbol=", 400, -1105),
        ("historicalTrades?symbol=btcusdt", 400, -1100),
        ("historicalTrades?symbol=NOSUCHUSDT", 400, -1121),
        ("historicalTrades?symbol=BTCUSDT&limit=1001", 400, -1130),
        ("historicalTrades?symbol=BTCUSDT&limit=0", 400, -1130),
        ("historicalTrades?symbol=BTCUSDT&limit=x", 400, -1100),
        ("historicalTrades?symbol=BTCUSDT&fromId=-1", 400, -1100),
        ("historicalTrades?symbol=BTCUSDT&fromID=1", 400, -1104),
        ("trades?symbol=BTCUSDT&fromId=1", 400, -1104),
        ("trades?symbol=BTCUSDT&symbol=ETHUSDT", 400, -1101),
        ("aggTrades?symbol=BTCUSDT&fromId=1&startTime=1", 400, -1128),
        ("exchangeInfo?symbol=NOSUCHUSDT", 400, -1121),
    ],
)
def test_a_wrong_call_gets_binances_code(shared: StandIn, call: str, status: int, code: int) -> None:
    """HTTP 400 with code and msg, and the weight header all the same."""
    answer = shared.get(f"/api/v3/{call}")
    assert (answer.status, answer.body["code"], list(answer.body)) == (status, code, ["code", "msg"])
    assert int(answer.headers["x-mbx-used-weight-1m"]) > 0


def test_an_unknown_call_is_404_and_sql_is_403(shared: StandIn) -> None:
    """The two refusals that are not JSON."""
    assert shared.get("/api/v1/trades?symbol=BTCUSDT").status == 404
    assert shared.get("/api/v3/trades?symbol=BTCUSDT&x=select%20union").status == 403


def test_the_weight_is_counted_and_refused_with_429_then_418() -> None:
    """historicalTrades costs 25, aggTrades 4; over the limit 429 with Retry-After; carrying on brings 418."""
    with StandIn("--weight-limit", "60", "--trades", "10", "--speed", "full") as server:
        if time.time() % exchange_rest.WINDOW_S > exchange_rest.WINDOW_S - 3:
            # The counter starts anew on the minute, so the test does not run across one.
            wait_until(lambda: time.time() % exchange_rest.WINDOW_S < 3)
        weights = [
            int(server.get(f"/api/v3/{call}?symbol=BTCUSDT").headers["x-mbx-used-weight-1m"])
            for call in ("historicalTrades", "aggTrades", "trades")
        ]
        assert weights == [25, 29, 54]
        answers = [server.get("/api/v3/trades?symbol=BTCUSDT") for _ in range(exchange_rest.BAN_AFTER + 2)]
        state = server.state()
    assert [answer.status for answer in answers] == [429] * exchange_rest.BAN_AFTER + [418] * 2
    assert all(answer.body["code"] == -1003 for answer in answers)
    assert 1 <= int(answers[0].headers["retry-after"]) <= 60
    assert 60 < int(answers[-1].headers["retry-after"]) <= 120
    assert "IP banned until" in answers[-1].body["msg"]
    assert state["too_early"]["rest"] == len(answers) - 1


@pytest.mark.parametrize(("second", "expected"), [(119.9, (429, 1)), (120.0, None)])
def test_the_weight_window_is_the_minute_of_the_clock(second: float, expected: tuple[int, int] | None) -> None:
    """What was used before the minute's end no longer counts after it."""
    weight = exchange_rest.Weight(100)
    assert weight.take(100, 60.5) is None
    assert weight.take(25, second) == expected


def test_bans_grow() -> None:
    """Each ban is twice as long as the one before, to three days."""
    weight = exchange_rest.Weight(1)
    lengths = []
    now_s = 0.0
    for _ in range(14):
        answer = None
        while answer is None or answer[0] == 429:
            answer = weight.take(2, now_s)
        lengths.append(answer[1])
        now_s = weight.banned_until_s + 60
    assert lengths[:3] == [120, 240, 480]
    assert lengths[-1] == 3 * 86400


# The truth.


def test_the_truth_equals_what_every_client_received(tmp_path: Path) -> None:
    """At full speed, two clients get every trade in order, and file, listing and hash agree with the frames."""
    path = tmp_path / "truth.ndjson"
    flags = ["--speed", "full", "--trades", "20000", "--wait-clients", "2", "--truth", str(path)]
    with StandIn(*flags) as server:
        first, second = server.connect(), server.connect("/ws/ethusdt@trade?timeUnit=MICROSECOND")
        received = payloads(first, 20_000)
        truth = {symbol: server.truth(symbol) for symbol in ("BTCUSDT", "ETHUSDT")}
        micro = [json.loads(second.recv()) for _ in truth["ETHUSDT"]]
        summaries = server.json("/_truth")
        server.stop()
    for symbol, lines in truth.items():
        got = [(data["t"], data["p"], data["q"], data["T"], data["m"]) for data in received if data["s"] == symbol]
        assert got == [
            (line["id"], line["price"], line["quantity"], line["time_us"] // 1000, line["maker"]) for line in lines
        ]
    assert [(data["t"], data["T"]) for data in micro] == [(line["id"], line["time_us"]) for line in truth["ETHUSDT"]]
    for summary in summaries:
        mine = [line for line in path.read_text().splitlines(True) if f'"{summary["symbol"]}"' in line]
        assert hashlib.sha256("".join(mine).encode()).hexdigest() == summary["sha256"]
        assert (len(mine), json.loads(mine[-1])["id"]) == (summary["count"], summary["last_id"])


def test_the_virtual_clock_makes_two_runs_equal() -> None:
    """Seed and rate alone decide about the tape: the hashes of two runs are the same, another seed's is not."""

    def hashes(seed: str) -> list[str]:
        with StandIn("--clock", "virtual", "--speed", "full", "--trades", "2000", "--seed", seed) as server:
            wait_until(lambda: bool(server.state()["tape"] == "ended"))
            return [summary["sha256"] for summary in server.json("/_truth")]

    assert hashes("3") == hashes("3") != hashes("4")


def test_what_is_traded_without_listeners_is_in_the_truth_and_in_rest(shared: StandIn) -> None:
    """Nothing waits for a client on the synthetic tape."""
    first = shared.json("/_truth?symbol=BTCUSDT")["count"]
    wait_until(lambda: bool(shared.json("/_truth?symbol=BTCUSDT")["count"] > first))
    assert shared.json("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=4000000001&limit=1")[0]["id"] == 4_000_000_001


# Replay.


def lines_of(count: int) -> list[bytes]:
    """A recorded tape of the project's own making: an old key order, odd spacing, and messages that are no trades."""
    market = tape.Synthetic([tape.spec_of("BTCUSDT"), tape.spec_of("ETHUSDT")], 9, 50, [500, 500])
    frames = [
        frame for order, _ in zip(market.orders(), range(count), strict=False) for frame in order.frames(10**15, 10**15)
    ]
    lines = [frame.text(tape.Form(True, False)).replace(b'"M":true', b'"M":true , "b":1') for frame in frames]
    return [*lines[:10], b'{"result":null,"id":1}', *lines[10:]]


@pytest.mark.parametrize("suffix", [".ndjson", ".ndjson.gz"])
def test_replayed_bytes_are_the_recorded_ones(tmp_path: Path, suffix: str) -> None:
    """Every line of the file arrives untouched; `--after-end exit` says goodbye and ends."""
    path, lines = tmp_path / f"tape{suffix}", lines_of(200)
    content = b"".join(b"%d %b\n" % (10**18 + n, line) for n, line in enumerate(lines))
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    with StandIn("--replay", str(path), "--speed", "full", "--after-end", "exit") as server:
        connection = server.connect(BOTH + "&timeUnit=MICROSECOND")
        received = [frame_of(connection).data for _ in lines]
        assert closed_with(connection)[0] == 1001
        connection.close()
        code, out, _ = server.ended()
    assert received == lines
    assert code == 0
    assert f"the tape has ended: {len(lines) - 1} trades" in out


def test_a_replay_waits_for_its_clients_and_keeps_its_pace(tmp_path: Path) -> None:
    """Nothing is sent before N clients listen; a tape of 40 s takes half a second at eighty times its speed."""
    path, lines = tmp_path / "tape.ndjson", lines_of(30)[:10]
    path.write_bytes(b"".join(b"%d %b\n" % (n * 40 * 10**9 // 9, line) for n, line in enumerate(lines)))
    with StandIn("--replay", str(path), "--speed", "80", "--wait-clients", "2") as server:
        first = server.connect()
        assert server.state()["tape"] == "waiting"
        began = time.monotonic()
        server.connect("/ws/ethusdt@trade")
        received = [frame_of(first).data for _ in lines]
        assert 0.5 <= time.monotonic() - began < WAIT_S_MAX
        assert server.json("/_truth?symbol=BTCUSDT")["history_count"] == 0
    assert received == lines


def test_a_torn_replay_file_ends_with_one_line(tmp_path: Path) -> None:
    """What can be read is sent; then the file and the line are named, exit code 2."""
    path = tmp_path / "tape.ndjson"
    path.write_bytes(b"1 " + lines_of(5)[0] + b"\nnonsense\n")
    with StandIn("--replay", str(path), "--speed", "full", "--wait-clients", "0") as server:
        code, _, err = server.ended()
    assert code == 2
    assert "tape.ndjson, line 2" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.skipif(not REAL_TAPE.exists(), reason=f"the recorded tape is not here: {REAL_TAPE}")
def test_the_recorded_tape_is_replayed_exactly() -> None:
    """15,836 real frames at full speed, byte for byte."""
    with gzip.open(REAL_TAPE) as file:
        lines = [line.rstrip(b"\n").partition(b" ")[2] for line in file]
    with StandIn("--replay", str(REAL_TAPE), "--speed", "full") as server:
        connection = server.connect()
        assert [frame_of(connection).data for _ in lines] == lines
        assert [(summary["symbol"], summary["count"]) for summary in server.json("/_truth")] == [
            ("BTCUSDT", 9738),
            ("ETHUSDT", 6098),
        ]
