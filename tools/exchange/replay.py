"""The replay of stored trades: the tape that is read from the database, its clock, and what of it is remembered.

Trades keep their times: they are sent at the distances at which they happened, divided by the speed, and the exchange's
clock is that of the tape. Of what was sent only the newest place and a hash are in memory; REST reads the table.
"""

import asyncio
import hashlib
import time
from itertools import islice

from storage.pages import Place
from tools.exchange.clock import Clock
from tools.exchange.ledger import Ledger, Truth
from tools.exchange.pace import Emission, Item, Pace
from tools.exchange.stored import Stored, time_of, time_us
from tools.exchange.streams import Hub
from tools.exchange.tape import Recorded, Trade, TradeFrame, truth_line

CHUNK_TRADES = 2_000
"""Prepared at once, in a thread, while those before are sent."""


class Replayed(Ledger):
    """How far the replay of a symbol is. `place`: up to where its trades have happened; None: none has."""

    def __init__(self, symbol: str, place: Place | None) -> None:
        super().__init__(symbol)
        self.place = place
        self._last_id = 0
        self._last_us: int | None = None
        self._count = 0
        self._sha256 = hashlib.sha256()

    def add(self, trade: Trade, at_s: float) -> bool:
        """Takes note of a trade that is sent. Returns False if it was sent before."""
        if trade.trade_id <= self._last_id:
            return False
        self.first_streamed_id = self.first_streamed_id or trade.trade_id
        self._last_id = trade.trade_id
        self._last_us = max(self._last_us or 0, trade.time_us)
        self.place = Place(time_of(self._last_us), trade.trade_id)
        self._count += 1
        self._sha256.update(truth_line(trade).encode())
        return True

    def last_us(self) -> int | None:
        """The time of the newest trade that was sent."""
        return self._last_us

    def newest_id(self, shown: int | None = None) -> int:
        """The highest id that has happened; 0: none has."""
        return self.place.trade_id if self.place else 0

    def summary(self) -> dict[str, object]:
        """Count, first and last id and sha256 of the lines of the sent trades."""
        return {
            "symbol": self.symbol,
            "count": self._count,
            "first_id": self.first_streamed_id,
            "last_id": self._last_id or None,
            "sha256": self._sha256.hexdigest(),
        }


class Replay(Emission):
    """Publishes stored trades; they are read ahead in a thread, so no client waits for the database."""

    def __init__(self, stored: Stored, pace: Pace, truth: Truth, hub: Hub) -> None:
        super().__init__(iter(()), pace, truth, hub)
        self._trades = stored.trades()
        self._start_us, self._end_us = time_us(stored.start), time_us(stored.end)
        self._offset_us = 0
        self._streams = {symbol: f"{symbol.lower()}@trade" for symbol in stored.symbols}
        self._coming: asyncio.Task[list[Recorded]] | None = None

    async def run(self) -> None:
        """As of any tape. Raises db.DatabaseError."""
        await self._prepare()
        await super().run()

    def now_us(self) -> int:
        """The time of the tape, which does not pass before it starts and after it ends."""
        newest_us = max(self._start_us, self.truth.newest_us())
        if self.state != "running" or self.pace.factor is None:
            return self._end_us if self.state == "ended" else newest_us
        passed_us = int((time.monotonic() - self._began_s) * self.pace.factor * 1e6)
        return max(newest_us, min(self._end_us, self._start_us + passed_us))

    def _next(self) -> Item | None:
        return self._ahead[0] if self._ahead else None

    async def _wait(self) -> bool:
        if len(self._ahead) < CHUNK_TRADES:
            await self._prepare()
        return await super()._wait()

    async def _prepare(self) -> None:
        """Takes in the next chunk, which is waited for only if there is nothing else; none is left: it is empty."""
        if self._coming is None:
            self._coming = asyncio.create_task(asyncio.to_thread(self._chunk))
        if self._ahead and not self._coming.done():
            return
        chunk = await self._coming
        self._ahead.extend(chunk)
        if chunk:
            self._coming = asyncio.create_task(asyncio.to_thread(self._chunk))

    def _chunk(self) -> list[Recorded]:
        return [self._item(trade) for trade in islice(self._trades, CHUNK_TRADES)]

    def _item(self, trade: Trade) -> Recorded:
        # By rising id a time may run back a little; the trade is then sent right behind the one before.
        self._offset_us = max(self._offset_us, trade.time_us - self._start_us)
        return Recorded(self._offset_us, TradeFrame(self._streams[trade.symbol], trade, trade.time_us))


class ReplayClock(Clock):
    """The exchange's clock: that of the tape."""

    def __init__(self, replay: Replay) -> None:
        super().__init__(0, replay.now_us)


def ledgers(stored: Stored) -> dict[str, Ledger]:
    """A ledger for each symbol, of which nothing was sent yet."""
    return {symbol: Replayed(symbol, stored.before.get(symbol)) for symbol in stored.symbols}
