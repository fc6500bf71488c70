"""The parameters of the API's routes: what they look like in its description, and how a wrong one is answered."""

import re
from datetime import UTC, datetime
from typing import Annotated, NoReturn

from fastapi import Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from storage.pages import EARLIEST, LATEST

TIME_CHARS_MAX = 40
LIMIT_DEFAULT, LIMIT_MAX = 1_000, 5_000
"""Trades on a page; the latter is about 1 MB of JSON."""
GAPS_MAX = 1_000
ID_MAX = 2**63 - 1

# A plus sign that was not escaped in the address arrives as a space.
_LOST_PLUS = re.compile(r" (?=\d\d:?\d\d$)")
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


Time = Annotated[datetime, BeforeValidator(parse_time), WithJsonSchema({"type": "string", "format": "date-time"})]
_UTC = " ISO 8601; without an offset it is UTC."

Symbol = Annotated[str, Path(description="Such as BTCUSDT; /api/symbols lists them.", examples=["BTCUSDT"])]
Moment = Annotated[Time, Query(description="The moment." + _UTC, examples=["2025-11-20T10:15:09Z"])]
Start = Annotated[Time, Query(description="The first moment of the range." + _UTC, examples=["2025-11-20T10:00:00Z"])]
End = Annotated[Time, Query(description="The first moment after the range." + _UTC, examples=["2025-11-20T11:00:00Z"])]
MaybeStart = Annotated[Time, Query(description="The first moment of the range; default: that of the oldest trade.")]
MaybeEnd = Annotated[Time, Query(description="The first moment after the range; default: after the newest trade.")]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="How many trades at most.")]
GapLimit = Annotated[int, Query(ge=1, le=GAPS_MAX, description="Gaps that are listed.")]


class Page(BaseModel):
    """Which trades, and how many of them."""

    start: MaybeStart = EARLIEST
    end: MaybeEnd = LATEST
    after_id: int | None = Field(
        None, ge=0, le=ID_MAX, description="Go on behind the trade with this id: `next_after_id` of the page before."
    )
    limit: Limit = LIMIT_DEFAULT


def refuse(where: str, name: str, why: str) -> NoReturn:
    """Answers 422, naming the parameter `name`, which is in `where` (query, header)."""
    raise RequestValidationError([{"type": "value_error", "loc": (where, name), "msg": why}])


def check_range(start: datetime, end: datetime) -> None:
    """Answers 422 unless `start` is before `end`."""
    if start >= end:
        refuse("query", "start", "the range is empty: start must be before end")
