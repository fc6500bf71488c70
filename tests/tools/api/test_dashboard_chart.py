"""The dashboard's chart, digits and address in a real browser."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

import config
import db
from model.trade import Trade
from tests.support.dashboard import DESKTOP, PHONE, Page
from tests.support.servers import Server
from tests.support.serving import Api, serving
from tests.support.tables import ask

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

NAME = "test_dashboard_chart"
MINUTES = 200
MISSING = range(101, 113)
"""The ids of a time of ten minutes that are missing."""


def now() -> datetime:
    """This minute's begin."""
    return datetime.now(UTC).replace(second=0, microsecond=0)


def trade(symbol: str, trade_id: int, when: datetime, price: str, quantity: str = "0.01500000") -> Trade:
    """A trade whose taker bought, or sold if its id is odd."""
    return Trade(symbol, when, trade_id, Decimal(price), Decimal(quantity), trade_id % 2 == 1, when)


def history(begin: datetime) -> list[Trade]:
    """A trade a minute; those of MISSING and ten minutes are not there."""
    found: list[Trade] = []
    for number in range(1, MINUTES):
        if number in MISSING:
            continue
        when = begin + timedelta(minutes=number if number < MISSING[0] else number - 2, milliseconds=250)
        found.append(trade("BTCUSDT", number, when, f"{97_000 + number * 7 % 400}.{number % 10}0000000"))
    return [*found, *(one._replace(symbol="ETHUSDT", price=Decimal("2600.5")) for one in found)]


