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
from typing import NamedTuple, TextIO

import config
import db
from process import child, command
from tools.exchange import tape
from tools.exchange.flags import START_ID, SYMBOLS, parser_of
from tools.exchange.history import Cache, Market, Past
from tools.exchange.memory import Memory, StateError, Wanted
from tools.exchange.pace import Emission, Item, Pace
from tools.exchange.rest import RestRules
from tools.exchange.server import Exchange, Setup
from tools.exchange.stored import Stored, StoredError, find
from tools.exchange.streams import Rules
from tools.exchange.wishes import FaultError, parse_flag

VIRTUAL_START_US = 1_735_689_600_000_000
"""Where the virtual clock starts: 2025-01-01 00:00 UTC."""


SYMBOLS_MAX = 10_000


class UsageError(Exception):
    """An operator's mistake; the message names the flag and the way out."""


def _symbols(text: str | None) -> list[str]:
    text = SYMBOLS if text is None else text
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
    if text in ("recorded", "full", "max"):
        return 1.0 if text == "recorded" else None
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise UsageError(f"--speed={text!r}: give recorded, full, max or a number above 0")


class Source(NamedTuple):
    """Where the trades come from, streamed ones and older ones."""

    items: Iterator[Item]
    history: list[tape.Trade]
    virtual_us: int | None
    pasts: dict[str, Past]
    memory: Memory | None = None
    stored: Stored | None = None


_OF_OTHER_TAPES = (
    "replay",
    "seed",
    "rate",
    "start_id",
    "history",
    "clock",
    "days",
    "listed",
    "state",
    "archive_lag",
    "rest_lag",
)


def _stored(args: argparse.Namespace) -> Source:
    """The trades of the database. Raises UsageError, StoredError, ConfigError and db.DatabaseError."""
    parser = parser_of()
    if given := [name for name in _OF_OTHER_TAPES if getattr(args, name) != parser.get_default(name)]:
        raise UsageError(
            f"--{given[0].replace('_', '-')} is not for --replay-table, whose tape is stored; leave it out"
        )
    symbols = None if args.symbols is None else config.parse_symbols("--symbols", args.symbols)
    settings = config.load()
    stored = find(config.demo_of(settings) if args.demo else settings, symbols, args.start, args.end)
    return Source(iter(()), [], None, {}, stored=stored)


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
    factor = _factor(args.speed)
    if not args.replay_table and (args.start or args.end or args.demo):
        raise UsageError("--start, --end and --demo are of --replay-table; give that too")
    source = _stored(args) if args.replay_table else _source(args, _symbols(args.symbols))
    symbols = list(source.stored.symbols) if source.stored else _symbols(args.symbols)
    is_replay = args.replay_table or args.replay is not None
    wait = args.wait_clients if args.wait_clients is not None else int(is_replay)
    return Setup(
        host=args.host,
        port=args.port,
        items=source.items,
        history=source.history,
        symbols=symbols,
        pace=Pace(factor, source.virtual_us, wait, args.trades, args.duration),
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
        exit_at_end=args.after_end == "exit" or (args.replay_table and args.after_end is None),
        until_stdin_closes=args.until_stdin_closes,
        faults=[parse_flag(text) for text in args.fault],
        pasts=source.pasts,
        memory=source.memory,
        archive_lag_s=args.archive_lag,
        stored=source.stored,
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
            print(_ended(exchange.emission), flush=True)
            if setup.exit_at_end:
                goodbye = asyncio.create_task(exchange.say_goodbye())
                await asyncio.wait({stop, goodbye}, return_when=asyncio.FIRST_COMPLETED)
            else:
                await stopped.wait()
    finally:
        stop.cancel()
        end.cancel()
        await exchange.stop()
    return exchange.truth.summaries()


def _ended(emission: Emission) -> str:
    late = f", {emission.behind_s:.1f} s behind the speed that was asked for" if emission.behind_s else ""
    return f"the tape has ended: {emission.emitted} trades{late}"


def _print_summary(summaries: list[dict[str, object]]) -> None:
    for summary in summaries:
        print(f"truth {json.dumps(summary)}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Serves until it is stopped. Returns the exit code."""
    parser = parser_of()
    args = parser.parse_args(argv)
    return command.run(parser, lambda: _main(args), _MISTAKES)


_MISTAKES = (
    *(UsageError, FaultError, StateError, StoredError, tape.ReplayError),
    *(config.ConfigError, db.DatabaseError, OSError),
)


def _main(args: argparse.Namespace) -> int:
    setup = setup_of(args)
    with args.truth.open("w", encoding="utf-8") if args.truth else contextlib.nullcontext() as truth_file:
        _print_summary(asyncio.run(_run(setup, truth_file)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
