"""Charts of time ranges for the HTML report: SVG whose colours are the page's, so that they follow light and dark.

Lines and areas are stretched to whatever width the page has, and letters are not: these are HTML beside the SVG. Prices
become floats here: a pixel has no eighth decimal. The texts have all digits.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from html import escape
from itertools import pairwise
from typing import NamedTuple

from model.times import EPOCH
from report.charted import DOTS_STEPS_MAX, Chart, breaks_of, describe, gaps_in_words, rates_per_s, shaded
from report.table import amount
from report.text import said, split_symbol, utc
from storage import series as db_charts

STYLE = """\
:root { --price: #1f4e9c; --band: #9db8e3; --low: #b3261e; --high: #1b7a3d; --rate: #6b7a90; --lag: #7a4fa3;
  --gap: #d9480f; --grid: #0002; }
@media (prefers-color-scheme: dark) { :root { --price: #8ab4ff; --band: #33507f; --low: #ff8a80; --high: #6fd08c;
  --rate: #8b99ae; --lag: #c49bea; --gap: #ff9e5e; --grid: #fff2; } }
figure { margin: 1rem 0; break-inside: avoid; } figcaption { font-size: .8rem; }
figcaption ul { display: flex; flex-wrap: wrap; gap: 2px 16px; list-style: none; margin: 0 0 .4rem; padding: 0; }
.low b, .mark.low { color: var(--low); } .high b, .mark.high { color: var(--high); } .gaps b { color: var(--warn); }
.plot { position: relative; height: 4.2rem; margin: 0 0 .9rem var(--gutter); font-size: 11px; }
.plot.price { height: 15rem; }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; display: block; }
.plot svg * { vector-effect: non-scaling-stroke; }
.plot .y { position: absolute; right: calc(100% + 6px); transform: translateY(-50%); white-space: nowrap; }
.plot .x { position: absolute; top: calc(100% + 2px); transform: translateX(-50%); white-space: nowrap; }
.plot .name { position: absolute; left: 6px; top: 0; font-weight: 600; }
.plot .mark { position: absolute; transform: translate(-50%, -50%); font-size: 13px; line-height: 1; }
.plot:last-child { margin-bottom: 1.6rem; }
.band { fill: var(--band); opacity: .7; } .close { fill: none; stroke: var(--price); stroke-width: 1.5; }
.dots { stroke: var(--price); stroke-width: 5; stroke-linecap: round; fill: none; } .rates { fill: var(--rate); }
.lags { fill: var(--lag); opacity: .25; } .mean { fill: none; stroke: var(--lag); stroke-width: 1.5; }
.gap { fill: var(--gap); opacity: .3; } .grid { stroke: var(--grid); stroke-width: 1; fill: none; }
"""
WIDTH, HEIGHT = 1000, 100
"""Of the drawings in units of their own."""
TIMES_MAX = 5
"""Labels on the axis of time; more have no room on a telephone."""
_MS, _S, _MIN, _H, _D = (timedelta(milliseconds=ms) for ms in (1, 1_000, 60_000, 3_600_000, 86_400_000))
_TIME_STEPS = [
    *(number * unit for unit, numbers in ((_MS, (1, 2, 5, 10, 20, 50, 100, 200, 500)),) for number in numbers),
    *(number * unit for unit in (_S, _MIN) for number in (1, 2, 5, 10, 15, 30)),
    *(number * _H for number in (1, 2, 3, 6, 12)),
    *(number * _D for number in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)),
]


class _Frame(NamedTuple):
    """The range of time and of values that a drawing shows."""

    start: datetime
    end: datetime
    bottom: float
    top: float

    def x(self, when: datetime) -> float:
        """Where a time is, from the left."""
        return WIDTH * ((when - self.start) / (self.end - self.start))

    def y(self, value: float) -> float:
        """Where a value is, from above."""
        return HEIGHT * (self.top - value) / ((self.top - self.bottom) or 1)

    def point(self, when: datetime, value: float) -> str:
        """Both, for a path."""
        return f"{self.x(when):.1f} {self.y(value):.2f}"


def figure(chart: Chart) -> str:
    """The chart as HTML: what is marked in it in words, then price, trades per second and lag, one below the other."""
    low, high = chart.found.low, chart.found.high
    marks = [
        f'<li class="{name}"><b aria-hidden="true">{sign}</b> {name} {amount(trade.price)} at {utc(trade.timestamp)},'
        f" trade {trade.trade_id}</li>"
        for name, sign, trade in (("high", "▲", high), ("low", "▼", low))
    ]
    if chart.gaps:
        marks.append(f'<li class="gaps"><b>▮ {gaps_in_words(chart)}</b></li>')
    marks.append("<li>line: last price; area: low to high</li>")
    ticks = _price_ticks(low.price, high.price)
    gutter = max(len(amount(tick)) for tick in ticks) + 1
    plots = _price(chart, ticks) + _rate(chart) + _lag(chart)
    return (
        f'<figure style="--gutter: {gutter}ch">\n<figcaption><ul>{"".join(marks)}</ul></figcaption>\n'
        f'<div role="img" aria-label="{escape(describe(chart))}">\n{plots}</div>\n</figure>'
    )


def _price(chart: Chart, ticks: Sequence[Decimal]) -> str:
    series, found = chart.series, chart.found
    room = (found.high.price - found.low.price) / 12 or found.low.price / 1000
    frame = _Frame(series.start, series.end, float(found.low.price - room), float(found.high.price + room))
    breaks = breaks_of([step.start for step in series.steps], chart)
    lows, highs, closes = [], [], []
    for step in series.steps:
        middle, end = (min(step.start + series.width / part, series.end) for part in (2, 1))
        lows.append(frame.point(middle, float(step.low)))
        highs.append(frame.point(middle, float(step.high)))
        closes.append(frame.point(end, float(step.close)))
    drawn = [_area("band", lows, highs, breaks), _line("close", closes, breaks)]
    if len(series.steps) <= DOTS_STEPS_MAX:
        drawn.append(f'<path class="dots" d="{"".join(f"M{point}h.01" for point in closes)}"/>')
    marks = "".join(
        f'<span class="mark {name}" style="left: {frame.x(trade.timestamp) / WIDTH:.2%};'
        f' top: {frame.y(float(trade.price)) / HEIGHT:.2%}">{sign}</span>'
        for name, sign, trade in (("high", "▲", found.high), ("low", "▼", found.low))
    )
    name = f"price {split_symbol(found.symbol)[1]}".rstrip()
    shown = [(amount(tick), float(tick)) for tick in ticks]
    return _plot(chart, frame, _Plot("price", name, drawn, shown, marks))


def _rate(chart: Chart) -> str:
    edges, rates = rates_per_s(chart.series)
    frame = _Frame(chart.series.start, chart.series.end, 0.0, max(rates))
    bars = "".join(
        f"M{frame.x(edges[i]):.1f} {HEIGHT}V{frame.y(rate):.2f}H{frame.x(edges[i + 1]):.1f}V{HEIGHT}Z"
        for i, rate in enumerate(rates)
        if rate
    )
    plot = _Plot("", "trades/s", [f'<path class="rates" d="{bars}"/>'], [(f"{frame.top:.3g}", frame.top)])
    return _plot(chart, frame, plot)


def _lag(chart: Chart) -> str:
    lags, series = chart.series.lags, chart.series
    if not lags:
        nothing = _Frame(series.start, series.end, 0.0, 1.0)
        name = "lag: no trade arrived live, all were back-filled"
        return _plot(chart, nothing, _Plot("", name, [], [], axis=True))
    frame = _Frame(series.start, series.end, min(0.0, *(lag.least for lag in lags)), max(lag.most for lag in lags))
    breaks = breaks_of([lag.start for lag in lags], chart)
    least, mean, most = (
        [frame.point(lag.start, value) for lag, value in zip(lags, values, strict=True)]
        for values in ([lag.least for lag in lags], [lag.mean for lag in lags], [lag.most for lag in lags])
    )
    drawn = [_area("lags", least, most, breaks), _line("mean", mean, breaks)]
    sampled = f" of the first {db_charts.SAMPLE_TRADES:,} trades of each part" if series.sampled else ""
    name = f"lag ms: mean{sampled}; area: least to most"
    ticks = [(f"{frame.top:.3g}", frame.top)]
    return _plot(chart, frame, _Plot("", name, drawn, ticks, axis=True))


class _Plot(NamedTuple):
    """One drawing: its class, its name, its shapes, and the labels of its values. `axis`: with the times below."""

    class_: str
    name: str
    shapes: Sequence[str]
    ticks: Sequence[tuple[str, float]]
    marks: str = ""
    axis: bool = False


def _plot(chart: Chart, frame: _Frame, plot: _Plot) -> str:
    times = list(_times(frame.start, frame.end))
    grid = "".join(f"M{frame.x(when):.1f} 0V{HEIGHT}" for when, _ in times)
    grid += "".join(f"M0 {frame.y(value):.2f}H{WIDTH}" for _, value in plot.ticks)
    gaps = "".join(
        f'<rect class="gap" x="{frame.x(start):.1f}" y="0" width="{frame.x(end) - frame.x(start):.1f}" height="100"/>'
        for start, end in shaded(chart)
    )
    labels = [f'<span class="y" style="top: {frame.y(value) / HEIGHT:.2%}">{text}</span>' for text, value in plot.ticks]
    if plot.axis:
        labels += [f'<span class="x" style="left: {frame.x(at) / WIDTH:.2%}">{text}</span>' for at, text in times]
    shapes = "".join(plot.shapes)
    return (
        f'<div class="plot {plot.class_}">\n'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="grid" d="{grid}M0 {HEIGHT}H{WIDTH}"/>{shapes}{gaps}</svg>\n'
        f'<span class="name">{escape(plot.name)}</span>{"".join(labels)}{plot.marks}\n</div>\n'
    )


def _pieces(points: Sequence[str], breaks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where the stretches of `points` begin and end between which trades are missing."""
    edges = [0, *breaks, len(points)]
    return pairwise(edges)


def _line(class_: str, points: Sequence[str], breaks: Sequence[int]) -> str:
    path = "".join("M" + "L".join(points[start:end]) for start, end in _pieces(points, breaks))
    return f'<path class="{class_}" d="{path}"/>'


def _area(class_: str, lows: Sequence[str], highs: Sequence[str], breaks: Sequence[int]) -> str:
    outlines = ([*lows[start:end], *reversed(highs[start:end])] for start, end in _pieces(lows, breaks))
    return f'<path class="{class_}" d="{"".join("M" + "L".join(outline) + "Z" for outline in outlines)}"/>'


def _price_ticks(low: Decimal, high: Decimal) -> list[Decimal]:
    """Up to six round prices from the low to the high; the price itself if there is only one."""
    if low == high:
        return [low]
    unit = Decimal(1).scaleb(((high - low) / 5).adjusted())
    step = next(unit * number for number in (1, 2, 5, 10) if unit * number * 5 >= high - low)
    first = (low / step).to_integral_value(ROUND_CEILING) * step
    return [first + number * step for number in range(int((high - first) / step) + 1)] if first <= high else [low, high]


def _times(start: datetime, end: datetime) -> Iterator[tuple[datetime, str]]:
    """Round times, not too near to the ends, with what is written below them: at midnight the date."""
    length = end - start
    step = next((one for one in _TIME_STEPS if one * TIMES_MAX >= length), _TIME_STEPS[-1])
    form = "%H:%M" if step >= _MIN else "%H:%M:%S"
    when = EPOCH + -(-(start - EPOCH) // step) * step
    while when < end:
        if length * 0.04 <= when - start <= length * 0.96:
            text = said(when)[11:] if step < _S else f"{when:{form}}"
            yield when, f"{when:%b} {when.day}" if when.time() == EPOCH.time() else text
        when += step
