"""The upsert of candles, which the two families spell differently: only here, so that it is easy to switch."""

from collections.abc import Iterator

from model import candles as bars
from model.candles import Candle
from model.trade import Trade
from storage.session import Connection
from storage.values import batches, candles_sql


def upsert_statements(connection: Connection, groups: dict[str, list[Trade]]) -> Iterator[str]:
    """Merges the candles of trades; LEAST, GREATEST and the ids decide, so repeats and any order do no harm."""
    merge = _MERGE_ALIAS if connection.names_new_rows else _MERGE_VALUES
    for part in batches([candle for group in groups.values() for candle in bars.of_trades(group)]):
        yield f"{_INSERT_CANDLES}{','.join(candles_sql(part))}{merge}"


def _merge(new: str) -> str:
    """The end of an upsert of candles; `new`: how a value of the row that is there already is spelled.

    MySQL assigns from left to right and sees what it has assigned, so the ids, which the others compare, come last.
    """
    columns = {column: new.format(column) for column in Candle._fields}
    return (
        " ON DUPLICATE KEY UPDATE"
        " high = GREATEST(candles.high, {high}), low = LEAST(candles.low, {low}),"
        " open = IF({first_trade_id} < candles.first_trade_id, {open}, candles.open),"
        " close = IF({last_trade_id} > candles.last_trade_id, {close}, candles.close),"
        " first_trade_id = LEAST(candles.first_trade_id, {first_trade_id}),"
        " last_trade_id = GREATEST(candles.last_trade_id, {last_trade_id})"
    ).format_map(columns)


_INSERT_CANDLES = f"INSERT INTO candles ({', '.join(Candle._fields)}) VALUES "
_MERGE_ALIAS = " AS new" + _merge("new.{}")
_MERGE_VALUES = _merge("VALUES({})")
