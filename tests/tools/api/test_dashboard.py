"""The dashboard in a real browser: it moves, draws, answers, says what is wrong, and comes back by itself."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import config
import db
from storage import proofs
from storage.proofs import AGREES, CONTIGUOUS, EQUAL, GAPPED, Proof
from tests.makers import MIDNIGHT
from tests.support.child import wait_until
from tests.support.dashboard import DESKTOP, HISTORY_MINUTES, PHONE, Page, Recorder, history, trade
from tests.support.many import many_symbols, names
from tests.support.servers import PrivateServer, Server
from tests.support.serving import Api, serving
from tests.support.tables import ask

pytestmark = pytest.mark.slow

NAME = "test_dashboard"


@pytest.fixture(scope="module")
def environ(any_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables of a database with a history, to which trades are added."""
    folder = tmp_path_factory.mktemp("dashboard")
    settings = any_server.settings(NAME, folder)
    history(settings)
    recorder = Recorder(settings)
    recorder.start()
    yield any_server.environ | {"MYSQL_DATABASE": NAME, "DATA_DIR": str(folder)}
    recorder.stop()
    with any_server.connect() as plain:
        ask(plain, f"DROP DATABASE {NAME}")


@pytest.fixture(scope="module")
def api(environ: dict[str, str]) -> Iterator[Api]:
    """The API of that database."""
    with serving(environ) as running:
        yield running


@pytest.fixture
def opened(browser: Any, api: Api) -> Iterator[Page]:
    """The dashboard on a desktop."""
    page = Page(browser, api.address)
    page.live()
    yield page
    page.context.close()
    assert page.wrong == []


def test_prices_move(opened: Page, api: Api) -> None:
    """Each shown price has all the digits that the API gives, and changes by itself; so does the tape."""
    seen: set[str] = set()

    def moved() -> bool:
        seen.add(opened.price())
        return len(seen) >= 4

    opened.until(moved)
    first_row = opened.text("#tape tbody tr")
    opened.until(lambda: opened.text("#tape tbody tr") != first_row)
    listed = {one["price"] for one in api.json("/api/trades/BTCUSDT/newest", limit=2_000)["trades"]}

    assert all(len(price.partition(".")[2]) == 8 for price in seen)
    assert seen <= listed
    assert opened.text(".card .speed").endswith("lag 3 ms")


def test_change_over_a_minute_an_hour_and_a_day(opened: Page, api: Api) -> None:
    """As exact as the prices: the sign and two decimals of a percent; a dash where nothing is stored from before."""
    opened.until(lambda: "%" in opened.text(".changes"))
    steps = [opened.text(f".changes span:nth-child({number})") for number in (1, 2, 3)]
    tip = opened.page.get_attribute(".changes span:nth-child(2) b", "title")

    assert [step.split()[0] for step in steps] == ["1m", "1h", "24h"]
    assert steps[2].split()[1] == "–"
    assert tip is not None
    assert tip.split()[0][0] in "+−"
    assert len(tip.split()[0].partition(".")[2]) == 8


def painted(page: Page) -> int:
    """How many pixels of the chart have the colours of candles."""
    return int(
        page.page.evaluate(
            """() => {
              const style = getComputedStyle(document.documentElement);
              const wanted = ["--up", "--down"].map((name) => {
                const hex = style.getPropertyValue(name).trim();
                return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).join();
              });
              let found = 0;
              for (const canvas of document.querySelectorAll("#chart canvas")) {
                if (!canvas.width || !canvas.height) continue;
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                for (let at = 0; at < data.length; at += 4) {
                  found += wanted.includes([data[at], data[at + 1], data[at + 2]].join());
                }
              }
              return found;
            }"""
        )
    )


def test_the_chart_draws_and_grows(opened: Page) -> None:
    """Candles in their colours; the newest one follows the price; the maker of the chart is named and linked."""
    # Of hours: a minute of this history has one trade, and what has not moved has no colour.
    opened.page.click("label:has([name=resolution][value='1h'])")
    opened.until(lambda: painted(opened) > 1_000)
    before = opened.text("#legend")
    opened.until(lambda: opened.text("#legend") != before)

    assert opened.page.get_attribute("footer a[href='https://www.tradingview.com/']", "href")
    assert "TradingView" in opened.text("footer")
    assert "low" in str(opened.page.get_attribute("#chart", "aria-label"))


