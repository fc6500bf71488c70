"""Two sides of a day merged by id, in memory for a block of each: what is only on one side, and what differs."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from model.ids import Run
from model.proof import DayHash
from model.times import EPOCH
from storage.canonical import Block

COLUMNS = ("trade_id", "price", "quantity", "timestamp", "buyer_is_maker")


class Kind(StrEnum):
    """On which side a trade is."""

    ONLY_HERE = "only here"
    ONLY_THERE = "only there"
    DIFFERS = "differs"


class Difference(NamedTuple):
    """A trade that the two sides do not agree on: its canonical lines (empty: it is not there)."""

    trade_id: int
    kind: Kind
    here: str
    there: str

    @property
    def columns(self) -> list[str]:
        """The columns in which the two lines differ."""
        if self.kind is not Kind.DIFFERS:
            return []
        pairs = zip(COLUMNS, self.here.split(","), self.there.split(","), strict=True)
        return [name for name, here, there in pairs if here != there]


class Side:
    """What is stored: the hashes of its blocks, how many trades they have, the first and the last id, the runs of ids
    that are absent between these, and the time of the first."""

    def __init__(self) -> None:
        self.hash = DayHash()
        self.trades = 0
        self.first: int | None = None
        self.last: int | None = None
        self.absent: list[Run] = []
        self.first_at: datetime | None = None

    def add(self, block: Block) -> None:
        """Takes in the next block."""
        text = block.lines
        self.hash.add(block.number, text)
        self.trades += text.count(b"\n")
        if self.first is None:
            self.first = _id_of(text)
            self.first_at = EPOCH + timedelta(milliseconds=int(text.split(b",", 4)[3]))
        self.last = _id_of(text[text.rfind(b"\n", 0, -1) + 1 :])
        self.absent += block.absent


def read(here: Iterable[Block]) -> Side:
    """What is stored, compared with nothing."""
    side = Side()
    for block in here:
        side.add(block)
    return side


def compare(here: Iterable[Block], there: Iterator[tuple[int, bytes]], differ: Callable[[Difference], object]) -> Side:
    """What is stored; `differ` is called for each trade that the other side has not just so, by rising id."""
    side = Side()
    other = next(there, None)
    for block in here:
        side.add(block)
        while other is not None and other[0] < block.number:
            _differences(b"", other[1], differ)
            other = next(there, None)
        beside = b""
        if other is not None and other[0] == block.number:
            beside = other[1]
            other = next(there, None)
        if beside != block.lines:
            _differences(block.lines, beside, differ)
    while other is not None:
        _differences(b"", other[1], differ)
        other = next(there, None)
    return side


def _differences(here: bytes, there: bytes, differ: Callable[[Difference], object]) -> None:
    ours, theirs = _by_id(here), _by_id(there)
    for trade_id in sorted(ours.keys() | theirs.keys()):
        mine, their = ours.get(trade_id, []), theirs.get(trade_id, [])
        if mine == their:
            continue
        if len(mine) == len(their) == 1:
            differ(Difference(trade_id, Kind.DIFFERS, mine[0], their[0]))
            continue
        for line in mine:
            if line not in their:
                differ(Difference(trade_id, Kind.ONLY_HERE, line, ""))
        for line in their:
            if line not in mine:
                differ(Difference(trade_id, Kind.ONLY_THERE, "", line))


def _by_id(lines: bytes) -> dict[int, list[str]]:
    """The lines of each id: one, but for an id that is stored twice."""
    found: dict[int, list[str]] = {}
    for line in lines.decode().splitlines():
        found.setdefault(int(line[: line.index(",")]), []).append(line)
    return found


def _id_of(line: bytes) -> int:
    return int(line[: line.index(b",")])
