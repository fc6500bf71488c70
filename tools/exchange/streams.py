"""The stream half of the stand-in exchange: connections, their keepalive and limits, and the fan-out of frames.

aiohttp does the handshake and the reading; frames are written to the transport ready-made, many in one write.
"""

import asyncio
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from aiohttp import WSMsgType, web

from tools.exchange import commands
from tools.exchange.tape import CLOSE, PING, PONG, Form, Frame, wrap

INCOMING_PER_S_MAX = 5
"""Messages that a client may send in any second: pings, unsolicited pongs and commands."""

CONNECTS_WINDOW_S = 300.0
"""The period in which an address may make a limited number of connection attempts."""

CLOSE_S_MAX = 1.0
"""How long a client may take to answer a close frame."""

HIGH_WATER_BYTES = 1 << 20
"""At full speed, the tape waits while a client has more than this left to read."""

STALL_S_MAX = 60.0
"""At full speed, how long a client may read nothing before the tape stops waiting for it."""

INTERLEAVED = b"between"
"""Payload of the ping that a fault puts between two fragments; answers to it do not count against the client."""

_WATCH_S_MAX = 0.25
_WATCH_S_MIN = 0.005
_MESSAGE_BYTES_MAX = 1 << 16
_PINGS_OPEN_MAX = 1000


class Rules(NamedTuple):
    """The exchange's limits, which the command line can shorten. Seconds and bytes."""

    ping_interval_s: float = 20.0
    pong_timeout_s: float = 60.0
    max_age_s: float = 86400.0
    connects_max: int = 300
    client_buffer_bytes: int = 64 << 20
    nested_errors: bool = False


Alter = Callable[[list[Frame], int | None], list[Frame]]
"""Alters frames on their way to one connection (its index) or to all of them (None)."""


