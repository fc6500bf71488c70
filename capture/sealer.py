"""Seals the bars of the captured symbols: soon after a minute is over, and at the start what was not sealed meanwhile.

It has a connection of its own, and no writer waits for it (storage/sealing.py). A symbol that trades a lot is sealed
within the minute too, second by second, so that a question about the last minute need not read all of its trades.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import config
import db
from model import candles as bars
from model.candles import FINE, HOUR, MINUTE
from model.gaps import Point
from model.times import EPOCH
from process.retry import backoff_s, jittered

log = logging.getLogger("sealer")

LOOK_S = 0.5
"""How often the thread looks for bars that are over."""
MARGIN = timedelta(seconds=1)
"""By the times of the trades, so long after its end a bar is sealed: they arrive in order but for less than that."""
QUIET = timedelta(seconds=60)
"""A symbol without a trade for so long is sealed by the newest stored trade of any symbol, minus as much again."""
FINE_TRADES_MIN = 500
"""So many trades behind what is sealed are worth sealing seconds of; fewer are read in a millisecond."""
SYMBOLS_PER_STATEMENT_MAX = 50
STOPPED_TIMES_MAX = 3
"""After so many sealings that late trades have stopped, the writers of the symbol wait for the next one."""
STEP_MIN, STEP_MAX = timedelta(minutes=1), timedelta(days=1)
STEP_S_MIN, STEP_S_MAX = 0.1, 1.0
"""A piece of history that takes longer or shorter than that is followed by a shorter or a longer one."""


class _Symbol:
    """What is known of a symbol: up to when it is sealed, its newest trade, and since when that is the newest."""

    def __init__(self, found: db.Sealable, now: float) -> None:
        self.sealed_until = found.sealed_until
        self.newest = found.newest
        # Those before the start are not counted: they may be few, and the minute will be over soon.
        self.sealed_id = found.newest[0] if found.newest else None
        # Whatever its time says: if it is captured, the stream may be about to bring the next.
        self.since = now
        self.stopped = 0
        self.behind = False

    def see(self, newest: Point, now: float) -> None:
        """Takes in the newest stored trade."""
        if newest != self.newest:
            self.newest, self.since = newest, now
            self.sealed_id = newest[0] if self.sealed_id is None else self.sealed_id

    def goal(self, now: float, clock: datetime) -> datetime | None:
        """Up to when it can be sealed now, where that is quiet by `clock`; None: no further."""
        if self.newest is None or self.sealed_id is None:
            return None
        newest_id, when = self.newest
        until = bars.floor(when - MARGIN, MINUTE)
        if now - self.since >= QUIET.total_seconds():
            # The minute of its last trade, and later the hour and the day.
            ends = bars.floor(when, MINUTE) + timedelta(seconds=MINUTE), bars.floor(clock - QUIET, HOUR)
            until = max([until, *(end for end in ends if when < end <= clock - QUIET)])
        if self.sealed_until is None or until > self.sealed_until:
            return until
        until = bars.floor(when - MARGIN, FINE)
        return until if newest_id - self.sealed_id >= FINE_TRADES_MIN and until > self.sealed_until else None


class Sealer(threading.Thread):
    """The thread of the capture. `newest`: asked for the newest trade of each symbol that was stored of late."""

    def __init__(self, settings: config.Settings, newest: Callable[[], dict[str, Point]]) -> None:
        super().__init__(name="sealer", daemon=True)
        self._settings = settings
        self._newest = newest
        self._stop_asked = threading.Event()
        self._connection: db.Connection | None = None
        self._symbols: dict[str, _Symbol] = {}
        self._step = timedelta(hours=1)
        self._attempt = 0

    def stop(self) -> None:
        """Asks the thread to end after the current bars."""
        self._stop_asked.set()

    def run(self) -> None:
        wait_s = 0.0
        while not self._stop_asked.wait(wait_s):
            try:
                wait_s = self._look()
                self._attempt = 0
            except db.ContentionError as error:
                log.debug("the sealing is repeated: %s", error)
                wait_s = LOOK_S
            except db.FatalError as error:
                log.error("no bar is sealed any more: %s. Answers stay right, but become slow", error)
                break
            except db.DatabaseError as error:
                wait_s = self._step_back(error)
            except Exception:
                # A defect here must not end the capture, which stores all trades without it.
                log.exception("the sealing failed; it continues in %.0f s", backoff_s(16))
                wait_s = backoff_s(16)
        self._close()

    def _step_back(self, error: Exception) -> float:
        self._close()
        wait_s = jittered(backoff_s(self._attempt))
        self._attempt += 1
        log.warning("the sealing waits %.1f s: %s", wait_s, error)
        return wait_s

    def _look(self) -> float:
        """Seals what is over; the seconds until the next look."""
        if self._connection is None:
            self._connection = db.connect(self._settings)
            found = db.sealable(self._connection)
            self._symbols = {symbol: _Symbol(one, time.monotonic()) for symbol, one in found.items()}
        newest, now = self._newest(), time.monotonic()
        if new := [symbol for symbol in newest if symbol not in self._symbols]:
            self._symbols |= {symbol: _Symbol(one, now) for symbol, one in db.sealable(self._connection, new).items()}
        for symbol, point in newest.items():
            if symbol in self._symbols:
                self._symbols[symbol].see(point, now)
        clock = self._clock()
        due = {symbol: goal for symbol, one in self._symbols.items() if (goal := one.goal(now, clock))}
        return LOOK_S if self._seal(due) else 0.0

    def _clock(self) -> datetime:
        """The time of the newest stored trade of any symbol; this machine's clock if that is behind it.

        That clock alone may be ahead, and what is traded now may wait on the disk: with bars sealed up to now, each of
        these trades would have to make them again. Where nothing trades at all, nothing needs to be sealed.
        """
        newest = (one.newest[1] for one in self._symbols.values() if one.newest)
        return min(datetime.now(UTC), max(newest, default=EPOCH))

    def _seal(self, due: dict[str, datetime]) -> bool:
        """Seals each symbol up to its time; False: there is more to do at once."""
        together: dict[tuple[datetime | None, datetime], list[str]] = defaultdict(list)
        done = True
        for symbol, until in due.items():
            since = self._symbols[symbol].sealed_until
            first = since
            if since is None or until - since > STEP_MIN * 2:
                # Of a symbol that is new, or was quiet, there is little in however long a time.
                assert self._connection is not None
                first = db.first_from(self._connection, symbol, since)
            if first is not None and until - first > STEP_MIN * 2:
                done = self._seal_history(symbol, first, until) and done
            else:
                together[since, until].append(symbol)
            if self._stop_asked.is_set():
                return True
        for (since, until), symbols in together.items():
            for start in range(0, len(symbols), SYMBOLS_PER_STATEMENT_MAX):
                self._seal_together(symbols[start : start + SYMBOLS_PER_STATEMENT_MAX], since, until)
        return done

    def _seal_history(self, symbol: str, first: datetime, until: datetime) -> bool:
        """Seals the next piece of a longer time, from the first trade in it on, as much as the server makes in about a
        second; whether it is all."""
        since = self._symbols[symbol].sealed_until
        goal = min(until, bars.floor(first, MINUTE) + self._step)
        begun_s = time.monotonic()
        self._seal_together([symbol], since, max(goal, since or goal))
        seconds = time.monotonic() - begun_s
        if seconds > STEP_S_MAX:
            self._step = max(STEP_MIN, self._step / 2)
        elif seconds < STEP_S_MIN:
            self._step = min(STEP_MAX, self._step * 2)
        if (goal < until) != self._symbols[symbol].behind:
            self._symbols[symbol].behind = goal < until
            if goal < until:
                log.info(
                    "the bars of %s are sealed from %s on; meanwhile its trades are read for answers", symbol, first
                )
            else:
                log.info("the bars of %s are sealed up to %s", symbol, until)
        # The trades that are stored meanwhile have the same server.
        self._stop_asked.wait(seconds / 2)
        return goal >= until

    def _seal_together(self, symbols: list[str], since: datetime | None, until: datetime) -> None:
        assert self._connection is not None
        stopped = len(symbols) == 1 and self._symbols[symbols[0]].stopped >= STOPPED_TIMES_MAX
        if stopped:
            sealed = db.seal_locked(self._connection, symbols[0], since, until)
        else:
            sealed = db.seal(self._connection, symbols, since, until)
        for symbol in symbols:
            one = self._symbols[symbol]
            one.stopped = 0 if sealed else one.stopped + 1
            if sealed:
                one.sealed_until, one.sealed_id = until, one.newest[0] if one.newest else None
        if sealed:
            return
        log.debug("%d symbols were not sealed up to %s: others store or seal them", len(symbols), until)
        # Whoever was in the way may have sealed them; and those that nobody hindered should not wait for the rest.
        for symbol, found in db.sealable(self._connection, symbols).items():
            self._symbols[symbol].sealed_until = found.sealed_until
        if len(symbols) > 1:
            for symbol in symbols:
                if self._symbols[symbol].sealed_until == since:
                    self._seal_together([symbol], since, until)

    def _close(self) -> None:
        if self._connection is not None:
            db.close(self._connection)
            self._connection = None
