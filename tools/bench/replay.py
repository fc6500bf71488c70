"""How exactly, and how fast, stored trades are served again on Binance's protocol: `tools.exchange --replay-table`.

One client reads the frames and stamps them. How late a trade came is its arrival behind the first, less its distance
to the first on the tape; the trade that came earliest counts as in time. At the speed `max` only the rate counts.
"""

import random
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import msgspec
import websocket

import db
from model.trade import Trade
from tools.bench.figures import Figure
from tools.bench.latency import percentile
from tools.bench.stage import Bench, say
from tools.lab.children import Exchange, RigError

PART = "replay"
SYMBOL = "BTCUSDT"
RATE = 170
"""Trades per second on the tape, as of a lively day."""
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
STORED_AT_ONCE = 10_000
SEED = 1
WAIT_S_MAX = 30.0


class Sizes(NamedTuple):
    """Seconds of a run, the speeds, and the trades of the run as fast as possible."""

    run_s: float
    speeds: tuple[int, ...]
    trades: int


FULL, QUICK = Sizes(15.0, (1, 10, 50, 100), 400_000), Sizes(0.5, (1, 100), 2_000)


class _Data(msgspec.Struct):
    T: int
    t: int


class _Frame(msgspec.Struct):
    data: _Data


def run(bench: Bench) -> list[Figure]:
    """The lateness at each speed in milliseconds, the rate at full speed, and the memory of the process."""
    sizes = QUICK if bench.quick else FULL
    figures = []
    with bench.database("bench_replay") as settings:
        trades = max(sizes.trades, int(sizes.run_s * max(sizes.speeds) * RATE))
        with closing(db.connect(settings)) as connection:
            stored = _store(connection, trades)
        for speed in sizes.speeds:
            late_ms, _ = _read(bench, str(speed), stored[: int(sizes.run_s * speed * RATE)])
            name = f"speed {speed} ({speed * RATE:,} trades/s)"
            say(f"{PART}: {name}: late p50 {percentile(late_ms, 50):.1f} ms, p99 {percentile(late_ms, 99):.1f} ms")
            for percent, words in ((50, "p50"), (99, "p99"), (100, "worst")):
                figures.append(Figure(PART, f"{name}: late, {words}", "ms", [percentile(late_ms, percent)]))
        _, rate = _read(bench, "max", stored[: sizes.trades])
        figures.append(Figure(PART, "speed max", "trades/s", [rate]))
    return figures


def _store(connection: db.Connection, count: int) -> list[datetime]:
    """Stores so many trades, whose distances are random as a market's; their times."""
    chance, when, times, waiting = random.Random(SEED), BEGIN, list[datetime](), list[Trade]()
    price, quantity = Decimal("64250.12000000"), Decimal("0.00150000")
    for trade_id in range(1, count + 1):
        when += timedelta(milliseconds=int(chance.expovariate(RATE / 1_000)))
        times.append(when)
        waiting.append(Trade(SYMBOL, when, trade_id, price, quantity, chance.random() < 0.5))
        if len(waiting) == STORED_AT_ONCE or trade_id == count:
            db.insert_trades(connection, waiting)
            waiting = []
    return times


def _read(bench: Bench, speed: str, times: list[datetime]) -> tuple[list[float], float]:
    """How late each of the first trades came, in milliseconds, and how many came a second. Raises RigError."""
    end = (times[-1] + timedelta(milliseconds=1)).isoformat()
    flags = ("--replay-table", "--symbols", SYMBOL, "--speed", speed, "--end", end, "--after-end", "stay")
    folder = bench.folder / "bench_replay" / speed
    folder.mkdir(parents=True)
    with Exchange(folder, *flags, environ=bench.environ("bench_replay")) as exchange:
        stream = websocket.create_connection(f"{exchange.ws}/stream?streams={SYMBOL.lower()}@trade", WAIT_S_MAX)
        arrived, stamps = list[int](), list[int]()
        decoder = msgspec.json.Decoder(_Frame)
        # Of one millisecond all are read: the last of them may not be the last that was stored.
        last = sum(when <= times[-1] for when in times)
        while len(arrived) < last:
            frame = decoder.decode(stream.recv())
            arrived.append(time.monotonic_ns())
            stamps.append(frame.data.T)
            if frame.data.t != len(arrived):
                raise RigError(f"trade {frame.data.t} came as number {len(arrived)}")
        stream.close()
    factor = 1.0 if speed == "max" else float(speed)
    distances = [
        (at - arrived[0]) / 1e6 - (stamp - stamps[0]) / factor for at, stamp in zip(arrived, stamps, strict=True)
    ]
    least = min(distances)
    return [one - least for one in distances], len(arrived) / ((arrived[-1] - arrived[0]) / 1e9)
