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
from storage import proofs, questions

RESOLUTIONS = dict(zip(("1s", "1m", "5m", "15m", "1h", "4h", "1d"), model_candles.OFFERED, strict=True))
"""In seconds; a day has a whole number of each."""
RESOLUTION_NAMES = {seconds: name for name, seconds in RESOLUTIONS.items()}

Amount = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,12}\.[0-9]{8}$",
        description="An exact decimal, as the exchange wrote it; never a JSON number, which would round it.",
        examples=["97123.45000000"],
    ),
]
Sum = Annotated[
    str,
    Meta(pattern=r"^[0-9]{1,20}\.[0-9]{8}$", description="An exact sum of quantities.", examples=["1234.56780000"]),
]
QuoteSum = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,32}\.[0-9]{16}$",
        description="An exact sum of price × quantity.",
        examples=["119922222.0412340000000000"],
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


Missing = Annotated[
    int,
    Meta(
        ge=0,
        description="How many trade ids are missing (in open gaps) in the time of this answer; those of a gap that"
        " reaches beyond it are all counted, since nobody knows which belong here. Above 0: the answer may be wrong.",
        examples=[0],
    ),
]


class Latest(AgedTrade, frozen=True):
    """The newest stored trade, its age, and how many ids are in the open gaps that reach up to its millisecond."""

    missing: Missing


class Second(msgspec.Struct, frozen=True):
    """What traded in the second of `time`, and as of `time` the last trade up to then, whose price was the price then.

    Of several trades at the low or the high the earliest is given; null: no trade of that second is stored. As long as
    ids are `missing`, each of these may be wrong.

    `unknown_before`, `unknown_after`: the time of the oldest and of the newest stored trade, if the time that is asked
    about reaches beyond it; nobody knows what traded there. Null: it does not.
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
    missing: Missing
    unknown_before: Time | None
    unknown_after: Time | None


class Instant(msgspec.Struct, frozen=True):
    """The price at `time`: that of `as_of`, the last trade up to and including its millisecond; null: none is stored.

    The price may have been another as long as ids are `missing` between that trade and `time`, or if it `is_newest`,
    so that nothing is known of the time behind it.
    """

    symbol: str
    time: Time
    as_of: AgedTrade | None
    missing: Missing
    is_newest: bool


class Range(msgspec.Struct, frozen=True):
    """What traded in [start, end); of several trades at the low or the high the earliest is given. Null: no trade of
    that time is stored. As long as ids are `missing`, each of these may be wrong.

    `as_of`: if nothing traded, the last trade before, whose price was the price at `start`.

    `unknown_before`, `unknown_after`: the time of the oldest and of the newest stored trade, if the time that is asked
    about reaches beyond it; nobody knows what traded there. Null: it does not.
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
    missing: Missing
    unknown_before: Time | None
    unknown_after: Time | None


class Bar(msgspec.Struct, frozen=True):
    """A candle: what traded from `timestamp` on, for the time that its resolution says, in exact sums.

    `volume` is of the base asset, `quote_volume` the sum of price × quantity; of both, the part in which the taker
    bought. `missing`: the ids in the open gaps that reach into it; a gap that reaches into several counts in each.
    """

    timestamp: Time
    open: Amount
    high: Amount
    low: Amount
    close: Amount
    volume: Sum
    quote_volume: QuoteSum
    taker_buy_volume: Sum
    taker_buy_quote_volume: QuoteSum
    trades: Count
    first_trade_id: Id
    last_trade_id: Id
    missing: Missing


class Candles(msgspec.Struct, frozen=True):
    """The candles that begin in [start, end), oldest first; where nothing traded there is none."""

    symbol: str
    resolution: str
    start: Time
    end: Time
    candles: list[Bar]


class Volume(msgspec.Struct, frozen=True):
    """What was traded in [start, end), in exact sums, and of that the part in which the taker bought.

    `vwap`: the volume-weighted average price, quote_volume / volume, rounded to 8 decimals, half to even; null: nothing
    traded. `missing`: how many ids are in the open gaps that reach into the range.

    `unknown_before`, `unknown_after`: the time of the oldest and of the newest stored trade, if the time that is asked
    about reaches beyond it; nobody knows what traded there. Null: it does not.
    """

    symbol: str
    start: Time
    end: Time
    count: Count
    volume: Sum
    quote_volume: QuoteSum
    taker_buy_volume: Sum
    taker_buy_quote_volume: QuoteSum
    vwap: Amount | None
    missing: Missing
    unknown_before: Time | None
    unknown_after: Time | None


Day = Annotated[str, Meta(description="A day, UTC.", examples=["2025-11-20"], extra_json_schema={"format": "date"})]
Verdict = Annotated[
    str,
    Meta(
        description="equal: the same as the exchange's archive, row by row; agrees: every minute agrees with the"
        " exchange's klines; contiguous: all ids are there, nothing is compared yet; gapped: ids are missing;"
        " different: stored trades differ from the exchange's; unverifiable: the exchange has nothing to compare with.",
        extra_json_schema={"enum": list(proofs.VERDICTS)},
    ),
]


