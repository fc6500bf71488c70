"""What many tests need one of, with the values that matter there as arguments."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from model.trade import Trade

BTC = "BTCUSDT"
MIDNIGHT = datetime(2025, 3, 1, tzinfo=UTC)
RECEIVED = datetime(2025, 3, 1, 0, 0, 0, 123_456, tzinfo=UTC)


def trade(trade_id: int, when: datetime = MIDNIGHT, price: str = "97000.12", symbol: str = BTC) -> Trade:
    """A trade of which only these matter."""
    return Trade(symbol, when, trade_id, Decimal(price), Decimal("0.00012"), False, RECEIVED)


def streamed(n: int, symbol: str = BTC, price: str = "61837.63000000") -> Trade:
    """Trade number `n` as the stream brings it; three share a millisecond."""
    at = MIDNIGHT + timedelta(milliseconds=n // 3)
    return Trade(symbol, at, n, Decimal(price), Decimal(n).scaleb(-8), n % 2 == 0, at + timedelta(microseconds=1_234))


def stream(first: int, count: int, symbol: str = BTC) -> list[Trade]:
    """So many trades of the stream with consecutive ids."""
    return [streamed(n, symbol) for n in range(first, first + count)]
