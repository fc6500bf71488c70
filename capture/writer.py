"""The writer: the one thread that stores the stream's trades, through the database's outages (spool.py).

A batch is forgotten only after its commit or after it is on the disk.
"""

import logging
import math
import threading
import time
from collections.abc import Container
from operator import itemgetter

import config
import db
from capture.inbox import BatchSize, Inbox
from capture.progress import Stats
from capture.rejects import Rejects
from capture.spool import Spool
from model.gaps import Gap, Point
from model.trade import Trade
from process.retry import backoff_s, doubled, jittered

log = logging.getLogger("writer")

IDLE_S_MAX = 0.5
"""The longest wait for a trade before the writer checks on an outage again."""
NOT_WRITABLE_S_MIN = 5.0
"""A full or read-only server is not tried more often than this."""
COMPLAIN_S = 10.0
"""A disk that takes nothing is tried several times a second, but reported only this often."""
REFUSALS_MAX = 3
"""So many times the same error of no known kind are no accident."""
REFUSED_S_MAX = 300.0
"""The longest wait between two tries then."""
DRAIN_S_MAX = 30.0
"""At the end the spool is replayed for at most this long; the rest waits on the disk for the next start."""


_symbol = itemgetter(0)


class _AllBut(Container[str]):
    """The symbols of which no trade of this run was stored yet: all but `symbols`."""

    def __init__(self) -> None:
        self.symbols: set[str] = set()

    def __contains__(self, symbol: object) -> bool:
        return symbol not in self.symbols


