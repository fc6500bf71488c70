"""The parts of the dashboard above trades that stand still: cards, tape, forms, downloads, and how it starts."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import config
import db
from model.trade import Trade
from tests.support.dashboard import Page, trade
from tests.support.servers import Server
from tests.support.serving import Api, serving
from tests.support.tables import ask

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

NAME = "test_parts"
TRADES = 40
BEGIN = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(any_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[config.Settings]:
    """A database with a trade a minute, the last of them a large one, and one from two days before that."""
    found = any_server.settings(NAME, tmp_path_factory.mktemp("parts"))
    rows = [trade("BTCUSDT", 1, BEGIN - timedelta(days=2), "5.5")]
    rows += [trade("BTCUSDT", 1 + one, BEGIN + timedelta(minutes=one), f"{100 + one}.25") for one in range(1, TRADES)]
    rows.append(large(1 + TRADES))
    with closing(db.connect(found)) as connection:
        db.insert_trades(connection, rows)
    yield found
    with any_server.connect() as plain:
        ask(plain, f"DROP DATABASE {NAME}")


def large(trade_id: int) -> Trade:
    """A trade of a hundred times the usual quantity."""
    one = trade("BTCUSDT", trade_id, BEGIN + timedelta(minutes=trade_id - 1), "150.75")
    return one._replace(quantity=Decimal("1.00000001"))


@pytest.fixture(scope="module")
def api(settings: config.Settings, any_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API of that database."""
    about = {"MYSQL_DATABASE": NAME, "DATA_DIR": str(tmp_path_factory.mktemp("api")), "SYMBOLS": "OTHER"}
    with serving(any_server.environ | about) as running:
        yield running


@pytest.fixture
def opened(browser: Any, api: Api) -> Iterator[Page]:
    """The page, as soon as it has answers."""
    page = Page(browser, api.address)
    page.page.wait_for_selector("#range-answer[data-state=answered]")
    page.page.wait_for_selector("#at-answer[data-state=answered]")
    yield page
    page.context.close()
    assert page.wrong == []


def test_cards_and_tape(opened: Page) -> None:
    """The low, the high and the volume of the last 24 hours, and not of before, exactly; the rate and the lag as lines
    with a text. On the tape the large trade is marked, by a sign and in words too."""
    opened.page.wait_for_selector(".day-facts .amount")

    def has_lines() -> bool:
        # What is not known in the first seconds is no value of the line.
        labels = [str(one.get_attribute("aria-label")) for one in opened.page.locator(".spark").all()]
        return (
            labels[0].startswith("Trades per second in the last minute: 0 to 0 /s")
            and labels[1].endswith("3 to 3 ms, now 3 ms")
            and all(int(one.get_attribute("data-values")) >= 2 for one in opened.page.locator(".spark").all())
        )

    opened.until(has_lines)
    marked = opened.page.locator("#tape tr.large")

    assert opened.text(".day-facts") == "24h low 101.25000000high 150.75000000volume 1.39000001 BTC"
    assert str(opened.page.get_attribute(".day-facts", "title")).endswith("traded for 197.6475015075000000 USDT")
    assert marked.count() == 1
    assert marked.locator("td").nth(2).text_content() == "◆large: 1.00000001"
    assert "large" in str(marked.get_attribute("title"))


def test_the_tape_pauses_under_the_pointer_and_the_focus(opened: Page, settings: config.Settings) -> None:
    """It says how many are new, and shows them when the pointer and the focus have left."""
    first = opened.text("#tape tbody tr")
    opened.page.hover("#tape tbody")
    number = 2 + TRADES
    with closing(db.connect(settings)) as connection:
        db.insert_trades(connection, [trade("BTCUSDT", number, BEGIN + timedelta(minutes=number), "160.5")])
    opened.page.wait_for_selector("#tape-still:has-text('paused: 1 new')")
    opened.page.focus("[role=group]:has(> #tape)")
    opened.page.mouse.move(5, 5)
    during = opened.text("#tape tbody tr")
    opened.page.focus("#at-time")
    opened.until(lambda: "160.50000000" in opened.text("#tape tbody tr"))

    assert (during, opened.text("#tape-still")) == (first, "")


def submit(page: Page, form: str, **fields: str) -> None:
    """Fills a form and sends it."""
    for name, value in fields.items():
        page.page.fill(f"#{form} [name={name}]", value)
    page.page.press(f"#{form} input", "Enter")


def wrong(page: Page, field: str) -> tuple[str, str | None]:
    """What stands at a field, and whether a screen reader is told that it is wrong."""
    return page.text(f"#{field}-wrong"), page.page.get_attribute(f"#{field}", "aria-invalid")


def test_mistakes_are_said_at_the_field(opened: Page) -> None:
    """In words of a form; the answer to other times goes; what is right is answered again."""
    no_time, empty = "This is no time. Write it like 2025-11-20 10:15:09.", "The end must be after the start."
    for text in ("noon", "", "2025-02-30 10:00:00", "2025-13-01", "2025-11-20 10:15:61", "20251120"):
        submit(opened, "at", time=text)
        assert wrong(opened, "at-time") == (no_time, "true"), text
    assert opened.text("#at-answer") == ""
    submit(opened, "range", start="2025-03-01 12:10:00", end="2025-03-01 12:10:00")
    assert (wrong(opened, "range-start"), wrong(opened, "range-end")) == (("", None), (empty, "true"))
    submit(opened, "range", start="2025-03-01T12:10:00Z", end="2025-03-01 13:20:00.500+01:00")
    opened.page.wait_for_selector("#range-answer[data-state=answered]:has-text('11 trades of BTCUSDT')")
    assert wrong(opened, "range-end") == ("", None)