def test_history_loads_on_the_way_back(opened: Page) -> None:
    """Five hundred candles at first, older ones as one goes back by keyboard, until there are no more."""

    def bars() -> int:
        return int(opened.page.get_attribute("#chart", "data-bars") or 0)

    opened.until(lambda: bars() >= 500)
    first = bars()
    opened.page.focus("#chart")

    def back() -> bool:
        opened.page.keyboard.press("ArrowLeft")
        return bars() >= HISTORY_MINUTES - 2

    assert first < 600
    opened.until(back)


def test_resolution_and_symbol_by_keyboard(opened: Page) -> None:
    """Arrow keys choose; chart, tape and address follow."""
    opened.page.check("[name=resolution][value='15m']")
    opened.page.keyboard.press("ArrowRight")
    opened.until(lambda: opened.page.url.endswith("#BTCUSDT/1h"))
    opened.until(lambda: 20 <= int(opened.page.get_attribute("#chart", "data-bars") or 0) <= 30)
    opened.page.focus(".card [value=BTCUSDT]")
    opened.page.keyboard.press("ArrowRight")
    opened.until(lambda: opened.page.url.endswith("#ETHUSDT/1h"))
    opened.until(lambda: opened.text("#tape tbody td:nth-child(2)").startswith("26"))

    assert opened.text("#chart-title") == "ETHUSDT"
    assert opened.text("#coverage-title") == "Coverage of ETHUSDT"
    opened.page.reload()
    opened.live()
    assert opened.text("#chart-title") == "ETHUSDT"


def asked(opened: Page, form: str, **fields: str) -> str:
    """The text of the answer to a form."""
    for name, value in fields.items():
        opened.page.fill(f"#{form} [name={name}]", value)
    opened.page.press(f"#{form} input", "Enter")
    opened.page.wait_for_selector(f"#{form}-answer:not([data-state=asking])")
    return opened.text(f"#{form}-answer")


def test_price_at_a_second(opened: Page, api: Api) -> None:
    """The second's trades, the price as of then if there are none, and what is wrong with a wrong time."""
    opened.page.wait_for_selector("#at-answer[data-state=answered]")
    old = api.json("/api/trades/BTCUSDT", limit=1)["trades"][0]
    second = old["timestamp"][:19].replace("T", " ")
    later = (datetime.fromisoformat(old["timestamp"]) + timedelta(seconds=5)).isoformat(" ")[:19]

    assert old["price"] in asked(opened, "at", time=second)
    assert "1 trade of BTCUSDT" in opened.text("#at-answer")
    assert old["price"] in asked(opened, "at", time=later)
    assert "No trade in that second" in opened.text("#at-answer")
    assert "not come yet" in asked(opened, "at", time="2099-01-01 00:00:00")
    assert asked(opened, "at", time="noon") == ""
    assert opened.text("#at-time-wrong").startswith("This is no time.")


def test_low_and_high(opened: Page, api: Api) -> None:
    """Of a range that one types or picks, with the distance and the change, exactly."""
    trades = api.json("/api/trades/BTCUSDT", limit=60)["trades"]
    start, end = (trades[at]["timestamp"][:19].replace("T", " ") for at in (0, 59))
    found = api.json("/api/range/BTCUSDT", start=start, end=end)
    text = asked(opened, "range", start=start, end=end)
    distance = Decimal(found["high"]["price"]) - Decimal(found["low"]["price"])

    assert found["low"]["price"] in text
    assert found["high"]["price"] in text
    assert f"{distance:.8f}" in text
    assert asked(opened, "range", start=end, end=start) == ""
    assert opened.text("#range-end-wrong") == "The end must be after the start."
    opened.page.click("[data-last='3600']")
    opened.until(lambda: "96" in opened.text("#range-answer") and "Low" in opened.text("#range-answer"))