@pytest.fixture(scope="module")
def stored(any_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[config.Settings]:
    """A database with a history of some hours, to which nothing is added but by a test."""
    settings = any_server.settings(NAME, tmp_path_factory.mktemp("chart"))
    with closing(db.connect(settings)) as connection:
        db.insert_trades(connection, history(now() - timedelta(minutes=MINUTES)))
    yield settings
    with any_server.connect() as plain:
        ask(plain, f"DROP DATABASE {NAME}")


@pytest.fixture(scope="module")
def api(any_server: Server, stored: config.Settings) -> Iterator[Api]:
    """The API of that database."""
    with serving(any_server.environ | {"MYSQL_DATABASE": NAME, "DATA_DIR": str(stored.data_dir)}) as running:
        yield running


class Chart(Page):
    """The page, when its chart is drawn."""

    def drawn(self) -> None:
        """Returns when there are candles."""
        self.page.wait_for_selector("#chart[data-bars]:not([data-bars='0'])")
        self.page.wait_for_selector("#range-answer[data-state]:not([data-state=asking])")

    def went(self, address: str) -> None:
        """Returns when the address ends so."""
        self.until(lambda: self.page.url.endswith(address))

    def look(self) -> tuple[str, str]:
        """The symbol and the resolution that are shown."""
        return self.text("#chart-title"), str(self.page.input_value("[name=resolution]:checked"))


@pytest.fixture
def opened(browser: Any, api: Api) -> Iterator[Callable[..., Chart]]:
    """Opens the page at an address."""
    pages: list[Chart] = []

    def open_at(place: str = "", size: dict[str, int] = DESKTOP, scheme: str = "light") -> Chart:
        for other in pages:
            other.context.close()
        page = Chart(browser, f"{api.address}/{place}", size, scheme)
        pages.append(page)
        page.drawn()
        return page

    yield open_at
    for page in pages:
        page.context.close()
    assert [wrong for page in pages for wrong in page.wrong if not wrong.startswith(api.address)] == []


# ---- The address.


def test_back_and_forward(opened: Callable[..., Chart], api: Api) -> None:
    """Each choice, and each range that was asked for, is a step of the history; the page follows the address."""
    begin = api.json("/api/trades/BTCUSDT", limit=1)["trades"][0]["timestamp"][:17] + "00Z"
    end = f"{datetime.fromisoformat(begin) + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"
    page = opened("#BTCUSDT/1m")
    page.page.click("label:has([name=resolution][value='5m'])")
    page.went("#BTCUSDT/5m")
    page.page.click(".card:has([value=ETHUSDT])")
    page.went("#ETHUSDT/5m")
    page.page.fill("#range-start", begin)
    page.page.fill("#range-end", end.replace("T", " ").replace("Z", ""))
    page.page.press("#range-end", "Enter")
    page.went(f"#ETHUSDT/5m/{begin}/{end}")

    page.page.go_back()
    page.went("#ETHUSDT/5m")
    page.page.go_back()
    page.until(lambda: page.look() == ("BTCUSDT", "5m"))
    page.page.go_back()
    page.until(lambda: page.look() == ("BTCUSDT", "1m"))
    for _ in range(3):
        page.page.go_forward()
    page.until(lambda: page.look() == ("ETHUSDT", "5m"))
    page.went(f"#ETHUSDT/5m/{begin}/{end}")
    page.page.reload()
    page.until(lambda: "ETHUSDT" in page.text("#range-answer"))

    assert page.page.input_value("#range-start") == begin.replace("T", " ").replace("Z", "")
    assert page.page.url.endswith(f"#ETHUSDT/5m/{begin}/{end}")


def test_an_answer_that_comes_after_back_does_not_undo_it(opened: Callable[..., Chart]) -> None:
    """It is shown, and the address stays."""
    page = opened("#BTCUSDT/1m")
    page.page.wait_for_selector("#range-answer[data-state=answered]")
    page.page.click("label:has([name=resolution][value='5m'])")
    page.went("#BTCUSDT/5m")
    held = page.hold("**/api/range/**")
    page.page.click("#range [type=submit]")
    page.until(lambda: held)
    page.page.go_back()
    page.until(lambda: page.look() == ("BTCUSDT", "1m"))
    page.release(held[0])

    page.page.wait_for_selector("#range-answer[data-state=answered]")
    assert page.page.url.endswith("#BTCUSDT/1m")


DAMAGED = {
    "#%E0%A4%A": "#BTCUSDT/1m",
    "#%E0%A4%A/1h": "#BTCUSDT/1h",
    "#ETHUSDT/7m": "#ETHUSDT/1m",
    "#ETHUSDT/1h/yesterday/today": "#ETHUSDT/1h",
    "#ETHUSDT/1h/2025-02-31T00:00:00Z/2025-03-05T00:00:00Z": "#ETHUSDT/1h",
    "#ETHUSDT/1h/2025-03-05T00:00:00Z/2025-03-04T00:00:00Z": "#ETHUSDT/1h",
    "#//////": "#BTCUSDT/1m",
}


def test_a_damaged_address_falls_back(opened: Callable[..., Chart]) -> None:
    """What is sound of it is taken, at the start and when it is typed over; no error of a script (`opened` looks)."""
    damaged, sound = next(iter(DAMAGED.items()))
    page = opened(damaged)
    page.went(sound)
    for damaged, sound in DAMAGED.items():
        page.page.evaluate("location.hash = '#BTCUSDT/1m'")
        page.until(lambda: page.look() == ("BTCUSDT", "1m"))
        page.page.evaluate("(hash) => { location.hash = hash }", damaged)
        page.went(sound)

    assert page.page.is_hidden("#address-note")


def test_a_symbol_that_is_not_stored(opened: Callable[..., Chart]) -> None:
    """The page says so, shows another, and is silent about it after the next choice."""
    page = opened("#<b>NONE/1h")
    page.went("#BTCUSDT/1h")
    page.page.wait_for_selector("#address-note:visible")
    assert page.text("#address-note") == "No trade of <b>NONE is stored. Shown is BTCUSDT."
    page.page.click(".card:has([value=ETHUSDT])")
    page.page.wait_for_selector("#address-note", state="hidden")


# ---- The chart.


def legend(page: Chart) -> list[str]:
    """The exact open, high, low, close and volume of the legend."""
    amounts = page.page.eval_on_selector_all("#legend [data-amount]", "all => all.map((one) => one.dataset.amount)")
    return list(map(str, amounts))


def shows(page: Chart, close: str) -> bool:
    """Whether the newest candle closes at this price."""
    return legend(page)[3:4] == [close]


def test_every_resolution(opened: Callable[..., Chart], api: Api, stored: config.Settings) -> None:
    """The newest candle is the API's, digit by digit, and grows with the next trade, whatever its length is."""
    page = opened("#BTCUSDT/1m")
    with closing(db.connect(stored)) as connection:
        for number, name in enumerate(("1s", "1m", "5m", "15m", "1h", "4h", "1d")):
            page.page.click(f"label:has([name=resolution][value='{name}'])")
            when = datetime.now(UTC).replace(microsecond=0)
            price = f"97500.{number}1000000"
            db.insert_trades(connection, [trade("BTCUSDT", 10_000 + number, when, price, "0.00012345")])
            page.until(partial(shows, page, price))
            bar = api.json("/api/candles/BTCUSDT", resolution=name)["candles"][-1]
            assert legend(page) == [bar[one] for one in ("open", "high", "low", "close", "volume")]
            assert f"{bar['trades']:,} trade{'s' if bar['trades'] > 1 else ''}" in page.text("#legend")
            assert page.look() == ("BTCUSDT", name)


def pointed_at(page: Chart, text: str) -> int:
    """Moves the pointer over the chart until the legend has this text; returns how far from the left that is."""
    box = page.page.locator("#chart").bounding_box()
    for x in range(5, int(box["width"]) - 70, 5):
        page.page.mouse.move(box["x"] + x, box["y"] + box["height"] / 2)
        if text in page.text("#legend"):
            return x
    raise AssertionError(f"nowhere {text}")


def test_missing_times_are_there(opened: Callable[..., Chart], api: Api) -> None:
    """Each minute without a candle has its place, which says how many ids are missing there."""
    page = opened("#ETHUSDT/1m")
    bars, slots, shaded = (int(page.page.get_attribute("#chart", f"data-{one}")) for one in ("bars", "slots", "shaded"))
    bar = api.json("/api/candles/ETHUSDT")["candles"]
    minutes = datetime.fromisoformat(bar[-1]["timestamp"]) - datetime.fromisoformat(bar[0]["timestamp"])

    assert (bars, slots) == (len(bar), minutes // timedelta(minutes=1) + 1)
    assert shaded == 12
    pointed_at(page, "no trade is stored12 ids missing here")
    assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", page.text("#legend"))


def test_low_and_high_are_marked(opened: Callable[..., Chart], api: Api) -> None:
    """Those of the range that was asked for, as long as its symbol is shown."""
    page = opened("#ETHUSDT/15m")
    page.page.click("[data-last='86400']")
    page.went("Z")
    start, end = page.page.url.split("/")[-2:]
    found = api.json("/api/range/ETHUSDT", start=start, end=end)
    words = "; ".join(f"{one} {Decimal(found[one]['price']):,.2f}" for one in ("low", "high"))
    other = "; ".join(reversed(words.split("; ")))
    page.until(lambda: page.page.get_attribute("#chart", "data-marks") in (words, other))
    page.page.click("label:has([name=resolution][value='1h'])")
    page.until(
        lambda: page.look() == ("ETHUSDT", "1h") and "low" in str(page.page.get_attribute("#chart", "data-marks"))
    )


def test_local_time(opened: Callable[..., Chart]) -> None:
    """A switch for the chart, which says what it shows, and which the next visit remembers."""
    page = opened("#ETHUSDT/1m")
    page.page.context.new_cdp_session(page.page).send("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Kolkata"})
    page.page.reload()
    page.drawn()
    utc = page.text("#legend .when")
    assert (utc.endswith(" UTC"), page.text("#chart .zone")) == (True, "UTC")
    page.page.check("#local-time")
    page.until(lambda: page.text("#chart .zone") == "UTC+5:30")
    local = page.text("#legend .when")
    page.page.reload()
    page.drawn()

    assert local.endswith(" UTC+5:30")
    assert datetime.fromisoformat(local[:16]) - datetime.fromisoformat(utc[:16]) == timedelta(hours=5, minutes=30)
    assert page.text("#legend .when") == local
    page.page.uncheck("#local-time")
    page.until(lambda: page.text("#legend .when") == utc)


DAY_TEXTS = """async () => {
  const { pointedAt, tick } = await import("/static/legend.js");
  const time = Date.UTC(2025, 2, 1) / 1000;
  return [pointedAt(time, "1d"), tick(time, 0, "1d"), tick(time, 1, "1d"), tick(time, 2, "1d"), tick(time, 2, "1h")];
}"""


def test_days_are_of_utc(opened: Callable[..., Chart]) -> None:
    """Whatever the time of this computer: a candle of a day has the date of that day, and says UTC."""
    page = opened("#ETHUSDT/1d")
    page.page.context.new_cdp_session(page.page).send("Emulation.setTimezoneOverride", {"timezoneId": "America/Lima"})
    page.page.reload()
    page.drawn()
    page.page.click("#chart ~ details summary")
    day = page.text("#legend .when").removesuffix(" UTC")
    page.page.check("#local-time")

    assert re.fullmatch(r"20\d\d-\d\d-\d\d", day)
    assert (page.text("#legend .when"), page.text("#chart .zone")) == (f"{day} UTC", "UTC")
    assert (page.text("#bars thead th"), page.text("#bars tbody th")) == ("UTC", day)
    assert page.page.evaluate(DAY_TEXTS) == ["2025-03-01 UTC", "2025", "Mar 1", "Mar 1", "Feb 28"]
    page.page.click("label:has([name=resolution][value='1h'])")
    page.until(lambda: page.text("#legend .when").endswith(" UTC−5"))


def test_a_wheel_scrolls_and_ctrl_zooms(opened: Callable[..., Chart]) -> None:
    """The page is not caught by the chart."""
    page = opened("#ETHUSDT/1m", size={"width": 1280, "height": 500})
    box = page.page.locator("#chart").bounding_box()
    page.page.mouse.move(box["x"] + 300, box["y"] + 100)
    wide = float(page.page.get_attribute("#chart", "data-places-wide"))
    page.page.keyboard.down("Control")
    page.page.mouse.wheel(0, -100)
    page.until(lambda: float(page.page.get_attribute("#chart", "data-places-wide")) < wide * 0.9)
    assert page.page.evaluate("scrollY") == 0
    near = float(page.page.get_attribute("#chart", "data-places-wide"))
    page.page.keyboard.up("Control")
    page.page.mouse.wheel(0, 150)
    page.until(lambda: page.page.evaluate("scrollY") > 100)

    assert float(page.page.get_attribute("#chart", "data-places-wide")) == near


def test_a_swipe_up_scrolls(opened: Callable[..., Chart]) -> None:
    """On the chart of a phone."""
    page = opened("#ETHUSDT/1m", size=PHONE)
    session = page.page.context.new_cdp_session(page.page)
    session.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    box = page.page.locator("#chart").bounding_box()

    def touch(kind: str, *heights: float) -> None:
        points = [{"x": box["x"] + 150, "y": box["y"] + height} for height in heights]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 250)
    for moved in range(1, 16):
        touch("touchMove", 250 - 10 * moved)
    touch("touchEnd")
    page.until(lambda: page.page.evaluate("scrollY") > 100)


