"""The flags of `python -m tools.exchange`."""

import argparse
from pathlib import Path

from process.command import PORT_MAX, Parser, duration_s, number, whole
from report.options import parse_time
from tools.exchange.rest import RestRules
from tools.exchange.streams import Rules

SYMBOLS = "BTCUSDT,ETHUSDT"
START_ID = 4_000_000_001
DAYS_MAX = 4000
DAY_TRADES_MAX = 10_000_000
_RATE_MAX = 1_000_000.0
_SECONDS = number(0, 1_000_000.0, above=True)
_WHAT = "The stand-in exchange: Binance's streams and REST calls on this machine, from a seeded or a recorded tape."


def parser_of() -> Parser:
    """The parser of all flags."""
    parser = Parser(prog="python -m tools.exchange", description=_WHAT)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=whole(0, PORT_MAX), default=8765, help="0: any free port (default %(default)s)")
    parser.add_argument(
        "--truth", type=Path, metavar="FILE", help="write each emitted trade to FILE, one JSON object per line"
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help="exit when the parent process exits")
    parser.add_argument(
        "--after-end",
        choices=("stay", "exit"),
        help="what to do when the tape ends (default stay; exit with --replay-table)",
    )
    _add_tape_flags(parser.add_argument_group("the tape"))
    _add_table_flags(parser.add_argument_group("a replay from the database, which has its own --symbols and --speed"))
    _add_history_flags(parser.add_argument_group("the deep history, the archive"))
    _add_rule_flags(parser.add_argument_group("the exchange's limits"))
    return parser


def _add_tape_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--symbols", help=f"comma-separated (default {SYMBOLS}; with --replay-table all that are stored)")
    add("--seed", type=whole(0), default=1, help="the same seed gives the same trades (default %(default)s)")
    add(
        "--rate",
        type=number(0, _RATE_MAX, above=True),
        default=50.0,
        help="trades per second over all symbols (default %(default)s)",
    )
    add(
        "--start-id",
        default=str(START_ID),
        metavar="ID|SYMBOL=ID,…",
        help="first streamed id of all symbols, or of those named (default %(default)s)",
    )
    add("--history", type=whole(0), default=5000, help="older trades per symbol, for REST (default %(default)s)")
    add("--trades", type=whole(0), default=0, help="end the tape after this many trades (default: never)")
    add(
        "--duration",
        type=duration_s,
        default=0.0,
        metavar="TIME",
        help="end the tape after 90 (s) or 5m (default: never)",
    )
    add("--clock", choices=("wall", "virtual"), default="wall", help="virtual: times depend only on seed and rate")
    add("--replay", type=Path, metavar="FILE", help="recorded frames (.ndjson or .ndjson.gz) instead of synthetic ones")
    add(
        "--speed",
        default="recorded",
        metavar="recorded|full|N",
        help="full or max: as fast as clients read; N: N times faster",
    )
    add("--wait-clients", type=whole(0), metavar="N", help="start when N clients listen (default 0; 1 with a replay)")


def _add_table_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--replay-table", action="store_true", help="the stored trades, at the distances at which they happened")
    add("--start", type=parse_time, metavar="TIME", help="the first moment, UTC (default: that of the first trade)")
    add("--end", type=parse_time, metavar="TIME", help="the first moment after it (default: after the last trade)")
    add("--demo", action="store_true", help="read the demo's database")


def _add_history_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--days",
        type=whole(0, DAYS_MAX),
        default=0,
        metavar="N",
        help="whole UTC days of history before today, instead of --history (default 0: none)",
    )
    add(
        "--day-trades",
        type=whole(0, DAY_TRADES_MAX),
        default=20_000,
        metavar="N",
        help="trades of a symbol in a day of that history (default %(default)s)",
    )
    add(
        "--listed",
        default="",
        metavar="SYMBOL=TIME,…",
        help="the history of SYMBOL begins then, such as 2026-11-26T13:00 (UTC)",
    )
    add("--state", type=Path, metavar="DIR", help="remember emitted trades in DIR, and continue the earlier run")
    add(
        "--archive-lag",
        type=number(0),
        default=0.0,
        metavar="S",
        help="how long after the end of its day a file of the archive appears (default %(default)s)",
    )


def _add_rule_flags(group: argparse._ArgumentGroup) -> None:
    add, rules, rest = group.add_argument, Rules(), RestRules()
    add(
        "--ping-interval",
        type=_SECONDS,
        default=rules.ping_interval_s,
        metavar="S",
        help="between pings (default %(default)s)",
    )
    add(
        "--pong-timeout",
        type=_SECONDS,
        default=rules.pong_timeout_s,
        metavar="S",
        help="close a connection that answers no ping for S seconds (default %(default)s)",
    )
    add(
        "--max-age",
        type=_SECONDS,
        default=rules.max_age_s,
        metavar="S",
        help="lifetime of a connection (default %(default)s)",
    )
    add(
        "--connect-limit",
        type=whole(0),
        default=rules.connects_max,
        help="connection attempts in 5 minutes, 0: no limit (default %(default)s)",
    )
    add(
        "--client-buffer",
        type=whole(1),
        default=rules.client_buffer_bytes,
        metavar="BYTES",
        help="disconnect a client that leaves more unread (default %(default)s)",
    )
    add("--nested-errors", action="store_true", help="errors of commands as observed, not as documented")
    add("--fault", action="append", default=[], metavar="NAME[=ARG]", help="switch on a fault; GET /_faults lists them")
    add(
        "--rest-lag",
        type=number(0),
        default=rest.lag_s,
        metavar="S",
        help="how far REST is behind the stream (default %(default)s)",
    )
    add(
        "--rest-oldest-id",
        type=whole(0),
        default=0,
        metavar="ID",
        help="REST silently omits older ids (default: has all)",
    )
    add("--weight-limit", type=whole(0), default=rest.weight_limit, help="REST weight per minute (default %(default)s)")