def test_what_is_missing_is_said(opened: Page) -> None:
    """The open gaps, how old the newest trade is, and where the data are from."""
    opened.until(lambda: "2 trades are missing, in 2 open gaps" in opened.text("#gaps-words"))
    assert opened.page.get_attribute("#gaps-words", "data-complete") == "false"
    opened.until(lambda: opened.page.locator("#gaps tbody tr").count() == 2)

    assert "BTCUSDT 700" in opened.text("#gaps")
    opened.until(lambda: "newest trade 0." in opened.text("#freshness"))
    assert opened.text("#database") == NAME
    assert opened.page.is_hidden("#demo")
    assert opened.page.is_hidden("#banner")


def test_the_chart_shades_where_trades_are_missing(opened: Page) -> None:
    """Its minutes are there as empty places, shaded, and a sentence says so; the answers of the forms too."""
    opened.page.click("label:has([name=resolution][value='1h'])")
    # Of two hours if the trades beside the missing one are.
    opened.until(lambda: opened.page.get_attribute("#chart", "data-shaded") in ("1", "2"))
    opened.page.click("label:has([name=resolution][value='1m'])")
    opened.until(lambda: opened.page.get_attribute("#chart", "data-bars") not in ("0", None))
    opened.page.focus("#chart")

    def back() -> bool:
        opened.page.keyboard.press("ArrowLeft")
        return int(opened.page.get_attribute("#chart", "data-shaded")) >= 2

    opened.until(back)
    bars, slots, shaded = (
        int(opened.page.get_attribute("#chart", f"data-{name}")) for name in ("bars", "slots", "shaded")
    )

    assert (slots - bars >= 1, shaded >= 2) == (True, True)
    assert "1 trade is missing in this time" in opened.text("#chart-gaps")
    opened.page.focus("#chart")
    opened.page.keyboard.press("End")
    opened.until(lambda: 0 < float(opened.page.get_attribute("#chart", "data-places-after")) < 20)
    opened.page.click("[data-last='86400']")
    opened.until(
        lambda: (
            "Up to 1 trade is missing in that range: first, low, high and last may be wrong"
            in opened.text("#range-answer")
        )
    )


# ---- The calendar of audits.


def audit(settings: config.Settings, verdicts: Sequence[str | None], symbol: str = "BTCUSDT") -> list[str]:
    """Ten trades on each of the last days up to today, a day for each verdict, and the proofs of those that have one;
    on a gapped day one is missing. The days as the page names them."""
    now = datetime.now(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - timedelta(days=len(verdicts) - 1 - number) for number in range(len(verdicts))]
    rows = [
        trade(symbol, 10 * number + one, day + timedelta(seconds=one), "5.25")
        for number, (day, verdict) in enumerate(zip(days, verdicts, strict=True))
        for one in range(1, 11)
        if not (verdict == GAPPED and one == 5)
    ]
    connection = db.connect(settings)
    db.insert_trades(connection, rows)
    for number, (day, verdict) in enumerate(zip(days, verdicts, strict=True)):
        if verdict:
            found = (10 * number + 1, 10 * number + 10, 9, 1) if verdict == GAPPED else (1, 2, 10, 0)
            compared = ("ab" * 32, "ab" * 32, "klines" if verdict == AGREES else "", "")
            at = min(day + timedelta(days=1, hours=3), now)
            reason = "" if verdict == EQUAL else f"why it is {verdict}"
            proofs.add_proof(connection, Proof(0, symbol, day.date(), verdict, reason, *found, *compared, at))
    db.close(connection)
    return [f"{day:%Y-%m-%d}" for day in days]


@contextmanager
def calendar(
    browser: Any, server: Server, folder: Path, verdicts: Sequence[str | None], **looks: Any
) -> Iterator[tuple[Page, Api, list[str]]]:
    """The page above audits of these verdicts, and the days."""
    settings = server.settings("test_calendar", folder)
    days = audit(settings, verdicts)
    with serving(server.environ | {"MYSQL_DATABASE": "test_calendar", "DATA_DIR": str(folder)}) as api:
        page = Page(browser, api.address, **looks)
        try:
            page.page.wait_for_selector("#coverage[data-state=answered]")
            yield page, api, days
        finally:
            page.context.close()
            with server.connect() as plain:
                ask(plain, "DROP DATABASE test_calendar")
    assert page.wrong == []


