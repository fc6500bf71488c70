"""A stream of server-sent events: first what a client has missed since its last event, then what is new.

A client that comes back shows the id of its last event (Last-Event-ID), which says what it has seen; so nothing is
lost, however long it was away, and nothing is kept for it here.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import ContentStream, StreamingResponse
from starlette.types import Receive, Scope, Send

import db
from db import Connection
from report import answers
from storage import pages
from storage.pages import Place
from tools.api import cursor
from tools.api.cursor import Seen
from tools.api.hub import Beat, Begin, Hub, Listener, Message, Trades, Word
from tools.api.sessions import AwayError, Sessions
from tools.api.shapes import Tick

T = TypeVar("T")

SILENT_S_MAX = 10.0
"""After so long without an event a comment is sent, so that proxies and clients know that the stream lives."""
RETRY_MS = 1_000
"""What a browser is told to wait before it comes back."""
PAGE_TRADES = 1_000
FOLD_TRADES_MAX = 200_000
"""A stream of ticks that has missed more begins anew, and says so: reading them would take seconds."""
AWAY_S = 1.0
ALIVE_S = 1.0
"""How often a client hears something while what it has missed is read."""


class EndedError(Exception):
    """The stream has ended while it was asking the database."""


class Missed(NamedTuple):
    """How many trades a stream of ticks has missed, and the low and the high of their price."""

    trades: int = 0
    low: Decimal | None = None
    high: Decimal | None = None

    def plus(self, trades: list[db.Trade]) -> "Missed":
        """These too."""
        prices = [trade.price for trade in trades] + [price for price in self[1:] if price is not None]
        return Missed(self.trades + len(trades), min(prices), max(prices)) if prices else self

    def told(self, tick: Tick) -> Tick:
        """`tick` with the numbers of what was missed."""
        low, high = (None if price is None else answers.amount(price) for price in self[1:])
        return msgspec.structs.replace(tick, count=self.trades, low=low, high=high)


class EndingResponse(StreamingResponse):
    """A streamed answer that calls `on_end`, whatever ends it: its last piece, the client or an error."""

    def __init__(self, content: ContentStream, on_end: Callable[[], None], **options: Any) -> None:
        super().__init__(content, **options)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the pieces."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


class LiveResponse(EndingResponse):
    """An answer without an end of its own: it ends as soon as the client is gone, and not with the next event."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the pieces."""
        watching = asyncio.create_task(self._watch(receive))
        try:
            await super().__call__(scope, receive, send)
        finally:
            watching.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._on_end()


def respond(hub: Hub, sessions: Sessions, listener: Listener) -> LiveResponse:
    """The stream of `listener`, which has joined `hub`, as an answer."""
    # Without the last header nginx would keep the events until its buffer is full.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    pieces = events(sessions, listener)
    return LiveResponse(pieces, partial(hub.leave, listener), media_type="text/event-stream", headers=headers)


async def events(sessions: Sessions, listener: Listener) -> AsyncIterator[bytes]:
    """The stream of `listener`, in pieces of whole events, until it is ended."""
    stream = Stream(sessions, listener)
    yield f"retry: {RETRY_MS}\n\n".encode()
    with suppress(EndedError):
        while not listener.ended:
            messages = await listener.take(SILENT_S_MAX)
            begin = next((message for message in messages if isinstance(message, Begin)), None)
            if begin is not None:
                async for piece in _audibly(stream, listener, stream.begin(begin)):
                    yield piece
            piece = b"".join(map(stream.write, messages)) if messages else b": nothing new\n\n"
            if piece:
                yield piece


async def _audibly(stream: "Stream", listener: Listener, pieces: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """`pieces`, and while one is waited for, the status: a client must not take a slow database for a dead API."""
    told = listener.word
    coming = asyncio.ensure_future(anext(pieces, None))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=ALIVE_S)
            if not done:
                word, told = (listener.word if listener.word is not told else None), listener.word
                yield (stream.write(word) if word else b"") or b": still reading\n\n"
                continue
            piece = coming.result()
            if piece is None:
                return
            yield piece
            coming = asyncio.ensure_future(anext(pieces, None))
    finally:
        coming.cancel()


