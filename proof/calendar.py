"""Coverage at a glance, for a terminal: a month is a line, a day a letter, its colour the verdict."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby

import db
from storage import pages
from storage.proofs import AGREES, CONTIGUOUS, DAYS_MAX, DIFFERENT, EQUAL, GAPPED, UNVERIFIABLE, DayCoverage

_SIGNS: dict[str | None, tuple[str, str]] = {
    EQUAL: ("E", "\x1b[32m"),
    AGREES: ("A", "\x1b[36m"),
    CONTIGUOUS: ("C", ""),
    GAPPED: ("G", "\x1b[33m"),
    DIFFERENT: ("D", "\x1b[31m"),
    UNVERIFIABLE: ("U", "\x1b[35m"),
    None: ("?", "\x1b[2m"),
}
_RESET = "\x1b[0m"
_WORDS = {
    EQUAL: "equal to the exchange's archive, row by row",
    AGREES: "agrees with the exchange's klines, minute by minute",
    CONTIGUOUS: "contiguous: all ids are there, compared with nothing yet",
    GAPPED: "gapped: ids are missing",
    DIFFERENT: "different",
    UNVERIFIABLE: "unverifiable: the archive's file is of no use",
    None: "not audited",
}
LISTED_MAX = 20
"""Days that are not complete, of which the newest are listed."""


def days(
    connection: db.Connection, symbol: str, first: date | None = None, last: date | None = None
) -> Iterator[DayCoverage]:
    """What is known of each day from `first` to `last` (inclusive; default: of the first and the last stored trade),
    oldest first, of however many. None if no trade of `symbol` is stored."""
    ends = pages.ends(connection, symbol)
    if ends is None:
        return
    first, last = first or ends[0].date(), last or ends[1].date()
    while first <= last:
        until = min(last, first + timedelta(days=DAYS_MAX - 1))
        yield from db.coverage(connection, symbol, first, until)
        first = until + timedelta(days=1)


def text(symbol: str, days: Sequence[DayCoverage], colour: bool) -> str:
    """The calendar of a symbol: its months, what the letters mean, and the days on which something is missing."""
    lines = [f"{symbol}", " " * 9 + "".join(str(day % 10) for day in range(1, 32))]
    lines += [_month(list(group), colour) for _, group in groupby(days, lambda one: (one.day.year, one.day.month))]
    seen = {day.verdict for day in days}
    lines += [f"         {_sign(verdict, colour)} {_WORDS[verdict]}" for verdict in _SIGNS if verdict in seen]
    return "\n".join([*lines, *_incomplete(days)])


def _month(days: Sequence[DayCoverage], colour: bool) -> str:
    first: date = days[0].day
    signs = {one.day.day: _sign(one.verdict, colour) for one in days}
    return f"{first:%Y-%m}  " + "".join(signs.get(day, " ") for day in range(1, 32)).rstrip()


def _sign(verdict: str | None, colour: bool) -> str:
    letter, style = _SIGNS[verdict]
    return f"{style}{letter}{_RESET}" if colour and style else letter


def _incomplete(days: Sequence[DayCoverage]) -> Iterator[str]:
    found = [day for day in days if day.missing or day.verdict == DIFFERENT]
    for day in found[-LISTED_MAX:]:
        yield f"         {day.day}: {day.missing:,} ids missing{'; ' if day.reason else ''}{day.reason}"
    if len(found) > LISTED_MAX:
        yield f"         … and {len(found) - LISTED_MAX} days before these"
