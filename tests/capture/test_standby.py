"""standby.py with connections and a clock that only a test moves."""

import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from capture import standby
from capture.standby import Limits, Standby

TICK_S = 0.25
LONG_TICK_S = 4.0


class Fake:
    """What the watcher sees of a connection. It opens when a test says so, and a cut one opens again at once."""

    def __init__(self, name: str, world: "World") -> None:
        self.name = name
        self.frames = self.parsed = self.refused = self.connects = self.pings = 0
        self.verdicts: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.newest: dict[str, int] = {}
        self.opened_at: float | None = None
        self.shutdown_announced = self.stubborn = False
        self.events: list[str] = []
        self.may_open = world.may_open
        self._world = world

    @property
    def signs(self) -> int:
        return self.frames + self.pings

    def start(self) -> None:
        self.events.append("start")
        self.open()

    def open(self) -> None:
        """Connects, if it is let."""
        if self.may_open:
            self.connects += 1
            self.opened_at = self._world.now
            self.shutdown_announced = False

    def stop(self) -> None:
        self.events.append("stop")
        self.opened_at = None

    def drop(self) -> None:
        self.events.append("drop")
        self.opened_at = None
        self.open()

    def is_alive(self) -> bool:
        return "stop" not in self.events or self.stubborn

    def join(self, timeout: float | None = None) -> None:
        self.events.append("join")

    def deliver(self, trade_id: int, symbol: str = "BTCUSDT") -> None:
        """A trade arrives, if the connection is open."""
        if self.opened_at is not None:
            self.frames += 1
            self.parsed += 1
            self.newest[symbol] = trade_id

    @property
    def drops(self) -> int:
        return self.events.count("drop")


class World:
    """A standby of fakes, and its clock."""

    def __init__(self, size: int = 2, limits: Limits | None = None) -> None:
        self.now = 1_000.0
        self.may_open = True
        self.made: list[Fake] = []
        self.next_id = 1
        self.standby = Standby(self._make, size, limits or Limits(), self.now)

    def _make(self, name: str) -> tuple[Fake, tuple[str, ...]]:
        self.made.append(Fake(name, self))
        return self.made[-1], ("BTCUSDT", "RAREUSDT")

    def run(self, seconds: float, *deliver_to: Fake) -> None:
        """Time passes, and at each tick a trade arrives on the connections named; the ticks of hours are longer."""
        until = self.now + seconds
        while self.now < until:
            self.now += TICK_S if seconds < 1_000 else min(LONG_TICK_S, until - self.now)
            for fake in deliver_to:
                fake.deliver(self.next_id)
            self.next_id += bool(deliver_to)
            self.standby.tick(self.now)

    def drops(self) -> list[int]:
        return [fake.drops for fake in self.made]


def test_as_many_as_asked_for_are_started_with_names_of_their_own() -> None:
    """Each is started once, and all are open."""
    for size in (1, 2, 4):
        world = World(size)
        assert [fake.name for fake in world.made] == [f"connection {n}" for n in range(1, size + 1)]
        assert [fake.events for fake in world.made] == [["start"]] * size
        assert world.standby.open == size
        assert world.standby.connections() == world.made


def test_connections_that_deliver_are_left_alone() -> None:
    """An hour with a trade in each tick on both."""
    world = World()
    world.run(3_600, *world.made)
    assert world.drops() == [0, 0]


def test_pings_alone_keep_a_connection() -> None:
    """A quiet market is no reason to replace anything."""
    world = World()
    for _ in range(100):
        world.run(20)
        for fake in world.made:
            fake.pings += 1
    assert world.drops() == [0, 0]


@pytest.mark.parametrize("size", [1, 2])
def test_silence_is_ended_after_a_minute(size: int) -> None:
    """Nothing at all, no frame and no ping: replaced within 60 s and a tick, and again after another minute."""
    world = World(size)
    world.run(59)
    assert world.drops() == [0] * size
    world.run(1.5)
    assert world.drops() == [1] * size
    world.run(59)
    assert world.drops() == [1] * size
    world.run(2)
    assert world.drops() == [2] * size


def test_a_connection_that_is_not_open_is_not_dropped() -> None:
    """Its own thread is about to connect; the silence is counted from the moment when it is open."""
    world = World()
    world.made[0].opened_at = None
    world.run(300, world.made[1])
    assert world.drops() == [0, 0]
    world.made[0].opened_at = world.now
    world.made[0].pings += 1
    world.run(59)
    assert world.drops()[0] == 0


def test_a_half_open_connection_is_found_by_its_sibling() -> None:
    """Silent while the other goes on: replaced after 5 s and not after 60; the sibling stays."""
    world = World()
    world.run(30, *world.made)
    world.run(4.5, world.made[1])
    assert world.drops() == [0, 0]
    world.run(1.5, world.made[1])
    assert world.drops() == [1, 0]


