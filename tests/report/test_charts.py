"""Charts and the HTML report: what is fetched, equal to the trades; what is drawn; files that need nothing else."""

import io
import math
import re
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.image import imread

import config
import db
import query_examples
from model.trade import Trade
from report import charted, charts, svg
from storage import series as db_charts
from storage.series import Lag, Step
from tests.support.tables import ask, store

pytestmark = pytest.mark.slow

BEGIN = datetime(2025, 11, 20, 10, 0, tzinfo=UTC)
GAP_COLOUR = (217, 72, 15)
LOW_COLOUR, HIGH_COLOUR = (179, 38, 30), (27, 122, 61)


def tape(count: int, step_ms: int, first: int = 1) -> list[Trade]:
    """Trades one after the other, of which every third was back-filled; prices go up and down."""
    return [
        Trade(
            "BTCUSDT",
            BEGIN + timedelta(milliseconds=i * step_ms),
            first + i,
            Decimal(61_800 + i * 37 % 101) + Decimal("0.01"),
            Decimal("0.5"),
            i % 2 == 0,
            None if i % 3 == 2 else BEGIN + timedelta(milliseconds=i * step_ms, microseconds=1_500 + i % 7),
        )
        for i in range(count)
    ]


def plainly(trades: list[Trade], start: datetime, end: datetime, width: timedelta) -> tuple[list[Step], list[Lag]]:
    """The steps and the lags of trades, by the plain definition."""
    steps, lags = [], []
    while start < end:
        inside = [one for one in trades if start <= one.timestamp < min(start + width, end)]
        prices = [one.price for one in inside]
        if inside:
            steps.append(Step(start, len(inside), min(prices), max(prices), inside[-1].price))
        ms = timedelta(milliseconds=1)
        late = [(one.received_at - one.timestamp) / ms for one in inside if one.received_at]
        if late:
            lags.append(Lag(start, min(late), sum(late) / len(late), max(late)))
        start += width
    return steps, lags


def same(lags: list[Lag], others: list[Lag]) -> bool:
    """Whether they are equal to a microsecond; the engines give an average different numbers of decimals."""
    starts = [lag.start for lag in lags] == [lag.start for lag in others]
    pairs = zip(lags, others, strict=True)
    return starts and all(lag[1:] == pytest.approx(other[1:], abs=0.001) for lag, other in pairs)


def colours(png: bytes) -> set[tuple[int, int, int]]:
    """The colours of a picture."""
    pixels = (imread(io.BytesIO(png))[:, :, :3] * 255).round().astype(int)
    return {tuple(int(part) for part in pixel) for pixel in pixels.reshape(-1, 3)}  # type: ignore[misc]


# ---- What is fetched.


@pytest.mark.parametrize(("count", "step_ms", "length_ms"), [(7, 1, 10), (300, 40, 12_000), (500, 977, 700_001)])
def test_the_steps_are_those_of_the_trades(settings: config.Settings, count: int, step_ms: int, length_ms: int) -> None:
    """However long the range is: counts, extremes, last prices and lags, in at most so many steps."""
    trades = tape(count, step_ms)
    store(settings, trades)
    end = BEGIN + timedelta(milliseconds=length_ms)

    with closing(db.connect(settings)) as connection:
        series = db_charts.series(connection, "BTCUSDT", BEGIN, end, count)

    steps, lags = plainly(trades, BEGIN, end, series.width)
    assert steps == series.steps
    assert same(lags, series.lags)
    assert (end - BEGIN) / series.width <= db_charts.STEPS_MAX
    assert not series.sampled


def test_a_step_that_was_back_filled_has_no_lag(settings: config.Settings) -> None:
    """Nobody knows how late those trades would have been."""
    store(settings, [trade._replace(received_at=None) for trade in tape(10, 1000)])

    with closing(db.connect(settings)) as connection:
        series = db_charts.series(connection, "BTCUSDT", BEGIN, BEGIN + timedelta(seconds=10), 10)

    assert (len(series.steps), series.lags) == (10, [])