class Writer(threading.Thread):
    """Stores what comes through `inbox` until it is stopped.

    Counters, in trades: `taken` from the inbox; of these `inserted`, `duplicate` (stored already), `refused` by the
    database and `left_over`; `spooled` went over the disk; `recovered` were found there from an earlier run.
    `failure` is set when only the operator can help; whatever still arrives then goes to the spool.
    """

    def __init__(self, settings: config.Settings, inbox: Inbox, rejects: Rejects) -> None:
        super().__init__(name="writer", daemon=True)
        self.taken = self.inserted = self.duplicate = self.refused = self.spooled = self.recovered = 0
        self.gaps_opened = 0
        self.failure: str | None = None
        self.ready = threading.Event()
        self.stats = Stats()
        self._settings = settings
        self._inbox = inbox
        self._rejects = rejects
        self._spool = Spool(settings.capture_dir / "spool")
        self._connection: db.Connection | None = None
        self._held: list[Trade] = []
        self._size = BatchSize()
        self._attempt = 0
        self._retry_at = 0.0
        self._complain_at = 0.0
        self._disk_refuses = False
        self._resumed = _AllBut()
        self._foreign = False
        self._refusal = ""
        self._refusals = 0

    @property
    def left_over(self) -> int:
        """Trades of this run that are not in the database: on the disk, in hand, or still in the inbox."""
        return self._spool.waiting + len(self._held) + len(self._inbox)

    @property
    def on_disk(self) -> int:
        """Of the trades that this run has put on the disk, those that are still there."""
        return self._spool.waiting

    @property
    def online(self) -> bool:
        """Whether the database answered when it was last used."""
        return self._connection is not None

    def newest(self) -> dict[str, Point]:
        """The newest trade of each symbol that was stored since the database was last reached; for another thread."""
        connection = self._connection
        return {symbol: span.last for symbol, span in list(connection.spans.items())} if connection else {}

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:
            # A defect: report all of it, and save what is in memory to the disk before the program ends.
            log.exception("the writer fails")
            self.failure = f"the writer failed: {error!r}"
            self._close_connection()
            self._retry_at = math.inf
            self._work()
        finally:
            self.ready.set()
            self._close_connection()
            self._spool.close()

    def _work(self) -> None:
        self._catch_up()
        self.ready.set()
        while not self._inbox.stopped and not self._is_stuck_at_the_end():
            self._step()
        self._finish()

    def _step(self) -> None:
        if not self._held:
            trades = self._inbox.take(self._wait_s(), self._size.trades_max)
            self.taken += len(trades)
            self._held = trades
            if trades:
                self._place()
                # Only now: it is for the line of the log, which has more time.
                self.stats.add(trades)
        else:
            self._place()
        self._catch_up()

    def _is_stuck_at_the_end(self) -> bool:
        """Whether neither the database nor the disk takes what is held, and nothing more will arrive."""
        return self._inbox.stop_asked and self._disk_refuses and self._connection is None

    def _wait_s(self) -> float:
        """How long to wait for a trade: not at all while the spool can be replayed."""
        if self._connection is not None and self._spool.empty:
            return IDLE_S_MAX
        return min(IDLE_S_MAX, max(0.0, self._retry_at - time.monotonic()))

    def _place(self) -> None:
        """Stores what is held in the database or, if trades already wait in the spool, behind those."""
        self._disk_refuses = False
        begun_s = time.monotonic()
        if self._connection is not None and self._spool.empty and self._commit(self._held, earlier=False):
            self._size.took(len(self._held), time.monotonic() - begun_s)
            self._held = []
            return
        try:
            if not self._foreign:
                self._spool.append(self._held)
        except OSError as error:
            self._disk_refuses = True
            self._complain(error)
            return
        if self._foreign:
            self._reject_held()
            return
        self.spooled += len(self._held)
        self._held = []

    def _reject_held(self) -> None:
        """Trades of another history: another database may hold them, but not this one, nor the spool that it reads."""
        for trade in self._held:
            self._rejects.put("not of the history that is stored", repr(trade))
        self.refused += len(self._held)
        self._held = []

    def _complain(self, error: OSError) -> None:
        """The disk does not take the batch: it stays in memory while the inbox fills up behind it."""
        now = time.monotonic()
        if now >= self._complain_at:
            waiting = len(self._inbox) + len(self._held)
            log.error("the spool takes nothing (%s); %d trades wait in memory", error, waiting)
            self._complain_at = now + COMPLAIN_S
        time.sleep(min(IDLE_S_MAX, max(0.0, self._retry_at - now)))

    def _catch_up(self) -> None:
        """Connects when it is time, and replays one part of the spool."""
        if time.monotonic() < self._retry_at or (self._connection is not None and self._spool.empty):
            return
        if self._connection is None and not self._connect():
            return
        if self._spool.empty:
            return
        chunk = self._spool.read()
        if self._commit(chunk.trades, chunk.earlier):
            for line in chunk.corrupt:
                self._rejects.put("a corrupt line of the spool", line)
            self.refused += 0 if chunk.earlier else len(chunk.corrupt)
            self._spool.done()

    def _connect(self) -> bool:
        try:
            self._connection = db.connect(self._settings)
        except db.DatabaseError as error:
            self._step_back(error)
            return False
        return True

    def _commit(self, trades: list[Trade], earlier: bool) -> bool:
        """Whether `trades` are now in the database."""
        assert self._connection is not None
        opened: list[Gap] = []
        refused_before = self.refused
        try:
            # What an earlier run has received continues what that run had stored.
            inserted = self._insert(trades, opened, () if earlier else self._resumed)
        except db.DatabaseError as error:
            self.refused = refused_before
            self._foreign = isinstance(error, db.OtherHistoryError)
            self._step_back(error)
            return False
        if self._attempt:
            log.warning("the database is back: it stores trades again")
        self._attempt = self._refusals = 0
        if not earlier:
            self._resumed.symbols.update(map(_symbol, trades))
        self.gaps_opened += len(opened)
        self._count(trades, inserted, self.refused - refused_before, earlier)
        return True

    def _insert(self, trades: list[Trade], opened: list[Gap], resumed: Container[str]) -> int:
        """How many of `trades` were new; the others are stored already, or refused."""
        assert self._connection is not None
        refused_before, lost = self.refused, set[Trade]()
        while True:
            try:
                return db.insert_acceptable(self._connection, trades, self._refuse, opened, resumed)
            except db.RetainedError as error:
                # The day may never be restored, and all that comes later would wait for it on the disk.
                lost |= self._set_aside(error)
                # Of what was refused in a part of the batch, which is repeated, each counts once.
                self.refused = refused_before + len(lost)
                trades = [trade for trade in trades if trade not in lost]

    def _set_aside(self, error: db.RetainedError) -> set[Trade]:
        """The trades that are missing in files, which are among the rejects now."""
        if not error.missing:
            raise error
        for words, trades in error.missing:
            log.warning("not stored, but kept in rejects.jsonl: %s", words)
            for trade in trades:
                self._rejects.put(f"not stored: {words}", repr(trade))
        return {trade for _, trades in error.missing for trade in trades}

    def _count(self, trades: list[Trade], inserted: int, refused: int, earlier: bool) -> None:
        if earlier:
            self.recovered += len(trades)
            self.refused -= refused
        else:
            self.inserted += inserted
            self.duplicate += len(trades) - inserted - refused

    def _refuse(self, trade: Trade, words: str) -> None:
        self.refused += 1
        log.warning("the database refuses trade %s %d: %s", trade.symbol, trade.trade_id, words)
        self._rejects.put(f"the database refuses it: {words}", repr(trade))

    def _step_back(self, error: db.DatabaseError) -> None:
        """Decides from the class of the error when to try the database again; the only place of that policy."""
        self._size.failed()
        if not isinstance(error, db.ContentionError):
            self._close_connection()
        if isinstance(error, db.FatalError):
            self.failure = str(error)
            self._retry_at = math.inf
            return
        # The first retry is immediate: an idle connection that was cut is no reason to wait.
        wait_s = jittered(backoff_s(self._attempt - 1)) if self._attempt else 0.0
        if isinstance(error, db.NotWritableError):
            wait_s = max(wait_s, NOT_WRITABLE_S_MIN)
        # What is of no known kind, and the same each time, does not pass by waiting.
        known = type(error) is not db.DatabaseError
        self._refusals = 0 if known else self._refusals + 1 if str(error) == self._refusal else 1
        self._refusal = str(error)
        if self._refusals >= REFUSALS_MAX:
            wait_s = doubled(wait_s, self._refusals - REFUSALS_MAX, REFUSED_S_MAX)
        if self._refusals == REFUSALS_MAX:
            log.error(
                "the database refuses trades each time for the same reason (%s): change that in the server, or set"
                " MYSQL_HOST to another one; the trades wait on the disk, in %s",
                error,
                self._settings.capture_dir / "spool",
            )
        self._attempt += 1
        self._retry_at = time.monotonic() + wait_s
        log.warning("the database takes no trades (%s); they wait on the disk, next try in %.1f s", error, wait_s)

    def _finish(self) -> None:
        """After the last trade: one last try, so that as little as possible is left for the next start."""
        deadline = time.monotonic() + DRAIN_S_MAX
        self._retry_at = math.inf if self.failure else 0.0
        while self._remains() and time.monotonic() < deadline and self.failure is None:
            attempt = self._attempt
            self._step()
            if self._attempt > attempt > 0:
                break
        if self._held:
            self._place()
        if self.left_over:
            log.warning("%d trades are not in the database: see the summary", self.left_over)

    def _remains(self) -> bool:
        return bool(self._held) or not self._spool.empty or not self._inbox.stopped

    def _close_connection(self) -> None:
        if self._connection is not None:
            db.close(self._connection)
            self._connection = None
