"""Reports from the captured trades: the latest price, the price at a second, the low and the high of a range, volume.

Each answer shows the question, the result, and the SQL that was sent, to paste into the mysql CLI (`python
private_mysql.py cli`); --no-sql leaves it out. Without a command all of them are answered for every stored symbol; of
more than ten, for those with the most trades, if --symbol names none. `latest` knows all of them.

    python query_examples.py
    python query_examples.py latest --symbol BTCUSDT --no-sql
    python query_examples.py at 2025-11-20T10:15:09 --symbol BTCUSDT,ETHUSDT
    python query_examples.py at 2025-11-20T10:15:09.500
    python query_examples.py range 2025-11-20T10:00 2025-11-20T11:00
    python query_examples.py range --last 5m --json
    python query_examples.py vwap --last 1h
    python query_examples.py candles 5m --count 12
    python query_examples.py range --last 1h --plot hour.png
    python query_examples.py report --html report.html

Low, high and volume come from sealed candles and a few trades, so they take the same time for any range; for a range of
up to 200,000 trades low and high are checked against a scan of all of its trades. --plot needs requirements-tools.txt.

A TIME with a fraction asks for the price at that instant: that of the last trade up to and including its millisecond.
Without a fraction it stands for its whole second.

Times are ISO 8601, and UTC unless they have an offset; a range includes its START and not its END. `--last` counts back
from the newest trade. While nothing real was captured, the demo's trades are read, and the first line says so.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from operator import attrgetter
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
    Answer,
    Marks,
    Note,
    Part,
    Read,
    as_json,
    as_text,
    average,
    candle_table,
    count,
    coverage_line,
    duration,
    instant,
    iso,
    look_of,
    marks_of,
    missing_note,
    newest_table,
    outside_note,
    quiet,
    said,
    trade_list,
    trade_table,
    utc,
    volume,
    volume_table,
)
from storage import proofs, questions, ranges
from storage.questions import Latest

T = TypeVar("T")

SECOND_ROWS_MAX = 10
"""Trades of a second that are listed for people; JSON has all of them."""
SYMBOLS_SHOWN_MAX = 10
"""Of more symbols, those with the most trades are answered for, if none are named; of all of them the latest price."""
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
    with closing(source.connection) as connection:
        if options.command == "latest" and not options.symbol and len(source.symbols) > SYMBOLS_SHOWN_MAX:
            left_out, answers = "", list(_latest_of_all(connection, now, options.json))
        else:
            wanted, left_out = _wanted(source, options.symbol)
            answers = list(answer(connection, wanted, options, now))
        read = Read(source.settings, source.fallback, left_out)
        if options.plot or options.html:
            draw(connection, options, read, answers, now)
    if options.json:
        if left_out:
            print(f"query_examples.py: {left_out}", file=sys.stderr)
        print(as_json(read, answers))
    else:
        print(as_text(read, answers, look_of(sys.stdout, options.sql)))
    return 0


def _wanted(source: Source, asked: Sequence[str]) -> tuple[Sequence[str], str]:
    """The symbols to report on, and a line about those that are left out. Raises Mistake."""
    if asked or len(source.symbols) <= SYMBOLS_SHOWN_MAX:
        return wanted_symbols(source, asked), ""
    # The exchange numbers the trades of a symbol, so the highest id tells how much was ever traded.
    busiest = nlargest(SYMBOLS_SHOWN_MAX, db.latest_of_all(source.connection), key=attrgetter("trade_id"))
    left_out = len(source.symbols) - len(busiest)
    words = f"the {len(busiest)} symbols with the most trades; {left_out:,} more are stored: name them with --symbol"
    return [trade.symbol for trade in busiest], words


def answer(
    connection: Connection, symbols: Sequence[str], options: argparse.Namespace, now: datetime
) -> Iterator[Answer]:
    """The answers to what `options` ask, symbol by symbol. Raises Mistake."""
    newest_trades = [_newest(connection, symbol, now) for symbol in symbols]
    # The exchange's clock may run ahead of this machine's.
    _refuse_future(options, max(now, *(newest.trade.timestamp + MILLISECOND for newest, _ in newest_trades)))
    for aged, sql in newest_trades:
        newest = aged.trade
        match options.command:
            case "latest":
                yield _latest(aged, sql, now)
            case "at":
                yield _at(connection, newest, *options.moment)
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


def _latest_of_all(connection: Connection, now: datetime, singly: bool) -> Iterator[Answer]:
    """The latest price of every symbol: as a table, or `singly` in an answer each, as programs know them."""
    found, sql = _ask(connection, questions.latest_prices, now)
    if singly:
        yield from (_latest(newest, sql, now) for newest in found)
        return
    words = f"{len(found):,} symbols; ages by this machine's clock, {utc(now)} UTC"
    missing = sum(newest.missing for newest in found)
    note = missing_note(missing, "in the times right before these", "what the prices were until then is not known")
    parts: list[Part] = [newest_table(found), words, *note]
    yield Answer("latest", "", "What is the latest price of each symbol?", sql, {}, parts)


def _newest(connection: Connection, symbol: str, now: datetime) -> tuple[Latest, list[str]]:
    newest, sql = _ask(connection, questions.latest_price, symbol, now)
    if newest is None:
        raise Mistake(f"the trades of {symbol} have just been deleted; ask again")
    return newest, sql


def _refuse_future(options: argparse.Namespace, limit: datetime) -> None:
    """Raises Mistake for a time that has not come yet, by this machine's clock and by the newest trade."""
    moment = getattr(options, "moment", None)
    for time in (moment and moment.time, getattr(options, "start", None), getattr(options, "end", None)):
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
    question = f"What is the latest price of {symbol}?"
    parts: list[Part] = [
        trade_table([("latest", newest.trade)], f"The newest trade of {symbol}"),
        f"{words} by this machine's clock, {utc(now)} UTC",
    ]
    parts += missing_note(newest.missing, "in the time right before it", "what the price was until then is not known")
    return Answer("latest", symbol, question, sql, as_dict(answers.latest(newest)), parts)


