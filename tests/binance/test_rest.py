"""rest.py: the exchange's rows, its limits, and every way in which an answer can be none."""

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binance import rest, units
from binance.limits import Cooldown
from binance.rest import Rest, RestError, parse_rows
from model.trade import Trade
from tests.support.scripted_rest import WEIGHT_HEADER, Clock, Reply, always, exchange_info, row, rows, served, talking
from tests.support.stand_in import StandIn

AT = datetime(2024, 8, 8, 23, 54, 15, 343_000, tzinfo=UTC)


def failure(client: Rest) -> str:
    """Why a call fails; one line."""
    with pytest.raises(RestError) as caught:
        client.fetch_trades("BTCUSDT", 1)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


# Rows.


def test_a_row_is_a_trade_without_a_time_of_receipt() -> None:
    """Field by field, with the symbol that was asked for."""
    page = parse_rows("BTCUSDT", json.dumps([row(1)]).encode())
    assert page.trades == [Trade("BTCUSDT", AT, 1, Decimal("61837.63"), Decimal("0.02"), True, None)]
    assert page.refused == []
    assert [type(value) for value in page.trades[0]] == [str, datetime, int, Decimal, Decimal, bool, type(None)]


@pytest.mark.parametrize("stamp", [1_723_161_255_343, 1_723_161_255_343_000, 1_723_161_255_343_999])
def test_a_time_in_either_unit_is_floored(stamp: int) -> None:
    """As a REST server answers that is asked for microseconds, and as one does that does not know them."""
    page = parse_rows("BTCUSDT", json.dumps([row(1, time=stamp)]).encode())
    assert page.trades[0].timestamp == AT
    assert page.stamp == stamp


def test_the_stamp_of_a_page_is_that_of_its_first_trade() -> None:
    """Not of a row that is none; of a page without trades it is 0."""
    assert parse_rows("BTCUSDT", json.dumps([row(0), row(2), row(3)]).encode()).stamp == row(2)["time"]
    assert [parse_rows("BTCUSDT", body).stamp for body in (b"[]", b"[1]")] == [0, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("id", value) for value in ("1", 1.0, True, None, 0, -1, 2**63, 2**70)),
        *(("price", value) for value in (1, 1.5, None, "", "NaN", "0", "-1", "1e3", "1.123456789", "1" * 13)),
        *(("qty", value) for value in (1, None, "Infinity", "0.0", "+1", " 1")),
        *(("time", value) for value in ("1", 1.0, None, True, 0, 1_483_228_799_999, 4_102_444_800_000, 10**18)),
        *(("isBuyerMaker", value) for value in ("true", 1, 0, None)),
    ],
)
def test_a_row_that_is_no_trade_does_not_take_the_others_along(name: str, value: object) -> None:
    """It is given back as it came, with the reason."""
    bad = row(2, **{name: value})
    page = parse_rows("BTCUSDT", json.dumps([row(1), bad, row(3)]).encode())
    assert [trade.trade_id for trade in page.trades] == [1, 3]
    ((reason, text),) = page.refused
    assert reason.startswith("not a trade: ")
    assert json.loads(text) == bad


@pytest.mark.parametrize("name", ["id", "price", "qty", "time", "isBuyerMaker"])
def test_a_row_without_a_field_is_refused(name: str) -> None:
    """Each of the five is needed, the others are not."""
    short = {key: value for key, value in row(1).items() if key != name}
    assert len(parse_rows("BTCUSDT", json.dumps([short]).encode()).refused) == 1
    needed = {key: value for key, value in row(1).items() if key not in ("quoteQty", "isBestMatch")}
    assert len(parse_rows("BTCUSDT", json.dumps([needed]).encode()).trades) == 1


