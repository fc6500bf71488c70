"""An exchange of which only the past is asked: its ids, and trades of it that leave a gap between them."""

from collections.abc import Sequence

import db
from binance.limits import Cooldown
from binance.rest import Rest
from tests.support.stand_in import StandIn

NEWEST = 4_000_000_000
"""The newest id of the exchange's history, which has HISTORY trades of each symbol."""
HISTORY = 4_000
OLDEST = NEWEST - HISTORY + 1
RUN_S_MAX = 30.0
LONG_S = 3_600.0
HISTORICAL = {"path": "/api/v3/historicalTrades"}
"""For a fault that is to strike only these calls."""


def fetch(exchange: StandIn, ids: Sequence[int], symbol: str = "BTCUSDT") -> list[db.Trade]:
    """Trades of the exchange by their ids."""
    client = Rest(exchange.http, Cooldown())
    found = [client.fetch_trades(symbol, trade_id, 1).trades[0] for trade_id in ids]
    client.close()
    assert [trade.trade_id for trade in found] == list(ids)
    return found


def leave_gap(connection: db.Connection, exchange: StandIn, *ids: int, symbol: str = "BTCUSDT") -> None:
    """Stores the trades with `ids` only: what lies between them is missing."""
    db.insert_trades(connection, fetch(exchange, ids, symbol))


def calls(exchange: StandIn) -> int:
    """How often historicalTrades was called so far."""
    return int(exchange.state()["rest_calls"].get("/api/v3/historicalTrades", 0))
