"""Reports from the captured trades: the latest price, the price at a second, the low and the high of a range, volume.

Each answer shows the question, the SQL that was sent, to paste into the mysql CLI (`python private_mysql.py cli`), and
the result. Without a command all of them are answered for every stored symbol.

    python query_examples.py
    python query_examples.py latest --symbol BTCUSDT
    python query_examples.py at 2025-11-20T10:15:09 --symbol BTCUSDT,ETHUSDT
    python query_examples.py range 2025-11-20T10:00 2025-11-20T11:00
    python query_examples.py range --last 5m --json
    python query_examples.py vwap --last 1h
    python query_examples.py candles 5m --count 12
    python query_examples.py range --last 1h --plot hour.png
    python query_examples.py report --html report.html

Low, high and volume come from sealed candles and a few trades, so they take the same time for any range; for a range of
up to 200,000 trades low and high are checked against a scan of all of its trades. Charts need requirements-tools.txt.

Times are ISO 8601, and UTC unless they have an offset; a range includes its START and not its END. `--last` counts back
from the newest trade. While nothing real was captured, the demo's trades are read, and the first line says so.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import config
import db
from db import Connection, Trade
from model import candles as bars
from model.times import MILLISECOND
from process import command
from report import answers
from report.answers import as_dict
from report.files import draw
from report.options import parse_options
from report.source import Mistake, Source, open_source, wanted_symbols
from report.text import (
    LINE_CHARS_MAX,
    RESULT_INDENT,
    Answer,
    Marks,
    as_json,
    as_text,
    average,
    candle_table,
    count,
    coverage_line,
    duration,
    iso,
    marks_of,
    missing_note,
    quiet,
    said,
    trade_table,
    utc,
    volume,
    volume_table,
)
from storage import proofs, questions
from storage.questions import Latest

T = TypeVar("T")

SECOND_ROWS_MAX = 10
"""Trades of a second that are listed for people; JSON has all of them."""
REPORT_RANGES = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
REPORT_CANDLES = {"1m": 10, "1h": 12}
"""How many of the last candles of a resolution are shown."""


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


def answer(source: Source, options: argparse.Namespace, now: datetime) -> Iterator[Answer]:
    """The answers to what `options` ask, symbol by symbol. Raises Mistake."""
    connection = source.connection
    newest_trades = [_newest(connection, symbol, now) for symbol in wanted_symbols(source, options.symbol)]
    # The exchange's clock may run ahead of this machine's.
    _refuse_future(options, max(now, *(newest.trade.timestamp + MILLISECOND for newest, _ in newest_trades)))
    for aged, sql in newest_trades:
        newest = aged.trade
        match options.command:
            case "latest":
                yield _latest(aged, sql, now)
            case "at":
                yield _second(connection, newest.symbol, options.time)
            case "range" | "vwap":
                yield _asked_range(connection, newest, options)
            case "candles":
                yield _candles(connection, newest, options.resolution, options.count)
            case _:
                yield _latest(aged, sql, now)
                yield _last_complete_second(connection, newest)
                for name, length in REPORT_RANGES.items():
                    yield _last(_range, connection, newest, length, name)
                for resolution, number in REPORT_CANDLES.items():
                    yield _candles(connection, newest, resolution, number)
                yield _coverage(connection, newest.symbol)


def _newest(connection: Connection, symbol: str, now: datetime) -> tuple[Latest, list[str]]:
    newest, sql = _ask(connection, questions.latest_price, symbol, now)
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
    return result, [f"{statement};" for statement in dict.fromkeys(connection.asked)]


# ---- The questions. Each is one function that returns an Answer; answer() says which are asked.


def _latest(newest: Latest, sql: list[str], now: datetime) -> Answer:
    symbol, age = newest.trade.symbol, timedelta(milliseconds=newest.age_ms)
    words = f"{duration(age)} old" if age >= timedelta() else f"{duration(-age)} ahead"
    lines = [*trade_table([("latest", newest.trade)]), "", f"{words} by this machine's clock, {utc(now)} UTC"]
    lines += missing_note(newest.missing, "the time right before it", "what the price was until then is not known")
    result = as_dict(answers.latest(newest))
    return Answer("latest", symbol, f"What is the latest price of {symbol}?", sql, result, lines)


def _last_complete_second(connection: Connection, newest: Trade) -> Answer:
    """The newest second with a trade before that of the newest trade, which may go on; that one if it is the only."""
    before = db.price_as_of(connection, newest.symbol, newest.timestamp.replace(microsecond=0) - MILLISECOND)
    when = (before or newest).timestamp.replace(microsecond=0)
    which = "last complete" if before else "only"
    return _second(connection, newest.symbol, when, f", the {which} second that was captured")


def _second(connection: Connection, symbol: str, when: datetime, which: str = "") -> Answer:
    found, sql = _ask(connection, questions.price_at, symbol, when)
    lines = quiet(symbol, "that second", when, found.as_of, found.missing)
    if found.trades:
        earlier = found.as_of is not None and found.as_of.trade.timestamp < found.second
        marks = [("until then", found.as_of.trade)] if found.as_of and earlier else []
        listed: Marks = [("", trade) for trade in found.trades[:SECOND_ROWS_MAX]]
        lines = [*trade_table(marks + marks_of(found)), "", f"{count(len(found.trades))} in that second:", ""]
        lines += trade_table(listed)
        if len(found.trades) > len(listed):
            lines.append(f"... and {len(found.trades) - len(listed):,} more (--json has them all)")
        lines += missing_note(found.missing, "that second", _MAY_BE_WRONG)
    result = as_dict(answers.second(found)) | {"trades": [as_dict(answers.trade(trade)) for trade in found.trades]}
    return Answer("at", symbol, f"What was the price of {symbol} at {said(when)} UTC{which}?", sql, result, lines)


def _asked_range(connection: Connection, newest: Trade, options: argparse.Namespace) -> Answer:
    ask = _range if options.command == "range" else _volume
    if options.last is not None:
        return _last(ask, connection, newest, options.last, duration(options.last))
    return ask(connection, newest.symbol, options.start, options.end)


def _last(ask: Callable[..., Answer], connection: Connection, newest: Trade, length: timedelta, name: str) -> Answer:
    # Counted from now, the answer for a tape that ended yesterday would always be that nothing traded.
    end = newest.timestamp + MILLISECOND
    return ask(connection, newest.symbol, end - length, end, f" in the last {name} up to its newest trade,")


def _range(connection: Connection, symbol: str, start: datetime, end: datetime, which: str = "") -> Answer:
    (found, traded), sql = _ask(connection, questions.range_and_volume, symbol, start, end)
    found = questions.compared(connection, found)
    lines = quiet(symbol, "that range", start, found.as_of, found.missing)
    if found.count:
        words = f"{count(found.count)} in {duration(end - start)}; {_COMPARED[found.equals_scan]}"
        lines = [*trade_table(marks_of(found)), "", words, volume(traded), average(traded)]
        lines += missing_note(found.missing, "that range", f"{_MAY_BE_WRONG}, and volume and average too")
    result = as_dict(answers.low_and_high(found)) | {"equals_scan": found.equals_scan}
    result["traded"] = as_dict(answers.volume(traded))
    period = f"from {said(start)} until {said(end)} UTC"
    question = f"What were the low and the high of {symbol}{which} {period}?"
    return Answer("range", symbol, question, sql, result, lines, (start, end))


def _volume(connection: Connection, symbol: str, start: datetime, end: datetime, which: str = "") -> Answer:
    found, sql = _ask(connection, questions.volume, symbol, start, end)
    lines = [f"No trade of {symbol}{' is stored' if found.missing else ''} in that range."]
    if found.count:
        lines = [*volume_table(found), "", average(found), f"{count(found.count)} in {duration(end - start)}"]
    lines += missing_note(found.missing, "that range", "volume and average may be wrong")
    question = (
        f"How much of {symbol} was traded{which} from {said(start)} until {said(end)} UTC, at what average price?"
    )
    return Answer("vwap", symbol, question, sql, as_dict(answers.volume(found)), lines)


_MAY_BE_WRONG = "first, low, high and last may be wrong"
_COMPARED = {
    True: "a scan of the stored trades gives the same",
    None: f"not compared with a scan of the trades, which is done up to {questions.SCAN_TRADES_MAX:,}",
    False: "a scan of the stored trades gives ANOTHER answer: make the candles anew (python -m tools.reseal)",
}


def _candles(connection: Connection, newest: Trade, resolution: str, number: int) -> Answer:
    """The bars up to that of the newest trade, which may go on."""
    seconds = answers.RESOLUTIONS[resolution]
    bar, length = bars.floor(newest.timestamp, seconds), timedelta(seconds=seconds)
    start, end = bar - (number - 1) * length, bar + length
    found, sql = _ask(connection, questions.candles, newest.symbol, seconds, start, end)
    period = f"from {said(start)} until {said(end)} UTC"
    question = f"How did {newest.symbol} trade in the last {number} candles of {resolution}, {period}?"
    lines = [*candle_table(found.candles, found.missing), ""]
    lines.append("The last candle is not over yet; one without a trade has no line.")
    if any(found.missing):
        lines.append("Missing: ids in gaps that reach into a candle; see `python backfill.py --list`.")
    return Answer("candles", newest.symbol, question, sql, as_dict(answers.candles(found)), lines)


def _coverage(connection: Connection, symbol: str) -> Answer:
    found, sql = _ask(connection, proofs.whole_coverage, symbol)
    question = f"Which days of {symbol} were audited, and with what result?"
    lines = textwrap.wrap(coverage_line(found), LINE_CHARS_MAX - len(RESULT_INDENT))
    return Answer("coverage", symbol, question, sql, as_dict(answers.coverage(found)), lines)


if __name__ == "__main__":
    sys.exit(main())
