"""Fills gaps from the exchange's REST interface: a thread of the capture; backfill.py does it by hand.

A few pages of trades are inserted, their gap shrunk and the sealed bars that they are in made again in one transaction
(db.insert_trades), so this can be killed anywhere. While the database stores them, the next pages are fetched. What the
exchange does not have stays an open gap, and is asked for again after growing waits, up to a day; only after answers
that are hours apart is it marked as not served.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import config
import db
from binance.answers import LASTING_S_MAX, LastingError, UnknownSymbolError, wait_after
from binance.limits import Cooldown
from binance.rest import PAGE_TRADES_MAX, Page, Rest, RestError
from capture import pages
from capture.pages import Pages, Wanted, collect, is_whole
from capture.rejects import Rejects
from capture.turns import Turns
from history import place
from model import gaps as trade_ids
from model import ids
from model.gaps import Gap
from model.trade import Trade
from process.retry import backoff_s, doubled, jittered

log = logging.getLogger("backfill")


LOOK_S = 1.0
"""How often the thread looks for gaps."""
COUNT_S = 5.0
"""And how often it counts them while it must wait."""
GRACE_S = 1.5
"""A gap is left to the streams for this long: most are trades that arrive out of order, and REST lags behind anyway."""
CONFIRM_TIMES = 3
CONFIRM_S = 2 * 3_600.0
"""The exchange must skip an id this many times, over so long a time, before it counts as not served."""
AGAIN_S, AGAIN_S_MAX = 1.0, 86_400.0
"""A gap that could not be filled is asked for again after this, then after twice as long, up to a day."""
BEHIND_S_MAX = 600.0
"""And where the exchange has nothing at all yet from the gap's first id on, after this at most."""
HAND_S = 1.0
"""By hand, the wait before the exchange is asked again for what it has skipped."""
TIDY_S = 3_600.0
"""How often it is looked whether old rows were deleted."""


class _Asked:
    """When a gap was first asked for in vain, how often, and when it is time for the next."""

    def __init__(self, now: float) -> None:
        self.first_s = self.due_s = now
        self.times = 0

    def put_off(self, now: float, most_s: float) -> None:
        """It was in vain again; the next time comes after `most_s` seconds at most, but for the jitter."""
        self.times += 1
        self.due_s = now + jittered(doubled(AGAIN_S, self.times - 1, most_s))

    def confirmed(self, now: float) -> bool:
        """Whether that was often enough, and for long enough, to be believed."""
        return self.times >= CONFIRM_TIMES and now - self.first_s >= CONFIRM_S