def test_a_click_on_a_candle_is_an_event(opened: Callable[..., Chart]) -> None:
    """With the time of the candle, for whoever listens."""
    page = opened("#ETHUSDT/5m")
    page.page.evaluate(
        "document.getElementById('chart').addEventListener('candle', (event) => { window.clicked = event.detail })"
    )
    newest = datetime.fromisoformat(page.text("#legend .when").removesuffix(" UTC"))
    when = newest - timedelta(minutes=25)
    pointed_at(page, f"{when:%Y-%m-%d %H:%M}")

    def click() -> bool:
        # One that lasts half a second, as on a busy machine, is none to the chart.
        page.page.mouse.down()
        page.page.mouse.up()
        return bool(page.page.evaluate("Boolean(window.clicked)"))

    page.until(click)
    clicked = page.page.evaluate("window.clicked")

    assert clicked["start"] == f"{when:%Y-%m-%dT%H:%M}:00.000Z"
    assert datetime.fromisoformat(clicked["end"]) - datetime.fromisoformat(clicked["start"]) == timedelta(minutes=5)


def test_the_keyboard_points_and_asks(opened: Callable[..., Chart]) -> None:
    """Shift with an arrow points at a candle, as the mouse does, Enter asks about it, Escape lets go."""
    page = opened("#ETHUSDT/5m")
    newest = datetime.fromisoformat(page.text("#legend .when").removesuffix(" UTC"))
    page.page.focus("#chart")
    for _ in range(4):
        page.page.keyboard.press("Shift+ArrowLeft")
    page.page.keyboard.press("Shift+ArrowRight")
    when = newest - timedelta(minutes=10)
    assert page.text("#legend .when") == f"{when:%Y-%m-%d %H:%M} UTC"
    page.page.keyboard.press("Enter")
    page.went(f"#ETHUSDT/5m/{when:%Y-%m-%dT%H:%M:%SZ}/{when + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}")
    assert page.page.input_value("#at-time") == f"{when:%Y-%m-%d %H:%M:%S}"
    page.page.keyboard.press("Escape")

    assert page.text("#legend .when") == f"{newest:%Y-%m-%d %H:%M} UTC"


