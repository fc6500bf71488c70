"""Reports from the captured trades: the latest price, the price at a second, the lowest and highest in a range.

Each answer shows the question, the SQL that was sent, to paste into the mysql CLI (`python private_mysql.py cli`), and
the result. Without a command all three are answered for every stored symbol.

    python query_examples.py
    python query_examples.py latest --symbol BTCUSDT
    python query_examples.py at 2025-11-20T10:15:09 --symbol BTCUSDT,ETHUSDT
    python query_examples.py range 2025-11-20T10:00 2025-11-20T11:00
    python query_examples.py range --last 5m --json
    python query_examples.py range --last 1h --plot hour.png
    python query_examples.py report --html report.html

Lowest and highest come from the candles and a few trades, in the same time for any range; the answer about a range of
up to 200,000 trades is compared with a scan of all of them. Charts need requirements-tools.txt.

Times are ISO 8601, and UTC unless they have an offset; a range includes its START and not its END. `--last` counts back
from the newest trade. While nothing real was captured, the demo's trades are read, and the first line says so.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import config
import db
from db import Connection, MinMax, Trade
from model import candles as bars
from model.candles import HOUR, MINUTE, Candle
from process import command
from report.html import Picture, as_html
from report.options import parse_options
from report.source import Mistake, Source, open_source, wanted_symbols
from report.text import (
    Answer,
    Marks,
    as_json,
    as_text,
    candle_table,
    count,
    duration,
    iso,
    json_candle,
    json_marks,
    json_trade,
    said,
    trade_table,
    utc,
)

T = TypeVar("T")

SECOND_ROWS_MAX = 10
"""Trades of a second that are listed for people; JSON has all of them."""
REPORT_RANGES = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
REPORT_CANDLES = {"minute": (MINUTE, 10), "hour": (HOUR, 12)}
"""Resolution in seconds, and how many of the last candles are shown."""
SCAN_TRADES_MAX = 200_000
"""The answer about a range of up to so many trades is compared with that of a scan, which takes about 0.1 s."""
SCAN_TRIES = 3
"""The answers come one after the other, and trades may be stored between them."""

_MILLISECOND = timedelta(milliseconds=1)
_price = attrgetter("price")


def main(argv: list[str] | None = None, *, now: datetime | None = None) -> int:
    """Answers the questions of the command line; 0, or 2 after one line on stderr. `now` is this machine's clock."""
    parser, options = parse_options(argv, __doc__)
    known = (Mistake, config.ConfigError, db.DatabaseError)
    return command.run(parser, lambda: _main(options, _whole_ms(now or datetime.now(UTC))), known)


def _main(options: argparse.Namespace, now: datetime) -> int:
    source = open_source(config.load(), options.demo)
    with closing(source.connection):
        answers = list(answer(source, options, now))
        if options.plot or options.html:
            draw(source, options, answers, now)
    if options.json:
        print(as_json(source.settings, answers))
    else:
        print(as_text(source.settings, source.fallback, answers, sys.stdout.isatty()))
    return 0


def draw(source: Source, options: argparse.Namespace, answers: Sequence[Answer], now: datetime) -> None:
    """Writes the files of --plot and --html. Raises Mistake."""
    try:
        # Slow to import, and not needed for anything else.
        from report import charts
    except ImportError as error:
        raise Mistake(f"charts need another package: pip install -r requirements-tools.txt ({error})") from error
    spans = {number: (one.symbol, *one.span) for number, one in enumerate(answers) if one.span}
    drawn = charts.fetch_all(source.connection, spans)
    if options.plot:
        # Of the report's ranges the longest, which comes last.
        longest = list({chart.found.symbol: chart for chart in drawn.values()}.values())
        if not longest or len(longest) > charts.CHARTS_MAX:
            shown = f"a picture can show 1 to {charts.CHARTS_MAX} symbols with trades, not {len(longest)}"
            raise Mistake(f"{shown}; choose with --symbol, or another range")
        _write(options.plot, charts.png(longest))
    if options.html:
        pictures = {number: Picture(charts.png([chart]), charts.describe(chart)) for number, chart in drawn.items()}
        _write(options.html, as_html((source.settings, source.fallback), answers, pictures, now).encode())


