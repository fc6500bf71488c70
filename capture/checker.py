"""Compares what was captured with the exchange's own klines, once an hour: a thread of the capture.

A minute agrees if the number of its trades, its prices and its volumes are the exchange's. An hour of a symbol weighs 2
of the 6,000 that the exchange allows in a minute.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import config
import db
from binance.limits import Cooldown
from binance.rest import Rest, RestError
from model import candles as bars
from model.candles import MINUTE
from process.retry import jittered
from proof import klines

log = logging.getLogger("audit")

EVERY_S = 3_600.0
FIRST_S = 300.0
"""The first comparison comes after this, so that a wrong address shows soon."""
SPAN = timedelta(hours=1, minutes=5)
"""A little more than the time between two, so that no minute is left out."""
NAMED_MAX = 5


class Checker(threading.Thread):
    """The thread of the capture. `symbols`: asked for those that are captured now.

    `agreed` and `differed`: the minutes that were compared so far.
    """

    def __init__(self, settings: config.Settings, cooldown: Cooldown, symbols: Callable[[], Sequence[str]]) -> None:
        super().__init__(name="checker", daemon=True)
        self.agreed = self.differed = 0
        self._settings = settings
        self._symbols = symbols
        self._before: Sequence[str] = ()
        self._stop_asked = threading.Event()
        self._rest = Rest(settings.rest_url, cooldown, self._stop_asked.wait)

    def stop(self) -> None:
        """Asks the thread to end after the current symbol."""
        self._stop_asked.set()

    def run(self) -> None:
        wait_s = FIRST_S
        while not self._stop_asked.wait(wait_s):
            wait_s = jittered(EVERY_S)
            try:
                self._check()
            except (RestError, db.DatabaseError) as error:
                log.warning("the trades could not be compared with the exchange's klines: %s", error)
            except Exception:
                # A defect here must not end the capture.
                log.exception("comparing with the exchange's klines failed")
        self._rest.close()

    def _check(self) -> None:
        connection = db.connect(self._settings, read_only=True)
        agreed = compared = 0
        wrong: list[str] = []
        # One that was delisted since the last time was captured for a part of the hour.
        symbols, before = self._symbols(), self._before
        self._before = symbols
        try:
            for symbol in dict.fromkeys((*symbols, *before)):
                if self._stop_asked.is_set():
                    return
                agreement = self._compare(connection, symbol)
                compared += agreement.minutes
                agreed += agreement.minutes - len(agreement.different)
                wrong += [f"{symbol} {one}" for one in agreement.different]
        finally:
            db.close(connection)
        self.agreed += agreed
        self.differed += len(wrong)
        if not compared:
            log.info("nothing of the last hour could be compared with the exchange's klines yet")
        elif not wrong:
            log.info("%d minutes of the last hour agree with the exchange's klines: trades, prices, volumes", compared)
        if not wrong:
            return
        more = f" and {len(wrong) - NAMED_MAX} more" if len(wrong) > NAMED_MAX else ""
        log.warning(
            "%d of %d minutes of the last hour are not as the exchange's klines: %s%s; python audit.py says more",
            len(wrong),
            compared,
            ", ".join(wrong[:NAMED_MAX]),
            more,
        )

    def _compare(self, connection: db.Connection, symbol: str) -> klines.Agreement:
        """The sealed minutes of the last hour that were captured from their start on."""
        sealed = db.sealable(connection, [symbol]).get(symbol)
        until = sealed.sealed_until if sealed else None
        end = bars.floor(datetime.now(UTC) - klines.SETTLE, MINUTE)
        start = end - SPAN
        first = db.first_from(connection, symbol, None)
        if until is None or first is None:
            return klines.Agreement(0, 0, [])
        start = max(bars.floor(start, MINUTE), bars.ceil(first, MINUTE))
        end = min(end, bars.floor(until, MINUTE))
        if start >= end:
            return klines.Agreement(0, 0, [])
        there = list(klines.fetch(self._rest, symbol, start, end))
        return klines.compare(db.candles(connection, symbol, MINUTE, start, end), there)
