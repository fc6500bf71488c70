"""What the feed knows of one symbol, without a database: the candles of its ticks."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from model import candles
from model.trade import Trade
from tests.makers import MIDNIGHT, trade
from tests.support.tables import plain_bars
from tools.api.symbol_feed import TICK_CANDLES, Line, Start


def at(seconds: float) -> datetime:
    """So long after midnight."""
    return MIDNIGHT + timedelta(seconds=seconds)


def begun(trades: Sequence[Trade]) -> Line:
    """A line that begins when these are stored."""
    growing = [plain_bars(trades, resolution)[-1] for resolution in candles.OFFERED]
    return Line(Start(list(reversed(trades)), growing), 0.0)


def test_candles_of_every_resolution_grow() -> None:
    """Each is whole: of what was stored before the line began, and of what has come since."""
    before = [trade(number, at(2_000 + number / 4), f"{number}") for number in range(1, 30)]
    after = [trade(number, at(2_000 + number / 4), f"{number}") for number in range(30, 400)]
    line = begun(before)
    told: dict[tuple[int, datetime], candles.Candle] = {}
    for first in range(0, len(after), 7):
        line.add(after[first : first + 7])
        told |= {(one.resolution, one.timestamp): one for one in line.grown}
        line.tick(float(first), {})

    for resolution in candles.OFFERED:
        expected = [bar for bar in plain_bars([*before, *after], resolution) if bar.last_trade_id >= 30]
        assert [told[resolution, bar.timestamp] for bar in expected] == expected
    assert sorted(line.growing) == sorted(plain_bars([*before, *after], one)[-1] for one in candles.OFFERED)


def test_a_trade_whose_time_goes_back_joins_its_candle() -> None:
    """It belongs to the second before that of the newest trade, and neither candle loses anything."""
    line = begun([trade(1, at(1.9), "5")])
    line.add([trade(2, at(2.1), "7")])
    line.tick(1.0, {})
    line.add([trade(3, at(1.95), "9")])
    back = [(one.resolution, one.trades, str(one.high)) for one in line.grown]
    line.tick(2.0, {})
    line.add([trade(4, at(2.2), "8")])

    assert back[0] == (1, 2, "9")
    assert [(one.first_trade_id, one.trades) for one in line.grown if one.resolution == 1] == [(2, 2)]


def test_a_candle_that_is_not_known_whole_is_not_told() -> None:
    """A trade of a second of which some may have been stored before the line began."""
    line = begun([trade(1, at(10), "5")])
    line.add([trade(2, at(7), "7")])

    assert [one.resolution for one in line.grown] == [60, 300, 900, 3_600, 14_400, 86_400]


def test_a_tick_has_a_bounded_number_of_candles() -> None:
    """Of very many the newest."""
    line = begun([trade(1, at(0), "5")])
    line.add([trade(number, at(number * 2), "5") for number in range(2, 1_000)])
    seconds = [one.timestamp for one in line.grown if one.resolution == 1]

    assert (len(seconds), seconds[-1]) == (TICK_CANDLES, at(1_998))
