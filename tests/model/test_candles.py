"""Candles of trades, without a database: boundaries, and that merging needs no order."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import candles
from model.amounts import EXACT
from model.candles import DAY, HOUR, MINUTE, Candle
from model.trade import Trade
from tests.makers import MIDNIGHT, trade
from tests.support.tables import plain_bars

QUANTITY = Decimal("0.00012")

LAST_MS = datetime(2025, 2, 28, 23, 59, 59, 999_000, tzinfo=UTC)
"""The last millisecond of a day and of a month."""


def candle(resolution: int, begin: datetime, prices: Sequence[str], ids: tuple[int, int]) -> Candle:
    """A candle of open, high, low and close of trades whose ids have no gap; each bought 0.00012."""
    opened, high, low, close = map(Decimal, prices)
    number = ids[1] - ids[0] + 1
    volume = number * Decimal("0.00012")
    quote = EXACT.multiply(sum(map(Decimal, prices[:number] if number < 3 else [*prices[:1], *prices[2:]])), QUANTITY)
    return Candle("BTCUSDT", resolution, begin, opened, high, low, close, volume, quote, volume, quote, number, *ids)


@pytest.mark.parametrize(
    ("resolution", "floor", "ceil"),
    [
        (MINUTE, datetime(2025, 2, 28, 23, 59, tzinfo=UTC), MIDNIGHT),
        (HOUR, datetime(2025, 2, 28, 23, tzinfo=UTC), MIDNIGHT),
        (DAY, datetime(2025, 2, 28, tzinfo=UTC), MIDNIGHT),
    ],
)
def test_a_bar_ends_before_the_next_begins(resolution: int, floor: datetime, ceil: datetime) -> None:
    """The last millisecond belongs to the bar that ends, the first one to the bar that begins."""
    assert (candles.floor(LAST_MS, resolution), candles.ceil(LAST_MS, resolution)) == (floor, ceil)
    assert candles.floor(MIDNIGHT, resolution) == candles.ceil(MIDNIGHT, resolution) == MIDNIGHT


@given(st.integers(0, 10**15), st.sampled_from((1, 60, 300, 900, 3_600, 14_400, 86_400)))
def test_floor_and_ceil_enclose(microseconds: int, resolution: int) -> None:
    """Both are multiples of the resolution since the epoch, and less than one bar away."""
    when = MIDNIGHT + timedelta(microseconds=microseconds)
    begin, end = candles.floor(when, resolution), candles.ceil(when, resolution)

    assert when - timedelta(seconds=resolution) < begin <= when <= end < when + timedelta(seconds=resolution)
    assert begin.timestamp() % resolution == end.timestamp() % resolution == 0


def test_one_trade_makes_a_candle_of_each_resolution() -> None:
    """A single trade is open, high, low and close of its second, minute, …, hour and day."""
    begins = {1: "23:59:59", MINUTE: "23:59", 300: "23:55", 900: "23:45", HOUR: "23:00", 14_400: "20:00", DAY: "00:00"}
    assert candles.of_trades([trade(7, LAST_MS, "97000.12345678")]) == [
        candle(resolution, datetime.fromisoformat(f"2025-02-28T{begin}+00:00"), ["97000.12345678"] * 4, (7, 7))
        for resolution, begin in begins.items()
    ]


def test_open_and_close_go_by_the_id() -> None:
    """Within a millisecond, and where time stamps go backwards, the smaller id is the earlier trade."""
    same = [trade(3, MIDNIGHT, "3"), trade(1, MIDNIGHT + timedelta(milliseconds=5), "9"), trade(2, MIDNIGHT, "1")]

    (minute,) = (bar for bar in candles.of_trades(same) if bar.resolution == MINUTE)

    assert minute == candle(MINUTE, MIDNIGHT, ["9", "9", "1", "3"], (1, 3))
    assert minute.trades == 3


def test_midnight_divides_every_resolution() -> None:
    """Two trades a millisecond apart around midnight share no candle."""
    made = candles.of_trades([trade(1, LAST_MS, "1"), trade(2, MIDNIGHT, "2")])

    assert sorted((bar.resolution, bar.first_trade_id, bar.last_trade_id) for bar in made) == [
        (resolution, trade_id, trade_id) for resolution in candles.OFFERED for trade_id in (1, 2)
    ]


TRADES = st.lists(
    st.builds(
        lambda number, second, cents: trade(
            number, MIDNIGHT + timedelta(seconds=second, milliseconds=number), str(Decimal(cents) / 100)
        ),
        st.integers(1, 500),
        st.integers(-7_200, 90_000),
        st.integers(1, 10**9),
    ),
    min_size=1,
    max_size=30,
    unique_by=lambda made: made.trade_id,
)


@given(TRADES, st.randoms(use_true_random=False))
def test_candles_need_no_order(trades: list[Trade], random: object) -> None:
    """Shuffled trades make the candles of the plain definition, volumes and all."""
    shuffled = trades.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert sorted(candles.of_trades(shuffled)) == sorted(
        bar for resolution in candles.OFFERED for bar in plain_bars(trades, resolution)
    )


@given(TRADES, st.integers(0, 30), st.integers(0, 30))
def test_joining_is_commutative_and_associative(trades: list[Trade], one: int, other: int) -> None:
    """However the trades are divided, joining their day candles gives the candle of all of them."""
    day = [made._replace(timestamp=MIDNIGHT + timedelta(milliseconds=made.trade_id)) for made in trades]
    parts = [part for part in (day[:one], day[one : one + other], day[one + other :]) if part]
    bars = [candles.of_trades(part)[-1] for part in parts]

    for order in permutations(bars):
        assert reduce(candles.joined, order) == candles.of_trades(day)[-1]


DAY_US = 86_400_000_000
EDGE_US = st.one_of(
    st.integers(0, 3 * DAY_US),
    st.tuples(st.sampled_from([60, 3_600, 86_400]), st.integers(0, 72), st.sampled_from([-1_000, 0, 1_000])).map(
        lambda parts: parts[0] * parts[1] * 1_000_000 + parts[2]
    ),
)


@given(EDGE_US, EDGE_US, st.one_of(st.none(), EDGE_US))
def test_pieces_are_the_range(start_us: int, end_us: int, sealed_us: int | None) -> None:
    """The pieces of a range follow each other from its start to its end; candles are whole and sealed, and few pieces
    suffice."""
    start, end = MIDNIGHT + timedelta(microseconds=start_us), MIDNIGHT + timedelta(microseconds=end_us)
    until = None if sealed_us is None else (MIDNIGHT + timedelta(microseconds=sealed_us)).replace(microsecond=0)

    cut = candles.pieces(start, end, until)

    assert len(cut) <= 10
    assert [piece.start for piece in cut] + [end] == ([start] if cut else []) + [piece.end for piece in cut] + (
        [] if cut else [end]
    )
    for resolution, begin, over in cut:
        assert begin < over
        if resolution:
            assert candles.floor(begin, resolution) == begin
            assert candles.floor(over, resolution) == over
            assert until is not None
            assert over <= until
            assert resolution != candles.FINE or begin >= candles.floor(until, MINUTE)
        elif until is not None and begin < until:
            # More than a minute of sealed trades is read only where the range does not reach a whole one.
            assert min(over, until) - begin < timedelta(minutes=2)
    assert bool(cut) == (start < end)