class Stream:
    """Writes the events of one listener, and keeps account of what it has seen."""

    def __init__(self, sessions: Sessions, listener: Listener) -> None:
        self._sessions = sessions
        self._listener = listener
        self._seen = listener.seen
        self._database: bool | None = None

    def write(self, message: Message) -> bytes:
        """The events that `message` makes for this client; none, if it has seen them or does not want them."""
        match message:
            case Trades(symbol, rows):
                return b"".join(self._trade(symbol, trade_id, data) for trade_id, data in rows)
            case Beat(symbol, last_id, data):
                self._seen[symbol] = Seen(last_id)
                return self._event("tick", data)
            case Word(database, data):
                # Who wants each trade is told about the database when it goes and when it comes back.
                changed, self._database = database != self._database, database
                return _event("status", data) if self._listener.ticks or changed else b""
        return b""

    async def begin(self, begin: Begin) -> AsyncGenerator[bytes, None]:
        """What the client has missed up to the ids where the live stream begins; then where it begins."""
        self._listener.seen = self._seen = {
            symbol: self._listener.seen.get(symbol) or Seen(begin.highs[symbol])
            for symbol in sorted(self._listener.symbols)
        }
        for symbol in list(self._seen):
            if self._seen[symbol].high > begin.highs[symbol]:
                yield self._reset(symbol, begin, "the last event was newer than what is stored")
            if self._listener.ticks:
                if symbol in begin.ticks:
                    yield await self._missed_tick(symbol, begin)
            else:
                async for piece in self._missed_trades(symbol, begin.highs[symbol]):
                    yield piece
        highs = {symbol: seen.high for symbol, seen in self._seen.items()}
        yield self._event("begin", msgspec.json.encode({"last_trade_ids": highs}))

    def _reset(self, symbol: str, begin: Begin, why: str) -> bytes:
        self._seen[symbol] = Seen(begin.highs[symbol])
        return self._event("reset", msgspec.json.encode({"symbol": symbol, "reason": why}))

    def _trade(self, symbol: str, trade_id: int, data: bytes) -> bytes:
        return self._event("trade", data) if self._seen[symbol].add(trade_id) else b""

    def _event(self, name: str, data: bytes) -> bytes:
        return _event(name, data, cursor.write(self._seen))

    async def _missed_trades(self, symbol: str, high: int) -> AsyncIterator[bytes]:
        for first, last in list(self._seen[symbol].holes):
            while first <= last:
                question = partial(pages.with_ids, symbol=symbol, first=first, last=last, size=PAGE_TRADES)
                trades = await self._ask(question)
                yield self._written(symbol, trades)
                first = trades[-1].trade_id + 1 if len(trades) == PAGE_TRADES else last + 1
        if self._seen[symbol].high < high:
            async for trades in self._pages(symbol, self._seen[symbol].high):
                yield self._written(symbol, trades)

    def _written(self, symbol: str, trades: list[db.Trade]) -> bytes:
        rows = ((trade.trade_id, msgspec.json.encode(answers.trade(trade))) for trade in trades)
        return b"".join(self._trade(symbol, trade_id, data) for trade_id, data in rows)

    async def _missed_tick(self, symbol: str, begin: Begin) -> bytes:
        """How things are, as a tick that counts what was missed."""
        seen, high, now = self._seen[symbol], begin.highs[symbol], begin.ticks[symbol]
        missed = Missed()
        if seen.high < high:
            async for trades in self._pages(symbol, seen.high):
                missed = missed.plus([trade for trade in trades if seen.high < trade.trade_id <= high])
                if missed.trades > FOLD_TRADES_MAX:
                    return self._reset(symbol, begin, "too much was missed to count it") + self._tick(symbol, high, now)
        return self._tick(symbol, high, missed.told(now))

    def _tick(self, symbol: str, high: int, tick: Tick) -> bytes:
        self._seen[symbol] = Seen(high)
        return self._event("tick", msgspec.json.encode(tick))

    async def _pages(self, symbol: str, trade_id: int) -> AsyncIterator[list[db.Trade]]:
        """The trades from a little before that of `trade_id` on, as far as they are stored by now."""
        place = await self._ask(lambda c: pages.find(c, symbol, trade_id))
        after = None if place is None else Place(place.timestamp - pages.MARGIN, 0)
        times = (pages.EARLIEST, pages.LATEST)
        while not self._listener.ended:
            question = partial(pages.page, symbol=symbol, after=after, times=times, size=PAGE_TRADES)
            trades = await self._ask(question)
            yield trades
            if len(trades) < PAGE_TRADES:
                return
            after = pages.place_of(trades[-1])

    async def _ask(self, question: Callable[[Connection], T]) -> T:
        """The answer of the database, however long it is away. Raises EndedError."""
        while not self._listener.ended:
            try:
                return await run_in_threadpool(self._sessions.ask, question)
            except AwayError:
                await asyncio.sleep(AWAY_S)
        raise EndedError


def _event(name: str, data: bytes, event_id: str | None = None) -> bytes:
    mark = b"" if event_id is None else b"\nid: " + event_id.encode()
    return b"event: " + name.encode() + mark + b"\ndata: " + data + b"\n\n"
