"""Pages of trades from the exchange's REST interface, collected for one transaction, and fetched while it is stored."""

import logging
import threading
import time
from typing import NamedTuple

from binance.rest import PAGE_TRADES_MAX, Page, Rest, RestError

log = logging.getLogger("backfill")

PAGES_MAX = 32
COLLECT_S = 2.0
"""Pages of a long gap are collected up to so many, or for so long, since each transaction makes the bars again that it
adds to. Twice as many are in memory: about 30 MB, and a third of that from the exchange, which serves four a second."""

AT_ONCE_MAX = 2 * PAGES_MAX
"""Those that are stored, and those that are fetched meanwhile."""


class Wanted(NamedTuple):
    """The ids of a symbol that pages are wanted of, both inclusive."""

    symbol: str
    first: int
    last: int


class Pages(threading.Thread):
    """Fetches the pages of a symbol from one id on, as many as `collect` does at once, in a thread of its own."""

    def __init__(self, rest: Rest, wanted: Wanted, most: int) -> None:
        super().__init__(name="pages", daemon=True)
        self.wanted = wanted
        self._rest = rest
        self._most = most
        self._page: Page | None = None
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._page = collect(self._rest, self.wanted, self._most)
        except Exception as error:
            self._error = error

    def result(self) -> Page:
        """What was fetched, once it is. Raises what fetching it raised."""
        self.join()
        if self._error is not None:
            raise self._error
        assert self._page is not None
        return self._page


def collect(rest: Rest, wanted: Wanted, most: int) -> Page:
    """A page from the first id on, and those behind it, `most` together, as long as they have every id up to the last.
    Raises RestError."""
    symbol, first, last = wanted
    end_s = time.monotonic() + COLLECT_S
    page = rest.fetch_trades(symbol, first, min(last - first + 1, PAGE_TRADES_MAX))
    number = 1
    while (
        is_whole(page, first, number * PAGE_TRADES_MAX) and number < min(PAGES_MAX, most) and time.monotonic() < end_s
    ):
        after = first + len(page.trades)
        if after > last:
            break
        try:
            more = rest.fetch_trades(symbol, after, min(last - after + 1, PAGE_TRADES_MAX))
        except RestError as error:
            # What is here already should be stored first; the exchange is asked again with the next pages.
            log.debug("the pages end early: %s", error)
            break
        if more.refused or not more.trades or more.trades[0].trade_id != after:
            break
        page.trades.extend(more.trades)
        number += 1
    return page


def is_whole(page: Page, first: int, trades: int) -> bool:
    """Whether it has so many trades, of consecutive ids from `first` on, and nothing else."""
    ends = (page.trades[0].trade_id, page.trades[-1].trade_id) if page.trades else None
    return not page.refused and len(page.trades) == trades and ends == (first, first + trades - 1)
