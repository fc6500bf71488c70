"""Asks the exchange what it says of the symbols: all at the start, and each again that is silent. A thread of its own.

A stream of a name that does not exist is accepted and stays silent (JKorf/Binance.Net#620), so only exchangeInfo tells
a mistyped symbol from a quiet one, and only REST's newest trade a dead stream from a market without trades.
"""

import logging
import threading
from collections.abc import Mapping, Sequence

import config
from binance.answers import wait_after
from binance.limits import Cooldown
from binance.rest import TRADING, Rest, RestError
from capture.silence import first_of

log = logging.getLogger("listing")

NEWEST_CALLS_MAX = 10
"""Silent symbols of which the newest trade is asked for at once; each weighs 25."""
NAMES_MAX = 10


class Listing(threading.Thread):
    """The thread. `unknown`: the symbols that the exchange does not know; `stream_is_dead`: set when a silent symbol
    trades after all, so that the connections should be renewed."""

    def __init__(self, settings: config.Settings, cooldown: Cooldown) -> None:
        super().__init__(name="listing", daemon=True)
        self.unknown: frozenset[str] = frozenset()
        self.stream_is_dead = threading.Event()
        self._settings = settings
        self._stop_asked = threading.Event()
        self._rest = Rest(settings.rest_url, cooldown, self._stop_asked.wait)
        self._lock = threading.Lock()
        # Of the silent ones the highest id that the streams brought; of the others None.
        self._wanted: dict[str, int | None] = dict.fromkeys(settings.names)
        self._news = threading.Event()
        self._news.set()
        self._told: dict[str, str | None] = {}
        self._said = ""

    def ask_again(self, silent: Mapping[str, int]) -> None:
        """Asks about symbols that are silent, with the highest id of each; returns at once."""
        with self._lock:
            self._wanted.update(silent)
        self._news.set()

    def stop(self) -> None:
        """Asks the thread to end."""
        self._stop_asked.set()
        self._news.set()

    def run(self) -> None:
        attempt = 0
        while not self._stop_asked.is_set():
            self._news.wait()
            self._news.clear()
            with self._lock:
                wanted, self._wanted = self._wanted, {}
            try:
                self._look(wanted)
                attempt = 0
            except RestError as error:
                with self._lock:
                    self._wanted = {**wanted, **self._wanted}
                self._news.set()
                attempt += 1
                self._wait(error, attempt)
            except Exception:
                # A defect here must not end the capture, which stores all trades without it.
                log.exception("the symbols cannot be checked")
        self._rest.close()

    def _wait(self, error: RestError, attempt: int) -> None:
        words = f"the symbols cannot be checked with the exchange: {error}"
        if words != self._said:
            self._said = words
            log.warning("%s", words)
        self._stop_asked.wait(wait_after(error, attempt))

    def _look(self, wanted: Mapping[str, int | None]) -> None:
        found = self._rest.fetch_statuses(list(wanted))
        self._tell(found)
        known = {symbol for symbol, status in found.items() if status is not None}
        self.unknown = (self.unknown - known) | (found.keys() - known)
        trading = [
            (symbol, ours)
            for symbol, ours in wanted.items()
            if ours is not None and found.get(symbol) == TRADING and not self._stop_asked.is_set()
        ]
        for symbol, ours in trading[:NEWEST_CALLS_MAX]:
            theirs = self._rest.fetch_newest_id(symbol)
            if theirs > ours:
                log.error(
                    "%s trades (its newest id is %d), but the streams bring nothing of it after id %d: the connections"
                    " are renewed; what is missing is filled as soon as a trade comes",
                    *(symbol, theirs, ours),
                )
                self.stream_is_dead.set()

    def _tell(self, found: Mapping[str, str | None]) -> None:
        """Says what has changed."""
        for status in sorted({status or "" for status in found.values()}):
            symbols = [
                one for one, its in found.items() if (its or "") == status and self._told.get(one, TRADING) != its
            ]
            if not symbols:
                continue
            if not status:
                hint = "; it is written without a sign between the assets, like BTCUSDT" if _has_sign(symbols) else ""
                log.error("the exchange knows no symbol %s: no trade of it will come%s", named(symbols), hint)
            elif status == TRADING:
                log.warning("the exchange trades %s again", named(symbols))
            else:
                log.warning("the exchange says %s of %s: no trade of it comes meanwhile", status, named(symbols))
        self._told.update(found)


def _has_sign(symbols: Sequence[str]) -> bool:
    return any(not symbol.isalnum() for symbol in symbols)


def named(symbols: Sequence[str]) -> str:
    """The symbols in words; of many only the first."""
    return first_of(symbols, NAMES_MAX)
