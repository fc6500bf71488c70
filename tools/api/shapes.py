"""What the API answers beside the questions (report/answers.py): the shapes of its JSON, and how they are filled.

The OpenAPI description is made of both.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi.responses import JSONResponse
from msgspec import Meta

import db
from model import gaps
from model.times import MILLISECOND
from report.answers import ANSWERS, Amount, Bar, Count, Id, Latest, Missing, QuoteSum, Sum, Time, Trade, time
from report.text import iso
from storage import gaps as stored_gaps


class Symbols(msgspec.Struct, frozen=True):
    """The symbols of which trades are stored, in order."""

    symbols: list[str]


class LatestOfAll(msgspec.Struct, frozen=True):
    """The newest trade of each symbol, in order of the symbols. `next_after`: the `after` of the next page; null: none.
    `missing`: the sum of theirs."""

    latest: list[Latest]
    next_after: str | None
    missing: Missing


class Page(msgspec.Struct, frozen=True):
    """Trades of [start, end) in order of time and id. `next_after_id`: the `after_id` of the next page; null: none.
    `missing` is that of the time from the place before the first trade of this page to the last, or to `end`."""

    symbol: str
    trades: list[Trade]
    next_after_id: Id | None
    missing: Missing


class Numbered(msgspec.Struct, frozen=True):
    """Trades by rising id. `next_id`: the `first_id` of the next page; null: none. `missing`: how many of the ids that
    were asked for, up to the next page or to the last, are not stored here."""

    symbol: str
    trades: list[Trade]
    next_id: Id | None
    missing: Count


class Newest(msgspec.Struct, frozen=True):
    """The last trades, newest first. `missing` is that of the time from the first to the last of them."""

    symbol: str
    trades: list[Trade]
    missing: Missing


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
    """The open gaps with the highest ids, or of a range the longest, and how many there are in all."""

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
    """`status` is ok, stale (no new trades) or down (no database). Only a symbol that SYMBOLS names can be stale; those
    of a pattern make the status stale if none of them has new trades.
    `open_gaps` and `missing` are null if the database, which would know, is down."""

    status: Annotated[str, Meta(extra_json_schema={"enum": ["ok", "stale", "down"]})]
    time: Time
    database: bool
    demo: bool
    stale_after_s: float
    open_gaps: Count | None
    missing: Count | None
    symbols: dict[str, SymbolHealth]


class Tick(msgspec.Struct, frozen=True):
    """What has happened since the last tick of this stream: how many trades, the low and the high of their price, the
    last of them (newest first), the candles that are growing, by resolution. `lag_ms`: the median of the last trades'
    time from the exchange's clock to this recorder's."""

    symbol: str
    time: Time
    count: Count
    low: Amount | None
    high: Amount | None
    latest: Trade
    tape: list[Trade]
    candles: dict[str, list[Bar]]
    per_second: float | None
    lag_ms: int | None


class LastDay(msgspec.Struct, frozen=True):
    """The 24 hours up to the newest trade, as they were a few seconds ago. `missing`: how many ids are missing then.
    `unknown_before`: the time of the oldest stored trade, if it is less than 24 hours before; null: it is not."""

    low: Amount
    high: Amount
    volume: Sum
    quote_volume: QuoteSum
    missing: Missing
    unknown_before: Time | None


class SymbolStatus(SymbolHealth, frozen=True):
    """A symbol's health, speed and lag, and the trade whose price was the price a minute, an hour and a day before the
    newest one; null: none is stored from before then. `day` null: it is not known yet."""

    per_second: float | None
    lag_ms: int | None
    before: dict[str, Trade | None]
    day: LastDay | None


class Status(msgspec.Struct, frozen=True):
    """How the recorder is, once a second. `database` false: nothing else is known of what is stored, since (`trouble`)
    it is `away`, or `silent`: there, but without an answer. `capture`: whether one is `running` on this machine,
    `frozen` (its process is suspended) or `stopped`; null: not known. `open_gaps` and `missing` count those of all
    symbols, and `newest` is the time of the newest trade of all; `symbols` has those of this stream."""

    time: Time
    database: bool
    trouble: Annotated[str | None, Meta(extra_json_schema={"enum": ["away", "silent", None]})]
    capture: Annotated[str | None, Meta(extra_json_schema={"enum": ["running", "frozen", "stopped", None]})]
    database_name: str
    demo: bool
    newest: Time | None
    open_gaps: Count | None
    missing: Count | None
    symbols: dict[str, SymbolStatus]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no answer, and what to do: problem details of RFC 9457."""

    type: str = "about:blank"
    title: Annotated[str, Meta(examples=["Not Found"])]
    status: Annotated[int, Meta(examples=[404])]
    detail: Annotated[str, Meta(examples=["no trade of 'XRPUSDT' is stored; /api/symbols lists the symbols"])]


class Mistake(msgspec.Struct, frozen=True):
    """A parameter that cannot be used: where it is (`query`, its name), and why."""

    loc: list[str]
    msg: str
    type: str


class Mistakes(Problem, frozen=True, kw_only=True):
    """The parameters that cannot be used; `detail` names them in a sentence."""

    errors: list[Mistake]


def problem(status: int, detail: str) -> Problem:
    """The problem of an HTTP status."""
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)


SHAPES = (*ANSWERS, Symbols, LatestOfAll, Page, Numbered, Newest, Gaps, Health, Trade, Tick, Status, Problem, Mistakes)


class Json(JSONResponse):
    """An answer of one of these shapes, with its ETag: whoever has the same already is told so by 304 (door.py)."""

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status_code, headers)
        self.headers.setdefault("Cache-Control", "private, no-cache")
        if status_code == 200:
            self.headers["ETag"] = f'W/"{hashlib.blake2b(self.body, digest_size=12).hexdigest()}"'

    def render(self, content: Any) -> bytes:
        """The shape as UTF-8."""
        return msgspec.json.encode(content)


class Refusal(Json):
    """An answer that says why there is none."""

    media_type = "application/problem+json"

    def __init__(self, content: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, content.status, {"Cache-Control": "no-store", **(headers or {})})


def components() -> dict[str, Any]:
    """The shapes as JSON Schema, by name."""
    return dict(msgspec.json.schema_components(SHAPES, ref_template="#/components/schemas/{name}")[1])


def age_ms(since: datetime, now: datetime | None = None) -> int:
    """The milliseconds from `since` until `now` (default: this machine's clock)."""
    return ((now or datetime.now(UTC)) - since) // MILLISECOND


def gap(row: gaps.Gap) -> Gap:
    """A row of `gaps` that is open."""
    times = map(time, (row.detected_at, row.timestamp_before, row.timestamp_after))
    return Gap(row.symbol, row.first_trade_id, row.last_trade_id, row.missing, row.reason, *times)


def symbol_health(stored: db.Trade | None, missing: stored_gaps.OpenGaps, stale_after_s: float | None) -> SymbolHealth:
    """How fresh a symbol is; `stale_after_s` None: it is not captured, so it cannot be stale."""
    age = None if stored is None else age_ms(stored.timestamp)
    stale = stale_after_s is not None and (age is None or age > stale_after_s * 1000)
    return SymbolHealth(None if stored is None else iso(stored.timestamp), age, stale, *missing)