def _write(path: Path, content: bytes) -> None:
    """A file that appears whole, or stays as it was. Raises Mistake."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise Mistake(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink()
    print(f"query_examples.py: wrote {path}", file=sys.stderr)


def answer(source: Source, options: argparse.Namespace, now: datetime) -> Iterator[Answer]:
    """The answers to what `options` ask, symbol by symbol. Raises Mistake."""
    connection = source.connection
    newest_trades = [_newest(connection, symbol) for symbol in wanted_symbols(source, options.symbol)]
    # The exchange's clock may run ahead of this machine's.
    _refuse_future(options, max(now, *(newest.timestamp + _MILLISECOND for newest, _ in newest_trades)))
    for newest, sql in newest_trades:
        match options.command:
            case "latest":
                yield _latest(newest, sql, now)
            case "at":
                yield _second(connection, newest.symbol, options.time)
            case "range" if options.last is not None:
                yield _last(connection, newest, options.last, duration(options.last))
            case "range":
                yield _range(connection, newest.symbol, options.start, options.end)
            case _:
                yield _latest(newest, sql, now)
                yield _last_complete_second(connection, newest)
                for name, length in REPORT_RANGES.items():
                    yield _last(connection, newest, length, name)
                for name, (resolution, number) in REPORT_CANDLES.items():
                    yield _candles(connection, newest, resolution, number, name)


def _newest(connection: Connection, symbol: str) -> tuple[Trade, list[str]]:
    newest, sql = _ask(connection, db.latest, symbol)
    if newest is None:
        raise Mistake(f"the trades of {symbol} have just been deleted; ask again")
    return newest, sql


def _refuse_future(options: argparse.Namespace, limit: datetime) -> None:
    """Raises Mistake for a time that has not come yet, by this machine's clock and by the newest trade."""
    for name in ("time", "start", "end"):
        time = getattr(options, name, None)
        if time is not None and time > limit:
            raise Mistake(f"{iso(time)} is in the future; give a time up to now, {iso(limit)}")


