"""Brings in what is missing, by hand: gaps, and with --since all trades from a day on, joined to what is stored.

Gaps are filled from the exchange's REST interface, and what that does not serve from its archive, as the capture does
by itself. History comes from the archive, a day at a time, newest day first, and today's part from REST. With
--from-recorder the API of another recorder is asked instead. It can be stopped at any time; the next run continues
there. Exit code: 0 when no id is missing, 1 when some are, 2 when it could not be tried.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

import config
import db
from binance.archive import Archive
from binance.limits import Cooldown
from binance.rest import LastingError, Rest, RestError
from capture import demo, gap_filler, roster
from capture.gap_filler import Filler, missing_in, of_symbol
from capture.rejects import Rejects
from history import from_recorder, place
from history.recorder import Recorder, RecorderError
from history.since import History, Outcome, Wanted
from model.gaps import Gap
from process import child, command
from process.command import Parser, utc_day
from process.log import set_up as log_set_up
from process.retry import backoff_s, jittered

log = logging.getLogger("backfill")

HISTORY_READ_S_MAX = 300
FIRST_DAY = date(2017, 7, 13)
"""The exchange opened on the day after: an earlier --since means all trades that there are."""
TRIES_MAX = 8
"""By hand, the attempts in a row without progress before it ends: about two minutes."""


ARCHIVE_IDS_MIN = 100_000
"""Of a gap, for which the archive is asked before REST: a minute of REST's share."""


class Interrupted(Exception):
    """Ctrl-C came while gaps were being filled."""


def fill_all(connection: db.Connection, filler: Filler, symbol: str | None, until: date = date.max) -> int:
    """Tries every open gap that ends by the day `until`, given up or not, with a progress bar; ends when nothing more
    is to be had. How many ids the exchange does not serve now."""
    gap_filler.tidy(connection)
    gaps = [gap for gap in db.open_gaps(connection, symbol) if gap.timestamp_after.date() <= until]
    with tqdm(total=missing_in(gaps), unit=" trades", disable=None, file=sys.stderr) as bar:
        names = dict.fromkeys(gap.symbol for gap in gaps)
        return sum(_fill_symbol(connection, filler, of_symbol(name, gaps), bar.update) for name in names)


def _fill_symbol(
    connection: db.Connection, filler: Filler, gaps: Sequence[Gap], progress: Callable[[int], object]
) -> int:
    """Tries `gaps`, which are of one symbol, until they are settled or TRIES_MAX attempts in a row brought nothing; how
    many ids the exchange does not serve now. What it passes over several times is left for another day."""
    tries = passes = not_served = 0
    while gaps and tries < TRIES_MAX:
        gap, missing = gaps[0], missing_in(gaps)
        try:
            settled = filler.fill_pages(connection, gap, gaps[1:])
        except (RestError, db.ContentionError) as error:
            log.warning("%s", error)
            settled = filler.passed_over = 0
            tries = TRIES_MAX if isinstance(error, LastingError) else tries
        passes = passes + 1 if filler.passed_over and not settled else 0
        done = settled
        if passes == gap_filler.CONFIRM_TIMES:
            passes, done = 0, filler.passed_over
            not_served += done
        if done:
            tries = 0
            # What is not to be had stays open, so only what lies behind it is looked at again.
            ids = gap.first_trade_id + done, gaps[-1].last_trade_id
            gaps = _between(db.open_gaps(connection, gap.symbol), *ids)
            progress(max(0, missing - missing_in(gaps)))
        elif passes:
            time.sleep(gap_filler.HAND_S * passes)
        elif tries < TRIES_MAX:
            time.sleep(jittered(backoff_s(tries)))
            tries += 1
    return not_served


def _between(gaps: Sequence[Gap], first: int, last: int) -> list[Gap]:
    """What of `gaps` lies at `first` or after it, and begins by `last`."""
    ahead = [gap for gap in gaps if gap.last_trade_id >= first and gap.first_trade_id <= last]
    return [gap._replace(first_trade_id=max(gap.first_trade_id, first)) for gap in ahead]


