"""rest.py: what is asked for by time: klines, the first of them, and the first trade at or after a moment."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from binance import rest
from binance.limits import Cooldown
from binance.rest import Rest, RestError
from tests.support.scripted_rest import WEIGHT_HEADER, Reply, always, exchange_info, talking
from tests.support.stand_in import StandIn

AT = datetime(2024, 8, 8, 23, 54, 15, 343_000, tzinfo=UTC)


@pytest.fixture(scope="module")
def exchange() -> Iterator[StandIn]:
    """An exchange whose tape waits for a client for ever: there is its history only."""
    with StandIn("--wait-clients", "1", "--rest-lag", "0", "--history", "3000") as running:
        yield running


def kline_row(minute: int) -> list[object]:
    """A row of klines, so many minutes after BEGIN."""
    begin = 1_723_161_240_000_000 + 60_000_000 * minute
    prices = ["61837.63000000", "61838.00000000", "61800.00000000", "61801.10000000"]
    return [begin, *prices, "2.5", begin + 59_999_999, "154500.1", 7, "1.25", "77250.05", "0"]


BEGIN = datetime(2024, 8, 8, 23, 54, tzinfo=UTC)


def aggregate(number: int, first_id: int, price: str = "61837.63000000") -> dict[str, object]:
    """A row of aggTrades."""
    at = 1_723_161_255_342_789 + number
    return {"a": number, "p": price, "q": "1", "f": first_id, "l": first_id, "T": at, "m": True, "M": True}


def test_klines_are_asked_for_from_a_time_on() -> None:
    """With startTime in milliseconds, which every host knows, at the start that was given or just behind it."""
    with talking(always(Reply(json.dumps([kline_row(0), kline_row(1)]).encode()))) as (server, client, _, _):
        found = client.fetch_klines("BTCUSDT", "1m", BEGIN, 2)
        assert [(one.start, one.trades) for one in found] == [(BEGIN, 7), (BEGIN + timedelta(minutes=1), 7)]
        client.fetch_klines("ETHUSDT", "1h", BEGIN + timedelta(microseconds=1))
        assert server.asked[1:] == [
            ("klines", {"symbol": "BTCUSDT", "interval": "1m", "startTime": "1723161240000", "limit": "2"}),
            ("klines", {"symbol": "ETHUSDT", "interval": "1h", "startTime": "1723161240001", "limit": "1000"}),
        ]
        server.script = always(Reply(json.dumps([kline_row(0), kline_row(0)]).encode()))
        with pytest.raises(RestError, match="row 2 "):
            client.fetch_klines("BTCUSDT", "1m", BEGIN)


def test_the_first_minute_is_that_of_the_first_kline() -> None:
    """Asked for from 1970 on; a symbol that was never traded has none."""
    with talking(always(Reply(json.dumps([kline_row(0)]).encode()))) as (server, client, _, _):
        assert client.fetch_first_minute("BTCUSDT") == BEGIN
        assert server.asked[-1][1] == {"symbol": "BTCUSDT", "interval": "1m", "startTime": "0", "limit": "1"}
        server.script = always(Reply(b"[]"))
        assert client.fetch_first_minute("BTCUSDT") is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([aggregate(5, 50), aggregate(6, 51)], 50),
        ([aggregate(5, -1, "0"), aggregate(6, 50, "0.00000000"), aggregate(7, 52)], 52),
        ([aggregate(5, -1), aggregate(6, 50)], 50),
        ([aggregate(0, 0)], 0),
        ([aggregate(5, 2**63 - 1)], 2**63 - 1),
        ([], None),
    ],
)
def test_the_first_id_of_a_time_is_that_of_its_first_aggregate(
    rows: list[dict[str, object]], expected: int | None
) -> None:
    """What is marked as a duplicate is passed over, and the id 0 is one; where nothing has traded since, None."""
    with talking(always(Reply(json.dumps(rows).encode()))) as (server, client, _, _):
        assert client.fetch_first_id("BTCUSDT", AT) == expected
        assert server.asked[1:] == [("aggTrades", {"symbol": "BTCUSDT", "startTime": "1723161255343", "limit": "10"})]


def test_a_page_of_duplicates_is_passed_over_by_id() -> None:
    """The next ones are asked for by the id of the last, within a bound; at the end of them there is no trade."""

    def script(_symbol: str, query: dict[str, str]) -> Reply:
        first = int(query.get("fromId", "100"))
        found = [aggregate(n, -1, "0") if n < 115 else aggregate(n, 7 * n) for n in range(first, first + 10)]
        return Reply(json.dumps(found).encode())

    with talking(script) as (server, client, _, _):
        assert client.fetch_first_id("BTCUSDT", AT) == 7 * 115
        assert server.asked[-1] == ("aggTrades", {"symbol": "BTCUSDT", "fromId": "110", "limit": "10"})
        server.script = lambda s, q: Reply(b"[]") if "fromId" in q else script(s, q)
        assert client.fetch_first_id("BTCUSDT", AT) is None
        server.script = always(Reply(json.dumps([aggregate(100, -1, "0")]).encode()))
        before = len(server.asked)
        with pytest.raises(RestError, match="no trades"):
            client.fetch_first_id("BTCUSDT", AT)
        assert len(server.asked) == before + rest.AGGREGATE_CALLS_MAX


@pytest.mark.parametrize(
    "changed", [{"f": 2**63}, {"f": -2}, {"f": "1"}, {"f": None}, {"p": 1}, {"p": "x"}, {"a": "1"}, {"a": None}]
)
def test_an_aggregate_that_is_none_is_an_error(changed: dict[str, object]) -> None:
    """Nothing is guessed from it."""
    reply = Reply(json.dumps([aggregate(1, 1) | changed]).encode())
    with talking(always(reply)) as (_, client, _, _), pytest.raises(RestError, match="aggregates"):
        client.fetch_first_id("BTCUSDT", AT)


@pytest.mark.parametrize(("call", "weight"), [("klines", 2), ("aggTrades", 4)])
def test_each_call_waits_by_its_own_weight(call: str, weight: int) -> None:
    """At the last unit of weight that is left for it, it is made at once; at one less it waits for the next minute."""
    used = [100 - weight]

    def ask(client: Rest) -> None:
        client.fetch_klines("BTCUSDT", "1m", BEGIN) if call == "klines" else client.fetch_first_id("BTCUSDT", AT)

    with talking(lambda _s, _q: Reply(headers={WEIGHT_HEADER: str(used[0])})) as (server, client, clock, _):
        server.info = exchange_info(200)
        ask(client)
        ask(client)
        assert clock.waits == []
        used[0] += 1
        ask(client)
        ask(client)
        assert len(clock.waits) == 1
        assert [name for name, _ in server.asked] == ["exchangeInfo", *[call] * 4]


def test_a_time_is_an_id(exchange: StandIn) -> None:
    """The first id of a trade's millisecond is that of the first trade in it, by the stand-in's own microseconds."""
    client = Rest(exchange.http, Cooldown())
    client._weight_max = 10**6
    trades = client.fetch_trades("BTCUSDT", 3_999_997_001, 1_000).trades
    assert trades[0].timestamp < trades[500].timestamp
    when = trades[500].timestamp
    expected = next(trade.trade_id for trade in trades if trade.timestamp >= when)
    assert client.fetch_first_id("BTCUSDT", when) == expected
    assert client.fetch_first_id("BTCUSDT", when - timedelta(microseconds=999)) == expected
    assert client.fetch_first_id("BTCUSDT", datetime.now(UTC) + timedelta(days=1)) is None
    client.close()
