"""Reports from the captured trades: the latest price, the price at a second, the lowest and highest in a range.

Each answer shows the question, the SQL that was sent, to paste into the mysql CLI (`python private_mysql.py cli`), and
the result. Without a command all three are answered for every stored symbol.

    python query_examples.py
    python query_examples.py latest --symbol BTCUSDT
    python query_examples.py at 2025-11-20T10:15:09 --symbol BTCUSDT,ETHUSDT
    python query_examples.py range 2025-11-20T10:00 2025-11-20T11:00
    python query_examples.py range --last 5m --json

Times are ISO 8601, and UTC unless they have an offset; a range includes its START and not its END. `--last` counts back
from the newest trade. While nothing real was captured, the demo's trades are read, and the first line says so.
"""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple, NoReturn, TypeVar

import config
import db
import private_mysql
from db import Connection, Trade
from report import Answer, Marks, as_json, as_text, count, duration, iso, json_marks, json_trade, said, trade_table, utc

T = TypeVar("T")

SECOND_ROWS_MAX = 10
"""Trades of a second that are listed for people; JSON has all of them."""
LAST_DAYS_MAX = 36_500
TIME_MIN = datetime(1970, 1, 1, tzinfo=UTC)
"""Long before the first trade of the exchange, and well inside what DATETIME can hold."""
REPORT_RANGES = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}

_MILLISECOND = timedelta(milliseconds=1)
_price = attrgetter("price")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Mistake(Exception):
    """A question that cannot be answered as it was put; one line that says what to do."""


class Source(NamedTuple):
    """What is read: the database of `settings`, the symbols with trades in it, and whether it stands in for another."""

    connection: Connection
    settings: config.Settings
    symbols: list[str]
    fallback: bool


