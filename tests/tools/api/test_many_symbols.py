"""The API of 1,200 symbols: what it answers about all of them, and that it asks the database no statement for each."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.makers import MIDNIGHT
from tests.support.child import wait_until
from tests.support.many import many_symbols, names
from tests.support.servers import Server
from tests.support.serving import Api, serving
from tests.support.tables import ask

pytestmark = pytest.mark.slow

SYMBOLS = names(1_200)
STATEMENTS_MAX = 30
"""Of an answer with its snapshot, and of counting them."""


@pytest.fixture(scope="module")
def api(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API of a database with all of SYMBOLS."""
    folder = tmp_path_factory.mktemp("many")
    with (
        many_symbols(server, "test_api_many", folder, SYMBOLS, MIDNIGHT) as environ,
        serving(environ | {"SYMBOLS": ",".join(SYMBOLS[:1_000])}) as running,
    ):
        wait_until(lambda: running.get("/api/symbols").status == 200)
        yield running


def statements(server: Server, question: Callable[[], Any]) -> tuple[Any, int]:
    """The answer, and how many statements the server got meanwhile."""
    with server.connect() as plain:

        def count() -> int:
            return int(ask(plain, "SHOW GLOBAL STATUS LIKE 'Questions'")[0][1])

        before = count()
        answer = question()
        return answer, count() - before


def test_the_newest_trade_of_all(api: Api, server: Server) -> None:
    """One answer has all of them, each as it is answered alone; in pages too."""
    answer, asked = statements(server, lambda: api.json("/api/latest"))
    one = api.json(f"/api/latest/{SYMBOLS[7]}")
    rows = [row | {"age_ms": 0} for row in answer["latest"]]
    pages: list[dict[str, Any]] = []
    after = ""
    while after is not None:
        page = api.json("/api/latest", after=after, limit=500)
        pages, after = [*pages, *page["latest"]], page["next_after"]

    assert (answer["next_after"], answer["missing"]) == (None, 0)
    assert [row["symbol"] for row in rows] == SYMBOLS
    assert rows[7] == one | {"age_ms": 0}
    assert asked <= STATEMENTS_MAX
    assert [row | {"age_ms": 0} for row in pages] == rows


def test_what_was_told_before_is_not_told_again_when_it_changed(api: Api, server: Server) -> None:
    """A newer trade, a price that was changed by hand, and a trade that is gone are in the next answer."""

    def told() -> tuple[int, str]:
        row = api.json("/api/latest")["latest"][3]
        return row["trade_id"], row["price"]

    before, found = told(), []
    table = "test_api_many.trades"
    with server.connect() as plain:
        plain.autocommit = True
        for sql in (
            f"INSERT INTO {table} SELECT symbol, timestamp, 9000, 1.5, 1, 0, NULL FROM {table} WHERE symbol = %s"
            " LIMIT 1",
            f"UPDATE {table} SET timestamp = timestamp + INTERVAL 1 HOUR WHERE symbol = %s AND trade_id = 9000",
            f"UPDATE {table} SET price = 2.5 WHERE symbol = %s AND trade_id = 9000",
            f"DELETE FROM {table} WHERE symbol = %s AND trade_id = 9000",
        ):
            ask(plain, sql, SYMBOLS[3])
            found.append(told())

    assert found == [before, (9_000, "1.50000000"), (9_000, "2.50000000"), before]


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 5_001}, {"after": "X" * 33}, {"symbol": "BTCUSDT"}])
def test_what_is_refused(api: Api, query: dict[str, object]) -> None:
    """422, which names the parameter."""
    reply = api.get("/api/latest", query=query)

    assert reply.status == 422
    assert next(iter(query)) in reply.body["detail"]


def test_patterns(server: Server, tmp_path: Path) -> None:
    """Health is bad once nothing comes of all that they match, and no symbol is for itself; a stream wants names."""
    with many_symbols(server, "test_api_patterns", tmp_path, [*SYMBOLS[:5], "BTCEUR"], MIDNIGHT) as environ:
        environ |= {"SYMBOLS": "S*"}
        with serving(environ) as api, serving(environ, "--stale-after", "1e12") as patient:
            for one in (api, patient):
                wait_until(lambda one=one: one.get("/api/symbols").status == 200)  # type: ignore[misc]
            silent, good = api.get("/api/health"), patient.get("/api/health")
            stream = api.get("/api/stream")
    assert (silent.status, silent.body["status"], good.status, good.body["status"]) == (503, "stale", 200, "ok")
    assert not any(one["stale"] for one in silent.body["symbols"].values())
    assert (stream.status, stream.body["detail"]) == (422, "symbols: SYMBOLS has only patterns: name the symbols")


def test_health(api: Api, server: Server) -> None:
    """Every symbol is in it; those that are captured are stale."""
    reply, asked = statements(server, lambda: api.get("/api/health"))

    assert (reply.status, reply.body["status"], list(reply.body["symbols"])) == (503, "stale", SYMBOLS)
    assert sum(one["stale"] for one in reply.body["symbols"].values()) == 1_000
    assert asked <= STATEMENTS_MAX
    assert statements(server, lambda: api.get("/healthz"))[1] <= STATEMENTS_MAX


def test_streams_of_many_symbols(api: Api, server: Server) -> None:
    """Eight streams of twenty symbols each: each is told of its own symbols and of how much is missing of all, and the
    database is asked a few statements a second."""
    streams = [api.stream(",".join(SYMBOLS[at : at + 20]), "ticks") for at in range(0, 160, 20)]
    for number, stream in enumerate(streams):
        own = set(SYMBOLS[number * 20 : number * 20 + 20])
        assert {stream.next("tick").data["symbol"] for _ in range(20)} == own
        status = stream.next("status").data
        # One that came before the stream began knows nothing of its symbols yet.
        while len(status["symbols"]) < 20:
            status = stream.next("status").data
        assert set(status["symbols"]) == own
        assert (status["newest"], status["missing"]) == (f"{MIDNIGHT:%Y-%m-%dT%H:%M:%S}.000Z", 0)
        before = {name: one["before"]["1m"] for name, one in status["symbols"].items()}
        assert set(before.values()) == {None}

    def second() -> None:
        streams[0].next("status")
        streams[0].next("status")

    # Each is a snapshot with its trades: about ten looks, and what is missing.
    assert statements(server, second)[1] <= 250


def test_a_stream_of_many_symbols_tells_each_trade(api: Api, server: Server) -> None:
    """One of the last of 160 symbols is told of soon after it is stored."""
    streams = [api.stream(",".join(SYMBOLS[at : at + 20])) for at in range(0, 160, 20)]
    for stream in streams:
        stream.next("begin")
    when = (MIDNIGHT + timedelta(seconds=1)).replace(tzinfo=None)
    with server.connect() as plain:
        plain.autocommit = True
        sql = "INSERT INTO test_api_many.trades VALUES (%s, %s, 9000, 1.5, 1, 0, NULL)"
        ask(plain, sql, SYMBOLS[155], when)
        told = streams[-1].next("trade").data
        # A trade of the same millisecond does not show by the newest time, and is found all the same.
        ask(plain, sql.replace("9000", "9001"), SYMBOLS[155], when)
        later = streams[-1].next("trade").data
        ask(plain, "DELETE FROM test_api_many.trades WHERE timestamp > %s", MIDNIGHT.replace(tzinfo=None))

    assert (told["symbol"], told["trade_id"], later["trade_id"]) == (SYMBOLS[155], 9000, 9001)