def test_a_connection_that_is_late_is_replaced_but_not_one_that_keeps_up() -> None:
    """Three seconds behind for ever is within the limit; ten seconds are not."""
    for lag_s, drops in ((3.0, 0), (10.0, 1)):
        world = World()
        slow, quick = world.made
        world.run(30, slow, quick)
        behind = int(lag_s / TICK_S)
        world.run(lag_s, quick)
        for _ in range(200):
            quick.deliver(world.next_id)
            slow.deliver(world.next_id - behind)
            world.next_id += 1
            world.run(TICK_S)
        assert (slow.drops > 0, quick.drops) == (bool(drops), 0)


def test_a_replaced_connection_is_not_behind_for_what_it_missed() -> None:
    """What was delivered before it opened does not come again: it is dropped once and not every five seconds."""
    world = World()
    world.run(30, *world.made)
    world.run(6, world.made[1])
    assert world.drops() == [1, 0]
    world.run(600, *world.made)
    assert world.drops() == [1, 0]


def test_a_rare_symbol_makes_nobody_late() -> None:
    """A trade in ten minutes, which one connection got right after the other had opened, or which both got."""
    world = World()
    first, second = world.made
    first.deliver(77, "RAREUSDT")
    world.run(600, first, second)
    assert world.drops() == [0, 0]
    for fake in world.made:
        fake.deliver(78, "RAREUSDT")
    world.run(600, first, second)
    assert world.drops() == [0, 0]


def test_a_symbol_that_only_one_gets_is_noticed() -> None:
    """The other delivers everything else, so it is not silent; its subscription is broken all the same."""
    world = World()
    first, second = world.made
    world.run(30, first, second)
    second.deliver(5, "RAREUSDT")
    world.run(6, first, second)
    assert world.drops() == [1, 0]


def test_a_single_connection_is_never_behind() -> None:
    """There is nobody to compare it with, not even itself before a cut."""
    world = World(1)
    world.run(30, *world.made)
    world.made[0].drop()
    world.run(50)
    assert world.drops() == [1]


def test_renewal_is_staggered_and_loses_nothing() -> None:
    """After 23 h, half an hour apart, each new one starts before the old one stops, and stops it once it delivers."""
    world = World()
    limits = Limits()
    first, second = world.made
    world.run(limits.renew_s - limits.renew_stagger_s - 1, first, second)
    assert len(world.made) == 2
    world.run(2, first, second)
    assert len(world.made) == 3
    third = world.made[2]
    world.run(10, first, second)
    assert "stop" not in second.events
    world.run(1, first, second, third)
    assert (first.events.count("stop"), second.events.count("stop")) == (0, 1)
    assert world.standby.open == 2
    world.run(limits.renew_stagger_s - 15, first, third)
    assert len(world.made) == 3
    world.run(5, first, third)
    assert len(world.made) == 4
    world.run(1, first, third, world.made[3])
    assert first.events.count("stop") == 1
    assert (third.drops, world.made[3].drops) == (0, 0)
    assert world.standby.connections() == [world.made[3], third]


def test_four_connections_are_renewed_one_after_the_other_within_the_day() -> None:
    """No two within the stagger, and the last before the exchange's 24 h."""
    world = World(4)
    at: list[float] = []
    while len(at) < 4:
        world.run(1_000, *world.made)
        at += [world.now] * (len(world.made) - 4 - len(at))
    begin = 1_000.0
    assert all(after - before >= 1_000 for before, after in pairwise(at))
    assert at[-1] - begin < 23.3 * 3_600


def test_an_announced_shutdown_renews_at_once() -> None:
    """The new one starts with the next tick, once, and the old one is kept until the new one delivers."""
    world = World()
    world.run(10, *world.made)
    first, second = world.made
    first.shutdown_announced = True
    world.run(0.25, first, second)
    assert len(world.made) == 3
    world.run(5, first, second)
    assert len(world.made) == 3
    assert "stop" not in first.events
    world.run(0.5, first, second, world.made[2])
    assert first.events.count("stop") == 1
    assert first.drops == 0
    world.run(60, second, world.made[2])
    assert len(world.made) == 3


def test_both_shut_down_at_once_are_both_renewed() -> None:
    """As when the exchange is upgraded."""
    world = World()
    world.run(10, *world.made)
    old = list(world.made)
    for fake in old:
        fake.shutdown_announced = True
    world.run(0.5, *old)
    new = world.made[2:]
    assert len(new) == 2
    world.run(0.5, *old, *new)
    assert [fake.events.count("stop") for fake in old] == [1, 1]
    assert world.standby.open == 2


