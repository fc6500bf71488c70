"""The database on another machine: the capture over TLS through a delay line, in turns with one that has no way to go.

Each turn is a round of the part `ingest`, or a run of the part `latency`; the round trip is half of the delay each way.
Who looks whether a trade is visible is beside the server. Between two turns the server comes to rest, so that nobody
pays for the bars of the one before.

Compression is measured on a line that is also slow, as one to a rented server may be, with as much to store.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tools.bench import latency
from tools.bench.feed import SYMBOLS
from tools.bench.figures import Figure, at_least
from tools.bench.ingest import ROUND_TRADES, capture_rate, expect_rows
from tools.bench.latency import RATE, percentile
from tools.bench.stage import POLL_S, Bench, Stage, Watcher, say, stage
from tools.lab.children import RigError
from tools.lab.delay import DelayLine

PART = "network"
RTTS_MS = (1.0, 5.0, 20.0)
PROMISED_MS = 5.0
MEGABITS_PER_S = (10.0, 100.0)
REST_S, REST_S_MAX = 1.0, 60.0
"""The server rests when it has had no work for so long: the sealer looks twice a second."""


class Sizes(NamedTuple):
    """The trades of a round and on a slow line, the rounds and the runs that count, and the seconds of a run."""

    trades: int
    slow: int
    rounds: int
    runs: int
    run_s: float


FULL, QUICK = Sizes(ROUND_TRADES, 30_000, 5, 3, 5.0), Sizes(2_000, 1_000, 1, 1, 0.5)


def run(bench: Bench) -> list[Figure]:
    """Rates, latencies and what compression does. Raises RigError without openssl, which makes the certificate."""
    sizes = QUICK if bench.quick else FULL
    try:
        with bench.server.over_tls(bench.folder) as ca, DelayLine(bench.server.port) as line:
            with (
                stage(bench, "bench_direct", 1, way=_way(bench.server.port, ca)) as direct,
                stage(bench, "bench_far", 1, way=_way(line.port, ca)) as far,
            ):
                figures = _rates(direct, far, line, sizes) + _latencies(direct, far, line, sizes)
            return figures + _compression(bench, ca, sizes)
    except FileNotFoundError as error:
        raise RigError(f"no openssl, which makes the certificate: {error}") from error


def _way(port: int, ca: Path, **more: str) -> Mapping[str, str]:
    tcp = {"MYSQL_UNIX_SOCKET": "", "MYSQL_HOST": "127.0.0.1", "MYSQL_PORT": str(port)}
    return tcp | {"MYSQL_SSL_CA": str(ca)} | more


def _rates(direct: Stage, far: Stage, line: DelayLine, sizes: Sizes) -> list[Figure]:
    near: list[float] = []
    rates: defaultdict[float, list[float]] = defaultdict(list)
    ratios: defaultdict[float, list[float]] = defaultdict(list)
    stored: defaultdict[str, int] = defaultdict(int)

    def rate(on: Stage) -> float:
        last = on.feed.order("prepare", trades=sizes.trades)
        _come_to_rest(on.bench)
        found = capture_rate(on, last, sizes.trades)
        stored[on.name] += sizes.trades
        expect_rows(on, stored[on.name])
        return found

    for index in range(sizes.rounds + 1):
        for rtt_ms in RTTS_MS:
            beside = rate(direct)
            with _as_far_as(line, rtt_ms):
                found = rate(far)
            name = f"round {index}" if index else "warm-up"
            say(f"{PART}: {name}: direct {beside:,.0f}, {rtt_ms:g} ms away {found:,.0f} trades/s")
            if index:
                near.append(beside)
                rates[rtt_ms].append(found)
                ratios[rtt_ms].append(found / beside)
    promised = at_least(0.9, 1)
    return [
        Figure(PART, "direct, over TLS", "trades/s", near),
        *(Figure(PART, f"{ms:g} ms away", "trades/s", rates[ms]) for ms in RTTS_MS),
        *(
            Figure(PART, f"{ms:g} ms away / direct", "×", ratios[ms], promised if ms == PROMISED_MS else None)
            for ms in RTTS_MS
        ),
    ]


def _latencies(direct: Stage, far: Stage, line: DelayLine, sizes: Sizes) -> list[Figure]:
    found: defaultdict[str, list[list[float]]] = defaultdict(list)
    watchers = {on.name: Watcher(on.bench.server, on.name, SYMBOLS[0]) for on in (direct, far)}
    for index in range(sizes.runs):
        for rtt_ms in (0.0, *RTTS_MS):
            on = far if rtt_ms else direct
            on.feed.order("prepare", trades=int(RATE * sizes.run_s))
            _come_to_rest(on.bench)
            with _as_far_as(line, rtt_ms):
                one = latency.watched(on, on.name, watchers[on.name], sizes.run_s)
            name = f"{rtt_ms:g} ms away" if rtt_ms else "direct"
            found[name].append(one.latencies)
            say(f"{PART}: run {index + 1}: {name}: p50 {percentile(one.latencies, 50):.2f} ms")
    for watcher in watchers.values():
        watcher.close()
    return [
        Figure(PART, f"send to visible, {name}, p{percent}", "ms", [percentile(one, percent) for one in runs])
        for name, runs in found.items()
        for percent in (50, 99)
    ]


def _compression(bench: Bench, ca: Path, sizes: Sizes) -> list[Figure]:
    with (
        DelayLine(bench.server.port, PROMISED_MS) as one,
        DelayLine(bench.server.port, PROMISED_MS) as other,
        stage(bench, "bench_plain", 1, way=_way(one.port, ca)) as plain,
        stage(bench, "bench_compressed", 1, way=_way(other.port, ca, MYSQL_COMPRESS="1")) as compressed,
    ):
        ways = {"plain": (plain, one), "compressed": (compressed, other)}
        rates: defaultdict[tuple[str, float], list[float]] = defaultdict(list)
        sizes_of: defaultdict[str, list[float]] = defaultdict(list)
        for index in range(sizes.rounds + 1):
            for megabits in MEGABITS_PER_S:
                for name, (on, line) in ways.items():
                    last = on.feed.order("prepare", trades=sizes.slow)
                    _come_to_rest(bench)
                    before, line.bits_per_s = line.sent_bytes, megabits * 1e6
                    rate = capture_rate(on, last, sizes.slow)
                    line.bits_per_s = None
                    say(f"{PART}: {index or 'warm-up'}: {megabits:g} Mbit/s, {name}: {rate:,.0f} trades/s")
                    if index:
                        rates[name, megabits].append(rate)
                        sizes_of[name].append((line.sent_bytes - before) / sizes.slow)
    return [
        *(Figure(PART, f"bytes of a trade, {name}", "bytes", values) for name, values in sizes_of.items()),
        *(Figure(PART, f"{megabits:g} Mbit/s, {name}", "trades/s", rates[name, megabits]) for name, megabits in rates),
        *(
            Figure(PART, f"compressed / plain, {megabits:g} Mbit/s", "×", _ratios(rates, megabits))
            for megabits in MEGABITS_PER_S
        ),
    ]


def _ratios(rates: Mapping[tuple[str, float], Sequence[float]], megabits: float) -> list[float]:
    pairs = zip(rates["compressed", megabits], rates["plain", megabits], strict=True)
    return [one / other for one, other in pairs]


@contextmanager
def _as_far_as(line: DelayLine, rtt_ms: float) -> Iterator[None]:
    line.rtt_ms = rtt_ms
    try:
        yield
    finally:
        line.rtt_ms = 0


def _come_to_rest(bench: Bench) -> None:
    """Returns when no client of the server had a statement running for a while. Raises RigError if they never rest."""
    if bench.quick:
        return
    until_s, since_s = time.monotonic() + REST_S_MAX, time.monotonic()
    sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE command = 'Query' AND id <> CONNECTION_ID()"
    with bench.server.connect() as connection, connection.cursor() as cursor:
        while time.monotonic() < since_s + REST_S:
            cursor.execute(sql)
            ((busy,),) = cursor.fetchall()
            if busy:
                since_s = time.monotonic()
            if since_s > until_s:
                raise RigError(f"the server does not come to rest within {REST_S_MAX:.0f} s")
            time.sleep(POLL_S)
