"""Charts of time ranges: the price with its low and high trade, trades per second, lag, and shaded gaps.

The data come from storage/series.py, in few enough points to draw any range in about a second. Only here do prices
become floats: a pixel has no eighth decimal. The texts in a chart have all digits.
"""

import io
import math
import warnings
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

import db
from model.gaps import Gap
from report.text import amount, count, said, split_symbol, utc
from storage import series as db_charts
from storage.ranges import MinMax
from storage.series import Series

CHARTS_MAX = 8
"""Charts in one picture, one below the other."""
GAPS_MAX = 1_000
"""Open gaps that are shaded; if there are more, the picture only gives their number."""
GAP_SHARE_MIN = 1 / 400
"""The least part of the width that a gap takes, so that a gap of a millisecond is visible in a chart of a day."""
DOTS_STEPS_MAX = 120
"""Up to this many steps, each has a dot, so that a few isolated trades are visible."""
RATE_BARS_MIN = 20
WIDTH_INCHES, HEIGHT_INCHES, DPI = 11.0, 6.4, 130

_SECOND = timedelta(seconds=1)
_PRICE, _BAND, _LOW, _HIGH = "#1f4e9c", "#9db8e3", "#b3261e", "#1b7a3d"
_RATE, _LAG, _GAP = "#6b7a90", "#7a4fa3", "#d9480f"
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    # A dollar sign in a name does not start a formula.
    "text.parse_math": False,
}


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


def png(charts: Sequence[Chart]) -> bytes:
    """A picture of the charts, one below the other."""
    with rc_context(_STYLE), warnings.catch_warnings():
        # The library's font lacks some characters of symbols; it then draws a box and warns about it.
        warnings.filterwarnings("ignore", "Glyph")
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES * len(charts)), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        for part, chart in zip(figure.subfigures(len(charts), 1, squeeze=False)[:, 0], charts, strict=True):
            _draw(part, chart)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def describe(chart: Chart) -> str:
    """What the picture shows, in a sentence, for readers who cannot see it."""
    found, missing = chart.found, sum(gap.missing for gap in chart.gaps)
    gaps = f"{len(chart.gaps):,} open gaps, {missing:,} ids missing" if chart.gaps else "no open gap"
    return (
        f"{found.symbol} from {said(chart.series.start)} to {said(chart.series.end)} UTC: {count(found.trades)},"
        f" low {amount(found.low.price)}, high {amount(found.high.price)}; {gaps}"
    )


def _draw(figure: Any, chart: Chart) -> None:
    price, rate, lag = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1, 1]})
    _draw_price(price, chart)
    _draw_rate(rate, chart.series)
    _draw_lag(lag, chart)
    for axes in (price, rate, lag):
        _shade(axes, chart)
    start, end = chart.series.start, chart.series.end
    price.set_xlim(_x(start), _x(end))
    locator = AutoDateLocator(tz=UTC, minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
    lag.xaxis.set_major_locator(locator)
    lag.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    lag.set_xlabel("time UTC", loc="left")
    title = f"{chart.found.symbol}   {said(start)} to {said(end)} UTC   {count(chart.found.trades)}"
    figure.suptitle(title, fontsize=11)


def _x(when: datetime) -> float:
    return float(date2num(when))  # type: ignore[no-untyped-call]


def _draw_price(axes: Axes, chart: Chart) -> None:
    series, found = chart.series, chart.found
    steps, width = series.steps, series.width
    middles, ends = ([_x(min(step.start + width / part, series.end)) for step in steps] for part in (2, 1))
    lows, highs, closes = ([float(price) for price in prices] for prices in _columns(series))
    breaks = _breaks([step.start for step in steps], chart)
    middles, ends, lows, highs, closes = (_broken(one, breaks) for one in (middles, ends, lows, highs, closes))
    axes.fill_between(middles, lows, highs, color=_BAND, linewidth=0, alpha=0.7, label="low to high")
    dots = "." if len(series.steps) <= DOTS_STEPS_MAX else ""
    axes.plot(ends, closes, color=_PRICE, linewidth=1, marker=dots, markersize=4, label="last price")
    marks = ((found.low, "v", _LOW, "low"), (found.high, "^", _HIGH, "high"))
    for trade, marker, colour, name in marks:
        label = f"{name} {amount(trade.price)} at {utc(trade.timestamp)}, trade {trade.trade_id}"
        x, y = [_x(trade.timestamp)], [float(trade.price)]
        axes.plot(x, y, marker, color=colour, markersize=8, clip_on=False, zorder=3, label=label)
    axes.set_ylabel(f"price {split_symbol(found.symbol)[1]}".rstrip())
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    axes.margins(y=0.08)
    # Above the plot, where it hides nothing.
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8, borderaxespad=0.2)