CONTRASTS = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => parts(text).slice(0, 3)
    .map((one) => one / 255).map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const surface = getComputedStyle(document.getElementById("coverage")).backgroundColor;
  return [...document.querySelectorAll("#coverage .verdicts .day")].map((day) => {
    const style = getComputedStyle(day);
    const filled = parts(style.backgroundColor)[3] !== 0;
    return [
      contrast(style.color, filled ? style.backgroundColor : surface),
      contrast(filled ? style.backgroundColor : style.borderTopColor, surface),
    ];
  });
}"""
"""Of each verdict: how much the sign stands out from its cell, and the cell from the panel."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_coverage_of_a_few_days(browser: Any, any_server: Server, tmp_path: Path, scheme: str) -> None:
    """Each day is a cell with its date and a sign, and says in words what is known; the newest one's details are below.
    Sign and cell stand out in both schemes."""
    verdicts = [*proofs.VERDICTS, None, CONTIGUOUS]
    with calendar(browser, any_server, tmp_path, verdicts, scheme=scheme) as (page, _, days):
        cells = page.page.locator("#coverage .calendar button")
        labels = [cells.nth(at).get_attribute("aria-label") for at in range(cells.count())]
        signs = page.page.locator("#coverage .calendar .sign").all_text_contents()
        contrasts = page.page.evaluate(CONTRASTS)
        detail, total = page.text("#coverage [data-part=detail]"), page.text("#coverage [data-part=summary]")
        hint_shown = page.page.is_visible("#coverage [data-part=hint]")

    assert labels[0] == f"{days[0]}: equal, 10 trades, 0 ids missing"
    assert labels[3] == f"{days[3]}: gapped, 9 trades, 1 id missing. why it is gapped"
    assert labels[6] == f"{days[6]}: not audited, 10 trades, 0 ids missing"
    assert labels[7] == (
        f"{days[7]}: contiguous, 10 trades, 0 ids missing, audited before the day was over. why it is contiguous"
    )
    assert signs == ["=", "≈", "•", "!", "≠", "?", "", "•"]
    assert total == (
        "8 days: 1 equal, 1 agrees, 2 contiguous, 1 gapped, 1 different, 1 unverifiable, 1 not audited (1 id missing)."
    )
    assert "contiguous: all ids are there, nothing compared yet" in detail
    assert "before the day was over" in detail
    assert not hint_shown
    assert len(contrasts) == 7
    assert min(text for text, _ in contrasts) >= 4.5
    assert min(cell for _, cell in contrasts) >= 3


def test_coverage_by_keyboard_and_mouse(browser: Any, any_server: Server, tmp_path: Path) -> None:
    """The days are one stop of the tab key; arrows go by day and week, Home and End to the ends; a click chooses."""
    verdicts = [GAPPED if number == 0 else EQUAL for number in range(20)]
    with calendar(browser, any_server, tmp_path, verdicts) as (page, _, days):
        stops = page.page.locator("#coverage .calendar button[tabindex='0']")
        page.page.focus("#coverage .calendar button[tabindex='0']")
        walk = [stops.get_attribute("title")]
        for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown", "End", "ArrowRight", "Home", "ArrowUp"):
            page.page.keyboard.press(key)
            focused = page.page.evaluate("document.activeElement.title")
            assert (stops.count(), stops.get_attribute("title")) == (1, focused)
            walk.append(focused)
        first = page.text("#coverage [data-part=detail]")
        page.page.click(f"#coverage .calendar button[title^='{days[3]}']")
        third = page.text("#coverage [data-part=detail]")

    at = [days.index(str(one)[:10]) for one in walk]
    assert at == [19, 18, 11, 12, 19, 19, 19, 0, 0]
    assert "why it is gapped" in first
    assert "Ids missing1" in first
    assert "Ids missing0" in third


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_coverage_of_many_days(browser: Any, any_server: Server, tmp_path: Path, size: dict[str, int]) -> None:
    """A column for each week, the newest 400 days; what does not fit is scrolled to, and the newest is in view."""
    with calendar(browser, any_server, tmp_path, [EQUAL] * 410, size=size) as (page, _, days):
        cells = page.page.locator("#coverage .calendar button")
        count, first = cells.count(), str(cells.first.get_attribute("title"))
        box, panel = cells.last.bounding_box(), page.page.locator("#coverage").bounding_box()
        width = page.page.evaluate("document.documentElement.scrollWidth")
        page.page.focus("#coverage .calendar button[tabindex='0']")
        page.page.keyboard.press("ArrowLeft")
        week_before = page.page.evaluate("document.activeElement.title")
        total = page.text("#coverage [data-part=summary]")

    assert (count, first[:10], week_before[:10]) == (400, days[10], days[-8])
    assert panel["x"] <= box["x"] <= box["x"] + box["width"] <= panel["x"] + panel["width"]
    assert width <= size["width"]
    assert total == "400 days: 400 equal."