def points_at(page: Chart, when: datetime) -> bool:
    """Whether the legend is about this time."""
    return page.text("#legend .when") == f"{when:%Y-%m-%d %H:%M:%S} UTC"


CROSSHAIR_X = """() => {
  const areas = [...document.querySelectorAll("#chart canvas")].filter((one) => one.style.zIndex === "2");
  const canvas = areas.sort((one, other) => other.width * other.height - one.width * one.height)[0];
  const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const alphas = (x) => Array.from({ length: height }, (_, y) => data[(y * width + x) * 4 + 3]);
  const drawn = (x) => alphas(x).filter(Boolean).length;
  const columns = Array.from({ length: width }, (_, x) => drawn(x));
  const most = Math.max(...columns);
  return most < height / 4 ? null : (columns.indexOf(most) * canvas.clientWidth) / width;
}"""


def test_the_keyboard_stays_at_its_candle(opened: Callable[..., Chart], stored: config.Settings) -> None:
    """Whatever moves: new candles come, the chart goes back and zooms; until the pointer moves."""
    begin = now() - timedelta(minutes=30)
    with closing(db.connect(stored)) as connection:
        db.insert_trades(connection, every_second("KEYUSDT", 1, begin, 700))
        page = opened("#KEYUSDT/1s")
        page.page.focus("#chart")
        for _ in range(3):
            page.page.keyboard.press("Shift+ArrowLeft")
        when = begin + timedelta(seconds=697)
        page.until(partial(points_at, page, when))
        db.insert_trades(connection, [trade("KEYUSDT", 701, begin + timedelta(seconds=705), "7.5")])
        page.until(lambda: "is at 7.50" in str(page.page.get_attribute("#chart", "aria-label")))
        page.settled()
        assert points_at(page, when)
    for key in ("ArrowLeft", "+", "-", "ArrowLeft", "+"):
        page.page.keyboard.press(key)
        page.settled()
        assert points_at(page, when)
    # Out of sight: the chart follows.
    for _ in range(150):
        page.page.keyboard.press("Shift+ArrowLeft")
    page.page.keyboard.press("ArrowLeft")
    page.settled()
    when -= timedelta(seconds=150)
    assert points_at(page, when)
    x = page.page.evaluate(CROSSHAIR_X)
    page.page.keyboard.press("Enter")
    page.until(lambda: page.page.input_value("#at-time") == f"{when:%Y-%m-%d %H:%M:%S}")
    # A browser cannot tell the first place of a pointer from one that rests.
    page.page.mouse.move(5, 5)

    assert x == pytest.approx(pointed_at(page, f"{when:%H:%M:%S}"), abs=12)


