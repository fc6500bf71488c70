"""Trades as CSV over HTTP: page by page from the database, so that memory stays constant, and few at a time."""

import threading
import time
from collections.abc import Iterator
from datetime import datetime

from fastapi import HTTPException, Response

import db
from report import answers
from storage import pages
from storage.gaps import missing_in
from storage.pages import PAGE_TRADES, Place
from storage.transaction import in_snapshot
from tools.api.sessions import AwayError, Sessions
from tools.api.stream import EndingResponse

EXPORTS_MAX = 2
"""At once; a third is answered with 503."""
RETRY_AFTER_S = 10
AWAY_S = 1.0
AWAY_S_MAX = 30.0
"""An export that has begun waits so long for the database to come back, then breaks off."""
HEADER = b"symbol,timestamp,trade_id,price,quantity,buyer_is_maker,received_at\n"
"""As `python -m tools.export csv` writes it."""

Times = tuple[datetime, datetime]


class Exports:
    """Answers with CSV, EXPORTS_MAX at a time."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._free = threading.BoundedSemaphore(EXPORTS_MAX)

    def answer(self, symbol: str, times: Times) -> Response:
        """The trades of `symbol` in [start, end). Raises AwayError; answers 503 when too many are under way."""
        if not self._free.acquire(blocking=False):
            why = f"{EXPORTS_MAX} exports are under way, which is the most at once"
            raise HTTPException(503, why, {"Retry-After": str(RETRY_AFTER_S)})
        try:
            first, missing = self._sessions.ask(lambda c: _first(c, symbol, times))
        except BaseException:
            self._free.release()
            raise
        name = f"{symbol}.csv" if symbol.isascii() else "trades.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
        headers["Missing-Ids"] = str(missing)
        return EndingResponse(
            self._lines(symbol, first, times), self._free.release, media_type="text/csv", headers=headers
        )

    def _lines(self, symbol: str, trades: list[db.Trade], times: Times) -> Iterator[bytes]:
        yield HEADER
        while trades:
            yield "".join(map(_line, trades)).encode()
            last = len(trades) < PAGE_TRADES
            trades = [] if last else self._patiently(symbol, pages.place_of(trades[-1]), times)

    def _patiently(self, symbol: str, after: Place, times: Times) -> list[db.Trade]:
        """The next page. Raises AwayError, which cuts the connection, since a shorter file would look complete."""
        give_up_at = time.monotonic() + AWAY_S_MAX
        while True:
            try:
                return self._page(symbol, after, times)
            except AwayError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(AWAY_S)

    def _page(self, symbol: str, after: Place | None, times: Times) -> list[db.Trade]:
        return self._sessions.ask(lambda c: pages.page(c, symbol, after, times, PAGE_TRADES))


@in_snapshot
def _first(connection: db.Connection, symbol: str, times: Times) -> tuple[list[db.Trade], int]:
    """The first page, and how many ids are missing in [start, end)."""
    return pages.page(connection, symbol, None, times, PAGE_TRADES), missing_in(connection, symbol, *times)


def _line(trade: db.Trade) -> str:
    symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at = trade
    flag = "true" if buyer_is_maker else "false"
    received = "" if received_at is None else f"{received_at:%Y-%m-%dT%H:%M:%S.%f}Z"
    amounts = f"{answers.amount(price)},{answers.amount(quantity)}"
    return f"{symbol},{answers.time(timestamp)},{trade_id},{amounts},{flag},{received}\n"