def test_coverage_is_asked_for_every_minute(browser: Any, any_server: Server, tmp_path: Path) -> None:
    """Before the first audit the panel says what to run, and later what came of it; the focus stays on its day. While
    the API does not answer, it says so above what was known."""
    with calendar(browser, any_server, tmp_path, [None, None, None]) as (page, api, days):
        page.page.clock.install()
        page.page.reload()
        page.page.wait_for_selector("#coverage[data-state=answered]")
        assert page.text("#coverage [data-part=hint]") == "Nothing was audited yet: run python audit.py"
        assert page.page.is_visible("#coverage [data-part=hint]")
        page.page.focus("#coverage .calendar button[tabindex='0']")
        page.page.keyboard.press("Home")
        hashes = ("ab" * 32, "ab" * 32, "", "")
        about = (date.fromisoformat(days[0]), EQUAL, "", 1, 10, 10, 0)
        with closing(db.connect(any_server.settings("test_calendar", tmp_path))) as connection:
            proofs.add_proof(connection, Proof(0, "BTCUSDT", *about, *hashes, datetime.now(UTC)))
        page.page.clock.fast_forward(61_000)
        page.until(lambda: page.text("#coverage [data-part=summary]") == "3 days: 1 equal, 2 not audited.")
        assert page.page.is_hidden("#coverage [data-part=hint]")
        assert page.page.evaluate("document.activeElement.title").startswith(f"{days[0]}: equal")
        colour = (
            f"getComputedStyle(document.querySelector('#coverage .calendar [title^=\"{days[0]}\"]')).backgroundColor"
        )
        # By the page's clock nothing has come for a minute, until the next status.
        page.until(lambda: page.page.evaluate(colour) == "rgb(10, 125, 85)")

        api.stop()
        page.page.clock.fast_forward(61_000)
        page.page.wait_for_selector("#coverage[data-state=refused]")
        assert page.text("#coverage [data-part=wrong]").startswith(
            "Not known now: the API does not answer. Shown is what was known at 20"
        )
        assert page.page.locator("#coverage .calendar button").count() == 3
        # What may be otherwise by now is not green.
        assert page.page.evaluate(colour) == "rgba(0, 0, 0, 0)"


# ---- All of the page.


def test_everything_has_a_name(opened: Page) -> None:
    """Each control says what it is to a screen reader, each table what its columns are, and there is one heading."""
    nameless = opened.page.evaluate(
        """() => [...document.querySelectorAll("button, input, output, table, [role], a")].filter((one) => {
          const labels = [...(one.labels ?? [])].map((label) => label.textContent).join("");
          const named = one.getAttribute("aria-label") || one.title || labels || one.textContent.trim();
          return !named && one.getAttribute("role") !== "alert" && one.tagName !== "OUTPUT";
        }).map((one) => one.outerHTML)"""
    )

    assert nameless == []
    assert opened.page.locator("h1").count() == 1
    assert opened.page.locator("th:not([scope])").count() == 0
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.className") == "skip"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_sizes_and_colours(browser: Any, api: Api, size: dict[str, int], scheme: str) -> None:
    """Nothing sticks out of the window, and the page is dark where the system is, until one says otherwise."""
    page = Page(browser, api.address, size, scheme)
    page.live()
    page.page.wait_for_selector("#range-answer[data-state=answered]")
    brightness = "parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    before = page.page.evaluate(brightness)
    page.page.click("#theme")
    after = page.page.evaluate(brightness)
    width = page.page.evaluate("document.documentElement.scrollWidth")
    page.context.close()

    assert width <= size["width"]
    assert (before < 60) is (scheme == "dark")
    assert (after < 60) is (scheme == "light")
    assert page.wrong == []


