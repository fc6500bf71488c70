"""shards.py with connections and a clock that only a test moves: which streams are read by which connections."""

import dataclasses
import logging
from collections import Counter
from pathlib import Path

import pytest

from binance.limits import ConnectBudget, Cooldown
from capture import shards
from capture.inbox import Inbox
from capture.rejects import Rejects
from capture.shards import Shards
from capture.shared import SAME_MAX, SAME_S, Downs, Shared
from capture.standby import Limits
from tests.capture.test_standby import Fake

TICK_S = 0.25


class Connection(Fake):
    """A fake that knows which streams it reads; the trades of one symbol arrive on all that read it."""

    def __init__(self, name: str, shared: Shared, world: "World") -> None:
        self.shared = shared
        self.silent: frozenset[str] = frozenset()
        super().__init__(name, world)  # type: ignore[arg-type]


class World:
    """All groups of fakes, and their clock."""

    def __init__(self, folder: Path, symbols: tuple[str, ...], size: int = 2) -> None:
        self.now = 1_000.0
        self.made: list[Connection] = []
        self.shut: frozenset[int] = frozenset()
        self.next_id = 1
        common = "ws://exchange", Inbox(), Rejects(folder), Cooldown(), ConnectBudget(), Downs()
        self.shards = Shards(self._make, Shared(symbols, *common), size, Limits(), self.now)

    def _make(self, name: str, shared: Shared) -> Connection:
        self.made.append(Connection(name, shared, self))
        return self.made[-1]

    @property
    def may_open(self) -> bool:
        """Whether the connection that is made next can connect; `shut`: the numbers of those that cannot."""
        return len(self.made) not in self.shut

    @property
    def open(self) -> list[Connection]:
        return [one for one in self.made if one.opened_at is not None]

    def run(self, seconds: float, step_s: float = TICK_S) -> None:
        """Time passes, and in each tick one trade of each symbol arrives."""
        until = self.now + seconds
        while self.now < until:
            self.now += step_s
            for connection in self.open:
                for symbol in connection.shared.symbols:
                    if symbol not in connection.silent:
                        connection.deliver(self.next_id, symbol)
            self.next_id += 1
            self.shards.tick(self.now)

    def read(self) -> Counter[str]:
        """By how many open connections each symbol is read."""
        return Counter(symbol for connection in self.open for symbol in connection.shared.symbols)


def names(number: int) -> tuple[str, ...]:
    return tuple(f"S{index:04}USDT" for index in range(number))


@pytest.mark.parametrize("number", [1, 2, 200, 201, 1_500, 5_000])
def test_each_symbol_is_read_by_a_pair_within_the_exchange_s_limits(number: int, tmp_path: Path) -> None:
    """No connection has more streams, or a longer address, than it may, and no symbol is left out or read twice."""
    world = World(tmp_path, names(number))
    assert world.read() == Counter(dict.fromkeys(names(number), 2))
    for connection in world.made:
        assert len(connection.shared.symbols) <= shards.STREAMS_MAX
        assert len(connection.shared.stream_url) <= shards.ADDRESS_BYTES_MAX
    assert len({connection.name for connection in world.made}) == len(world.made)


def test_long_names_make_more_groups(tmp_path: Path) -> None:
    """Names that are not ASCII are nine bytes a letter in an address: its length decides then."""
    symbols = tuple(f"币安人生{index}USDT" for index in range(200))
    world = World(tmp_path, symbols)
    assert world.read() == Counter(dict.fromkeys(symbols, 2))
    assert all(len(connection.shared.stream_url) <= shards.ADDRESS_BYTES_MAX for connection in world.made)
    assert len(world.made) > 2


def test_few_symbols_look_as_they_always_did(tmp_path: Path) -> None:
    """One group, whose connections have plain names."""
    world = World(tmp_path, names(2))
    assert [connection.name for connection in world.made] == ["connection 1", "connection 2"]
    assert (world.shards.groups, world.shards.closed) == (1, 0)


def test_a_listed_symbol_is_read_without_a_moment_in_which_another_is_not(tmp_path: Path) -> None:
    """The group with the fewest streams gets it; its successors deliver before the old connections are closed."""
    world = World(tmp_path, names(201))
    world.run(10)
    world.shards.change(["NEWUSDT"], [], world.now)
    for _ in range(100):
        world.run(TICK_S)
        assert min(world.read()[symbol] for symbol in names(201)) >= 2
    assert world.read()["NEWUSDT"] == 2
    assert all(connection.drops == 0 for connection in world.made)
    assert world.shards.totals().parsed == sum(connection.parsed for connection in world.made)


def test_many_listed_symbols_open_groups_of_their_own(tmp_path: Path) -> None:
    """If no group has room."""
    world = World(tmp_path, names(200))
    world.run(5)
    more = tuple(f"N{index}USDT" for index in range(250))
    world.shards.change(more, [], world.now)
    world.run(5)
    assert world.read() == Counter(dict.fromkeys((*names(200), *more), 2))
    assert all(len(connection.shared.symbols) <= shards.STREAMS_MAX for connection in world.open)


