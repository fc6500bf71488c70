"""Fills gaps from the exchange's REST interface by hand; the capture does the same by itself (capture/gap_filler.py).

Exit code: 0 when no id is missing, 1 when some are, 2 when it could not be tried.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from tqdm import tqdm

import config
import db
from binance.limits import Cooldown
from binance.rest import LastingError, Rest, RestError
from capture import gap_filler
from capture.gap_filler import Filler, missing_in, of_symbol
from capture.rejects import Rejects
from model.gaps import Gap
from process import command
from process.command import Parser
from process.log import set_up as log_set_up
from process.retry import backoff_s, jittered

log = logging.getLogger("backfill")

TRIES_MAX = 8
"""By hand, the attempts in a row without progress before it ends: about two minutes."""


class Interrupted(Exception):
    """Ctrl-C came while gaps were being filled."""


def fill_all(connection: db.Connection, filler: Filler, symbol: str | None) -> int:
    """Tries every open gap, given up or not, with a progress bar; ends when nothing more is to be had. How many ids the
    exchange does not serve now."""
    gap_filler.tidy(connection)
    gaps = db.open_gaps(connection, symbol)
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
            gaps = _beyond(db.open_gaps(connection, gap.symbol), gap.first_trade_id + done)
            progress(max(0, missing - missing_in(gaps)))
        elif passes:
            time.sleep(gap_filler.HAND_S * passes)
        elif tries < TRIES_MAX:
            time.sleep(jittered(backoff_s(tries)))
            tries += 1
    return not_served


def _beyond(gaps: Sequence[Gap], first: int) -> list[Gap]:
    """What of `gaps` lies at `first` or after it."""
    ahead = [gap for gap in gaps if gap.last_trade_id >= first]
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
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the missing ranges and fetch nothing")
    parser.add_argument("--symbol", metavar="SYMBOL", help="only this symbol")
    parser.add_argument("--demo", action="store_true", help="the database of `make demo`")
    arguments = parser.parse_args(argv)
    log_set_up("warning")
    return command.run(parser, lambda: _main(arguments), (config.ConfigError, db.DatabaseError, Interrupted))


def _main(arguments: argparse.Namespace) -> int:
    settings = config.load()
    settings = config.demo_of(settings) if arguments.demo else settings
    symbol = _one_symbol(arguments.symbol) if arguments.symbol is not None else None
    connection = db.connect(settings, read_only=arguments.list, create=False)
    if not (stored := db.symbols(connection)):
        # Of nothing it cannot be said that nothing is missing.
        raise db.NothingError(f"no trade is stored in database {settings.place} yet, so no id is known to be missing")
    if symbol is not None and symbol not in stored:
        raise config.ConfigError(f"--symbol={symbol}: no trade of it is stored; stored: {', '.join(stored)}")
    if not arguments.list:
        try:
            _fill_by_hand(settings, connection, symbol)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; what was filled is stored, and the next run continues there") from None
    gaps = db.open_gaps(connection, symbol)
    db.close(connection)
    print(list_gaps(gaps, settings.place))
    return 1 if gaps else 0


def _one_symbol(text: str) -> str:
    symbols = config.parse_symbols("--symbol", text)
    if len(symbols) > 1:
        raise config.ConfigError(f"--symbol={text!r} names {len(symbols)} symbols; give one, or none for all")
    return symbols[0]


def _fill_by_hand(settings: config.Settings, connection: db.Connection, symbol: str | None) -> None:
    rejects = Rejects(settings.capture_dir)
    rejects.start()
    filler = Filler(Rest(settings.rest_url, Cooldown()), rejects)
    not_served = 0
    try:
        not_served = fill_all(connection, filler, symbol)
    finally:
        rejects.close()
        print(f"filled {filler.filled} ids, gave up {filler.given_up}; not served now: {not_served}")


if __name__ == "__main__":
    sys.exit(main())
