"""Who listens to the streams, and how what the feed has read reaches them: bounded queues on the event loop.

The feed's thread only posts; everything else here runs on the event loop, so nothing needs a lock.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from tools.api.cursor import Seen
from tools.api.shapes import Status, Tick

STREAMS_MAX = 100
"""Streams at once; one more is answered with 503."""
QUEUE_BYTES_MAX = 4_000_000
"""A client that lets so much wait is cut off; it comes back with Last-Event-ID and loses nothing."""
STALL_S = 3.0
"""The feed posts a status each second. After so long without one its database does not answer: clients are told."""
STALL_AGAIN_S = 1.0
_MESSAGE_BYTES = 200
"""What a message weighs beside its text."""


class Trades(NamedTuple):
    """Trades of a symbol as (id, JSON), in the order in which they are to be sent."""

    symbol: str
    rows: Sequence[tuple[int, bytes]]


class Beat(NamedTuple):
    """A tick of a symbol, up to the trade `last_id`."""

    symbol: str
    last_id: int
    data: bytes


class Word(NamedTuple):
    """The status, as JSON, with the symbols of one client."""

    database: bool
    data: bytes


class Begin(NamedTuple):
    """From here on: of each symbol the trades with an id above that of `highs` follow. `ticks` is how things are. Both
    have the symbols of those who begin."""

    highs: dict[str, int]
    ticks: dict[str, Tick]


Message: TypeAlias = Trades | Beat | Word | Begin


class FullError(Exception):
    """There are as many streams as there may be."""


class Listener:
    """A client of the stream: what it wants, what it has seen, and what waits for it. `word` is the last status that
    was put. `ended`: nothing more follows."""

    def __init__(self, symbols: frozenset[str], ticks: bool, seen: dict[str, Seen]) -> None:
        self.symbols, self.ticks, self.seen = symbols, ticks, seen
        self.ended = False
        self.word: Word | None = None
        self._queue: deque[Message] = deque()
        self._bytes = 0
        self._news = asyncio.Event()

    def put(self, message: Message) -> None:
        """Adds what it wants of the messages; ends it when too much waits."""
        if isinstance(message, Word):
            self.word = message
        if isinstance(message, Trades | Beat) and (
            message.symbol not in self.symbols or isinstance(message, Beat) != self.ticks
        ):
            return
        self._bytes += _weight(message)
        self._queue.append(message)
        if self._bytes > QUEUE_BYTES_MAX:
            self.end()
        self._news.set()

    async def take(self, seconds: float) -> list[Message]:
        """What waits; waits itself up to `seconds` for the first."""
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except TimeoutError:
            return []
        self._news.clear()
        messages = list(self._queue)
        self._queue.clear()
        self._bytes = 0
        return messages

    def end(self) -> None:
        """Ends the stream; what waits is dropped."""
        self.ended = True
        self._queue.clear()
        self._news.set()


class Hub:
    """The listeners of this process."""

    def __init__(self) -> None:
        self.closing = False
        self._listeners: set[Listener] = set()
        self._joining: deque[Listener] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        # Replaced and never changed, so that the feed may read it at any time.
        self._wanted: tuple[frozenset[str], bool] = (frozenset(), False)
        self._everyone: set[Listener] = set()
        self._stalled: Callable[[], Status] | None = None
        self._stall: asyncio.TimerHandle | None = None

    def on_stall(self, status: Callable[[], Status]) -> None:
        """Says what clients are told when the feed hangs: `status` is called on the event loop."""
        self._stalled = status

    def join(self, listener: Listener) -> None:
        """Lets the feed begin with `listener`. Raises FullError."""
        if len(self._everyone) >= STREAMS_MAX or self.closing:
            raise FullError
        self._loop = asyncio.get_running_loop()
        self._everyone.add(listener)
        if len(self._everyone) == 1:
            self._watch(STALL_S)
        self._count()
        self._joining.append(listener)

    def leave(self, listener: Listener) -> None:
        """Forgets `listener`."""
        listener.end()
        self._everyone.discard(listener)
        self._listeners.discard(listener)
        self._count()

    def close(self) -> None:
        """Ends all streams, and refuses new ones."""
        self.closing = True
        for listener in self._everyone:
            listener.end()

    def wanted(self) -> tuple[frozenset[str], bool]:
        """The symbols that anybody listens to, and whether anybody wants each single trade. For the feed."""
        return self._wanted

    def joining(self) -> list[Listener]:
        """Those who have joined since the last call. For the feed, which posts a Begin to them."""
        return [self._joining.popleft() for _ in range(len(self._joining))]

    def post(self, messages: Sequence[Message]) -> None:
        """Hands messages to those who have begun, in order. For the feed."""
        self._call(self._deliver, messages)

    def post_status(self, status: Status) -> None:
        """Hands the status to all, to each with its symbols, even to those who cannot begin because the database is
        away. For the feed."""
        self._call(self._tell, status)

    def post_begin(self, listeners: Sequence[Listener], begin: Begin) -> None:
        """Lets `listeners` begin: what is posted from now on they get too. For the feed."""
        self._call(self._deliver_begin, listeners, begin)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _deliver(self, messages: Sequence[Message]) -> None:
        for listener in self._listeners:
            for message in messages:
                listener.put(message)

    def _tell(self, status: Status) -> None:
        self._watch(STALL_S)
        self._deliver_status(status)

    def _watch(self, seconds: float) -> None:
        if self._stall is not None:
            self._stall.cancel()
        here = self._loop is not None and self._everyone and not self.closing
        self._stall = self._loop.call_later(seconds, self._say_stalled) if here and self._loop else None

    def _say_stalled(self) -> None:
        self._watch(STALL_AGAIN_S)
        if self._stalled is not None:
            self._deliver_status(self._stalled())

    def _deliver_status(self, status: Status) -> None:
        for listener in self._everyone:
            symbols = {name: status.symbols[name] for name in listener.symbols if name in status.symbols}
            data = msgspec.json.encode(msgspec.structs.replace(status, symbols=symbols))
            listener.put(Word(status.database, data))

    def _deliver_begin(self, listeners: Sequence[Listener], begin: Begin) -> None:
        for listener in listeners:
            if listener in self._everyone:
                self._listeners.add(listener)
                listener.put(begin)

    def _count(self) -> None:
        symbols = frozenset(symbol for listener in self._everyone for symbol in listener.symbols)
        self._wanted = symbols, any(not listener.ticks for listener in self._everyone)


def _weight(message: Message) -> int:
    if isinstance(message, Trades):
        return sum(len(data) + _MESSAGE_BYTES for _, data in message.rows)
    return _MESSAGE_BYTES + (0 if isinstance(message, Begin) else len(message.data))
