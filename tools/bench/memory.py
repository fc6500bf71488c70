"""What the capture itself needs: memory at 5,000 trades per second and while the database hangs, and CPU at 200.

It uses two standby connections, the default, so every trade arrives twice. The outage is the worst kind for memory: the
server is suspended, keeps its connections and answers nothing, so the writer waits for its time-out while trades pile
up; afterwards all of them must be in the table. Memory is the peak resident size during a run (VmHWM), CPU the time of
all threads divided by the time of the run; both come from /proc, so this runs only on Linux.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tools.bench.feed import SYMBOLS
from tools.bench.figures import Figure, at_most
from tools.bench.stage import Bench, Stage, Watcher, say, stage
from tools.lab.children import RigError

PART = "memory"
BUSY_RATE = 5_000.0
CALM_RATE = 200.0


class Sizes(NamedTuple):
    """The seconds of a warm-up and of a run of each kind, and the number of runs that count."""

    warm_up_s: float
    steady_s: float
    outage_s: float
    calm_s: float
    runs: int


FULL, QUICK = Sizes(3.0, 8.0, 12.0, 8.0, 3), Sizes(0.2, 0.5, 0.5, 0.5, 1)


def run(bench: Bench) -> list[Figure]:
    """Megabytes, and per cent of a core. Raises RigError if there is no /proc."""
    if not Path("/proc/self/status").exists():
        raise RigError("the part `memory` reads /proc, which only Linux has")
    sizes = QUICK if bench.quick else FULL
    with stage(bench, "bench_memory", connections=2) as on:
        watcher = Watcher(bench.server, on.name, SYMBOLS[0])
        _steady_mb(on, watcher, sizes.warm_up_s)
        steady = [_steady_mb(on, watcher, sizes.steady_s) for _ in range(sizes.runs)]
        say(f"{PART}: steady {max(steady):.0f} MB")
        # Once is enough: what is held in memory has a bound, and this is the worst case.
        outage = _outage_mb(on, watcher, sizes.outage_s)
        say(f"{PART}: outage {outage:.0f} MB")
        watcher.close()
    with stage(bench, "bench_cpu", connections=2) as on:
        watcher = Watcher(bench.server, on.name, SYMBOLS[0])
        _cpu_percent(on, watcher, sizes.warm_up_s)
        cpu = [_cpu_percent(on, watcher, sizes.calm_s) for _ in range(sizes.runs)]
        # For information only: no market is so evenly spaced.
        spaced = _cpu_percent(on, watcher, sizes.calm_s, orders=False)
        say(f"{PART}: CPU {max(cpu):.1f} %")
        watcher.close()
    return [
        Figure(PART, "resident at 5,000 trades/s", "MB", steady, at_most(100, 70)),
        Figure(PART, "resident while the database hangs", "MB", [outage], at_most(150, 150)),
        Figure(PART, "CPU at 200 trades/s", "% of a core", cpu, at_most(4, 2)),
        Figure(PART, "CPU at 200 trades/s, evenly spaced", "% of a core", [spaced]),
    ]


def _steady_mb(on: Stage, watcher: Watcher, seconds: float) -> float:
    on.feed.order("prepare", trades=int(BUSY_RATE * seconds))
    _forget_peak(on.capture.process.pid)
    _play(on, watcher, BUSY_RATE)
    return on.capture.process.peak_rss_mb()


def _outage_mb(on: Stage, watcher: Watcher, seconds: float) -> float:
    """The peak until everything that arrived while the server hung is visible."""
    on.feed.order("prepare", trades=int(BUSY_RATE * seconds))
    _forget_peak(on.capture.process.pid)
    with _hanging(on):
        sent = on.feed.order("pace", to=on.name, rate=BUSY_RATE, symbol=SYMBOLS[0])
    watcher.wait_for(sent["ids"][-1], on.capture.process)
    return on.capture.process.peak_rss_mb()


def _cpu_percent(on: Stage, watcher: Watcher, seconds: float, orders: bool = True) -> float:
    on.feed.order("prepare", trades=int(CALM_RATE * seconds))
    begun_s, used_s = time.monotonic(), cpu_s(on.capture.process.pid)
    _play(on, watcher, CALM_RATE, orders)
    return (cpu_s(on.capture.process.pid) - used_s) / (time.monotonic() - begun_s) * 100


def _play(on: Stage, watcher: Watcher, rate: float, orders: bool = False) -> None:
    """Sends the prepared trades; returns when the last one is visible."""
    sent = on.feed.order("pace", to=on.name, rate=rate, symbol=SYMBOLS[0], orders=orders)
    watcher.wait_for(sent["ids"][-1], on.capture.process)


@contextmanager
def _hanging(on: Stage) -> Iterator[None]:
    on.bench.server.suspend()
    try:
        yield
    finally:
        on.bench.server.resume()


def _forget_peak(pid: int) -> None:
    """Resets VmHWM. If that is not allowed, it stays the peak of the process's whole life, which is no less."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_s(pid: int) -> float:
    """The CPU seconds that all threads of a process have used, user and system time."""
    # The program's name, in brackets, may contain anything; after it utime and stime are the 12th and 13th field.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
