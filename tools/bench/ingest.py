"""From the socket to the commit: the capture, the library's floor and the plain design, in turns on the same frames.

All three stay connected and get the same prepared frames one after another, round by round; the first round is warm-up.
A rate is the trades of a round divided by the time from the first byte sent until the last trade is visible to another
connection (the floor: until its callback has counted it; the plain design: until its commit has returned).
"""

from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import Any, NamedTuple

from capture import inbox
from tools.bench.figures import Figure, at_least
from tools.bench.peers import PLAIN_TABLE
from tools.bench.stage import Bench, Child, Stage, Watcher, say, stage
from tools.lab.children import RigError

PART = "ingest"
ROUND_TRADES = inbox.QUEUE_TRADES_MAX * 9 // 10
"""At full speed the reader outruns the writer: a round must fit in the inbox, or trades are dropped."""
PLAIN_TRADES = 3_000
STANDBY_SHARE = 2
"""With two connections every trade arrives twice, so a round is this many times smaller."""


class Sizes(NamedTuple):
    """The trades of a round, how many of them the plain design gets, and the rounds that count, without and with
    standby."""

    trades: int
    plain: int
    rounds: int
    standby_rounds: int


FULL, QUICK = Sizes(ROUND_TRADES, PLAIN_TRADES, 5, 3), Sizes(2_000, 100, 2, 1)


class Round(NamedTuple):
    """Trades per second."""

    floor: float
    capture: float
    plain: float


def run(bench: Bench) -> list[Figure]:
    """The rates and their ratios, round by round."""
    sizes = QUICK if bench.quick else FULL
    rounds = _rounds(bench, sizes)
    standby = _standby(bench, sizes)
    family = "MariaDB" if bench.server.family == "mariadb" else "MySQL"

    floor = median(one.floor for one in rounds)

    def column(pick: Callable[[Round], float]) -> list[float]:
        return [pick(one) for one in rounds]

    return [
        Figure(PART, "callback that does nothing", "trades/s", column(lambda one: one.floor)),
        Figure(PART, "capture, socket to commit", "trades/s", column(lambda one: one.capture)),
        Figure(PART, "one INSERT and commit a message", "trades/s", column(lambda one: one.plain)),
        Figure(PART, "capture, two connections", "trades/s", standby),
        Figure(PART, "capture / nothing", "×", column(lambda one: one.capture / one.floor), at_least(0.8, 1)),
        Figure(PART, "two connections / nothing", "×", [rate / floor for rate in standby], at_least(0.6, 0.75)),
        Figure(
            PART,
            f"capture / one by one, {family}",
            "×",
            column(lambda one: one.capture / one.plain),
            at_least(35, 50),
        ),
    ]


def _rounds(bench: Bench, sizes: Sizes) -> list[Round]:
    with stage(bench, "bench_ingest", connections=1) as on, ExitStack() as stack:
        with bench.server.connect_to(on.name) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {PLAIN_TABLE} LIKE trades")
        repeats = sizes.rounds + 1
        floor = stack.enter_context(_peer(on, "floor", [sizes.trades] * repeats))
        plain = stack.enter_context(_peer(on, "plain", [sizes.plain] * repeats))
        for group in ("floor", "plain"):
            on.feed.order("wait", to=group, connections=1)
        rounds = []
        for index in range(repeats):
            last = on.feed.order("prepare", trades=sizes.trades)
            floor_rate = _peer_rate(on, floor, "floor", sizes.trades)
            ours = capture_rate(on, last, sizes.trades)
            rounds.append(Round(floor_rate, ours, _peer_rate(on, plain, "plain", sizes.plain)))
            expect_rows(on, sizes.trades * (index + 1))
            say(f"{PART}: {'warm-up' if not index else f'round {index}'}: {_text(rounds[-1])}")
    return rounds[1:]


def _standby(bench: Bench, sizes: Sizes) -> list[float]:
    """The capture's rates with two connections that deliver the same trades."""
    trades = sizes.trades // STANDBY_SHARE
    rates = []
    with stage(bench, "bench_standby", connections=2) as on:
        for index in range(sizes.standby_rounds + 1):
            last = on.feed.order("prepare", trades=trades)
            rates.append(capture_rate(on, last, trades))
            expect_rows(on, trades * (index + 1))
    return rates[1:]


def _peer(on: Stage, kind: str, counts: list[int]) -> Child:
    arguments = ["-m", "tools.bench.peers", kind, f"{on.feed.ws}/{kind}/stream", *map(str, counts)]
    return Child(arguments, on.bench.child_environ(on.name, on.feed))


def _peer_rate(on: Stage, peer: Child, group: str, trades: int) -> float:
    sent = on.feed.order("send", to=group, trades=trades)
    return float(trades / (peer.answer()["ns"] - sent["begun_ns"]) * 1e9)


def capture_rate(on: Stage, last: dict[str, Any], trades: int) -> float:
    """The trades per second of the capture, from the first byte of the prepared ones until `last` is visible."""
    watcher = Watcher(on.bench.server, on.name, last["symbol"])
    on.feed.tell({"do": "send", "to": on.name})
    look = watcher.wait_for(last["last_id"], on.capture.process)
    watcher.close()
    return trades / (look.ns - int(on.feed.answer()["begun_ns"])) * 1e9


def expect_rows(on: Stage, rows: int) -> None:
    """Raises RigError if anything was dropped: then the round does not count."""
    with on.bench.server.connect_to(on.name) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM trades")
        ((found,),) = cursor.fetchall()
    if found != rows:
        raise RigError(f"{rows} trades were sent and {found} are stored, so the run does not count")


def _text(rates: Round) -> str:
    return f"floor {rates.floor:,.0f}, capture {rates.capture:,.0f}, plain {rates.plain:,.0f} trades/s"
