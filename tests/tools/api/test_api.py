"""The REST API over real sockets: what each route answers, and what it refuses."""

import asyncio
import gzip
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import mysql.connector
import pytest
from fastapi import HTTPException

import config
import db
from model.trade import Trade
from process.child import ROOT
from storage import proofs
from storage.proofs import Proof
from tests.support.child import WAIT_S_MAX, Answer, answer, wait_until
from tests.support.servers import PrivateServer, Server
from tests.support.serving import Api, serving
from tests.support.tables import ask
from tools.api.connections import CONNECTIONS_MAX
from tools.api.download import CSV, Exports
from tools.api.sessions import Sessions

pytestmark = pytest.mark.slow

BEGIN = datetime(2025, 3, 1, 12, 0, 0, tzinfo=UTC)
NAME = "test_api"
PROOF = Proof(
    *(0, "BTCUSDT", BEGIN.date(), "gapped", "ids 15 and 16 are missing", 11, 18, 6, 2, "ab" * 32, "cd" * 32),
    *("klines", "", datetime(2025, 3, 3, 1, 2, 3, 456_789, tzinfo=UTC)),
)
MS = timedelta(milliseconds=1)


def trade(trade_id: int, at_ms: int, price: str = "100", symbol: str = "BTCUSDT") -> Trade:
    """A trade so many milliseconds after BEGIN, received 2.5 ms later."""
    when = BEGIN + at_ms * MS
    return Trade(symbol, when, trade_id, Decimal(price), Decimal("0.5"), trade_id % 2 == 0, when + 2.5 * MS)


STORED = [
    trade(11, 0, "97123.45"),
    trade(12, 0, "97123.46000001"),
    trade(13, 999, "97120"),
    trade(14, 3_000, "999999999999.99999999"),
    trade(17, 61_000, "0.00000001"),
    trade(18, 7_200_000, "97125"),
]
LATE = Trade("BTCUSDT", BEGIN + timedelta(days=6), 19, Decimal("97126"), Decimal("1"), True, None)


def shown(stored: Trade) -> dict[str, Any]:
    """A trade as the API gives it."""
    received = stored.received_at
    return {
        "symbol": stored.symbol,
        "trade_id": stored.trade_id,
        "timestamp": f"{stored.timestamp:%Y-%m-%dT%H:%M:%S}.{stored.timestamp.microsecond // 1000:03}Z",
        "price": f"{stored.price:.8f}",
        "quantity": f"{stored.quantity:.8f}",
        "buyer_is_maker": stored.buyer_is_maker,
        "received_at": received and f"{received:%Y-%m-%dT%H:%M:%S}.{received.microsecond // 1000:03}Z",
    }


