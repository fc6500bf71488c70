"""Stored minutes beside the exchange's klines: what counts as the same, and what a difference says."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from binance.klines import Kline
from binance.limits import Cooldown
from binance.rest import Rest
from model.candles import Candle
from proof import klines
from proof.klines import MinuteDifference
from tests.support.stand_in import StandIn

AT = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def candle(**changes: Any) -> Candle:
    """A minute as it is stored."""
    volumes = [Decimal(text) for text in ("3.5", "350.12345678", "1.5", "150.00000001")]
    prices = [Decimal(text) for text in ("100", "101.5", "99.5", "100.5")]
    return Candle._make(["BTCUSDT", 60, AT, *prices, *volumes, 7, 11, 17])._replace(**changes)


def kline(**changes: Any) -> Kline:
    """The same minute as the exchange has it."""
    one = candle()
    same = {name: getattr(one, name) for name in Kline._fields if hasattr(one, name)}
    return Kline(**{"start": AT, **same, **changes})


def differing(here: list[Candle], there: list[Kline]) -> list[MinuteDifference]:
    """The minutes that do not agree."""
    return klines.compare(here, there).different


def test_a_minute_that_agrees() -> None:
    """In every column; it is counted with its trades."""
    assert klines.compare([candle()], [kline()]) == klines.Agreement(1, 7, [])


@pytest.mark.parametrize(
    "column",
    [
        "trades",
        "open",
        "high",
        "low",
        "close",
        "volume",
        "quote_volume",
        "taker_buy_volume",
        "taker_buy_quote_volume",
    ],
)
def test_a_column_that_differs_is_named(column: str) -> None:
    """By the least that it can differ by."""
    least = 1 if column == "trades" else Decimal("0.00000001")
    trades = 8 if column == "trades" else 7
    assert differing([candle(**{column: getattr(candle(), column) + least})], [kline()]) == [
        MinuteDifference(AT, [column], trades, 7)
    ]


@pytest.mark.parametrize(("there", "agrees"), [("350.00000001", True), ("350.00000000", True), ("349.99999990", False)])
def test_a_sum_of_more_than_eight_decimals(there: str, agrees: bool) -> None:
    """The exchange may have cut off a part of each trade, but no more."""
    here = candle(quote_volume=Decimal("350.0000000100000001"))
    assert (differing([here], [kline(quote_volume=Decimal(there))]) == []) is agrees


def test_a_minute_that_is_on_one_side_only() -> None:
    """A kline of no trades is no difference to a minute that is no row; one with trades is."""
    nothing = kline(trades=0)
    assert differing([], [nothing]) == []
    assert differing([], [kline()]) == [MinuteDifference(AT, ["trades"], 0, 7)]
    assert differing([candle()], []) == [MinuteDifference(AT, ["trades"], 7, 0)]
    assert differing([candle()], [nothing])[0][2:] == (7, 0)


def test_missing_trades_and_wrong_minutes_are_told_apart() -> None:
    """Where the exchange has more trades, trades are missing here; else what is here is wrong."""
    minutes = [candle(timestamp=AT + n * MINUTE, trades=7 + n) for n in (-1, 0, 1)]
    found = klines.compare(minutes, [kline(start=AT + n * MINUTE) for n in (-1, 0, 1)])
    assert (found.minutes, found.trades, found.missing) == (3, 21, 1)
    assert found.wrong == [MinuteDifference(AT + MINUTE, ["trades"], 8, 7)]
    assert str(found.different[0]) == "12:29: trades (6 trades here, 7 there)"


@pytest.fixture
def rest() -> Iterator[Rest]:
    """A client of a stand-in exchange with three days of history."""
    with StandIn("--days", "3", "--day-trades", "200", "--symbols", "BTCUSDT", "--wait-clients", "1") as running:
        client = Rest(running.http, Cooldown())
        yield client
        client.close()


def test_all_minutes_of_a_time_are_fetched(rest: Rest) -> None:
    """More than an answer has, from the first to the last, each once; and how many trades a day has."""
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    found = list(klines.fetch(rest, "BTCUSDT", start, start + timedelta(days=1)))
    assert [one.start for one in found] == [start + n * MINUTE for n in range(1_440)]
    assert sum(one.trades for one in found) == 200
    assert klines.day_count(rest, "BTCUSDT", start.date()) == 200
    assert [one.start for one in klines.fetch(rest, "BTCUSDT", start, start + 3 * MINUTE)] == [
        start + n * MINUTE for n in range(3)
    ]


def test_a_day_that_the_exchange_knows_nothing_of(rest: Rest, closed_port: int) -> None:
    """Before the symbol was listed, or while REST is away: the number is not known."""
    assert klines.day_count(rest, "BTCUSDT", date(2020, 1, 1)) is None
    assert list(klines.fetch(rest, "BTCUSDT", datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC))) == []
    away = Rest(f"http://127.0.0.1:{closed_port}", Cooldown())
    assert klines.day_count(away, "BTCUSDT", date(2025, 3, 1)) is None
