"""The tape of the stand-in exchange: what a trade is, how it is written, and where trades come from.

Pure: no network, no clock, no thread. Money is an integer count of 1e-8 (the exchange's own exponent), time an integer
count of microseconds since 1970 (UTC), so nothing on the tape was ever a float.
"""

import gzip
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

E8 = 100_000_000
"""One unit of money on the tape is 1 / E8."""

# A taker order has one fill with the first probability, sweeps the book with the second, and otherwise has two or more.
# With these numbers two trades in three share their millisecond with another, as measured on a recorded tape.
_SINGLE_P = 0.70
_SWEEP_P = 0.002
_SWEEP_FILLS = (40, 200)
_MORE_LAMBDA = 0.4244
ORDER_FILLS_MEAN = 2.1
"""Mean number of trades per taker order, which converts a rate of trades into a rate of orders."""

# One second in ten is a burst; the weights have a mean of one, so the average rate is the requested one.
_BURST_P = 0.1
_BURST_WEIGHT = 2.8
_CALM_WEIGHT = 0.8

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
"""The opcodes of RFC 6455."""

_MICRO_FROM = 10**14
"""Timestamps from here on are in microseconds: 13 digits are milliseconds, 16 are microseconds."""


class ReplayError(Exception):
    """A replay file that cannot be read; the message names the file and the line."""


class Spec(NamedTuple):
    """What the exchange says about a symbol. Price, tick and step are in 1e-8."""

    symbol: str
    base: str
    quote: str
    price_e8: int
    tick_e8: int
    step_e8: int

    @property
    def stream(self) -> str:
        """The name of its trade stream, which is lower case."""
        return f"{self.symbol.lower()}@trade"


_KNOWN = {
    "BTCUSDT": ("60000", "0.01", "0.00001"),
    "ETHUSDT": ("2600", "0.01", "0.0001"),
    "BNBUSDT": ("580", "0.01", "0.001"),
    "SOLUSDT": ("145", "0.01", "0.001"),
    "SHIBUSDT": ("0.00001735", "0.00000001", "1"),
}
_QUOTES = ("USDT", "USDC", "FDUSD", "BTC", "ETH", "BNB", "EUR", "TRY")


class Trade(NamedTuple):
    """One trade as the exchange knows it."""

    symbol: str
    trade_id: int
    price_e8: int
    quantity_e8: int
    time_us: int
    buyer_is_maker: bool


class Form(NamedTuple):
    """The form of a connection's frames: wrapped with the stream's name or bare, in microseconds or milliseconds."""

    combined: bool
    micro: bool


class Frame:
    """One message of a stream. `trade` is None for a recorded message that is not a trade."""

    __slots__ = ("stream", "trade")

    def __init__(self, stream: str, trade: Trade | None) -> None:
        self.stream = stream
        self.trade = trade

    def text(self, form: Form) -> bytes:
        """The JSON text of the message in that form."""
        raise NotImplementedError

    def wire(self, form: Form) -> bytes:
        """The bytes that are written to the socket."""
        return wrap(self.text(form))


class TradeFrame(Frame):
    """A trade of the synthetic tape, written as Binance writes it, with the real keys in the real order."""

    __slots__ = ("event_us",)

    def __init__(self, stream: str, trade: Trade, event_us: int) -> None:
        super().__init__(stream, trade)
        self.event_us = event_us

    def text(self, form: Form) -> bytes:
        """The trade as JSON, `E` and `T` in the form's unit (milliseconds are floored)."""
        assert self.trade is not None
        symbol, trade_id, price, quantity, time_us, maker = self.trade
        unit = 1 if form.micro else 1000
        payload = (
            f'{{"e":"trade","E":{self.event_us // unit},"s":"{symbol}","t":{trade_id},'
            f'"p":"{price // E8}.{price % E8:08d}","q":"{quantity // E8}.{quantity % E8:08d}",'
            f'"T":{time_us // unit},"m":{"true" if maker else "false"},"M":true}}'
        )
        return (f'{{"stream":"{self.stream}","data":{payload}}}' if form.combined else payload).encode()


class RecordedFrame(Frame):
    """A recorded message, sent exactly as recorded, whatever unit the connection asked for."""

    __slots__ = ("bare", "wrapped")

    def __init__(self, stream: str, trade: Trade | None, wrapped: bytes, bare: bytes) -> None:
        super().__init__(stream, trade)
        self.wrapped = wrapped
        self.bare = bare

    def text(self, form: Form) -> bytes:
        """The recorded bytes, or the part that a raw stream carries."""
        return self.wrapped if form.combined else self.bare


