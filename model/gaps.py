"""Which trade ids are missing: pure arithmetic on runs of ids, no SQL and no clock.

The exchange numbers the trades of a symbol 1, 2, 3 … without holes, so an id between two
stored ones that is not stored itself is a missing trade. A point is a stored trade reduced to its id and time stamp.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from typing import NamedTuple

from model.ids import Run, runs_of

MISSED = "missing in the stream"
AWAY = "capture was not running"
HISTORY = "history that is not fetched yet"
NOT_SERVED = "not served by the exchange"
INVALID = "what the exchange serves is no valid trade"
REFUSED = "refused by the database"

GIVEN_UP = (NOT_SERVED, INVALID, REFUSED)
"""Reasons of what the exchange was asked for again and again in vain; such a gap stays open."""

Point = tuple[int, datetime]


class Span(NamedTuple):
    """The ids of a symbol that are accounted for, first to last: each is stored or in an open gap."""

    first: Point
    last: Point


class Gap(NamedTuple):
    """A row of the table `gaps`: a run of ids, both ends missing, between two stored trades."""

    symbol: str
    first_trade_id: int
    last_trade_id: int
    reason: str
    detected_at: datetime
    filled_at: datetime | None
    timestamp_before: datetime
    timestamp_after: datetime

    @property
    def missing(self) -> int:
        """How many ids the run has."""
        return self.last_trade_id - self.first_trade_id + 1


def holes(symbol: str, points: Sequence[Point], reason: str, now: datetime) -> list[Gap]:
    """The open gaps between neighbouring `points`, which are sorted by id."""
    return [
        Gap(symbol, below + 1, above - 1, reason, now, None, at_below, at_above)
        for (below, at_below), (above, at_above) in pairwise(points)
        if above - below > 1
    ]


def account(span: Span | None, points: Sequence[Point]) -> tuple[Span, list[Sequence[Point]], list[Point]]:
    """What newly stored trades change: the new span, the lists of points whose holes are new gaps, and the late points.

    `points` are sorted by id, without repeats, at least one. Points above the span reveal gaps after its last id,
    points below it gaps before its first; those inside are late: they are repeats, or they fill a gap.
    """
    if span is None:
        return Span(points[0], points[-1]), [points], []
    below = [point for point in points if point[0] < span.first[0]]
    above = [point for point in points if point[0] > span.last[0]]
    late = [point for point in points if span.first[0] <= point[0] <= span.last[0]]
    grown = Span(below[0] if below else span.first, above[-1] if above else span.last)
    return grown, [[*below, span.first], [span.last, *above]], late


def fill(gap: Gap, points: Sequence[Point], now: datetime) -> tuple[list[Gap], list[Gap]]:
    """`gap` after trades inside it were stored: the runs that stay open, and the runs that are filled.

    `points` are sorted by id, without repeats; those outside the gap are ignored.
    """
    inside = [point for point in points if gap.first_trade_id <= point[0] <= gap.last_trade_id]
    below = (gap.first_trade_id - 1, gap.timestamp_before)
    above = (gap.last_trade_id + 1, gap.timestamp_after)
    still_open = holes(gap.symbol, [below, *inside, above], gap.reason, gap.detected_at)
    at = dict(inside)
    return still_open, [
        gap._replace(
            first_trade_id=first,
            last_trade_id=last,
            filled_at=now,
            timestamp_before=at[first],
            timestamp_after=at[last],
        )
        for first, last in runs_of(list(at))
    ]


def fill_run(gap: Gap, run: Run, at: Callable[[int], datetime], now: datetime) -> tuple[list[Gap], list[Gap]]:
    """As fill(), after all ids of a run, whose times `at` tells, were stored."""
    low, high = max(gap.first_trade_id, run[0]), min(gap.last_trade_id, run[1])
    if low > high:
        return [gap], []
    ends = at(low), at(high)
    below = gap._replace(last_trade_id=low - 1, timestamp_after=ends[0])
    above = gap._replace(first_trade_id=high + 1, timestamp_before=ends[1])
    filled = gap._replace(
        first_trade_id=low, last_trade_id=high, filled_at=now, timestamp_before=ends[0], timestamp_after=ends[1]
    )
    return [part for part in (below, above) if part.missing > 0], [filled]


def missing_in_each(gaps: Sequence[Gap], starts: Sequence[datetime], length: timedelta) -> list[int]:
    """How many ids are in the gaps that reach into each of the times that begin at `starts`; a gap that reaches into
    several counts in each. `gaps` are in order of their ids."""
    # And so, in effect, in order of their times: those that reach into one time are neighbours.
    befores, afters = [gap.timestamp_before for gap in gaps], [gap.timestamp_after for gap in gaps]
    sums = [0, *accumulate(gap.missing for gap in gaps)]
    return [sums[bisect_left(befores, start + length)] - sums[bisect_left(afters, start)] for start in starts]