def _breaks(starts: Sequence[datetime], chart: Chart) -> list[int]:
    """Before which of the points that start at `starts` a line must break, since trades are missing right before it."""
    befores = sorted(gap.timestamp_before for gap in chart.gaps)
    afters = sorted(gap.timestamp_after for gap in chart.gaps)
    # A gap begins before the point and ends in it or behind it: as many have begun as have not ended.
    return [
        number
        for number, start in enumerate(starts)
        if number and bisect_left(befores, start) > bisect_left(afters, start)
    ]


def _broken(values: Sequence[float], breaks: Sequence[int]) -> list[float]:
    """`values` with a value that is not drawn before each of those at `breaks`."""
    found = list(values)
    for number in reversed(breaks):
        found.insert(number, math.nan)
    return found


def _columns(series: Series) -> tuple[list[Any], list[Any], list[Any]]:
    steps = series.steps
    return [step.low for step in steps], [step.high for step in steps], [step.close for step in steps]


def _draw_rate(axes: Axes, series: Series) -> None:
    edges, rates = rates_per_s(series)
    axes.stairs(rates, [_x(edge) for edge in edges], fill=True, color=_RATE)
    axes.set_ylabel("trades/s")
    axes.set_ylim(bottom=0)


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


def _draw_lag(axes: Axes, chart: Chart) -> None:
    series = chart.series
    axes.set_ylabel("lag ms")
    if not series.lags:
        axes.text(0.5, 0.5, "no trade arrived live: all were back-filled", ha="center", transform=axes.transAxes)
        return
    breaks = _breaks([lag.start for lag in series.lags], chart)
    rows = ((_x(lag.start), lag.least, lag.mean, lag.most) for lag in series.lags)
    x, least, mean, most = (_broken(column, breaks) for column in zip(*rows, strict=True))
    axes.fill_between(x, least, most, color=_LAG, alpha=0.25, linewidth=0)
    dots = "." if len(x) <= DOTS_STEPS_MAX else ""
    label = f"mean of the first {db_charts.SAMPLE_TRADES:,} trades of each part" if series.sampled else "mean"
    axes.plot(x, mean, color=_LAG, linewidth=1, marker=dots, markersize=3, label=f"{label}; band: least to most")
    axes.legend(loc="upper left", frameon=False, fontsize=7)


def _shade(axes: Axes, chart: Chart) -> None:
    """Shades the open gaps, each from neighbour to neighbour and wide enough to be visible."""
    start, end = _x(chart.series.start), _x(chart.series.end)
    least = (end - start) * GAP_SHARE_MIN
    spans = []
    for gap in chart.gaps[:GAPS_MAX]:
        left, right = max(start, _x(gap.timestamp_before)), min(end, _x(gap.timestamp_after))
        width = max(right - left, least)
        spans.append((max(start, (left + right - width) / 2), width))
    if not spans:
        return
    missing = sum(gap.missing for gap in chart.gaps)
    axes.broken_barh(spans, (0, 1), transform=axes.get_xaxis_transform(), color=_GAP, alpha=0.3, linewidth=0, zorder=2)
    if axes.get_ylabel().startswith("price"):
        words = f"open gaps: {len(chart.gaps):,}, {missing:,} ids missing"
        axes.text(1, 1.01, words, ha="right", va="bottom", color=_GAP, fontsize=8, transform=axes.transAxes)
