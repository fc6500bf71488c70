"""What the line every ten seconds says."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from capture import progress
from capture import progress as stats
from capture.progress import Line, Stats
from model.trade import Trade
from process import log as console

AT = datetime(2024, 8, 8, 23, 54, 15, tzinfo=UTC)


def trade(trade_id: int, symbol: str = "BTCUSDT", lag_ms: int | None = 5) -> Trade:
    """A trade whose price is its id."""
    received_at = None if lag_ms is None else AT + timedelta(milliseconds=lag_ms)
    return Trade(symbol, AT, trade_id, Decimal(trade_id), Decimal(1), True, received_at)


def test_a_line_has_the_last_price_the_count_and_the_lag() -> None:
    """A line for each symbol that was asked for, in that order; the next interval starts empty but for the price."""
    collected = Stats()
    collected.add([trade(1), trade(2, lag_ms=7), trade(9, "ETHUSDT", lag_ms=-3)])
    assert collected.take(["ETHUSDT", "BTCUSDT", "BNBUSDT"], 5) == [
        Line("ETHUSDT", Decimal(9), 1, -3, -3),
        Line("BTCUSDT", Decimal(2), 2, 5, 7),
        Line("BNBUSDT", None, 0, None, None),
    ]
    assert collected.take(["BTCUSDT"], 5) == [Line("BTCUSDT", Decimal(2), 0, None, None)]


def test_nothing_added_is_nothing_said() -> None:
    """An empty batch changes nothing."""
    collected = Stats()
    collected.add([])
    assert collected.take(["BTCUSDT"], 5) == [Line("BTCUSDT", None, 0, None, None)]


@pytest.mark.parametrize("place", [0, 1, 40, 63, 64, 3_998])
def test_a_rare_symbol_in_a_large_batch_has_its_price(place: int) -> None:
    """One trade of it among 4,000 of another, wherever it stands."""
    batch = [trade(n) for n in range(1, 4_001)]
    batch[place] = trade(7, "ETHUSDT")
    collected = Stats()
    collected.add(batch)
    line, other = collected.take(["ETHUSDT", "BTCUSDT"], 5)
    assert (line.price, line.trades) == (Decimal(7), 1)
    assert (other.price, other.trades) == (Decimal(4_000), 3_999)


def test_the_last_price_is_the_last_of_the_batch() -> None:
    """Also of a symbol whose last trade is followed by those of another."""
    batch = [trade(n) for n in range(1, 2_000)] + [trade(n, "ETHUSDT") for n in range(1, 2_000)]
    collected = Stats()
    collected.add(batch)
    assert [line.price for line in collected.take(["BTCUSDT", "ETHUSDT"], 5)] == [Decimal(1_999), Decimal(1_999)]


@pytest.mark.parametrize("size", [1, 64, 65, 127, 128, 4_000])
def test_a_batch_contributes_a_bounded_number_of_lags(size: int) -> None:
    """At most LAGS_PER_BATCH_MAX, and at least half of that from a large batch."""
    collected = Stats()
    collected.add([trade(n) for n in range(1, size + 1)])
    kept = len(collected._kept.lags)
    assert min(size, stats.LAGS_PER_BATCH_MAX // 2) <= kept <= stats.LAGS_PER_BATCH_MAX


def test_the_lags_of_an_interval_are_bounded() -> None:
    """However long nobody takes them."""
    collected = Stats()
    for n in range(1, stats.LAGS_MAX + 100):
        collected.add([trade(n, ("BTCUSDT", "ETHUSDT")[n % 2])])
    assert len(collected._kept.lags) == len(collected._kept.numbers) == stats.LAGS_MAX
    assert sum(line.trades for line in collected.take(["BTCUSDT", "ETHUSDT"], 5)) == stats.LAGS_MAX + 99


@pytest.mark.parametrize(("lag", "shown"), [(10**10, 2**31 - 1), (-(10**10), 1 - 2**31)])
def test_a_lag_of_months_is_shown_as_three_weeks(lag: int, shown: int) -> None:
    """As of a clock that was never set."""
    collected = Stats()
    collected.add([trade(1, lag_ms=lag)])
    assert collected.take(["BTCUSDT"], 5) == [Line("BTCUSDT", Decimal(1), 1, shown, shown)]


def test_a_back_filled_trade_has_no_lag() -> None:
    """Without a time of receipt there is nothing to measure."""
    collected = Stats()
    collected.add([trade(1, lag_ms=None)])
    assert collected.take(["BTCUSDT"], 5) == [Line("BTCUSDT", Decimal(1), 1, None, None)]


@pytest.mark.parametrize(
    ("price", "text"),
    [
        ("61837.63000000", "61837.63"),
        ("61837.00000000", "61837.00"),
        ("61837", "61837.00"),
        ("0.00000001", "0.00000001"),
        ("1E-8", "0.00000001"),
        ("1E+3", "1000.00"),
        ("999999999999.99999999", "999999999999.99999999"),
        ("100.10", "100.10"),
    ],
)
def test_a_price_is_shown_without_padding(price: str, text: str) -> None:
    """No exponent, no float, two decimals at least."""
    assert progress.price_text(Decimal(price)) == text


def test_a_symbols_part_of_the_line() -> None:
    """With and without trades and lag; the lag can be negative."""
    assert progress.symbol_text(Line("BTCUSDT", Decimal("1.5"), 25, -3, 12), 10.0) == "BTCUSDT 1.50 2.5/s lag -3/12 ms"
    assert progress.symbol_text(Line("BTCUSDT", Decimal("1.5"), 0, None, None), 10.0) == "BTCUSDT 1.50 0.0/s"
    assert progress.symbol_text(Line("BTCUSDT", None, 0, None, None), 10.0) == "BTCUSDT no trade yet"
    assert console.counters_text([("queue", 0), ("committed", 12)]) == "queue 0, committed 12"


def test_of_many_symbols_the_busiest_and_all_together_are_shown() -> None:
    """In the order of the symbols, with the lag of all trades; a line for each of 1,500 would be read by nobody."""
    names = [f"S{number:04}" for number in range(1_500)]
    collected = Stats()
    for number, name in enumerate(names):
        collected.add([trade(1 + extra, name, lag_ms=number) for extra in range(3 if number in (7, 900) else 1)])
    lines = collected.take(names, 2)
    assert [line.symbol for line in lines] == ["S0007", "S0900", "all 1,500"]
    assert [line.trades for line in lines] == [3, 3, 1_504]
    assert lines[-1].lag_ms_p99 == 1_484
    assert progress.symbol_text(lines[-1], 10.0) == "all 1,500 150.4/s lag 749/1484 ms"
    assert progress.symbol_text(collected.take(names, 2)[-1], 10.0) == "all 1,500 no trade yet"
    assert len(collected.take(names[:2], 2)) == 2
