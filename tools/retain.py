"""Moves old days from the table to Parquet files in DATA_DIR: the table holds the days that are kept, and no more.

A day leaves only after its file was read back and is what was proven of the day; candles, gaps and proofs stay. It can
be killed at any moment; the next run continues there. Exit code: 0; 1 if a day stays for a reason that needs a look; 2
for a mistake.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import config
import db
from process import child, command
from process.command import Parser
from proof import leaving, record
from proof.days import Auditor
from proof.leaving import BusyError, Place, StaysError
from storage import day_files, retention
from storage.retained import LEAVING, RESTORED, RETURNING, Retained


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see the module's text for the exit code."""
    parser = Parser(prog="python -m tools.retain", description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--keep", metavar="DAYS", type=keep_days, required=True, help="how many days stay in the table: 90d or 90")
    add("--symbol", metavar="SYMBOL,…", help="only these symbols (default: all that are stored)")
    add("--dry-run", action="store_true", help="only say which days would leave")
    add("--again", action="store_true", help="also the days that tools.restore brought back")
    add("--demo", action="store_true", help="the database of `make demo`")
    add("--until-stdin-closes", action="store_true", help="end when the parent process ends")
    arguments = parser.parse_args(argv)
    return command.run(parser, lambda: _main(arguments), (config.ConfigError, db.DatabaseError, BusyError))


def keep_days(text: str) -> int:
    """The number of days of 90d or 90. Raises ArgumentTypeError."""
    match = re.fullmatch(r"([0-9]{1,5})d?", text)
    if not match or not 1 <= int(match[1]) <= config.RETENTION_DAYS_MAX:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of days from 1 to {config.RETENTION_DAYS_MAX}; give 90d or 90"
        )
    return int(match[1])


def _main(arguments: argparse.Namespace) -> int:
    settings = config.load()
    settings = config.demo_of(settings) if arguments.demo else settings
    day_files.check_package()
    if arguments.until_stdin_closes:
        # Whatever it does at that moment, the next run continues there.
        child.when_stdin_closes(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with closing(db.connect(settings, create=False, read_s_max=leaving.READ_S_MAX)) as connection:
        symbols = _symbols(connection, settings, arguments)
        before = datetime.now(UTC).date() - timedelta(days=arguments.keep)
        if arguments.dry_run:
            return _foresee(connection, settings, symbols, before, arguments.again)
        with leaving.alone(settings), record.auditor(settings, connection) as auditor:
            mover = _Mover(Place(settings, connection), auditor)
            mover.resume(symbols if arguments.symbol else None)
            for symbol in symbols:
                for day, known in _old_days(connection, symbol, before):
                    mover.move(symbol, day, known, arguments.again)
            mover.finish()
    print(mover.summary())
    return int(mover.looks > 0)


def _symbols(connection: db.Connection, settings: config.Settings, arguments: argparse.Namespace) -> Sequence[str]:
    known = sorted({*db.symbols(connection), *(one.symbol for one in retention.leaving(connection))})
    # A capture that begins has nothing yet.
    if not known and not arguments.until_stdin_closes:
        raise db.NothingError(f"no trade is stored in database {settings.place} yet, so no day can leave it")
    if arguments.symbol is None:
        return known
    symbols = config.parse_symbols("--symbol", arguments.symbol)
    for symbol in symbols:
        if symbol not in known:
            raise config.ConfigError(f"--symbol={symbol}: no trade of it is stored; stored: {', '.join(known)}")
    return symbols


def _old_days(connection: db.Connection, symbol: str, before: date) -> Iterator[tuple[date, Retained | None]]:
    """The days before `before` of which rows are in the table, with what is recorded of each."""
    known = {one.day: one for one in retention.recorded_days(connection, symbol)}
    for day in retention.stored_days(connection, symbol, before):
        yield day, known.get(day)


def _may_leave(known: Retained | None, again: bool) -> bool:
    """Whether a day with rows in the table is to leave it. Raises StaysError."""
    if known is None:
        return True
    if known.state == RESTORED:
        return again
    if known.state == RETURNING:
        raise StaysError(f"it is being restored: python -m tools.restore --day {known.day} goes on", False)
    if known.state == LEAVING:
        return False
    raise StaysError("it is in its file, and rows of it, which nobody reads, are in the table again", True)


def _foresee(
    connection: db.Connection, settings: config.Settings, symbols: Sequence[str], before: date, again: bool
) -> int:
    """Says which days would leave; 0."""
    days = trades = 0
    for symbol in symbols:
        for day, known in _old_days(connection, symbol, before):
            try:
                if _may_leave(known, again):
                    count = leaving.check(connection, symbol, day)
                    print(f"{symbol} {day}: {count:,} trades would leave", flush=True)
                    days, trades = days + 1, trades + count
            except StaysError as stays:
                print(f"{symbol} {day} would stay: {stays}", flush=True)
    print(f"database {settings.place}: {days} days, {trades:,} trades would leave for {settings.retained_dir}")
    return 0


class _Mover:
    """Moves days, and says what becomes of each. `looks`: how many stay that need a look."""

    def __init__(self, place: Place, auditor: Auditor) -> None:
        self.looks = 0
        self._place, self._auditor = place, auditor
        self._waiting: list[tuple[float, Retained]] = []
        self._days = self._trades = self._bytes = self._stay = 0

    def resume(self, symbols: Sequence[str] | None) -> None:
        """Goes on with the days that an earlier run has recorded; that it did just before is not known."""
        for one in retention.leaving(self._place.connection):
            if symbols is None or one.symbol in symbols:
                self._wait_for(one)

    def move(self, symbol: str, day: date, known: Retained | None, again: bool) -> None:
        """Makes the file the day, if it may leave; its rows go when it is time."""
        try:
            if _may_leave(known, again):
                self._wait_for(leaving.leave(self._place, self._auditor, symbol, day))
        except StaysError as stays:
            self._stays(symbol, day, stays)
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            self._delete(self._waiting.pop(0)[1])

    def finish(self) -> None:
        """Deletes the rows of all days that are recorded, each in its time."""
        for due_s, one in self._waiting:
            time.sleep(max(0.0, due_s - time.monotonic()))
            self._delete(one)
        self._waiting = []

    def _wait_for(self, one: Retained) -> None:
        self._waiting.append((time.monotonic() + retention.wait_s(), one))

    def _delete(self, one: Retained) -> None:
        try:
            leaving.delete(self._place, one)
        except StaysError as stays:
            self._stays(one.symbol, one.day, stays)
            return
        path = self._place.path(one)
        size = path.stat().st_size
        self._days, self._trades, self._bytes = self._days + 1, self._trades + one.trades, self._bytes + size
        print(f"{one.symbol} {one.day}: {one.trades:,} trades, {_mb(size)}: {path}", flush=True)

    def _stays(self, symbol: str, day: date, stays: StaysError) -> None:
        self._stay += 1
        self.looks += stays.needs_a_look
        print(f"{symbol} {day} stays: {stays}", flush=True)

    def summary(self) -> str:
        """What was done, in a line."""
        settings = self._place.settings
        text = f"database {settings.place}: {self._days} days left the table, {self._trades:,} trades"
        text += f", {_mb(self._bytes)} in {settings.retained_dir}"
        if self._stay:
            text += f"; {self._stay} {'day stays' if self._stay == 1 else 'days stay'}"
            text += f", {self.looks} of them for a reason that needs a look" if self.looks else ""
        return text


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
