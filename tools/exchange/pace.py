"""When the trades of the stand-in exchange happen: the pace of its tape, and the clock that its trades carry."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from tools.exchange.ledger import Truth
from tools.exchange.streams import Hub
from tools.exchange.tape import Frame

BATCH_FRAMES_MAX = 1024
"""Frames that are published at once; a larger order is still sent whole."""

SLEEP_S_MAX = 0.25
"""The longest single wait for the next trade, so that a stop is noticed soon."""

BEHIND_S_MAX = 1.0
"""If the process was held up for longer than this, the tape continues from now instead of catching up."""

AHEAD_ITEMS_MAX = 100_000
"""Items prepared while a tape at full speed waits for its clients (40 MB)."""

_AHEAD_STEP = 500
_FLUSH_S = 1.0


class Item(Protocol):
    """One item of a tape: an order or a recorded line."""

    @property
    def offset_us(self) -> int:
        """When it happens, in microseconds since the start of the tape."""

    def frames(self, time_us: int, event_us: int) -> list[Frame]:
        """Its messages at that time."""

    def first(self, count: int) -> "Item":
        """At most its first `count` trades."""


class Pace(NamedTuple):
    """How the tape runs. `factor` None: as fast as the clients read. `virtual_us`: where times start, if not None.

    `trades_max` and `duration_s` (0: no limit) say when it ends, `wait_clients` when it starts.
    """

    factor: float | None = 1.0
    virtual_us: int | None = None
    wait_clients: int = 0
    trades_max: int = 0
    duration_s: float = 0.0


class Emission:
    """Publishes a tape; every trade is added to the truth before any client gets it."""

    def __init__(self, items: Iterator[Item], pace: Pace, truth: Truth, hub: Hub) -> None:
        self.items = items
        self.pace = pace
        self.truth = truth
        self.hub = hub
        self.state = "waiting"
        self.emitted = 0
        self.behind_s = 0.0
        self._began_s = 0.0
        self._base_us = 0
        self._flushed_s = 0.0
        self._ahead: deque[Item] = deque()

    async def run(self) -> None:
        """Waits for its clients, then publishes until the tape, its count or its duration ends."""
        while self.hub.subscribed() < self.pace.wait_clients:
            if self.pace.factor is None and len(self._ahead) < AHEAD_ITEMS_MAX:
                # Preparing items now saves the client under test processor time later.
                self._ahead.extend(itertools.islice(self.items, _AHEAD_STEP))
            await asyncio.sleep(0.005)
        self.state = "running"
        self._began_s = time.monotonic()
        self._base_us = time.time_ns() // 1000
        while not self._over():
            frames = self._due()
            if frames:
                self._publish(frames)
            if not await self._wait():
                break
        self.truth.flush()
        self.state = "ended"

    def _over(self) -> bool:
        enough = self.pace.trades_max and self.emitted >= self.pace.trades_max
        late = self.pace.duration_s and time.monotonic() - self._began_s >= self.pace.duration_s
        return bool(enough or late)

    def _next(self) -> Item | None:
        if not self._ahead:
            self._ahead.extend(itertools.islice(self.items, 1))
        return self._ahead[0] if self._ahead else None

    def _due_s(self, item: Item) -> float:
        """When it is due, on the monotonic clock; at full speed always in the past."""
        return self._began_s + item.offset_us / 1e6 / self.pace.factor if self.pace.factor else 0.0

    def _due(self) -> list[Frame]:
        """The messages that are due, at most BATCH_FRAMES_MAX plus one order."""
        now_s, frames = time.monotonic(), list[Frame]()
        left = self.pace.trades_max - self.emitted if self.pace.trades_max else BATCH_FRAMES_MAX
        while len(frames) < min(left, BATCH_FRAMES_MAX):
            item = self._next()
            if item is None or self._due_s(item) > now_s:
                break
            self._ahead.popleft()
            if self.pace.trades_max:
                item = item.first(left - len(frames))
            frames += item.frames(*self._times_us(item))
        return frames

    def _times_us(self, item: Item) -> tuple[int, int]:
        """Trade time and event time: by the machine's clock, or counted from the virtual start."""
        if self.pace.virtual_us is not None:
            time_us = self.pace.virtual_us + item.offset_us
            return time_us, time_us + 1000
        if self.pace.factor is None:
            # At full speed the tape's own pace does not matter: a trade happens when it is sent. Time never goes back.
            self._base_us = max(self._base_us, time.time_ns() // 1000)
            return self._base_us, self._base_us
        time_us = self._base_us + int(item.offset_us / self.pace.factor)
        return time_us, max(time_us, self._base_us + int((time.monotonic() - self._began_s) * 1e6))

    def _publish(self, frames: list[Frame]) -> None:
        now_s = time.monotonic()
        for frame in frames:
            if frame.trade is not None:
                self.truth.add(frame.trade, now_s)
                self.emitted += 1
        self.truth.keep()
        if now_s - self._flushed_s > _FLUSH_S:
            self._flushed_s = now_s
            self.truth.flush()
            self._follow_clock(now_s)
        self.hub.publish(frames)

    async def _wait(self) -> bool:
        """Waits for the clients (full speed) or for the next item. Returns whether there is one."""
        item = self._next()
        if item is None:
            return False
        if self.pace.factor is None:
            await self.hub.drained()
            return True
        wait_s = self._due_s(item) - time.monotonic()
        if wait_s < -BEHIND_S_MAX:
            self.behind_s -= wait_s
            self._began_s -= wait_s
            self._base_us -= int(wait_s * 1e6)
        await asyncio.sleep(min(SLEEP_S_MAX, max(0.0, wait_s)))
        return True

    def _follow_clock(self, now_s: float) -> None:
        """Moves the tape's clock forward if the machine's is ahead, as after a suspend; time never goes back."""
        ahead_us = time.time_ns() // 1000 - self._base_us - int((now_s - self._began_s) * 1e6)
        if self.pace.factor is not None and ahead_us > BEHIND_S_MAX * 1e6:
            self._base_us += ahead_us
