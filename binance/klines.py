"""The exchange's own candles (klines), to compare stored trades with.

Source of the rows: Binance's rest-api.md, "Kline/Candlestick data".
"""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from binance import checks
from binance.answers import REFUSALS, RestError, raw_rows

TEXT_MAX = 300
"""The bytes of a malformed row that an error shows; a row has about 170."""


class Kline(NamedTuple):
    """What the exchange says traded in an interval that begins at `start`, UTC. A price or volume may be zero.

    `volume` is of the base asset, `quote_volume` of the quote asset; the part of both in which the taker bought is
    given too. `trades` is how many there are.
    """

    start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    taker_buy_volume: Decimal
    taker_buy_quote_volume: Decimal
    trades: int


_Row = tuple[int, str, str, str, str, str, int, str, int, str, str, msgspec.Raw]
"""Open time, open, high, low, close, volume, close time, quote volume, number of trades, taker buy base volume,
taker buy quote volume, unused."""
_decode_row = msgspec.json.Decoder(_Row).decode


def parse_klines(body: bytes) -> list[Kline]:
    """The klines of an answer, oldest first. Raises RestError that names the row if one is not exactly as documented:
    nothing of such an answer is to be compared with."""
    found: list[Kline] = []
    for number, text in enumerate(raw_rows(body, "klines"), 1):
        try:
            kline = _kline(text)
            if found and kline.start <= found[-1].start:
                raise checks.Refusal(f"it starts at {kline.start}, not after the one before it")
        except REFUSALS as error:
            shown = text[:TEXT_MAX].decode("utf-8", "replace")
            raise RestError(f"row {number} of the answer is not a kline: {error}: {shown}") from None
        found.append(kline)
    return found


def _kline(text: bytes) -> Kline:
    begin, first, high, low, last, base, end, quote, trades, bought, bought_quote, _ = _decode_row(text)
    start = _start(begin)
    if checks.time(end) < start:
        raise checks.Refusal(f"close time {end} is before the open time {begin}")
    if not 0 <= trades <= checks.TRADE_ID_MAX:
        raise checks.Refusal(f"number of trades {trades} is not a 64-bit integer from 0 on")
    return Kline(
        start,
        checks.amount("open", first),
        checks.amount("high", high),
        checks.amount("low", low),
        checks.amount("close", last),
        checks.amount("volume", base),
        checks.amount("quote volume", quote),
        checks.amount("taker buy base volume", bought),
        checks.amount("taker buy quote volume", bought_quote),
        trades,
    )


def _start(stamp: int) -> datetime:
    """The open time. Each interval that there is, from 1s to 1M, begins with a second, so nothing is floored here."""
    start = checks.time(stamp)
    if start.microsecond or stamp % 1000:
        raise checks.Refusal(f"open time {stamp} is not a whole second")
    return start
