"""Which symbols are captured: those that SYMBOLS names, and what the exchange trades of its patterns. A thread.

The exchange lists symbols and delists them: it is asked again often enough that a new one joins within the hour. One
that is not traded any more leaves only after a day, so that a pause of the market changes nothing.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

import config
from binance.answers import wait_after
from binance.limits import Cooldown
from binance.rest import Rest, RestError
from capture.silence import first_of
from process.retry import doubled, jittered

log = logging.getLogger("symbols")

LOOK_S = 2_400.0
"""How often the exchange is asked what it trades; with the jitter, less than an hour."""
AGAIN_S, AGAIN_S_MAX = 60.0, 600.0
"""The wait after it did not answer grows from this up to that, so that a new symbol still joins within the hour."""
LEAVE_S = 86_400.0
"""A symbol that the exchange has not traded for so long leaves."""
REMEMBERED_TRIES = 3
"""After so many failures at the start, the names in SYMBOLS, and what the last run captured, are captured until the
exchange answers."""
NAMES_MAX = 10


class RosterError(Exception):
    """SYMBOLS stands for no symbol at all; the message is one line."""


def has_patterns(settings: config.Settings) -> bool:
    """Whether SYMBOLS has patterns, so that only the exchange knows what they stand for."""
    return settings.names != settings.symbols


def listed(settings: config.Settings, rest: Rest) -> tuple[str, ...]:
    """The symbols that SYMBOLS stands for now. Raises RestError."""
    return settings.chosen(rest.fetch_trading()) if has_patterns(settings) else settings.symbols


class Roster(threading.Thread):
    """The thread; it is needed only if SYMBOLS has patterns. `symbols`: those that should be captured now, which other
    threads may read at any time."""

    def __init__(self, settings: config.Settings, cooldown: Cooldown, clock: Callable[[], float] = time.monotonic):
        super().__init__(name="symbols", daemon=True)
        self.symbols = settings.names
        self._settings = settings
        self._clock = clock
        self._stop_asked = threading.Event()
        # While fill() runs, in the thread of the capture, its end ends the exchange's waits; later stop() does.
        self._wait: Callable[[float], object] = self._stop_asked.wait
        self._rest = Rest(settings.rest_url, cooldown, lambda seconds: self._wait(seconds))
        self._seen_at: dict[str, float] = {}
        self._failures = 0

    @property
    def _file(self) -> Path:
        return self._settings.capture_dir / "symbols.json"

    def fill(self, stop_asked: threading.Event, end: float = math.inf) -> None:
        """Waits until the symbols are known, `stop_asked` is set or `end` is over, on the monotonic clock. Raises
        RosterError if there are none."""
        self._wait = lambda seconds: stop_asked.wait(min(seconds, max(0.0, end - time.monotonic())))
        try:
            has_answered = self._fill(stop_asked, end)
        finally:
            self._wait = self._stop_asked.wait
        # Without an answer, as where `end` was over before the first question, nobody knows what is traded.
        if has_answered and not self.symbols and not stop_asked.is_set():
            wishes = ",".join(self._settings.symbols)
            raise RosterError(f"SYMBOLS={wishes!r}: the exchange trades nothing of it now; give names or *USDT, ALL")

    def _fill(self, stop_asked: threading.Event, end: float) -> bool:
        """Whether the exchange has answered."""
        while has_patterns(self._settings) and not stop_asked.is_set() and time.monotonic() < end:
            try:
                self.look()
                return True
            except RestError as error:
                if stop_asked.is_set():
                    break
                wait_s = wait_after(error, self._failures)
                self._failures += 1
                if self._failures >= REMEMBERED_TRIES:
                    self._remember()
                    if self.symbols:
                        log.warning("%s; what is known is captured until it answers: %s", error, self._words())
                        break
                log.warning("the exchange does not say what it trades: %s; next try in %.1f s", error, wait_s)
                self._wait(wait_s)
        return False

    def look(self) -> None:
        """Asks the exchange, and brings `symbols` up to date. Raises RestError."""
        found, now = self._rest.fetch_trading(), self._clock()
        self._seen_at.update(dict.fromkeys(self._settings.wanted(found), now))
        self._seen_at = {symbol: when for symbol, when in self._seen_at.items() if now - when < LEAVE_S}
        self._failures = 0
        # An exchange that has traded nothing at all for a day may come back: then everything is wanted again.
        self.symbols = self._settings.chosen(self._seen_at) or self.symbols
        self._keep()

    def run(self) -> None:
        while has_patterns(self._settings) and not self._stop_asked.wait(jittered(self.wait_s())):
            try:
                self.look()
            except RestError as error:
                self._failures += 1
                if self._failures == 1:
                    log.warning("new symbols may be missed: the exchange does not say what it trades: %s", error)
            except Exception:
                # A defect here must not end the capture, which goes on with the symbols that it has.
                log.exception("the exchange's symbols cannot be read")
        self._rest.close()

    def wait_s(self) -> float:
        """The seconds until the exchange is asked again, but for the jitter."""
        return doubled(AGAIN_S, self._failures - 1, AGAIN_S_MAX) if self._failures else LOOK_S

    def stop(self) -> None:
        """Asks the thread to end."""
        self._stop_asked.set()

    def _words(self) -> str:
        count = "1 symbol" if len(self.symbols) == 1 else f"{len(self.symbols):,} symbols"
        return f"{count}, {first_of(self.symbols, NAMES_MAX)}"

    def _keep(self) -> None:
        """Remembers the symbols for a start at which the exchange does not answer."""
        part = self._file.with_suffix(".part")
        try:
            part.write_text(json.dumps(self.symbols), encoding="utf-8")
            part.replace(self._file)
        except OSError as error:
            log.warning("the list of symbols cannot be kept in %s: %s", self._file, error.strerror)

    def _remember(self) -> None:
        """Takes in the symbols of the last run that SYMBOLS still wants."""
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            names = [one for one in kept if isinstance(one, str) and config.is_symbol(one)]
        except (OSError, ValueError, TypeError):
            return
        self._seen_at = dict.fromkeys(self._settings.wanted(names), self._clock())
        self.symbols = self._settings.chosen(self._seen_at)
