"""What the stand-in exchange remembers across runs: the trades that were emitted, and the anchor of its deep history.

A folder with one file for each symbol and UTC day, in which a trade is five 64-bit numbers, and with anchor.json.
"""

import itertools
import operator
import os
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import msgspec

from process import lock
from tools.exchange.clock import DAY_US, day_named, day_of, day_text
from tools.exchange.history import Columns, Market, Stretch
from tools.exchange.tape import Trade

FILL_TRADES_MAX = 50_000_000
"""Trades that may be made up for the time between two runs, per symbol."""

RESTART_US = 1_000_000
"""On a virtual clock, how long after the last remembered trade the next run starts."""

_RECORD_BYTES = 40


class StateError(Exception):
    """A folder that cannot be continued; the message names it and says why."""


class Fill(msgspec.Struct):
    """Trades that were made up for the time between two runs. `end_us` is exclusive."""

    begin_us: int
    end_us: int
    first_id: int
    count: int


class Start(msgspec.Struct):
    """Where a symbol's first run began; the deep history goes back from here."""

    start_us: int
    first_id: int
    listed_us: int = 0
    fills: list[Fill] = []


class Anchor(msgspec.Struct):
    """What makes the next run have the same history."""

    version: int
    clock: str
    seed: int
    day_trades: int
    symbols: dict[str, Start]


class Wanted(NamedTuple):
    """What the command line asks for. `virtual_us`: where a virtual clock starts, None for the machine's."""

    now_us: int
    virtual_us: int | None
    days: int
    listed_us: dict[str, int]


class Begun(NamedTuple):
    """Where a symbol starts this time: its history, oldest first, and its first streamed id."""

    stretches: list[Stretch]
    first_id: int


class Memory:
    """The folder, or nothing if `folder` is None: then every run is the first. Raises StateError."""

    def __init__(self, folder: Path | None, seed: int, day_trades: int, wanted: Wanted) -> None:
        self.folder = folder
        self.wanted = wanted
        self._files: dict[str, tuple[int, FileIO]] = {}
        self._waiting: dict[tuple[str, int], array[int]] = {}
        clock = "wall" if wanted.virtual_us is None else "virtual"
        self._anchor = Anchor(1, clock, seed, day_trades, {})
        self._stored: dict[str, list[Stretch]] = {}
        self._old: list[Path] = []
        if folder is not None:
            self._open(folder)
        self.start_us = self._start_us()

    def begin(self, market: Market, start_id: int) -> Begun:
        """The history of a symbol, and its first id, which is `start_id` or continues the earlier run."""
        symbol, now_us = market.spec.symbol, self.start_us
        listed_us = self.wanted.listed_us.get(symbol, 0)
        start = self._anchor.symbols.setdefault(symbol, Start(now_us, start_id, listed_us))
        if start.listed_us != listed_us:
            raise StateError(f"--state={self.folder}: was made with another --listed time of {symbol}")
        stored = self._stored.get(symbol, [])
        last_us, next_id = self._end(symbol)
        count = max(next_id + market.day_trades * (now_us - last_us) // DAY_US, start_id) - next_id
        if count > FILL_TRADES_MAX:
            raise StateError(f"--start-id: {symbol} ended with the id {next_id - 1}; {count} ids between are too many")
        since_us = max((day_of(now_us) - self.wanted.days) * DAY_US, listed_us)
        if last_us < now_us:
            # Without trades too: it says where the ids were when the files before it have been deleted.
            start.fills = [fill for fill in start.fills if fill.end_us > since_us]
            start.fills.append(Fill(last_us, now_us, next_id, count))
        found = market.before(since_us, (start.start_us, start.first_id), listed_us)
        for fill in start.fills:
            found += market.filling((fill.begin_us, fill.end_us), fill.first_id, fill.count)
        found = sorted(found + stored, key=operator.attrgetter("first_id"))
        found = [stretch for stretch in found if stretch.end_us > since_us]
        self._check(symbol, found, next_id + count)
        return Begun(found, next_id + count)

    def keep_anchor(self) -> None:
        """Writes the anchor, before anything is emitted, and deletes what is older than the history."""
        if self.folder is None:
            return
        path = self.folder / "anchor.json"
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self._anchor)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        for old in self._old:
            old.unlink()
        self._old.clear()

    def add(self, trade: Trade) -> None:
        """Remembers a trade with the next write()."""
        if self.folder is not None:
            record = self._waiting.setdefault((trade.symbol, day_of(trade.time_us)), array("q"))
            record.extend((trade.trade_id, trade.price_e8, trade.quantity_e8, trade.time_us, trade.buyer_is_maker))

    def write(self) -> None:
        """Hands the trades to the operating system, so that no end of this process loses one."""
        for (symbol, day), records in self._waiting.items():
            file = self._file(symbol, day)
            data = memoryview(_little(records).tobytes())
            while data:
                data = data[file.write(data) or 0 :]
        self._waiting.clear()

    def close(self) -> None:
        """Closes the files."""
        for _, file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, symbol: str, day: int) -> FileIO:
        if self._files.get(symbol, (None,))[0] != day:
            assert self.folder is not None
            if symbol in self._files:
                self._files.pop(symbol)[1].close()
            self._files[symbol] = day, FileIO(self.folder / f"{symbol}-{day_text(day)}.trades", "a")
        return self._files[symbol][1]

    def _start_us(self) -> int:
        """When this run begins: now, or on a virtual clock after what is remembered."""
        ends = [self._end(symbol)[0] for symbol in self._anchor.symbols]
        if self.wanted.virtual_us is not None:
            return max([self.wanted.virtual_us, *(end + RESTART_US for end in ends)])
        if ends and max(ends) > self.wanted.now_us:
            raise StateError(f"--state={self.folder}: has trades that are later than the clock of this machine")
        return self.wanted.now_us

    def _end(self, symbol: str) -> tuple[int, int]:
        """Up to when a symbol's trades are known (exclusive), and the id after them."""
        start = self._anchor.symbols[symbol]
        ends = [(start.start_us, start.first_id)]
        ends += [(fill.end_us, fill.first_id + fill.count) for fill in start.fills]
        ends += [(stretch.end_us, stretch.end_id) for stretch in self._stored.get(symbol, [])]
        return max(end[0] for end in ends), max(end[1] for end in ends)

    def _check(self, symbol: str, found: list[Stretch], next_id: int) -> None:
        for one, after in itertools.pairwise(found):
            if one.end_id != after.first_id or one.end_us > after.begin_us:
                raise StateError(f"--state={self.folder}: ids of {symbol} are missing after {one.end_id - 1}")
        if found and found[-1].end_id != next_id:
            raise StateError(f"--state={self.folder}: ids of {symbol} are missing after {found[-1].end_id - 1}")

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Held until the process ends: two exchanges must not write the same files.
        if lock.AVAILABLE and not lock.try_alone(lock.open_lock(folder / "lock")):
            raise StateError(f"--state={folder}: another exchange uses it")
        path = folder / "anchor.json"
        names = sorted(item.name for item in folder.iterdir() if item.name not in ("lock", "anchor.new"))
        if not path.exists():
            if names:
                raise StateError(f"--state={folder}: has {names[0]} but no anchor.json; give an empty folder")
            return
        self._read_anchor(path)
        first_day = day_of(self.wanted.now_us) - self.wanted.days
        for name in names:
            if name != path.name:
                self._read(folder / name, first_day)

    def _read_anchor(self, path: Path) -> None:
        ours = self._anchor
        try:
            self._anchor = msgspec.json.decode(path.read_bytes(), type=Anchor)
        except msgspec.DecodeError as error:
            raise StateError(f"--state={path.parent}: anchor.json is damaged: {error}") from None
        if self._anchor.version != ours.version:
            raise StateError(f"--state={path.parent}: was made by another version of this program")
        for name in ("clock", "seed", "day_trades"):
            theirs, mine = getattr(self._anchor, name), getattr(ours, name)
            if theirs != mine:
                flag = f"--{name.replace('_', '-')}"
                raise StateError(f"--state={path.parent}: was made with {flag} {theirs}, not {mine}")

    def _read(self, path: Path, first_day: int) -> None:
        """Learns the trades of a file; one of a day that is too old will be deleted."""
        symbol, _, rest = path.name.partition("-")
        try:
            day = day_named(rest.removesuffix(".trades"))
        except ValueError:
            raise StateError(f"--state={path.parent}: {path.name} is no file of it") from None
        if symbol not in self._anchor.symbols:
            raise StateError(f"--state={path.parent}: {symbol} is in {path.name}, but not in anchor.json")
        if self.wanted.virtual_us is None and day < first_day:
            self._old.append(path)
        size = path.stat().st_size
        if size % _RECORD_BYTES:
            # The write was cut off by the end of the machine; nobody has seen a trade of it.
            os.truncate(path, size - size % _RECORD_BYTES)
        self._stored.setdefault(symbol, []).extend(_runs(path, day))


