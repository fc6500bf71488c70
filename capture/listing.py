"""Asks the exchange what it says of the symbols: all at the start, and each again that is silent. A thread of its own.

A stream of a name that does not exist is accepted and stays silent (JKorf/Binance.Net#620), so only exchangeInfo tells
a mistyped symbol from a quiet one, and only REST's newest trade a dead stream from a market without trades.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence

import config
from binance.answers import wait_after
from binance.limits import Cooldown
from binance.rest import TRADING, Rest, RestError
from capture.silence import first_of

log = logging.getLogger("listing")

NEWEST_CALLS_MAX = 10
"""Silent symbols of which the newest trade is asked for at once; each weighs 25."""
PAUSE_S = 30.0
"""After so many the others wait: at night hundreds are silent, and the gaps are filled within the same limit."""
NAMES_MAX = 10


class Listing(threading.Thread):
    """The thread. `unknown`: the symbols that the exchange does not know."""

    def __init__(self, settings: config.Settings, cooldown: Cooldown) -> None:
        super().__init__(name="listing", daemon=True)
        self.unknown: frozenset[str] = frozenset()
        self._settings = settings
        self._stop_asked = threading.Event()
        self._rest = Rest(settings.rest_url, cooldown, self._stop_asked.wait)
        self._lock = threading.Lock()
        # Whether the newest trade is asked for too, of those that are silent; in the order in which they were added.
        self._wanted = dict.fromkeys(settings.names, False)
        self._answers: dict[str, int] = {}
        self._news = threading.Event()
        self._news.set()
        self._told: dict[str, str | None] = {}
        self._said = ""

    def ask_again(self, silent: Iterable[str]) -> None:
        """Asks about symbols that are silent; returns at once."""
        with self._lock:
            self._wanted.update(dict.fromkeys(silent, True))
            if self._wanted:
                self._news.set()

    def answers(self) -> dict[str, int]:
        """The newest id of silent symbols that are traded, as far as the exchange has told since the last call."""
        with self._lock:
            answers, self._answers = self._answers, {}
        return answers

    def stop(self) -> None:
        """Asks the thread to end."""
        self._stop_asked.set()
        self._news.set()

    def run(self) -> None:
        attempt = 0
        while not self._stop_asked.is_set():
            self._news.wait()
            try:
                if self.look():
                    self._stop_asked.wait(PAUSE_S)
                attempt = 0
            except RestError as error:
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

    def look(self) -> bool:
        """Asks about the next of those that wait; whether that were so many that the others should wait for a while.
        Raises RestError: then these wait again."""
        asked = self._take()
        many = sum(asked.values()) == NEWEST_CALLS_MAX
        try:
            found = self._rest.fetch_statuses(list(asked))
            self._tell(found)
            known = {symbol for symbol, status in found.items() if status is not None}
            self.unknown = (self.unknown - known) | (found.keys() - known)
            for symbol, is_silent in list(asked.items()):
                if is_silent and found.get(symbol) == TRADING and not self._stop_asked.is_set():
                    newest = self._rest.fetch_newest_id(symbol)
                    with self._lock:
                        self._answers[symbol] = newest
                del asked[symbol]
        except RestError:
            self._put_back(asked)
            raise
        return many

    def _take(self) -> dict[str, bool]:
        """The next to ask about: of those that are silent only a few."""
        with self._lock:
            silent = [symbol for symbol, is_silent in self._wanted.items() if is_silent]
            waiting = dict.fromkeys(silent[NEWEST_CALLS_MAX:], True)
            asked = {symbol: is_silent for symbol, is_silent in self._wanted.items() if symbol not in waiting}
            self._wanted = waiting
            if not waiting:
                self._news.clear()
        return asked

    def _put_back(self, asked: Mapping[str, bool]) -> None:
        """At the end, so that one that cannot be asked about does not keep the others from it."""
        with self._lock:
            for symbol, is_silent in asked.items():
                self._wanted[symbol] = is_silent or self._wanted.get(symbol, False)
            self._news.set()

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