class Order(NamedTuple):
    """One taker order of the synthetic tape: all its fills share one time. `offset_us`: since the start of the tape."""

    offset_us: int
    spec: Spec
    first_id: int
    fills: list[tuple[int, int]]
    buyer_is_maker: bool

    def trades(self, time_us: int) -> list[Trade]:
        """Its trades, with that time."""
        symbol, maker, first = self.spec.symbol, self.buyer_is_maker, self.first_id
        return [Trade(symbol, first + n, price, size, time_us, maker) for n, (price, size) in enumerate(self.fills)]

    def frames(self, time_us: int, event_us: int) -> list[Frame]:
        """Its messages, with that trade time and event time."""
        stream = self.spec.stream
        return [TradeFrame(stream, trade, event_us) for trade in self.trades(time_us)]

    def first(self, count: int) -> "Order":
        """The order with at most its first `count` fills."""
        return self._replace(fills=self.fills[:count])


class Recorded(NamedTuple):
    """One line of a replay file, or a stored trade. `offset_us`: when it comes, since the start of the tape."""

    offset_us: int
    frame: Frame

    def frames(self, time_us: int, event_us: int) -> list[Frame]:
        """Its one message, which keeps its own times: the two arguments are ignored."""
        return [self.frame]

    def first(self, count: int) -> "Recorded":
        """The line itself, which cannot be divided."""
        return self