def _little(records: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        records.byteswap()
    return records


def _loaded(path: Path, begin: int = 0, count: int = -1) -> Columns:
    """The trades of a file from a position on."""
    records = array("q")
    with path.open("rb") as file:
        file.seek(begin * _RECORD_BYTES)
        records.frombytes(file.read(count * _RECORD_BYTES if count >= 0 else -1))
    _little(records)
    return Columns(records[0::5], records[1::5], records[2::5], records[3::5], bytes(map(bool, records[4::5])))


def _runs(path: Path, day: int) -> Iterator[Stretch]:
    """The stretches of a file: its trades, divided where the time between two runs was filled."""
    columns = _loaded(path)
    ids, times = columns.ids, columns.times
    rising = _all(operator.lt, ids) and _all(operator.le, times)
    sane = min(columns.prices, default=1) > 0 and min(columns.quantities, default=1) > 0
    if not (rising and sane and (not times or day_of(times[0]) == day == day_of(times[-1]))):
        raise StateError(f"--state={path.parent}: {path.name} is damaged")
    breaks = [n for n, (one, after) in enumerate(itertools.pairwise(ids), 1) if after != one + 1]
    edges = [0, *breaks, len(ids)] if ids else []
    for begin, end in itertools.pairwise(edges):
        yield _stretch(path, columns.part(begin, end), begin)


def _all(holds: Callable[[int, int], bool], values: Sequence[int]) -> bool:
    """Whether it holds for each value and the next."""
    return all(map(holds, values, itertools.islice(values, 1, None)))


def _stretch(path: Path, columns: Columns, begin: int) -> Stretch:
    count = len(columns.ids)
    return Stretch(columns.times[0], columns.times[-1] + 1, columns.ids[0], count, lambda: _loaded(path, begin, count))
