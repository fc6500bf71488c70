"""Proves what is stored: each symbol and UTC day beside what the exchange published, row by row.

A day is `equal` (to the exchange's archive, row by row), `agrees` (with its klines, minute by minute), `contiguous`
(all ids are there, compared with nothing yet), `gapped` (ids are missing), `different`, or `unverifiable` (the file of
the archive is of no use). Exit code: 0 when all is well, 1 when a day is gapped or different, 2 when it could not be
tried, 3 when a day is unverifiable or, with --strict, only contiguous.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import config
import db
from binance.archive import Archive, ArchiveError
from binance.limits import Cooldown
from binance.rest import Rest, RestError
from capture import demo, roster
from process import command
from process.command import Parser, utc_day
from process.log import set_up as log_set_up
from proof import calendar, certificate, recheck, record, text
from proof.against import Against, AgainstError, chosen
from proof.archive import archive_days
from proof.days import AUTO
from storage.proofs import CONTIGUOUS, DIFFERENT, EQUAL, GAPPED, UNVERIFIABLE

log = logging.getLogger("audit")

GOOD, WRONG, UNTRIED, UNSURE = 0, 1, 2, 3
"""Exit codes."""
READ_S_MAX = 300
"""For the server to make the bars of a large day once more."""


class Interrupted(Exception):
    """Ctrl-C came while days were audited."""


class WrongError(Exception):
    """A wrong combination of flags; the message names it."""


_MISTAKES = (
    config.ConfigError,
    db.DatabaseError,
    certificate.CertificateError,
    ArchiveError,
    RestError,
    AgainstError,
    WrongError,
    Interrupted,
)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; see the module's text for the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    log_set_up("warning")
    return command.run(parser, lambda: _main(arguments), _MISTAKES)


def _parser() -> Parser:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--symbol", metavar="SYMBOL,…", help="only these symbols (default: all that are stored)")
    add("--day", type=utc_day, metavar="DAY", help="this UTC day, such as 2026-11-25")
    add("--since", type=utc_day, metavar="DAY", help="each day from this one on (default: all that are not equal yet)")
    add(
        "--against",
        default=AUTO,
        metavar="WHAT",
        help="archive, klines, none, a FILE of the archive, or a certificate (.json); default: the archive or, where it"
        " has no file that can be used, klines",
    )
    add("--archive-only", action="store_true", help="only look whether the archive's own files are whole; no database")
    add("--recheck", nargs="?", const="1/1", metavar="N/T", help="look at what was proven again: the Nth of T parts")
    add("--calendar", action="store_true", help="show a calendar: what is known of each day")
    add("--json", action="store_true", help="print JSON, a line for each day")
    add("--export-cert", type=Path, metavar="FILE", help="write a certificate of these days")
    add("--strict", action="store_true", help="exit with 3 if a day is only contiguous")
    add("--demo", action="store_true", help="the database and the exchange of `make demo`")
    return parser


def _main(arguments: argparse.Namespace) -> int:
    settings = config.load()
    settings = demo.found(config.demo_of(settings)) if arguments.demo else settings
    if arguments.day and arguments.since:
        raise WrongError("--day and --since: give one of them")
    try:
        if arguments.archive_only:
            return _archive_only(settings, arguments)
        return _recheck(settings, arguments) if arguments.recheck else _audit(settings, arguments)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the proofs of the days that were audited are stored") from None


# ---- The audit.


def _audit(settings: config.Settings, arguments: argparse.Namespace) -> int:
    against = chosen(arguments.against)
    connection = db.connect(settings, create=False, read_s_max=READ_S_MAX)
    asked = list(_asked(connection, settings, arguments, against))
    verdicts: Counter[str] = Counter()
    untried = ""
    if not arguments.json:
        print(f"database {settings.place}; days are UTC", flush=True)
    with record.auditor(settings, connection) as auditor:
        for symbol, day in asked:
            found = against.audit(auditor, symbol, day)
            if found.is_settled:
                found = found._replace(proof=record.recorded(settings, connection, found.proof))
            verdicts[found.proof.verdict] += 1
            untried = untried or found.untried
            print(text.as_json(found) if arguments.json else text.of(found), flush=True)
    if not arguments.json:
        if arguments.calendar:
            _show_calendar(connection, _symbols(connection, settings, arguments))
        print(_sum(verdicts, arguments))
    if arguments.export_cert:
        _export(settings, connection, arguments)
    db.close(connection)
    return _code(verdicts, untried, arguments)


def _show_calendar(connection: db.Connection, symbols: Sequence[str]) -> None:
    for symbol in symbols:
        print(calendar.text(symbol, list(calendar.days(connection, symbol)), sys.stdout.isatty()), flush=True)


def _export(settings: config.Settings, connection: db.Connection, arguments: argparse.Namespace) -> None:
    """Writes the certificate of the days that are asked for, those that were equal before too."""
    proofs = [
        proof
        for symbol in _symbols(connection, settings, arguments)
        for proof in recheck.newest(connection, symbol, arguments.day, arguments.since)
    ]
    certificate.write(arguments.export_cert, proofs, connection, settings.place, settings.mysql_database)


def _code(verdicts: Counter[str], untried: str, arguments: argparse.Namespace) -> int:
    if verdicts[GAPPED] or verdicts[DIFFERENT]:
        return WRONG
    if untried:
        print(f"audit.py: could not be compared: {untried}", file=sys.stderr)
        return UNTRIED
    return UNSURE if verdicts[UNVERIFIABLE] or (arguments.strict and verdicts[CONTIGUOUS]) else GOOD


def _sum(verdicts: Counter[str], arguments: argparse.Namespace) -> str:
    if verdicts:
        days = verdicts.total()
        parts = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
        return f"{days} {'day' if days == 1 else 'days'} audited: {parts}"
    if arguments.since:
        return f"no trade is stored from {arguments.since} on, so there is nothing to audit"
    return "all days are equal to the archive already; --since DAY audits them again, --recheck looks for changes"


def _symbols(connection: db.Connection, settings: config.Settings, arguments: argparse.Namespace) -> Sequence[str]:
    stored = db.symbols(connection)
    if not stored:
        raise db.NothingError(f"no trade is stored in database {settings.place} yet, so there is nothing to prove")
    if not arguments.symbol:
        return stored
    symbols = config.parse_symbols("--symbol", arguments.symbol)
    for symbol in symbols:
        if symbol not in stored:
            raise config.ConfigError(f"--symbol={symbol}: no trade of it is stored; stored: {', '.join(stored)}")
    return symbols


def _asked(
    connection: db.Connection, settings: config.Settings, arguments: argparse.Namespace, against: Against
) -> Iterator[tuple[str, date]]:
    """Each symbol and day to audit. Raises WrongError if what they are to be compared with is of none."""
    symbols = _symbols(connection, settings, arguments)
    days = [(symbol, day) for symbol in symbols for day in _days(connection, symbol, arguments, against)]
    covered = [one for one in days if against.covers(*one)]
    if days and not covered:
        what = f"{days[0][0]} on {days[0][1]}" if len(days) == 1 else "any of the days that are asked for"
        raise WrongError(f"--against={arguments.against} says nothing of {what}")
    yield from covered


def _days(connection: db.Connection, symbol: str, arguments: argparse.Namespace, against: Against) -> Iterator[date]:
    """The days that are asked for, oldest first: by default those that are not equal to the archive yet."""
    _refuse_future(arguments)
    if arguments.day:
        yield arguments.day
        return
    last = datetime.now(UTC).date() if arguments.since else None
    for one in calendar.days(connection, symbol, arguments.since, last):
        if arguments.since or against.is_file or one.verdict != EQUAL:
            yield one.day


def _refuse_future(arguments: argparse.Namespace) -> None:
    """Raises WrongError."""
    today = datetime.now(UTC).date()
    day = arguments.day or arguments.since
    if day is not None and day > today:
        raise WrongError(f"{'--day' if arguments.day else '--since'}={day} has not begun yet: today is {today} (UTC)")


# ---- What else there is to look at.


def _archive_only(settings: config.Settings, arguments: argparse.Namespace) -> int:
    """Looks at the archive's files, and whether each is joined to the one of the day before."""
    first = arguments.day or arguments.since
    if first is None:
        raise WrongError("--archive-only: give --day or --since")
    _refuse_future(arguments)
    settings = config.asked_for(settings, "--symbol", arguments.symbol or None)
    last = arguments.day or datetime.now(UTC).date() - timedelta(days=1)
    good = True
    with closing(Archive(settings.archive_url, settings.capture_dir / record.FOLDER / str(os.getpid()))) as archive:
        rest = Rest(settings.rest_url, Cooldown())
        for symbol in roster.listed(settings, rest):
            for line in archive_days(archive, rest, symbol, (first, last)):
                good = good and line.whole
                print(line, flush=True)
    return GOOD if good else UNSURE