@pytest.fixture(scope="module")
def filled(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of a database with STORED and LATE, and a second symbol."""
    folder = tmp_path_factory.mktemp("api")
    connection = db.connect(server.settings(NAME, folder))
    db.insert_trades(connection, [*STORED, LATE, trade(5, 0, "2600", "ETHUSDT")])
    proofs.add_proof(connection, PROOF)
    db.close(connection)
    yield server.environ | {"MYSQL_DATABASE": NAME, "DATA_DIR": str(folder)}
    with server.connect() as plain:
        ask(plain, f"DROP DATABASE {NAME}")


@pytest.fixture(scope="module")
def api(filled: dict[str, str]) -> Iterator[Api]:
    """The API of that database."""
    with serving(filled) as running:
        wait_until(lambda: running.get("/api/symbols").status == 200)
        yield running


def test_symbols(api: Api) -> None:
    """Those of which trades are stored, in order."""
    assert api.json("/api/symbols") == {"symbols": ["BTCUSDT", "ETHUSDT"]}


def test_latest(api: Api) -> None:
    """The newest trade; one that was back-filled has no time of receipt. Its age is by the clock of now."""
    answer = api.json("/api/latest/BTCUSDT")
    age = (datetime.now(UTC) - LATE.timestamp) // MS

    assert answer.pop("age_ms") == pytest.approx(age, abs=5_000)
    assert answer == shown(LATE) | {"missing": 0}


def test_a_second(api: Api) -> None:
    """Its first, last, low and high trade, their number, and the price as of the moment that was asked for."""
    assert api.json("/api/at/BTCUSDT", time="2025-03-01T12:00:00.500Z") == {
        "symbol": "BTCUSDT",
        "time": "2025-03-01T12:00:00.500Z",
        "second": "2025-03-01T12:00:00.000Z",
        "count": 3,
        "first": shown(STORED[0]),
        "last": shown(STORED[2]),
        "low": shown(STORED[2]),
        "high": shown(STORED[1]),
        "as_of": shown(STORED[1]) | {"age_ms": 500},
        "missing": 0,
        "unknown_before": None,
        "unknown_after": None,
    }


@pytest.mark.parametrize(
    ("time", "as_of"),
    [
        ("2025-03-01T12:00:02Z", 13),
        ("2025-03-01T14:00:02+02:00", 13),
        ("2025-03-01T14:00:02 02:00", 13),
        ("2025-03-01 12:00:02", 13),
        ("2025-03-01T12:01:00.999999", 14),
        ("2025-03-01T11:59:59.999Z", None),
        ("1999-01-01", None),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59Z", None),
    ],
)
def test_a_second_without_a_trade(api: Api, time: str, as_of: int | None) -> None:
    """The last trade before it; none before the first, and none for what has not come yet. Any offset, also a `+` that
    was not escaped."""
    answer = api.json("/api/at/BTCUSDT", time=time)

    assert (answer["count"], answer["first"], answer["low"]) == (0, None, None)
    assert (answer["as_of"] and answer["as_of"]["trade_id"]) == as_of


def test_a_range(api: Api) -> None:
    """Its extremes to the last digit, with the trades; the number of trades without those that are missing."""
    answer = api.json("/api/range/BTCUSDT", start="2025-03-01T12:00:00Z", end="2025-03-01T14:00:00Z")

    assert answer == {
        "symbol": "BTCUSDT",
        "start": "2025-03-01T12:00:00.000Z",
        "end": "2025-03-01T14:00:00.000Z",
        "count": 5,
        "first": shown(STORED[0]),
        "last": shown(STORED[4]),
        "low": shown(STORED[4]),
        "high": shown(STORED[3]),
        "as_of": None,
        "missing": 2,
        "unknown_before": None,
        "unknown_after": None,
    }
    assert (answer["low"]["price"], answer["high"]["price"]) == ("0.00000001", "999999999999.99999999")


def test_what_lies_outside_of_what_is_stored_is_not_known(api: Api) -> None:
    """Each answer about a time names the oldest or the newest trade, if the time reaches beyond it."""
    first, last = STORED[0].timestamp, max(trade.timestamp for trade in STORED)
    early, late = (
        f"{first - timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}",
        f"{last + timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}",
    )
    inside, behind = f"{first:%Y-%m-%dT%H:%M:%SZ}", f"{last + timedelta(days=400):%Y-%m-%dT%H:%M:%SZ}"
    oldest, newest = shown(STORED[0])["timestamp"], api.json("/api/latest/BTCUSDT")["timestamp"]
    for path in ("range", "vwap"):
        answers = [
            api.json(f"/api/{path}/BTCUSDT", start=start, end=end)
            for start, end in ((early, late), (inside, late), (inside, behind))
        ]
        sides = [(answer["unknown_before"], answer["unknown_after"]) for answer in answers]
        assert sides == [(oldest, None), (None, None), (None, newest)]
    seconds = [api.json("/api/at/BTCUSDT", time=time) for time in (early, inside, behind)]
    assert [one["unknown_before"] for one in seconds] == [oldest, None, None]
    assert [one["unknown_after"] for one in seconds] == [None, None, newest]


def test_a_range_is_half_open(api: Api) -> None:
    """The trade at the start is in, that at the end is not; nothing traded in between is an answer."""
    answer = api.json("/api/range/BTCUSDT", start="2025-03-01T12:00:00.999Z", end="2025-03-01T12:00:03Z")
    empty = api.json("/api/range/BTCUSDT", start="2025-03-01T12:00:01Z", end="2025-03-01T12:00:03Z")
    everything = api.json("/api/range/BTCUSDT", start="0001-01-01", end="9999-12-31T23:59:59.999999-14:00")

    assert (answer["count"], answer["first"]["trade_id"], answer["last"]["trade_id"]) == (1, 13, 13)
    assert (empty["count"], empty["low"], empty["first"]) == (0, None, None)
    assert empty["as_of"] == shown(STORED[2]) | {"age_ms": 1}
    assert everything["count"] == len(STORED) + 1


def test_candles(api: Api) -> None:
    """Whole rows of a resolution, of a range or the last ones, oldest first."""
    hours = api.json("/api/candles/BTCUSDT", resolution="1h", start="2025-03-01", end="2025-03-02")
    minutes = api.json("/api/candles/BTCUSDT", start="2025-03-01T12:01", end="2025-03-01T12:02")
    days = api.json("/api/candles/BTCUSDT", resolution="1d")
    older = api.json("/api/candles/BTCUSDT", resolution="1d", end="2025-03-07T00:00:00Z")

    assert (hours["resolution"], hours["start"]) == ("1h", "2025-03-01T00:00:00.000Z")
    assert hours["candles"][0] == {
        "timestamp": "2025-03-01T12:00:00.000Z",
        "open": "97123.45000000",
        "high": "999999999999.99999999",
        "low": "0.00000001",
        "close": "0.00000001",
        "volume": "2.50000000",
        "quote_volume": "500000145683.4550000050000000",
        "taker_buy_volume": "1.50000000",
        "taker_buy_quote_volume": "97121.7250000050000000",
        "trades": 5,
        "first_trade_id": 11,
        "last_trade_id": 17,
        "missing": 2,
    }
    assert [bar["first_trade_id"] for bar in hours["candles"]] == [11, 18]
    assert [bar["first_trade_id"] for bar in minutes["candles"]] == [17]
    assert [bar["first_trade_id"] for bar in days["candles"]] == [11, 19]
    assert [bar["first_trade_id"] for bar in older["candles"]] == [11]


def test_vwap(api: Api) -> None:
    """Exact sums as strings, the average price rounded to eight decimals, and the ids that are missing."""
    found = api.json("/api/vwap/BTCUSDT", start="2025-03-01", end="2025-03-02")
    quiet = api.json("/api/vwap/BTCUSDT", start="2025-01-01", end="2025-01-02")
    five = api.json("/api/candles/BTCUSDT", resolution="5m", start="2025-03-01", end="2025-03-02")

    assert found["count"] == sum(bar["trades"] for bar in five["candles"])
    assert Decimal(found["volume"]) == sum(Decimal(bar["volume"]) for bar in five["candles"])
    assert Decimal(found["quote_volume"]) == sum(Decimal(bar["quote_volume"]) for bar in five["candles"])
    exactly = Fraction(found["quote_volume"]) / Fraction(found["volume"])
    assert abs(Fraction(found["vwap"]) - exactly) <= Fraction(1, 2 * 10**8)
    assert found["missing"] == 2
    assert (quiet["vwap"], quiet["count"], quiet["volume"]) == (None, 0, "0.00000000")


def test_too_many_candles(api: Api) -> None:
    """413 says how many they would be, how many are too many, and what to do; what is outside does not count."""
    reply = api.get("/api/candles/BTCUSDT?start=2025-03-01&end=2025-03-09")
    fine = api.get("/api/candles/BTCUSDT?start=1990-01-01&end=2025-03-02")

    assert reply.status == 413
    assert "8,64" in reply.body["detail"]
    assert "5,000" in reply.body["detail"]
    assert "shorter range" in reply.body["detail"]
    assert (fine.status, len(fine.body["candles"])) == (200, 3)


def test_pages_of_trades(api: Api) -> None:
    """Page by page each trade once, in order, until there is no next; the cursor may be an id that is missing."""
    found: list[Any] = []
    after: dict[str, int] = {}
    for _ in range(9):
        answer = api.json("/api/trades/BTCUSDT", limit=2, **after)
        found += answer["trades"]
        after = {"after_id": answer["next_after_id"]}
        if answer["next_after_id"] is None:
            break
    missing = api.json("/api/trades/BTCUSDT", after_id=15)["trades"]
    beyond = api.json("/api/trades/BTCUSDT", after_id=2**62)
    ranged = api.json("/api/trades/BTCUSDT", start="2025-03-01T12:00:00.001", end="2025-03-01T12:01:01", after_id=11)

    assert found == [shown(one) for one in [*STORED, LATE]]
    assert [one["trade_id"] for one in missing] == [17, 18, 19]
    assert (beyond["trades"], beyond["next_after_id"]) == ([], None)
    assert [one["trade_id"] for one in ranged["trades"]] == [13, 14]


def test_pages_of_ids(api: Api) -> None:
    """By rising id, whatever the time; ids that are missing are passed over and counted, also before the first stored
    and behind the last."""
    everything = api.json("/api/trades/BTCUSDT/by-id", first_id=1, last_id=25)
    page = api.json("/api/trades/BTCUSDT/by-id", first_id=14, last_id=19, limit=1)
    last = api.json("/api/trades/BTCUSDT/by-id", first_id=page["next_id"], last_id=19, limit=5)
    inside = api.json("/api/trades/BTCUSDT/by-id", first_id=15, last_id=16)
    beyond = api.json("/api/trades/BTCUSDT/by-id", first_id=20, last_id=2**63 - 1)

    assert everything["trades"] == [shown(one) for one in [*STORED, LATE]]
    assert (everything["next_id"], everything["missing"]) == (None, 18)
    assert page == {"symbol": "BTCUSDT", "trades": [shown(STORED[3])], "next_id": 17, "missing": 2}
    assert last == {"symbol": "BTCUSDT", "trades": [*map(shown, [*STORED[4:], LATE])], "next_id": None, "missing": 0}
    assert inside == {"symbol": "BTCUSDT", "trades": [], "next_id": None, "missing": 2}
    assert (beyond["trades"], beyond["missing"]) == ([], 2**63 - 20)


def test_the_newest_trades(api: Api) -> None:
    """Newest first, as many as were asked for."""
    assert api.json("/api/trades/BTCUSDT/newest", limit=2)["trades"] == [shown(LATE), shown(STORED[-1])]


def test_gaps(api: Api) -> None:
    """Whole rows of what is missing, and the totals, of one symbol or of all."""
    answer = api.json("/api/gaps")
    (gap,) = answer.pop("gaps")

    assert answer == {"count": 1, "missing": 2}
    assert gap.pop("detected_at").startswith("20")
    assert gap == {
        "symbol": "BTCUSDT",
        "first_trade_id": 15,
        "last_trade_id": 16,
        "missing": 2,
        "reason": "missing in the stream",
        "timestamp_before": "2025-03-01T12:00:03.000Z",
        "timestamp_after": "2025-03-01T12:01:01.000Z",
    }
    assert api.json("/api/gaps", symbol="ETHUSDT") == {"count": 0, "missing": 0, "gaps": []}


def test_coverage(api: Api) -> None:
    """Whole rows of the days: one that was audited, and those that were not; `missing` counts a gap once."""
    answer = api.json("/api/coverage/BTCUSDT")
    unknown = {"verdict": None, "reason": "", "trades": 0, "missing": 0, "proven_at": None, "compared_with": ""}

    assert (answer.pop("symbol"), answer.pop("missing"), list(answer)) == ("BTCUSDT", 2, ["days"])
    assert answer["days"][0] == {
        "day": "2025-03-01",
        "verdict": "gapped",
        "reason": "ids 15 and 16 are missing",
        "trades": 6,
        "missing": 2,
        "proven_at": "2025-03-03T01:02:03.456Z",
        "compared_with": "klines",
        "day_was_over": True,
    }
    assert answer["days"][1] == unknown | {"day": "2025-03-02", "day_was_over": False}
    assert [day["trades"] for day in answer["days"]] == [6, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ({"from": "2025-03-02", "to": "2025-03-03"}, [2, 3]),
        ({"from": "2025-03-06"}, [6, 7]),
        ({"to": "2025-03-01"}, [1]),
        ({"from": "0001-01-01", "to": "9999-12-31"}, [1, 2, 3, 4, 5, 6, 7]),
        ({"from": "2025-03-08"}, []),
        ({"to": "2025-02-28"}, []),
    ],
)
def test_coverage_of_some_days(api: Api, query: dict[str, str], days: list[int]) -> None:
    """Both ends are included; days on which nothing can be stored are left out."""
    found = api.json("/api/coverage/btcusdt", **query)["days"]

    assert [day["day"] for day in found] == [f"2025-03-0{day}" for day in days]


def test_coverage_that_has_not_changed(api: Api) -> None:
    """Is not sent again; an unknown symbol has none."""
    first = api.get("/api/coverage/BTCUSDT")
    again = api.get("/api/coverage/BTCUSDT", {"If-None-Match": first.headers["etag"]})
    unknown = api.get("/api/coverage/XRPUSDT")

    assert (first.status, again.status) == (200, 304)
    assert (unknown.status, unknown.headers["content-type"]) == (404, "application/problem+json")


def test_health_is_bad_while_no_trade_comes(api: Api, filled: dict[str, str]) -> None:
    """503 and which symbol is stale; 200 if its newest trade may be that old; a symbol that is not captured is not."""
    stale = api.get("/api/health")
    with serving(filled | {"SYMBOLS": "ETHUSDT"}, "--stale-after", "1e12") as lenient:
        wait_until(lambda: lenient.get("/api/symbols").status == 200)
        fine = lenient.get("/api/health")

    assert (stale.status, stale.headers["retry-after"]) == (503, "1")
    assert (stale.body["status"], stale.body["database"], stale.body["missing"]) == ("stale", True, 2)
    assert stale.body["symbols"]["BTCUSDT"]["stale"] is True
    assert stale.body["symbols"]["BTCUSDT"]["latest"] == shown(LATE)["timestamp"]
    assert (fine.status, fine.body["status"]) == (200, "ok")
    assert fine.body["symbols"]["BTCUSDT"]["stale"] is False


def test_export(api: Api) -> None:
    """The same text as `python -m tools.export csv`, of all trades or of a range."""
    reply = api.get("/api/export/BTCUSDT.csv")
    part = api.get("/api/export/BTCUSDT.csv?start=2025-03-01T12:00:01&end=2025-03-01T12:02:00")
    lines = reply.body.splitlines()

    assert (reply.status, reply.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert reply.headers["content-disposition"] == 'attachment; filename="BTCUSDT.csv"'
    assert lines[0] == "symbol,timestamp,trade_id,price,quantity,buyer_is_maker,received_at"
    assert lines[1] == (
        "BTCUSDT,2025-03-01T12:00:00.000Z,11,97123.45000000,0.50000000,false,2025-03-01T12:00:00.002500Z"
    )
    assert lines[-1] == "BTCUSDT,2025-03-07T12:00:00.000Z,19,97126.00000000,1.00000000,true,"
    assert len(lines) == len(STORED) + 2
    assert [line.split(",")[2] for line in part.body.splitlines()[1:]] == ["14", "17"]
    name = "BTCUSDT-20250301T120001Z-20250301T120200Z.csv"
    assert part.headers["content-disposition"] == f'attachment; filename="{name}"'


def test_export_as_parquet(api: Api) -> None:
    """The trades of a range, or none, with exact decimals, in a file that names both."""
    parquet = pytest.importorskip("pyarrow.parquet")
    times = {"start": "2025-03-01T12:00:00", "end": "2025-03-01T12:02:00"}
    name, found = _downloaded(api, times)
    rows = parquet.read_table(io.BytesIO(found)).to_pylist()
    _, nothing = _downloaded(api, {"start": "2001-01-01", "end": "2001-01-02"})

    assert name == 'attachment; filename="BTCUSDT-20250301T120000Z-20250301T120200Z.parquet"'
    assert rows[0] == {
        "symbol": "BTCUSDT",
        "timestamp": datetime(2025, 3, 1, 12, tzinfo=UTC),
        "trade_id": 11,
        "price": Decimal("97123.45000000"),
        "quantity": Decimal("0.50000000"),
        "buyer_is_maker": False,
        "received_at": datetime(2025, 3, 1, 12, 0, 0, 2_500, tzinfo=UTC),
    }
    assert [row["trade_id"] for row in rows][-2:] == [14, 17]
    assert parquet.read_table(io.BytesIO(nothing)).num_rows == 0


def _downloaded(api: Api, times: dict[str, str]) -> tuple[str, bytes]:
    """The name that the API gives the file, and the file."""
    with urlopen(f"{api.address}/api/export/BTCUSDT.parquet?{urlencode(times)}") as answer:
        return answer.headers["Content-Disposition"], answer.read()


def test_export_is_what_the_script_writes(api: Api, filled: dict[str, str], tmp_path: Path) -> None:
    """Byte for byte."""
    target = tmp_path / "trades.csv"
    command = [sys.executable, "-m", "tools.export", "csv", "--symbol", "BTCUSDT", str(target)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | filled, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert target.read_text() == api.get("/api/export/BTCUSDT.csv").body


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        ("at/BTCUSDT", {}, "time"),
        ("at/BTCUSDT", {"time": "yesterday"}, "time"),
        ("at/BTCUSDT", {"time": "2025-02-30T00:00:00Z"}, "time"),
        ("at/BTCUSDT", {"time": "2025-03-01T25:00:00Z"}, "time"),
        ("at/BTCUSDT", {"time": "1" * 5_000}, "time"),
        ("range/BTCUSDT", {"start": "2025-03-01"}, "end"),
        ("range/BTCUSDT", {"start": "2025-03-02", "end": "2025-03-01"}, "start"),
        ("range/BTCUSDT", {"start": "2025-03-01", "end": "2025-03-01"}, "start"),
        ("vwap/BTCUSDT", {"start": "2025-03-02", "end": "2025-03-01"}, "start"),
        ("coverage/BTCUSDT", {"from": "2025-03-02", "to": "2025-03-01"}, "from"),
        ("coverage/BTCUSDT", {"from": "20250301"}, "from"),
        ("coverage/BTCUSDT", {"to": "2025-02-30"}, "to"),
        ("coverage/BTCUSDT", {"to": "2025-03-01T00:00:00Z"}, "to"),
        ("coverage/BTCUSDT", {"first": "2025-03-01"}, "first"),
        ("candles/BTCUSDT", {"resolution": "7m"}, "resolution"),
        ("candles/BTCUSDT", {"start": "2025-03-02", "end": "2025-03-01"}, "start"),
        ("trades/BTCUSDT", {"limit": "0"}, "limit"),
        ("trades/BTCUSDT", {"limit": "5001"}, "limit"),
        ("trades/BTCUSDT", {"after_id": "-1"}, "after_id"),
        ("trades/BTCUSDT", {"after_id": "1.5"}, "after_id"),
        ("trades/BTCUSDT", {"after_id": "9" * 400}, "after_id"),
        ("trades/BTCUSDT/newest", {"limit": "many"}, "limit"),
        ("trades/BTCUSDT/by-id", {"first_id": "5", "last_id": "4"}, "first_id"),
        ("trades/BTCUSDT/by-id", {"first_id": "5"}, "last_id"),
        ("gaps", {"limit": "-3"}, "limit"),
        ("export/BTCUSDT.csv", {"start": "2025-03-02", "end": "2025-03-01"}, "start"),
        ("stream", {"mode": "sometimes"}, "mode"),
        ("trades/BTCUSDT", {"limt": "2"}, "limt"),
        ("stream", {"symbol": "BTCUSDT"}, "symbol"),
        ("health", {"now": ""}, "now"),
        ("gaps", {"symbols": "BTCUSDT"}, "symbols"),
        ("gaps", {"start": "2025-03-01"}, "symbol"),
        ("stream", {"symbols": ",".join(f"S{number}" for number in range(21))}, "symbols"),
    ],
)
def test_a_wrong_parameter_is_named(api: Api, path: str, query: dict[str, str], name: str) -> None:
    """422, and which one it is and why."""
    reply = api.get(f"/api/{path}", query=query)

    assert reply.status == 422, reply
    assert [mistake["loc"] for mistake in reply.body["errors"]] == [["query", name]]
    assert reply.body["errors"][0]["msg"]
    assert reply.body["detail"].startswith(f"{name}: ")
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("symbol", ["NONE", "'%3B%20DROP%20TABLE%20trades", "%00", "%ED%A0%80", "x" * 900])
@pytest.mark.parametrize(
    "path",
    [
        "latest/{}",
        "at/{}?time=2025-03-01",
        "range/{}?start=2025-03-01&end=2025-03-02",
        "candles/{}",
        "coverage/{}",
        "trades/{}",
        "trades/{}/newest",
        "gaps?symbol={}",
        "export/{}.csv",
        "stream?symbols={}",
    ],
)
def test_an_unknown_symbol(api: Api, path: str, symbol: str) -> None:
    """404, whatever it is made of."""
    reply = api.get(f"/api/{path.format(symbol)}")

    assert reply.status == 404, reply
    assert "/api/symbols" in reply.body["detail"]


def test_a_symbol_in_any_case(api: Api) -> None:
    """As the commands take it: in the path, and among those of a stream or of the gaps."""
    for path in ("latest/{}", "candles/{}?resolution=1h", "trades/{}/newest", "gaps?symbol={}"):
        small, capital = (api.get(f"/api/{path.format(name)}") for name in ("btcUsdt", "BTCUSDT"))
        small.body.pop("age_ms", None), capital.body.pop("age_ms", None)
        assert (small.status, small.body) == (200, capital.body)
    assert api.stream("btcusdt").next("begin").data == {"last_trade_ids": {"BTCUSDT": 19}}


# ---- What is missing is told with each answer.


@pytest.mark.parametrize(
    ("path", "query", "missing"),
    [
        ("latest/BTCUSDT", {}, 0),
        ("at/BTCUSDT", {"time": "2025-03-01T12:00:00Z"}, 0),
        # The gap is between 12:00:03.000 and 12:01:01.000: in the first second of it, in its middle, in its last.
        ("at/BTCUSDT", {"time": "2025-03-01T12:00:03Z"}, 2),
        ("at/BTCUSDT", {"time": "2025-03-01T12:00:30Z"}, 2),
        ("at/BTCUSDT", {"time": "2025-03-01T12:01:01Z"}, 2),
        ("at/BTCUSDT", {"time": "2025-03-01T12:01:02Z"}, 0),
        ("range/BTCUSDT", {"start": "2025-03-01T12:00:10Z", "end": "2025-03-01T12:00:20Z"}, 2),
        ("range/BTCUSDT", {"start": "2025-03-01T13:00:00Z", "end": "2025-03-02"}, 0),
        ("vwap/BTCUSDT", {"start": "2025-03-01T12:00:10Z", "end": "2025-03-01T12:00:20Z"}, 2),
        ("trades/BTCUSDT", {}, 2),
        ("trades/BTCUSDT", {"limit": "2"}, 0),
        ("trades/BTCUSDT", {"after_id": "14", "limit": "1"}, 2),
        ("trades/BTCUSDT", {"after_id": "17"}, 0),
        ("trades/BTCUSDT", {"start": "2025-03-01T12:00:10Z", "end": "2025-03-01T12:00:20Z"}, 2),
        ("trades/BTCUSDT/newest", {"limit": "2"}, 0),
        ("trades/BTCUSDT/newest", {"limit": "4"}, 2),
        ("gaps", {"symbol": "BTCUSDT", "start": "2025-03-01T12:00:10Z", "end": "2025-03-01T12:00:20Z"}, 2),
        ("gaps", {"symbol": "BTCUSDT", "start": "2025-03-01T13:00:00Z"}, 0),
    ],
)
def test_an_answer_says_what_is_missing(api: Api, path: str, query: dict[str, str], missing: int) -> None:
    """How many ids may belong to its time, also where nothing is stored that it could show."""
    assert api.json(f"/api/{path}", **query)["missing"] == missing


def test_an_export_says_what_is_missing(api: Api) -> None:
    """In a header, since the lines are those of trades."""
    assert api.get("/api/export/BTCUSDT.csv").headers["missing-ids"] == "2"
    assert api.get("/api/export/BTCUSDT.csv?start=2025-03-01T13:00").headers["missing-ids"] == "0"


def test_candles_of_a_stream_say_what_is_missing(filled: dict[str, str], server: Server, tmp_path: Path) -> None:
    """Those of the tick too, which grow."""
    settings = server.settings(f"{NAME}_ticks", tmp_path)
    connection = db.connect(settings)
    environ = filled | {"MYSQL_DATABASE": settings.mysql_database}
    db.insert_trades(connection, [trade(1, 0), trade(4, 1_000)])
    try:
        with serving(environ) as api:
            wait_until(lambda: api.get("/api/symbols").status == 200)
            stream = api.stream("BTCUSDT", mode="ticks")
            ticks = [stream.next("tick").data]
            stream.next("status")
            db.insert_trades(connection, [trade(5, 2_000)])
            ticks.append(stream.next("tick").data)
    finally:
        ask(connection, f"DROP DATABASE {settings.mysql_database}")
        db.close(connection)

    missing = [{name: bars[-1]["missing"] for name, bars in tick["candles"].items()} for tick in ticks]
    longer = dict.fromkeys(("1m", "5m", "15m", "1h", "4h", "1d"), 2)
    # The second of the last trade begins after what is missing.
    assert missing == [{"1s": 2} | longer, {"1s": 0} | longer]


# ---- What holds for every request.


def test_only_reading(api: Api) -> None:
    """Nothing but GET is answered, and the sessions with the database cannot write."""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert api.get("/api/symbols", method=method).status == 405
    assert api.get("/nothing").status == 404


def test_a_wrong_method_hears_all_that_the_address_takes(api: Api) -> None:
    """Also where one address has several routes, or is a file."""
    for path, allowed in (
        ("/api/login", "DELETE, POST"),
        ("/api/symbols", "GET"),
        ("/static/app.js", "GET"),
        ("/", "GET"),
    ):
        reply = api.get(path, method="PATCH")
        assert (path, reply.status, reply.headers["allow"]) == (path, 405, allowed)


def test_refusals_have_one_shape(api: Api) -> None:
    """Problem details (RFC 9457), whoever refuses: a route, the router, the door."""
    for reply in (
        api.get("/api/latest/NONE"),
        api.get("/nothing"),
        api.get("/api/symbols/"),
        api.get("/api/symbols", method="PUT"),
        api.get("/api/at/BTCUSDT?time=x"),
        api.get("/api/symbols", {"Host": "evil.example"}),
        api.get("/api/symbols", {"Content-Length": "10000"}),
    ):
        assert reply.headers["content-type"] == "application/problem+json", reply
        assert reply.headers["cache-control"] == "no-store"
        assert reply.body["status"] == reply.status >= 400
        assert set(reply.body) - {"errors"} == {"type", "title", "status", "detail"}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.7", ""])
def test_another_name_is_not_served(api: Api, host: str) -> None:
    """So a page that has its name point to this machine (DNS rebinding) reads nothing, not even the dashboard."""
    for path in ("/api/symbols", "/", "/healthz", "/openapi.json"):
        reply = api.get(path, {"Host": host})
        assert reply.status == 421
        assert "API_ALLOWED_HOSTS" in reply.body["detail"]


def test_names_of_this_machine_and_those_that_are_listed_are_served(api: Api, filled: dict[str, str]) -> None:
    """With or without a port."""
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000", "127.8.9.10"):
        assert api.get("/api/symbols", {"Host": host}).status == 200
    with serving(filled | {"API_ALLOWED_HOSTS": "trades.example.org, 10.0.0.7"}) as named:
        for host, status in (
            ("Trades.Example.org:443", 200),
            ("10.0.0.7", 200),
            ("localhost", 200),
            ("other.org", 421),
        ):
            assert named.get("/healthz", {"Host": host}).status in ({200, 503} if status == 200 else {421})


def test_a_trailing_slash_is_another_address(api: Api) -> None:
    """It is not there, and nobody is sent anywhere."""
    reply = api.get("/api/symbols/")

    assert reply.status == 404
    assert "location" not in reply.headers


def test_head_is_get_without_its_body(api: Api) -> None:
    """With the same status and headers; an answer without an end has one."""
    for path in ("/api/symbols", "/api/range/BTCUSDT?start=2025-03-01&end=2025-03-02", "/", "/nothing"):
        get, head = api.get(path), api.get(path, method="HEAD")
        assert (head.status, head.body or "") == (get.status, "")
        assert head.headers["content-length"] == get.headers["content-length"]
    for path in ("/api/stream", "/api/export/BTCUSDT.csv"):
        assert api.get(path, method="HEAD").status == 200


def test_what_has_not_changed_is_not_sent_again(api: Api) -> None:
    """ETag and If-None-Match; the age of an answer changes it."""
    first = api.get("/api/symbols")
    again = api.get("/api/symbols", {"If-None-Match": f'"other", {first.headers["etag"]}'})
    other = api.get("/api/symbols", {"If-None-Match": '"other"'})

    assert first.headers["cache-control"] == "private, no-cache"
    assert (again.status, again.body, again.headers["etag"]) == (304, "", first.headers["etag"])
    assert (other.status, other.body) == (200, first.body)


def test_long_answers_are_compressed(api: Api) -> None:
    """For those who say that they can read it; a stream is not, since its events must not wait for others."""
    path = "/api/trades/BTCUSDT"
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=WAIT_S_MAX)
    connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
    reply = connection.getresponse()
    body = reply.read()
    connection.close()

    assert reply.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(body)) == api.get(path).body
    assert "content-encoding" not in api.get(path).headers


def _raw(api: Api, head: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", api.port), timeout=WAIT_S_MAX)
    connection.sendall(head)
    return connection


def test_half_sent_requests_shut_nobody_out(filled: dict[str, str]) -> None:
    """As many as there may be connections, and more: whoever sends a whole request is answered."""
    with serving(filled) as api, ExitStack() as stack:
        wait_until(lambda: api.get("/api/symbols").status == 200)
        halves = [
            stack.enter_context(_raw(api, b"GET /api/symbols HTTP/1.1\r\nHost: ")) for _ in range(CONNECTIONS_MAX + 20)
        ]
        assert [api.get("/api/symbols").status for _ in range(3)] == [200] * 3
        # Those that waited longest were let go.
        with suppress(ConnectionResetError):
            assert halves[0].recv(1_000) == b""


def test_a_request_that_is_too_long_or_too_slow(api: Api) -> None:
    """A head without an end, a body that nobody wants: 431, 413, 411, and the connection is closed."""
    endless = _raw(api, b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    with suppress(ConnectionError):
        for _ in range(1_000):
            endless.sendall(b"X-Padding: " + b"x" * 1_000 + b"\r\n")
    whole = _raw(api, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"x" * 40_000 + b"\r\n\r\n")
    assert whole.recv(1_000).startswith(b"HTTP/1.1 431 ")
    for extra, status in ((b"Content-Length: 5000", b"413"), (b"Transfer-Encoding: chunked", b"411")):
        refused = _raw(api, b"POST /api/login HTTP/1.1\r\nHost: localhost\r\n" + extra + b"\r\n\r\n")
        assert refused.recv(1_000).startswith(b"HTTP/1.1 " + status)
    assert api.get("/api/symbols").status == 200


# ---- Pages.


def test_pages_come_from_here_alone(api: Api) -> None:
    """Dashboard and documentation load nothing from elsewhere, and the browser is told not to."""
    for path, type_ in (
        ("/", "text/html"),
        ("/docs", "text/html"),
        ("/static/app.js", "text/javascript"),
        ("/static/vendor/lightweight-charts.standalone.production.mjs", "text/javascript"),
        ("/static/vendor/swagger-ui-bundle.js", "text/javascript"),
        ("/static/style.css", "text/css"),
    ):
        reply = api.get(path)
        assert (path, reply.status, reply.headers["content-type"].partition(";")[0]) == (path, 200, type_)
        assert "default-src 'self'" in reply.headers["content-security-policy"]
        if "vendor" not in path:
            assert 'src="http' not in reply.body
            assert "url(http" not in reply.body
    assert api.get("/static/../api.py").status == 404
    assert api.get("/static/%2e%2e/api.py").status == 404


def test_vendored_files_are_as_they_were_published() -> None:
    """The sums beside them, and the licences of what is not ours."""
    folder = ROOT / "tools" / "api" / "dashboard" / "vendor"
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    listed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}

    assert done.returncode == 0, done.stdout
    assert {path.name for path in folder.iterdir()} - listed == {"SHA256SUMS", "README.md"}
    assert "Apache License" in (folder / "lightweight-charts.LICENSE").read_text()


def test_description(api: Api) -> None:
    """Every route of the API; whole titles, names that speak, each parameter with its meaning and an example; prices
    are strings there too."""
    found = api.json("/openapi.json")
    operations = {f"{method} {path}": one for path, ways in found["paths"].items() for method, one in ways.items()}
    parameters = [(name, one) for name, operation in operations.items() for one in operation.get("parameters", ())]

    assert len(operations) == 20
    assert operations["get /api/range/{symbol}"]["summary"] == (
        "The low and the high of the price in [start, end), with the trade of each; as quick for years as for a minute"
    )
    assert operations["get /api/range/{symbol}"]["operationId"] == "lowAndHigh"
    assert [name for name, one in operations.items() if not re.fullmatch("[a-zA-Z]+", one["operationId"])] == []
    assert [(name, one["name"]) for name, one in parameters if not one.get("description")] == []
    assert [(name, one["name"]) for name, one in parameters if not one["schema"].get("examples")] == []
    assert "text/event-stream" in operations["get /api/stream"]["responses"]["200"]["content"]
    assert found["components"]["schemas"]["Trade"]["properties"]["price"]["type"] == "string"
    assert "securitySchemes" not in found["components"]
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(found)))
    assert named - found["components"]["schemas"].keys() == set()
    assert "Login" in named


# ---- Who may ask.


def test_token(filled: dict[str, str]) -> None:
    """With an API_TOKEN everything below /api/ needs it, and the pages that ask for it do not."""
    token = "a-secret-of-mine-alone"
    with serving(filled | {"API_TOKEN": token}, "--host", "0.0.0.0") as guarded:
        good = {"Authorization": f"bearer {token}"}
        wait_until(lambda: guarded.get("/api/symbols", good).status == 200)
        refused = [
            guarded.get(path, headers)
            for path in ("/api/symbols", "/api/health", "/api/stream", "/api/nothing")
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": token})
        ]
        description = guarded.json("/openapi.json")

        assert {(reply.status, reply.headers["www-authenticate"]) for reply in refused} == {(401, "Bearer")}
        assert guarded.get("/").status == guarded.get("/docs").status == 200
        assert description["security"] == [{"token": []}, {"cookie": []}]
        # What tells whether it is alive tells nothing else, and needs none.
        alive = guarded.get("/healthz")
        assert (alive.status, alive.body) == (503, "not ok\n")


def test_login(filled: dict[str, str]) -> None:
    """The cookie opens everything that the token opens, no script can read it, and it does not tell the token; a wrong
    token is told, and after the logout the browser has no cookie."""
    token = "a-secret-of-mine-alone"
    with serving(filled | {"API_TOKEN": token}) as guarded:
        wait_until(lambda: guarded.get("/api/symbols", {"Authorization": f"Bearer {token}"}).status == 200)
        wrong, right = (_log_in(guarded, secret) for secret in ("another-secret-of-mine", token))
        cookie = right.headers["set-cookie"]
        shown = {"Cookie": f"theme=dark; {cookie.partition(';')[0]}"}

        assert (wrong.status, "set-cookie" in wrong.headers) == (401, False)
        assert "not the API_TOKEN" in wrong.body["detail"]
        assert right.status == 204
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert token not in cookie
        for path in ("/api/symbols", "/api/export/BTCUSDT.csv", "/api/gaps"):
            assert (guarded.get(path, shown).status, guarded.get(path).status) == (200, 401)
        assert guarded.get("/api/stream", shown, method="HEAD").status == 200
        out = guarded.get("/api/login", shown, method="DELETE")
        assert "Max-Age=0" in out.headers["set-cookie"]
        assert guarded.get("/api/symbols", {"Cookie": "trades_session=wrong"}).status == 401


def _log_in(api: Api, token: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=WAIT_S_MAX)
    connection.request("POST", "/api/login", json.dumps({"token": token}), {"Content-Type": "application/json"})
    response = connection.getresponse()
    found = answer(response.status, response.headers, response.read())
    connection.close()
    return found


def run_api(environ: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    """An API that must not start."""
    command = [sys.executable, "-m", "tools.api", *flags]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("flags", "environ", "words"),
    [
        (["--host", "0.0.0.0"], {}, "API_TOKEN"),
        (["--host", "::"], {}, "API_TOKEN"),
        (["--host", "0.0.0.0"], {"API_TOKEN": "fifteen-letters"}, "API_TOKEN has 15 characters"),
        ([], {"API_TOKEN": "gehe\u00eemnis-gehe\u00eemnis"}, "API_TOKEN has a character"),
        ([], {"API_ALLOWED_HOSTS": "http://example.org"}, "API_ALLOWED_HOSTS: 'http://example.org' is no host"),
        ([], {"API_HOST": "example.org"}, "API_TOKEN"),
        ([], {"API_PORT": "http"}, "API_PORT='http'"),
        (["--cors-origins", "example.org"], {}, "'example.org' is no origin"),
        ([], {"MYSQL_PORT": "x"}, "MYSQL_PORT='x'"),
    ],
)
def test_wrong_settings(flags: list[str], environ: dict[str, str], words: str) -> None:
    """One line that names the variable, and exit code 2; nobody but this machine may ask without a token."""
    done = run_api(environ, *flags)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


def test_a_wrong_password_ends_it_at_once(server: Server) -> None:
    """With the line of the database, and not with a server that answers 503 for ever."""
    done = run_api(server.environ | {"MYSQL_USER": "nobody_such", "MYSQL_PASSWORD": "wrong"})

    assert done.returncode == 2
    assert "MYSQL_USER" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken(api: Api) -> None:
    """One line; with --or-any-port another one."""
    done = run_api({}, "--port", str(api.port))

    assert done.returncode == 2
    assert done.stderr.startswith(f"tools.api: cannot listen on 127.0.0.1 port {api.port}: ")
    with serving({}, "--port", str(api.port), "--or-any-port") as other:
        assert other.port not in (0, api.port)


def test_other_web_pages(api: Api, filled: dict[str, str]) -> None:
    """May not ask unless they are named; then they may ask with a token."""
    origin = {"Origin": "https://example.org"}
    preflight = origin | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    flags = ("--cors-origins", "https://example.org")
    with serving(filled | {"API_TOKEN": "x"}, *flags) as open_to_one:
        allowed = open_to_one.get("/api/symbols", preflight, method="OPTIONS")
        refused = open_to_one.get("/api/symbols", preflight | {"Origin": "https://evil.example"}, method="OPTIONS")

    assert "access-control-allow-origin" not in api.get("/api/symbols", origin).headers
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-origin" not in refused.headers


# ---- The database away, and back.


def test_database_away_and_back(killable_server: PrivateServer, tmp_path: Path) -> None:
    """503 with Retry-After while it is away, at once and not after a time-out, and an answer again without a restart;
    a stream says so, goes on, and loses nothing."""
    settings = killable_server.settings("test_away", tmp_path)
    connection = db.connect(settings)
    db.insert_trades(connection, STORED[:3])
    environ = killable_server.environ | {"MYSQL_DATABASE": "test_away", "DATA_DIR": str(tmp_path)}
    with serving(environ) as api:
        wait_until(lambda: api.get("/api/latest/BTCUSDT").status == 200)
        stream = api.stream("BTCUSDT")
        stream.next("begin")
        killable_server.kill()
        replies = [api.get(f"/api/{path}") for path in ("latest/BTCUSDT", "symbols", "gaps", "export/BTCUSDT.csv")]
        health = api.get("/api/health")

        assert {(reply.status, reply.headers["retry-after"]) for reply in replies} == {(503, "1")}
        assert (health.status, health.body["status"], health.body["database"]) == (503, "down", False)
        # What nobody can know is not nothing.
        assert (health.body["missing"], health.body["open_gaps"]) == (None, None)
        assert api.get("/").status == 200
        while stream.next("status").data["database"]:
            pass

        killable_server.start()
        connection = db.connect(settings)
        db.insert_trades(connection, STORED[3:])
        db.close(connection)
        wait_until(lambda: api.get("/api/latest/BTCUSDT").status == 200)
        assert api.json("/api/latest/BTCUSDT")["trade_id"] == 18
        assert stream.ids(3) == [14, 17, 18]


def test_before_anything_is_captured(any_server: Server, tmp_path: Path) -> None:
    """Without a database 503, and answers as soon as a capture has made it."""
    environ = any_server.environ | {"MYSQL_DATABASE": "test_early", "DATA_DIR": str(tmp_path)}
    with serving(environ) as api:
        assert api.get("/api/symbols").status == 503
        connection = db.connect(any_server.settings("test_early", tmp_path))
        try:
            wait_until(lambda: api.get("/api/symbols").status == 200)
            empty = api.json("/api/symbols")
            db.insert_trades(connection, STORED)
            assert empty == {"symbols": []}
            assert api.json("/api/latest/BTCUSDT")["trade_id"] == 18
        finally:
            ask(connection, "DROP DATABASE test_early")
            db.close(connection)


def test_sessions_that_were_cut(api: Api, server: Server) -> None:
    """An idle session that the server has ended costs no answer."""
    assert api.get("/api/symbols").status == 200
    with server.connect() as connection:
        for row in ask(connection, "SELECT id FROM information_schema.processlist WHERE db = %s", NAME):
            # The API closes those that idle itself, as soon as it has met one that is gone.
            if row[0] != connection.connection_id:
                with suppress(mysql.connector.Error):
                    ask(connection, f"KILL {row[0]}")

    assert api.get("/api/symbols").status == 200


def test_ends_quickly_with_open_streams(filled: dict[str, str]) -> None:
    """SIGTERM ends it with exit code 0 and no words, though a stream is open."""
    with serving(filled) as api:
        stream = api.stream("BTCUSDT")
        stream.next("begin")
        code, _, errors = api.stop()

    assert code == 0
    assert "Traceback" not in errors
    assert "rror" not in errors


# ---- The description against the API itself.


def test_schemathesis(any_server: Server, tmp_path: Path) -> None:
    """Nothing is found in hundreds of generated requests, good and bad ones."""
    settings = config.demo_of(any_server.settings("test_fuzz", tmp_path))
    connection = db.connect(settings)
    now = datetime.now(UTC)
    db.insert_trades(connection, [one._replace(timestamp=now - timedelta(seconds=20 - one.trade_id)) for one in STORED])
    proofs.add_proof(connection, PROOF._replace(day=now.date()))
    environ = any_server.environ | {"MYSQL_DATABASE": "test_fuzz", "DATA_DIR": str(tmp_path), "SYMBOLS": "BTCUSDT"}
    try:
        with serving(environ, "--demo", "--stale-after", "3600") as api:
            wait_until(lambda: api.get("/api/health").status == 200)
            command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{api.address}/openapi.json"]
            # A stream has no end, and waiting for that takes most of the time. One worker: with two,
            # ast.parse() fails now and then, which hypothesis uses and which is not thread-safe in Python 3.11.
            command += ["--exclude-path", "/api/stream", "--max-examples", "12", "--workers", "1", "--no-color"]
            # As in conftest.py: a run must not fail for an example that the run before did not try.
            command += ["--generation-deterministic"]
            config_file = ["--config-file", str(ROOT / "schemathesis.toml")]
            command = [command[0], *config_file, *command[1:]]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    finally:
        ask(connection, f"DROP DATABASE {settings.mysql_database}")
        db.close(connection)

    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]


def test_a_third_export_at_once(filled: dict[str, str]) -> None:
    """Is told to come back later, and may when one of the two has ended, even one that nobody read."""
    sessions = Sessions(config.load(filled))
    assert sessions.revive()
    exports = Exports(sessions)
    times = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    first, _second = (exports.answer("BTCUSDT", times, CSV) for _ in range(2))
    with pytest.raises(HTTPException) as refused:
        exports.answer("BTCUSDT", times, CSV)

    async def gone(_message: object = None) -> Any:
        raise ConnectionError

    with pytest.raises(BaseException):  # noqa: B017, PT011
        asyncio.run(first({"type": "http", "asgi": {"spec_version": "2.4"}}, gone, gone))
    assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "10"})
    assert exports.answer("BTCUSDT", times, CSV)
    sessions.close()
