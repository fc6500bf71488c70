"""What the stand-in exchange says of whole days that are over, beside what is stored of them."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from model.times import EPOCH
from model.trade import Trade
from tests.support.stand_in import StandIn
from tests.support.tables import stored


def trade_of(line: dict[str, Any]) -> Trade:
    """A line of the exchange's truth as it is stored; it came by no stream."""
    when = EPOCH + timedelta(milliseconds=line["time_us"] // 1_000)
    price, quantity = Decimal(line["price"]), Decimal(line["quantity"])
    return Trade(line["symbol"], when, line["id"], price, quantity, line["maker"], None)


def true_days(exchange: StandIn, symbol: str, *days: date) -> list[Trade]:
    """All trades of these days by their ids."""
    return sorted((trade_of(line) for day in days for line in exchange.day(symbol, str(day))), key=_by_id)


def stored_trades(connection: Any, symbol: str) -> list[Trade]:
    """All that are stored of a symbol by their ids, whatever they came by."""
    return sorted((trade._replace(received_at=None) for trade in stored(connection, symbol)), key=_by_id)


def _by_id(trade: Trade) -> int:
    return trade.trade_id
