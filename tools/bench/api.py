"""The API beside a capture of 1,000 trades per second: how fast it answers, and how much it slows the capture.

The same load twice: first the capture alone, then with 50 clients that each ask for the latest price twice per second,
and 20 open dashboards. The time of an answer counts from when the request was due. The effect on the capture is the
time from sending a trade to another connection's SELECT, as in the part `latency`, but checked only every 2 ms, to
leave the machine to what is measured.

Then, on a table of 1,500 symbols, one client asks for the newest trade of all of them, over a connection that it keeps.
"""

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Any, NamedTuple

import config
import db
from tools.bench.feed import SYMBOLS
from tools.bench.figures import Figure, at_most
from tools.bench.latency import LATE_S_MAX, RATE, latencies_ms, percentile
from tools.bench.stage import Bench, Child, Look, Stage, Watcher, say, stage
from tools.lab.children import Process, RigError, wait_for

PART = "api"
CLIENTS, PER_SECOND, DASHBOARDS = 50, 2, 20
LOOK_S = 0.002
ALL_SYMBOLS = 1_500
ANSWER_S_MAX = 10.0
START_S_MAX = 30.0


class Sizes(NamedTuple):
    """The seconds of the warm-up and of a run, and the number of runs that count; of each of ALL_SYMBOLS the trades,
    and the questions of a run."""

    warm_up_s: float
    run_s: float
    runs: int
    trades: int
    questions: int


FULL, QUICK = Sizes(3.0, 8.0, 3, 200, 100), Sizes(0.3, 1.0, 1, 2, 2)


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
    queue = Figure(PART, "queue of the capture, longest", "trades", [waiting])
    return [*_figures(alone, loaded, answers), queue, _latest_of_all(bench, sizes)]


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
def _serving(bench: Bench, environ: Mapping[str, str], log: str) -> Iterator[str]:
    """The address of an API with these variables, which has a `log` of its own."""
    api = Process(["-m", "tools.api", "--port", "0"], environ, bench.log(log))

    def address() -> str:
        if api.exit_code is not None:
            raise RigError(f"the API did not start\n{api.last_words()}")
        line, end, _ = api.out.read_text().partition("\n")
        return line.removeprefix("listening ") if end else ""

    try:
        wait_for("the API listens", address, START_S_MAX)
        yield address()
    finally:
        api.kill()


@contextmanager
def _clients(on: Stage) -> Iterator[Child]:
    """The clients, and the API that they use, which reads the capture's database."""
    environ = on.bench.child_environ(on.name, on.feed) | {"SYMBOLS": ",".join(SYMBOLS)}
    with (
        _serving(on.bench, environ, "api") as address,
        Child(["-m", "tools.bench.api_load", address, SYMBOLS[0]]) as clients,
    ):
        yield clients


def _latest_of_all(bench: Bench, sizes: Sizes) -> Figure:
    """The time of the answer about ALL_SYMBOLS, from the request to the last byte: the median of each run."""
    with bench.database("bench_latest") as settings:
        _fill(bench, settings, sizes.trades)
        environ = config.as_environment(settings)
        with _serving(bench, environ, "api_all") as address, closing(_Client(address)) as client:
            wait_for("the API has the database", lambda: len(client.ask()) == ALL_SYMBOLS, START_S_MAX)
            runs = [median(client.ask_ms() for _ in range(sizes.questions)) for _ in range(sizes.runs)]
    say(f"{PART}: all {ALL_SYMBOLS:,} symbols: {median(runs):.1f} ms")
    return Figure(PART, f"latest of all {ALL_SYMBOLS:,} symbols in one request", "ms", runs, at_most(50, 10))


def _fill(bench: Bench, settings: config.Settings, trades: int) -> None:
    """So many trades of each symbol, a second apart, and the server's count of what is there."""
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=trades)
    with closing(db.connect(settings)) as connection:
        for number in range(ALL_SYMBOLS):
            price = Decimal(number + 1)
            db.insert_trades(
                connection,
                [
                    db.Trade(f"S{number:04d}USDT", begin + timedelta(seconds=n), n + 1, price, price, n % 2 == 0)
                    for n in range(trades)
                ],
            )
    with closing(bench.server.connect_to(settings.mysql_database)) as plain, plain.cursor() as cursor:
        cursor.execute("ANALYZE TABLE trades")
        cursor.fetchall()


class _Client:
    """Asks over one connection, which it keeps."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=ANSWER_S_MAX)

    def ask(self) -> list[Any]:
        """What is known; nothing while the database is not."""
        self._connection.request("GET", "/api/latest")
        response = self._connection.getresponse()
        content = response.read()
        return list(json.loads(content)["latest"]) if response.status == 200 else []

    def ask_ms(self) -> float:
        """The milliseconds until the answer is here."""
        begun_ns = time.perf_counter_ns()
        self._connection.request("GET", "/api/latest")
        response = self._connection.getresponse()
        response.read()
        if response.status != 200:
            raise RigError(f"the API answers {response.status}")
        return (time.perf_counter_ns() - begun_ns) / 1e6

    def close(self) -> None:
        """Hangs up."""
        self._connection.close()


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
