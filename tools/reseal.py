"""Makes candles again from the trades, after rows of `trades` were changed, deleted or loaded by hand.

The capture and the back-fill do this by themselves for what they store. A capture may run meanwhile: an hour of minutes
at a time is locked.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import sys
from contextlib import closing
from datetime import datetime

import config
import db
from process import command
from process.command import Parser
from report.options import parse_time
from report.text import said
from storage import sealing


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0, or 2 after one line on stderr."""
    parser = Parser(prog="python -m tools.reseal", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--symbol", metavar="SYMBOL", required=True, help="whose candles")
    parser.add_argument("--start", metavar="TIME", type=parse_time, help="UTC (default: the first stored trade)")
    parser.add_argument("--end", metavar="TIME", type=parse_time, help="UTC (default: the newest stored trade)")
    parser.add_argument("--demo", action="store_true", help="the database of `make demo`")
    arguments = parser.parse_args(argv)
    if arguments.start and arguments.end and arguments.start >= arguments.end:
        parser.error("--start must be before --end")
    return command.run(parser, lambda: _main(arguments), (config.ConfigError, db.DatabaseError))


def _main(arguments: argparse.Namespace) -> int:
    settings = config.load()
    settings = config.demo_of(settings) if arguments.demo else settings
    with closing(db.connect(settings, create=False)) as connection:
        arguments.symbol = config.parse_symbols("--symbol", arguments.symbol)[0]
        known = {*db.symbols(connection), *db.sealable(connection)}
        if arguments.symbol not in known:
            stored = ", ".join(sorted(known)) or "none"
            raise config.ConfigError(f"--symbol={arguments.symbol}: no trade of it is stored; stored: {stored}")
        sealing.reseal(connection, arguments.symbol, arguments.start, arguments.end)
        until = db.sealable(connection)[arguments.symbol].sealed_until
    print(f"database {settings.place}, {arguments.symbol}: {_words(until)}")
    return 0


def _words(until: datetime | None) -> str:
    return f"the candles up to {said(until)} UTC equal the trades" if until else "no candle is over yet"


if __name__ == "__main__":
    sys.exit(main())
