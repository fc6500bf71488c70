"""The stream of new trades over real sockets: nothing is lost and nothing sent twice, whatever happens to a client."""

import asyncio
import http.client
import time
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count, pairwise
from pathlib import Path
from typing import cast

import pytest

import config
import db
from model.trade import Trade
from tests.support.child import wait_until
from tests.support.servers import Server
from tests.support.serving import Api, Event, Stream, serving
from tests.support.tables import age, ask
from tools.api import feed, hub, symbol_feed
from tools.api import stream as api_stream
from tools.api.cursor import Seen
from tools.api.hub import Begin, Listener, Trades, Word
from tools.api.sessions import Sessions
from tools.api.shapes import Status

pytestmark = pytest.mark.slow

NAME = "test_stream"
_fresh = (f"NEW{number}" for number in count())


class Tape:
    """A symbol of a test's own, and what is stored of it."""

    def __init__(self, connection: db.Connection) -> None:
        self.symbol = next(_fresh)
        self._connection = connection
        self._begin = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)

    def store(self, *ids: int) -> None:
        """Stores trades with these ids, one each 10 ms from five minutes ago on; the price is the id."""
        db.insert_trades(self._connection, [self.trade(number) for number in ids])

    def trade(self, number: int) -> Trade:
        """The trade with that id."""
        when = self._begin + timedelta(milliseconds=10 * number)
        return Trade(self.symbol, when, number, Decimal(number), Decimal(1), False, when + timedelta(milliseconds=7))