def behind(page: Chart) -> float:
    """How many places are behind the right edge of the chart."""
    return -float(page.page.get_attribute("#chart", "data-places-after"))


def test_a_range_comes_into_sight(opened: Callable[..., Chart], stored: config.Settings) -> None:
    """That of a link, also where it must be read first, and of whatever is chosen then; one too far back is said."""
    end = now() - timedelta(minutes=5)
    long = [trade("LONGUSDT", one, end + timedelta(seconds=one - 1300), "3.25") for one in range(1, 1301)]
    early = end - timedelta(hours=12)
    with closing(db.connect(stored)) as connection:
        db.insert_trades(connection, [trade("LONGUSDT", 0, early, "3.25"), *long])

    def link(resolution: str, start: datetime) -> str:
        return f"#LONGUSDT/{resolution}/{start:%Y-%m-%dT%H:%M:%SZ}/{start + timedelta(seconds=30):%Y-%m-%dT%H:%M:%SZ}"

    page = opened(link("1s", long[20].timestamp))
    page.until(lambda: behind(page) > 1_000)
    pointed_at(page, f"{long[30].timestamp:%Y-%m-%d %H:%M:%S}")
    assert page.page.is_hidden("#chart-far")
    page = opened(link("1s", early))
    page.page.wait_for_selector("#chart-far:visible")
    assert page.text("#chart-far") == (
        "The range that was asked for is further back than candles of 1s reach: choose longer ones."
    )
    page.page.click("label:has([name=resolution][value='5m'])")
    page.page.wait_for_selector("#chart-far", state="hidden")
    page.until(lambda: page.look() == ("LONGUSDT", "5m") and 80 < behind(page) < 145)
    pointed_at(page, f"{early:%Y-%m-%d} {early.hour:02}:{early.minute // 5 * 5:02}")


def answers(page: Chart, words: str, form: str = "at") -> bool:
    """Whether the answer about a second, or about a range, has these words."""
    return words in page.text(f"#{form}-answer")


def test_what_lies_behind_the_newest_trade_is_not_known(opened: Callable[..., Chart], api: Api) -> None:
    """Neither that nothing traded then, nor what the price was."""
    page = opened("#ETHUSDT/1m")
    newest = datetime.fromisoformat(api.json("/api/latest/ETHUSDT")["timestamp"])
    later, end = (f"{newest + timedelta(seconds=length):%Y-%m-%d %H:%M:%S}" for length in (20, 40))
    note = f"The newest stored trade is of {newest:%Y-%m-%d %H:%M:%S}.250: what traded after that is not known."
    page.page.fill("#at-time", later)
    page.page.press("#at-time", "Enter")
    page.until(partial(answers, page, f"No trade is stored in that second. {LAST}Last stored price"))
    assert note in page.text("#at-answer")
    page.page.fill("#range-start", later)
    page.page.fill("#range-end", end)
    page.page.press("#range-end", "Enter")
    page.until(partial(answers, page, f"No trade of ETHUSDT is stored in that range.{note}", "range"))


LAST = "The last one that is stored from before it:"


def test_an_instant(opened: Callable[..., Chart], api: Api) -> None:
    """A time with a fraction asks for the price at that instant too."""
    page = opened("#ETHUSDT/1m")
    found = api.json("/api/trades/ETHUSDT", limit=1)["trades"][0]
    second = found["timestamp"][:19]
    for fraction, said in ((".500", f"2600.50000000 USDT {second.replace('T', ' ')}.250"), (".100", "not known")):
        page.page.fill("#at-time", second + fraction)
        page.page.press("#at-time", "Enter")
        page.until(partial(answers, page, f"At {second[11:]}{fraction}{said}"))


def test_the_first_minutes_are_seconds(opened: Callable[..., Chart], stored: config.Settings) -> None:
    """A short history is shown in seconds, unless the address says otherwise."""
    with closing(db.connect(stored)) as connection:
        begin = now() - timedelta(minutes=9)
        new = [trade("NEWUSDT", one, begin + timedelta(seconds=one * 5), "1.2345") for one in range(1, 100)]
        db.insert_trades(connection, new)

    assert opened("#NEWUSDT").look() == ("NEWUSDT", "1s")
    assert opened("#NEWUSDT/1m").look() == ("NEWUSDT", "1m")
    assert opened("#ETHUSDT").look() == ("ETHUSDT", "1m")