def test_a_large_range_is_drawn_from_candles(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps are whole minutes with the same prices and counts, and the lag is that of the first trades of each."""
    trades = tape(600, 7_001)
    store(settings, trades)
    monkeypatch.setattr(db_charts, "SCAN_TRADES_MAX", 599)
    monkeypatch.setattr(db_charts, "SAMPLE_TRADES", 5)
    start, end = BEGIN + timedelta(milliseconds=7_001), trades[-1].timestamp + timedelta(milliseconds=1)

    with closing(db.connect(settings)) as connection:
        series = db_charts.series(connection, "BTCUSDT", start, end, 600)

    steps, _ = plainly(trades, BEGIN, end, timedelta(minutes=1))
    assert (steps, BEGIN, True) == (series.steps, series.start, series.sampled)
    assert len(series.lags) == db_charts.SAMPLE_STEPS_MAX
    assert all(1.5 <= lag.least <= lag.mean <= lag.most < 1.507 for lag in series.lags)


def test_the_last_candle_is_drawn_over_all_of_its_time(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or as far as it has come: its trades are of more than the range, and so is the time that they are divided by."""
    trades = tape(600, 1_000)
    store(settings, trades)
    monkeypatch.setattr(db_charts, "SCAN_TRADES_MAX", 1)
    ends = {}
    with closing(db.connect(settings)) as connection:
        for seconds in (181, 599):
            asked = BEGIN + timedelta(seconds=seconds)
            series = db_charts.series(connection, "BTCUSDT", BEGIN, asked, 600)
            rates = charted.rates_per_s(series)[1]
            assert max(rates) < 1.1, seconds
            ends[seconds] = series.end - BEGIN

    assert ends == {181: timedelta(minutes=4), 599: timedelta(seconds=599, milliseconds=1)}


@pytest.mark.parametrize(("days", "width_s"), [(0.4, 60), (1, 300), (30, 7_200), (600, 86_400)])
def test_candles_are_put_together_for_long_ranges(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, days: float, width_s: int
) -> None:
    """Never more steps than fit into the picture, and none of the trades missing in them."""
    trades = tape(400, int(days * 86_400_000) // 400)
    store(settings, trades)
    monkeypatch.setattr(db_charts, "SCAN_TRADES_MAX", 1)

    with closing(db.connect(settings)) as connection:
        series = db_charts.series(connection, "BTCUSDT", BEGIN, BEGIN + timedelta(days=days), 400)

    steps, _ = plainly(trades, series.start, series.end, timedelta(seconds=width_s))
    assert (steps, width_s) == (series.steps, series.width.total_seconds())


def test_the_time_before_the_first_trade_is_left_out(settings: config.Settings) -> None:
    """A database of a minute is not a sliver at the edge of a day; silence after a trade is shown."""
    store(settings, tape(10, 1000))
    day = timedelta(days=1)

    with closing(db.connect(settings)) as connection:
        young = charted.fetch(connection, "BTCUSDT", BEGIN - day, BEGIN + day)
        quiet = charted.fetch(connection, "BTCUSDT", BEGIN + timedelta(seconds=1), BEGIN + day)
        nothing = charted.fetch(connection, "BTCUSDT", BEGIN - day, BEGIN)

    assert young
    assert quiet
    assert (BEGIN, BEGIN + day) == young.series[:2]
    assert quiet.series.start == BEGIN + timedelta(seconds=1)
    assert nothing is None


def test_only_gaps_in_the_range_are_drawn(settings: config.Settings) -> None:
    """Those whose neighbours lie beyond one end of it included."""
    trades = tape(100, 1000)
    store(settings, [trade for i, trade in enumerate(trades) if i not in (5, 6, 50, 80)])

    with closing(db.connect(settings)) as connection:
        chart = charted.fetch(connection, "BTCUSDT", trades[7].timestamp, trades[60].timestamp)

    assert chart
    assert [(gap.first_trade_id, gap.missing) for gap in chart.gaps] == [(6, 2), (51, 1)]
    assert "2 open gaps, 3 ids missing" in charted.describe(chart)


# ---- What is drawn.


def test_rates_count_every_trade_and_every_silence(settings: config.Settings) -> None:
    """Bars of a second at least, from the first to the last millisecond, zero where nothing traded."""
    late = (one._replace(timestamp=one.timestamp + timedelta(seconds=57)) for one in tape(4, 10, 31))
    trades = [*tape(30, 100), *late]
    store(settings, trades)

    with closing(db.connect(settings)) as connection:
        series = db_charts.series(connection, "BTCUSDT", BEGIN, BEGIN + timedelta(seconds=60), 34)
    edges, rates = charted.rates_per_s(series)

    assert (BEGIN, series.end, 61) == (edges[0], edges[-1], len(edges))
    assert rates == [10, 10, 10, *[0] * 54, 4, 0, 0]


@pytest.mark.parametrize("lost", [(), (40, 41, 42)])
def test_the_extremes_are_marked_and_gaps_are_shaded(settings: config.Settings, lost: tuple[int, ...]) -> None:
    """A mark for the low and one for the high; the colour of gaps only where one is open."""
    store(settings, [trade for i, trade in enumerate(tape(100, 1000)) if i not in lost])

    with closing(db.connect(settings)) as connection:
        chart = charted.fetch(connection, "BTCUSDT", BEGIN, BEGIN + timedelta(seconds=100))
    assert chart
    seen = colours(charts.png([chart]))

    assert {LOW_COLOUR, HIGH_COLOUR} <= seen
    assert bool(lost) == (GAP_COLOUR in seen)


@pytest.mark.parametrize("count", [1, 2])
def test_a_lonely_trade_can_be_drawn(settings: config.Settings, count: int) -> None:
    """Even a range of a single millisecond has a picture."""
    store(settings, tape(count, 1))

    with closing(db.connect(settings)) as connection:
        chart = charted.fetch(connection, "BTCUSDT", BEGIN, BEGIN + timedelta(milliseconds=1))
    assert chart

    assert len(colours(charts.png([chart]))) > 10


# ---- The files.


@pytest.fixture
def run(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs query_examples.py on the test's own database."""
    monkeypatch.setattr(config, "load", lambda: settings)

    def run(*argv: object) -> tuple[int, str, str]:
        code = query_examples.main([str(one) for one in argv], now=BEGIN + timedelta(days=1))
        return (code, *capsys.readouterr())

    return run


Run = Callable[..., tuple[int, str, str]]


class Page(HTMLParser):
    """What an HTML file is made of: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_plot_writes_a_picture_beside_the_answer(run: Run, settings: config.Settings, tmp_path: Path) -> None:
    """The text is what it is without it; one chart for each symbol, below each other."""
    ether = [trade._replace(symbol="ETHUSDT") for trade in tape(50, 1000)]
    store(settings, tape(50, 1000) + ether)

    plain = run("range", "--last", "30s")
    one = run("range", "--last", "30s", "--plot", tmp_path / "one.png", "--symbol", "BTCUSDT")
    both = run("range", "--last", "30s", "--plot", tmp_path / "both.png")

    assert (plain[0], plain[1], one[0]) == (0, both[1], 0)
    assert str(tmp_path / "both.png") in both[2]
    heights = [imread(tmp_path / name).shape[0] for name in ("one.png", "both.png")]
    assert heights[1] == 2 * heights[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.png", "one.png"]


def test_html_has_everything_in_one_file(run: Run, settings: config.Settings, tmp_path: Path) -> None:
    """Every answer of the report with its SQL, charts as part of the file with words for who cannot see them."""
    store(settings, tape(300, 1000))

    code, out, _ = run("report", "--html", tmp_path / "x.html")

    page = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
    questions = [" ".join(found.split()) for found in re.findall(r"(?m)^(?:What|How) [^?]*\?", out)]
    assert (code, len(questions)) == (0, 7)
    assert all(question in page.text for question in questions)
    assert page.text.count("SELECT") == out.count("SELECT")
    tags = [tag for tag, _ in page.elements]
    # The last hour and the last day of a database of five minutes are the same picture.
    assert (tags.count("figure"), tags.count("svg")) == (2, 6)
    described = [attributes["aria-label"] for _, attributes in page.elements if attributes.get("role") == "img"]
    assert len(described) == 2
    assert all("low 618" in str(words) for words in described)
    assert "no trade id is missing in the times of these answers" in page.text


def test_html_has_real_tables(run: Run, settings: config.Settings, tmp_path: Path) -> None:
    """Each with a caption, and with headings of columns and rows; no answer is a block of fixed letters."""
    store(settings, tape(300, 1000))

    run("report", "--html", tmp_path / "x.html", "--no-sql")

    page = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
    tags = [tag for tag, _ in page.elements]
    scopes = [attributes.get("scope") for tag, attributes in page.elements if tag == "th"]
    assert tags.count("table") == tags.count("caption") == 8
    assert set(scopes) == {"col", "row"}
    assert scopes.count("row") == tags.count("tr") - tags.count("table")
    assert "pre" not in tags
    assert "SELECT" not in page.text


def test_html_says_what_is_missing_before_all_answers(run: Run, settings: config.Settings, tmp_path: Path) -> None:
    """Each note with a link to its answer; and the chart shades it."""
    store(settings, [one for one in tape(300, 1000) if not 280 <= one.trade_id < 290])

    run("--html", tmp_path / "x.html")

    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    page = Page(text)
    first = page.text[page.text.index("What is missing") : page.text.index("What is the latest price")]
    assert "no trade id is missing" not in page.text
    assert "Up to 10 trades are missing in that range" in first
    links = [str(attributes["href"]) for tag, attributes in page.elements if tag == "a"]
    ids = {f"#{attributes['id']}" for _, attributes in page.elements if "id" in attributes}
    assert set(links) <= ids
    assert text.count('<rect class="gap"') == 3 * text.count("<figure")


def test_the_colours_of_charts_are_those_of_the_page(run: Run, settings: config.Settings, tmp_path: Path) -> None:
    """So that they follow light and dark: no shape has a colour of its own."""
    store(settings, tape(300, 1000))

    run("range", "--last", "1h", "--html", tmp_path / "x.html")

    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    shapes = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert shapes
    assert not re.search(r"#[0-9a-f]{3}|fill=|stroke=|style=", shapes)
    named = set(re.findall(r"var\((--[a-z]+)\)", svg.STYLE)) - {"--gutter", "--warn"}
    light, dark = svg.STYLE.split("@media (prefers-color-scheme: dark)")
    assert all(f"{name}:" in light and f"{name}:" in dark for name in named)


def test_html_needs_nothing_from_elsewhere(run: Run, settings: config.Settings, tmp_path: Path) -> None:
    """No script, no style sheet, no address but links within the page."""
    store(settings, tape(10, 1000) + [one._replace(symbol="ETHUSDT") for one in tape(10, 1000)])

    run("--html", tmp_path / "x.html")

    page = Page((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    targets = [attributes[name] for _, attributes in page.elements for name in ("src", "href") if name in attributes]
    assert targets
    assert all(str(target).startswith("#") for target in targets)
    assert not re.search(r"url\(|@import", page.text)


def test_html_escapes_what_it_shows(run: Run, settings: config.Settings, tmp_path: Path) -> None:
    """SQL has comparisons in it, which are not the begin of an element."""
    store(settings, tape(10, 1000))

    run("range", "--last", "5s", "--html", tmp_path / "x.html")

    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "timestamp &gt;= &#x27;2025-11-20" in text
    assert "timestamp >= '2025-11-20" in Page(text).text


def test_a_range_without_a_trade_has_no_picture(run: Run, settings: config.Settings, tmp_path: Path) -> None:
    """--html says so in words; --plot has nothing to write."""
    store(settings, tape(10, 1000))
    silence = ("range", "2025-11-19", "2025-11-19T01:00")

    html, plot = run(*silence, "--html", tmp_path / "x.html"), run(*silence, "--plot", tmp_path / "x.png")

    assert (html[0], plot[0]) == (0, 2)
    assert "<figure" not in (tmp_path / "x.html").read_text(encoding="utf-8")
    assert (plot[2].count("\n"), list(tmp_path.glob("*.png"))) == (1, [])


@pytest.mark.parametrize("flag", ["--plot", "--html"])
def test_a_file_that_cannot_be_written_is_one_line(
    run: Run, settings: config.Settings, tmp_path: Path, flag: str
) -> None:
    """It names the file."""
    store(settings, tape(10, 1000))

    code, out, err = run("range", "--last", "5s", flag, tmp_path / "no" / "x.png")

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "x.png cannot be written: No such file" in err


def test_without_the_package_it_is_one_line(
    run: Run, settings: config.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the command that installs it; only --plot needs it."""
    store(settings, tape(10, 1000))
    monkeypatch.delitem(sys.modules, "report.charts", raising=False)
    monkeypatch.delattr("report.charts", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    code, _, err = run("range", "--last", "5s", "--plot", tmp_path / "x.png")

    assert (code, err.count("\n")) == (2, 1)
    assert "pip install -r requirements-tools.txt" in err
    assert run("range", "--last", "5s", "--html", tmp_path / "x.html")[0] == 0


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        ("2025-11-20T10:00:00", timedelta(milliseconds=10), ["10:00:00.002", "10:00:00.004"]),
        ("2025-11-20T23:59:30", timedelta(minutes=1), ["23:59:45", "Nov 21", "00:00:15"]),
        ("2025-11-20T22:00:00.001", timedelta(hours=4), ["23:00", "Nov 21", "01:00"]),
        ("2025-11-18T12:00:00", timedelta(days=4), ["Nov 19", "Nov 20"]),
    ],
)
def test_times_on_the_axis_are_round(start: str, length: timedelta, expected: list[str]) -> None:
    """At midnight it is the date; never more than have room on a telephone."""
    begin = datetime.fromisoformat(start).replace(tzinfo=UTC)
    found = [text for _, text in svg._times(begin, begin + length)]
    assert found[: len(expected)] == expected
    assert len(found) <= svg.TIMES_MAX


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ("61800.01", "61900.01", "61820 61840 61860 61880 61900"),
        ("0.00000012", "0.00000019", "0.00000012 0.00000014 0.00000016 0.00000018"),
        ("5", "5", "5"),
        ("1", "1000000", "200000 400000 600000 800000 1000000"),
    ],
)
def test_prices_on_the_axis_are_round(low: str, high: str, expected: str) -> None:
    """And within what traded; exact decimals, as few as fit."""
    found = svg._price_ticks(Decimal(low), Decimal(high))
    assert found == [Decimal(text) for text in expected.split()]