@pytest.mark.parametrize("item", [b"null", b"1", b'"x"', b"[]", b"{}", b"[" * 900 + b"]" * 900, b'{"id":"\xff"}'])
def test_an_item_that_is_no_object_is_refused(item: bytes) -> None:
    """Whatever stands in the list."""
    body = b"[" + json.dumps(row(1)).encode() + b"," + item + b"]"
    page = parse_rows("BTCUSDT", body)
    assert (len(page.trades), len(page.refused)) == (1, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"<html>",
        b"\xff",
        b'"[]"',
        b'{"code":-1121,"msg":"Invalid symbol."}',
        b"[1,",
        b"[{]",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"[] []",
        b"NaN",
    ],
)
def test_a_body_that_is_no_list_is_an_error(body: bytes) -> None:
    """HTML, an error object, half a list, nonsense."""
    with pytest.raises(RestError):
        parse_rows("BTCUSDT", body)


@settings(max_examples=200, deadline=None)
@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=10).map(lambda v: json.dumps(v).encode())
)
def test_no_body_raises_anything_else(body: bytes) -> None:
    """Any bytes, any JSON."""
    try:
        page = parse_rows("BTCUSDT", body)
    except RestError:
        return
    assert all(isinstance(text, bytes) for _, text in page.refused)


# Calls.


def test_a_call_says_what_it_wants_and_keeps_its_connection() -> None:
    """exchangeInfo once for the limit of weight, then historicalTrades, all over one connection."""
    with talking() as (server, client, clock, _):
        assert [trade.trade_id for trade in client.fetch_trades("BTCUSDT", 5, 3).trades] == [5, 6, 7]
        assert len(client.fetch_trades("ETHUSDT", 1).trades) == 1_000
        assert server.asked == [
            ("exchangeInfo", {"symbol": "BTCUSDT"}),
            ("historicalTrades", {"symbol": "BTCUSDT", "fromId": "5", "limit": "3"}),
            ("historicalTrades", {"symbol": "ETHUSDT", "fromId": "1", "limit": "1000"}),
        ]
        assert len(server.clients) == 1
        assert server.units == ["MICROSECOND"] * 3
        assert clock.waits == []


def test_an_answer_in_milliseconds_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trades are taken; one in microseconds, or without trades, is nothing to say."""
    monkeypatch.setattr(units, "_said", set())
    with talking(always(Reply(b"[]"))) as (server, client, clock, cooldown):
        client.fetch_trades("BTCUSDT", 1)
        server.script = served
        client.fetch_trades("BTCUSDT", 1)
        assert caplog.records == []
        server.script = always(Reply(json.dumps([row(1, time=1_723_161_255_343)]).encode()))
        other = Rest(server.url, cooldown, clock.wait)
        for each in (client, client, other):
            assert each.fetch_trades("BTCUSDT", 1).trades[0].timestamp == AT
        other.close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"REST (BINANCE_REST_URL={server.url}) answers in milliseconds" in line


def test_a_symbol_that_is_not_ascii_arrives() -> None:
    """As UTF-8 in the query."""
    with talking() as (server, client, _, _):
        client.fetch_trades("币安人生USDT", 1, 1)
        assert server.calls == [{"symbol": "币安人生USDT", "fromId": "1", "limit": "1"}]


@pytest.mark.parametrize("status", [429, 418])
@pytest.mark.parametrize(
    ("header", "wait_s"),
    [("7", 7.0), ("259200", 259_200.0), (None, 60.0), ("soon", 60.0), ("-5", 60.0), ("1" * 30, 259_200.0)],
)
def test_too_many_requests_are_obeyed_process_wide(status: int, header: str | None, wait_s: float) -> None:
    """Retry-After orders a pause in the shared cooldown; the next call of anyone waits for its end."""
    headers = {} if header is None else {"Retry-After": header}
    with talking() as (server, client, clock, cooldown):
        client.fetch_trades("BTCUSDT", 1)
        server.script = always(Reply(b'{"code":-1003,"msg":"x"}', status, headers))
        assert f"HTTP {status}" in failure(client)
        assert cooldown.left_s() == wait_s
        server.script = served
        before = len(server.asked)
        other = Rest(server.url, cooldown, clock.wait)
        assert len(other.fetch_trades("ETHUSDT", 1).trades) == 1_000
        assert len(server.asked) == before + 2
        assert clock.waits == [wait_s]
        other.close()


def test_a_pause_is_obeyed_even_if_its_body_never_comes() -> None:
    """The header says it all."""
    with talking(always(Reply(b"x", 429, {"Retry-After": "7"}, announced=100, end="close"))) as (
        _,
        client,
        _,
        cooldown,
    ):
        failure(client)
        assert cooldown.left_s() == 7.0


def test_a_call_that_may_not_be_made_is_not_made() -> None:
    """The wait was cut short, as at the end of the program: the exchange is left in peace all the same."""
    with talking() as (server, _, _, cooldown):
        client = Rest(server.url, cooldown, lambda _seconds: None)
        cooldown.order(100.0)
        failure(client)
        assert server.asked == []


def test_half_of_the_weight_is_used() -> None:
    """With a limit of 200 and 75 used, one more call is allowed; with 76 it waits for the exchange's next minute."""
    used = ["75"]
    date = format_datetime(datetime(2026, 1, 1, 12, 0, 20, tzinfo=UTC), usegmt=True)

    def counted(symbol: str, query: dict[str, str]) -> Reply:
        return served(symbol, query)._replace(headers={WEIGHT_HEADER: used[0]})

    with talking(counted) as (server, client, clock, _):
        server.info = exchange_info(200)
        for _ in range(3):
            client.fetch_trades("BTCUSDT", 1, 1)
        assert clock.waits == []
        used[0] = "76"
        client.fetch_trades("BTCUSDT", 1, 1)
        server.script = lambda symbol, query: served(symbol, query)._replace(
            headers={WEIGHT_HEADER: "25", "Date": date}
        )
        client.fetch_trades("BTCUSDT", 1, 1)
        assert len(clock.waits) == 1
        assert 1.0 <= clock.waits[0] <= 61.0
        client.fetch_trades("BTCUSDT", 1, 1)
        assert len(clock.waits) == 1


