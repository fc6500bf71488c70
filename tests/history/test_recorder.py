"""Another recorder's API as a source: what is believed of its answers, and how often it is asked."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from binance import rest
from history import recorder
from history.recorder import GarbageError, Numbered, Recorder, RecorderError, RefusedError
from model.trade import Trade
from tests.support.scripted_rest import Clock, Reply, Script, ScriptedRest, always

TOKEN = "0123456789abcdef"


def row(number: int, **changed: object) -> dict[str, object]:
    """A trade as the API gives it."""
    return {
        "symbol": "BTCUSDT",
        "trade_id": number,
        "timestamp": "2025-03-01T12:00:00.250Z",
        "price": "97123.45000000",
        "quantity": "0.00012000",
        "buyer_is_maker": False,
        "received_at": "2025-03-01T12:00:00.262Z",
    } | changed


def page(*rows: dict[str, object], next_id: object = None, symbol: str = "BTCUSDT", **more: object) -> bytes:
    """An answer of the API."""
    body = {"symbol": symbol, "trades": rows, "next_id": next_id, "missing": 0} | more
    return json.dumps(body).encode()


@contextmanager
def talking(script: Script, token: str | None = None) -> Iterator[tuple[ScriptedRest, Recorder, Clock]]:
    """A server with a script, and a client whose waits are only noted."""
    clock = Clock()
    with ScriptedRest(script) as server:
        client = Recorder(server.url, token, clock.wait)
        yield server, client, clock
        client.close()


def test_a_page_becomes_back_filled_trades() -> None:
    """Exact, and without the other's time of receipt."""
    when = datetime(2025, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    first, last = (Trade("BTCUSDT", when, n, Decimal("97123.45"), Decimal("0.00012"), False) for n in (7, 9))

    found = recorder.parse_numbered("BTCUSDT", (7, 20), 2, page(row(7), row(9), next_id=12))

    assert found == Numbered([first, last], 12)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"<html>502 Bad Gateway</html>",
        page(row(7), row(9))[:-20],
        page(row(7, price=97123.45)),
        page(row(7, price="NaN")),
        page(row(7, price="1e5")),
        page(row(7, price="-1")),
        page(row(7, price="0")),
        page(row(7, quantity="0.000000001")),
        page(row(7, quantity=None)),
        page(row(7, trade_id="7")),
        page(row(7, trade_id=7.0)),
        page(row(7, buyer_is_maker=1)),
        page(row(7, timestamp="2025-03-01T12:00:00Z")),
        page(row(7, timestamp="2025-03-01T12:00:00.250+01:00")),
        page(row(7, timestamp="2025-13-01T12:00:00.250Z")),
        page(row(7, timestamp="1970-03-01T12:00:00.250Z")),
        page(row(7, symbol="ETHUSDT")),
        page(row(4)),
        page(row(21)),
        page(row(8), row(7)),
        page(row(7), row(7)),
        page(row(7), row(8), row(9)),
        page(row(7), next_id=7),
        page(row(7), next_id=21),
        page(next_id=4),
        page(row(7), next_id="9"),
        page(row(7)).replace(b"BTCUSDT", b"BTC\xff\xff\xff\xff"),
    ],
)
def test_what_is_no_answer_is_not_used_in_part(body: bytes) -> None:
    """A row too many, one that was not asked for, a float: all of it is refused."""
    with pytest.raises(GarbageError):
        recorder.parse_numbered("BTCUSDT", (5, 20), 2, body)


@given(some.binary(max_size=300) | some.text(max_size=100).map(lambda text: page(row(7, price=text, timestamp=text))))
def test_no_answer_raises_anything_else(body: bytes) -> None:
    """Whatever comes, it is garbage or nothing."""
    for parse in (lambda: recorder.parse_numbered("BTCUSDT", (5, 20), 2, body), lambda: recorder.parse_symbols(body)):
        try:
            parse()
        except GarbageError:
            continue


def test_the_question_and_the_token() -> None:
    """The ids and the number of trades, packed answers, and the token in a header."""
    packed = Reply(gzip.compress(page(row(7))), headers={"Content-Encoding": "gzip"})
    with talking(always(packed), TOKEN) as (server, client, _clock):
        found = client.fetch("BTCUSDT", (5, 20), 2)

    assert [trade.trade_id for trade in found.trades] == [7]
    assert server.asked == [("/api/trades/BTCUSDT/by-id", {"first_id": "5", "last_id": "20", "limit": "2"})]


BUSY = Reply(b'{"detail": "the database is away"}', 503, {"Retry-After": "17"})
CUT = Reply(page(row(7)), announced=9_999, end="close")


@pytest.mark.parametrize(
    "bad", [BUSY, CUT, Reply(status=429), Reply(status=500), Reply(b"{", announced=99, end="reset")]
)
def test_what_passes_is_asked_again(bad: Reply) -> None:
    """After growing waits, and not before the time that the other says."""
    answers: Iterator[Any] = iter([bad, bad, Reply(page(row(7)))])
    with talking(lambda _path, _query: next(answers)) as (_server, client, clock):
        assert len(client.fetch("BTCUSDT", (5, 20)).trades) == 1

    assert len(clock.waits) == 2
    assert min(clock.waits) >= (17 if bad is BUSY else 0.5)


@pytest.mark.parametrize(
    ("bad", "tries", "words"),
    [
        (BUSY, recorder.TRIES_MAX, "the database is away"),
        (CUT, recorder.TRIES_MAX, "IncompleteRead"),
        (Reply(b"x" * 5_000), recorder.TRIES_MAX, "longer than 4096 bytes"),
        (Reply(b"<html>"), recorder.GARBAGE_TRIES_MAX, "not a page of trades"),
        (Reply(status=401), 1, "RECORDER_TOKEN (environment or .env) is wrong"),
        (Reply(b'{"detail": "there is no such page"}', 404), 1, "there is no such page"),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:9/"}), 1, "HTTP 302"),
    ],
)
def test_it_is_not_asked_for_ever(bad: Reply, tries: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded number of times; of what does not pass by waiting once. No error has the token in it."""
    monkeypatch.setattr(rest, "BODY_BYTES_MAX", 4_096)
    with talking(always(bad), TOKEN) as (server, client, _clock), pytest.raises(RecorderError) as caught:
        client.fetch("BTCUSDT", (5, 20))

    assert len(server.asked) == tries
    assert words in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert isinstance(caught.value, RefusedError) == (tries == 1)


def test_who_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that drips in slowly is given up, as is a port where nobody listens."""
    monkeypatch.setattr(rest, "CALL_S_MAX", 0.1)
    monkeypatch.setattr(recorder, "TRIES_MAX", 2)
    with (
        talking(always(Reply(page(row(7)), drip_s=0.01))) as (_server, client, _clock),
        pytest.raises(RecorderError, match="not complete"),
    ):
        client.fetch("BTCUSDT", (5, 20))
    with pytest.raises(RecorderError, match="refused"):
        Recorder("http://127.0.0.1:9", None, Clock().wait).fetch_symbols()


def test_a_token_that_others_can_read_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Over http to another machine; not to this one, and not over https."""
    for url in ("http://127.0.0.1:8000", "http://localhost:8000", "https://other.example"):
        Recorder(url, TOKEN).close()
    assert caplog.text == ""
    Recorder("http://other.example:8000", TOKEN).close()
    assert "http://other.example:8000 is not https" in caplog.text