# ---- When answers fail, or come late.


def counted(page: Chart) -> tuple[int, ...]:
    """How many candles and places the chart has, and how many of these are shaded."""
    return tuple(int(page.page.get_attribute("#chart", f"data-{one}") or 0) for one in ("bars", "slots", "shaded"))


def is_whole(page: Chart) -> bool:
    """Whether each place of the chart has a candle, and none is shaded."""
    bars, slots, shaded = counted(page)
    return (bars, shaded) == (slots, 0)


def has(page: Chart, *counts: int) -> bool:
    """Whether the chart has so many candles and places, and none that is shaded."""
    return counted(page) == (*counts, 0)


def every_second(symbol: str, first_id: int, begin: datetime, count: int) -> list[Trade]:
    """A trade a second."""
    return [trade(symbol, first_id + one, begin + timedelta(seconds=one), "3.25") for one in range(count)]


def refused(page: Chart, places: str) -> list[Any]:
    """The questions to these places (a glob) that were refused; all are from now on, as while the database is away."""
    found: list[Any] = []

    def refuse(route: Any) -> None:
        found.append(route)
        route.fulfill(status=503, json={"detail": "the database is away"})

    page.page.route(places, refuse)
    return found


def test_a_chart_that_cannot_be_read(opened: Callable[..., Chart], stored: config.Settings) -> None:
    """It shows nothing of the symbol before, says so, and asks again until there is an answer."""
    with closing(db.connect(stored)) as connection:
        db.insert_trades(connection, every_second("LATEUSDT", 1, now() - timedelta(minutes=20), 100))
        page = opened("#ETHUSDT/1m")
        asked = refused(page, "**/api/candles/**")
        page.page.click(".card:has([value=LATEUSDT])")
        page.page.wait_for_selector("#chart-wrong:visible")
        assert page.text("#chart-wrong") == (
            "The candles of LATEUSDT cannot be read now (the database is away). Trying again."
        )
        assert (counted(page), page.text("#legend")) == ((0, 0, 0), "")
        page.until(lambda: len(asked) > 2)
        db.insert_trades(connection, [trade("LATEUSDT", 101, now() - timedelta(minutes=10), "4.5")])
        page.until(lambda: page.price("LATEUSDT") == "4.50000000")
        assert page.text("#legend") == ""
        page.page.unroute("**/api/candles/**")
        page.page.wait_for_selector("#chart-wrong", state="hidden")

    page.drawn()
    assert legend(page)[3] == "4.50000000"
    assert counted(page)[0] == 3


def test_what_came_unseen_has_no_hole(opened: Callable[..., Chart], stored: config.Settings) -> None:
    """After more candles than an answer has, all that is shown was read again; those before are on the way back."""
    begin = now() - timedelta(hours=1)
    with closing(db.connect(stored)) as connection:
        db.insert_trades(connection, every_second("SLEEPUSDT", 1, begin, 600))
        page = opened("#SLEEPUSDT/1s")
        edge = page.page.get_attribute("#chart", "data-places-after")
        db.insert_trades(connection, every_second("SLEEPUSDT", 601, begin + timedelta(seconds=600), 1_200))
    page.until(partial(has, page, 500, 500))
    page.until(lambda: page.page.get_attribute("#chart", "data-places-after") == edge)
    page.page.focus("#chart")

    def back() -> bool:
        for _ in range(5):
            page.page.keyboard.press("ArrowLeft")
        return has(page, 1_800, 1_800)

    page.until(back)


def test_a_gap_far_back_is_filled(opened: Callable[..., Chart], stored: config.Settings) -> None:
    """Its candles come into the chart while one looks there, which stays in sight."""
    found = every_second("FARUSDT", 1, now() - timedelta(hours=1), 1_500)
    with closing(db.connect(stored)) as connection:
        db.insert_trades(connection, [*found[:600], *found[620:]])
        page = opened("#FARUSDT/1s")
        page.page.focus("#chart")

        def back() -> bool:
            page.page.keyboard.press("ArrowLeft")
            return behind(page) > 850

        page.until(back)
        page.until(lambda: counted(page)[2] >= 20)
        before = behind(page)
        db.insert_trades(connection, found[600:620])
        # The candles may be read right before and what is missing right after: then both are read once more.
        page.until(partial(is_whole, page))

    assert counted(page)[0] >= 1_000
    page.until(lambda: behind(page) == before)
    pointed_at(page, f"{found[610].timestamp:%Y-%m-%d %H:%M:%S}")
    assert "1 trade" in page.text("#legend")


