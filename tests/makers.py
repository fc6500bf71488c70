"""What many tests need one of, with the values that matter there as arguments."""

from datetime import UTC, datetime
from decimal import Decimal

from model.trade import Trade

BTC = "BTCUSDT"
MIDNIGHT = datetime(2025, 3, 1, tzinfo=UTC)
RECEIVED = datetime(2025, 3, 1, 0, 0, 0, 123_456, tzinfo=UTC)


def trade(trade_id: int, when: datetime = MIDNIGHT, price: str = "97000.12", symbol: str = BTC) -> Trade:
    """A trade of which only these matter."""
    return Trade(symbol, when, trade_id, Decimal(price), Decimal("0.00012"), False, RECEIVED)
