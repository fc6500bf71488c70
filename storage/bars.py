"""Bars as SQL: from trades, from finer bars, or from both, for a range of time and any resolution that divides a day.

The server groups and adds, in decimals: sums are exact. A query has one part for each piece of the range; the outer
grouping joins what the parts say about the same bar, so the parts need not end where a bar does.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from model.candles import Candle, Piece
from storage.values import aware, naive

COLUMNS = ", ".join(Candle._fields)
WITHIN = "symbol = %s AND timestamp >= %s AND timestamp < %s"
"""The rows of a symbol in [start, end)."""

# The price of the first and of the last trade comes from the same pass: id and price are packed into one decimal, of at
# most 40 digits, so that the least of them has the least id. A price has 12 digits before its point.
_SHIFT = "1000000000000.0"
# Taker and maker apart, so that each trade is multiplied once and not once more for what the taker bought.
_OF_TRADES = (
    "SELECT symbol, TO_SECONDS(timestamp) DIV {resolution} AS bucket, MIN(timestamp) AS begin, MIN(price) AS low,"
    " MAX(price) AS high, COUNT(*) AS number, MIN(trade_id) AS first_id, MAX(trade_id) AS last_id,"
    f" MIN(trade_id * {_SHIFT} + price) AS first_price, MAX(trade_id * {_SHIFT} + price) AS last_price,"
    " SUM(quantity) AS base, SUM(price * quantity) AS quote, IF(buyer_is_maker, 0, SUM(quantity)) AS taker_base,"
    " IF(buyer_is_maker, 0, SUM(price * quantity)) AS taker_quote"
    " FROM trades WHERE {where} GROUP BY symbol, bucket, buyer_is_maker"
)
_OF_BARS = (
    "SELECT symbol, TO_SECONDS(timestamp) DIV {resolution} AS bucket, timestamp AS begin, low, high, trades AS number,"
    f" first_trade_id AS first_id, last_trade_id AS last_id, first_trade_id * {_SHIFT} + open AS first_price,"
    f" last_trade_id * {_SHIFT} + close AS last_price, volume AS base, quote_volume AS quote,"
    " taker_buy_volume AS taker_base, taker_buy_quote_volume AS taker_quote"
    " FROM candles WHERE {where}"
)
_BARS = (
    "SELECT symbol, {resolution} AS resolution, MIN(begin) - INTERVAL (TO_SECONDS(MIN(begin)) MOD {resolution}) SECOND"
    " - INTERVAL MICROSECOND(MIN(begin)) MICROSECOND AS start,"
    f" MIN(first_price) - MIN(first_id) * {_SHIFT}, MAX(high), MIN(low), MAX(last_price) - MAX(last_id) * {_SHIFT},"
    " SUM(base), SUM(quote), SUM(taker_base), SUM(taker_quote), SUM(number), MIN(first_id), MAX(last_id)"
    " FROM ({parts}) AS parts GROUP BY symbol, bucket"
)


def query(resolution: int, parts: Sequence[tuple[int, str]]) -> str:
    """The SELECT of bars of `resolution` seconds, with the columns of Candle; a part is the resolution of the bars that
    it is made of (0: trades) and its condition."""
    sources = [
        (_OF_BARS if source else _OF_TRADES, f"resolution = {source} AND {where}" if source else where)
        for source, where in parts
    ]
    return _BARS.format(
        resolution=resolution,
        parts=" UNION ALL ".join(sql.format(resolution=resolution, where=where) for sql, where in sources),
    )


def of_pieces(symbol: str, resolution: int, pieces: Sequence[Piece]) -> tuple[str, list[Any]]:
    """The same for one symbol and the pieces of a range, oldest bar first, with its parameters."""
    sql = query(resolution, [(piece.resolution, WITHIN) for piece in pieces])
    return f"{sql} ORDER BY start", naive([value for piece in pieces for value in (symbol, piece.start, piece.end)])


def candle_of(row: Sequence[Any]) -> Candle:
    """The candle of a row, columns in the order of Candle; a SUM of integers arrives as a decimal."""
    found = list(map(aware, row))
    for column in _INTEGERS:
        found[column] = int(found[column])
    # Not _replace, after which Python keeps a tuple of this length for later, up to 2,000 of them.
    return Candle(*found)


_INTEGERS = Candle._fields.index("resolution"), Candle._fields.index("trades")


def span_sql(spans: Sequence[tuple[datetime, datetime]]) -> tuple[str, list[Any]]:
    """The condition that a row begins in one of `spans`, and its parameters."""
    sql = " OR ".join(["timestamp >= %s AND timestamp < %s"] * len(spans))
    return f"({sql})", naive([time for span in spans for time in span])