def test_a_delisted_symbol_goes_with_the_next_renewal(tmp_path: Path) -> None:
    """No connection is touched for it; the renewed one does not ask for it any more."""
    world = World(tmp_path, names(3))
    world.run(5)
    world.shards.change([], ["S0001USDT"], world.now)
    world.run(5)
    assert len(world.made) == 2
    world.shards.renew(names(1), world.now)
    world.run(5)
    assert [connection.shared.symbols for connection in world.open] == [("S0000USDT", "S0002USDT")] * 2


def test_no_connection_is_judged_by_a_symbol_that_left_it(tmp_path: Path) -> None:
    """One of the two is renewed without it, the other still reads it, and it trades again: none is behind."""
    world = World(tmp_path, names(3))
    world.run(5)
    world.shards.change([], ["S0001USDT"], world.now)
    world.made[0].shutdown_announced = True
    world.run(300)
    assert sorted(len(connection.shared.symbols) for connection in world.open) == [2, 3]
    assert [connection.drops for connection in world.made] == [0, 0, 0]


def test_a_connection_works_on_while_its_successor_with_a_listed_symbol_cannot_connect(tmp_path: Path) -> None:
    """Its sibling's successor has the symbol already; the old one does not read it, and is not cut for it."""
    world = World(tmp_path, names(3))
    world.run(5)
    world.shut = frozenset({3})
    world.shards.change(["NEWUSDT"], [], world.now)
    world.run(300)
    assert world.read() == Counter({**dict.fromkeys(names(3), 2), "NEWUSDT": 1})
    assert [connection.drops for connection in world.made] == [0, 0, 0, 0]


def test_groups_are_not_renewed_together(tmp_path: Path) -> None:
    """1,500 symbols: within a day every connection is renewed once, and never more than a few within a minute."""
    world = World(tmp_path, names(1_500))
    first = len(world.made)
    at: list[float] = []
    for _ in range(24 * 60):
        before = len(world.made)
        world.now += 60
        for connection in world.open:
            connection.pings += 1
        world.shards.tick(world.now)
        for connection in world.made[before:]:
            connection.parsed += 1
            at.append(world.now)
        world.shards.tick(world.now)
    assert len(at) >= first
    assert max(Counter(int(when // 60) for when in at).values()) <= 2


def test_a_group_without_a_connection_is_counted(tmp_path: Path) -> None:
    """No trade of its symbols can come, which the line of the log says."""
    world = World(tmp_path, names(201))
    assert (world.shards.groups, world.shards.closed) == (2, 0)
    for connection in world.made[:2]:
        connection.opened_at = None
    assert world.shards.closed == 1
    first = frozenset(world.made[0].shared.symbols)
    assert world.shards.unread(world.now) == first
    # Back, but not for as long as is asked about.
    world.made[0].opened_at = world.now + 0.5
    assert world.shards.unread(world.now) == first
    assert world.shards.unread(world.now + 1) == frozenset()


def test_only_the_group_of_a_dead_stream_is_renewed(tmp_path: Path) -> None:
    """The connections of the others stay."""
    world = World(tmp_path, names(201))
    world.run(5)
    of_first = world.made[0].shared.symbols
    assert world.shards.renew([of_first[3]], world.now) == list(of_first)
    world.run(5)
    assert [connection.shared.symbols for connection in world.made[4:]] == [of_first] * 2


def test_the_newest_ids_outlive_the_connections(tmp_path: Path) -> None:
    """A rare symbol has no trade on the new ones for hours; one that left is forgotten with the last that read it."""
    world = World(tmp_path, names(2))
    world.run(5)
    world.shards.change(["RAREUSDT"], [], world.now)
    world.run(5)
    rare = world.shards.newest()["RAREUSDT"]
    for connection in world.open:
        connection.silent = frozenset({"RAREUSDT"})
    for _ in range(3):
        world.shards.renew(names(1), world.now)
        for connection in world.made:
            connection.silent = frozenset({"RAREUSDT"})
        world.run(5)
    assert len(world.made) == 10
    assert world.shards.newest()["RAREUSDT"] == rare
    world.shards.change([], ["RAREUSDT"], world.now)
    world.shards.renew(names(1), world.now)
    world.run(5)
    assert sorted(world.shards.newest()) == list(names(2))


def test_stopping_asks_all_at_once(tmp_path: Path) -> None:
    """Each connection is told before any is waited for."""
    world = World(tmp_path, names(500))
    world.shards.stop()
    assert all(connection.events.index("stop") < connection.events.index("join") for connection in world.made)
    assert dataclasses.asdict(world.shards.totals())["reconnects"] == 0


def test_of_many_that_are_down_a_few_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """For each reason, in each minute; then how many more there were."""
    now = 0.0
    downs = Downs(lambda: now)
    for number in range(16):
        downs.tell(f"connection {number}", "nobody listens", 1.0)
    downs.tell("connection 16", "HTTP 451", 1.0)
    now = SAME_S
    downs.tell("connection 0", "nobody listens", 1.0)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.partition(":")[0] for line in said] == [
        *(f"connection {number} is down" for number in range(SAME_MAX)),
        "connection 16 is down",
        "connections were down 12 times more in the last minute, for reasons that were said",
        "connection 0 is down",
    ]