def test_unknown_symbols_are_asked_about_within_the_weight() -> None:
    """The limit of weight is not told with them, so each asks for it again; another failure makes nobody wait."""
    refusal = Reply(b'{"code":-1121,"msg":"Invalid symbol."}', 400, {WEIGHT_HEADER: "3001"})
    with talking() as (server, client, clock, _):
        server.info = refusal._replace(status=500, body=b"")
        for _ in range(2):
            failure(client)
        assert clock.waits == []
        server.info = refusal
        for _ in range(3):
            failure(client)
        assert len(clock.waits) == 2


@pytest.mark.parametrize("header", ["", "x", "-1", "9" * 30, "1.5", "1,2"])
def test_a_weight_header_that_is_none_is_passed_over(header: str) -> None:
    """It is no reason to fail or to wait."""
    with talking(lambda s, q: served(s, q)._replace(headers={WEIGHT_HEADER: header, "Date": "no date"})) as (
        _,
        client,
        clock,
        _,
    ):
        client.fetch_trades("BTCUSDT", 1, 1)
        client.fetch_trades("BTCUSDT", 1, 1)
        assert clock.waits == []


@pytest.mark.parametrize("limit", [0, 1, -5, 49])
def test_a_tiny_limit_slows_and_does_not_stop(limit: int) -> None:
    """Each call waits for a minute, and is made."""
    with talking() as (server, client, clock, _):
        server.info = exchange_info(limit)
        for _ in range(3):
            assert len(client.fetch_trades("BTCUSDT", 1, 1).trades) == 1
        assert len(clock.waits) == 3


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"<html>", b"{}", b'{"rateLimits":null}', b'{"rateLimits":[1]}', b'{"rateLimits":{"a":1}}']
    + [
        json.dumps({"rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "limit": limit}]}).encode()
        for limit in ("x", None, "")
    ]
    + [b'{"rateLimits":[{"rateLimitType":"REQUEST_WEIGHT"}]}', b"[" * 100_000, b'{"rateLimits":[{"limit":5}]}'],
)
def test_an_exchange_info_of_another_shape_is_an_error_and_asked_for_again(body: bytes) -> None:
    """No crash, and the next call asks once more."""
    with talking() as (server, client, _, _):
        server.info = Reply(body)
        assert "exchangeInfo" in failure(client)
        server.info = exchange_info()
        assert len(client.fetch_trades("BTCUSDT", 1).trades) == 1_000


def test_without_a_limit_of_weight_the_documented_one_counts() -> None:
    """exchangeInfo may come to list none."""
    with talking() as (server, client, clock, _):
        server.info = Reply(b'{"rateLimits":[]}')
        assert len(client.fetch_trades("BTCUSDT", 1).trades) == 1_000
        assert clock.waits == []


# Answers that are none.


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Invalid symbol"),
        (403, "BINANCE_REST_URL"),
        (404, "HTTP 404"),
        (451, "country"),
        (500, "HTTP 500"),
        (502, "HTTP 502"),
        (503, "HTTP 503"),
        (504, "HTTP 504"),
        (204, "HTTP 204"),
        (302, "HTTP 302"),
    ],
)
def test_another_status_is_an_error_that_says_why(status: int, words: str) -> None:
    """On one line, with the exchange's words; the next call is made as if nothing had been."""
    body = b"" if status == 204 else b'{"code":-1121,\n\n"msg":"Invalid symbol."}' + b"x" * 5_000
    with talking(always(Reply(body, status, {"Location": "/api/v3/elsewhere"}))) as (server, client, clock, cooldown):
        assert words in failure(client)
        assert cooldown.left_s() == 0
        server.script = served
        assert len(client.fetch_trades("BTCUSDT", 1).trades) == 1_000
        assert ("elsewhere", {}) not in server.asked
        assert clock.waits == []