class Filler:
    """Fills gaps a few pages at a time over one database connection and one REST connection, both owned by one thread
    (or, while it stores, the REST connection by one that fetches the next pages).

    Counters: `filled` ids that were missing and are now stored, `given_up` ids that cannot be filled; `passed_over`:
    how many ids from the start of the gap the exchange passed over when it was last asked; `pages`: how many it then
    served.
    """

    def __init__(self, rest: Rest, rejects: Rejects, clock: Callable[[], float] = time.monotonic) -> None:
        self.filled = 0
        self.given_up = 0
        self.passed_over = self.pages = 0
        self._rest = rest
        self._rejects = rejects
        self._clock = clock
        self._asked: dict[tuple[str, int], _Asked] = {}
        self._refused: dict[str, _Asked] = {}
        self._ahead: Pages | None = None

    def is_due(self, gap: Gap) -> bool:
        """Whether it is time to ask for `gap`."""
        found = self._asked.get(_key(gap)), self._refused.get(gap.symbol)
        return all(asked is None or self._clock() >= asked.due_s for asked in found)

    def is_refused(self, symbol: str) -> bool:
        """Whether the exchange's last answer about `symbol` was a refusal."""
        return symbol in self._refused

    def refuse(self, symbol: str, most_s: float) -> int:
        """None of the gaps of `symbol` is due for a while, `most_s` seconds at most; how often that was so in a row.

        Not counted with the answers that pass over an id: a refusal says nothing about what the exchange has.
        """
        now = self._clock()
        asked = self._refused.setdefault(symbol, _Asked(now))
        asked.put_off(now, most_s)
        return asked.times

    def forget_all_but(self, gaps: Sequence[Gap]) -> None:
        """Forgets when gaps were asked for that are not open any more."""
        if self._refused:
            symbols = {gap.symbol for gap in gaps}
            self._refused = {symbol: asked for symbol, asked in self._refused.items() if symbol in symbols}
        if self._asked:
            keys = set(map(_key, gaps))
            self._asked = {key: asked for key, asked in self._asked.items() if key in keys}

    def fill_pages(
        self, connection: db.Connection, gap: Gap, later: Sequence[Gap] = (), most: int = pages.AT_ONCE_MAX
    ) -> int:
        """How many ids from the start of `gap` on are settled (stored or given up) after asking for `most` pages.

        A page costs the same however long it is, so what it holds of the symbol's `later` gaps is stored too. 0: the
        exchange has not got that far yet, or passes over the ids; `gap` is then not due for a while. Raises RestError,
        db.DatabaseError.
        """
        first = gap.first_trade_id
        self.passed_over = 0
        page = self._fetch(gap, later, most)
        self._refused.pop(gap.symbol, None)
        for reason, text in page.refused:
            self._rejects.put(reason, text)
        trades = _inside([gap, *later], page.trades)
        try:
            refused = self._insert(connection, [gap, *later], trades) if trades else set()
        except db.RetainedError as error:
            self._put_off(_key(gap), AGAIN_S_MAX)
            self.passed_over = gap.missing
            log.log(logging.WARNING if self._asked[_key(gap)].times == 1 else logging.DEBUG, "%s", error)
            return 0
        got = [one.trade_id for one in trades if one.trade_id <= gap.last_trade_id]
        if gap.reason == trade_ids.REFUSED:
            got = [trade_id for trade_id in got if trade_id not in refused]
        if settled := ids.run_length(first, got):
            return settled
        is_behind = not (page.trades or page.refused)
        self._put_off(_key(gap), BEHIND_S_MAX if is_behind else AGAIN_S_MAX)
        if first in refused or is_behind:
            return 0
        # If rows came and none of them is a trade, at least the first id cannot be had.
        served = min((trade.trade_id for trade in page.trades), default=first + 1)
        return self._pass_over(connection, gap, served, trade_ids.NOT_SERVED if page.trades else trade_ids.INVALID)

    def _fetch(self, gap: Gap, later: Sequence[Gap], most: int) -> Page:
        """The pages from the start of `gap` on; the next ones are fetched while the caller stores these."""
        symbol, first = gap.symbol, gap.first_trade_id
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            # Even if they are not those that are wanted now: a thread more on the same connection would disturb it.
            ahead.join()
        if ahead is not None and ahead.wanted[:2] == (symbol, first):
            page = ahead.result()
        else:
            last = later[-1].last_trade_id if later else gap.last_trade_id
            page = collect(self._rest, Wanted(symbol, first, last), most)
        self.pages = max(1, -(-len(page.trades) // PAGE_TRADES_MAX))
        after = first + len(page.trades)
        # Of a long gap only: between short ones there is much that is stored already.
        if (
            after <= gap.last_trade_id
            and self.pages < most
            and len(page.trades) >= PAGE_TRADES_MAX
            and is_whole(page, first, len(page.trades))
        ):
            self._ahead = Pages(self._rest, Wanted(symbol, after, gap.last_trade_id), most - self.pages)
            self._ahead.start()
        return page

    def _insert(self, connection: db.Connection, gaps: Sequence[Gap], trades: Sequence[Trade]) -> set[int]:
        """The ids of those of `trades`, which are in `gaps`, that the database refuses; the others are stored."""
        refused: set[int] = set()

        def refuse(trade: Trade, words: str) -> None:
            refused.add(trade.trade_id)
            self._rejects.put(f"the database refuses it: {words}", repr(trade))

        self.filled += db.insert_acceptable(connection, trades, refuse)
        known = [(one.first_trade_id, one.last_trade_id) for one in gaps if one.reason == trade_ids.REFUSED]
        symbol = trades[0].symbol
        for trade_id in refused:
            if not (known and ids.inside(known, trade_id)):
                self._give_up(connection, symbol, (trade_id, trade_id), trade_ids.REFUSED)
                self._put_off((symbol, trade_id), AGAIN_S_MAX)
        return refused

    def _put_off(self, key: tuple[str, int], most_s: float) -> None:
        now = self._clock()
        self._asked.setdefault(key, _Asked(now)).put_off(now, most_s)

    def _pass_over(self, connection: db.Connection, gap: Gap, served: int, reason: str) -> int:
        """How many ids are given up after the exchange, asked for the start of the gap, answered from `served` on."""
        asked = self._asked[_key(gap)]
        if served <= gap.first_trade_id:
            log.warning("the exchange answers %s from id %d, asked for %d", gap.symbol, served, gap.first_trade_id)
            return 0
        last = min(served - 1, gap.last_trade_id)
        self.passed_over = last - gap.first_trade_id + 1
        if asked.times == 1 and gap.reason not in trade_ids.GIVEN_UP:
            log.info(
                "%s %d to %d are not to be had now: they are asked for again, after growing waits",
                *(gap.symbol, gap.first_trade_id, last),
            )
        if gap.reason in trade_ids.GIVEN_UP or not asked.confirmed(self._clock()):
            return 0
        self._give_up(connection, gap.symbol, (gap.first_trade_id, last), reason)
        return self.passed_over

    def _give_up(self, connection: db.Connection, symbol: str, run: ids.Run, reason: str) -> None:
        self.given_up += db.give_up(connection, symbol, *run, reason)
        log.warning("%s %d to %d stay missing: %s. They are asked for once a day", symbol, *run, reason)


def _key(gap: Gap) -> tuple[str, int]:
    return gap.symbol, gap.first_trade_id


class Backfill(threading.Thread):
    """The thread of the capture. `open` gaps and `missing` ids are as of its last look."""

    def __init__(self, settings: config.Settings, cooldown: Cooldown, rejects: Rejects) -> None:
        super().__init__(name="backfill", daemon=True)
        self.open = 0
        self.missing = 0
        self._settings = settings
        self._stop_asked = threading.Event()
        self._rest = Rest(settings.rest_url, cooldown, self._pause)
        self.filler = Filler(self._rest, rejects)
        self._connection: db.Connection | None = None
        self._attempt = 0
        self._refused = False
        self._tidy_at = 0.0
        self._turns = Turns()
        self._asked = ""

    def stop(self) -> None:
        """Asks the thread to end after the current page."""
        self._stop_asked.set()

    def run(self) -> None:
        wait_s = 0.0
        while not self._stop_asked.is_set():
            try:
                self._idle(wait_s)
                wait_s = 0.0 if self._stop_asked.is_set() else self._look()
            except (RestError, db.DatabaseError) as error:
                wait_s = self._step_back(error)
            except Exception:
                # A defect here must not end the capture, which continues to record the gaps.
                log.exception("the back-fill failed; it continues in %.0f s", backoff_s(16))
                wait_s = backoff_s(16)
        self._close()

    def _look(self) -> float:
        """Fills pages of the gap whose turn it is; the seconds until the next look."""
        if self._connection is None:
            self._connection = db.connect(self._settings)
            self._tidy_at = 0.0
        if time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + TIDY_S
            tidy(self._connection)
        gaps = self._count()
        self.filler.forget_all_but(gaps)
        due = self._due(gaps)
        for gap in self._turns.order(due):
            if self._stop_asked.is_set():
                break
            # A symbol that is refused meanwhile has more gaps among these.
            if self.filler.is_due(gap) and self._ask(gap, due):
                return 0.0
        return LOOK_S

    def _due(self, gaps: Sequence[Gap]) -> list[Gap]:
        """Those of `gaps` that it is time to ask for."""
        now, symbols = datetime.now(UTC), self._settings.wanted({gap.symbol for gap in gaps})
        due = [gap for gap in gaps if gap.symbol in symbols and is_due(gap, now) and self.filler.is_due(gap)]
        return without_history(due, self._settings.capture_dir, now)

    def _ask(self, gap: Gap, due: Sequence[Gap]) -> int:
        """How many ids were settled from the start of `gap` on."""
        assert self._connection is not None
        self._asked = gap.symbol
        later = [one for one in of_symbol(gap.symbol, due) if one.first_trade_id > gap.first_trade_id]
        try:
            settled = self.filler.fill_pages(self._connection, gap, later, self._turns.part(gap.symbol))
        except UnknownSymbolError as error:
            # As after a delisting: that is this symbol's matter, and no reason to let the others wait.
            times = self.filler.refuse(gap.symbol, AGAIN_S_MAX)
            level = logging.WARNING if times == 1 else logging.DEBUG
            log.log(level, "the gaps of %s are asked for again after growing waits: %s", gap.symbol, error)
            self._turns.end(gap.symbol)
            settled = 0
        except LastingError:
            self.filler.refuse(gap.symbol, LASTING_S_MAX)
            raise
        else:
            self._turns.took(gap.symbol, self.filler.pages)
        # It answers, whatever it said.
        self._attempt = 0
        return settled

    def _count(self) -> list[Gap]:
        """The open gaps, now."""
        assert self._connection is not None
        gaps = db.open_gaps(self._connection)
        self.open, self.missing = len(gaps), missing_in(gaps)
        return gaps

    def _idle(self, seconds: float) -> None:
        """Waits, and counts the gaps meanwhile. A refusal may be for one symbol alone or for all that is asked: a gap
        of another symbol, which was not refused yet, does not wait for the end."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stop_asked.wait(min(left, COUNT_S)):
            if left > COUNT_S and self._connection is not None:
                due = self._due(self._count())
                if self._refused and not all(self.filler.is_refused(gap.symbol) for gap in due):
                    break

    def _pause(self, seconds: float) -> None:
        """Waits for the exchange's next minute, say, without losing sight of the gaps that are found meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stop_asked.wait(min(left, COUNT_S)):
            # The thread that fetches the next pages has no connection to the database.
            if threading.current_thread() is self:
                self._count()

    def _step_back(self, error: Exception) -> float:
        if isinstance(error, db.DatabaseError):
            # The waits for the exchange say nothing about the database, which may be back at once.
            self._attempt = self._attempt if self._connection is None else 0
            self._close()
        else:
            self._turns.end(self._asked)
        self._refused = isinstance(error, LastingError)
        wait_s = wait_after(error, self._attempt)
        self._attempt += 1
        log.warning("the back-fill waits %.1f s: %s", wait_s, error)
        return wait_s

    def _close(self) -> None:
        if self._connection is not None:
            db.close(self._connection)
            self._connection = None
        self._rest.close()


def tidy(connection: db.Connection) -> None:
    """Forgets the gaps that are below the first stored trade now, because somebody has deleted old rows."""
    if forgotten := db.forget_history(connection):
        log.info("%d gaps lay before the first stored trade, whose neighbours were deleted: forgotten", forgotten)


def of_symbol(symbol: str, gaps: Sequence[Gap]) -> list[Gap]:
    return [gap for gap in gaps if gap.symbol == symbol]


def _inside(gaps: Sequence[Gap], trades: Sequence[Trade]) -> list[Trade]:
    """Those of `trades` that lie in one of `gaps`, which are sorted by id."""
    runs = [(gap.first_trade_id, gap.last_trade_id) for gap in gaps]
    if len(runs) == 1:
        ((first, last),) = runs
        return [trade for trade in trades if first <= trade.trade_id <= last]
    return [trade for trade in trades if ids.inside(runs, trade.trade_id)]


def is_due(gap: Gap, now: datetime) -> bool:
    """Whether the streams had their time to fill `gap`; also when the clock was set back since it was detected."""
    return not timedelta() <= now - gap.detected_at < timedelta(seconds=GRACE_S)


def without_history(gaps: Sequence[Gap], data_dir: Path, now: datetime) -> list[Gap]:
    """`gaps` without those that a process which brings history in will fill from the archive."""
    soon = [gap for gap in gaps if gap.reason == trade_ids.HISTORY and gap.timestamp_before.date() < now.date()]
    return [gap for gap in gaps if gap not in soon] if soon and place.is_taken(data_dir) else list(gaps)


def missing_in(gaps: Sequence[Gap]) -> int:
    return sum(gap.missing for gap in gaps)
