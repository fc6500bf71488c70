"""What the API answers: the shapes of its JSON, of which the OpenAPI description is made, and how they are filled.

Prices and quantities are strings of the digits that are stored, times ISO 8601 in UTC with milliseconds and a Z.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from fastapi.responses import JSONResponse
from msgspec import Meta

import db
from model import candles, gaps
from model.times import MILLISECOND, floor_ms
from report.text import iso
from storage import gaps as stored_gaps

RESOLUTIONS = {"1m": candles.MINUTE, "1h": candles.HOUR, "1d": candles.DAY}
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


class Latest(Trade, frozen=True):
    """The newest trade. `age_ms` is negative where the exchange's clock runs ahead of this machine's."""

    age_ms: int


class Symbols(msgspec.Struct, frozen=True):
    """The symbols of which trades are stored, in order."""

    symbols: list[str]


class Second(msgspec.Struct, frozen=True):
    """What traded in the second of `time`, and the last trade up to `time`, whose price was the price then.

    Of several trades at the lowest or the highest price the earliest is given; null: nothing traded in that second.
    """

    symbol: str
    time: Time
    second: Time
    count: Count
    first: Trade | None
    last: Trade | None
    min: Trade | None
    max: Trade | None
    as_of: Trade | None


class Range(msgspec.Struct, frozen=True):
    """What traded in [start, end): null, if nothing did. Of several trades at an extreme the earliest is given."""

    symbol: str
    start: Time
    end: Time
    count: Count
    first: Trade | None
    last: Trade | None
    min: Trade | None
    max: Trade | None


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


class Bars(msgspec.Struct, frozen=True):
    """The candles that begin in [start, end), oldest first; where nothing traded there is none."""

    symbol: str
    resolution: str
    start: Time
    end: Time
    candles: list[Bar]


class Page(msgspec.Struct, frozen=True):
    """Trades of [start, end) in order of time and id. `next_after_id`: the `after_id` of the next page; null: none."""

    symbol: str
    trades: list[Trade]
    next_after_id: Id | None


class Newest(msgspec.Struct, frozen=True):
    """The last trades, newest first."""

    symbol: str
    trades: list[Trade]


class Gap(msgspec.Struct, frozen=True):
    """A run of ids, both ends missing, between two stored trades, whose times are given."""

    symbol: str
    first_trade_id: Id
    last_trade_id: Id
    missing: Count
    reason: str
    detected_at: Time
    timestamp_before: Time
    timestamp_after: Time


class Gaps(msgspec.Struct, frozen=True):
    """The open gaps with the highest ids, and how many there are in all."""

    count: Count
    missing: Count
    gaps: list[Gap]


class SymbolHealth(msgspec.Struct, frozen=True):
    """The newest trade's time and age; null: none is stored. `stale`: it is older than it may be."""

    latest: Time | None
    age_ms: int | None
    stale: bool
    open_gaps: Count
    missing: Count


class Health(msgspec.Struct, frozen=True):
    """`status` is ok, stale (no new trades) or down (no database). Only the symbols that are captured can be stale."""

    status: Annotated[str, Meta(extra_json_schema={"enum": ["ok", "stale", "down"]})]
    time: Time
    database: bool
    demo: bool
    stale_after_s: float
    open_gaps: Count
    missing: Count
    symbols: dict[str, SymbolHealth]


class Tick(msgspec.Struct, frozen=True):
    """What has happened since the last tick of this stream: how many trades, their lowest and highest price, the last
    of them (newest first), the candles that are growing, by resolution. `lag_ms`: the median of the last trades' time
    from the exchange's clock to this recorder's."""

    symbol: str
    time: Time
    trades: Count
    min: Amount | None
    max: Amount | None
    latest: Trade
    tape: list[Trade]
    candles: dict[str, list[Bar]]
    per_second: float | None
    lag_ms: int | None


class SymbolStatus(SymbolHealth, frozen=True):
    """A symbol's health, speed and lag, and the trade whose price was the price a minute, an hour and a day before the
    newest one; null: none is stored from before then."""

    per_second: float | None
    lag_ms: int | None
    before: dict[str, Trade | None]