@pytest.fixture(scope="module")
def connection(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[db.Connection]:
    """A connection to the database of all these tests."""
    opened = db.connect(server.settings(NAME, tmp_path_factory.mktemp("stream")))
    yield opened
    ask(opened, f"DROP DATABASE {NAME}")
    db.close(opened)


@pytest.fixture(scope="module")
def running(server: Server, connection: db.Connection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API of that database."""
    environ = server.environ | {"MYSQL_DATABASE": NAME, "DATA_DIR": str(tmp_path_factory.mktemp("api"))}
    with serving(environ) as api:
        wait_until(lambda: api.get("/api/symbols").status == 200)
        yield api


@pytest.fixture
def api(running: Api) -> Iterator[Api]:
    """The same, without the streams of the test when it ends."""
    yield running
    running.hang_up()


@pytest.fixture
def tape(connection: db.Connection) -> Tape:
    """A symbol with three trades."""
    found = Tape(connection)
    found.store(1, 2, 3)
    return found


def begun(api: Api, tape: Tape, last_id: str | None = None, mode: str = "trades") -> Stream:
    """A stream of that symbol that has begun."""
    stream = api.stream(tape.symbol, mode, last_id)
    if last_id is None:
        stream.next("begin")
    return stream


def test_every_new_trade(api: Api, tape: Tape) -> None:
    """With all of its columns, in the order of the ids; what was stored before is not sent."""
    stream = begun(api, tape)
    tape.store(4, 5)
    tape.store(6)
    first = stream.next("trade")
    wanted = tape.trade(4)
    assert wanted.received_at is not None

    assert first.data == {
        "symbol": tape.symbol,
        "trade_id": 4,
        "timestamp": f"{wanted.timestamp:%Y-%m-%dT%H:%M:%S}.{wanted.timestamp.microsecond // 1000:03}Z",
        "price": "4.00000000",
        "quantity": "1.00000000",
        "buyer_is_maker": False,
        "received_at": f"{wanted.received_at:%Y-%m-%dT%H:%M:%S}.{wanted.received_at.microsecond // 1000:03}Z",
    }
    assert first.id == f"{tape.symbol}:4"
    assert stream.ids(2) == [5, 6]


def test_a_symbol_whose_first_trade_is_still_to_come(server: Server, tmp_path: Path) -> None:
    """A symbol that is to be captured can be listened to before anything is stored of it."""
    settings = server.settings("test_first", tmp_path)
    environ = server.environ | {"MYSQL_DATABASE": "test_first", "DATA_DIR": str(tmp_path), "SYMBOLS": "SOON"}
    connection = db.connect(settings)
    try:
        with serving(environ) as api:
            wait_until(lambda: api.get("/api/symbols").status == 200)
            stream = api.stream("SOON")
            stream.next("begin")
            now = datetime.now(UTC).replace(microsecond=0)
            db.insert_trades(connection, [Trade("SOON", now, 7, Decimal(1), Decimal(1), True)])
            assert stream.ids(1) == [7]
    finally:
        ask(connection, "DROP DATABASE test_first")
        db.close(connection)


@pytest.mark.parametrize("missed", [0, 1, 2_500])
def test_coming_back(api: Api, tape: Tape, missed: int) -> None:
    """What was stored while a client was away comes first, however much it is, then what is new."""
    stream = begun(api, tape)
    tape.store(4, 5)
    assert stream.ids(2) == [4, 5]
    stream.close()
    away = range(6, 6 + missed)
    tape.store(*away)
    stream = begun(api, tape, stream.last_id)
    new = range(6 + missed, 10 + missed)
    tape.store(*new)

    assert stream.ids(missed + 4) == [*away, *new]


def test_coming_back_again_and_again(api: Api, tape: Tape) -> None:
    """Cut after any event, while trades are stored: each trade comes exactly once."""
    stream, found, stored = begun(api, tape), [], 3
    for number in range(12):
        tape.store(*range(stored + 1, stored + 8))
        stored += 7
        found += stream.ids(1 + number % 5)
        stream.close()
        stream = begun(api, tape, stream.last_id)
    found += stream.ids(stored - 3 - len(found))

    assert found == [*range(4, stored + 1)]


def test_a_gap_that_is_filled_later(api: Api, connection: db.Connection, tape: Tape) -> None:
    """Its trades are sent when they are stored, below the ids that were sent already, and once only."""
    stream = begun(api, tape)
    tape.store(4, 8, 9)
    assert stream.ids(3) == [4, 8, 9]
    assert stream.last_id == f"{tape.symbol}:9;5-7"
    age(connection)
    tape.store(5, 7)
    assert stream.ids(2) == [5, 7]
    tape.store(6, 10)

    assert sorted(stream.ids(2)) == [6, 10]
    assert stream.last_id == f"{tape.symbol}:10"


def test_a_gap_that_is_filled_while_the_client_is_away(api: Api, connection: db.Connection, tape: Tape) -> None:
    """The id of the last event says what was missing then; what is still missing comes when it is stored."""
    stream = begun(api, tape)
    tape.store(4, 10)
    stream.ids(2)
    stream.close()
    age(connection)
    tape.store(7, 8, 11)
    stream = begun(api, tape, stream.last_id)

    assert stream.ids(3) == [7, 8, 11]
    tape.store(5, 6, 9)
    assert stream.ids(3) == [5, 6, 9]


def test_an_id_that_comes_a_little_late(api: Api, tape: Tape) -> None:
    """Two connections of a capture can bring trades out of order, which leaves no record of a gap."""
    stream = begun(api, tape)
    tape.store(5)
    assert stream.ids(1) == [5]
    tape.store(4)

    assert stream.ids(1) == [4]


def test_a_client_from_another_database(api: Api, tape: Tape) -> None:
    """Its last event is newer than what is stored: it is told, and the stream begins anew."""
    stream = begun(api, tape, f"{tape.symbol}:999")
    reset = stream.next("reset", "trade")
    tape.store(4)

    assert (reset.name, reset.data["symbol"]) == ("reset", tape.symbol)
    assert stream.ids(1) == [4]


@pytest.mark.parametrize("wrong", ["hello", "A:5;9-3", "A:1" * 6_000])
def test_a_wrong_last_event_id(api: Api, tape: Tape, wrong: str) -> None:
    """422, which names the header."""
    reply = api.get("/api/stream", {"Last-Event-ID": wrong})

    assert reply.status == 422
    assert reply.body["errors"][0]["loc"][1].lower() == "last-event-id"


def test_ticks(api: Api, tape: Tape) -> None:
    """First how things are; then, several trades in one, how many, their extremes, the newest and the candles."""
    stream = api.stream(tape.symbol, "ticks")
    first = stream.next("tick").data
    stream.next("begin")
    tape.store(*range(4, 40))
    ticks = [stream.next("tick")]
    while ticks[-1].data["latest"]["trade_id"] < 39:
        ticks.append(stream.next("tick"))

    assert (first["count"], first["low"], first["latest"]["trade_id"]) == (0, None, 3)
    assert [one["trade_id"] for one in first["tape"]] == [3, 2, 1]
    assert sum(tick.data["count"] for tick in ticks) == 36
    assert (ticks[0].data["low"], ticks[-1].data["high"]) == ("4.00000000", "39.00000000")
    assert ticks[-1].id == f"{tape.symbol}:39"
    assert ticks[-1].data["lag_ms"] == 7
    assert list(ticks[-1].data["candles"]) == ["1s", "1m", "5m", "15m", "1h", "4h", "1d"]
    assert {bars[-1]["close"] for bars in ticks[-1].data["candles"].values()} == {"39.00000000"}


def ticks_until(stream: Stream, trade_id: int) -> list[Event]:
    """The ticks up to that of the trade with that id."""
    ticks = [stream.next("tick")]
    while ticks[-1].data["latest"]["trade_id"] < trade_id:
        ticks.append(stream.next("tick"))
    return ticks


@pytest.mark.parametrize("mode", ["ticks", "trades"])
def test_candles_grow_by_what_is_stored_late(api: Api, connection: db.Connection, tape: Tape, mode: str) -> None:
    """A gap that is filled in part, then whole; whether or not somebody is told of each trade."""
    others = begun(api, tape) if mode == "trades" else None
    stream = begun(api, tape, mode="ticks")
    tape.store(4, 9)
    age(connection)
    ticks_until(stream, 9)
    tape.store(5)
    highest = grown(stream, tape, from_id=10, late=3)
    tape.store(6, 7, 8)
    highest = grown(stream, tape, from_id=highest + 1, late=0)
    if others:
        assert sorted(others.ids(highest - 3))[:6] == [4, 5, 6, 7, 8, 9]


def grown(stream: Stream, tape: Tape, from_id: int, late: int) -> int:
    """Stores trades from that id on until the candle of the day in a tick has all of them but `late`; the last id."""
    for number in range(from_id, from_id + 100):
        tape.store(number)
        if ticks_until(stream, number)[-1].data["candles"]["1d"][-1]["trades"] == number - late:
            return number
        time.sleep(0.05)
    raise AssertionError("what was stored late is in no candle")


def test_ticks_after_coming_back(api: Api, tape: Tape) -> None:
    """What was missed is counted, with its extremes."""
    stream = begun(api, tape, mode="ticks")
    stream.close()
    tape.store(*range(4, 1_604))
    ticks = [tick.data for tick in ticks_until(begun(api, tape, f"{tape.symbol}:3", "ticks"), 1_603)]
    prices = [Decimal(tick[name]) for tick in ticks for name in ("low", "high") if tick[name] is not None]

    assert sum(tick["count"] for tick in ticks) == 1_600
    assert (min(prices), max(prices)) == (Decimal(4), Decimal(1_603))


def test_ticks_count_each_trade_once(api: Api, tape: Tape) -> None:
    """However often the client is cut, while another one goes on listening."""
    other, stream, counted, stored = begun(api, tape, mode="ticks"), begun(api, tape, mode="ticks"), 0, 3
    for number in range(8):
        tape.store(*range(stored + 1, stored + 8))
        stored += 7
        if number % 2:
            counted += sum(tick.data["count"] for tick in ticks_until(stream, stored))
        stream.close()
        stream = begun(api, tape, stream.last_id, "ticks")
    counted += sum(tick.data["count"] for tick in ticks_until(stream, stored))

    assert counted == stored - 3
    assert sum(tick.data["count"] for tick in ticks_until(other, stored)) == stored - 3


def test_status(api: Api, connection: db.Connection, tape: Tape) -> None:
    """Each second: what is missing, and the prices of a minute, an hour and a day before."""
    older = tape.trade(3)._replace(timestamp=tape.trade(3).timestamp - timedelta(minutes=2), trade_id=1)
    other = Tape(connection)
    db.insert_trades(connection, [one._replace(symbol=other.symbol) for one in (older, tape.trade(3))])
    stream = api.stream(other.symbol, "ticks")
    status = stream.next("status").data
    # One that was made before the stream began, for those who listened then, knows nothing of its symbols.
    while other.symbol not in status["symbols"]:
        status = stream.next("status").data
    one = status["symbols"][other.symbol]

    assert (status["database"], status["database_name"], status["demo"]) == (True, NAME, False)
    assert (one["open_gaps"], one["missing"], one["latest"][-1]) == (1, 1, "Z")
    assert (one["before"]["1m"]["trade_id"], one["before"]["1h"], one["before"]["24h"]) == (1, None, None)


def test_twenty_dashboards_ask_the_database_no_more_than_one(api: Api, server: Server, tape: Tape) -> None:
    """The server's own count of questions while one listens, and while twenty do."""

    def asked() -> list[int]:
        """The questions from a status to the next, each of which follows as many looks, or fewer on a busy machine."""
        with server.connect() as plain:
            counts = []
            for _ in range(5):
                streams[-1].next("status")
                counts.append(int(ask(plain, "SHOW GLOBAL STATUS LIKE 'Questions'")[0][1]))
        # The first status may have waited.
        return [after - before for before, after in pairwise(counts[1:])]

    streams = [begun(api, tape, mode="ticks")]
    alone = max(asked())
    streams += [begun(api, tape, mode="ticks") for _ in range(19)]
    together = min(asked())

    assert alone > 5
    assert together < alone * 1.5


def test_nobody_listens(api: Api, server: Server) -> None:
    """Then the database is not asked at all."""
    api.hang_up()

    def questions() -> int:
        with server.connect() as plain:
            return int(ask(plain, "SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])

    def calm() -> bool:
        before = questions()
        end = time.monotonic() + 0.5
        wait_until(lambda: time.monotonic() > end)
        return questions() - before <= 5

    wait_until(calm)


def test_as_many_streams_as_there_may_be(api: Api, tape: Tape) -> None:
    """One more is told to come back later, and may when another has gone."""
    connections = [http.client.HTTPConnection("127.0.0.1", api.port, timeout=10) for _ in range(hub.STREAMS_MAX)]

    try:
        for connection in connections:
            connection.request("GET", f"/api/stream?symbols={tape.symbol}")
            assert connection.getresponse().status == 200
        reply = api.get(f"/api/stream?symbols={tape.symbol}")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert api.get("/api/symbols").status == 200
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: _accepted(api, tape))


def _accepted(api: Api, tape: Tape) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    try:
        connection.request("GET", f"/api/stream?symbols={tape.symbol}")
        return connection.getresponse().status == 200
    finally:
        connection.close()


# ---- What needs no socket.


def trades(count: int) -> Trades:
    """So many trades of a symbol."""
    return Trades("A", [(number, b"x" * 1_000) for number in range(count)])


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    """When more waits for it than may, it is ended, and what waited is dropped."""

    async def wait_for_it() -> tuple[int, bool]:
        listener = Listener(frozenset("A"), False, {})
        puts = 0
        while not listener.ended:
            listener.put(trades(100))
            puts += 1
        return puts, await listener.take(0.1) == []

    puts, dropped = asyncio.run(wait_for_it())
    assert puts == hub.QUEUE_BYTES_MAX // 120_000 + 1
    assert dropped


def test_a_client_gets_only_what_it_wants() -> None:
    """No trades of another symbol, and no single trades in a stream of ticks."""

    async def taken(ticks: bool) -> int:
        listener = Listener(frozenset("A"), ticks, {})
        for message in (trades(1), Trades("B", []), hub.Beat("A", 1, b"{}"), Word(True, b"{}"), Begin({}, {})):
            listener.put(message)
        return len(await listener.take(0.1))

    assert asyncio.run(taken(False)) == 3
    assert asyncio.run(taken(True)) == 3


def test_a_stream_of_ticks_that_missed_too_much(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told that its count begins anew, instead of waiting while everything is read."""
    monkeypatch.setattr(api_stream, "FOLD_TRADES_MAX", 50)
    connection = db.connect(settings)
    tape = Tape(connection)
    tape.store(*range(1, 200))

    async def begin() -> list[bytes]:
        sessions = Sessions(settings)
        sessions.revive()
        line = api_feed_line(tape, sessions)
        listener = Listener(frozenset([tape.symbol]), True, {tape.symbol: Seen(3)})
        stream = api_stream.Stream(sessions, listener)
        tick = line.snapshot({})
        assert tick is not None
        found = [piece async for piece in stream.begin(Begin({tape.symbol: 199}, {tape.symbol: tick}))]
        sessions.close()
        return found

    text = b"".join(asyncio.run(begin())).decode()
    db.close(connection)
    assert "event: reset" in text
    assert '"count":0' in text
    assert f"id: {tape.symbol}:199" in text


def api_feed_line(tape: Tape, sessions: Sessions) -> symbol_feed.Line:
    """What the feed knows of that symbol."""
    return symbol_feed.Line(sessions.ask(lambda c: feed._start(c, tape.symbol)), 0.0)


def test_a_feed_that_hangs_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again until it says something itself: its database does not answer, whoever asks."""
    monkeypatch.setattr(hub, "STALL_S", 0.01)
    monkeypatch.setattr(hub, "STALL_AGAIN_S", 0.01)

    async def heard() -> tuple[list[hub.Message], list[hub.Message]]:
        found = hub.Hub()
        found.on_stall(lambda: Status("now", False, "silent", None, "trades", False, None, None, None, {}))
        listener = Listener(frozenset({"BTCUSDT"}), True, {})
        found.join(listener)
        stalled: list[hub.Message] = []
        while len(stalled) < 2:
            stalled += await listener.take(5)
        monkeypatch.setattr(hub, "STALL_S", 60.0)
        found.post_status(Status("now", True, None, None, "trades", False, None, 0, 0, {}))
        last: list[hub.Message] = []
        while not any(isinstance(one, Word) and one.database for one in last):
            last += await listener.take(5)
        found.leave(listener)
        return stalled, last

    stalled, last = asyncio.run(heard())
    assert all(isinstance(one, Word) and b'"trouble":"silent"' in one.data for one in stalled)
    assert isinstance(last[-1], Word)
    assert b'"trouble":null' in last[-1].data


def test_a_slow_beginning_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """While what was missed is read, a client hears the status or at least that somebody is there."""
    monkeypatch.setattr(api_stream, "ALIVE_S", 0.01)

    async def heard() -> list[bytes]:
        listener = Listener(frozenset(), True, {})
        go_on = asyncio.Event()

        async def slowly() -> AsyncGenerator[bytes, None]:
            yield b"first"
            await go_on.wait()
            yield b"last"

        found: list[bytes] = []
        stream = api_stream.Stream(cast(Sessions, None), listener)
        async for piece in api_stream._audibly(stream, listener, slowly()):
            found.append(piece)
            if piece == b": still reading\n\n":
                listener.put(Word(False, b"{}"))
            if piece.startswith(b"event: status"):
                go_on.set()
        return found

    found = asyncio.run(heard())
    told = found.index(b"event: status\ndata: {}\n\n")
    assert (found[0], found[-1], set(found[1:told])) == (b"first", b"last", {b": still reading\n\n"})
