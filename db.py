"""The door to the database: connecting, storing trades, the questions. One row per trade (schema.sql).

Trades are keyed by (symbol, timestamp, trade_id); gaps and candles stand beside them. Times go in and come out
UTC-aware, prices and quantities as Decimal, ids as int; ranges are half-open. Driver errors leave as one of the few
exceptions of storage/errors.py. SQL is written here, in storage/ and in schema.sql, nowhere else.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from datetime import datetime
from itertools import chain
from operator import itemgetter

from model import gaps as trade_ids
from model.gaps import Gap, Span
from model.trade import Trade
from storage.canonical import ids_beside
from storage.connecting import connect
from storage.errors import (
    AccessError,
    ContentionError,
    DatabaseError,
    FatalError,
    GoneError,
    NothingError,
    NotWritableError,
    OtherHistoryError,
    RefusedError,
    RetainedError,
    guard,
)
from storage.gaps import (
    DISORDER,
    Reasons,
    account,
    check_history,
    continued,
    forget_history,
    give_up,
    leaves_hole,
    missing_in,
    open_gaps,
    proven_span,
    replace_statements,
    spans,
)
from storage.loading import Lines
from storage.loading import load as load_history
from storage.pages import with_ids
from storage.proofs import ArchivedFile, add_proof, coverage, loaded_files, newest_proof, proofs, record_file
from storage.ranges import MinMax, candles, min_max, min_max_by_scan
from storage.retained import days_in_files
from storage.retention import not_in_files
from storage.runs import missing_runs
from storage.sealing import Sealable, first_from, remake_statements, seal, seal_history, seal_locked, sealable
from storage.session import Connection, close, is_fast
from storage.trades import latest, latest_of_all, price_as_of, symbols, trades_in_second
from storage.transaction import State, pull_down_fence, store_at_once, store_few, transaction
from storage.values import INSERT, REPEATED, check_symbol, insert_statements, rows_max, rows_sql, time_sql

__all__ = [
    "DISORDER",
    "AccessError",
    "ArchivedFile",
    "Connection",
    "ContentionError",
    "DatabaseError",
    "FatalError",
    "GoneError",
    "Lines",
    "MinMax",
    "NotWritableError",
    "NothingError",
    "OtherHistoryError",
    "RefusedError",
    "RetainedError",
    "Sealable",
    "Trade",
    "add_proof",
    "candles",
    "close",
    "connect",
    "coverage",
    "days_in_files",
    "first_from",
    "forget_history",
    "give_up",
    "ids_beside",
    "is_fast",
    "latest",
    "latest_of_all",
    "load_history",
    "loaded_files",
    "min_max",
    "min_max_by_scan",
    "missing_in",
    "missing_runs",
    "newest_proof",
    "open_gaps",
    "price_as_of",
    "proofs",
    "record_file",
    "seal",
    "seal_history",
    "seal_locked",
    "sealable",
    "symbols",
    "trades_in_second",
    "with_ids",
]


FEW_TRADES_MAX = 4
"""Up to so many trades one statement is quicker than a transaction (docs/performance.md)."""


# Every writer goes through insert_trades: the stream, the spool, the back-fill.


@guard
def insert_trades(
    connection: Connection,
    trades: Sequence[Trade],
    opened: list[Gap] | None = None,
    reason: str = trade_ids.MISSED,
    resumed: Container[str] | None = None,
) -> int:
    """How many of `trades` were new; all are stored when it returns, with their gaps, and in the bars that are sealed.

    Repeats and any order are fine. Ids that turn out to be missing become rows of `gaps` with that `reason` (appended
    to `opened`), and open gaps that the trades fall into shrink, split or close. `resumed`: the symbols of which these
    are the first since the capture began, so that what is missing right before them has another reason; if it is given,
    trades that contradict what is stored are refused. Repeats of what is in Parquet files are passed over. Raises
    RefusedError (a part may be stored then), GoneError (all, a part or nothing is stored: repeat), RetainedError,
    ContentionError, NotWritableError, FatalError, OtherHistoryError.
    """
    if not trades:
        return 0
    groups = _grouped(trades)
    earliest = _earliest(trades)
    continuing = {symbol: continued(connection.spans.get(symbol), group) for symbol, group in groups.items()}
    ahead = {symbol: span for symbol, span in continuing.items() if span is not None}
    new = 0
    if len(ahead) == len(groups):
        # The ordinary case, in one round trip. It fails when somebody else has written, of whom the rest takes care.
        new = _store_ahead(connection, trades, sorted(groups), earliest)
        if new == len(trades):
            connection.spans.update(ahead)
            # The id that comes next was not stored, so there was no higher one.
            connection.unproven.difference_update(ahead)
            return new
    found: list[Gap] = []
    bytes_max = connection.manners.bytes_max
    with transaction(connection, sorted(groups)) as work:
        known = _known(connection, groups, work.states, resumed is not None)
        groups = _not_in_files(connection, groups, work.states)
        trades = list(chain.from_iterable(groups.values()))
        grown: dict[str, Span] = {}
        for symbol, group in groups.items():
            reasons = Reasons(reason, trade_ids.AWAY if resumed is not None and symbol in resumed else reason)
            grown[symbol] = account(connection, known[symbol], group, reasons, found)
        for symbol, state in work.states.items():
            pull_down_fence(connection, symbol, state, earliest)
        remake = (
            remake_statements(connection, symbol, list(map(_timestamp, group)), work.states[symbol].sealed_until)
            for symbol, group in groups.items()
        )
        work.last = chain(
            insert_statements(trades, bytes_max), replace_statements(connection, found), chain.from_iterable(remake)
        )
        # Before the commit: should anything go wrong with that, all of them are forgotten.
        connection.spans.update(grown)
    if opened is not None:
        opened.extend(found)
    new += sum(work.changed[: -(-len(trades) // rows_max(bytes_max))])
    if new == len(trades):
        connection.unproven.difference_update(
            symbol for symbol, group in groups.items() if continued(known[symbol], group)
        )
    return new


def _grouped(trades: Sequence[Trade]) -> dict[str, list[Trade]]:
    """The trades of each symbol. Raises RefusedError for a symbol that does not fit."""
    groups: dict[str, list[Trade]] = defaultdict(list)
    for trade in trades:
        groups[trade.symbol].append(trade)
    for symbol in groups:
        check_symbol(symbol)
    return groups


def _known(
    connection: Connection, groups: dict[str, list[Trade]], states: dict[str, State], one_history: bool
) -> dict[str, Span | None]:
    """The spans of the symbols, as true as what is about to be stored needs them. Raises OtherHistoryError."""
    known = spans(connection, states)
    for symbol, span in known.items():
        if span is None:
            continue
        if symbol in connection.unproven and leaves_hole(span, groups[symbol]):
            known[symbol] = span = proven_span(connection, symbol, span, states[symbol].sealed_until)
            connection.unproven.discard(symbol)
        if one_history:
            check_history(symbol, span, groups[symbol])
    return known


def _not_in_files(
    connection: Connection, groups: dict[str, list[Trade]], states: dict[str, State]
) -> dict[str, list[Trade]]:
    """What there is to store of the symbols: without repeats of what is in files. Raises RetainedError."""
    kept: dict[str, list[Trade]] = {}
    missing: list[tuple[str, list[Trade]]] = []
    for symbol, group in groups.items():
        kept[symbol], lost = not_in_files(connection, symbol, group, states[symbol].sealed_until)
        missing += lost
    if missing:
        raise RetainedError(missing[0][0], missing)
    return {symbol: group for symbol, group in kept.items() if group}


def _earliest(trades: Sequence[Trade]) -> datetime:
    """The earliest time. Raises RefusedError if only some have a time zone."""
    try:
        found: datetime = min(map(_timestamp, trades))
    except TypeError:
        raise RefusedError("a time without a time zone among others") from None
    return found


def _store_ahead(connection: Connection, trades: Sequence[Trade], symbols: Sequence[str], earliest: datetime) -> int:
    """How many of `trades` were stored, all of which come next in their symbols: all of them, or the rows of `symbols`
    are not as this connection left them."""
    when = f"'{time_sql(earliest, 3)}'"
    if len(trades) <= FEW_TRADES_MAX and not connection.certified:
        rows = list(zip(map(_symbol, trades), rows_sql(trades), strict=True))
        return store_few(connection, INSERT, rows, when, REPEATED)
    statements = insert_statements(trades, connection.manners.bytes_max)
    return sum(store_at_once(connection, symbols, when, statements) or ())


def insert_acceptable(
    connection: Connection,
    trades: Sequence[Trade],
    refuse: Callable[[Trade, str], None],
    opened: list[Gap] | None = None,
    resumed: Container[str] = (),
) -> int:
    """As insert_trades, but a trade that the database refuses goes to `refuse` with the server's words, not its batch.

    The batch is halved until the refused trades stand alone, so each part is a transaction of its own.
    """
    try:
        return insert_trades(connection, trades, opened, resumed=resumed)
    except RefusedError as error:
        if len(trades) == 1:
            refuse(trades[0], str(error))
            return 0
    half = len(trades) // 2
    parts = (trades[:half], trades[half:])
    return sum(insert_acceptable(connection, part, refuse, opened, resumed) for part in parts)


_symbol, _timestamp = itemgetter(0), itemgetter(1)
