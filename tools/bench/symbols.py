"""What symbols cost the capture: its memory with few and with many of them, at 2,000 trades per second, and its growth.

The trades are spread over all symbols, and come over two standby connections. The first seconds fill the caches of
values, which have a bound; the growth is what is resident at the end above what was resident then. Linux only.
"""

import re
from pathlib import Path
from typing import NamedTuple

from tools.bench.figures import Figure, at_most
from tools.bench.stage import Bench, Stage, Watcher, say, stage

PART = "symbols"
RATE = 2_000.0
NUMBERS = {2: (60, 46), 400: (90, 70), 1_000: (120, 100)}
"""How many symbols, and the megabytes that they must not exceed and should not."""


class Sizes(NamedTuple):
    """The seconds before the growth is measured, and those in which it is."""

    warm_up_s: float
    run_s: float


FULL, QUICK = Sizes(30.0, 60.0), Sizes(0.3, 0.5)


def run(bench: Bench) -> list[Figure]:
    """Megabytes resident, and how many more they became in a minute."""
    sizes = QUICK if bench.quick else FULL
    figures = []
    for number, (must, aim) in NUMBERS.items():
        names = [f"S{index}USDT" for index in range(number)]
        with stage(bench, f"bench_symbols_{number}", connections=2, symbols=names) as on:
            before = _played_mb(on, sizes.warm_up_s)
            after = _played_mb(on, sizes.run_s)
        growth = (after - before) * 60 / sizes.run_s
        say(f"{PART}: {number:,}: {after:.0f} MB, {growth:+.1f} MB a minute")
        figures.append(Figure(PART, f"resident, {number:,} symbols", "MB", [after], at_most(must, aim)))
        figures.append(Figure(PART, f"growth, {number:,} symbols", "MB/min", [growth]))
    return figures


def _played_mb(on: Stage, seconds: float) -> float:
    """What is resident after so many seconds of trades."""
    last = on.feed.order("prepare", trades=int(RATE * seconds))
    on.feed.order("pace", to=on.name, rate=RATE, symbol=last["symbol"])
    watcher = Watcher(on.bench.server, on.name, last["symbol"])
    watcher.wait_for(last["last_id"], on.capture.process)
    watcher.close()
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{on.capture.process.pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0