def _recheck(settings: config.Settings, arguments: argparse.Namespace) -> int:
    """Looks at the chain of the proofs, and whether what was proven is still stored."""
    number, parts = _part(arguments.recheck)
    connection = db.connect(settings, create=False, read_s_max=READ_S_MAX)
    symbols = _symbols(connection, settings, arguments)
    proofs, broken = recheck.broken_links(
        db.proofs(connection), settings.capture_dir / record.CHAIN_FILE, settings.mysql_database
    )
    for line in broken:
        print(f"the chain of proofs: {line}", file=sys.stderr if arguments.json else sys.stdout)
    kinds: Counter[recheck.Kind] = Counter()
    with record.auditor(settings, connection) as auditor:
        for symbol in symbols:
            for one in recheck.newest(connection, symbol, arguments.day, arguments.since):
                if one.day.toordinal() % parts != number - 1:
                    continue
                found = recheck.recheck(connection, one)
                kinds[found.kind] += 1
                print(text.recheck_json(found) if arguments.json else text.of_recheck(found), flush=True)
                if found.kind is recheck.Kind.CHANGED and not arguments.json:
                    print(text.of(auditor.audit(symbol, one.day, AUTO)), flush=True)
    db.close(connection)
    if not arguments.json:
        print(text.recheck_sum(kinds, proofs, len(broken)))
    return WRONG if kinds[recheck.Kind.CHANGED] or broken else GOOD


def _part(given: str) -> tuple[int, int]:
    number, _, parts = given.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise WrongError(f"--recheck={given}: give N/T, such as 3/30: the third of thirty parts")
    return int(number), int(parts)


if __name__ == "__main__":
    sys.exit(main())