def _last_complete_second(connection: Connection, newest: Trade) -> Answer:
    """The newest second with a trade before that of the newest trade, which may go on; that one if it is the only."""
    before = db.price_as_of(connection, newest.symbol, newest.timestamp.replace(microsecond=0) - MILLISECOND)
    when = (before or newest).timestamp.replace(microsecond=0)
    which = "last complete" if before else "only"
    return _second(connection, newest, when, f", the {which} second that was captured")


def _at(connection: Connection, newest: Trade, time: datetime, exact: bool) -> Answer:
    if not exact:
        return _second(connection, newest, time)
    symbol = newest.symbol
    found, sql = _ask(connection, questions.price_at_instant, symbol, time)
    question = f"What was the price of {symbol} at the instant {said(time)} UTC?"
    return Answer("instant", symbol, question, sql, as_dict(answers.instant(found)), instant(found))


def _second(connection: Connection, newest: Trade, when: datetime, which: str = "") -> Answer:
    symbol = newest.symbol
    second = when.replace(microsecond=0)
    outside = questions.outside(connection, symbol, second, second + timedelta(seconds=1))
    found, sql = _ask(connection, questions.price_at, symbol, when)
    parts = quiet(symbol, "that second", when, found.as_of, found.missing)
    if found.trades:
        earlier = found.as_of is not None and found.as_of.trade.timestamp < found.second
        marks: Marks = [("until then", found.as_of.trade)] if found.as_of and earlier else []
        shown = found.trades[:SECOND_ROWS_MAX]
        parts = [trade_table(marks + marks_of(found), f"{symbol} in that second")]
        parts.append(trade_list(shown, f"{count(len(found.trades))} in that second"))
        if len(found.trades) > len(shown):
            parts.append(f"... and {len(found.trades) - len(shown):,} more (--json has them all)")
        parts += missing_note(found.missing, "in that second", _MAY_BE_WRONG)
    parts += outside_note(symbol, outside)
    result = as_dict(answers.second(found, outside)) | {
        "trades": [as_dict(answers.trade(trade)) for trade in found.trades]
    }
    return Answer("at", symbol, f"What was the price of {symbol} at {said(when)} UTC{which}?", sql, result, parts)


