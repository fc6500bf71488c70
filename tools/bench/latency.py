"""From the send to another connection's SELECT, at 1,000 trades per second, beside the plain design on the same frames.

The feeder notes the time before it sends each frame. Another connection asks for the newest trade of the busier symbol
over and over without a pause; a trade is visible at the end of the first query that returns its id or a later one. So a
latency is never too small, and too large by at most two queries, whose time is a figure of its own. The capture reads
over two standby connections, as it does by default; the plain design, one INSERT and commit a message, over one.

What the server spends on a trade is measured in runs of their own, in which nobody asks: its time of all threads, from
/proc, so that part needs Linux.

After each run the disk is measured alone: how long the same trades would wait for a store that only writes and syncs
one block for all trades that have arrived. No commit that survives a loss of power can be faster.
"""

import os
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from mysqld import program
from tools.bench.feed import SYMBOLS
from tools.bench.figures import Bound, Figure, at_most
from tools.bench.memory import cpu_s
from tools.bench.peers import PLAIN_TABLE
from tools.bench.stage import Bench, Child, Look, Stage, Watcher, say, stage
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
RATIO_MUST = {"mariadb": 1.1, "mysql": 1.15}


class Run(NamedTuple):
    """What was measured of one design: the latencies of its trades and the times of the questions, in milliseconds."""

    latencies: list[float]
    questions: list[float]


def run(bench: Bench) -> list[Figure]:
    """The median and the 99th percentile of each run, in milliseconds, and the server's time for a trade."""
    sizes = QUICK if bench.quick else FULL
    seconds = [sizes.warm_up_s, *[sizes.run_s] * sizes.runs]
    counts = [int(RATE * one) for one in seconds]
    ours: list[Run] = []
    plain: list[Run] = []
    disk: list[list[float]] = []
    with stage(bench, "bench_latency", connections=2) as on, ExitStack() as stack:
        with bench.server.connect_to(on.name) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {PLAIN_TABLE} LIKE trades")
        peer = stack.enter_context(plain_peer(on, [*counts, *counts]))
        watchers = [Watcher(bench.server, on.name, SYMBOLS[0], table=table) for table in ("trades", PLAIN_TABLE)]
        for index, count in enumerate(counts):
            on.feed.order("prepare", trades=count)
            ours.append(watched(on, on.name, watchers[0], seconds[index]))
            plain.append(watched(on, "plain", watchers[1], seconds[index]))
            peer.answer()
            disk.append(disk_ms(bench.folder / "disk", RATE, seconds[index] / 3))
            p50 = [percentile(one[-1].latencies, 50) for one in (ours, plain)]
            name = f"run {index}" if index else "warm-up"
            say(f"{PART}: {name}: p50 {p50[0]:.2f} ms, plain {p50[1]:.2f} ms")
        spent = [_spent(on, watchers, peer, count) for count in counts]
        for watcher in watchers:
            watcher.close()

    def figure(name: str, runs: list[list[float]], percent: int, bound: Bound | None = None) -> Figure:
        return Figure(PART, name, "ms", [percentile(one, percent) for one in runs[1:]], bound)

    latencies, questions = [one.latencies for one in ours], [one.questions for one in ours]
    plain_ms = [one.latencies for one in plain]
    ratios = [percentile(a, 50) / percentile(b, 50) for a, b in zip(latencies[1:], plain_ms[1:], strict=True)]
    family = program.FAMILIES[bench.server.family]
    return [
        figure("send to visible, p50", latencies, 50, at_most(2, 1)),
        figure("send to visible, p99", latencies, 99, at_most(10, 5)),
        figure("send to visible, worst", latencies, 100),
        figure("one INSERT and commit a message, p50", plain_ms, 50),
        figure("one INSERT and commit a message, p99", plain_ms, 99),
        Figure(PART, f"capture / one by one, p50, {family}", "×", ratios, at_most(RATIO_MUST[bench.server.family], 1)),
        Figure(PART, "server's time for a trade", "µs", [one[0] for one in spent[1:]]),
        Figure(PART, "server's time, one by one", "µs", [one[1] for one in spent[1:]]),
        Figure(PART, "server's time / one by one", "×", [one[0] / one[1] for one in spent[1:]], at_most(1.3, 1)),
        figure("the disk alone, p50", disk, 50),
        figure("the disk alone, p99", disk, 99),
        figure("the disk alone, worst", disk, 100),
        figure("resolution: one question, p50", questions, 50),
        figure("resolution: one question, p99", questions, 99),
    ]


def plain_peer(on: Stage, counts: list[int]) -> Child:
    """The plain design, connected; it answers each time that it has stored so many more."""
    arguments = ["-m", "tools.bench.peers", "plain", f"{on.feed.ws}/plain/stream", *map(str, counts)]
    peer = Child(arguments, on.bench.child_environ(on.name, on.feed))
    on.feed.order("wait", to="plain", connections=1)
    return peer


def watched(on: Stage, group: str, watcher: Watcher, seconds: float) -> Run:
    """The prepared trades sent to `group`, watched from before the first was sent until the last was seen."""
    looks = [watcher.look()]
    on.feed.tell({"do": "pace", "to": group, "rate": RATE, "symbol": SYMBOLS[0]})
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        looks.append(watcher.look())
    sent: dict[str, list[int]] = on.feed.answer()
    while looks[-1].newest < sent["ids"][-1]:
        if time.monotonic() > end + LATE_S_MAX:
            raise RigError(f"trade {sent['ids'][-1]} did not become visible within {LATE_S_MAX:.0f} s")
        looks.append(watcher.look())
    taken = [(after.ns - before.ns) / 1e6 for before, after in pairwise(looks)]
    return Run(latencies_ms(looks, sent["ids"], sent["sent_ns"]), taken)


def _spent(on: Stage, watchers: list[Watcher], peer: Child, count: int) -> tuple[float, float]:
    """The microseconds that the server spends on a trade of the capture, and on one of the plain design."""
    on.feed.order("prepare", trades=count)
    pid, found = on.bench.server.pid, []
    for group, watcher in zip((on.name, "plain"), watchers, strict=True):
        used_s = cpu_s(pid)
        sent = on.feed.order("pace", to=group, rate=RATE, symbol=SYMBOLS[0])
        watcher.wait_for(sent["ids"][-1])
        found.append((cpu_s(pid) - used_s) / count * 1e6)
    peer.answer()
    return found[0], found[1]


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
