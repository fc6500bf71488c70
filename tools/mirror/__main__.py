"""Keeps a copy of the trades in PostgreSQL, and follows MySQL with less than two seconds of lag.

    python -m tools.mirror --to postgresql://user@host:5432/database
    python -m tools.mirror --sql BTCUSDT

The table `prices` in PostgreSQL has each trade exactly once, including late back-filled trades and older history, no
matter when the mirror is stopped, killed or cut off from either database. Give the password in PGPASSWORD or ~/.pgpass
rather than in the address. To start the copy over, drop the tables prices, mirror_symbols and mirror_holes.

Exit code: 0 if it was stopped (or, with --once, after everything was copied); 2 if you need to fix something.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import logging
import sys
import threading
import time

import config
import db
from process import command
from process import log as console
from process.command import Parser
from process.retry import backoff_s, jittered
from storage import follow as db_follow
from storage.follow import Copied, Look
from tools.mirror import questions
from tools.mirror.postgres import AwayError, MirrorError, MovedError, Target, parse_target

log = logging.getLogger("mirror")

POLL_S = 0.25
"""The time between two looks at MySQL while there is nothing to copy."""
PAGE_TRADES_MAX = 10_000
"""Trades in one read; a step, and so a transaction, has at most three reads."""
LINE_S = 10.0
NAMED_MAX = 8
"""Symbols whose newest ids are in a line; of more, only their number."""
OUTAGE_S_MAX = 5.0
"""The longest wait before the next attempt, without the jitter: both databases are close, so trying is cheap."""
READ_S_MAX = 30
LOOK_AGAIN_S = 10.0
"""How often to look again for ids that are neither stored nor in an open gap, which should not happen."""

_RETRY = (db.GoneError, db.ContentionError, db.NotWritableError, AwayError)


class Follower:
    """Follows all symbols of one database, step by step; used by one thread.

    Counters: `copied` trades, how many of them were `late`, and `outages` of either database.
    """

    def __init__(self, settings: config.Settings, target: str) -> None:
        self.copied = 0
        self.late = 0
        self.outages = 0
        self._settings = settings
        self._to = target
        self._source: db.Connection | None = None
        self._target: Target | None = None
        self._known: dict[str, Copied] = {}
        self._absent: dict[str, frozenset[tuple[int, int]]] = {}
        self._copied_as: dict[str, Look] = {}
        self._look_again_at = 0.0
        self._attempt = 0
        self._level_at = time.monotonic()
        self._lag_s_max = 0.0

    def round(self) -> bool:
        """Makes one step for each symbol of which something may be new. Returns whether the copy then had all that
        MySQL had when the round began.

        Raises what `_RETRY` lists, MirrorError, db.DatabaseError.
        """
        source, target = self._connect()
        began_at = time.monotonic()
        look_again = began_at >= self._look_again_at
        if look_again:
            self._look_again_at = began_at + LOOK_AGAIN_S
        # All of them first, so that a symbol of which nothing was stored since costs no statement.
        looks = db_follow.looks(source)
        moved = [
            symbol
            for symbol, look in looks.items()
            if self._copied_as.get(symbol) != look or (look_again and self._absent.get(symbol))
        ]
        level = True
        for symbol in moved:
            if self._step(source, target, symbol, look_again):
                self._copied_as[symbol] = looks[symbol]
            else:
                self._copied_as.pop(symbol, None)
                level = False
        self._attempt = 0
        if level:
            self._lag_s_max = max(self._lag_s_max, time.monotonic() - self._level_at)
            self._level_at = began_at
        return level

    def cut_off(self, error: Exception) -> float:
        """Drops both connections and what was known of the copy. Returns the seconds to wait before the next round."""
        wait_s = jittered(min(OUTAGE_S_MAX, backoff_s(self._attempt)))
        if not self._attempt:
            self.outages += 1
        self._attempt += 1
        log.warning("%s; trying again in %.1f s", error, wait_s)
        self.close()
        return wait_s

    def close(self) -> None:
        """Closes both connections."""
        if self._source is not None:
            db.close(self._source)
        if self._target is not None:
            self._target.close()
        self._source = self._target = None
        self._known.clear()
        self._copied_as.clear()

    def line(self) -> str:
        """The log line. The lag says how old the copy is; the greatest lag is that since the previous line."""
        lag_s = time.monotonic() - self._level_at
        greatest, self._lag_s_max = max(lag_s, self._lag_s_max), 0.0
        newest = [f"{symbol} {copied.span.last[0]}" for symbol, copied in self._known.items() if copied.span]
        if len(newest) > NAMED_MAX:
            newest = [f"{len(newest):,} symbols"]
        missing = sum(hole.missing for copied in self._known.values() for hole in copied.holes)
        numbers = [("copied", self.copied), ("late", self.late), ("missing", missing), ("outages", self.outages)]
        state = [] if self._target else ["CUT OFF"]
        lag = f"lag {lag_s:.2f} s (greatest {greatest:.2f} s)"
        return " · ".join([*state, *newest, lag, console.counters_text(numbers)])

    def _connect(self) -> tuple[db.Connection, Target]:
        if self._target is None:
            self._target = Target(self._to, self._settings.mysql_database)
        if self._source is None:
            self._source = db.connect(self._settings, read_only=True, read_s_max=READ_S_MAX)
        return self._source, self._target

    def _step(self, source: db.Connection, target: Target, symbol: str, look_again: bool) -> bool:
        """Copies what one look at MySQL shows. Returns whether that was all.

        `look_again`: also look for ids that were not found before.
        """
        if symbol not in self._known:
            self._known[symbol] = target.fetch_copied(symbol)
        before = self._known[symbol]
        skip = frozenset() if look_again else self._absent.get(symbol, frozenset())
        found = db_follow.beyond(source, before, skip, PAGE_TRADES_MAX)
        after = before
        trades = target.fitting(found.trades)
        if trades:
            after = db_follow.grown(before, trades)
            try:
                self.copied += target.store(before, after, trades)
            except MovedError:
                log.info("another mirror copies %s too", symbol)
                del self._known[symbol]
                return False
            self.late += sum(before.span is not None and trade.trade_id < before.span.last[0] for trade in trades)
        self._known[symbol] = after
        level = found.complete and len(trades) == len(found.trades)
        if level:
            self._note_absent(after, found)
        return level

    def _note_absent(self, copied: Copied, found: db_follow.Beyond) -> None:
        absent = frozenset((run.first, run.last) for run in db_follow.in_no_gap(copied.holes, found.gaps))
        for first, last in sorted(absent - self._absent.get(copied.symbol, frozenset())):
            log.warning("%s ids %d to %d are neither stored nor in an open gap", copied.symbol, first, last)
        self._absent[copied.symbol] = absent


def follow(follower: Follower, once: bool, stop_asked: threading.Event) -> None:
    """Follows until asked to stop. With `once`, stops when everything is copied and raises at the first outage."""
    line_at = time.monotonic()
    while not stop_asked.is_set():
        try:
            level = follower.round()
            wait_s = POLL_S if level else 0.0
        except _RETRY as error:
            if once:
                raise
            level, wait_s = False, follower.cut_off(error)
        if once and level:
            return
        stop_asked.wait(wait_s)
        if time.monotonic() - line_at >= LINE_S:
            log.info("%s", follower.line())
            line_at = time.monotonic()


def main(argv: list[str] | None = None) -> int:
    """Runs the command; the module's docstring explains the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    console.set_up("info")
    known = (config.ConfigError, MirrorError, AwayError, db.DatabaseError)
    return command.run(parser, lambda: _main(arguments), known)


def _main(arguments: argparse.Namespace) -> int:
    if arguments.sql:
        print(questions.as_text(config.parse_symbols("--sql", arguments.sql)[0]))
        return 0
    settings = config.load()
    settings = config.demo_of(settings) if arguments.demo else settings
    return _mirror(Follower(settings, parse_target(arguments.to)), arguments.once, settings.place)


def _mirror(follower: Follower, once: bool, place: str) -> int:
    stop_asked = threading.Event()
    command.stop_on_signals(stop_asked)
    log.info("copying the trades of database %s to PostgreSQL", place)
    try:
        follow(follower, once, stop_asked)
    finally:
        follower.close()
        print(f"copied {follower.copied} trades, {follower.late} of them late; {follower.outages} outages", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tools.mirror", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", metavar="URL", help="the PostgreSQL database, such as postgresql://user@host:5432/trades")
    what.add_argument("--sql", metavar="SYMBOL", help="print the three questions as SQL for PostgreSQL, then exit")
    parser.add_argument("--demo", action="store_true", help="copy the database of `make demo`")
    parser.add_argument("--once", action="store_true", help="copy what is there now, then exit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
