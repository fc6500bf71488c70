"""The command line of query_examples.py, and how times and durations are written; other commands use the same."""

import argparse
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from process.command import Parser, whole
from report.answers import RESOLUTIONS
from report.text import iso

LAST_DAYS_MAX = 36_500
CANDLES_MAX = 5_000
TIME_MIN = datetime(1970, 1, 1, tzinfo=UTC)
"""Long before the exchange's first trade, and well within what DATETIME can hold."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Moment(NamedTuple):
    """A time that was asked about; `exact` if it was given with a fraction of its second, and is not all of that."""

    time: datetime
    exact: bool


def parse_options(argv: list[str] | None, description: str | None) -> tuple[Parser, argparse.Namespace]:
    """The parser, and the command line's `command`, `symbol`, `json`, `sql`, `demo`, `plot`, `html`, and either
    `moment` or `start`, `end` and `last`.

    Exits with 2 after one line if something is wrong.
    """
    common = _common()
    drawn = Parser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    drawn.add_argument("--plot", metavar="FILE.png", type=parse_png, help="also draw the ranges as a picture")
    drawn.add_argument("--html", metavar="FILE", type=Path, help="also write everything, with charts, to one HTML file")
    parser = Parser(
        prog="query_examples.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common, drawn],
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="{report,latest,at,range,vwap,candles}", title="commands")
    commands.add_parser("report", parents=[common, drawn], allow_abbrev=False, help="all answers (the default)")
    commands.add_parser("latest", parents=[common], allow_abbrev=False, help="the latest price")
    at = commands.add_parser("at", parents=[common], allow_abbrev=False, help="the price at a second or an instant")
    words = "UTC, such as 2025-11-20T10:15:09 for the whole second, or 2025-11-20T10:15:09.500 for that instant"
    at.add_argument("moment", metavar="TIME", type=parse_moment, help=words)
    helps = {
        "range": "the low and the high price in a time range",
        "vwap": "the volume and the average price of a range",
    }
    spans = {
        name: commands.add_parser(
            name, parents=[common, drawn] if name == "range" else [common], allow_abbrev=False, help=words
        )
        for name, words in helps.items()
    }
    for span in spans.values():
        span.add_argument("start", metavar="START", type=parse_time, nargs="?", help="start of the range (inclusive)")
        span.add_argument("end", metavar="END", type=parse_time, nargs="?", help="end of the range (exclusive)")
        span.add_argument(
            "--last", metavar="DURATION", type=parse_duration, help="up to the newest trade: 30s, 5m, 2h, 1d"
        )
    bars = commands.add_parser("candles", parents=[common], allow_abbrev=False, help="the last candles, with volume")
    bars.add_argument("resolution", metavar="RESOLUTION", choices=RESOLUTIONS, help=", ".join(RESOLUTIONS))
    bars.add_argument("--count", metavar="N", type=whole(1, CANDLES_MAX), default=20, help="how many (default 20)")
    options = parser.parse_args(
        argv, argparse.Namespace(symbol=[], json=False, sql=True, demo=False, plot=None, html=None)
    )
    if options.json and not options.sql:
        parser.error("--no-sql does nothing with --json, whose documents have the SQL in keys of their own")
    if options.command not in (None, "report", "range") and (options.plot or options.html):
        parser.error(f"{options.command} has nothing to draw; --plot and --html go with range or report")
    if options.command in spans:
        _require_range(spans[options.command], options)
    return parser, options


def _common() -> Parser:
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    common.add_argument("--symbol", action="append", help="only this symbol; repeat it, or use commas")
    common.add_argument("--json", action="store_true", help="one JSON document instead of text; prices are strings")
    common.add_argument("--no-sql", action="store_false", dest="sql", help="the answers without the SQL")
    common.add_argument("--demo", action="store_true", help="read the demo's database, even if there is a real one")
    return common


def _require_range(parser: Parser, options: argparse.Namespace) -> None:
    given = [time for time in (options.start, options.end) if time is not None]
    if len(given) != (2 if options.last is None else 0):
        parser.error("give either START and END, or --last DURATION such as --last 5m")
    if options.last is None and options.start >= options.end:
        start, end = iso(options.start), iso(options.end)
        parser.error(f"the range from {start} to {end} is empty: START must be before END")


def parse_png(text: str) -> Path:
    """The path of a picture. Raises ArgumentTypeError for any other ending, which would be misleading."""
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png, the only format")
    return Path(text)


def parse_time(text: str) -> datetime:
    """The UTC time of an ISO 8601 text; without an offset it is taken as UTC. Raises ArgumentTypeError."""
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


def parse_moment(text: str) -> Moment:
    """The time of `text`, as parse_time(), and whether it has a fraction of a second. Raises ArgumentTypeError."""
    return Moment(parse_time(text), bool(re.search(r"[0-9][.,][0-9]", text)))


def parse_duration(text: str) -> timedelta:
    """The duration of a text such as 90s, 5m, 2h or 1d. Raises ArgumentTypeError."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write a whole number and s, m, h or d, like 5m")
    duration = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if duration > timedelta(days=LAST_DAYS_MAX):
        raise argparse.ArgumentTypeError(f"{text!r} is too long; give at most {LAST_DAYS_MAX}d")
    return duration
