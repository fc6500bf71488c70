"""The deep history of the stand-in exchange: days of trades that are made when somebody asks for them.

A day depends on nothing but the seed, the symbol and the day, so it can be forgotten and made again; a trade takes
about a microsecond. Pure, and safe to use from several threads.
"""

import random
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

from tools.exchange.clock import DAY_US, day_of
from tools.exchange.tape import E8, Spec, Trade

CACHED_TRADES_MAX = 3_000_000
"""Trades of the history in memory, of all symbols (75 MB); the stretches that were not used for longest are dropped."""

_POOL = 2048
"""Different gaps and different quantities of a stretch."""

_SAME_ORDER_P = 0.5
_SAME_MILLISECOND_P = 0.1
_MOVES_P = 0.25

_MILLISECOND_US = 1000


class Columns(NamedTuple):
    """Trades, oldest first, a column each; ids, prices and quantities as in Trade. A maker is 1 or 0."""

    ids: Sequence[int]
    prices: Sequence[int]
    quantities: Sequence[int]
    times: Sequence[int]
    makers: bytes

    def part(self, begin: int, end: int) -> "Columns":
        """The trades of these positions."""
        return Columns(*(column[begin:end] for column in self))  # type: ignore[arg-type]

    def trade(self, symbol: str, index: int) -> Trade:
        """The trade at position `index`."""
        maker = bool(self.makers[index])
        return Trade(symbol, self.ids[index], self.prices[index], self.quantities[index], self.times[index], maker)

    def trades(self, symbol: str) -> Iterator[Trade]:
        """Each trade."""
        rows = zip(self.ids, self.prices, self.quantities, self.times, self.makers, strict=True)
        return (Trade(symbol, one, price, size, time_us, bool(maker)) for one, price, size, time_us, maker in rows)


class Stretch(NamedTuple):
    """Trades with consecutive ids in one UTC day, made by `make` when they are needed. `end_us` is exclusive."""

    begin_us: int
    end_us: int
    first_id: int
    size: int
    make: Callable[[], Columns]

    @property
    def end_id(self) -> int:
        """The id after its last one."""
        return self.first_id + self.size