def _asked_range(connection: Connection, newest: Trade, options: argparse.Namespace) -> Answer:
    ask = _range if options.command == "range" else _volume
    if options.last is not None:
        return _last(ask, connection, newest, options.last, duration(options.last))
    return ask(connection, newest, options.start, options.end)


def _last(ask: Callable[..., Answer], connection: Connection, newest: Trade, length: timedelta, name: str) -> Answer:
    # Counted from now, the answer for a tape that ended yesterday would always be that nothing traded.
    end = newest.timestamp + MILLISECOND
    return ask(connection, newest, end - length, end, f" in the last {name} up to its newest trade,")


def _range(connection: Connection, newest: Trade, start: datetime, end: datetime, which: str = "") -> Answer:
    symbol = newest.symbol
    outside = questions.outside(connection, symbol, start, end)
    (found, traded), sql = _ask(connection, questions.range_and_volume, symbol, start, end)
    found = questions.compared(connection, found)
    parts = quiet(symbol, "that range", start, found.as_of, found.missing)
    if found.count:
        words = f"{count(found.count)} in {duration(end - start)}; {_COMPARED[found.equals_scan]}"
        parts = [trade_table(marks_of(found), f"{symbol} in that range")]
        parts.append("\n".join([words, volume(traded), average(traded)]))
        parts += missing_note(found.missing, "in that range", f"{_MAY_BE_WRONG}, and volume and average too")
    parts += outside_note(symbol, outside)
    result = as_dict(answers.low_and_high(found, outside)) | {"equals_scan": found.equals_scan}
    result["traded"] = as_dict(answers.volume(traded, outside))
    question = f"What were the low and the high of {symbol}{which} from {said(start)} until {said(end)} UTC?"
    plain = ranges.plain_sql(connection, symbol, start, end)
    return Answer("range", symbol, question, sql, result, parts, (start, end), plain)


def _volume(connection: Connection, newest: Trade, start: datetime, end: datetime, which: str = "") -> Answer:
    symbol = newest.symbol
    outside = questions.outside(connection, symbol, start, end)
    found, sql = _ask(connection, questions.volume, symbol, start, end)
    parts: list[Part] = [f"No trade of {symbol}{' is stored' if found.missing else ''} in that range."]
    if found.count:
        words = f"{average(found)}\n{count(found.count)} in {duration(end - start)}"
        parts = [volume_table(found, f"What was traded of {symbol} in that range"), words]
    parts += missing_note(found.missing, "in that range", "volume and average may be wrong")
    parts += outside_note(symbol, outside)
    period = f"from {said(start)} until {said(end)} UTC"
    question = f"How much of {symbol} was traded{which} {period}, at what average price?"
    return Answer("vwap", symbol, question, sql, as_dict(answers.volume(found, outside)), parts)


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
    parts: list[Part] = [candle_table(found.candles, found.missing, f"Candles of {newest.symbol}, {resolution} each")]
    parts.append("The last candle is not over yet; one without a trade has no line.")
    if any(found.missing):
        parts.append(Note("Missing: ids in gaps that reach into a candle; see `python backfill.py --list`."))
    return Answer("candles", newest.symbol, question, sql, as_dict(answers.candles(found)), parts)


def _coverage(connection: Connection, symbol: str) -> Answer:
    found, sql = _ask(connection, proofs.whole_coverage, symbol)
    question = f"Which days of {symbol} were audited, and with what result?"
    words = coverage_line(found)
    line: Part = Note(words) if found.missing else words
    return Answer("coverage", symbol, question, sql, as_dict(answers.coverage(found)), [line])


if __name__ == "__main__":
    sys.exit(main())