def test_the_token_is_asked_for(browser: Any, environ: dict[str, str]) -> None:
    """Once, and again when it is wrong, which is said; then all of the page works, and so does a download and a page
    that is opened later. No script can read what the browser then has."""
    with serving(environ | {"API_TOKEN": "a-secret"}) as guarded:
        page = Page(browser, guarded.address)
        for attempt in ("wrong", "a-secret"):
            page.page.wait_for_selector("dialog[open]")
            page.page.fill("#token-text", attempt)
            page.page.press("#token-text", "Enter")
            if attempt == "wrong":
                page.page.wait_for_selector("#token-wrong:visible")
                assert "that is not the API_TOKEN" in page.text("#token-wrong")
        page.live()
        page.page.wait_for_selector("#at-answer[data-state=answered]")
        assert page.page.evaluate("document.cookie + sessionStorage.length + localStorage.length") == "00"
        assert page.page.evaluate("fetch('/api/export/BTCUSDT.csv').then((one) => one.status)") == 200
        opened = "new Promise((yes) => { const one = new EventSource('/api/stream'); one.onopen = () => yes(1); })"
        assert page.page.evaluate(opened) == 1
        page.page.reload()
        page.live()
        page.context.close()


# ---- What goes wrong.


@pytest.fixture
def rig(any_server: Server, tmp_path: Path) -> Iterator[tuple[config.Settings, dict[str, str]]]:
    """A database of this test's own, with a history."""
    settings = any_server.settings("test_trouble", tmp_path)
    history(settings)
    yield settings, any_server.environ | {"MYSQL_DATABASE": "test_trouble", "DATA_DIR": str(tmp_path)}
    with any_server.connect() as plain:
        ask(plain, "DROP DATABASE test_trouble")


def test_the_capture_stops_and_starts(browser: Any, rig: tuple[config.Settings, dict[str, str]]) -> None:
    """A banner says that no trade comes, and goes by itself when they come again."""
    settings, environ = rig
    with serving(environ) as api:
        recorder = Recorder(settings)
        recorder.start()
        page = Page(browser, api.address)
        page.live()
        recorder.stop()
        page.page.wait_for_selector("#banner[data-kind=no-trades]:visible")
        words, price = page.text("#banner"), page.price()
        wait_until(lambda: api.json("/api/latest/BTCUSDT")["trade_id"] == recorder.last["BTCUSDT"].trade_id)

        assert words.endswith("Is the capture running?")
        assert page.text("#connection-text") == "not live"
        assert price == f"{recorder.last['BTCUSDT'].price:.8f}"
        recorder = Recorder(settings)
        recorder.start()
        page.page.wait_for_selector("#banner", state="hidden")
        page.live()
        recorder.stop()
        page.context.close()


def test_the_api_goes_and_comes_back(browser: Any, rig: tuple[config.Settings, dict[str, str]]) -> None:
    """A banner says so; the page goes on by itself, with what was stored meanwhile."""
    settings, environ = rig
    recorder = Recorder(settings)
    recorder.start()
    with serving(environ) as api:
        page = Page(browser, api.address)
        page.live()
        # What it says then depends on whether it has known anything before.
        page.until(lambda: page.page.get_attribute("#gaps-words", "data-complete") in ("true", "false"))
        api.stop()
        page.page.wait_for_selector("#banner[data-kind=api]:visible")
        assert "No connection to the API" in page.text("#banner")
        assert page.page.get_attribute("#gaps-words", "data-complete") == "unknown"
        assert page.text("#gaps-words").startswith("Not known now: the API does not answer. At 20")
        with serving(environ, "--port", str(api.port)):
            page.page.wait_for_selector("#banner", state="hidden")
            page.live()
            before = page.price()
            page.until(lambda: page.price() != before)
            page.context.close()
    recorder.stop()


