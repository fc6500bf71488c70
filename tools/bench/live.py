"""Questions about the time up to now, while 1,000 trades per second arrive: low and high, volume, the open candle.

The newest time is in no sealed minute yet, so its trades have to be read. Before the questions so many trades are
stored at full speed that the hour has sealed minutes; while they are asked, one after the other, a minute ends.
"""

import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import NamedTuple

import db
from model import candles as bars
from model.times import MILLISECOND
from storage import questions
from tools.bench.feed import SYMBOLS
from tools.bench.figures import Figure, at_most
from tools.bench.latency import percentile
from tools.bench.stage import Bench, Watcher, say, stage

PART = "live"
RATE = 1_000.0
PAUSE_S = 0.005
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


class Sizes(NamedTuple):
    """The trades that are stored before, the seconds of a run, and the number of runs that count."""

    before: int
    run_s: float
    runs: int


FULL, QUICK = Sizes(70_000, 30.0, 2), Sizes(1_000, 0.5, 1)


def run(bench: Bench) -> list[Figure]:
    """The median and the 99th percentile of each question in each run, in milliseconds."""
    sizes = QUICK if bench.quick else FULL
    taken: dict[str, list[list[float]]] = {name: [] for name in _QUESTIONS}
    with stage(bench, "bench_live", connections=2, market_rate=RATE) as on:
        watcher = Watcher(bench.server, on.name, SYMBOLS[0])
        last = on.feed.order("prepare", trades=sizes.before)
        on.feed.order("send", to=on.name)
        Watcher(bench.server, on.name, last["symbol"]).wait_for(last["last_id"], on.capture.process)
        with closing(db.connect(bench.settings(on.name), read_only=True)) as connection:
            for _ in range(sizes.runs):
                on.feed.order("prepare", trades=int(RATE * sizes.run_s))
                on.feed.tell({"do": "pace", "to": on.name, "rate": RATE, "symbol": SYMBOLS[0]})
                _ask(connection, taken, time.monotonic() + sizes.run_s)
                watcher.wait_for(on.feed.answer()["ids"][-1], on.capture.process)
                worst = {name: percentile(times[-1], 99) for name, times in taken.items()}
                say(f"{PART}: p99 " + ", ".join(f"{name} {value:.1f} ms" for name, value in worst.items()))
        watcher.close()
    figures = []
    for name, runs in taken.items():
        figures.append(Figure(PART, f"{name}, p50", "ms", [percentile(one, 50) for one in runs]))
        figures.append(Figure(PART, f"{name}, p99", "ms", [percentile(one, 99) for one in runs], at_most(15, 5)))
    return figures


def _ask(connection: db.Connection, taken: dict[str, list[list[float]]], end_s: float) -> None:
    """Asks in turns until `end_s`; the times of a new run are appended."""
    for times in taken.values():
        times.append([])
    while time.monotonic() < end_s:
        for name, ask in _QUESTIONS.items():
            begun_ns = time.perf_counter_ns()
            ask(connection)
            taken[name][-1].append((time.perf_counter_ns() - begun_ns) / 1e6)
        time.sleep(PAUSE_S)


def _newest(connection: db.Connection) -> db.Trade:
    found = db.latest(connection, SYMBOLS[0])
    assert found is not None
    return found


def _low_and_high(connection: db.Connection) -> object:
    end = _newest(connection).timestamp + MILLISECOND
    return questions.low_and_high(connection, SYMBOLS[0], end - HOUR, end)


def _volume(connection: db.Connection) -> object:
    end = _newest(connection).timestamp + MILLISECOND
    return questions.volume(connection, SYMBOLS[0], end - HOUR, end)


def _open_candle(connection: db.Connection) -> object:
    begin = bars.floor(_newest(connection).timestamp, bars.MINUTE)
    return questions.candles(connection, SYMBOLS[0], bars.MINUTE, begin, begin + MINUTE)


_QUESTIONS: dict[str, Callable[[db.Connection], object]] = {
    "min_max up to now": _low_and_high,
    "VWAP up to now": _volume,
    "open candle": _open_candle,
}