class DayCoverage(msgspec.Struct, frozen=True):
    """What is known of a UTC day: the verdict of its last audit, and what is stored and missing now.

    `verdict`: null if it was never audited; not better than what is known now: `gapped` if ids are missing now,
    `contiguous` at best if trades were stored after the audit. `reason`: why it is not better. `missing`: each id of
    the open gaps that reach into the day, and those before the first stored trade that the audit knows of.
    `day_was_over`: whether the day was over when it was audited.
    """

    day: Day
    verdict: Verdict | None
    reason: str
    trades: Count
    missing: Missing
    proven_at: Time | None
    compared_with: Annotated[str, Meta(description="The address of a file, klines, or empty.")]
    day_was_over: bool


class Coverage(msgspec.Struct, frozen=True):
    """The days between the first and the last stored trade, or those of them that were asked for, oldest first; of more
    than 400 the newest. `missing`: of all of them; a gap that reaches into several counts once."""

    symbol: str
    days: list[DayCoverage]
    missing: Missing


ANSWERS = (Latest, Second, Range, Candles, Volume, Coverage)
"""One for each question that the API answers; its description has them all."""


def as_dict(shape: msgspec.Struct) -> dict[str, Any]:
    """The shape for a JSON document that is made otherwise."""
    found: dict[str, Any] = msgspec.to_builtins(shape)
    return found


def amount(value: Decimal) -> str:
    """The digits that are stored."""
    return f"{value:.8f}"


def quote_amount(value: Decimal) -> str:
    """All digits of a sum of products of two amounts."""
    return f"{value:.16f}"


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


def latest(stored: questions.Latest) -> Latest:
    """The newest row of `trades`."""
    return Latest(*_columns(stored.trade), stored.age_ms, stored.missing)


def _columns(stored: model_trade.Trade) -> tuple[str, int, str, str, str, bool, str | None]:
    symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at = stored
    received = None if received_at is None else time(received_at)
    return symbol, trade_id, iso(timestamp), amount(price), amount(quantity), buyer_is_maker, received


def _marks(found: questions.Second | questions.Range) -> tuple[Trade | None, Trade | None, Trade | None, Trade | None]:
    return maybe(found.first), maybe(found.low), maybe(found.high), maybe(found.last)


def second(found: questions.Second, outside: questions.Outside) -> Second:
    """The answer about a second."""
    return Second(
        found.symbol,
        iso(found.time),
        iso(found.second),
        len(found.trades),
        *_marks(found),
        maybe_aged(found.as_of),
        found.missing,
        *_unknown(outside),
    )


def _unknown(outside: questions.Outside) -> tuple[str | None, str | None]:
    before, after = (None if when is None else time(when) for when in outside)
    return before, after


def instant(found: questions.Instant) -> Instant:
    """The answer about an instant."""
    return Instant(found.symbol, iso(found.time), maybe_aged(found.as_of), found.missing, found.is_newest)


def low_and_high(found: questions.Range, outside: questions.Outside) -> Range:
    """The answer about a range."""
    about = found.symbol, iso(found.start), iso(found.end), found.count
    return Range(*about, *_marks(found), maybe_aged(found.as_of), found.missing, *_unknown(outside))


def candles(found: questions.Candles) -> Candles:
    """The answer about candles."""
    rows = [bar(candle, missing) for candle, missing in zip(found.candles, found.missing, strict=True)]
    return Candles(found.symbol, RESOLUTION_NAMES[found.resolution], iso(found.start), iso(found.end), rows)


def bar(candle: model_candles.Candle, missing: int) -> Bar:
    """A candle, and how many ids are missing in it."""
    fields = candle._asdict() | dict(zip(_SUMS, _sums(candle), strict=True))
    fields |= {name: amount(fields[name]) for name in ("open", "high", "low", "close")}
    del fields["symbol"], fields["resolution"]
    return Bar(**fields | {"timestamp": iso(candle.timestamp), "missing": missing})


def volume(found: questions.Volume, outside: questions.Outside) -> Volume:
    """The answer about the volume of a range."""
    vwap = None if found.vwap is None else amount(found.vwap)
    asked = found.symbol, iso(found.start), iso(found.end)
    return Volume(*asked, found.count, *_sums(found), vwap, found.missing, *_unknown(outside))


_SUMS = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


def _sums(found: model_candles.Candle | questions.Volume) -> tuple[str, str, str, str]:
    return (
        amount(found.volume),
        quote_amount(found.quote_volume),
        amount(found.taker_buy_volume),
        quote_amount(found.taker_buy_quote_volume),
    )


def coverage(found: proofs.Coverage) -> Coverage:
    """The answer about the days."""
    return Coverage(found.symbol, [_day(day) for day in found.days], found.missing)


def _day(day: proofs.DayCoverage) -> DayCoverage:
    proven_at = None if day.proven_at is None else time(day.proven_at)
    stored = day.verdict, day.reason, day.trades, day.missing
    return DayCoverage(day.day.isoformat(), *stored, proven_at, day.compared_with, day.is_over)
