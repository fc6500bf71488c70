"""The replay of stored trades: what a client of Binance sees of them, by streams and by REST."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import websocket
from hypothesis import given
from hypothesis import strategies as some

import config
import db
from model.times import EPOCH, MILLISECOND
from model.trade import Trade
from process import retry
from process.child import ROOT
from storage import pages
from tests.support.child import Child, wait_until
from tests.support.servers import Server
from tests.support.stand_in import StandIn
from tests.support.tables import ask, check, plain_bars, runs, stored
from tools.exchange import stored as stored_trades
from tools.exchange.__main__ import main
from tools.exchange.stored import Reader, rising

pytestmark = pytest.mark.slow

BEGIN = datetime(2025, 3, 1, 12, 0, 58, tzinfo=UTC)
DOCUMENT = ROOT / "docs" / "replay.md"
MISSING = {"BTCUSDT": {*range(40, 45), 333}, "ETHUSDT": {7}}
RUN_S_MAX = 60.0


def made(symbol: str, count: int, first: int = 1) -> list[Trade]:
    """Trades of about four seconds, of which many share a millisecond or an order, some run back in time, and some are
    missing."""
    chosen, at_ms, trades = Random(symbol), 0.0, list[Trade]()
    price, maker = Decimal(61_837), True
    for number in range(first, first + count):
        if chosen.random() < 0.4:
            at_ms += chosen.expovariate(count / 4_000 / 2.5)
            maker, price = chosen.random() < 0.5, Decimal(chosen.randint(1, 10**7)).scaleb(-2)
        back_ms = 30 if chosen.random() < 0.02 else 0
        when = BEGIN + (int(at_ms) + 100 - back_ms) * MILLISECOND
        size = Decimal(chosen.randint(1, 10**9)).scaleb(-8)
        trades.append(Trade(symbol, when, number, price, size, maker, when + timedelta(microseconds=2_345)))
    return [trade for trade in trades if trade.trade_id not in MISSING[symbol]]


BTC, ETH = made("BTCUSDT", 700), made("ETHUSDT", 200, 1)


class Replay(StandIn):
    """A running replay of a database."""

    def __init__(self, environ: dict[str, str], *flags: str) -> None:
        Child.__init__(self, "tools.exchange", environ, "--replay-table", *flags)
        words = self.first_line.split() or ["", "", ""]
        self.ws, self.http = words[1], words[2]


@contextmanager
def database(server: Server, folder: Path) -> Iterator[tuple[str, config.Settings]]:
    """The name of a new database, and its settings."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield name, server.settings(name, folder)
    with closing(server.connect()) as plain:
        ask(plain, f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture(scope="module")
def environ(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of a database with BTC and ETH."""
    folder = tmp_path_factory.mktemp("replay")
    with database(server, folder) as (name, settings):
        with closing(db.connect(settings)) as connection:
            db.insert_trades(connection, [*BTC, *ETH])
        yield server.environ | {"MYSQL_DATABASE": name, "DATA_DIR": str(folder)}


@pytest.fixture(scope="module")
def over(environ: dict[str, str]) -> Iterator[Replay]:
    """A replay that is over, and goes on answering REST."""
    with Replay(environ, "--speed", "max", "--after-end", "stay", "--wait-clients", "0") as running:
        wait_until(lambda: running.state()["tape"] == "ended")
        yield running


def ms_of(when: datetime) -> int:
    """Milliseconds since 1970."""
    return (when - EPOCH) // MILLISECOND


def frame(trade: Trade) -> str:
    """The trade as Binance writes it on a raw stream."""
    at, maker = ms_of(trade.timestamp), "true" if trade.buyer_is_maker else "false"
    return (
        f'{{"e":"trade","E":{at},"s":"{trade.symbol}","t":{trade.trade_id},"p":"{trade.price:.8f}",'
        f'"q":"{trade.quantity:.8f}","T":{at},"m":{maker},"M":true}}'
    )


def row(trade: Trade) -> dict[str, Any]:
    """The trade as historicalTrades has it."""
    return {
        "id": trade.trade_id,
        "price": f"{trade.price:.8f}",
        "qty": f"{trade.quantity:.8f}",
        "quoteQty": f"{int(trade.price * trade.quantity * 10**8) / Decimal(10**8):.8f}",
        "time": ms_of(trade.timestamp),
        "isBuyerMaker": trade.buyer_is_maker,
        "isBestMatch": True,
    }


def unreceived(trade: Trade) -> Trade:
    """The trade without the time of receipt."""
    return trade._replace(received_at=None)


def read(connection: websocket.WebSocket) -> tuple[list[str], int]:
    """The frames until the end, and the code that it ends with."""
    frames: list[str] = []
    while True:
        opcode, data = connection.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return frames, int.from_bytes(data[:2], "big")
        frames.append(data.decode())


def test_a_raw_stream_is_the_table_by_id(environ: dict[str, str]) -> None:
    """Byte by byte as Binance prints it, by rising id, with holes where ids are missing; then a close, code 0 and a
    line."""
    with Replay(environ, "--speed", "max") as replay:
        frames, code = read(replay.connect("/ws/btcusdt@trade"))
        ended = replay.ended()

    assert frames == [frame(trade) for trade in BTC]
    assert code == 1001
    assert ended[0] == 0
    assert ended[1].startswith(f"the tape has ended: {len(BTC) + len(ETH)} trades")


def test_combined_streams_are_in_order_of_time(environ: dict[str, str]) -> None:
    """Both symbols, each by rising id, with the stream's name; SUBSCRIBE while it waits starts it."""
    with Replay(environ, "--speed", "max") as replay:
        connection = replay.connect("/stream")
        connection.send(
            json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@trade", "ethusdt@trade"], "id": str(uuid.uuid4())})
        )
        assert json.loads(connection.recv())["result"] is None
        frames = [json.loads(text) for text in read(connection)[0]]

    of = {name: [one["data"]["t"] for one in frames if one["stream"] == f"{name.lower()}@trade"] for name in MISSING}
    times = [one["data"]["T"] for one in frames]
    assert of == {"BTCUSDT": [trade.trade_id for trade in BTC], "ETHUSDT": [trade.trade_id for trade in ETH]}
    # But for the few that run back in time within their symbol.
    assert all(after - before >= -30 for before, after in pairwise(times))


def test_the_distances_are_those_of_the_times(environ: dict[str, str]) -> None:
    """Ten times faster: no trade comes early, and the machine's delays do not add up."""
    with Replay(environ, "--speed", "10", "--symbols", "BTCUSDT") as replay:
        began_s = time.monotonic()
        connection, arrivals = replay.connect("/ws/btcusdt@trade"), list[tuple[float, int]]()
        for _ in BTC:
            text = connection.recv()
            arrivals.append((time.monotonic(), json.loads(text)["T"]))
    first_s, first_ms = arrivals[0]
    late_s = sorted(at - first_s - (ms - first_ms) / 10_000 for at, ms in arrivals if ms >= first_ms)

    # The first one may be late itself, so that what comes early is counted from before it could be sent.
    assert late_s[0] + first_s - began_s > -0.02
    assert late_s[len(late_s) // 2] < 0.5
    assert BTC[-1].timestamp - BTC[0].timestamp > timedelta(seconds=3)


def test_rest_has_every_stored_trade(over: Replay) -> None:
    """historicalTrades page by page, from an id that is missing too; trades: the newest; microseconds on request."""
    found, first = list[Any](), 1
    while page := over.json(f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={first}&limit=150"):
        found += page
        first = page[-1]["id"] + 1
    assert found == [row(trade) for trade in BTC]
    assert over.json("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=41&limit=2") == [row(one) for one in BTC[39:41]]
    by_id = [row(trade) for trade in BTC]
    # The newest by time, as they are read, in order of their ids.
    newest = over.json("/api/v3/trades?symbol=BTCUSDT&limit=1000")
    assert newest == by_id
    micro = over.json("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1&limit=1", micro=True)
    assert micro[0]["time"] == ms_of(BTC[0].timestamp) * 1000
    assert over.get("/data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-2025-03-01.zip").status == 404
    assert over.get("/api/v3/trades?symbol=XRPUSDT").status == 400


def groups(trades: Sequence[Trade]) -> list[list[Trade]]:
    """Trades of one order at one price, with consecutive ids."""
    keyed = [(trade, (trade.timestamp, trade.price, trade.buyer_is_maker)) for trade in trades]
    whole = [[one for one, _ in group] for _, group in groupby(keyed, key=lambda pair: pair[1])]
    found: list[list[Trade]] = []
    for group in whole:
        for trade in group:
            if found and trade is not group[0] and found[-1][-1].trade_id + 1 == trade.trade_id:
                found[-1].append(trade)
            else:
                found.append([trade])
    return found


def test_aggregates_are_those_of_the_trades(over: Replay) -> None:
    """From an id, from a time, in a range, the newest; their ids are those of their first trades."""
    expected: list[dict[str, Any]] = [
        {
            "a": group[0].trade_id,
            "p": f"{group[0].price:.8f}",
            "q": f"{sum(trade.quantity for trade in group):.8f}",
            "f": group[0].trade_id,
            "l": group[-1].trade_id,
            "T": ms_of(group[0].timestamp),
            "m": group[0].buyer_is_maker,
            "M": True,
        }
        for group in groups(BTC)
    ]
    ask_for = "/api/v3/aggTrades?symbol=BTCUSDT&limit="
    assert len(expected) < len(BTC) - 100
    assert over.json(f"{ask_for}1000&fromId=0") == expected
    assert over.json(f"{ask_for}3") == expected[-3:]
    inside = next(one for one in expected if one["l"] > one["f"])
    after = expected[expected.index(inside) + 1 :]
    assert over.json(f"{ask_for}4&fromId={inside['f'] + 1}") == after[:4]
    start, end = expected[0]["T"] + 500, expected[0]["T"] + 900
    ranged = over.json(f"{ask_for}1000&startTime={start}&endTime={end}")
    assert ranged
    assert {one["a"] for one in ranged} <= {one["a"] for one in expected}
    assert all(start - 30 <= one["T"] <= end for one in ranged)
    assert over.json(f"{ask_for}5&startTime={10**18}") == []


@pytest.mark.parametrize(("interval", "seconds"), [("1s", 1), ("1m", 60), ("5m", 300), ("1d", 86_400)])
def test_klines_are_those_of_the_trades(over: Replay, interval: str, seconds: int) -> None:
    """Exact, sealed bars and the running one alike; a period without trades repeats the close."""
    rows = over.json(f"/api/v3/klines?symbol=BTCUSDT&interval={interval}")
    expected = [
        [
            ms_of(bar.timestamp),
            *(f"{value:.8f}" for value in (bar.open, bar.high, bar.low, bar.close, bar.volume)),
            ms_of(bar.timestamp) + seconds * 1_000 - 1,
            f"{int(bar.quote_volume * 10**8) / Decimal(10**8):.8f}",
            bar.trades,
            f"{bar.taker_buy_volume:.8f}",
            f"{int(bar.taker_buy_quote_volume * 10**8) / Decimal(10**8):.8f}",
            "0",
        ]
        for bar in plain_bars(BTC, seconds)
    ]
    assert rows == expected


def test_the_ticker_and_the_clock(over: Replay) -> None:
    """The sums of the last day, and the time at which the tape has ended."""
    (bar,) = plain_bars(BTC, 86_400)
    ticker = over.json("/api/v3/ticker/24hr?symbol=BTCUSDT")
    last = max(trade.timestamp for trade in [*BTC, *ETH])

    assert (ticker["count"], ticker["firstId"], ticker["lastId"]) == (len(BTC), 1, 700)
    assert (ticker["lastPrice"], ticker["volume"]) == (f"{bar.close:.8f}", f"{bar.volume:.8f}")
    assert over.json("/api/v3/time") == {"serverTime": ms_of(last) + 1}
    assert [one["symbol"] for one in over.json("/api/v3/exchangeInfo")["symbols"]] == ["BTCUSDT", "ETHUSDT"]


def test_nothing_is_shown_before_it_has_happened(environ: dict[str, str]) -> None:
    """While it waits for a client, REST has what is from before --start and nothing else."""
    start = BEGIN + timedelta(seconds=2)
    before = [trade for trade in BTC if trade.timestamp < start]
    with Replay(environ, "--start", start.isoformat(), "--speed", "max", "--after-end", "stay") as replay:
        waiting = replay.json("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1&limit=1000")
        (day,) = replay.json("/api/v3/klines?symbol=BTCUSDT&interval=1d")
        clock = replay.json("/api/v3/time")["serverTime"]
        connection = replay.connect("/ws/btcusdt@trade")
        first = json.loads(connection.recv())
        wait_until(lambda: replay.state()["tape"] == "ended")
        after = replay.json("/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1&limit=1000")

    assert waiting[:-30] == [row(trade) for trade in BTC[: len(waiting) - 30]]
    assert {one["id"] for one in waiting} <= {trade.trade_id for trade in before}
    assert len(waiting) > len(before) - 30
    assert day[8] == len(waiting)
    assert clock == ms_of(start)
    assert first["T"] >= ms_of(start)
    assert after == [row(trade) for trade in BTC]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--start", "2025-03-01"], "give that too"),
        (["--replay-table", "--symbols", "XRPUSDT"], "no trade of XRPUSDT is stored in database"),
        (["--replay-table", "--symbols", "BTC USDT"], "--symbols"),
        (["--replay-table", "--start", "2025-03-01T13:00", "--end", "2025-03-01T12:00"], "is not before --end"),
        (
            ["--replay-table", "--start", "2025-03-02", "--end", "2025-03-03"],
            "is stored from --start 2025-03-02T00:00:00.000Z",
        ),
        (["--replay-table", "--start", "yesterday"], "is not a time"),
        (["--replay-table", "--speed", "0"], "--speed"),
        (["--replay-table", "--seed", "3"], "--seed is not for --replay-table"),
        (["--replay-table", "--rest-lag", "3"], "--rest-lag is not for --replay-table"),
        (["--replay-table", "--days", "3"], "--days is not for --replay-table"),
    ],
)
def test_a_mistake_is_one_line(
    environ: dict[str, str],
    flags: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And exit code 2."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    try:
        code: object = main(["--port", "0", *flags])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_capture_of_a_replay_has_the_same_rows(environ: dict[str, str], server: Server, tmp_path: Path) -> None:
    """Our own capture, pointed at it: each row but for the time of receipt, and the gaps as holes."""
    with (
        database(server, tmp_path) as (name, settings),
        Replay(environ, "--speed", "5", "--after-end", "stay") as replay,
        closing(db.connect(settings)) as connection,
    ):
        addresses = {"BINANCE_WS_URL": replay.ws, "BINANCE_REST_URL": replay.http, "BINANCE_ARCHIVE_URL": replay.http}
        mine = server.environ | addresses | {"MYSQL_DATABASE": name, "DATA_DIR": str(tmp_path / "data")}
        with subprocess.Popen(
            [sys.executable, "ws_client.py"],
            cwd=ROOT,
            env=os.environ | mine,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as capture:
            try:
                wait_until(lambda: len(stored(connection)) == len(BTC), RUN_S_MAX)
                wait_until(lambda: len(stored(connection, "ETHUSDT")) == len(ETH), RUN_S_MAX)
            finally:
                capture.send_signal(signal.SIGTERM)
            _, err = capture.communicate(timeout=RUN_S_MAX)
        assert capture.returncode == 0, err
        for symbol, trades in (("BTCUSDT", BTC), ("ETHUSDT", ETH)):
            found = sorted(stored(connection, symbol), key=lambda trade: trade.trade_id)
            assert [one._replace(received_at=None) for one in found] == [
                one._replace(received_at=None) for one in trades
            ]
            check(connection, symbol)
        assert runs(connection) == [(40, 44), (333, 333)]
        assert runs(connection, "ETHUSDT") == [(7, 7)]


def test_the_library_of_the_page(environ: dict[str, str], tmp_path: Path) -> None:
    """The block of docs/replay.md, run with Binance's own library, prints each stored row."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    with Replay(environ, "--speed", "10", "--after-end", "stay") as replay:
        script = tmp_path / "read.py"
        script.write_text(code.replace("http://127.0.0.1:8765", replay.http).replace("ws://127.0.0.1:8765", replay.ws))
        done = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, timeout=RUN_S_MAX, check=False
        )
    assert done.returncode == 0, done.stderr
    rows = [
        f"{one.trade_id} {ms_of(one.timestamp)} {one.price:.8f} {one.quantity:.8f} {one.buyer_is_maker}" for one in BTC
    ]
    assert done.stdout.splitlines() == [f"trade {text}" for text in rows] + [f"older {text}" for text in rows]


@given(
    steps=some.lists(some.tuples(some.integers(0, 400), some.integers(0, 990)), min_size=1, max_size=60),
    size=some.integers(1, 9),
)
def test_pages_by_time_become_ids_in_order(steps: list[tuple[int, int]], size: int) -> None:
    """Whatever the pages are cut at, if times run back by less than a second."""
    at, trades = BEGIN, list[Trade]()
    for number, (ahead, back) in enumerate(steps, 1):
        at += ahead * MILLISECOND
        trades.append(Trade("BTCUSDT", at - back * MILLISECOND, number, Decimal(1), Decimal(1), True))
    by_time = sorted(trades, key=lambda trade: trade[1:3])

    def page(after: pages.Place | None) -> list[Trade]:
        rest = [trade for trade in by_time if after is None or pages.place_of(trade) > after]
        return rest[:size]

    assert [trade for part in rising(page, size) for trade in part] == trades


def test_a_database_that_comes_back_is_asked_again(
    environ: dict[str, str], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bounded number of times."""
    monkeypatch.setattr(retry, "BACKOFF_S_MIN", 0.001)
    monkeypatch.setattr(retry, "BACKOFF_S_MAX", 0.002)
    reader = Reader(server.settings(environ["MYSQL_DATABASE"], Path(environ["DATA_DIR"])))
    tries = [0]

    def question(connection: db.Connection) -> list[str]:
        tries[0] += 1
        if tries[0] < 3 or tries[0] > 10:
            raise db.GoneError("the server has gone away")
        return db.symbols(connection)

    assert reader.ask(question) == ["BTCUSDT", "ETHUSDT"]
    tries[0] = 10
    with pytest.raises(db.GoneError):
        reader.ask(question)
    assert tries[0] == 10 + stored_trades.TRIES_MAX
    reader.close()