def list_gaps(gaps: Sequence[Gap], place: str) -> str:
    """The exact missing ranges, one a line, and their sum; `place`: the database that was read, in words."""
    rows = [("symbol", "first id", "last id", "missing", "between (UTC)", "", "reason")]
    rows += [
        (
            gap.symbol,
            str(gap.first_trade_id),
            str(gap.last_trade_id),
            str(gap.missing),
            _text(gap.timestamp_before),
            _text(gap.timestamp_after),
            gap.reason,
        )
        for gap in gaps
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    total = f"database {place}: {missing_in(gaps)} ids are missing in {len(gaps)} gaps"
    return "\n".join([*lines, total] if gaps else [f"database {place}: no id is missing"])


def _text(when: datetime) -> str:
    return when.replace(tzinfo=None).isoformat(" ", "milliseconds")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see the module's text for the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    log_set_up("warning")
    return command.run(parser, lambda: _main(arguments), _MISTAKES)


_MISTAKES = (config.ConfigError, db.DatabaseError, RestError, RecorderError, place.BusyError, Interrupted)


def _parser() -> Parser:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--list", action="store_true", help="print the missing ranges and fetch nothing")
    add("--symbol", metavar="SYMBOL", help="only this symbol; with --since several, such as BTCUSDT,ETHUSDT")
    add("--since", type=utc_day, metavar="DAY", help="all trades from this UTC day on, such as 2026-11-25")
    add("--until", type=utc_day, metavar="DAY", help="with --since: the last day (default: today)")
    add("--from-archive", action="store_true", help="fill gaps of days that are over from the archive, and no others")
    add(
        "--from-recorder",
        metavar="URL",
        help="fill gaps from another recorder's API, such as http://other:8000; its API_TOKEN in RECORDER_TOKEN",
    )
    add("--demo", action="store_true", help="the database of `make demo`")
    add("--until-stdin-closes", action="store_true", help="end when the parent process ends")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for flags that contradict each other."""
    ways = {"--list": arguments.list, "--since": arguments.since, "--from-archive": arguments.from_archive}
    ways["--from-recorder"] = arguments.from_recorder is not None
    given = [flag for flag, value in ways.items() if value]
    if len(given) > 1:
        raise config.ConfigError(f"{' and '.join(given)} are two things to do: give one of them")
    if arguments.until is not None and (arguments.since is None or arguments.until < arguments.since):
        raise config.ConfigError(f"--until={arguments.until}: give a --since that is not after it")


def _main(arguments: argparse.Namespace) -> int:
    _check(arguments)
    settings = config.load()
    if arguments.demo:
        settings = config.demo_of(settings)
        settings = settings if arguments.list else demo.found(settings)
    if arguments.until_stdin_closes:
        child.when_stdin_closes(lambda: os.kill(os.getpid(), signal.SIGKILL))
    try:
        return _since(settings, arguments) if arguments.since else _gaps(settings, arguments)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; what was filled is stored, and the next run continues there") from None


def _gaps(settings: config.Settings, arguments: argparse.Namespace) -> int:
    symbol = _one_symbol(arguments.symbol) if arguments.symbol is not None else None
    connection = db.connect(settings, read_only=True)
    if not (stored := db.symbols(connection)):
        # Of nothing it cannot be said that nothing is missing.
        raise db.NothingError(f"no trade is stored in database {settings.place} yet, so no id is known to be missing")
    if symbol is not None and symbol not in stored:
        raise config.ConfigError(f"--symbol={symbol}: no trade of it is stored; stored: {', '.join(stored)}")
    if arguments.from_recorder is not None:
        db.close(connection)
        connection = db.connect(settings, create=False)
        _fill_from_recorder(connection, _recorder(arguments.from_recorder), symbol)
    elif not arguments.list:
        db.close(connection)
        with _folder(settings) as folder:
            connection = db.connect(settings, create=False, files_from=folder)
            with _hands(settings, connection, folder) as hands:
                hands.fill_from_archive(symbol) if arguments.from_archive else hands.fill(symbol)
    gaps = db.open_gaps(connection, symbol)
    db.close(connection)
    return _told(gaps, settings, arguments)


def _recorder(text: str) -> Recorder:
    """The recorder at an address. Raises ConfigError."""
    if "@" in text:
        raise config.ConfigError(
            f"--from-recorder has an account in it, which others can read; put the other's API_TOKEN into"
            f" {config.RECORDER_TOKEN} (environment or .env)"
        )
    return Recorder(config.parse_url("--from-recorder", text, ("https", "http")), config.recorder_token())


def _fill_from_recorder(connection: db.Connection, recorder: Recorder, symbol: str | None) -> None:
    """Fills gaps with what the other recorder has, newest first. Raises RecorderError."""
    gaps = db.open_gaps(connection, symbol)
    try:
        with _bar(missing_in(gaps)) as bar:
            for outcome in from_recorder.fill(connection, recorder, gaps, bar.update):
                with bar.external_write_mode(sys.stdout):
                    print(outcome, flush=True)
    finally:
        recorder.close()


def _told(gaps: Sequence[Gap], settings: config.Settings, arguments: argparse.Namespace) -> int:
    """The exit code, after the missing ranges were printed; for a capture, which logs it, only their sum."""
    text = list_gaps(gaps, settings.place)
    sum_of = text.splitlines()[-1] + ("; REST is asked for them" if gaps else "")
    print(sum_of if arguments.until_stdin_closes else text)
    return 1 if gaps else 0


@contextmanager
def _folder(settings: config.Settings) -> Iterator[Path | None]:
    """A block with the folder for files of the archive; None while another process brings history in."""
    with ExitStack() as stack:
        folder = None
        try:
            folder = stack.enter_context(place.taken(settings.capture_dir))
        except place.BusyError as error:
            log.warning("the archive is not asked: %s", error)
        yield folder


def _since(settings: config.Settings, arguments: argparse.Namespace) -> int:
    today = datetime.now(UTC).date()
    settings = config.asked_for(settings, "--symbol", arguments.symbol)
    symbols = roster.listed(settings, Rest(settings.rest_url, Cooldown()))
    wanted = Wanted(symbols, max(FIRST_DAY, arguments.since), min(today, arguments.until or today))
    if wanted.since > today:
        raise config.ConfigError(f"--since={wanted.since} is not over yet: today is {today} (UTC)")
    with place.taken(settings.capture_dir) as folder:
        connection = db.connect(settings, files_from=folder, read_s_max=HISTORY_READ_S_MAX)
        with _hands(settings, connection, folder) as hands:
            joined = hands.bring(wanted)
            if not arguments.until_stdin_closes:
                hands.fill_from_rest(wanted)
        gaps = [gap for symbol in symbols for gap in db.open_gaps(connection, symbol)]
        gaps = [gap for gap in gaps if gap.timestamp_after.date() >= wanted.since]
        db.close(connection)
    return _told(gaps, settings, arguments) or int(not joined)


class _Hands(NamedTuple):
    """What fills by hand; `history` is None while another process brings history in."""

    connection: db.Connection
    filler: Filler
    history: History | None

    def fill(self, symbol: str | None) -> None:
        """Fills gaps: long ones from the archive, then all from REST, then what is left from the archive."""
        long = [gap for gap in db.open_gaps(self.connection, symbol) if gap.missing >= ARCHIVE_IDS_MIN]
        self._heal(long)
        not_served = fill_all(self.connection, self.filler, symbol)
        self._heal(db.open_gaps(self.connection, symbol))
        print(f"filled {self.filler.filled} ids, gave up {self.filler.given_up}; not served now: {not_served}")

    def fill_from_archive(self, symbol: str | None) -> None:
        """Fills gaps of days that are over, by the archive alone."""
        self._heal(db.open_gaps(self.connection, symbol))

    def _heal(self, gaps: Sequence[Gap]) -> None:
        if self.history is None or not gaps:
            return
        with _bar(missing_in(gaps)) as bar:
            _show(bar, self.history.heal(gaps, bar.update))

    def bring(self, wanted: Wanted) -> bool:
        """Brings in the days that are over from the archive; what that does not have is a gap afterwards. Whether all
        that is missing is known (History.join)."""
        assert self.history is not None
        total = None
        try:
            total = self.history.count(wanted)
        except RestError as error:
            log.warning("how many trades there are is not known: %s", error)
        with _bar(total) as bar:
            _show(bar, self.history.days(wanted, bar.update))
        return self.history.join(wanted)

    def fill_from_rest(self, wanted: Wanted) -> None:
        """Fills what is left of the days. A capture that has started this does it itself."""
        for symbol in wanted.symbols:
            # No gap reaches over the end of the last day, of which the last trade is stored (History.join).
            fill_all(self.connection, self.filler, symbol, wanted.until)
            db.seal_history(self.connection, symbol)


def _bar(total: int | None) -> "tqdm[Any]":
    return tqdm(total=total, unit=" trades", unit_scale=True, disable=None, file=sys.stderr)


def _show(bar: "tqdm[Any]", outcomes: Iterable[Outcome]) -> None:
    for number, outcome in enumerate(outcomes, 1):
        bar.set_postfix_str(f"{number} days")
        with bar.external_write_mode(sys.stdout):
            print(outcome, flush=True)


def _one_symbol(text: str) -> str:
    symbols = config.parse_symbols("--symbol", text)
    if len(symbols) > 1:
        raise config.ConfigError(f"--symbol={text!r} names {len(symbols)} symbols; give one, or none for all")
    return symbols[0]


@contextmanager
def _hands(settings: config.Settings, connection: db.Connection, folder: Path | None) -> Iterator[_Hands]:
    rejects = Rejects(settings.capture_dir)
    rejects.start()
    cooldown = Cooldown()
    history = None
    if folder is not None:
        rest, archive = Rest(settings.rest_url, cooldown), Archive(settings.archive_url, folder)
        history = History(connection, archive, rest, folder)
    try:
        yield _Hands(connection, Filler(Rest(settings.rest_url, cooldown), rejects), history)
    finally:
        rejects.close()


if __name__ == "__main__":
    sys.exit(main())
