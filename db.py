"""The door to the database: connecting, storing trades, the questions. One row per trade (schema.sql).

Trades are keyed by (symbol, timestamp, trade_id); gaps and candles stand beside them. Times go in and come out
UTC-aware, prices and quantities as Decimal, ids as int; ranges are half-open. Driver errors leave as one of the few
exceptions of storage/errors.py. SQL is written here, in storage/ and in schema.sql, nowhere else.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from model import gaps as trade_ids
from model.gaps import Gap
from model.trade import Trade
from storage.candles import upsert_statements
from storage.errors import ContentionError, DatabaseError, FatalError, GoneError, NotWritableError, RefusedError, guard
from storage.gaps import account, continued, give_up, open_gaps, replace_statements, spans
from storage.ranges import MinMax, candles, min_max, min_max_by_scan, rebuild_candles
from storage.session import Connection, apply_schema, close, connect, is_fast
from storage.trades import latest, price_as_of, symbols, trades_in_second
from storage.transaction import store_at_once, transaction
from storage.values import ROWS_PER_STATEMENT_MAX, batches, check_symbol, rows_sql

__all__ = [
    "Connection",
    "ContentionError",
    "DatabaseError",
    "FatalError",
    "GoneError",
    "MinMax",
    "NotWritableError",
    "RefusedError",
    "Trade",
    "apply_schema",
    "candles",
    "close",
    "connect",
    "give_up",
    "is_fast",
    "latest",
    "min_max",
    "min_max_by_scan",
    "open_gaps",
    "price_as_of",
    "rebuild_candles",
    "symbols",
    "trades_in_second",
]


# Every writer goes through insert_trades: the stream, the spool, the back-fill.


@guard
def insert_trades(
    connection: Connection, trades: Sequence[Trade], opened: list[Gap] | None = None, reason: str = trade_ids.MISSED
) -> int:
    """How many of `trades` were new; all are stored when it returns, with their gaps and candles, in one transaction.

    Repeats and any order are fine. Ids that turn out to be missing become rows of `gaps` with that `reason` (appended
    to `opened`), and open gaps that the trades fall into shrink, split or close. Raises RefusedError (nothing is
    stored then), GoneError (all or nothing is stored: repeat), ContentionError, NotWritableError, FatalError.
    """
    if not trades:
        return 0
    groups: dict[str, list[Trade]] = defaultdict(list)
    for trade in trades:
        groups[trade.symbol].append(trade)
    for symbol in groups:
        check_symbol(symbol)
    inserts = -(-len(trades) // ROWS_PER_STATEMENT_MAX)
    continuing = {symbol: continued(connection.spans.get(symbol), group) for symbol, group in groups.items()}
    ahead = {symbol: span for symbol, span in continuing.items() if span is not None}
    if len(ahead) == len(groups):
        # The ordinary case, in one round trip. It fails when somebody else has written, of whom the rest takes care.
        statements = chain(_insert_statements(trades), upsert_statements(connection, groups))
        changed = store_at_once(connection, sorted(groups), statements)
        if changed is not None:
            connection.spans.update(ahead)
            return sum(changed[:inserts])
    found: list[Gap] = []
    with transaction(connection, sorted(groups)) as work:
        known = spans(connection, work.tokens)
        grown = {symbol: account(connection, known[symbol], group, reason, found) for symbol, group in groups.items()}
        merge = upsert_statements(connection, groups)
        work.last = chain(_insert_statements(trades), replace_statements(connection, found), merge)
        # Before the commit: should anything go wrong with that, all of them are forgotten.
        connection.spans.update(grown)
    if opened is not None:
        opened.extend(found)
    return sum(work.changed[:inserts])


def insert_acceptable(
    connection: Connection,
    trades: Sequence[Trade],
    refuse: Callable[[Trade, str], None],
    opened: list[Gap] | None = None,
    reason: str = trade_ids.MISSED,
) -> int:
    """As insert_trades, but a trade that the database refuses goes to `refuse` with the server's words, not its batch.

    The batch is halved until the refused trades stand alone, so each part is a transaction of its own.
    """
    try:
        return insert_trades(connection, trades, opened, reason)
    except RefusedError as error:
        if len(trades) == 1:
            refuse(trades[0], str(error))
            return 0
    half = len(trades) // 2
    parts = (trades[:half], trades[half:])
    return sum(insert_acceptable(connection, part, refuse, opened, reason) for part in parts)


def _insert_statements(trades: Sequence[Trade]) -> Iterator[str]:
    for part in batches(trades):
        # INSERT IGNORE would clip what does not fit; this keeps the row that is there and changes nothing.
        yield f"{_INSERT}{','.join(rows_sql(part))} ON DUPLICATE KEY UPDATE trade_id = trades.trade_id"


_INSERT = "INSERT INTO trades (symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at) VALUES "