def _whole_ms(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def _ask(connection: Connection, query: Callable[..., T], *parameters: Any) -> tuple[T, list[str]]:
    """What `query` returns, and the statements that it sent, each as it can be pasted into the mysql CLI."""
    connection.asked = []
    result = query(connection, *parameters)
    return result, [f"{statement};" for statement in connection.asked]


# ---- The questions. Each is one function that returns an Answer; answer() says which are asked.


def _latest(newest: Trade, sql: list[str], now: datetime) -> Answer:
    age = now - newest.timestamp
    words = f"{duration(age)} old" if age >= timedelta() else f"{duration(-age)} ahead"
    lines = [*trade_table([("latest", newest)]), "", f"{words} by this machine's clock, {utc(now)} UTC"]
    result = {"trade": json_trade(newest), "age_ms": age // _MILLISECOND}
    return Answer("latest", newest.symbol, f"What is the latest price of {newest.symbol}?", sql, result, lines)


def _last_complete_second(connection: Connection, newest: Trade) -> Answer:
    """The newest second with a trade before that of the newest trade, which may go on; that one if it is the only."""
    before = db.price_as_of(connection, newest.symbol, newest.timestamp.replace(microsecond=0) - _MILLISECOND)
    when = (before or newest).timestamp.replace(microsecond=0)
    which = "last complete" if before else "only"
    return _second(connection, newest.symbol, when, f", the {which} second that was captured")


def _second(connection: Connection, symbol: str, when: datetime, which: str = "") -> Answer:
    trades, sql = _ask(connection, db.trades_in_second, symbol, when)
    marks: Marks = []
    lines: list[str] = []
    if trades:
        # min() and max() return the earliest of equal ones, since the trades are in order.
        low, high = min(trades, key=_price), max(trades, key=_price)
        marks = [("first", trades[0]), ("lowest", low), ("highest", high), ("last", trades[-1])]
        listed: Marks = [("", trade) for trade in trades[:SECOND_ROWS_MAX]]
        lines = [*trade_table(marks), "", f"{count(len(trades))} in that second:", "", *trade_table(listed)]
        if len(trades) > len(listed):
            lines.append(f"... and {len(trades) - len(listed):,} more (--json has them all)")
    second = {"second": iso(when.replace(microsecond=0)), **json_marks(len(trades), marks)}
    result = {**second, "as_of": None, "trades": [json_trade(trade) for trade in trades]}
    question = f"What was the price of {symbol} at {said(when)} UTC{which}?"
    answer = Answer("at", symbol, question, sql, result, lines)
    return answer if trades else _as_of(connection, answer, when, "that second")


def _last(connection: Connection, newest: Trade, length: timedelta, name: str) -> Answer:
    # Counted from now, the answer for a tape that ended yesterday would always be that nothing traded.
    end = newest.timestamp + _MILLISECOND
    return _range(connection, newest.symbol, end - length, end, f" in the last {name} up to its newest trade,")


def _range(connection: Connection, symbol: str, start: datetime, end: datetime, which: str = "") -> Answer:
    found, sql = _ask(connection, db.min_max, symbol, start, end)
    marks: Marks = []
    lines: list[str] = []
    equal = None
    if found:
        found, equal = _compare(connection, found)
        marks = _marks(found)
        lines = [*trade_table(marks), "", f"{count(found.trades)} in {duration(end - start)}; {_COMPARED[equal]}"]
    bounds = {"start": iso(start), "end": iso(end)}
    result = {**bounds, **json_marks(found.trades if found else 0, marks), "equals_scan": equal, "as_of": None}
    period = f"from {said(start)} to before {said(end)} UTC"
    question = f"What were the lowest and the highest price of {symbol}{which} {period}?"
    answer = Answer("range", symbol, question, sql, result, lines, (start, end))
    return answer if found else _as_of(connection, answer, start, "that range")


_COMPARED = {
    True: "a scan of the trades themselves gives the same",
    None: f"not compared with a scan of the trades, which is done up to {SCAN_TRADES_MAX:,}",
    False: "a scan of the trades gives ANOTHER answer: make the candles anew (db.rebuild_candles)",
}


def _compare(connection: Connection, found: MinMax) -> tuple[MinMax, bool | None]:
    """The answer from the candles, and whether a scan of the trades gives the same; None: too many to scan them."""
    if found.trades > SCAN_TRADES_MAX:
        return found, None
    for _ in range(SCAN_TRIES):
        if db.min_max_by_scan(connection, found.symbol, found.start, found.end) == found:
            return found, True
        found = db.min_max(connection, found.symbol, found.start, found.end) or found
    return found, False


def _marks(found: MinMax) -> Marks:
    return [("first", found.first), ("lowest", found.low), ("highest", found.high), ("last", found.last)]


def _candles(connection: Connection, newest: Trade, resolution: int, number: int, name: str) -> Answer:
    """The bars up to that of the newest trade, which may go on."""
    bar, length = bars.floor(newest.timestamp, resolution), timedelta(seconds=resolution)
    start, end = bar - (number - 1) * length, bar + length
    candles, sql = _ask(connection, db.candles, newest.symbol, resolution, start, end)
    bounds = {"resolution": resolution, "start": iso(start), "end": iso(end)}
    result = {**bounds, "candles": [json_candle(candle) for candle in candles]}
    period = f"from {said(start)} to before {said(end)} UTC"
    question = f"How did {newest.symbol} trade in each of the last {number} {name}s, {period}?"
    lines = [*candle_table(candles), "", *_candle_notes(connection, candles, name)]
    return Answer("candles", newest.symbol, question, sql, result, lines)


def _candle_notes(connection: Connection, candles: Sequence[Candle], name: str) -> list[str]:
    first, last = candles[0].first_trade_id, candles[-1].last_trade_id
    gaps = [gap for gap in db.open_gaps(connection, candles[0].symbol) if first < gap.first_trade_id < last]
    notes = [f"The last {name} goes on with the next trade; one without a trade has no line."]
    if gaps:
        missing = sum(gap.missing for gap in gaps)
        notes.append(f"{count(missing)} of these are missing: see `python backfill.py --list`.")
    return notes


def _as_of(connection: Connection, answer: Answer, when: datetime, where: str) -> Answer:
    """`answer`, which is that nothing traded in `where`, with the last price before it and its age at `when`."""
    trade, sql = _ask(connection, db.price_as_of, answer.symbol, when)
    result, lines = None, [f"No trade of {answer.symbol} in {where}, and none is stored from before it."]
    if trade:
        age = when - trade.timestamp
        result = {"trade": json_trade(trade), "age_ms": age // _MILLISECOND}
        lines = [f"No trade of {answer.symbol} in {where}. The price as of {said(when)} UTC was {duration(age)} old:"]
        lines += ["", *trade_table([("as of then", trade)])]
    return answer._replace(sql=answer.sql + sql, result=answer.result | {"as_of": result}, lines=lines)


if __name__ == "__main__":
    sys.exit(main())
