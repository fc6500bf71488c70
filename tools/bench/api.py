"""The API beside a capture of 1,000 trades per second: how fast it answers, and how much it slows the capture.

The same load twice: first the capture alone, then with 50 clients that each ask for the latest price twice per second,
and 20 open dashboards. The time of an answer counts from when the request was due. The effect on the capture is the
time from sending a trade to another connection's SELECT, as in the part `latency`, but checked only every 2 ms, to
leave the machine to what is measured.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tools.bench.feed import SYMBOLS
from tools.bench.figures import Figure, at_most
from tools.bench.latency import LATE_S_MAX, RATE, latencies_ms, percentile
from tools.bench.stage import Bench, Child, Look, Stage, Watcher, say, stage
from tools.lab.children import Process, RigError, wait_for

PART = "api"
CLIENTS, PER_SECOND, DASHBOARDS = 50, 2, 20
LOOK_S = 0.002
START_S_MAX = 30.0


class Sizes(NamedTuple):
    """The seconds of the warm-up and of a run, and the number of runs that count."""

    warm_up_s: float
    run_s: float
    runs: int


FULL, QUICK = Sizes(3.0, 8.0, 3), Sizes(0.3, 1.0, 1)


def run(bench: Bench) -> list[Figure]:
    """The API's times, and the capture's times with and without it."""
    sizes = QUICK if bench.quick else FULL
    with stage(bench, "bench_api", connections=2) as on:
        watcher = Watcher(bench.server, on.name, SYMBOLS[0])
        _paced(on, watcher, sizes.warm_up_s)
        alone = [_paced(on, watcher, sizes.run_s) for _ in range(sizes.runs)]
        answers: list[dict[str, Any]] = []
        loaded: list[list[float]] = []
        with _clients(on) as clients:
            _paced(on, watcher, sizes.warm_up_s, lambda: _load(clients, sizes.warm_up_s))
            clients.answer()
            for index in range(sizes.runs):
                loaded.append(_paced(on, watcher, sizes.run_s, lambda: _load(clients, sizes.run_s)))
                answers.append(clients.answer())
                say(f"{PART}: run {index + 1}: p99 {percentile(answers[-1]['ms'], 99):.1f} ms")
        watcher.close()
        waiting = _queue(on)
    return [*_figures(alone, loaded, answers), Figure(PART, "queue of the capture, longest", "trades", [waiting])]


def _figures(alone: list[list[float]], loaded: list[list[float]], answers: list[dict[str, Any]]) -> list[Figure]:
    before, after = ([percentile(one, 99) for one in runs] for runs in (alone, loaded))
    ratios = [with_it / without for with_it, without in zip(after, before, strict=True)]
    events = [min(one["events"]) for one in answers]
    return [
        Figure(PART, "latest, p50", "ms", [percentile(one["ms"], 50) for one in answers]),
        Figure(PART, "latest, p99", "ms", [percentile(one["ms"], 99) for one in answers], at_most(50, 25)),
        Figure(PART, "latest, worst", "ms", [max(one["ms"]) for one in answers]),
        Figure(PART, "answers that were not good", "answers", [one["bad"] for one in answers], at_most(0, 0)),
        Figure(PART, "events of the slowest dashboard", "events", [float(one) for one in events]),
        Figure(PART, "send to visible without it, p99", "ms", before),
        Figure(PART, "send to visible with it, p99", "ms", after),
        Figure(PART, "with it / without it", "×", ratios, at_most(2, 1.5)),
    ]


@contextmanager
def _clients(on: Stage) -> Iterator[Child]:
    """The clients, and the API that they use, which reads the capture's database."""
    environ = on.bench.child_environ(on.name, on.feed) | {"SYMBOLS": ",".join(SYMBOLS)}
    api = Process(["-m", "tools.api", "--port", "0"], environ, on.bench.log("api"))

    def address() -> str:
        if api.exit_code is not None:
            raise RigError(f"the API did not start\n{api.last_words()}")
        line, end, _ = api.out.read_text().partition("\n")
        return line.removeprefix("listening ") if end else ""

    try:
        wait_for("the API listens", address, START_S_MAX)
        with Child(["-m", "tools.bench.api_load", address(), SYMBOLS[0]]) as clients:
            yield clients
    finally:
        api.kill()


def _load(clients: Child, seconds: float) -> None:
    clients.tell({"seconds": seconds, "clients": CLIENTS, "per_second": PER_SECOND, "dashboards": DASHBOARDS})


def _paced(on: Stage, watcher: Watcher, seconds: float, beside: Callable[[], None] = lambda: None) -> list[float]:
    """The milliseconds from send to visible for the trades of `seconds`, while the load that `beside` starts runs."""
    on.feed.order("prepare", trades=int(RATE * seconds))
    looks: list[Look] = [watcher.look()]
    on.feed.tell({"do": "pace", "to": on.name, "rate": RATE, "symbol": SYMBOLS[0]})
    beside()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        looks.append(watcher.look())
        time.sleep(LOOK_S)
    sent: dict[str, list[int]] = on.feed.answer()
    while looks[-1].newest < sent["ids"][-1]:
        if time.monotonic() > end + LATE_S_MAX:
            raise RigError(f"trade {sent['ids'][-1]} did not become visible within {LATE_S_MAX:.0f} s")
        looks.append(watcher.look())
        time.sleep(LOOK_S)
    return latencies_ms(looks, sent["ids"], sent["sent_ns"])


def _queue(on: Stage) -> float:
    """The longest queue in the lines that the capture prints every ten seconds."""
    return float(max(map(int, re.findall(r"queue (\d+)", on.capture.process.log.read_text())), default=0))
