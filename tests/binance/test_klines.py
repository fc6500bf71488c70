"""klines.py: what a kline is, and that an answer with anything else in it is refused as a whole."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binance.klines import Kline, parse_klines
from binance.rest import RestError

BEGIN_US = 1_499_040_000_000_000
BEGIN = datetime(2017, 7, 3, tzinfo=UTC)
NEXT_US = BEGIN_US + 60_000_000


def row(minute: int = 0, unit: int = 1, **changed: object) -> list[object]:
    """A row, so many minutes after BEGIN, in microseconds or, with `unit` 1000, in milliseconds."""
    begin = BEGIN_US + 60_000_000 * minute
    fields: dict[str, object] = {
        "open_time": begin // unit,
        "open": "0.01634790",
        "high": "0.80000000",
        "low": "0.01575800",
        "close": "0.01577100",
        "volume": "148976.11427815",
        "close_time": (begin + 60_000_000) // unit - 1,
        "quote_volume": "2434.19055334",
        "trades": 308,
        "bought": "1756.87402397",
        "bought_quote": "28.46694368",
        "unused": "0",
    }
    return list((fields | changed).values())


def body(*rows: object) -> bytes:
    """An answer."""
    return json.dumps(rows).encode()


def test_a_row_is_a_kline() -> None:
    """The documented sample, field by field, exact and of the right types."""
    (found,) = parse_klines(body(row()))
    assert found == Kline(
        BEGIN,
        Decimal("0.01634790"),
        Decimal("0.80000000"),
        Decimal("0.01575800"),
        Decimal("0.01577100"),
        Decimal("148976.11427815"),
        Decimal("2434.19055334"),
        Decimal("1756.87402397"),
        Decimal("28.46694368"),
        308,
    )
    assert [type(value) for value in found] == [datetime, *[Decimal] * 8, int]
    assert found.start.utcoffset() == timedelta()


def test_either_unit_is_the_same_kline() -> None:
    """In milliseconds, as from a host that does not know microseconds."""
    assert parse_klines(body(row(), row(1))) == parse_klines(body(row(unit=1000), row(1, 1000)))


def test_no_rows_are_no_klines() -> None:
    """Nothing traded there yet."""
    assert parse_klines(b"[]") == []


def test_zero_and_volumes_of_any_size_are_exact() -> None:
    """A minute without trades, and totals of coins that are traded by the million millions."""
    zeros: dict[str, Any] = dict.fromkeys(
        ("open", "high", "low", "close", "volume", "quote_volume", "bought", "bought_quote"), "0.00000000"
    )
    (found,) = parse_klines(body(row(trades=0, **zeros)))
    assert found[1:] == (*[Decimal(0)] * 8, 0)
    (found,) = parse_klines(body(row(volume="98765432109876543210.12345678", quote_volume="9" * 32 + ".00000001")))
    assert str(found.volume) == "98765432109876543210.12345678"
    assert str(found.quote_volume) == "9" * 32 + ".00000001"


def test_minutes_without_a_kline_are_passed_over() -> None:
    """Open times rise; that they are consecutive is not documented."""
    assert [one.start - BEGIN for one in parse_klines(body(row(0), row(7)))] == [timedelta(), timedelta(minutes=7)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("open", "high", "low", "close", "volume", "quote_volume", "bought", "bought_quote")
            for value in (1, 1.5, None, "", "NaN", "-1", "+1", "1e3", " 1", "1.", ".5", "1.123456789", "1" * 33, "1,5")
        ),
        *(("trades", value) for value in ("1", 1.0, None, True, -1, 2**63, 2**70)),
        *(
            ("open_time", value)
            for value in ("1", 1.0, None, True, 0, 10**18, NEXT_US + 1, NEXT_US // 1000 + 1, NEXT_US + 1_000)
        ),
        *(("close_time", value) for value in ("1", 1.5, None, 0, NEXT_US - 1, NEXT_US // 1000 - 1)),
    ],
)
def test_a_row_that_is_no_kline_refuses_the_answer(name: str, value: object) -> None:
    """It is named, with its text, on one line."""
    changed: dict[str, Any] = {name: value}
    bad = row(1, **changed)
    with pytest.raises(RestError, match=r"row 2 of the answer is not a kline: ") as caught:
        parse_klines(body(row(0), bad, row(2)))
    assert json.dumps(bad)[:100] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("item", [[], row()[:11], [*row(), "0"], {}, None, 1, "x", dict(enumerate(row()))])
def test_an_item_of_another_shape_refuses_the_answer(item: object) -> None:
    """A list of exactly twelve."""
    with pytest.raises(RestError, match=r"row 2 of the answer is not a kline: "):
        parse_klines(body(row(0), item, row(2)))


@pytest.mark.parametrize("minute", [0, -1, -1_000])
def test_open_times_rise(minute: int) -> None:
    """A row that repeats or runs back refuses the answer."""
    with pytest.raises(RestError, match=r"row 2 of the answer is not a kline: it starts at "):
        parse_klines(body(row(0), row(minute)))


@pytest.mark.parametrize("unused", [None, 0, "17928899.62484339", []])
def test_the_unused_field_may_be_anything(unused: object) -> None:
    """The documentation says to ignore it."""
    assert len(parse_klines(body(row(unused=unused)))) == 1


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"null", b"<html>", b"\xff", b'{"code":-1121,"msg":"x"}', b"[1,", b"[" * 100_000, b"[] []"]
)
def test_a_body_that_is_no_list_is_an_error(text: bytes) -> None:
    """HTML, an error object, half a list, nonsense."""
    with pytest.raises(RestError):
        parse_klines(text)


_json = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@settings(max_examples=200, deadline=None)
@given(st.binary() | st.recursive(_json, st.lists, max_leaves=15).map(lambda value: json.dumps(value).encode()))
def test_no_body_raises_anything_else(text: bytes) -> None:
    """Any bytes, any JSON."""
    try:
        found = parse_klines(text)
    except RestError:
        return
    assert found == []
