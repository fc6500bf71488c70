"""Bars of the stand-in exchange: what klines and ticker/24hr say, exactly, from the trades themselves.

Whole minutes are computed once: those of a deep stretch are cached, those of the tape grow with it. Pure.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import chain, compress, groupby
from operator import mul
from typing import NamedTuple

from tools.exchange.history import Columns, Past, Stretch
from tools.exchange.ledger import Ledger
from tools.exchange.tape import E8, from_e8

MINUTE_US = 60_000_000

CACHED_STRETCHES_MAX = 128
"""Stretches of a symbol whose minutes are in memory (a day takes half a megabyte)."""

_TAKEN = bytes([1, 0]) + bytes(254)
"""Turns the makers into the selectors of the trades in which the taker bought."""


class Bar(NamedTuple):
    """The trades of a period. Prices and quantities in 1e-8, sums of price times quantity in 1e-16."""

    open: int
    high: int
    low: int
    close: int
    base: int
    quote_e16: int
    trades: int
    taker_base: int
    taker_quote_e16: int


class Ask(NamedTuple):
    """Which bars are wanted: open times from `start_us` to `end_us`, both included; None: the newest ones."""

    unit_us: int
    start_us: int | None
    end_us: int | None
    limit: int


def fold(columns: Columns, unit_us: int) -> dict[int, Bar]:
    """The bars that have trades, by the number of the period since 1970."""
    bars: dict[int, Bar] = {}
    begin = 0
    for number, group in groupby([time_us // unit_us for time_us in columns.times]):
        end = begin + sum(1 for _ in group)
        add(bars, number, _bar(columns.part(begin, end)))
        begin = end
    return bars


def add(bars: dict[int, Bar], number: int, bar: Bar) -> None:
    """Puts a bar into its period, behind the trades that are there."""
    bars[number] = merged(bars[number], bar) if number in bars else bar


def merged(one: Bar, other: Bar) -> Bar:
    """The bar of both; the trades of `other` are the later ones."""
    return Bar(
        one.open,
        max(one.high, other.high),
        min(one.low, other.low),
        other.close,
        one.base + other.base,
        one.quote_e16 + other.quote_e16,
        one.trades + other.trades,
        one.taker_base + other.taker_base,
        one.taker_quote_e16 + other.taker_quote_e16,
    )


def _bar(columns: Columns) -> Bar:
    _, prices, quantities, _, makers = columns
    values, taken = list(map(mul, prices, quantities)), makers.translate(_TAKEN)
    return Bar(
        prices[0],
        max(prices),
        min(prices),
        prices[-1],
        sum(quantities),
        sum(values),
        len(prices),
        sum(compress(quantities, taken)),
        sum(compress(values, taken)),
    )


def kline_row(open_us: int, unit_us: int, bar: Bar, micro: bool) -> list[object]:
    """One row of klines; the close time is the last millisecond, or microsecond, of the period."""
    unit = 1 if micro else 1000
    return [
        open_us // unit,
        from_e8(bar.open),
        from_e8(bar.high),
        from_e8(bar.low),
        from_e8(bar.close),
        from_e8(bar.base),
        (open_us + unit_us) // unit - 1,
        # The sum is exact, and then cut to eight decimals.
        from_e8(bar.quote_e16 // E8),
        bar.trades,
        from_e8(bar.taker_base),
        from_e8(bar.taker_quote_e16 // E8),
        "0",
    ]


def periods(ask: Ask, first_us: int, last_us: int) -> range:
    """The periods that are wanted, counted since 1970, of those from the first trade to now."""
    unit = ask.unit_us
    low, high = first_us // unit, last_us // unit
    if ask.start_us is not None:
        low = max(low, -(-ask.start_us // unit))
    if ask.end_us is not None:
        high = min(high, ask.end_us // unit)
    if ask.start_us is None:
        low = max(low, high - ask.limit + 1)
    return range(low, min(high, low + ask.limit - 1) + 1)


def in_a_row(numbers: range, unit_us: int, found: Mapping[int, Bar], close: int) -> list[tuple[int, Bar]]:
    """The bars of all periods, with their open times; one without trades repeats the close before it."""
    bars = []
    for number in numbers:
        bar = found.get(number) or Bar(close, close, close, close, 0, 0, 0, 0, 0)
        close = bar.close
        bars.append((number * unit_us, bar))
    return bars


class Bars:
    """The bars of one symbol. `shown` in its calls: how many trades of the ledger REST shows."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._deep: OrderedDict[int, dict[int, Bar]] = OrderedDict()
        self._lock = threading.Lock()
        self._minutes: dict[int, Bar] = {}
        self._done = 0
        self._reordered = 0

    def klines(self, ask: Ask, shown: int, now_us: int) -> list[tuple[int, Bar]]:
        """The bars with their open times, up to the running one; one without trades repeats the close before it."""
        unit, numbers = ask.unit_us, self._numbers(ask, shown, now_us)
        if not numbers:
            return []
        found = self._found(numbers, unit, shown)
        return in_a_row(numbers, unit, found, self._close_before(numbers.start * unit, shown))

    def warm(self, ask: Ask, shown: int, now_us: int) -> None:
        """Makes the days that klines() will need; runs in a thread, as many days take seconds."""
        past, numbers = self._ledger.past, self._numbers(ask, shown, now_us)
        if past is not None and numbers and ask.unit_us % MINUTE_US == 0:
            for stretch in past.within(numbers.start * ask.unit_us, numbers.stop * ask.unit_us):
                self._of(past, stretch)

    def _numbers(self, ask: Ask, shown: int, now_us: int) -> range:
        """The periods that are wanted, counted since 1970."""
        first_us = self._ledger.first_us() if shown or self._ledger.past else None
        return range(0) if first_us is None else periods(ask, first_us, max(now_us, self._last_us(shown)))

    def span(self, begin_us: int, shown: int) -> Bar | None:
        """The bar of all trades since that time; None if there are none."""
        end_us = self._last_us(shown) + 1
        whole_us = min(end_us, -(-begin_us // MINUTE_US) * MINUTE_US)
        bars: dict[int, Bar] = {}
        for columns in self._columns(begin_us, whole_us, shown):
            for bar in fold(columns, MINUTE_US).values():
                add(bars, 0, bar)
        for _, bar in self._whole_minutes(whole_us // MINUTE_US, end_us // MINUTE_US + 1, shown):
            add(bars, 0, bar)
        return bars.get(0)

    def _found(self, numbers: range, unit: int, shown: int) -> dict[int, Bar]:
        """The bars of these periods that have trades."""
        bars: dict[int, Bar] = {}
        begin_us, end_us = numbers.start * unit, numbers.stop * unit
        if unit % MINUTE_US:
            for columns in self._columns(begin_us, end_us, shown):
                for number, bar in fold(columns, unit).items():
                    add(bars, number, bar)
        else:
            for minute, bar in self._whole_minutes(begin_us // MINUTE_US, end_us // MINUTE_US, shown):
                add(bars, minute * MINUTE_US // unit, bar)
        return bars

    def _columns(self, begin_us: int, end_us: int, shown: int) -> Iterator[Columns]:
        begin, end = self._ledger.positions(begin_us, end_us)
        deep = self._ledger.past.between(begin_us, end_us) if self._ledger.past else ()
        return chain(deep, (self._ledger.columns(begin, min(shown, end)),))

    def _whole_minutes(self, first: int, end: int, shown: int) -> Iterator[tuple[int, Bar]]:
        """The minutes from `first` to before `end`; one that several stretches share comes in parts, in order."""
        past = self._ledger.past
        for stretch in past.within(first * MINUTE_US, end * MINUTE_US) if past else ():
            assert past is not None
            minutes = self._of(past, stretch)
            yield from ((minute, bar) for minute, bar in minutes.items() if first <= minute < end)
        self._follow(shown)
        first = max(first, min(self._minutes, default=end))
        numbers = range(first, min(end, self._last_us(shown) // MINUTE_US + 1))
        yield from ((minute, self._minutes[minute]) for minute in numbers if minute in self._minutes)

    def _of(self, past: Past, stretch: Stretch) -> dict[int, Bar]:
        key = stretch.first_id
        with self._lock:
            if key in self._deep:
                self._deep.move_to_end(key)
                return self._deep[key]
        made = fold(past.columns(stretch), MINUTE_US)
        with self._lock:
            self._deep[key] = made
            if len(self._deep) > CACHED_STRETCHES_MAX:
                self._deep.popitem(last=False)
        return made

    def _follow(self, shown: int) -> None:
        """Adds the trades that REST did not show before to the minutes."""
        if self._reordered != self._ledger.reordered:
            self._minutes, self._done, self._reordered = {}, 0, self._ledger.reordered
        begin = max(0, self._done - self._ledger.forgotten)
        for minute, bar in fold(self._ledger.columns(begin, shown), MINUTE_US).items():
            add(self._minutes, minute, bar)
        self._done = max(self._done, shown + self._ledger.forgotten)

    def _last_us(self, shown: int) -> int:
        """The time of the last trade that REST shows."""
        if shown:
            return self._ledger.trade(shown - 1).time_us
        past = self._ledger.past
        return past.trade(past.end_id - 1).time_us if past else -1

    def _close_before(self, time_us: int, shown: int) -> int:
        """The price of the last trade before a time; 0 if there is none."""
        position = min(shown, self._ledger.positions(time_us, time_us)[0])
        if position:
            return self._ledger.trade(position - 1).price_e8
        past = self._ledger.past
        before = past.id_at(time_us) - 1 if past else 0
        return past.trade(before).price_e8 if past and before >= past.first_id else 0