class Cache:
    """The stretches that were used last, of all symbols."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], Columns] = OrderedDict()
        self._trades = 0
        # The archive makes its files in a thread of its own.
        self._lock = threading.Lock()

    def columns(self, symbol: str, stretch: Stretch) -> Columns:
        """The trades of the stretch."""
        key = symbol, stretch.first_id
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = stretch.make()
        with self._lock:
            if key not in self._kept:
                self._trades += stretch.size
            self._kept[key] = made
            while self._trades > CACHED_TRADES_MAX and len(self._kept) > 1:
                self._trades -= len(self._kept.popitem(last=False)[1].ids)
        return made


class Past:
    """The history of one symbol: stretches by time, whose ids run on from one to the next. At least one trade."""

    def __init__(self, symbol: str, stretches: list[Stretch], cache: Cache) -> None:
        self.symbol = symbol
        self.stretches = stretches
        self.first_id, self.end_id = stretches[0].first_id, stretches[-1].end_id
        self._firsts = [stretch.first_id for stretch in stretches]
        self._ends_us = [stretch.end_us for stretch in stretches]
        self._cache = cache

    def columns(self, stretch: Stretch) -> Columns:
        """The trades of one of its stretches."""
        return self._cache.columns(self.symbol, stretch)

    def rows(self, from_id: int, limit: int) -> list[Trade]:
        """The trades from an id on: up to `limit`, fewer where a stretch ends, none only behind the last."""
        if from_id >= self.end_id:
            return []
        from_id = max(from_id, self.first_id)
        stretch = self.stretches[bisect_right(self._firsts, from_id) - 1]
        begin = from_id - stretch.first_id
        return list(self.columns(stretch).part(begin, begin + limit).trades(self.symbol))

    def trade(self, trade_id: int) -> Trade:
        """The trade with that id, which must be in the history."""
        return self.rows(trade_id, 1)[0]

    def id_at(self, time_us: int) -> int:
        """The id of the first trade at that time or later; `end_id` if all are older."""
        place = bisect_right(self._ends_us, time_us)
        if place == len(self.stretches):
            return self.end_id
        stretch = self.stretches[place]
        if time_us <= stretch.begin_us:
            return stretch.first_id
        return stretch.first_id + bisect_left(self.columns(stretch).times, time_us)

    def between(self, begin_us: int, end_us: int) -> Iterator[Columns]:
        """The trades from `begin_us` to before `end_us`, stretch by stretch."""
        for stretch in self.within(begin_us, end_us):
            columns = self.columns(stretch)
            inside = begin_us <= stretch.begin_us and stretch.end_us <= end_us
            yield columns if inside else _cut(columns, begin_us, end_us)

    def within(self, begin_us: int, end_us: int) -> list[Stretch]:
        """The stretches that may have trades from `begin_us` to before `end_us`."""
        place = bisect_right(self._ends_us, begin_us)
        return [stretch for stretch in self.stretches[place:] if stretch.begin_us < end_us]


def _cut(columns: Columns, begin_us: int, end_us: int) -> Columns:
    return columns.part(bisect_left(columns.times, begin_us), bisect_left(columns.times, end_us))


class Market(NamedTuple):
    """What the made trades of a symbol depend on. `day_trades`: how many a day has."""

    spec: Spec
    seed: int
    day_trades: int

    def before(self, begin_us: int, end: tuple[int, int], listed_us: int) -> list[Stretch]:
        """The stretches from `begin_us` to the time and the id `end` (exclusive), a UTC day each.

        The history begins later if the symbol was listed later, or where its ids begin with 1.
        """
        (end_us, end_id), found = end, list[Stretch]()
        while end_us > max(begin_us, listed_us) and end_id > 1:
            from_us = max(listed_us, day_of(end_us - 1) * DAY_US)
            whole = self.day_trades * (end_us - from_us) // DAY_US
            count = min(whole, end_id - 1)
            if count:
                found.append(self.stretch((from_us, end_us), end_id - count, whole, whole - count))
            end_us, end_id = from_us, end_id - count
        return found[::-1]

    def filling(self, span_us: tuple[int, int], first_id: int, count: int) -> list[Stretch]:
        """The stretches of `count` trades from one time to another (exclusive), a UTC day each."""
        (begin_us, end_us), found, done = span_us, list[Stretch](), 0
        from_us = begin_us
        while from_us < end_us:
            to_us = min(end_us, (day_of(from_us) + 1) * DAY_US)
            until = count * (to_us - begin_us) // (end_us - begin_us)
            if until > done:
                found.append(self.stretch((from_us, to_us), first_id + done, until - done))
            from_us, done = to_us, until
        return found

    def stretch(self, span_us: tuple[int, int], first_id: int, whole: int, without: int = 0) -> Stretch:
        """The stretch that has the last trades of a span with `whole` of them, all but the first `without`."""

        def make() -> Columns:
            columns = made(self.spec, self.seed, span_us, whole)._replace(
                ids=range(first_id - without, first_id + whole)
            )
            return columns.part(without, whole)

        return Stretch(*span_us, first_id, whole - without, make)


def made(spec: Spec, seed: int, span_us: tuple[int, int], count: int) -> Columns:
    """The `count` trades of a span of time (the end is exclusive), always the same; ids from 0."""
    rng = random.Random(f"{seed}:{spec.symbol}:{span_us[0]}")
    times = _times(rng, span_us, count)
    # Fills of one order have one time and one taker, so the side is made of the time.
    makers = bytes([time_us & 1 for time_us in times])
    return Columns(range(count), _prices(rng, spec, count), _quantities(rng, spec, count), times, makers)


def _drawn(rng: random.Random, pool: list[int], count: int) -> Iterator[int]:
    """`count` elements of a pool of _POOL, at random: twice as fast as `rng.choices()`."""
    table = pool * (65536 // _POOL)
    return map(table.__getitem__, array("H", rng.randbytes(2 * count)))


def _times(rng: random.Random, span_us: tuple[int, int], count: int) -> "array[int]":
    """Times that never fall: half of the trades are fills of the order before, and the ends of the span have some."""
    begin_us, end_us = span_us
    if count < 5 or end_us - begin_us < 4 * _MILLISECOND_US:
        return array("q", sorted(rng.choices(range(begin_us, end_us), k=count)))
    edge_us = _MILLISECOND_US
    head = [begin_us, begin_us + rng.randrange(1, edge_us)]
    tail = [end_us - rng.randrange(2, edge_us), end_us - 1]
    mean_us = max(2.0, (end_us - begin_us) / count / (1 - _SAME_ORDER_P - _SAME_MILLISECOND_P))
    pool = [0] * int(_POOL * _SAME_ORDER_P)
    pool += [rng.randrange(1, edge_us) for _ in range(int(_POOL * _SAME_MILLISECOND_P))]
    pool += [1 + int(rng.expovariate(1 / mean_us)) for _ in range(_POOL - len(pool))]
    offsets = list(accumulate(_drawn(rng, pool, count - 4)))
    room, whole = end_us - begin_us - 2 * edge_us, offsets[-1] + 1
    start_us = begin_us + edge_us
    return array("q", chain(head, [start_us + offset * room // whole for offset in offsets], tail))


def _prices(rng: random.Random, spec: Spec, count: int) -> "array[int]":
    """A walk on the tick that ends where it began, at the price of the specification, as the next stretch begins."""
    tick, half = spec.tick_e8, count // 2
    width = max(0.6, spec.price_e8 * 8e-6 / tick)
    still = int(_POOL * (1 - _MOVES_P))
    pool = [0] * still + [round(rng.gauss(0, width)) * tick for _ in range(_POOL - still)]
    steps = list(_drawn(rng, pool, half))
    back = [-step for step in steps]
    # The way back is the way out in another order, so that the two do not mirror each other.
    cut = rng.randrange(half) if half else 0
    prices = array("q", accumulate(chain(steps, back[cut:], back[:cut]), initial=spec.price_e8))
    # The first value is the price before the first step, which one of an even number of trades would not need.
    prices = prices[1 - count % 2 :]
    if count and min(prices) < tick:
        prices = array("q", [max(tick, price) for price in prices])
    return prices


def _quantities(rng: random.Random, spec: Spec, count: int) -> "array[int]":
    """Multiples of the step, worth about 100 of the quote currency each, with a long tail."""
    pool = []
    for _ in range(_POOL):
        worth_e8 = 100 * E8 * rng.expovariate(1.0) ** 2
        pool.append((1 + int(worth_e8 * E8 / spec.price_e8 / spec.step_e8)) * spec.step_e8)
    return array("q", _drawn(rng, pool, count))