@pytest.mark.parametrize("late", ["**/api/candles/**", "**/api/gaps*KEEPUSDT*"])
def test_a_late_answer_does_not_move_the_chart(
    opened: Callable[..., Chart], stored: config.Settings, late: str
) -> None:
    """Where one has gone back while the last candles were read again stays in sight."""
    symbol = "STAYUSDT" if "candles" in late else "KEEPUSDT"
    found = every_second(symbol, 1, now() - timedelta(hours=1), 1_302)
    with closing(db.connect(stored)) as connection:
        db.insert_trades(connection, found[:1_300])
        page = opened(f"#{symbol}/1s")
        held = page.hold(late)
        # An id is left out: what is missing has changed, so that the chart is read again.
        db.insert_trades(connection, found[1_301:])
        page.until(partial(bool, held))
    page.page.fill("#range-start", f"{found[20].timestamp:%Y-%m-%d %H:%M:%S}")
    page.page.fill("#range-end", f"{found[50].timestamp:%Y-%m-%d %H:%M:%S}")
    page.page.press("#range-end", "Enter")
    page.until(lambda: behind(page) > 1_000)
    page.release(held[0])
    page.until(lambda: counted(page)[2] > 0)

    assert behind(page) > 1_000
    pointed_at(page, f"{found[30].timestamp:%Y-%m-%d %H:%M:%S}")


def test_a_late_answer_does_not_undo_a_trade(opened: Callable[..., Chart], stored: config.Settings) -> None:
    """Of a candle that is read and grows meanwhile, the one with more trades stays."""
    begin = now()
    with closing(db.connect(stored)) as connection:
        db.insert_trades(connection, every_second("RACEUSDT", 1, begin, 3))
        page = opened("#RACEUSDT/1m")
        held = page.hold("**/api/candles/**")
        # An id is left out: what is missing has changed, so that the chart is read again.
        db.insert_trades(connection, [trade("RACEUSDT", 5, begin + timedelta(seconds=4), "5.5")])
        page.until(partial(bool, held))
        older = held[0].fetch()
        db.insert_trades(connection, [trade("RACEUSDT", 6, begin + timedelta(seconds=5), "6.5")])
        page.until(partial(shows, page, "6.50000000"))
        page.release(held[0], response=older)

    page.until(lambda: counted(page)[2] > 0)
    assert legend(page)[3] == "6.50000000"


def test_gaps_that_cannot_be_listed(opened: Callable[..., Chart]) -> None:
    """The list is asked for again each second; the chart, which has its own answer, is not."""
    page = opened("#BTCUSDT/1m")
    asked = refused(page, "**/api/gaps?limit=**")
    candles: list[str] = []
    page.page.on("request", lambda one: candles.append(one.url) if "/api/candles/" in one.url else None)
    page.page.reload()
    page.drawn()
    page.until(lambda: len(asked) > 6)

    # At the start, when the stream begins, and at the first status.
    assert len(candles) <= 4


def test_a_late_list_of_gaps_is_not_shown(opened: Callable[..., Chart], stored: config.Settings) -> None:
    """One that was asked for before what is missing changed again does not replace the newer one."""
    begin = now() - timedelta(minutes=20)
    with closing(db.connect(stored)) as connection:
        db.insert_trades(connection, every_second("LISTUSDT", 1, begin, 3))
        page = opened("#LISTUSDT/1s")
        page.until(lambda: "BTCUSDT 101" in page.text("#gaps"))
        held = page.hold("**/api/gaps?limit=**")
        db.insert_trades(connection, [trade("LISTUSDT", 5, begin + timedelta(seconds=4), "3.25")])
        page.until(partial(bool, held))
        older = held[0].fetch()
        db.insert_trades(connection, [trade("LISTUSDT", 7, begin + timedelta(seconds=6), "3.25")])
        page.until(lambda: "LISTUSDT 6" in page.text("#gaps"))
        page.release(held[0], response=older)

    assert "LISTUSDT 6" in page.text("#gaps")


def test_what_is_stored_before_the_stream_begins(opened: Callable[..., Chart], stored: config.Settings) -> None:
    """Candles between the chart's first answer and the first tick are read when the stream begins."""
    begin = now() - timedelta(minutes=30)
    with closing(db.connect(stored)) as connection:
        db.insert_trades(connection, every_second("BEGINUSDT", 1, begin, 100))
        page = opened("#BEGINUSDT/1s")
        held = page.hold("**/api/stream*")
        page.page.reload()
        page.until(partial(bool, held))
        page.until(partial(has, page, 100, 100))
        db.insert_trades(connection, every_second("BEGINUSDT", 101, begin + timedelta(seconds=100), 20))
        held[0].continue_()
        page.until(partial(has, page, 120, 120))