class Status(msgspec.Struct, frozen=True):
    """How the recorder is, once a second. `database` false: it is away, and nothing else is known."""

    time: Time
    database: bool
    database_name: str
    demo: bool
    symbols: dict[str, SymbolStatus]


class Problem(msgspec.Struct, frozen=True):
    """Why there is no answer, and what to do."""

    detail: str


class Mistake(msgspec.Struct, frozen=True):
    """A parameter that cannot be used: where it is (`query`, its name), and why."""

    loc: list[str]
    msg: str
    type: str


class Mistakes(msgspec.Struct, frozen=True):
    """The parameters that cannot be used."""

    detail: list[Mistake]


SHAPES = (Latest, Symbols, Second, Range, Bars, Page, Newest, Gaps, Health, Trade, Tick, Status, Problem, Mistakes)


class Json(JSONResponse):
    """An answer of one of these shapes."""

    def render(self, content: Any) -> bytes:
        """The shape as UTF-8."""
        return msgspec.json.encode(content)


def components() -> dict[str, Any]:
    """The shapes as JSON Schema, by name."""
    return dict(msgspec.json.schema_components(SHAPES, ref_template="#/components/schemas/{name}")[1])


def amount(value: Decimal) -> str:
    """The digits that are stored."""
    return f"{value:.8f}"


def time(value: datetime) -> str:
    """As in `Time`; a microsecond clock is floored."""
    return iso(floor_ms(value))


def age_ms(since: datetime, now: datetime | None = None) -> int:
    """The milliseconds from `since` until `now` (default: this machine's clock)."""
    return ((now or datetime.now(UTC)) - since) // MILLISECOND


def trade(stored: db.Trade) -> Trade:
    """A row of `trades`."""
    return Trade(*_columns(stored))


def maybe(stored: db.Trade | None) -> Trade | None:
    """A row of `trades`, if there is one."""
    return None if stored is None else trade(stored)


def latest(stored: db.Trade) -> Latest:
    """The newest row of `trades`."""
    return Latest(*_columns(stored), age_ms(stored.timestamp))


def _columns(stored: db.Trade) -> tuple[str, int, str, str, str, bool, str | None]:
    symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at = stored
    received = None if received_at is None else time(received_at)
    return symbol, trade_id, iso(timestamp), amount(price), amount(quantity), buyer_is_maker, received


def second(symbol: str, when: datetime, trades: Sequence[db.Trade], as_of: db.Trade | None) -> Second:
    """The answer about a second of which `trades` are all, in order."""
    low = min(trades, key=lambda one: one.price, default=None)
    high = max(trades, key=lambda one: one.price, default=None)
    first, last = (trades[0], trades[-1]) if trades else (None, None)
    marks = map(maybe, (first, last, low, high, as_of))
    return Second(symbol, time(when), time(when.replace(microsecond=0)), len(trades), *marks)


def extremes(symbol: str, times: tuple[datetime, datetime], found: db.MinMax | None) -> Range:
    """The answer about a range."""
    start, end = map(time, times)
    if found is None:
        return Range(symbol, start, end, 0, None, None, None, None)
    first, last, low, high = map(trade, (found.first, found.last, found.low, found.high))
    return Range(symbol, start, end, found.trades, first, last, low, high)


def bar(candle: candles.Candle) -> Bar:
    """A row of `candles`."""
    opened, high, low, close = map(amount, (candle.open, candle.high, candle.low, candle.close))
    ids = (candle.first_trade_id, candle.last_trade_id)
    return Bar(iso(candle.timestamp), opened, high, low, close, *ids, candle.trades)


def gap(row: gaps.Gap) -> Gap:
    """A row of `gaps` that is open."""
    times = map(time, (row.detected_at, row.timestamp_before, row.timestamp_after))
    return Gap(row.symbol, row.first_trade_id, row.last_trade_id, row.missing, row.reason, *times)


def symbol_health(stored: db.Trade | None, missing: stored_gaps.OpenGaps, stale_after_s: float | None) -> SymbolHealth:
    """How fresh a symbol is; `stale_after_s` None: it is not captured, so it cannot be stale."""
    age = None if stored is None else age_ms(stored.timestamp)
    stale = stale_after_s is not None and (age is None or age > stale_after_s * 1000)
    return SymbolHealth(None if stored is None else iso(stored.timestamp), age, stale, *missing)