def test_a_successor_is_not_behind_for_what_came_before_it_opened() -> None:
    """Its first trade comes only after the time in which it settles, and a rare symbol has none: it is left alone."""
    world = World()
    for fake in world.made:
        fake.deliver(5, "RAREUSDT")
    world.run(10, *world.made)
    first, second = world.made
    first.shutdown_announced = True
    world.run(8, first, second)
    third = world.made[2]
    world.run(60, second, third)
    assert first.events.count("stop") == 1
    assert world.drops() == [0, 0, 0]
    second.deliver(6, "RAREUSDT")
    world.run(6, second, third)
    assert third.drops == 1


def test_an_open_successor_takes_over_after_a_minute_of_quiet() -> None:
    """A rare symbol may not trade for long: the old one is not kept for ever."""
    world = World(1)
    (old,) = world.made
    old.shutdown_announced = True
    world.run(59)
    assert "stop" not in old.events
    old.pings += 1
    world.run(2)
    assert old.events.count("stop") == 1


def test_a_successor_that_cannot_connect_does_not_end_the_one_that_delivers() -> None:
    """The exchange lets nobody in, for an hour: the old connection goes on until it is cut."""
    world = World(1)
    (old,) = world.made
    world.run(10, old)
    world.may_open = False
    old.shutdown_announced = True
    world.run(3_600, old)
    assert len(world.made) == 2
    assert "stop" not in old.events
    new = world.made[1]
    new.may_open = True
    new.open()
    world.run(1, old, new)
    assert old.events.count("stop") == 1


def test_the_watcher_never_waits_for_a_thread() -> None:
    """In a tick a leaving connection is joined for no time at all, and not for ever."""
    world = World(1)
    (old,) = world.made
    old.shutdown_announced = True
    world.run(1, old)
    world.run(1, *world.made)
    joined = old.events.count("join")
    assert joined >= 1


def test_stop_stops_and_joins_all() -> None:
    """The current ones, those that were to succeed them, and those that leave."""
    world = World()
    world.run(10, *world.made)
    world.made[0].shutdown_announced = True
    world.run(1, *world.made[:2])
    world.standby.stop()
    assert len(world.made) == 3
    for fake in world.made:
        assert fake.events.count("stop") == 1
        assert fake.events[-1] == "join"


def test_counters_of_connections_that_left_stay() -> None:
    """Nothing that was parsed is forgotten in the sums, however often connections are renewed."""
    world = World()
    for _ in range(20):
        world.made[-1].shutdown_announced = True
        world.run(2, *world.made)
    assert len(world.made) > 15
    world.run(2, *world.made)
    assert len(world.standby.connections()) == 2
    assert world.standby.totals().parsed == sum(fake.parsed for fake in world.made)
    assert world.standby.totals().reconnects == 0


def test_what_a_connection_still_counts_while_it_leaves_is_not_lost() -> None:
    """Its thread may be in the middle of a read when it is stopped; only once it has ended is it forgotten."""
    world = World()
    first = world.made[0]
    first.stubborn = first.shutdown_announced = True
    world.run(2, *world.made)
    world.run(2, *world.made)
    assert "stop" in first.events
    assert first in world.standby.connections()
    first.parsed += 1_000
    first.stubborn = False
    world.run(1)
    assert first not in world.standby.connections()
    assert world.standby.totals().parsed == sum(fake.parsed for fake in world.made)


def test_the_last_trade_of_a_connection_that_ends_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it comes after the look at it in which it is seen to have ended."""
    world = World()
    first = world.made[0]
    first.shutdown_announced = True
    world.run(1, *world.made)
    monkeypatch.setattr(first, "join", lambda _seconds: first.newest.update(RAREUSDT=1_000))
    world.run(1, *world.made)
    assert first not in world.standby.connections()
    assert world.standby.newest()["RAREUSDT"] == 1_000


@pytest.mark.parametrize(
    "moment", [(standby._Slot, "begin"), (Standby, "_note")], ids=["it takes over", "it has ended"]
)
def test_another_thread_reads_right_sums_while_a_connection_is_replaced(
    monkeypatch: pytest.MonkeyPatch, moment: tuple[type, str]
) -> None:
    """As the metrics do: a counter that falls for a moment, or counts a connection twice, would be a jump of billions
    in their graphs."""
    world, readers, seen = World(), list[threading.Thread](), list[int]()
    world.run(1, *world.made)
    real: Callable[..., Any] = getattr(*moment)

    def read_meanwhile(*arguments: Any) -> None:
        real(*arguments)
        readers.append(threading.Thread(target=lambda: seen.append(world.standby.totals().parsed)))
        readers[-1].start()
        # It may have to wait for the end of the look.
        readers[-1].join(0.05)

    monkeypatch.setattr(*moment, read_meanwhile)
    world.made[0].shutdown_announced = True
    for _ in range(8):
        world.run(TICK_S, *world.made)
        for reader in readers:
            reader.join()
        assert set(seen) <= {sum(fake.parsed for fake in world.made)}
        seen.clear()
    assert readers
    assert world.made[0] not in world.standby.connections()