@pytest.mark.parametrize(("form", "field"), [("at", "time"), ("range", "end")])
def test_a_late_answer_is_to_an_older_question(opened: Page, form: str, field: str) -> None:
    """It replaces neither the answer to a newer one nor what is wrong with what was typed since."""
    output, places = f"#{form}-answer", f"**/api/{form}/**"
    if form == "range":
        opened.page.fill("#range-start", "2025-03-01 12:10:00")
    for newer, state in (("2025-03-01 12:20:00", "answered"), ("noon", "mistaken")):
        held = opened.hold(places)
        submit(opened, form, **{field: "2025-03-01 12:15:00"})
        opened.until(partial(bool, held))
        submit(opened, form, **{field: newer})
        opened.page.wait_for_selector(f"{output}[data-state={state}][aria-busy=false]", state="attached")
        words = opened.text(output)
        opened.release(held[0])

        assert opened.text(output) == words
        assert opened.page.get_attribute(output, "data-state") == state


def test_what_is_typed_before_the_first_trade_stays(browser: Any, api: Api) -> None:
    """In either form; the other one is filled."""
    for field, text in (("at-time", "2025-03-01 12:"), ("range-start", "2025-03-01 12:10:00")):
        page = Page(browser, "about:blank")
        held = page.hold("**/api/stream**")
        page.page.goto(api.address)
        page.until(partial(bool, held))
        page.page.fill(f"#{field}", text)
        held[0].continue_()
        other = "range" if field == "at-time" else "at"
        page.page.wait_for_selector(f"#{other}-answer[data-state=answered]")

        assert page.page.input_value(f"#{field}") == text
        page.context.close()


def test_a_click_on_a_candle_asks_about_it(opened: Page) -> None:
    """Both forms are filled and answered."""
    box = opened.page.locator("#chart").bounding_box()
    opened.page.wait_for_selector("#chart[data-bars]")

    def clicked() -> bool:
        for part in range(40, 95, 3):
            opened.page.mouse.click(box["x"] + box["width"] * part / 100, box["y"] + box["height"] / 2)
            start, end = (opened.page.input_value(f"#range-{name}") for name in ("start", "end"))
            if datetime.fromisoformat(end) - datetime.fromisoformat(start) != timedelta(minutes=1):
                continue
            # Not each place has a candle.
            opened.page.wait_for_selector("#range-answer[data-state=answered]")
            if "1 trade of BTCUSDT" in opened.text("#range-answer"):
                return True
        return False

    opened.until(clicked)
    assert opened.page.input_value("#at-time") == opened.page.input_value("#range-start")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_download_of_the_range(opened: Page, kind: str) -> None:
    """The trades of the two fields, in a file whose name tells symbol and range; not while a field is wrong."""
    submit(opened, "range", start="2025-03-01 12:10:00", end="soon")
    opened.page.click(f"[data-download={kind}]")
    assert wrong(opened, "range-end")[1] == "true"
    submit(opened, "range", start="2025-03-01 12:10:00", end="2025-03-01 12:20:00")
    # The first file in Parquet waits until its library is read.
    with opened.page.expect_download(timeout=60_000) as download:
        opened.page.click(f"[data-download={kind}]")

    assert download.value.suggested_filename == f"BTCUSDT-20250301T121000Z-20250301T122000Z.{kind}"
    content = Path(download.value.path()).read_bytes()
    if kind == "csv":
        assert len(content.splitlines()) == 11
    else:
        assert content[:4] == content[-4:] == b"PAR1"


# ---- How it starts.


def test_what_is_loading_says_so(browser: Any, api: Api) -> None:
    """Cards, chart, tape and coverage are busy until there is an answer; if that takes long, the banner says so."""
    context = browser.new_context()
    page = context.new_page()
    held: list[Any] = []
    busy = "() => [...document.querySelectorAll('[aria-busy=true]')].map((one) => one.id || one.className)"
    page.route("**/api/symbols", lambda route: held.append(route))
    page.goto(api.address)
    page.wait_for_selector("#banner[data-kind=waiting]:visible")
    assert page.evaluate(busy) == ["symbols", "chart", "panel tape-panel", "coverage"]
    assert page.is_hidden("#nothing")
    held[0].continue_()
    page.wait_for_selector(".card .price[data-amount]")
    page.wait_for_selector("body:not(:has([aria-busy=true]))")
    assert page.get_attribute("#banner", "data-kind") != "waiting"
    context.close()


def test_without_javascript(browser: Any, api: Api) -> None:
    """The page says that it needs it, and where the same is to be had without."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(api.address)
    words = page.inner_text("noscript")
    links = [str(one.get_attribute("href")) for one in page.locator("noscript a").all()]
    context.close()

    assert "This page draws prices with JavaScript, which is off here." in words
    assert "python query_examples.py" in words
    assert [api.get(link).status for link in links] == [200, 200]
