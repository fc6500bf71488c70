"""Trades as CSV or Parquet over HTTP: page by page from the database, so that memory stays constant; few at a time."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from fastapi import HTTPException, Response

import db
from report import answers
from storage import pages
from storage.gaps import missing_in
from storage.lines import Chunk
from storage.pages import EARLIEST, LATEST, PAGE_TRADES, Place
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
Pages = Iterator[list[db.Trade]]


class Format(NamedTuple):
    """How trades become a file; `pieces` takes the symbol and its pages."""

    ending: str
    media_type: str
    pieces: Callable[[str, Pages], Iterator[bytes]]


class Exports:
    """Answers with files, EXPORTS_MAX at a time."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._free = threading.BoundedSemaphore(EXPORTS_MAX)

    def answer(self, symbol: str, times: Times, format_: Format) -> Response:
        """The trades of `symbol` in [start, end). Raises AwayError; answers 503 when too many are under way."""
        if not self._free.acquire(blocking=False):
            why = f"{EXPORTS_MAX} exports are under way, which is the most at once"
            raise HTTPException(503, why, {"Retry-After": str(RETRY_AFTER_S)})
        try:
            first, missing = self._sessions.ask(lambda c: _first(c, symbol, times))
            pieces = format_.pieces(symbol, self._pages(symbol, first, times))
        except BaseException:
            self._free.release()
            raise
        headers = {
            "Content-Disposition": f'attachment; filename="{file_name(symbol, times, format_.ending)}"',
            "Cache-Control": "no-store",
            "Missing-Ids": str(missing),
        }
        return EndingResponse(pieces, self._free.release, media_type=format_.media_type, headers=headers)

    def _pages(self, symbol: str, trades: list[db.Trade], times: Times) -> Pages:
        while trades:
            yield trades
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


def file_name(symbol: str, times: Times, ending: str) -> str:
    """Such as BTCUSDT-20251120T101500Z-20251120T102000Z.csv; a bound that was not given is not in it."""
    start, end = ("" if time in (EARLIEST, LATEST) else f"{time:%Y%m%dT%H%M%SZ}" for time in times)
    span = f"-{start or 'first'}-{end or 'last'}" if start or end else ""
    return f"{symbol if symbol.isascii() else 'trades'}{span}.{ending}"


# ---- The formats.


def _csv(symbol: str, trades: Pages) -> Iterator[bytes]:
    yield HEADER
    for page in trades:
        yield "".join(f"{symbol},{_line(trade)}" for trade in page).encode()


def _line(trade: db.Trade) -> str:
    _, timestamp, trade_id, price, quantity, buyer_is_maker, received_at = trade
    flag = "true" if buyer_is_maker else "false"
    received = "" if received_at is None else f"{received_at:%Y-%m-%dT%H:%M:%S.%f}Z"
    amounts = f"{answers.amount(price)},{answers.amount(quantity)}"
    return f"{answers.time(timestamp)},{trade_id},{amounts},{flag},{received}\n"


class _Waiting:
    """A file that is only written to; what was written is taken out of it."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> int:
        """Keeps a copy of `data` until it is taken."""
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def tell(self) -> int:
        """How much was written in all."""
        return self._size

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing: what waits is still to be taken."""

    def take(self) -> bytes:
        """What was written since the last call."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _parquet(symbol: str, trades: Pages) -> Iterator[bytes]:
    """Row group by row group. Answers 501 where pyarrow is not installed."""
    # Arrow reads this when it is imported. Its own allocator does not return memory: a tenth more than the system's.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        from storage.parquet import ParquetWriter
    except ImportError:
        why = "Parquet needs another package where the API runs: pip install -r requirements-tools.txt; CSV needs none"
        raise HTTPException(501, why) from None
    waiting = _Waiting()
    return _groups(symbol, trades, ParquetWriter(waiting, True), waiting)


def _groups(symbol: str, trades: Pages, writer: Any, waiting: _Waiting) -> Iterator[bytes]:
    # The first bytes at once, as a sign of life: a row group takes its time.
    yield waiting.take()
    for page in trades:
        text = "".join(map(_line, page)).encode()
        writer.write(symbol, Chunk(text, len(page), page[0].trade_id, page[-1].trade_id))
        if piece := waiting.take():
            yield piece
    writer.close()
    yield waiting.take()


CSV = Format("csv", "text/csv", _csv)
PARQUET = Format("parquet", "application/vnd.apache.parquet", _parquet)
