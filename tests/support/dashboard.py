"""The dashboard in a browser, and what is stored while a test looks at it."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import config
import db
from model.trade import Trade

WAIT_MS = 30_000
HISTORY_MINUTES = 1_300
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


class Recorder(threading.Thread):
    """Stores a trade of each symbol every 50 ms, as a capture does, until it is stopped."""

    def __init__(self, settings: config.Settings) -> None:
        super().__init__(daemon=True)
        self.last: dict[str, Trade] = {}
        self._settings = settings
        self._stopped = threading.Event()

    def run(self) -> None:
        connection = db.connect(self._settings)
        number = {symbol: db.latest(connection, symbol) for symbol in ("BTCUSDT", "ETHUSDT")}
        ids = {symbol: newest.trade_id if newest else 0 for symbol, newest in number.items()}
        while not self._stopped.wait(0.05):
            for symbol, base in (("BTCUSDT", 97_000), ("ETHUSDT", 2_600)):
                ids[symbol] += 1
                self.last[symbol] = trade(symbol, ids[symbol], datetime.now(UTC), f"{base + ids[symbol] % 50}.12345678")
            # The test may have taken the database away.
            with suppress(db.DatabaseError):
                db.insert_trades(connection, list(self.last.values()))
        db.close(connection)

    def stop(self) -> None:
        """Stores nothing from now on."""
        self._stopped.set()
        self.join()


def trade(symbol: str, trade_id: int, when: datetime, price: str) -> Trade:
    """A trade that was received 3 ms after it was made."""
    when = when.replace(microsecond=when.microsecond // 1000 * 1000)
    received = when + timedelta(milliseconds=3)
    return Trade(symbol, when, trade_id, Decimal(price), Decimal("0.01"), trade_id % 3 == 0, received)


def history(settings: config.Settings) -> None:
    """A trade a minute for most of a day, and one that is missing."""
    connection = db.connect(settings)
    begin = datetime.now(UTC) - timedelta(minutes=HISTORY_MINUTES)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        ids = [number for number in range(1, HISTORY_MINUTES) if number != 700]
        db.insert_trades(
            connection, [trade(symbol, one, begin + timedelta(minutes=one), f"{96_000 + one % 90}.5") for one in ids]
        )
    db.close(connection)


EXACT_TEXT = """(shown) => {
  const copy = shown.cloneNode(true);
  for (const one of [copy, ...copy.querySelectorAll("*")]) {
    if (one.dataset.amount) one.textContent = one.dataset.amount;
  }
  return copy.textContent;
}"""


class Page:
    """A page in the browser. What it loads from elsewhere, and the errors of its scripts, are in `wrong`."""

    def __init__(self, browser: Any, address: str, size: dict[str, int] = DESKTOP, scheme: str = "light") -> None:
        self.wrong: list[str] = []
        self.context = browser.new_context(viewport=size, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda one: None if one.url.startswith(address) else self.wrong.append(one.url))
        self.page.goto(address)

    def text(self, selector: str) -> str:
        """The text of an element, with all digits of its amounts, as they are copied."""
        return str(self.page.locator(selector).first.evaluate(EXACT_TEXT))

    def until(self, what: Callable[[], object]) -> None:
        """Returns when `what` is true."""
        end = time.monotonic() + WAIT_MS / 1000
        while not what():
            assert time.monotonic() < end, "it did not happen in time"
            self.page.wait_for_timeout(50)

    def live(self) -> None:
        """Returns when prices come in."""
        self.page.wait_for_selector("#connection[data-state=live]")
        self.page.wait_for_selector(".card .price[data-amount]")

    def price(self, symbol: str = "BTCUSDT") -> str:
        """The price on the card of a symbol."""
        return self.text(f".card:has([value={symbol}]) .price")

    def hold(self, places: str) -> list[Any]:
        """The first question to these places (a glob), in a list as soon as it comes; it is held."""
        held: list[Any] = []

        def take(route: Any) -> None:
            if held:
                route.fallback()
            else:
                held.append(route)

        self.page.route(places, take)
        return held

    def release(self, held: Any, **answer: Any) -> None:
        """Lets a question go on that was held, or gives it an answer; returns when the page has taken that in."""
        with self.page.expect_event("requestfinished", lambda one: one == held.request):
            held.fulfill(**answer) if answer else held.continue_()
        self.settled()

    def settled(self) -> None:
        """Returns in the frame after the next one: the scripts that waited for an answer that is here have run."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
