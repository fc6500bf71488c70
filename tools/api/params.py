"""The parameters of the API's routes: what they look like in its description, and how a wrong one is answered."""

import difflib
import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, NoReturn

from fastapi import Path, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, WithJsonSchema

from storage.pages import EARLIEST, LATEST
from storage.values import SYMBOL_CHARS_MAX

TIME_CHARS_MAX = 40
LIMIT_DEFAULT, LIMIT_MAX = 1_000, 5_000
"""Trades on a page; the latter is about 1 MB of JSON."""
GAPS_MAX = 1_000
SYMBOLS_MAX = 5_000
"""In one answer, which is about 1 MB of JSON; the exchange has about 3,600."""
ID_MAX = 2**63 - 1
FIRST_DAY, LAST_DAY = EARLIEST.date(), LATEST.date() - timedelta(days=1)

# A plus sign that was not escaped in the address arrives as a space.
_LOST_PLUS = re.compile(r" (?=\d\d:?\d\d$)")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SECOND_60 = re.compile(r":60(?=[.Z+-]|$)")


def parse_time(value: object) -> datetime:
    """The UTC time of an ISO 8601 text; without an offset it is UTC already. Raises ValueError.

    What lies far outside of what is stored becomes EARLIEST or LATEST, which is the same question.
    """
    text = str(value).strip().upper()
    text = _SECOND_60.sub(":59", text) if "T" in text else text
    try:
        if len(text) > TIME_CHARS_MAX:
            raise ValueError
        time = datetime.fromisoformat(_LOST_PLUS.sub("+", text) if "T" in text else text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        return EARLIEST if text.startswith("0") else LATEST
    except ValueError:
        example = "2025-11-20T10:15:09Z or 2025-11-20T11:15:09.250%2B01:00"
        raise ValueError(f"not a time; write it like {example}; without an offset it is UTC") from None
    return min(max(time, EARLIEST), LATEST)


def parse_day(value: object) -> date:
    """The day of a text such as 2025-11-20. Raises ValueError.

    What lies far outside of what is stored becomes FIRST_DAY or LAST_DAY, which is the same question.
    """
    text = str(value).strip()
    try:
        # Python also reads 20251120 and 2025-W47-4.
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise ValueError("not a day; write it like 2025-11-20")
    return min(max(day, FIRST_DAY), LAST_DAY)


_TIME = {"type": "string", "format": "date-time", "examples": ["2025-11-20T10:15:09Z"]}
Time = Annotated[datetime, BeforeValidator(parse_time), WithJsonSchema(_TIME)]
_UTC = " ISO 8601; without an offset it is UTC."

_SYMBOL = "Such as BTCUSDT, in any case; /api/symbols lists them."
# As every command takes it (config.parse_symbols).
_upper = AfterValidator(lambda text: text.strip().upper())
Symbol = Annotated[str, _upper, Path(description=_SYMBOL, examples=["BTCUSDT"])]
MaybeSymbol = Annotated[
    str | None,
    AfterValidator(lambda text: text and text.strip().upper()),
    Query(description=f"Of this symbol alone. {_SYMBOL}", examples=["BTCUSDT"]),
]
Moment = Annotated[Time, Query(description="The moment." + _UTC, examples=["2025-11-20T10:15:09Z"])]
Start = Annotated[Time, Query(description="The first moment of the range." + _UTC, examples=["2025-11-20T10:00:00Z"])]
End = Annotated[Time, Query(description="The first moment after the range." + _UTC, examples=["2025-11-20T11:00:00Z"])]
MaybeStart = Annotated[
    Time,
    Query(
        description="The first moment of the range; default: that of the oldest trade." + _UTC,
        examples=["2025-11-20T10:00:00Z"],
    ),
]
MaybeEnd = Annotated[
    Time,
    Query(
        description="The first moment after the range; default: after the newest trade." + _UTC,
        examples=["2025-11-20T11:00:00Z"],
    ),
]
_Day = Annotated[
    date,
    BeforeValidator(parse_day),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2025-11-20"]}),
]
FirstDay = Annotated[
    _Day,
    Query(alias="from", description="The first day, UTC; default: that of the oldest trade.", examples=["2025-11-20"]),
]
LastDay = Annotated[
    _Day,
    Query(
        alias="to",
        description="The last day, UTC, inclusive; default: that of the newest trade.",
        examples=["2025-11-27"],
    ),
]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="How many trades at most.", examples=[100])]
After = Annotated[
    str,
    AfterValidator(lambda text: text.strip().upper()),
    Query(
        max_length=SYMBOL_CHARS_MAX,
        description="Go on behind this symbol: `next_after` of the page before.",
        examples=["BTCUSDT"],
    ),
]
SymbolLimit = Annotated[int, Query(ge=1, le=SYMBOLS_MAX, description="How many symbols at most.", examples=[1_500])]
GapLimit = Annotated[int, Query(ge=1, le=GAPS_MAX, description="How many gaps are listed at most.", examples=[20])]


class Page(BaseModel):
    """Which trades, and how many of them."""

    start: MaybeStart = EARLIEST
    end: MaybeEnd = LATEST
    after_id: int | None = Field(
        None,
        ge=0,
        le=ID_MAX,
        description="Go on behind the trade with this id: `next_after_id` of the page before.",
        examples=[4000000123],
    )
    limit: Limit = LIMIT_DEFAULT


def refuse(where: str, name: str, why: str) -> NoReturn:
    """Answers 422, naming the parameter `name`, which is in `where` (query, header)."""
    raise RequestValidationError([{"type": "value_error", "loc": (where, name), "msg": why}])


def refuse_unknown(request: Request) -> None:
    """Answers 422 if the address has a parameter that the route does not know, or one twice: most often a mistyped
    name, whose value would otherwise be ignored silently."""
    known = _names(request.scope["route"].dependant)
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            there = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
            refuse("query", name[:40], f"there is no such parameter; {there}")
        if times > 1:
            refuse("query", name, f"given {times} times; give it once")


def _names(dependant: Dependant) -> set[str]:
    found: set[str] = set()
    for field in dependant.query_params:
        model = field.field_info.annotation
        fields = getattr(model, "model_fields", None)
        found |= set(fields) if fields else {field.alias}
    return found


def check_range(start: datetime, end: datetime) -> None:
    """Answers 422 unless `start` is before `end`."""
    if start >= end:
        refuse("query", "start", "the range is empty: start must be before end")