def main(argv: list[str] | None = None, *, now: datetime | None = None) -> int:
    """Answer the questions of the command line; 0, or 2 after one line on stderr. `now` is this machine's clock."""
    options = parse_options(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Some symbols are not ASCII, and not every terminal or pipe can show them.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        source = open_source(config.load(), options.demo)
        with closing(source.connection):
            answers = list(answer(source, options, _whole_ms(now or datetime.now(UTC))))
        if options.json:
            print(as_json(source.settings, answers), flush=True)
        else:
            print(as_text(source.settings, source.fallback, answers, sys.stdout.isatty()), flush=True)
    except (Mistake, config.ConfigError, db.DatabaseError, private_mysql.ServerError) as error:
        print(f"query_examples.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; what is left in the buffer must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 0


# ---- The command line.


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """The command line's `command`, `symbol`, `json`, `demo`, and `time` or `start`, `end`, `last`; exits with 2."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    common.add_argument("--symbol", action="append", help="only this one; repeat it, or separate with commas")
    common.add_argument("--json", action="store_true", help="one JSON document instead of text; prices are strings")
    common.add_argument("--demo", action="store_true", help="read the demo's database even if there is a real one")
    parser = Parser(
        prog="query_examples.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="{latest,at,range}", title="commands")
    commands.add_parser("latest", parents=[common], allow_abbrev=False, help="the latest price")
    at = commands.add_parser("at", parents=[common], allow_abbrev=False, help="the price at a second")
    at.add_argument("time", metavar="TIME", type=parse_time, help="such as 2025-11-20T10:15:09, in UTC")
    span = commands.add_parser(
        "range", parents=[common], allow_abbrev=False, help="the lowest and the highest price in a range of time"
    )
    span.add_argument("start", metavar="START", type=parse_time, nargs="?", help="the first millisecond of the range")
    span.add_argument("end", metavar="END", type=parse_time, nargs="?", help="the first millisecond after the range")
    span.add_argument("--last", metavar="DURATION", type=parse_duration, help="until the newest trade: 30s, 5m, 2h, 1d")
    options = parser.parse_args(argv, argparse.Namespace(symbol=[], json=False, demo=False))
    if options.command == "range":
        _require_range(span, options)
    return options


def _require_range(parser: Parser, options: argparse.Namespace) -> None:
    given = [time for time in (options.start, options.end) if time is not None]
    if len(given) != (2 if options.last is None else 0):
        parser.error("give either START and END, or --last DURATION such as --last 5m")
    if options.last is None and options.start >= options.end:
        start, end = iso(options.start), iso(options.end)
        parser.error(f"the range from {start} to {end} is empty: START must be before END")


def parse_time(text: str) -> datetime:
    """The UTC time of an ISO 8601 text; without an offset it is UTC already. Raises ArgumentTypeError."""
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; write it like 2025-11-20T10:15:09 or 2025-11-20T11:15:09.250+01:00"
        ) from None
    if time < TIME_MIN:
        raise argparse.ArgumentTypeError(f"{text!r} is too early; give a time from {TIME_MIN.year} on")
    return time


def parse_duration(text: str) -> timedelta:
    """The duration of a text such as 90s, 5m, 2h or 1d. Raises ArgumentTypeError."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write a whole number and s, m, h or d, like 5m")
    duration = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if duration > timedelta(days=LAST_DAYS_MAX):
        raise argparse.ArgumentTypeError(f"{text!r} is too long; give at most {LAST_DAYS_MAX}d")
    return duration


# ---- What is read.


def open_source(settings: config.Settings, demo: bool) -> Source:
    """The real database, or the demo's if `demo` or if only that has trades. Raises Mistake and those of connect()."""
    if settings.private and not (settings.data_dir / "mysql" / "data").exists():
        raise Mistake(f"nothing was captured in {settings.data_dir} yet: run `python ws_client.py`, or `make demo`")
    wanted, *others = [config.demo_of(settings)] if demo else [settings, config.demo_of(settings)]
    failure: db.FatalError | None = None
    for candidate in (wanted, *others):
        try:
            connection = db.connect(candidate, read_only=True)
            symbols = db.symbols(connection)
        except db.FatalError as error:
            # The demo's database may well be missing; what is wrong with the one that was meant is what counts.
            failure = failure or (error if candidate is wanted else None)
            continue
        if symbols:
            return Source(connection, candidate, symbols, candidate is not wanted)
        connection.close()
    if failure:
        raise failure
    way_out = "make demo" if demo else "python ws_client.py"
    raise Mistake(f"no trade is stored in {wanted.mysql_database} yet: run `{way_out}`")


def answer(source: Source, options: argparse.Namespace, now: datetime) -> Iterator[Answer]:
    """The answers to what `options` ask, symbol by symbol. Raises Mistake."""
    connection = source.connection
    newest_trades = [_newest(connection, symbol) for symbol in _wanted(source, options.symbol)]
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


def _wanted(source: Source, asked: Sequence[str]) -> Sequence[str]:
    """The symbols to report on, all if none is `asked` for. Raises Mistake for one without a trade, ConfigError."""
    wanted = config.parse_symbols("--symbol", ",".join(asked)) if asked else source.symbols
    for symbol in wanted:
        if symbol not in source.symbols:
            database, stored = source.settings.mysql_database, ", ".join(source.symbols)
            raise Mistake(f"no trade of {symbol} is stored in {database}; --symbol can be {stored}")
    return wanted


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
    if found:
        marks = [("first", found.first), ("lowest", found.low), ("highest", found.high), ("last", found.last)]
        lines = [*trade_table(marks), "", f"{count(found.trades)} in {duration(end - start)}"]
    bounds = {"start": iso(start), "end": iso(end)}
    result = {**bounds, **json_marks(found.trades if found else 0, marks), "as_of": None}
    period = f"from {said(start)} to before {said(end)} UTC"
    question = f"What were the lowest and the highest price of {symbol}{which} {period}?"
    answer = Answer("range", symbol, question, sql, result, lines)
    return answer if found else _as_of(connection, answer, start, "that range")


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
