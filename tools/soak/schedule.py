"""The faults of the soak, and when they strike: a seeded schedule of four tracks that run in parallel.

A track goes through all its kinds in a seeded order before any repeats, one at a time, with calm in between.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

CALM_S = {
    "stream": (0.5, 3.0),
    "rest": (1.0, 4.0),
    "database": (3.0, 9.0),
    "process": (6.0, 14.0),
    "proxy": (8.0, 16.0),
}
"""The least and the most seconds between the end of one fault of a track and the start of the next."""


SERIES = {"capture killed": 8}
"""Kinds that strike several times in a row: in ten minutes about a hundred kills, some of them during the start."""
SERIES_CALM_S = (0.2, 1.5)


class Strike(NamedTuple):
    """A fault in the schedule: `kind` on `track`, `at_s` seconds after the start, for `seconds` (0: over at once).

    `wishes` go to the exchange (its POST /_faults); faults of the database and of the process have none.
    """

    at_s: float
    track: str
    kind: str
    seconds: float
    wishes: tuple[dict[str, Any], ...] = ()


Make = Callable[[random.Random], tuple[float, tuple[dict[str, Any], ...]]]


def _wish(fault: str, seconds: float = 0.0, **fields: Any) -> Make:
    """A fixed fault of the exchange; the track then rests for `seconds`."""
    return lambda rng: (seconds, ({"fault": fault, **fields},))


def _frames(fault: str, **fields: Any) -> Make:
    """A fault that strikes some frames, on all connections or on one, for a few seconds."""

    def make(rng: random.Random) -> tuple[float, tuple[dict[str, Any], ...]]:
        seconds = round(rng.uniform(0.5, 3.0), 1)
        target = rng.choice(["all", -1])
        probability = rng.choice([0.01, 0.1, 0.5])
        return seconds, ({"fault": fault, "target": target, "probability": probability, "seconds": seconds, **fields},)

    return make


def _connections(fault: str, **fields: Any) -> Make:
    """A fault that strikes one connection or both."""

    def make(rng: random.Random) -> tuple[float, tuple[dict[str, Any], ...]]:
        return 0.0, ({"fault": fault, "target": rng.choice(["all", -1, -2]), **fields},)

    return make


def _handshake(fault: str, seconds: float, **fields: Any) -> Make:
    """A fault of the next handshake; a connection is cut to cause one."""

    def make(rng: random.Random) -> tuple[float, tuple[dict[str, Any], ...]]:
        cut = {"fault": "reset", "target": rng.choice(["all", -1])}
        return seconds, ({"fault": fault, "count": 1, **fields}, cut)

    return make


def _rest(fault: str, count: int = 2, **fields: Any) -> Make:
    """A fault of the next REST calls; some trades are withheld from all connections to cause calls."""

    def make(rng: random.Random) -> tuple[float, tuple[dict[str, Any], ...]]:
        withheld = {"fault": "skip", "count": rng.choice([1, 5, 40])}
        return rng.uniform(1.0, 4.0), ({"fault": fault, "count": count, **fields}, withheld)

    return make


def _freeze(rng: random.Random) -> tuple[float, tuple[dict[str, Any], ...]]:
    """Half-open: one connection for ever, or all of them for a while."""
    if rng.random() < 0.5:
        return 0.0, ({"fault": "freeze", "target": -1, "seconds": 0},)
    seconds = round(rng.uniform(1.0, 5.0), 1)
    return seconds, ({"fault": "freeze", "seconds": seconds},)


def _during(low: float, high: float) -> Make:
    """A fault that the soak itself causes, for between `low` and `high` seconds."""
    return lambda rng: (round(rng.uniform(low, high), 1), ())


STREAM: dict[str, Make] = {
    **{name: _frames(name) for name in ("skip", "double", "swap", "truncate", "fragment", "binary", "replace")},
    **{name: _frames(name) for name in ("restyle", "shuffle")},
    "delay": _frames("delay", delay=0.7),
    **{f"close {code}": _connections("close", code=code) for code in (1000, 1001, 1008, 1011)},
    **{name: _connections(name) for name in ("reset", "abrupt", "age", "inject")},
    "serverShutdown": _connections("shutdown", seconds=2),
    "freeze": _freeze,
    "10 MB": _wish("big", target=-1, size=10 << 20, variant="symbol"),
    # Of one symbol nothing, of the other all.
    "silent symbol": lambda rng: (
        6.0,
        ({"fault": "skip", "symbol": rng.choice(("BTCUSDT", "ETHUSDT")), "seconds": 6.0, "target": "all"},),
    ),
    "refuse": lambda rng: (2.0, ({"fault": "refuse", "seconds": 2.0}, {"fault": "reset", "target": "all"})),
    **{f"handshake {code}": _handshake("handshake_status", 3.0, status=code) for code in (403, 451, 500, 503)},
    **{f"handshake {code}": _handshake("handshake_status", 4.0, status=code, retry_after=2) for code in (418, 429)},
    "handshake reset": _handshake("handshake_reset", 1.0),
    "handshake hang": _handshake("handshake_hang", 3.0, delay=3.0),
}
REST: dict[str, Make] = {
    **{f"rest {code}": _rest("rest_status", status=code, retry_after=2) for code in (418, 429, 403, 500, 503)},
    **{name: _rest(name) for name in ("rest_reset", "rest_truncated", "rest_not_json", "rest_empty")},
    **{name: _rest(name) for name in ("rest_error", "rest_bad_row")},
    "rest_down": lambda rng: (5.0, ({"fault": "rest_down", "seconds": 5.0}, {"fault": "skip", "count": 10})),
    # For longer than a strike lasts: what is asked for meanwhile is asked for again after growing waits.
    "rest_late": lambda rng: (
        4.0,
        ({"fault": "rest_late", "count": 40, "seconds": 40.0}, {"fault": "skip", "count": 5, "target": "all"}),
    ),
    "rest_slow": _rest("rest_slow", count=1, delay=3.0),
    "rest_hang": _rest("rest_hang", count=1, delay=12.0),
    "rest_lag": lambda rng: (4.0, ({"fault": "rest_lag", "lag": 4.0, "seconds": 4.0}, {"fault": "skip", "count": 3})),
}
DATABASE: dict[str, Make] = {
    "database killed": _during(0.5, 4.0),
    "database suspended": _during(1.0, 15.0),
    "database restarted": _during(0.0, 0.0),
    "database connections killed": _during(0.0, 0.0),
    "lock held": _during(2.0, 8.0),
    "session defaults": _during(3.0, 8.0),
}
PROXY: dict[str, Make] = {
    "proxy down": _during(0.5, 4.0),
    "proxy cuts": _during(0.0, 0.0),
    **{f"proxy {status}": _during(0.5, 3.0) for status in (407, 502, 503)},
    "proxy hangs": _during(1.0, 3.0),
}
PROCESS: dict[str, Make] = {
    "capture killed": _during(0.0, 0.5),
    "capture stopped": _during(0.0, 1.0),
    "capture suspended": _during(0.5, 5.0),
}
TRACKS = {"stream": STREAM, "rest": REST, "database": DATABASE, "process": PROCESS, "proxy": PROXY}


def schedule(seed: int, seconds: float, without: frozenset[str] = frozenset()) -> list[Strike]:
    """The strikes of a soak, ordered by time; the same seed gives the same ones. `without`: tracks to leave out."""
    strikes = [
        strike
        for track in TRACKS
        if track not in without
        for strike in _dealt(random.Random(f"{seed}:{track}"), track, seconds)
    ]
    return sorted(strikes, key=lambda strike: strike.at_s)


def _dealt(rng: random.Random, track: str, seconds: float) -> Iterator[Strike]:
    at_s, deck = 0.0, list[str]()
    while True:
        at_s += rng.uniform(*CALM_S[track])
        if not deck:
            deck = list(TRACKS[track])
            rng.shuffle(deck)
        kind = deck.pop()
        for _ in range(SERIES.get(kind, 1)):
            lasts_s, wishes = TRACKS[track][kind](rng)
            if at_s + lasts_s > seconds:
                return
            yield Strike(round(at_s, 2), track, kind, lasts_s, wishes)
            at_s += lasts_s + rng.uniform(*SERIES_CALM_S)
