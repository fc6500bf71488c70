"""What the feed knows of one symbol: its last trades, the candles that grow, and how fast it goes. No database here."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import db
from model import candles as bars
from model.lag import lag_ms, percentiles
from report import answers
from storage import pages
from storage.pages import Place
from tools.api.cursor import Seen
from tools.api.shapes import Tick

TAPE_TRADES = 20
LAG_TRADES = 200
RATE_S = 10.0
"""Trades per second are those of so long."""
KNOWN_CANDLES = 3
"""Of a resolution: the one that grows and those before it, for a trade whose time is slightly before the newest's."""
TICK_CANDLES = 300
"""Of a resolution, in one tick; of more, which come after a long silence, the newest."""


Missing = Mapping[tuple[int, datetime], int]
"""How many ids are missing in candles, by resolution and begin."""


class Start(NamedTuple):
    """What is stored of a symbol when the feed begins with it: the last trades, newest first, and their candles."""

    newest: list[db.Trade]
    candles: list[bars.Candle]


class Line:
    """What the feed knows of one symbol."""

    def __init__(self, start: Start, now: float) -> None:
        newest = start.newest[0] if start.newest else None
        self.place = pages.place_of(newest) if newest else Place(pages.EARLIEST + pages.MARGIN, 0)
        self.seen = Seen(max((trade.trade_id for trade in start.newest), default=0))
        self.place = self.place._replace(trade_id=self.seen.high)
        self.newest = newest
        self._tape = deque(reversed(start.newest), TAPE_TRADES)
        self._lags = deque(_lags(start.newest), LAG_TRADES)
        # Of each resolution by time, oldest first; one that is older than these is not known whole.
        self._known = {candle.resolution: {candle.timestamp: candle} for candle in start.candles}
        self._grown: dict[tuple[int, datetime], bars.Candle] = {}
        self._pending: list[db.Trade] = []
        self._counted = 0
        self._counts = deque([(now, 0)])

    def add(self, trades: Sequence[db.Trade]) -> list[db.Trade]:
        """Takes in what was read; those that are new, in order of their ids."""
        fresh = [trade for trade in sorted(trades, key=lambda one: one.trade_id) if self.seen.add(trade.trade_id)]
        if fresh:
            self.place = Place(max(self.place.timestamp, *(trade.timestamp for trade in fresh)), self.seen.high)
            self.newest = fresh[-1]
            self._counted += len(fresh)
            self._pending += fresh
            self._lags.extend(_lags(fresh[-LAG_TRADES:]))
            self._tape.extend(fresh[-TAPE_TRADES:])
            self._grow(bars.of_trades(fresh))
        return fresh

    def renew(self, trades: Sequence[db.Trade], growing: Sequence[bars.Candle]) -> list[db.Trade]:
        """Takes in what was read, as `add` does, and the candles of the same moment, with what was stored late."""
        fresh = self.add(trades)
        for candle in growing:
            resolution, begin = candle.resolution, candle.timestamp
            if self._known.get(resolution, {}).get(begin) != candle:
                self._grown[resolution, begin] = candle
            # Those before it may lack what was stored late as well, so they are not known whole any more.
            self._known[resolution] = {begin: candle}
        return fresh

    def _grow(self, candles: Iterable[bars.Candle]) -> None:
        for candle in sorted(candles, key=lambda one: one.timestamp):
            resolution, begin = candle.resolution, candle.timestamp
            known = self._known.setdefault(resolution, {})
            if begin in known:
                candle = bars.joined(known[begin], candle)
            elif known and begin < next(iter(known)):
                # Some of its trades were stored before this began.
                continue
            known[begin] = self._grown[resolution, begin] = candle
            self._known[resolution] = dict(sorted(known.items())[-KNOWN_CANDLES:])

    @property
    def grown(self) -> list[bars.Candle]:
        """The candles that the next tick tells of, of each resolution the newest TICK_CANDLES."""
        # In order of resolution and time.
        groups = groupby(sorted(self._grown), key=itemgetter(0))
        return [self._grown[key] for _, keys in groups for key in list(keys)[-TICK_CANDLES:]]

    @property
    def growing(self) -> list[bars.Candle]:
        """The candles that the newest trade is in."""
        return [known[max(known)] for known in self._known.values()]

    def tick(self, now: float, missing: Missing) -> Tick | None:
        """What has happened since the last call; None: nothing. `missing`: the ids missing in each of `grown`, if any
        are."""
        self._counts.append((now, self._counted))
        while now - self._counts[0][0] > RATE_S and len(self._counts) > 2:
            self._counts.popleft()
        if not self._pending:
            return None
        trades, self._pending = self._pending, []
        candles, self._grown = self.grown, {}
        return self._tick(trades, trades[-TAPE_TRADES:], candles, missing)

    def snapshot(self, missing: Missing) -> Tick | None:
        """How it is now, as a tick of no trades; None: nothing is stored. `missing`: those of `growing`."""
        return self._tick([], list(self._tape), self.growing, missing) if self.newest else None

    def _tick(
        self,
        trades: Sequence[db.Trade],
        tape: Sequence[db.Trade],
        candles: Iterable[bars.Candle],
        missing: Missing,
    ) -> Tick:
        assert self.newest is not None
        prices = [trade.price for trade in trades]
        grown: dict[str, list[answers.Bar]] = {}
        for candle in candles:
            shown = answers.bar(candle, missing.get((candle.resolution, candle.timestamp), 0))
            grown.setdefault(answers.RESOLUTION_NAMES[candle.resolution], []).append(shown)
        return Tick(
            self.newest.symbol,
            answers.time(datetime.now(UTC)),
            len(trades),
            answers.amount(min(prices)) if prices else None,
            answers.amount(max(prices)) if prices else None,
            answers.trade(self.newest),
            [answers.trade(trade) for trade in reversed(tape)],
            grown,
            self.per_second,
            self.lag_ms,
        )

    @property
    def per_second(self) -> float | None:
        """Trades per second in the last RATE_S; None: it is too early to say."""
        (since, before), (until, after) = self._counts[0], self._counts[-1]
        return round((after - before) / (until - since), 1) if until - since >= 1 else None

    @property
    def lag_ms(self) -> int | None:
        """The median lag of the last trades; None: they were all back-filled."""
        return percentiles(list(self._lags))[0]


def _lags(trades: Sequence[db.Trade]) -> Iterator[int]:
    return (lag for lag in map(lag_ms, trades) if lag is not None)
