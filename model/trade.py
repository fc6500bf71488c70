"""One trade, the value that everything here is about."""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple


class Trade(NamedTuple):
    """One trade. `timestamp` is the exchange's clock, in whole milliseconds; `received_at` ours, None: back-filled."""

    symbol: str
    timestamp: datetime
    trade_id: int
    price: Decimal
    quantity: Decimal
    buyer_is_maker: bool
    received_at: datetime | None = None