def test_a_range_that_cannot_be_read(opened: Callable[..., Chart], stored: config.Settings) -> None:
    """The chart stays where it is, and goes there when there is an answer."""
    found = every_second("BACKUSDT", 1, now() - timedelta(hours=1), 1_300)
    with closing(db.connect(stored)) as connection:
        db.insert_trades(connection, found)
    page = opened("#BACKUSDT/1s")
    before = behind(page)
    asked = refused(page, "**/api/candles/**end=**")
    page.page.fill("#range-start", f"{found[20].timestamp:%Y-%m-%d %H:%M:%S}")
    page.page.fill("#range-end", f"{found[50].timestamp:%Y-%m-%d %H:%M:%S}")
    page.page.press("#range-end", "Enter")
    page.until(partial(bool, asked))
    page.settled()
    assert behind(page) == before
    page.page.unroute("**/api/candles/**end=**")
    page.page.press("#range-end", "Enter")
    page.until(lambda: behind(page) > 1_000)


def test_only_the_last_range_is_called_too_far_back(opened: Callable[..., Chart], stored: config.Settings) -> None:
    """One that was given up for it changes nothing of what is said."""
    found = every_second("NOTEUSDT", 1, now() - timedelta(hours=1), 1_300)
    with closing(db.connect(stored)) as connection:
        db.insert_trades(connection, found)
    page = opened("#NOTEUSDT/1s")
    held = page.hold("**/api/candles/**end=**")
    page.page.fill("#range-start", f"{found[20].timestamp:%Y-%m-%d %H:%M:%S}")
    page.page.fill("#range-end", f"{found[50].timestamp:%Y-%m-%d %H:%M:%S}")
    page.page.press("#range-end", "Enter")
    page.until(partial(bool, held))
    page.page.fill("#range-start", f"{now() - timedelta(days=3):%Y-%m-%d %H:%M:%S}")
    page.page.press("#range-end", "Enter")
    page.page.wait_for_selector("#chart-far:visible")
    page.release(held[0])

    assert page.page.is_visible("#chart-far")


# ---- Digits.

AMOUNTS = """async () => {
  const { change, priceOf, quantityOf, shown, unit } = await import("/static/amounts.js");
  const price = priceOf("NEARBTC");
  return {
    shown: [
      shown("1234567.50000000", price), shown("0.00012300", price), shown("0.50000000", price),
      shown("12.00000000", quantityOf("NEARBTC")), shown("-1000.00000000"), shown("…", price),
    ],
    units: [price, quantityOf("NEARBTC"), quantityOf("1000SATSFDUSD"), priceOf("WHAT"), priceOf("USDT")].map(unit),
    tones: [["5", "5"], ["5", "6"], ["6", "5"], ["1000000", "1000001"]]
      .map((pair) => change(...pair.map((one) => `${one}.00000000`))).map(({ tone, percent }) => [tone, percent]),
  };
}"""


def test_amounts(opened: Callable[..., Chart]) -> None:
    """As many decimals as were seen of the symbol, separators, the unit; what is shown as zero has no colour."""
    found = opened().page.evaluate(AMOUNTS)

    assert found["shown"] == ["1,234,567.50", "0.000123", "0.500000", "12", "-1,000.00", "…"]
    assert found["units"] == ["BTC", "NEAR", "1000SATS", "", ""]
    assert found["tones"] == [["", "0.00 %"], ["up", "+20.00 %"], ["down", "−16.67 %"], ["", "0.00 %"]]


COPIED = """() => {
  const range = document.createRange();
  range.selectNodeContents(document.querySelector("#tape tbody tr"));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  const event = new ClipboardEvent("copy", { clipboardData: new DataTransfer(), bubbles: true, cancelable: true });
  document.querySelector("#tape td").dispatchEvent(event);
  return event.clipboardData.getData("text/plain");
}"""


def test_what_is_copied_is_exact(opened: Callable[..., Chart], api: Api) -> None:
    """The page shows the decimals that the symbol trades in; on hover and in copies is the text of the API."""
    page = opened("#ETHUSDT/1m")
    page.page.wait_for_selector("#tape tbody tr")
    cells = page.page.locator("#tape tbody tr").first.locator("td .amount")
    newest = api.json("/api/latest/ETHUSDT")

    assert cells.all_text_contents() == ["2,600.50", "0.015"]
    assert [cells.nth(at).get_attribute("title") for at in (0, 1)] == [newest["price"], newest["quantity"]]
    assert page.page.evaluate(COPIED).split("\t")[1:3] == ["2600.50000000", "0.01500000"]
    assert (page.text("#tape-price"), page.text("#tape-quantity")) == ("Price USDT", "Quantity ETH")


# ---- For everybody.


@pytest.mark.parametrize("forced", ["none", "active"])
@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_axe_finds_nothing(opened: Callable[..., Chart], size: dict[str, int], scheme: str, forced: str) -> None:
    """Names, roles and contrasts are good by the rules of axe, in whatever colours."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = opened("#ETHUSDT/1m", size=size, scheme=scheme)
    page.page.emulate_media(forced_colors=forced)
    page.page.click("#chart ~ details summary")
    found = axe.Axe().run(page.page).response["violations"]

    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
