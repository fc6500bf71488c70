"""The stand-in exchange: Binance's streams and REST calls on this machine, from a seeded or a recorded tape.

It knows the truth, so a capture can be compared with what was really traded. Its own controls are under /_…
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TextIO

from process import child, command
from process.command import PORT_MAX, Parser, duration_s, number, whole
from tools.exchange import tape
from tools.exchange.history import Cache, Market, Past
from tools.exchange.memory import Memory, StateError, Wanted
from tools.exchange.pace import Item, Pace
from tools.exchange.rest import RestRules
from tools.exchange.server import Exchange, Setup
from tools.exchange.streams import Rules
from tools.exchange.wishes import FaultError, parse_flag

VIRTUAL_START_US = 1_735_689_600_000_000
"""Where the virtual clock starts: 2025-01-01 00:00 UTC."""

START_ID = 4_000_000_001

SYMBOLS_MAX = 1024
DAYS_MAX = 4000
DAY_TRADES_MAX = 10_000_000
_RATE_MAX = 1_000_000.0
_SECONDS = number(0, 1_000_000.0, above=True)


class UsageError(Exception):
    """An operator's mistake; the message names the flag and the way out."""


def _parser() -> Parser:
    parser = Parser(prog="python -m tools.exchange", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=whole(0, PORT_MAX), default=8765, help="0: any free port (default %(default)s)")
    parser.add_argument(
        "--truth", type=Path, metavar="FILE", help="write each emitted trade to FILE, one JSON object per line"
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help="exit when the parent process exits")
    parser.add_argument("--after-end", choices=("stay", "exit"), default="stay", help="what to do when the tape ends")
    _add_tape_flags(parser.add_argument_group("the tape"))
    _add_history_flags(parser.add_argument_group("the deep history, the archive"))
    _add_rule_flags(parser.add_argument_group("the exchange's limits"))
    return parser


def _add_tape_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--symbols", default="BTCUSDT,ETHUSDT", help="comma-separated (default %(default)s)")
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
        help="full: as fast as clients read; N: N times faster",
    )
    add("--wait-clients", type=whole(0), metavar="N", help="start when N clients listen (default 0; 1 with --replay)")


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


