"""The checks of the values that the exchange sends, in a stream's frames and in REST's rows alike.

Prices and quantities repeat, half of all trades share their microsecond with another, and two of three their
millisecond: remembering the last few thousand values is faster than making them again, and trades that wait share
their memory.
"""

import functools
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from model.times import EPOCH, MILLISECOND

TRADE_ID_MAX = 2**63 - 1
"""Binance's ids are int64 (its SBE schema)."""

_is_decimal = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,8})?").fullmatch
_is_amount = re.compile(r"[0-9]{1,32}(?:\.[0-9]{1,8})?").fullmatch
"""As many integer digits as the widest column of `candles` has."""
_MS_MIN = (datetime(2017, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND
_MS_END = (datetime(2100, 1, 1, tzinfo=UTC) - EPOCH) // MILLISECOND
_US_MIN, _US_END = _MS_MIN * 1000, _MS_END * 1000


class Refusal(ValueError):
    """What the exchange sent is not a valid trade; the message says why."""


@functools.lru_cache(maxsize=8_192)
def decimal(name: str, text: str) -> Decimal:
    """The number in `text`: positive, at most 12 integer digits and 8 decimals. Raises Refusal."""
    if not _is_decimal(text):
        raise Refusal(f"{name} {text[:40]!r} is not a decimal of at most 12 integer digits and 8 decimals")
    value = Decimal(text)
    if not value:
        raise Refusal(f"{name} is zero")
    return value


def amount(name: str, text: str) -> Decimal:
    """The number in `text`, a total or a price of a kline: zero or positive, at most 32 integer digits and 8 decimals.

    Raises Refusal.
    """
    if not _is_amount(text):
        raise Refusal(f"{name} {text[:60]!r} is not a decimal of at most 32 integer digits and 8 decimals")
    return Decimal(text)


def trade_id(number: int) -> int:
    """`number`, if it is a positive 64-bit integer. Raises Refusal."""
    if not 0 < number <= TRADE_ID_MAX:
        raise Refusal(f"trade id {number} is not a positive 64-bit integer")
    return number


@functools.lru_cache(maxsize=1_024)
def time(stamp: int) -> datetime:
    """The time of a 13-digit (milliseconds) or 16-digit (microseconds) stamp, floored to the millisecond.

    Raises Refusal outside the years 2017 (Binance opened) to 2099.
    """
    if _US_MIN <= stamp < _US_END:
        return _moment(stamp - stamp % 1000)
    if is_in_milliseconds(stamp):
        return _moment(stamp * 1000)
    raise Refusal(f"time {stamp} is not in the years 2017 to 2099, in milliseconds or microseconds")


def is_in_milliseconds(stamp: int) -> bool:
    """Whether a time of the exchange has 13 digits, and not the 16 that were asked for."""
    return _MS_MIN <= stamp < _MS_END


@functools.lru_cache(maxsize=1_024)
def _moment(microseconds: int) -> datetime:
    # By position, which takes half the time that naming the unit does.
    return EPOCH + timedelta(0, 0, microseconds)
