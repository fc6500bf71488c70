"""What REST answers: pages of trades, aggregates of trades, and the errors that stand for no usable answer.

Source of the rows: Binance's rest-api.md, "Old trade lookup" and "Compressed/Aggregate trades list".
"""

from contextlib import suppress
from typing import NamedTuple

import msgspec

from binance import checks
from model.trade import Trade
from process.retry import backoff_s, doubled, jittered


class RestError(Exception):
    """The exchange gave no usable answer this time; the message says why."""


class LastingError(RestError):
    """It will give none as long as nothing is changed."""


class UnknownSymbolError(RestError):
    """The exchange does not know the symbol."""


LASTING_TRIES = 3
LASTING_S_MAX = 3_600.0
"""The wait after a refusal that waiting alone does not cure grows up to this."""


def wait_after(error: Exception, attempt: int) -> float:
    """The seconds before retry `attempt` (0 is the first) after `error`, jitter included."""
    wait_s = backoff_s(attempt)
    if isinstance(error, LastingError | UnknownSymbolError):
        # Not for ever at the same pace: only the operator can change it, and then a start asks at once.
        wait_s = doubled(wait_s, attempt - LASTING_TRIES, LASTING_S_MAX)
    return jittered(wait_s)


class Page(NamedTuple):
    """An answer: the trades in the exchange's order, and the rows that are not trades (reason and text).

    `stamp`: the time of the first trade as it was sent, which shows its unit; 0: there is no trade.
    """

    trades: list[Trade]
    refused: list[tuple[str, bytes]]
    stamp: int


class _Row(msgspec.Struct, gc=False):
    id: int
    price: str
    qty: str
    time: int
    isBuyerMaker: bool


class Aggregate(NamedTuple):
    """Trades of one taker order at one price. `first_id`: the id of the first of them; None: there is none, because the
    aggregate is marked as a duplicate of the exchange's early years."""

    aggregate_id: int
    first_id: int | None


class _Aggregate(msgspec.Struct, gc=False):
    a: int
    f: int
    p: str


NO_TRADE = -1
"""`f` of an aggregate that is marked as a duplicate; its price is 0 (Binance's changelog)."""

_decode_page = msgspec.json.Decoder(list[_Row]).decode
_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_row = msgspec.json.Decoder(_Row).decode
_decode_aggregates = msgspec.json.Decoder(list[_Aggregate]).decode
MALFORMED = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What the decoders raise for bytes that are not what they decode."""
REFUSALS = (checks.Refusal, *MALFORMED)


def parse_rows(symbol: str, body: bytes) -> Page:
    """The trades of a historicalTrades answer; a row has no symbol, no event time and no time of receipt.

    Raises RestError for a body that is not a JSON list.
    """
    with suppress(*REFUSALS):
        rows = _decode_page(body)
        return Page([_trade(symbol, row) for row in rows], [], rows[0].time if rows else 0)
    # Some row is malformed: look at each one separately, which takes longer.
    trades: list[Trade] = []
    refused: list[tuple[str, bytes]] = []
    stamp = 0
    for text in raw_rows(body, "trades"):
        try:
            row = _decode_row(text)
            trades.append(_trade(symbol, row))
            stamp = stamp or row.time
        except REFUSALS as error:
            refused.append((f"not a trade: {error}", text))
    return Page(trades, refused, stamp)


def raw_rows(body: bytes, what: str) -> list[bytes]:
    """The text of each item of a JSON list. Raises RestError for any other body."""
    try:
        return [bytes(raw) for raw in _decode_rows(body)]
    except MALFORMED as error:
        raise RestError(f"the answer is not a list of {what}: {error}") from None


def _trade(symbol: str, row: _Row) -> Trade:
    return Trade(
        symbol,
        checks.time(row.time),
        checks.trade_id(row.id),
        checks.decimal("price", row.price),
        checks.decimal("quantity", row.qty),
        row.isBuyerMaker,
    )


def parse_aggregates(body: bytes) -> list[Aggregate]:
    """The aggregates of an aggTrades answer, in the exchange's order. Raises RestError if one is not as documented."""
    try:
        return [_aggregate(row) for row in _decode_aggregates(body)]
    except REFUSALS as error:
        raise RestError(f"the answer is not a list of aggregates: {error}") from None


def _aggregate(row: _Aggregate) -> Aggregate:
    if row.f == NO_TRADE or not checks.amount("price", row.p):
        return Aggregate(row.a, None)
    # The first trades of the exchange have the id 0.
    if not 0 <= row.f <= checks.TRADE_ID_MAX:
        raise checks.Refusal(f"first trade id {row.f} is not a 64-bit integer from 0 on")
    return Aggregate(row.a, row.f)
