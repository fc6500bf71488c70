"""What symbols cost the capture: memory, its growth and the lag, with few and with many, at 5,000 trades per second.

The trades come from the stand-in exchange, half of them of one symbol, over two standby connections for each group of
streams, and every one of them must be stored. The first seconds fill the caches of values, which have a bound; the
growth is what is resident at the end above what was resident then. The lag is from the exchange's stamp to the arrival
here, of all trades of the run; how old the newest stored trade is shows what comes behind that. Linux only.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from capture import shards
from tools.bench.figures import Bound, Figure, at_most
from tools.bench.latency import percentile
from tools.bench.stage import Bench, Watcher, say, stop_lossless
from tools.lab.children import Capture, Exchange, RigError, wait_for

PART = "symbols"
START_S_MAX = 120.0
LOOK_S = 0.05
"""How often it is looked how old the newest stored trade is."""
P99 = 99


class Case(NamedTuple):
    """So many symbols at this rate (trades per second), the seconds before the growth is measured, and those in which
    it is. `must_mb`, `aim_mb`: of the memory."""

    symbols: int
    rate: int
    warm_up_s: float
    run_s: float
    must_mb: float
    aim_mb: float


FULL = (
    Case(2, 5_000, 30.0, 60.0, 60, 46),
    Case(400, 5_000, 30.0, 60.0, 90, 70),
    Case(1_500, 5_000, 60.0, 600.0, 150, 100),
    Case(1_500, 10_000, 60.0, 60.0, 150, 100),
)
QUICK = tuple(case._replace(symbols=min(case.symbols, 20), warm_up_s=0.3, run_s=0.5) for case in FULL)


class Found(NamedTuple):
    """What a case gave: seconds until a trade of each symbol was stored, megabytes, their growth, milliseconds."""

    first_s: float
    resident_mb: float
    growth_mb: float
    lag_ms: float
    age_ms: float


def run(bench: Bench) -> list[Figure]:
    """Megabytes resident and what they grew by, the lag, and how soon every symbol is there."""
    figures = []
    for number, case in enumerate(FULL):
        found = _measure(bench, (QUICK if bench.quick else FULL)[number], f"bench_symbols_{number}")
        name = f"{case.symbols:,} symbols at {case.rate:,}/s"
        say(f"{PART}: {name}: {found}")
        many = case.symbols >= 1_000
        bounds: tuple[tuple[str, str, float, Bound | None], ...] = (
            (f"resident, {name}", "MB", found.resident_mb, at_most(case.must_mb, case.aim_mb)),
            (f"growth in {case.run_s:.0f} s, {name}", "MB", found.growth_mb, at_most(1, 1) if many else None),
            (f"lag p99, {name}", "ms", found.lag_ms, at_most(50, 50) if many else None),
            (f"age of the newest stored p99, {name}", "ms", found.age_ms, None),
            (f"all have a stored trade after, {name}", "s", found.first_s, at_most(60, 20) if many else None),
        )
        figures += [Figure(PART, words, unit, [value], bound) for words, unit, value, bound in bounds]
    return figures


def _measure(bench: Bench, case: Case, name: str) -> Found:
    symbols = [f"S{index:04}USDT" for index in range(case.symbols)]
    with bench.database(name), _exchange(bench.folder / name, case, symbols) as exchange:
        environ = {**bench.environ(name), **exchange.environ, "SYMBOLS": "*USDT"}
        with Capture(environ, bench.folder / name, ("ws_client.py", "--duration", "1h")) as capture:
            begun_s = time.monotonic()
            watcher = Watcher(bench.server, name, symbols[0])
            wait_for("all symbols have a trade", lambda: _stored(bench, name) == case.symbols, START_S_MAX)
            first_s = time.monotonic() - begun_s
            _ages_ms(watcher, case.warm_up_s)
            before_mb = capture.process.rss_mb()
            ages_ms = _ages_ms(watcher, case.run_s)
            after_mb = capture.process.rss_mb()
            watcher.close()
            lag_ms = _lag_ms(bench, name, case.run_s)
            stop_lossless(capture)
        _check(bench, name, case.symbols)
    return Found(first_s, after_mb, after_mb - before_mb, lag_ms, percentile(ages_ms, P99))


@contextmanager
def _exchange(folder: Path, case: Case, symbols: list[str]) -> Iterator[Exchange]:
    """An exchange whose tape begins once all connections are there, so that every trade should be stored."""
    clients = 2 * -(-case.symbols // shards.STREAMS_MAX)
    flags = ["--symbols", ",".join(symbols), "--rate", str(case.rate), "--history", "10", "--connect-limit", "0"]
    with Exchange(folder, *flags, "--wait-clients", str(clients)) as exchange:
        yield exchange


def _rows(bench: Bench, name: str, sql: str) -> list[Any]:
    connection = bench.server.connect_to(name)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            rows: list[Any] = cursor.fetchall()
            return rows
    finally:
        connection.close()


def _stored(bench: Bench, name: str) -> int:
    """Of how many symbols a trade is stored: each has a row of its own from then on."""
    return int(_rows(bench, name, "SELECT COUNT(*) FROM symbols")[0][0])


def _ages_ms(watcher: Watcher, seconds: float) -> list[float]:
    """How old the newest stored trade of the busiest symbol was, in looks LOOK_S apart."""
    until, ages = time.monotonic() + seconds, list[float]()
    while time.monotonic() < until:
        ages.append(watcher.age_ms())
        time.sleep(LOOK_S)
    return ages


def _lag_ms(bench: Bench, name: str, seconds: float) -> float:
    """The 99th percentile of the lag of all trades that arrived in the last `seconds`."""
    lag = "TIMESTAMPDIFF(MICROSECOND, timestamp, received_at) DIV 1000"
    since = f"(SELECT MAX(received_at) FROM trades) - INTERVAL {seconds * 1e6:.0f} MICROSECOND"
    counted = _rows(bench, name, f"SELECT {lag} AS ms, COUNT(*) FROM trades WHERE received_at >= {since} GROUP BY ms")
    left = sum(number for _, number in counted) * (100 - P99) / 100
    for milliseconds, number in sorted(counted, reverse=True):
        left -= number
        if left <= 0:
            return float(milliseconds)
    return 0.0


def _check(bench: Bench, name: str, symbols: int) -> None:
    """Raises RigError unless all ids from the first on are stored, of all symbols, and no gap had to be filled."""
    holes = "SELECT symbol FROM trades GROUP BY symbol HAVING COUNT(*) <> MAX(trade_id) - MIN(trade_id) + 1"
    starts = "SELECT COUNT(DISTINCT symbol), COUNT(DISTINCT first) FROM"
    starts += " (SELECT symbol, MIN(trade_id) AS first FROM trades GROUP BY symbol) AS firsts"
    found = _rows(bench, name, holes), _rows(bench, name, "SELECT * FROM gaps"), _rows(bench, name, starts)
    if found != ([], [], [(symbols, 1)]):
        raise RigError(f"the capture lost trades, so the run does not count: {found!r:.500}")
