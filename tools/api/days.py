"""The low, the high and the volume of the last 24 hours of the symbols that somebody looks at, read now and then."""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

from db import Connection
from model.times import MILLISECOND
from model.trade import Trade
from report import answers
from storage import questions
from storage.errors import FileError
from tools.api.shapes import LastDay

log = logging.getLogger("api")

DAY = timedelta(days=1)
AGAIN_S = 10.0
SYMBOLS_AT_ONCE = 2
"""So many are read in one call, in turns: each takes some milliseconds."""


class _Known(NamedTuple):
    """When it was read, on the monotonic clock; the day, or why it is not known."""

    at: float
    day: LastDay | None = None
    why: str = ""


class Days:
    """The last day of each symbol, as it was at most a few seconds ago. For one thread."""

    def __init__(self) -> None:
        self._found: dict[str, _Known] = {}

    def look(self, connection: Connection, newest: Mapping[str, Trade | None]) -> None:
        """Reads the day up to the newest trade of those symbols for which it is time; forgets all others."""
        now = time.monotonic()
        self._found = {symbol: self._found.get(symbol, _Known(now - AGAIN_S)) for symbol in newest}
        due = [
            (self._found[symbol].at, symbol, trade)
            for symbol, trade in newest.items()
            if trade is not None and now - self._found[symbol].at >= AGAIN_S
        ]
        for _, symbol, trade in sorted(due)[:SYMBOLS_AT_ONCE]:
            self._found[symbol] = self._read(connection, trade, now)

    def of(self, symbol: str) -> LastDay | None:
        """What is known of the last day; None: nothing."""
        return self._found[symbol].day

    def _read(self, connection: Connection, newest: Trade, now: float) -> _Known:
        try:
            return _Known(now, _day(connection, newest))
        except FileError as error:
            why = str(error)
            # Once, and not every ten seconds.
            if why != self._found[newest.symbol].why:
                log.warning("the last day of %s is not known: %s", newest.symbol, why)
            return _Known(now, None, why)


def _day(connection: Connection, newest: Trade) -> LastDay | None:
    """The 24 hours up to `newest`, that trade included; None: there is none any more. Raises FileError."""
    times = newest.timestamp - DAY, newest.timestamp + MILLISECOND
    outside = questions.outside(connection, newest.symbol, *times)
    prices, volume = questions.range_and_volume(connection, newest.symbol, *times)
    if prices.low is None or prices.high is None:
        return None
    return LastDay(
        answers.amount(prices.low.price),
        answers.amount(prices.high.price),
        answers.amount(volume.volume),
        answers.quote_amount(volume.quote_volume),
        volume.missing,
        None if outside.before is None else answers.time(outside.before),
    )