_WHOLE = rows(1, 1_000).body


@pytest.mark.parametrize(
    "reply",
    [
        Reply(_WHOLE[:10_000], announced=len(_WHOLE), end="close"),
        Reply(_WHOLE[:10_000], announced=len(_WHOLE), end="reset"),
        Reply(_WHOLE[: _WHOLE.index(b"},") + 1] + b"]", announced=len(_WHOLE), end="close"),
        Reply(b"", announced=100, end="close"),
        Reply(b"%x\r\n%b\r\n" % (len(_WHOLE), _WHOLE), headers={"Transfer-Encoding": "chunked"}, end="close"),
        Reply(b"%x\r\n%b" % (len(_WHOLE), _WHOLE[:5_000]), headers={"Transfer-Encoding": "chunked"}, end="close"),
        Reply(b"zz\r\nx\r\n0\r\n\r\n", headers={"Transfer-Encoding": "chunked"}),
        Reply(_WHOLE, headers={"Content-Encoding": "gzip"}),
        Reply(_WHOLE[:10_000]),
        Reply(b"<html>maintenance</html>"),
        Reply(b""),
        Reply(b'{"code":-1000,"msg":"An unknown error occurred"}'),
    ],
    ids=range(12),
)
def test_a_body_that_is_not_whole_is_an_error_and_the_next_call_succeeds(reply: Reply) -> None:
    """Also when what came is valid JSON by chance: a truncated list is not a shorter list."""
    with talking() as (server, client, _, _):
        client.fetch_trades("BTCUSDT", 1, 1)
        server.script = always(reply)
        failure(client)
        server.script = served
        assert len(client.fetch_trades("BTCUSDT", 1).trades) == 1_000


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_without_end_is_cut(monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
    """Memory is bounded, whether the length is announced or not; the next call succeeds."""
    monkeypatch.setattr(rest, "BODY_BYTES_MAX", 300_000)
    big = b"[" + b" " * 3_000_000 + b"]"
    reply = (
        Reply(b"%x\r\n%b\r\n0\r\n\r\n" % (len(big), big), headers={"Transfer-Encoding": "chunked"})
        if chunked
        else Reply(big)
    )
    with talking() as (server, client, _, _):
        client.fetch_trades("BTCUSDT", 1, 1)
        server.script = always(reply)
        assert "longer than 300000" in failure(client)
        server.script = served
        assert len(client.fetch_trades("BTCUSDT", 1).trades) == 1_000


def test_a_body_of_the_largest_size_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound itself is still allowed."""
    monkeypatch.setattr(rest, "BODY_BYTES_MAX", len(_WHOLE))
    with talking() as (_, client, _, _):
        assert len(client.fetch_trades("BTCUSDT", 1).trades) == 1_000


def test_a_slow_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing for READ_S_MAX, and a body that drips for ever: both end, and the next call succeeds."""
    usual_s = rest.READ_S_MAX
    monkeypatch.setattr(rest, "READ_S_MAX", 0.3)
    monkeypatch.setattr(rest, "CALL_S_MAX", 0.6)
    with talking() as (server, client, _, _):
        client.fetch_trades("BTCUSDT", 1, 1)

        def silent(_symbol: str, _query: dict[str, str]) -> Reply:
            server.over.wait()
            return Reply(end="close")

        for script in (silent, always(Reply(b" " * 1_000, drip_s=0.05))):
            server.script = script
            began = time.monotonic()
            failure(client)
            assert time.monotonic() - began < usual_s
        server.script = served
        assert len(client.fetch_trades("BTCUSDT", 1).trades) == 1_000


@pytest.mark.parametrize("url", ["http://no-such-host.invalid", "http://127.0.0.1:{port}"])
def test_nobody_there_is_an_error_that_names_the_setting(url: str, closed_port: int) -> None:
    """No name, or no server."""
    client = Rest(url.format(port=closed_port), Cooldown())
    assert "BINANCE_REST_URL" in failure(client)


# The stand-in exchange, which is faithful.


@pytest.fixture(scope="module")
def exchange() -> Iterator[StandIn]:
    """An exchange whose tape waits for a client for ever: there is its history only."""
    with StandIn("--wait-clients", "1", "--rest-lag", "0", "--weight-limit", "300", "--history", "3000") as running:
        yield running


def test_the_limit_is_read_and_the_weight_stays_at_half(exchange: StandIn) -> None:
    """Of 300 a minute at most 150 are used before the wait for the next minute, and no 429 comes."""
    clock = Clock()

    def wait(seconds: float) -> None:
        clock.wait(seconds)
        raise InterruptedError

    client = Rest(exchange.http, Cooldown(), wait)
    with contextlib.suppress(InterruptedError):
        for n in range(100):
            page = client.fetch_trades("BTCUSDT", 3_999_997_001 + n, 2)
            assert [trade.trade_id for trade in page.trades] == [3_999_997_001 + n, 3_999_997_002 + n]
    assert clock.waits[0] <= 61.0
    used = int(exchange.get("/api/v3/ping").headers["x-mbx-used-weight-1m"])
    # The minute may have turned meanwhile, which only makes it less.
    assert used <= 150 + 1
    client.close()


def test_a_jump_is_visible(exchange: StandIn) -> None:
    """An id that is not served gives the next one that is; the caller must look at the first id."""
    client = Rest(exchange.http, Cooldown())
    client._weight_max = 10**6
    assert client.fetch_trades("BTCUSDT", 1, 1).trades[0].trade_id == 3_999_997_001
    assert client.fetch_trades("BTCUSDT", 5_000_000_000, 1).trades == []
    assert client.fetch_trades("BTCUSDT", 4_000_000_000, 5).trades[0].timestamp < datetime.now(UTC) + timedelta(days=1)
    client.close()


def test_the_stand_in_answers_in_microseconds(exchange: StandIn) -> None:
    """So nothing is said of it."""
    client = Rest(exchange.http, Cooldown())
    client._weight_max = 10**6
    assert len(str(client.fetch_trades("BTCUSDT", 3_999_997_001, 1).stamp)) == 16
    client.close()