def _symbols(text: str) -> list[str]:
    names = list(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
    if not 1 <= len(names) <= SYMBOLS_MAX or not all(name.isalnum() for name in names):
        raise UsageError(f"--symbols={text!r}: give 1 to {SYMBOLS_MAX} symbols, such as BTCUSDT,ETHUSDT")
    return names


def _start_ids(text: str, symbols: list[str]) -> list[int]:
    """The first streamed id of each of `symbols`. Raises UsageError."""
    given = dict(part.partition("=")[::2] for part in text.split(",")) if "=" in text else dict.fromkeys(symbols, text)
    ids = [given.get(symbol, str(START_ID)) for symbol in symbols]
    if not set(given) <= set(symbols) or not all(one.isascii() and one.isdigit() and int(one) > 0 for one in ids):
        raise UsageError(f"--start-id={text!r}: give an id of 1 or more, or SYMBOL=ID,… for symbols in --symbols")
    return [int(one) for one in ids]


def _listed_us(text: str, symbols: list[str]) -> dict[str, int]:
    """When each of the named symbols was listed. Raises UsageError."""
    found: dict[str, int] = {}
    for symbol, _, time_text in (part.partition("=") for part in text.split(",") if part):
        try:
            moment = datetime.fromisoformat(time_text)
        except ValueError:
            moment = None
        if symbol not in symbols or moment is None:
            raise UsageError(f"--listed={text!r}: give SYMBOL=2026-11-26T13:00,… for symbols in --symbols")
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        found[symbol] = int(moment.timestamp()) * 1_000_000
    return found


def _factor(text: str) -> float | None:
    """How much faster than recorded; None: as fast as possible. Raises UsageError."""
    if text in ("recorded", "full"):
        return 1.0 if text == "recorded" else None
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise UsageError(f"--speed={text!r}: give recorded, full or a number above 0")


class Source(NamedTuple):
    """Where the trades come from, streamed ones and older ones."""

    items: Iterator[Item]
    history: list[tape.Trade]
    virtual_us: int | None
    pasts: dict[str, Past]
    memory: Memory | None = None


def _source(args: argparse.Namespace, symbols: list[str]) -> Source:
    virtual_us = VIRTUAL_START_US if args.clock == "virtual" else None
    if not args.days and (args.state or args.listed):
        raise UsageError("--state and --listed need a deep history; give --days too")
    if args.replay is not None:
        if args.days:
            raise UsageError("--days: a recorded tape has no deep history; leave out --replay")
        if not args.replay.is_file():
            raise UsageError(f"--replay={args.replay}: no such file")
        return Source(tape.replay(args.replay), [], virtual_us, {})
    specs, ids = [tape.spec_of(name) for name in symbols], _start_ids(args.start_id, symbols)
    if args.days:
        return _deep(args, specs, ids, virtual_us)
    market = tape.Synthetic(specs, args.seed, args.rate, ids)
    history = market.history(args.history, virtual_us or time.time_ns() // 1000)
    return Source(market.orders(), history, virtual_us, {})


def _deep(args: argparse.Namespace, specs: list[tape.Spec], ids: list[int], virtual_us: int | None) -> Source:
    """A tape with a deep history. Raises UsageError and StateError."""
    listed_us = _listed_us(args.listed, [spec.symbol for spec in specs])
    wanted = Wanted(time.time_ns() // 1000, virtual_us, args.days, listed_us)
    memory, cache, pasts = Memory(args.state, args.seed, args.day_trades, wanted), Cache(), {}
    for index, spec in enumerate(specs):
        begun = memory.begin(Market(spec, args.seed, args.day_trades), ids[index])
        ids[index] = begun.first_id
        if begun.stretches:
            pasts[spec.symbol] = Past(spec.symbol, begun.stretches, cache)
    memory.keep_anchor()
    orders = tape.Synthetic(specs, args.seed, args.rate, ids).orders()
    return Source(orders, [], memory.start_us if virtual_us else None, pasts, memory)


def setup_of(args: argparse.Namespace) -> Setup:
    """The exchange that the command line describes. Raises UsageError, StateError and tape.ReplayError."""
    symbols = _symbols(args.symbols)
    source = _source(args, symbols)
    wait = args.wait_clients if args.wait_clients is not None else int(args.replay is not None)
    return Setup(
        host=args.host,
        port=args.port,
        items=source.items,
        history=source.history,
        symbols=symbols,
        pace=Pace(_factor(args.speed), source.virtual_us, wait, args.trades, args.duration),
        rules=Rules(
            ping_interval_s=args.ping_interval,
            pong_timeout_s=args.pong_timeout,
            max_age_s=args.max_age,
            connects_max=args.connect_limit,
            client_buffer_bytes=args.client_buffer,
            nested_errors=args.nested_errors,
        ),
        rest=RestRules(args.rest_lag, args.weight_limit, args.rest_oldest_id),
        seed=args.seed,
        exit_at_end=args.after_end == "exit",
        until_stdin_closes=args.until_stdin_closes,
        faults=[parse_flag(text) for text in args.fault],
        pasts=source.pasts,
        memory=source.memory,
        archive_lag_s=args.archive_lag,
    )


async def _run(setup: Setup, truth_file: TextIO | None) -> list[dict[str, object]]:
    """Runs the exchange until a signal, or until the tape ends if so asked. Returns the summaries of the truth."""
    exchange = Exchange(setup, truth_file)
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop_soon(_number: int, _frame: object) -> None:
        # A handler of the event loop would end with it, and a late signal would kill the process before its summary.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stopped.set)

    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, stop_soon)
    if setup.until_stdin_closes:
        child.when_stdin_closes(lambda: stop_soon(0, None))
    await exchange.start()
    print(f"listening {exchange.addresses}", flush=True)
    stop, end = asyncio.create_task(stopped.wait()), asyncio.create_task(exchange.ended())
    try:
        await asyncio.wait({stop, end}, return_when=asyncio.FIRST_COMPLETED)
        if end.done():
            end.result()
            print(f"the tape has ended: {exchange.emission.emitted} trades", flush=True)
            if not setup.exit_at_end:
                await stopped.wait()
    finally:
        stop.cancel()
        end.cancel()
        await exchange.stop()
    return exchange.truth.summaries()


def _print_summary(summaries: list[dict[str, object]]) -> None:
    for summary in summaries:
        print(f"truth {json.dumps(summary)}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Serves until it is stopped. Returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    return command.run(parser, lambda: _main(args), (UsageError, FaultError, StateError, tape.ReplayError, OSError))


def _main(args: argparse.Namespace) -> int:
    setup = setup_of(args)
    with args.truth.open("w", encoding="utf-8") if args.truth else contextlib.nullcontext() as truth_file:
        _print_summary(asyncio.run(_run(setup, truth_file)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