class Synthetic:
    """A seeded market: a random walk on the tick for each symbol, taker orders as a Poisson process with bursts.

    Ids, prices, quantities and sides depend only on the seed and the symbols; times also on the rate (trades per second
    over all symbols).
    """

    def __init__(self, specs: list[Spec], seed: int, rate: float, start_ids: list[int]) -> None:
        self.specs = specs
        self._content = random.Random(f"{seed}:content")
        self._times = random.Random(f"{seed}:times")
        self._rate = rate
        self._price = [spec.price_e8 for spec in specs]
        self._next_id = list(start_ids)
        # The first symbol is the busiest one, as BTCUSDT is; the others share the rest.
        self._busiest_p = 1.0 if len(specs) == 1 else max(0.55, 1 / len(specs))

    def history(self, count: int, end_us: int) -> list[Trade]:
        """For each symbol the `count` trades before its first streamed one, older than `end_us`; by symbol and id."""
        trades: list[Trade] = []
        for index in range(len(self.specs)):
            first_streamed = self._next_id[index]
            wanted = min(count, first_streamed - 1)
            self._next_id[index] = first_streamed - wanted
            trades += self._older(index, wanted, end_us)
            self._next_id[index] = first_streamed
        return trades

    def _older(self, index: int, wanted: int, end_us: int) -> list[Trade]:
        orders: list[Order] = []
        left = wanted
        while left > 0:
            order = self._order(index, 0).first(left)
            left -= len(order.fills)
            orders.append(order)
        span_us = int(wanted * len(self.specs) / self._rate * 1_000_000)
        begin_us, count = end_us - span_us, max(1, len(orders))
        return [trade for n, order in enumerate(orders) for trade in order.trades(begin_us + span_us * n // count)]

    def orders(self) -> Iterator[Order]:
        """The tape's orders by time, without end."""
        offset_s, second, weight = 0.0, -1, 1.0
        per_s = self._rate / ORDER_FILLS_MEAN
        while True:
            if int(offset_s) != second:
                second = int(offset_s)
                weight = _BURST_WEIGHT if self._times.random() < _BURST_P else _CALM_WEIGHT
            offset_s += self._times.expovariate(per_s * weight)
            yield self._order(self._which(), int(offset_s * 1_000_000))

    def _which(self) -> int:
        if len(self.specs) == 1 or self._content.random() < self._busiest_p:
            return 0
        return self._content.randrange(1, len(self.specs))

    def _order(self, index: int, offset_us: int) -> Order:
        random_, spec = self._content.random, self.specs[index]
        maker = random_() < 0.5
        tick, worse = spec.tick_e8, -spec.tick_e8 if maker else spec.tick_e8
        price = self._moved(index)
        fills = []
        for _ in range(self._size()):
            fills.append((price, self._quantity(spec)))
            # A sweep walks down (or up) the book; most fills have the price of the one before.
            if random_() < 0.25:
                price = max(tick, price + worse)
        self._price[index] = price
        first_id = self._next_id[index]
        self._next_id[index] = first_id + len(fills)
        return Order(offset_us, spec, first_id, fills, maker)

    def _size(self) -> int:
        drawn = self._content.random()
        if drawn < _SINGLE_P:
            return 1
        if drawn < 1 - _SWEEP_P:
            return 2 + int(self._content.expovariate(_MORE_LAMBDA))
        return self._content.randint(*_SWEEP_FILLS)

    def _moved(self, index: int) -> int:
        """The price after a step of the walk: about 1 % a day, kept within a tenth and ten times the starting price."""
        spec, price = self.specs[index], self._price[index]
        ticks = round(self._content.gauss(0, max(0.4, price * 8e-6 / spec.tick_e8)))
        low, high = max(spec.tick_e8, spec.price_e8 // 10 // spec.tick_e8 * spec.tick_e8), spec.price_e8 * 10
        return min(high, max(low, price + ticks * spec.tick_e8))

    def _quantity(self, spec: Spec) -> int:
        # About 100 units of the quote currency each, with a long tail, as real trades have; at least one step.
        worth_e8 = 100 * E8 * self._content.expovariate(1.0) ** 2
        steps = int(worth_e8 * E8 / spec.price_e8 / spec.step_e8)
        return (1 + steps) * spec.step_e8


class _Payload(msgspec.Struct):
    e: str
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


class _Wrapper(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()


_decode_wrapper = msgspec.json.Decoder(_Wrapper).decode
_decode_payload = msgspec.json.Decoder(_Payload).decode


def spec_of(symbol: str) -> Spec:
    """What the exchange says about `symbol`; an unknown one gets a plausible price, tick and step."""
    price, tick, step = _KNOWN.get(symbol, ("100", "0.01", "0.001"))
    quote = next((name for name in _QUOTES if symbol.endswith(name) and symbol != name), symbol[-3:])
    return Spec(symbol, symbol.removesuffix(quote), quote, to_e8(price), to_e8(tick), to_e8(step))


def to_e8(text: str) -> int:
    """The decimal text as a count of 1e-8. Raises ValueError if it is not a plain decimal, or is finer than that."""
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit()) or len(fraction.rstrip("0")) > 8:
        raise ValueError(f"{text!r} is not a decimal of at most 8 places")
    return int(whole + (fraction + "00000000")[:8])


def from_e8(value: int) -> str:
    """The count of 1e-8 as a decimal text with 8 places, as Binance prints it."""
    return f"{value // E8}.{value % E8:08d}"


def wrap(payload: bytes, opcode: int = TEXT, final: bool = True) -> bytes:
    """One unmasked WebSocket frame, as a server sends it."""
    head, size = opcode | (0x80 if final else 0), len(payload)
    if size < 126:
        return struct.pack("!BB", head, size) + payload
    if size < 65536:
        return struct.pack("!BBH", head, 126, size) + payload
    return struct.pack("!BBQ", head, 127, size) + payload


def rest_row(trade: Trade, micro: bool) -> dict[str, object]:
    """The trade as `trades` and `historicalTrades` write it; `time` in milliseconds, or microseconds if `micro`."""
    return {
        "id": trade.trade_id,
        "price": from_e8(trade.price_e8),
        "qty": from_e8(trade.quantity_e8),
        # The quote quantity has 8 decimals like the price: the rest is cut off.
        "quoteQty": from_e8(trade.price_e8 * trade.quantity_e8 // E8),
        "time": trade.time_us if micro else trade.time_us // 1000,
        "isBuyerMaker": trade.buyer_is_maker,
        "isBestMatch": True,
    }


def truth_line(trade: Trade) -> str:
    """The trade as one line of the truth: JSON, exact decimals, microseconds, with a line feed."""
    symbol, trade_id, price, quantity, time_us, maker = trade
    return (
        f'{{"symbol":"{symbol}","id":{trade_id},"price":"{from_e8(price)}","quantity":"{from_e8(quantity)}",'
        f'"time_us":{time_us},"maker":{"true" if maker else "false"}}}\n'
    )


def replay(path: Path) -> Iterator[Recorded]:
    """The lines of a replay file (`<receive time ns> <frame JSON>`, plain or .gz), read as they are needed.

    Raises ReplayError if the file cannot be read or a line does not have that shape. A frame that is not a trade is
    sent too, but is not part of the truth.
    """
    first_ns: int | None = None
    done = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for line in lines:
                stamp, _, frame = line.rstrip(b"\r\n").partition(b" ")
                received_ns = int(stamp)
                first_ns = received_ns if first_ns is None else first_ns
                yield Recorded((received_ns - first_ns) // 1000, recorded_frame(frame))
                done += 1
    except (OSError, EOFError, ValueError) as error:
        raise ReplayError(f"{path}, line {done + 1}: {error}") from error


def recorded_frame(frame: bytes) -> RecordedFrame:
    """The recorded bytes as a message of the tape; whether recorded raw or combined, it can be sent in both forms."""
    try:
        wrapper = _decode_wrapper(frame)
    except msgspec.DecodeError:
        return RecordedFrame("", None, frame, frame)
    if bytes(wrapper.data):
        return RecordedFrame(wrapper.stream, _recorded_trade(bytes(wrapper.data)), frame, bytes(wrapper.data))
    trade = _recorded_trade(frame)
    if trade is None:
        return RecordedFrame("", None, frame, frame)
    stream = f"{trade.symbol.lower()}@trade"
    return RecordedFrame(stream, trade, b'{"stream":"%b","data":%b}' % (stream.encode(), frame), frame)


def _recorded_trade(payload: bytes) -> Trade | None:
    try:
        found = _decode_payload(payload)
        if found.e != "trade":
            return None
        price, quantity = to_e8(found.p), to_e8(found.q)
    except (msgspec.DecodeError, ValueError):
        return None
    time_us = found.T if found.T >= _MICRO_FROM else found.T * 1000
    return Trade(found.s, found.t, price, quantity, time_us, found.m)
