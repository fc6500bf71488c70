"""Charts of time ranges as a picture, drawn by matplotlib: those of --plot. What is drawn: report/charted.py.

Prices become floats here: a pixel has no eighth decimal. The texts in a chart have all digits.
"""

import io
import math
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from report.charted import DOTS_STEPS_MAX, Chart, breaks_of, rates_per_s, shaded
from report.table import amount
from report.text import count, said, split_symbol, utc
from storage import series as db_charts
from storage.series import Series

CHARTS_MAX = 8
"""Charts in one picture, one below the other."""
WIDTH_INCHES, HEIGHT_INCHES, DPI = 11.0, 6.4, 130

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
    breaks = breaks_of([step.start for step in steps], chart)
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


def _draw_lag(axes: Axes, chart: Chart) -> None:
    series = chart.series
    axes.set_ylabel("lag ms")
    if not series.lags:
        axes.text(0.5, 0.5, "no trade arrived live: all were back-filled", ha="center", transform=axes.transAxes)
        return
    breaks = breaks_of([lag.start for lag in series.lags], chart)
    rows = ((_x(lag.start), lag.least, lag.mean, lag.most) for lag in series.lags)
    x, least, mean, most = (_broken(column, breaks) for column in zip(*rows, strict=True))
    axes.fill_between(x, least, most, color=_LAG, alpha=0.25, linewidth=0)
    dots = "." if len(x) <= DOTS_STEPS_MAX else ""
    label = f"mean of the first {db_charts.SAMPLE_TRADES:,} trades of each part" if series.sampled else "mean"
    axes.plot(x, mean, color=_LAG, linewidth=1, marker=dots, markersize=3, label=f"{label}; band: least to most")
    axes.legend(loc="upper left", frameon=False, fontsize=7)


def _shade(axes: Axes, chart: Chart) -> None:
    spans = [(_x(start), _x(end) - _x(start)) for start, end in shaded(chart)]
    if not spans:
        return
    missing = sum(gap.missing for gap in chart.gaps)
    axes.broken_barh(spans, (0, 1), transform=axes.get_xaxis_transform(), color=_GAP, alpha=0.3, linewidth=0, zorder=2)
    if axes.get_ylabel().startswith("price"):
        words = f"open gaps: {len(chart.gaps):,}, {missing:,} ids missing"
        axes.text(1, 1.01, words, ha="right", va="bottom", color=_GAP, fontsize=8, transform=axes.transAxes)