class Client:
    """One stream connection."""

    def __init__(self, index: int, transport: asyncio.Transport, form: Form, streams: list[str]) -> None:
        self.index = index
        self.subscriptions = commands.Subscriptions(streams, form.combined)
        self.frames_sent = 0
        self.opened_s = time.monotonic()
        self.frozen_until_s = 0.0
        self.closing = False
        self._micro = form.micro
        self._transport = transport
        self._pings: deque[tuple[bytes, float]] = deque(maxlen=_PINGS_OPEN_MAX)
        self._pinged_s = self.opened_s
        self._incoming: deque[float] = deque(maxlen=INCOMING_PER_S_MAX + 1)

    @property
    def form(self) -> Form:
        """The current form of its frames (SET_PROPERTY changes it)."""
        return Form(self.subscriptions.combined, self._micro)

    @property
    def frozen(self) -> bool:
        """Whether it is half-open: the socket stays open, nothing is sent, and whatever arrives is ignored."""
        return time.monotonic() < self.frozen_until_s

    def wants(self, stream: str) -> bool:
        """Whether it gets frames of the stream; nameless ones and the exchange's own (`!…`) go to every client."""
        return stream in self.subscriptions.streams or not stream or stream[0] == "!"

    def backlog(self) -> int:
        """How many bytes wait in this process because the client has not read them."""
        return self._transport.get_write_buffer_size()

    def write(self, data: bytes, frames: int = 0) -> None:
        """Queues ready-made frames; a client that is closing or frozen gets nothing."""
        if self.closing or self.frozen or self._transport.is_closing():
            return
        self.frames_sent += frames
        self._transport.write(data)

    def say(self, message: object) -> None:
        """Sends an object as JSON in a text frame."""
        self.write(wrap(json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()))

    def close(self, code: int, reason: str = "", answer_s_max: float = CLOSE_S_MAX) -> None:
        """Sends a close frame and gives the client so many seconds to answer."""
        if self.closing:
            return
        self.write(wrap(struct.pack("!H", code) + reason.encode(), CLOSE))
        self.closing = True
        asyncio.get_running_loop().call_later(answer_s_max, self._transport.abort)

    def abort(self) -> None:
        """Ends the connection without a close frame (the client sees 1006)."""
        self.closing = True
        self._transport.abort()

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        self.closing = True
        reset(self._transport)

    def end(self) -> None:
        """Closes the socket after everything queued was sent."""
        self.closing = True
        self._transport.close()

    def keep(self, rules: Rules, now_s: float) -> None:
        """Sends a ping if it is time; closes the connection if a pong is overdue or it is too old."""
        if self.closing or self.frozen:
            return
        if self._pings and now_s - self._pings[0][1] > rules.pong_timeout_s:
            self.close(1008, "Pong timeout")
        elif now_s - self.opened_s > rules.max_age_s:
            self.close(1001, "Connection lifetime reached")
        elif now_s - self._pinged_s >= rules.ping_interval_s:
            self._pinged_s = now_s
            payload = str(time.time_ns() // 1_000_000).encode() + b"-%d" % self.index
            self._pings.append((payload, now_s))
            self.write(wrap(payload, PING))

    def ponged(self, payload: bytes) -> bool:
        """Whether the pong echoes one of our pings; that ping and all before it then count as answered."""
        if payload == INTERLEAVED:
            return True
        if all(payload != sent for sent, _ in self._pings):
            return False
        while self._pings.popleft()[0] != payload:
            pass
        return True

    def too_many(self, now_s: float) -> bool:
        """Counts one incoming message. Returns whether there were more than the limit within a second."""
        self._incoming.append(now_s)
        return len(self._incoming) > INCOMING_PER_S_MAX and now_s - self._incoming[0] < 1.0


class Hub:
    """All stream connections of the exchange."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.clients: dict[int, Client] = {}
        self.alter: Alter | None = None
        self.on_connect: Callable[[Client], None] | None = None
        self.connects = 0
        self.frames_sent = 0
        self.slow_dropped = 0
        self._attempts: deque[float] = deque()

    def subscribed(self) -> int:
        """How many connections listen to at least one stream."""
        return sum(1 for client in self.clients.values() if client.subscriptions.streams)

    def publish(self, frames: list[Frame]) -> None:
        """Sends frames of new trades to every client that listens."""
        self.fan_out(frames if self.alter is None else self.alter(frames, None), self.clients.values())

    def fan_out(self, frames: list[Frame], clients: Iterable[Client]) -> None:
        """Sends each client the frames that it listens to, in one write."""
        wires: dict[Form, list[bytes]] = {}
        streams = {frame.stream for frame in frames}
        for client in list(clients):
            if client.closing or client.frozen:
                continue
            if self.alter is not None:
                self.send(client, self.alter([frame for frame in frames if client.wants(frame.stream)], client.index))
                continue
            form = client.form
            if form not in wires:
                wires[form] = [frame.wire(form) for frame in frames]
            mine = wires[form]
            if not all(client.wants(stream) for stream in streams):
                mine = [wire for wire, frame in zip(mine, frames, strict=True) if client.wants(frame.stream)]
            self._write(client, mine)

    def send(self, client: Client, frames: list[Frame]) -> None:
        """Sends one client exactly these frames."""
        form = client.form
        self._write(client, [frame.wire(form) for frame in frames])

    def _write(self, client: Client, wires: list[bytes]) -> None:
        if not wires:
            return
        client.write(b"".join(wires), len(wires))
        self.frames_sent += len(wires)
        if client.backlog() > self.rules.client_buffer_bytes:
            # It does not read, and memory is bounded: it is disconnected, as the exchange does with slow consumers.
            self.slow_dropped += 1
            client.abort()

    async def drained(self) -> None:
        """Waits until every client that reads at all has at most HIGH_WATER_BYTES left to read."""
        await asyncio.sleep(0)
        least: dict[int, tuple[int, float]] = {}
        while True:
            now_s, waiting = time.monotonic(), False
            for client in self.clients.values():
                backlog = client.backlog()
                if backlog <= HIGH_WATER_BYTES or client.frozen or client.closing:
                    continue
                before, since_s = least.get(client.index, (backlog + 1, now_s))
                if backlog < before:
                    least[client.index] = backlog, now_s
                waiting = waiting or backlog < before or now_s - since_s < STALL_S_MAX
            if not waiting:
                return
            await asyncio.sleep(0.001)

    async def say_goodbye(self, reason: str) -> None:
        """Closes every connection once its client has read all of it, or has taken STALL_S_MAX for that."""
        for client in list(self.clients.values()):
            client.close(1001, reason, STALL_S_MAX)
        until_s = time.monotonic() + STALL_S_MAX
        while any(not client.frozen for client in self.clients.values()) and time.monotonic() < until_s:
            await asyncio.sleep(0.005)

    def too_many_connects(self, now_s: float) -> bool:
        """Counts a connection attempt. Returns whether there were too many."""
        while self._attempts and now_s - self._attempts[0] > CONNECTS_WINDOW_S:
            self._attempts.popleft()
        if self.rules.connects_max and len(self._attempts) >= self.rules.connects_max:
            return True
        self._attempts.append(now_s)
        return False

    async def watch(self) -> None:
        """Pings and closes connections as the rules say, until cancelled."""
        step_s = min(_WATCH_S_MAX, max(_WATCH_S_MIN, self.rules.ping_interval_s / 10, self.rules.pong_timeout_s / 20))
        while True:
            await asyncio.sleep(step_s)
            now_s = time.monotonic()
            for client in list(self.clients.values()):
                client.keep(self.rules, now_s)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serves one connection, from its handshake to its end."""
        wanted = _wanted(request)
        if isinstance(wanted, web.Response):
            return wanted
        form, streams = wanted
        if self.too_many_connects(time.monotonic()):
            text = f"more than {self.rules.connects_max} connection attempts in 5 minutes (--connect-limit)"
            return web.Response(status=429, text=text, headers={"Retry-After": str(int(CONNECTS_WINDOW_S))})
        ws = web.WebSocketResponse(
            autoping=False, autoclose=False, compress=False, max_msg_size=_MESSAGE_BYTES_MAX, timeout=CLOSE_S_MAX
        )
        await ws.prepare(request)
        transport = request.transport
        if not isinstance(transport, asyncio.Transport):
            return ws
        client = Client(self.connects, transport, form, streams)
        self.connects += 1
        self.clients[client.index] = client
        try:
            if len(streams) > commands.STREAMS_MAX:
                client.close(1008, "Too many subscriptions")
            if self.on_connect is not None:
                self.on_connect(client)
            await self._read(client, ws, transport)
        finally:
            del self.clients[client.index]
            client.end()
        return ws

    async def _read(self, client: Client, ws: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        while not transport.is_closing():
            message = await ws.receive()
            if message.type in (WSMsgType.CLOSED, WSMsgType.ERROR):
                return
            while client.frozen and not transport.is_closing():
                # Half-open: whatever the client sends, even a close frame, is never answered.
                await asyncio.sleep(_WATCH_S_MAX / 5)
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING):
                if not client.closing:
                    client.write(wrap(struct.pack("!H", message.data or 1000), CLOSE))
                return
            self._incoming(client, message.type, message.data)

    def _incoming(self, client: Client, kind: WSMsgType, data: bytes | str) -> None:
        # Answers to pings are not counted, so that a short --ping-interval does not use up the client's allowance.
        if kind is WSMsgType.PONG and client.ponged(bytes(data) if not isinstance(data, str) else data.encode()):
            return
        if client.too_many(time.monotonic()):
            client.close(1008, "Too many requests")
        elif kind is WSMsgType.PING:
            client.write(wrap(bytes(data) if not isinstance(data, str) else data.encode(), PONG))
        elif kind is WSMsgType.TEXT:
            self._command(client, str(data))

    def _command(self, client: Client, text: str) -> None:
        if len(text.encode()) + 8 > commands.COMMAND_BYTES_MAX:
            return
        try:
            client.say(commands.answer(client.subscriptions, text))
        except commands.Refused as refused:
            client.say(commands.error_of(refused, text, self.rules.nested_errors))
            if isinstance(refused, commands.TooManyStreams):
                client.close(1008, "Too many subscriptions")


def reset(transport: asyncio.Transport) -> None:
    """Ends a connection with a TCP reset: without lingering, closing discards the buffer and sends RST."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


_UNITS = {"MILLISECOND": False, "millisecond": False, "MICROSECOND": True, "microsecond": True}


def _wanted(request: web.Request) -> tuple[Form, list[str]] | web.Response:
    """The form and the streams in the address, or the answer that refuses them."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return web.Response(status=400, text="this address needs a WebSocket handshake")
    unit = request.query.get("timeUnit", "MILLISECOND")
    if unit not in _UNITS:
        return web.json_response({"code": -1152, "msg": "Invalid time unit."}, status=400)
    combined = request.path == "/stream"
    names = request.query.get("streams", "") if combined else request.match_info.get("streams", "")
    return Form(combined, _UNITS[unit]), [name for name in names.split("/") if name]