def test_the_steps_come_by_the_index(settings: config.Settings) -> None:
    """A range of the table's key, and no other trade."""
    store(settings, tape(200, 1000))
    with closing(db.connect(settings)) as connection:
        connection.asked = []
        db_charts.series(connection, "BTCUSDT", BEGIN, BEGIN + timedelta(seconds=5), 5)
        (statement,) = connection.asked
        plan = str(ask(connection, f"EXPLAIN {statement}"))
    assert "PRIMARY" in plan
    assert "range" in plan


def test_a_line_does_not_go_through_a_gap(settings: config.Settings) -> None:
    """Nor does the band: between the steps on both sides of an outage is a value that is not drawn."""
    trades = [one for one in tape(400, 100) if not 100 < one.trade_id <= 300]
    store(settings, trades)
    with closing(db.connect(settings)) as connection:
        chart = charted.fetch(connection, "BTCUSDT", BEGIN, BEGIN + timedelta(seconds=40))
    assert chart is not None
    starts = [step.start for step in chart.series.steps]
    (at,) = charted.breaks_of(starts, chart)

    assert starts[at - 1] <= trades[99].timestamp < starts[at] <= trades[100].timestamp
    assert starts[at] - starts[at - 1] > timedelta(seconds=15)
    assert [math.isnan(value) for value in charts._broken([1.0] * len(starts), [at])].index(True) == at
    whole = chart._replace(gaps=[])
    assert charted.breaks_of(starts, whole) == []
    assert charts.png([chart]) != charts.png([whole])
