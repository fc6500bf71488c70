"""The hourly comparison of what was captured with the exchange's own klines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

import config
import db
from binance.klines import Kline
from binance.limits import Cooldown
from capture import checker
from capture.checker import Checker
from model.trade import Trade
from proof import klines
from tests.makers import BTC
from tests.support.child import wait_until

MINUTE = timedelta(minutes=1)


@pytest.fixture
def start() -> datetime:
    """When the trades begin: not that of the import, since all tests may take longer than the hour that is compared."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - 20 * MINUTE


def _trade(start: datetime, number: int) -> Trade:
    when = start + number * timedelta(seconds=20)
    return Trade(BTC, when, number + 1, Decimal(100 + number), Decimal("0.5"), number % 2 == 0, when)


def _klines(start: datetime) -> list[Kline]:
    """What the exchange says of the minutes of thirty trades, three a minute."""
    found = []
    for first in range(0, 30, 3):
        trades = [_trade(start, first + n) for n in range(3)]
        bought = [trade for trade in trades if not trade.buyer_is_maker]
        sums = (
            [sum((trade.quantity for trade in part), Decimal()) for part in (trades, bought)],
            [sum((trade.price * trade.quantity for trade in part), Decimal()) for part in (trades, bought)],
        )
        prices = [trade.price for trade in trades]
        volumes = sums[0][0], sums[1][0], sums[0][1], sums[1][1]
        found.append(Kline(trades[0].timestamp, prices[0], prices[2], prices[0], prices[2], *volumes, 3))
    return found


@pytest.fixture
def stored(connection: db.Connection, start: datetime) -> None:
    """Thirty trades in ten minutes, of which all but the last are sealed."""
    db.insert_trades(connection, [_trade(start, number) for number in range(30)])
    assert db.seal(connection, [BTC], None, start + 9 * MINUTE)


@contextmanager
def _checking(settings: config.Settings, symbols: Callable[[], tuple[str, ...]] = lambda: (BTC,)) -> Iterator[Checker]:
    thread = Checker(settings, Cooldown(), symbols)
    thread.start()
    yield thread
    thread.stop()
    thread.join(10)
    assert not thread.is_alive()


def _set_up(monkeypatch: pytest.MonkeyPatch, there: list[Kline]) -> None:
    """The exchange answers at once, with these of its klines that are asked for."""
    monkeypatch.setattr(checker, "FIRST_S", 0.01)

    def fetch(_rest: object, _symbol: str, start: datetime, end: datetime) -> list[Kline]:
        return [one for one in there if start <= one.start < end]

    monkeypatch.setattr(klines, "fetch", fetch)


@pytest.mark.usefixtures("stored")
def test_minutes_that_agree(
    settings: config.Settings, start: datetime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, which says how many; what is not sealed yet is not compared."""
    caplog.set_level("INFO")
    _set_up(monkeypatch, _klines(start))
    with _checking(settings) as thread:
        wait_until(lambda: thread.agreed > 0)
    assert (thread.agreed, thread.differed) == (9, 0)
    assert "9 minutes of the last hour agree with the exchange's klines: trades, prices, volumes" in caplog.messages


@pytest.mark.usefixtures("stored")
def test_a_symbol_that_left_is_compared_once_more(
    settings: config.Settings, start: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was captured for a part of the hour; then no more."""
    monkeypatch.setattr(checker, "EVERY_S", 0.01)
    _set_up(monkeypatch, _klines(start))
    asked: list[int] = []

    def symbols() -> tuple[str, ...]:
        asked.append(1)
        return (BTC,) if len(asked) == 1 else ("NEWUSDT",)

    with _checking(settings, symbols) as thread:
        wait_until(lambda: len(asked) > 3)
    assert (thread.agreed, thread.differed) == (18, 0)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    "different", [("trades", 4), ("close", Decimal(7)), ("taker_buy_quote_volume", Decimal(1))], ids=lambda one: one[0]
)
def test_a_minute_that_differs_is_named(
    settings: config.Settings,
    start: datetime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    different: tuple[str, Any],
) -> None:
    """With its column, as a warning."""
    field, value = different
    there = _klines(start)
    there[4] = there[4]._replace(**{field: value})
    _set_up(monkeypatch, there)
    with _checking(settings) as thread:
        wait_until(lambda: thread.differed > 0)
    assert (thread.agreed, thread.differed) == (8, 1)
    line = next(message for message in caplog.messages if "klines" in message)
    assert line.startswith("1 of 9 minutes of the last hour are not as the exchange's klines")
    assert f"{BTC} {start + 4 * MINUTE:%H:%M}: {field}" in line


def test_an_exchange_that_cannot_be_asked(
    connection: db.Connection,
    settings: config.Settings,
    start: datetime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A warning, and the thread goes on."""
    db.insert_trades(connection, [_trade(start, number) for number in range(30)])
    assert db.seal(connection, [BTC], None, start + 9 * MINUTE)
    monkeypatch.setattr(checker, "FIRST_S", 0.01)
    with _checking(settings._replace(rest_url="http://127.0.0.1:9")):
        wait_until(lambda: any("could not be compared" in one for one in caplog.messages))
