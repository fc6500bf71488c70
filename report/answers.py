"""The answers as JSON: the shapes that the API and `query_examples.py --json` share, and how they are filled.

Prices and quantities are strings of the digits that are stored, times ISO 8601 in UTC with milliseconds and a Z. The
OpenAPI description is made of these shapes.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from model import candles as model_candles
from model import trade as model_trade
from model.times import floor_ms
from report.text import iso
from storage import questions

RESOLUTIONS = {"1m": model_candles.MINUTE, "1h": model_candles.HOUR, "1d": model_candles.DAY}
RESOLUTION_NAMES = {seconds: name for name, seconds in RESOLUTIONS.items()}

Amount = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,12}\.[0-9]{8}$",
        description="An exact decimal, as the exchange wrote it; never a JSON number, which would round it.",
        examples=["97123.45000000"],
    ),
]
Time = Annotated[
    str,
    Meta(
        description="UTC, ISO 8601, with milliseconds.",
        examples=["2025-11-20T10:15:09.250Z"],
        extra_json_schema={"format": "date-time"},
    ),
]
Id = Annotated[int, Meta(ge=0, description="Exact in JavaScript up to 2^53 - 1.", examples=[4000000123])]
Count = Annotated[int, Meta(ge=0)]


class Trade(msgspec.Struct, frozen=True):
    """A trade. `timestamp` is the exchange's clock, `received_at` this recorder's; null: the trade was back-filled."""

    symbol: str
    trade_id: Id
    timestamp: Time
    price: Amount
    quantity: Amount
    buyer_is_maker: bool
    received_at: Time | None


class AgedTrade(Trade, frozen=True):
    """A trade and its age at the time that was asked about; negative where the exchange's clock runs ahead."""

    age_ms: int


class Second(msgspec.Struct, frozen=True):
    """What traded in the second of `time`, and as of `time` the last trade up to then, whose price was the price then.

    Of several trades at the low or the high the earliest is given; null: nothing traded in that second.
    """

    symbol: str
    time: Time
    second: Time
    count: Count
    first: Trade | None
    low: Trade | None
    high: Trade | None
    last: Trade | None
    as_of: AgedTrade | None


class Range(msgspec.Struct, frozen=True):
    """What traded in [start, end); of several trades at the low or the high the earliest is given. Null: nothing did.

    `as_of`: if nothing traded, the last trade before, whose price was the price at `start`.
    """

    symbol: str
    start: Time
    end: Time
    count: Count
    first: Trade | None
    low: Trade | None
    high: Trade | None
    last: Trade | None
    as_of: AgedTrade | None


class Bar(msgspec.Struct, frozen=True):
    """A candle: what traded from `timestamp` on, for the time that its resolution says.

    `trades` is the number of ids from the first to the last: exact where no gap is open.
    """

    timestamp: Time
    open: Amount
    high: Amount
    low: Amount
    close: Amount
    first_trade_id: Id
    last_trade_id: Id
    trades: Count


class Candles(msgspec.Struct, frozen=True):
    """The candles that begin in [start, end), oldest first; where nothing traded there is none."""

    symbol: str
    resolution: str
    start: Time
    end: Time
    candles: list[Bar]


ANSWERS = (AgedTrade, Second, Range, Candles)
"""One for each question; the API's description has them all."""


def as_dict(shape: msgspec.Struct) -> dict[str, Any]:
    """The shape for a JSON document that is made otherwise."""
    found: dict[str, Any] = msgspec.to_builtins(shape)
    return found


def amount(value: Decimal) -> str:
    """The digits that are stored."""
    return f"{value:.8f}"


def time(value: datetime) -> str:
    """As in `Time`; a microsecond clock is floored."""
    return iso(floor_ms(value))


def trade(stored: model_trade.Trade) -> Trade:
    """A row of `trades`."""
    return Trade(*_columns(stored))


def maybe(stored: model_trade.Trade | None) -> Trade | None:
    """A row of `trades`, if there is one."""
    return None if stored is None else trade(stored)


def aged(stored: questions.Aged) -> AgedTrade:
    """A row of `trades` and its age."""
    return AgedTrade(*_columns(stored.trade), stored.age_ms)


def maybe_aged(stored: questions.Aged | None) -> AgedTrade | None:
    """A row of `trades` and its age, if there is one."""
    return None if stored is None else aged(stored)


def _columns(stored: model_trade.Trade) -> tuple[str, int, str, str, str, bool, str | None]:
    symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at = stored
    received = None if received_at is None else time(received_at)
    return symbol, trade_id, iso(timestamp), amount(price), amount(quantity), buyer_is_maker, received


def _marks(found: questions.Second | questions.Range) -> tuple[Trade | None, Trade | None, Trade | None, Trade | None]:
    return maybe(found.first), maybe(found.low), maybe(found.high), maybe(found.last)


def second(found: questions.Second) -> Second:
    """The answer about a second."""
    return Second(
        found.symbol, iso(found.time), iso(found.second), len(found.trades), *_marks(found), maybe_aged(found.as_of)
    )


def low_and_high(found: questions.Range) -> Range:
    """The answer about a range."""
    return Range(found.symbol, iso(found.start), iso(found.end), found.count, *_marks(found), maybe_aged(found.as_of))


def candles(found: questions.Candles) -> Candles:
    """The answer about candles."""
    name, rows = RESOLUTION_NAMES[found.resolution], list(map(bar, found.candles))
    return Candles(found.symbol, name, iso(found.start), iso(found.end), rows)


def bar(candle: model_candles.Candle) -> Bar:
    """A row of `candles`."""
    opened, high, low, close = map(amount, (candle.open, candle.high, candle.low, candle.close))
    ids = (candle.first_trade_id, candle.last_trade_id)
    return Bar(iso(candle.timestamp), opened, high, low, close, *ids, candle.trades)