def test_the_database_goes_and_comes_back(browser: Any, killable_server: PrivateServer, tmp_path: Path) -> None:
    """A banner says so; what was last known stays; the page goes on by itself."""
    settings = killable_server.settings("test_away", tmp_path)
    history(settings)
    recorder = Recorder(settings)
    recorder.start()
    with serving(killable_server.environ | {"MYSQL_DATABASE": "test_away", "DATA_DIR": str(tmp_path)}) as api:
        page = Page(browser, api.address)
        page.live()
        page.until(lambda: "missing, in" in page.text("#gaps-words"))
        page.until(lambda: page.price().startswith("97"))
        killable_server.kill()
        # On a busy machine it may be called silent first.
        page.page.wait_for_selector("#banner[data-kind=database-away]:visible")
        assert "database is away" in page.text("#banner")
        assert page.page.get_attribute("#gaps-words", "data-complete") == "unknown"
        assert "2 trades were missing" in page.text("#gaps-words")
        assert page.price()[:2] == "97"
        recorder.stop()
        killable_server.start()
        recorder = Recorder(settings)
        recorder.start()
        page.page.wait_for_selector("#banner", state="hidden")
        page.live()
        recorder.stop()
        page.context.close()


def test_before_the_first_trade(browser: Any, any_server: Server, tmp_path: Path) -> None:
    """The page says that nothing is stored yet, and shows the first trade when it comes."""
    settings = any_server.settings("test_nothing", tmp_path)
    with serving(any_server.environ | {"MYSQL_DATABASE": "test_nothing", "DATA_DIR": str(tmp_path)}) as api:
        page = Page(browser, api.address)
        page.page.wait_for_selector("#banner:visible")
        connection = db.connect(settings)
        try:
            page.page.wait_for_selector("#nothing:visible")
            db.insert_trades(connection, [trade("BTCUSDT", 1, datetime.now(UTC), "5.25")])
            page.page.wait_for_selector(".card .price[data-amount]")
            assert page.price() == "5.25000000"
        finally:
            page.context.close()
            ask(connection, "DROP DATABASE test_nothing")
            db.close(connection)


# ---- Many symbols.

CROWD = [*names(1_200), "BTCUSDT", "币安人生USDT"]


