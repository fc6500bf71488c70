"""From the send to another connection's SELECT, at 1,000 trades per second over two standby connections.

The feeder notes the time before it sends each frame. Another connection asks for the newest trade of the busier symbol
over and over without a pause; a trade is visible at the end of the first query that returns its id or a later one. So a
latency is never too small, and too large by at most two queries, whose time is a figure of its own.

After each run the disk is measured alone: how long the same trades would wait for a store that only writes and syncs
one block for all trades that have arrived. No commit that survives a loss of power can be faster.
"""

import os
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tools.bench.feed import SYMBOLS
from tools.bench.figures import Figure, at_most
from tools.bench.stage import Bench, Look, Stage, Watcher, say, stage
from tools.lab.children import RigError

PART = "latency"
RATE = 1_000.0
LATE_S_MAX = 30.0
"""How long the database may take after the last trade was sent."""
BLOCK_BYTES = 4_096
BLOCKS = 256


class Sizes(NamedTuple):
    """The seconds of the warm-up and of a run, and the number of runs that count."""

    warm_up_s: float
    run_s: float
    runs: int


FULL, QUICK = Sizes(2.0, 8.0, 3), Sizes(0.2, 0.5, 1)


def run(bench: Bench) -> list[Figure]:
    """The median and the 99th percentile of each run, in milliseconds."""
    sizes = QUICK if bench.quick else FULL
    runs: list[list[float]] = []
    questions: list[list[float]] = []
    disk: list[list[float]] = []
    with stage(bench, "bench_latency", connections=2) as on:
        watcher = Watcher(bench.server, on.name, SYMBOLS[0])
        for index in range(sizes.runs + 1):
            seconds = sizes.run_s if index else sizes.warm_up_s
            on.feed.order("prepare", trades=int(RATE * seconds))
            looks, sent = _watched(on, watcher, seconds)
            runs.append(latencies_ms(looks, sent["ids"], sent["sent_ns"]))
            questions.append([(after.ns - before.ns) / 1e6 for before, after in pairwise(looks)])
            disk.append(disk_ms(bench.folder / "disk", RATE, seconds / 3))
            say(f"{PART}: {'warm-up' if not index else f'run {index}'}: p50 {percentile(runs[-1], 50):.2f} ms")
        watcher.close()
    return [
        Figure(PART, "send to visible, p50", "ms", [percentile(one, 50) for one in runs[1:]], at_most(2, 1)),
        Figure(PART, "send to visible, p99", "ms", [percentile(one, 99) for one in runs[1:]], at_most(10, 5)),
        Figure(PART, "send to visible, worst", "ms", [max(one) for one in runs[1:]]),
        Figure(PART, "the disk alone, p50", "ms", [percentile(one, 50) for one in disk[1:]]),
        Figure(PART, "the disk alone, p99", "ms", [percentile(one, 99) for one in disk[1:]]),
        Figure(PART, "the disk alone, worst", "ms", [max(one) for one in disk[1:]]),
        Figure(PART, "resolution: one question, p50", "ms", [percentile(one, 50) for one in questions[1:]]),
        Figure(PART, "resolution: one question, p99", "ms", [percentile(one, 99) for one in questions[1:]]),
    ]


def _watched(on: Stage, watcher: Watcher, seconds: float) -> tuple[list[Look], dict[str, list[int]]]:
    """The looks from before the first trade was sent until the last was seen, and the ids with their send times."""
    looks = [watcher.look()]
    on.feed.tell({"do": "pace", "to": on.name, "rate": RATE, "symbol": SYMBOLS[0]})
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        looks.append(watcher.look())
    sent: dict[str, list[int]] = on.feed.answer()
    while looks[-1].newest < sent["ids"][-1]:
        if time.monotonic() > end + LATE_S_MAX:
            raise RigError(f"trade {sent['ids'][-1]} did not become visible within {LATE_S_MAX:.0f} s")
        looks.append(watcher.look())
    return looks, sent


def latencies_ms(looks: list[Look], ids: list[int], sent_ns: list[int]) -> list[float]:
    """For each trade, the time from its send to the end of the first look that saw it; `ids` and looks both rise."""
    found, index = [], 0
    for trade_id, at_ns in zip(ids, sent_ns, strict=True):
        while looks[index].newest < trade_id:
            index += 1
        found.append((looks[index].ns - at_ns) / 1e6)
    return found


def disk_ms(path: Path, rate: float, seconds: float) -> list[float]:
    """How long each of `rate` arrivals per second waits until a block written after it is on disk."""
    sync = getattr(os, "fdatasync", os.fsync)
    block = os.urandom(BLOCK_BYTES)
    step_ns, count = round(1e9 / rate), int(rate * seconds)
    waited: list[float] = []
    with path.open("wb", buffering=0) as file:
        # Overwriting changes no metadata, as in a database's log of a fixed size.
        file.write(block * BLOCKS)
        os.fsync(file.fileno())
        begun_ns = time.monotonic_ns()
        while len(waited) < count:
            due_ns = begun_ns + len(waited) * step_ns
            time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
            arrived = min(count, (time.monotonic_ns() - begun_ns) // step_ns + 1)
            file.seek(arrived % BLOCKS * BLOCK_BYTES)
            file.write(block)
            sync(file.fileno())
            done_ns = time.monotonic_ns()
            waited += [(done_ns - begun_ns - n * step_ns) / 1e6 for n in range(len(waited), arrived)]
    path.unlink()
    return waited


def percentile(values: list[float], percent: int) -> float:
    """The percentile by nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]
