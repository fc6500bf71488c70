"""What a chart of a time range shows: price, trades per second, lag, gaps; drawn by report/charts.py and report/svg.py.

The data come from storage/series.py, in few enough points to draw any range in about a second.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import db
from model.gaps import Gap
from report.table import amount
from report.text import count, said
from storage import series as db_charts
from storage.ranges import MinMax
from storage.series import Series

GAPS_MAX = 1_000
"""Open gaps that are shaded; if there are more, the picture only gives their number."""
GAP_SHARE_MIN = 1 / 400
"""The least part of the width that a gap takes, so that a gap of a millisecond is visible in a chart of a day."""
DOTS_STEPS_MAX = 120
"""Up to this many steps, each has a dot, so that a few isolated trades are visible."""
RATE_BARS_MIN = 20

_SECOND = timedelta(seconds=1)


class Chart(NamedTuple):
    """The data of a symbol's chart of [start, end): its low and high, the series, and the open gaps in it."""

    found: MinMax
    series: Series
    gaps: list[Gap]


def fetch(connection: db.Connection, symbol: str, start: datetime, end: datetime) -> Chart | None:
    """The chart of a range; None if nothing traded. The time before the first stored trade is left out."""
    found = db.min_max(connection, symbol, start, end)
    if found is None:
        return None
    if db.price_as_of(connection, symbol, start - timedelta(milliseconds=1)) is None:
        start = found.first.timestamp
    reaching = (gap for gap in db.open_gaps(connection, symbol) if gap.timestamp_before < end)
    gaps = [gap for gap in reaching if gap.timestamp_after >= start]
    return Chart(found, db_charts.series(connection, symbol, start, end, found.trades), gaps)


def fetch_all(connection: db.Connection, spans: Mapping[int, tuple[str, datetime, datetime]]) -> dict[int, Chart]:
    """The charts of the ranges in which something traded, under the same numbers.

    If several would be the same picture, as the last minute, hour and day of a new database are, only the first.
    """
    found: dict[tuple[str, datetime, datetime], tuple[int, Chart]] = {}
    for number, span in spans.items():
        if chart := fetch(connection, *span):
            found.setdefault((span[0], chart.series.start, chart.series.end), (number, chart))
    return dict(found.values())


def gaps_in_words(chart: Chart) -> str:
    """How many open gaps reach into the chart, and how many ids are in them."""
    gaps, ids = len(chart.gaps), sum(gap.missing for gap in chart.gaps)
    return f"{gaps:,} open {'gap' if gaps == 1 else 'gaps'}, {ids:,} {'id' if ids == 1 else 'ids'} missing"


def describe(chart: Chart) -> str:
    """What the picture shows, in a sentence, for readers who cannot see it."""
    found = chart.found
    gaps = gaps_in_words(chart) if chart.gaps else "no open gap"
    return (
        f"{found.symbol} from {said(chart.series.start)} to {said(chart.series.end)} UTC: {count(found.trades)},"
        f" low {amount(found.low.price)}, high {amount(found.high.price)}; {gaps}"
    )


def breaks_of(starts: Sequence[datetime], chart: Chart) -> list[int]:
    """Before which of the points that start at `starts` a line must break, since trades are missing right before it."""
    befores = sorted(gap.timestamp_before for gap in chart.gaps)
    afters = sorted(gap.timestamp_after for gap in chart.gaps)
    # A gap begins before the point and ends in it or behind it: as many have begun as have not ended.
    return [
        number
        for number, start in enumerate(starts)
        if number and bisect_left(befores, start) > bisect_left(afters, start)
    ]


def shaded(chart: Chart) -> list[tuple[datetime, datetime]]:
    """Where trades are missing: each gap from neighbour to neighbour, and wide enough to be visible."""
    start, end = chart.series.start, chart.series.end
    least, found = (end - start) * GAP_SHARE_MIN, []
    for gap in chart.gaps[:GAPS_MAX]:
        left, right = max(start, gap.timestamp_before), min(end, gap.timestamp_after)
        if right - left < least:
            left = max(start, left + (right - left - least) / 2)
            right = left + least
        found.append((left, right))
    return found


def rates_per_s(series: Series) -> tuple[list[datetime], list[float]]:
    """The edges of bars, and the trades per second in each, including bars without trades.

    A bar is at least a second long if that leaves enough bars: the rate in 10 ms would mostly be 0 or 100.
    """
    length = series.end - series.start
    width = series.width
    if length >= RATE_BARS_MIN * _SECOND:
        width *= -(-_SECOND // width)
    edges = [series.start + number * width for number in range(-(-length // width))]
    counts = dict.fromkeys(range(len(edges)), 0)
    for step in series.steps:
        counts[(step.start - series.start) // width] += step.trades
    edges.append(series.end)
    return edges, [counts[i] / (edges[i + 1] - edges[i]).total_seconds() for i in counts]
