"""Brings days back from their Parquet files into the table, such as to complete or to audit them there.

The rows come from the file, which must be as it was written, and must be what was recorded of the day. It can be killed
at any moment: run it again. The day then stays in the table until `tools.retain --again`.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing

import config
import db
from process import command
from process.command import Parser, utc_day
from proof import leaving
from proof.leaving import BusyError, Place, StaysError
from storage import day_files, retention
from storage.retained import RESTORED, Retained


class WrongError(Exception):
    """What is asked for cannot be; the message says why."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0, or 2 after one line on stderr."""
    parser = Parser(prog="python -m tools.restore", description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--day", type=utc_day, metavar="DAY", required=True, help="this UTC day, such as 2026-11-25")
    add("--until", type=utc_day, metavar="DAY", help="and each day up to this one")
    add("--symbol", metavar="SYMBOL,…", help="only of these symbols (default: of all)")
    add("--demo", action="store_true", help="the database of `make demo`")
    arguments = parser.parse_args(argv)
    mistakes = (config.ConfigError, db.DatabaseError, BusyError, WrongError)
    return command.run(parser, lambda: _main(arguments), mistakes)


def _main(arguments: argparse.Namespace) -> int:
    settings = config.load()
    settings = config.demo_of(settings) if arguments.demo else settings
    day_files.check_package()
    with closing(db.connect(settings, create=False, read_s_max=leaving.READ_S_MAX)) as connection:
        days = _days(connection, settings, arguments)
        place = Place(settings, connection)
        with leaving.alone(settings):
            for one in days:
                try:
                    leaving.bring_back(place, one)
                except StaysError as stays:
                    raise WrongError(f"{one.symbol} {one.day} is not restored: {stays}") from None
                print(f"{one.symbol} {one.day}: {one.trades:,} trades are in the table again", flush=True)
    print(f"database {settings.place}: {len(days)} {'day' if len(days) == 1 else 'days'} restored")
    return 0


def _days(connection: db.Connection, settings: config.Settings, arguments: argparse.Namespace) -> Sequence[Retained]:
    """The days that are asked for and in files. Raises WrongError if none is."""
    last = arguments.until or arguments.day
    if last < arguments.day:
        raise WrongError(f"--until={last} is before --day={arguments.day}")
    symbols = config.parse_symbols("--symbol", arguments.symbol) if arguments.symbol else None
    recorded = retention.recorded_between(connection, arguments.day, last)
    asked = [one for one in recorded if not symbols or one.symbol in symbols]
    days = [one for one in asked if one.state != RESTORED]
    if not days:
        what = f"--day={arguments.day}" + (f" --until={last}" if arguments.until else "")
        what += f" --symbol={arguments.symbol}" if arguments.symbol else ""
        there = retention.ends_in_files(connection)
        files = f"the files of database {settings.place} are of {there[0]} to {there[1]}" if there else "none is"
        why = "restored before" if asked else f"no such day is in a Parquet file: {files}"
        raise WrongError(f"{what}: {why}")
    return days


if __name__ == "__main__":
    sys.exit(main())