@pytest.fixture(scope="module")
def crowd(any_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API of a database with all of CROWD."""
    folder = tmp_path_factory.mktemp("crowd")
    with many_symbols(any_server, "test_crowd", folder, CROWD, MIDNIGHT) as variables, serving(variables) as running:
        yield running


@contextmanager
def finding(browser: Any, api: Api, place: str = "", **looks: Any) -> Iterator[Page]:
    """The page of many symbols."""
    page = Page(browser, api.address, **looks)
    page.page.wait_for_selector(".card .price[data-amount]")
    if place:
        # Only now: a page that begins writes what it shows into the address.
        page.page.goto(f"{api.address}/{place}")
        page.page.reload()
        page.page.wait_for_selector(".card .price[data-amount]")
    yield page
    page.context.close()
    assert page.wrong == []


def cards(page: Page) -> list[str]:
    """The symbols that have a card."""
    return [str(name) for name in page.page.locator(".card .name").all_text_contents()]


def options(page: Page) -> list[str]:
    """The symbols of the open list."""
    return [str(name) for name in page.page.locator("#found [role=option]").all_text_contents()]


def active(page: Page) -> str:
    """The option that the field points to, which is the only one that is selected."""
    option = page.page.get_attribute("#find", "aria-activedescendant")
    assert page.page.locator("#found [aria-selected=true]").count() == (1 if option else 0)
    return page.text(f"#{option}") if option else ""


def test_a_symbol_is_found_by_keyboard(browser: Any, crowd: Api) -> None:
    """A slash leads to the field, what is typed narrows the list, arrows move in it, Enter chooses, Escape clears."""
    with finding(browser, crowd) as page:
        keyboard = page.page.keyboard
        assert cards(page) == ["BTCUSDT", "S0000USDT"]
        assert page.page.is_hidden("#found")
        keyboard.press("/")
        assert page.page.get_attribute("#find", "placeholder") == "Search 1,202 symbols"
        keyboard.type("s010")
        assert options(page) == [f"S010{digit}USDT" for digit in range(10)]
        assert (page.page.get_attribute("#find", "aria-expanded"), active(page)) == ("true", "S0100USDT")
        assert page.text("[data-part=more]") == "10 symbols"
        keyboard.press("ArrowDown")
        assert active(page) == "S0101USDT"
        for _ in range(2):
            keyboard.press("ArrowUp")
        assert active(page) == "S0109USDT"
        keyboard.press("Enter")
        page.page.wait_for_selector(".card:has([value=S0109USDT]) .price[data-amount]")
        assert page.page.input_value("#find") == ""
        assert page.page.is_hidden("#found")
        assert page.page.url.endswith("#S0109USDT/1s")
        assert (page.text("#chart-title"), page.price("S0109USDT")) == ("S0109USDT", "111.50000000")
        page.until(lambda: page.page.locator("#tape tbody tr").count() == 2)


def test_what_fits_nothing_is_cleared_by_escape(browser: Any, crowd: Api) -> None:
    """Enter does nothing then; an arrow opens the list of all, of which the first are shown."""
    with finding(browser, crowd) as page:
        keyboard = page.page.keyboard
        keyboard.press("/")
        keyboard.type("nonesuch")
        assert (options(page), page.text("[data-part=more]")) == ([], "No symbol fits")
        keyboard.press("Enter")
        keyboard.press("Escape")
        assert page.page.input_value("#find") == ""
        assert (page.page.get_attribute("#find", "aria-expanded"), active(page)) == ("false", "")
        keyboard.press("ArrowDown")
        assert len(options(page)) == 50
        assert page.text("[data-part=more]") == "1,152 symbols more: type on"


def test_only_what_is_shown_is_listened_to(browser: Any, crowd: Api) -> None:
    """The stream has the symbols of the cards, which are four at most: the one looked at and those before it."""
    with finding(browser, crowd, f"#{CROWD[7]}/1m") as page:
        streams: list[str] = []
        page.page.on("request", lambda one: streams.append(one.url) if "/api/stream?" in one.url else None)
        assert (page.text("#chart-title"), set(cards(page))) == (CROWD[7], {"BTCUSDT", "S0000USDT", CROWD[7]})
        for typed in ("0500", "btcusdt", "币", "0600"):
            page.page.fill("#find", typed)
            page.page.click("#found [role=option]")
            page.page.wait_for_selector(f"#chart-title:has-text('{typed.upper()}')")
            page.page.wait_for_selector(".card:has(:checked) .price[data-amount]")
        page.until(lambda: len(streams) == 3)

        assert cards(page) == ["BTCUSDT", "S0500USDT", "币安人生USDT", "S0600USDT"]
        assert streams[-1].count("%2C") == 3
        assert page.page.evaluate("document.activeElement.id") == "find"


@pytest.mark.parametrize("forced", ["none", "active"])
@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_list_fits(browser: Any, crowd: Api, size: dict[str, int], scheme: str, forced: str) -> None:
    """Inside of the window, above all else, with the option that Enter takes told apart, in whatever colours."""
    with finding(browser, crowd, size=size, scheme=scheme) as page:
        page.page.emulate_media(forced_colors=forced)
        page.page.keyboard.press("/")
        page.page.keyboard.type("S1")
        box = page.page.locator("#finder [data-part=popup]").bounding_box()
        colours = page.page.evaluate(
            "[0, 1].map((at) => getComputedStyle(document.getElementById(`found-${at}`)).backgroundColor)"
        )
        middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
        above = page.page.evaluate("([x, y]) => document.elementFromPoint(x, y).closest('#finder') !== null", middle)
        width = page.page.evaluate("document.documentElement.scrollWidth")

    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size["width"]
    assert box["y"] + box["height"] <= size["height"]
    assert colours[0] != colours[1]
    assert above
    assert width <= size["width"]


def test_few_symbols_have_no_search_box(opened: Page) -> None:
    """Each has its card, and a slash is a slash."""
    opened.page.keyboard.press("/")

    assert opened.page.is_hidden("#finder")
    assert cards(opened) == ["BTCUSDT", "ETHUSDT"]
