"""The database: one row per trade, keyed by (symbol, timestamp, trade_id); gaps and candles beside it (schema.sql).

db*.py and schema.sql are the only place of SQL. Times go in and come out UTC-aware, prices and quantities as Decimal,
ids as int; ranges are half-open. Driver errors leave as one of the few exceptions of db_errors.py.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, TypeVar

from model import candles as bars
from model import gaps as trade_ids
from model.candles import Candle
from model.gaps import Gap, Point, Span
from storage.errors import ContentionError, DatabaseError, FatalError, GoneError, NotWritableError, RefusedError, guard
from storage.ranges import MinMax, candles, min_max, min_max_by_scan, rebuild_candles
from storage.session import (
    Connection,
    Trade,
    apply_schema,
    aware,
    close,
    connect,
    execute,
    floor_ms,
    is_fast,
    naive,
    run,
    select,
    sent,
    store_at_once,
    trade_of,
    transaction,
)
from storage.values import candles_sql, check_symbol, rows_sql

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
    "is_fast",
    "min_max",
    "min_max_by_scan",
    "rebuild_candles",
]

ROWS_PER_STATEMENT_MAX = 2_000
"""About 200 KB of SQL, far below the smallest default of max_allowed_packet (16 MB)."""
ABSORB_S = 5
"""A gap that the streams close themselves within so many seconds was a reordering: no record of it is kept."""
SPAN_MARGIN_S = 1

T = TypeVar("T")
_MILLISECOND = timedelta(milliseconds=1)


# ---- Writing. Every writer goes through insert_trades: the stream, the spool, the back-fill.


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
    spans = {symbol: _continued(connection.spans.get(symbol), group) for symbol, group in groups.items()}
    ahead = {symbol: span for symbol, span in spans.items() if span is not None}
    if len(ahead) == len(groups):
        # The ordinary case, in one round trip. It fails when somebody else has written, of whom the rest takes care.
        statements = chain(_insert_statements(trades), _candle_statements(connection, groups))
        changed = store_at_once(connection, sorted(groups), statements)
        if changed is not None:
            connection.spans.update(ahead)
            return sum(changed[:inserts])
    found: list[Gap] = []
    with transaction(connection, sorted(groups)) as work:
        known = _spans(connection, work.tokens)
        grown = {symbol: _account(connection, known[symbol], group, reason, found) for symbol, group in groups.items()}
        merge = _candle_statements(connection, groups)
        work.last = chain(_insert_statements(trades), _gap_statements(connection, found), merge)
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


def _spans(connection: Connection, tokens: dict[str, int]) -> dict[str, Span | None]:
    """The spans of the locked symbols: as remembered, or from the tables where somebody else has written since."""
    others = [symbol for symbol in tokens if tokens[symbol] != connection.token or symbol not in connection.spans]
    if others:
        marks = ", ".join(["%s"] * len(others))
        run(connection, f"UPDATE writers SET token = %s WHERE symbol IN ({marks})", [connection.token, *others])
        # What was remembered of them is outdated, which the token, now ours again, will not tell the next time.
        for symbol in others:
            connection.spans.pop(symbol, None)
    spans = {symbol: _read_span(connection, symbol) for symbol in others}
    return {symbol: spans[symbol] if symbol in spans else connection.spans[symbol] for symbol in tokens}


def _read_span(connection: Connection, symbol: str) -> Span | None:
    """The span of the stored trades. The exchange's time stamps rise with the ids, give or take SPAN_MARGIN_S."""
    # Two statements for each end, because MariaDB reads every trade of the symbol when the bound is a subquery.
    end = "SELECT timestamp FROM trades WHERE symbol = %s ORDER BY timestamp {way}, trade_id {way} LIMIT 1"
    near = "SELECT trade_id, timestamp FROM trades WHERE symbol = %s AND timestamp {beyond} %s"
    near += " ORDER BY trade_id {way} LIMIT 1"
    oldest = select(connection, end.format(way="ASC"), (symbol,))
    newest = select(connection, end.format(way="DESC"), (symbol,))
    if not oldest:
        return None
    margin = timedelta(seconds=SPAN_MARGIN_S)
    first = select(connection, near.format(beyond="<=", way="ASC"), (symbol, oldest[0][0] + margin))
    last = select(connection, near.format(beyond=">=", way="DESC"), (symbol, newest[0][0] - margin))
    return Span(_point(first[0]), _point(last[0]))


def _point(row: tuple[int, datetime]) -> Point:
    return row[0], row[1].replace(tzinfo=UTC)


def _insert_statements(trades: Sequence[Trade]) -> Iterator[str]:
    for part in _parts(trades):
        # INSERT IGNORE would clip what does not fit; this keeps the row that is there and changes nothing.
        yield f"{_INSERT}{','.join(rows_sql(part))} ON DUPLICATE KEY UPDATE trade_id = trades.trade_id"


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """`rows` in runs that one statement takes."""
    for start in range(0, len(rows), ROWS_PER_STATEMENT_MAX):
        yield rows[start : start + ROWS_PER_STATEMENT_MAX]


_INSERT = "INSERT INTO trades (symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at) VALUES "


def _account(connection: Connection, span: Span | None, trades: Sequence[Trade], reason: str, found: list[Gap]) -> Span:
    """The span after `trades` of one symbol; new gaps are appended to `found`, open ones brought up to date."""
    continued = _continued(span, trades)
    if continued is not None:
        return continued
    points = sorted({trade.trade_id: floor_ms(trade.timestamp) for trade in trades}.items())
    now = datetime.now(UTC)
    grown, stretches, late = trade_ids.account(span, points)
    for stretch in stretches:
        found += trade_ids.holes(trades[0].symbol, stretch, reason, now)
    if late:
        from_stream = all(trade.received_at is not None for trade in trades)
        _fill(connection, trades[0].symbol, late, now, absorb=from_stream)
    return grown


def _continued(span: Span | None, trades: Sequence[Trade]) -> Span | None:
    """The span after `trades` of one symbol, if they are, in any order, the ones that must come next."""
    ids = [trade.trade_id for trade in trades]
    low, high = min(ids), max(ids)
    if span is None or low != span.last[0] + 1 or not high - low + 1 == len(ids) == len(set(ids)):
        return None
    return Span(span.first, (high, floor_ms(trades[ids.index(high)].timestamp)))


def _gap_statements(connection: Connection, gaps: Sequence[Gap]) -> list[str]:
    # REPLACE, because the begin of a gap that was filled and then lost again is there already.
    return [
        sent(
            connection,
            f"REPLACE INTO gaps ({_GAP}) VALUES " + ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s)"] * len(part)),
            [value for gap in part for value in naive(gap)],
        )
        for part in _parts(gaps)
    ]


_GAP = "symbol, first_trade_id, last_trade_id, reason, detected_at, filled_at, timestamp_before, timestamp_after"


def _fill(connection: Connection, symbol: str, points: Sequence[Point], now: datetime, absorb: bool) -> None:
    """Takes the ids of `points`, which are stored, out of the open gaps; `absorb`: leaves no record of a young one."""
    for gap in _open_gaps(connection, symbol, points[0][0], points[-1][0]):
        still_open, filled = trade_ids.fill(gap, points, now)
        if not filled:
            continue
        if absorb and timedelta() <= now - gap.detected_at < timedelta(seconds=ABSORB_S):
            filled = []
        _replace_gap(connection, gap, still_open + [_joined(connection, run) for run in filled])


@guard
def give_up(connection: Connection, symbol: str, first: int, last: int, reason: str) -> int:
    """How many ids of first to last (inclusive) are in open gaps; those get `reason` and stay open."""
    now = datetime.now(UTC)
    changed = 0
    with transaction(connection, [symbol]) as work:
        _spans(connection, work.tokens)
        for gap in _open_gaps(connection, symbol, first, last):
            low, high = max(first, gap.first_trade_id), min(last, gap.last_trade_id)
            ends = [(low - 1, gap.timestamp_before), (high + 1, gap.timestamp_after)]
            parts = [
                gap._replace(last_trade_id=low - 1),
                *trade_ids.holes(symbol, ends, reason, now),
                gap._replace(first_trade_id=high + 1),
            ]
            _replace_gap(connection, gap, [part for part in parts if part.missing > 0])
            changed += high - low + 1
    return changed


def _replace_gap(connection: Connection, gap: Gap, parts: Sequence[Gap]) -> None:
    key = (gap.symbol, gap.first_trade_id)
    delete = sent(connection, "DELETE FROM gaps WHERE symbol = %s AND first_trade_id = %s", key)
    execute(connection, delete, *_gap_statements(connection, parts))


def _joined(connection: Connection, run: Gap) -> Gap:
    """`run` together with the filled run of the same gap that ends right before it (which is deleted), if any."""
    rows = select(
        connection,
        f"SELECT {_GAP} FROM gaps WHERE symbol = %s AND first_trade_id < %s ORDER BY first_trade_id DESC LIMIT 1",
        (run.symbol, run.first_trade_id),
    )
    for before in map(_gap, rows):
        same = (before.last_trade_id + 1, before.detected_at) == (run.first_trade_id, run.detected_at)
        if same and before.filled_at is not None:
            return run._replace(first_trade_id=before.first_trade_id, timestamp_before=before.timestamp_before)
    return run


def _open_gaps(connection: Connection, symbol: str, first: int, last: int) -> list[Gap]:
    inside = "symbol = %s AND first_trade_id <= %s AND last_trade_id >= %s"
    sql = f"SELECT {_GAP} FROM gaps WHERE filled_at IS NULL AND {inside} ORDER BY first_trade_id"
    return [_gap(row) for row in select(connection, sql, (symbol, last, first))]


def _gap(row: Sequence[Any]) -> Gap:
    return Gap(*(aware(value) for value in row))


def _candle_statements(connection: Connection, groups: dict[str, list[Trade]]) -> Iterator[str]:
    """Merges the candles of trades; LEAST, GREATEST and the ids decide, so repeats and any order do no harm."""
    merge = _MERGE_ALIAS if connection.names_new_rows else _MERGE_VALUES
    for part in _parts([candle for group in groups.values() for candle in bars.of_trades(group)]):
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


# ---- Reading.

_TRADE = ", ".join(Trade._fields)


@guard
def symbols(connection: Connection) -> list[str]:
    """The symbols that have trades, in order."""
    # From one to the next by the index: MariaDB reads every trade for SELECT DISTINCT.
    sql = "SELECT symbol FROM trades WHERE symbol > %s ORDER BY symbol LIMIT 1"
    found: list[str] = []
    while rows := select(connection, sql, found[-1:] or [""]):
        found.append(rows[0][0])
    return found


@guard
def latest(connection: Connection, symbol: str) -> Trade | None:
    """The newest trade of `symbol`, None when it has none."""
    return _one(connection, "symbol = %s ORDER BY timestamp DESC, trade_id DESC LIMIT 1", (symbol,))


@guard
def trades_in_second(connection: Connection, symbol: str, when: datetime) -> list[Trade]:
    """The trades of the second that `when` lies in: from its first millisecond to before the next second's first."""
    start = when.replace(microsecond=0)
    where = "symbol = %s AND timestamp >= %s AND timestamp < %s ORDER BY timestamp, trade_id"
    return _trades(connection, where, (symbol, start, start + timedelta(seconds=1)))


@guard
def price_as_of(connection: Connection, symbol: str, when: datetime) -> Trade | None:
    """The last trade up to and including the millisecond of `when`, whose price was the price then; None: none yet."""
    where = "symbol = %s AND timestamp < %s ORDER BY timestamp DESC, trade_id DESC LIMIT 1"
    return _one(connection, where, (symbol, floor_ms(when) + _MILLISECOND))


@guard
def open_gaps(connection: Connection, symbol: str | None = None) -> list[Gap]:
    """The runs of missing ids, of one symbol or of all, in order of symbol and id."""
    sql = f"SELECT {_GAP} FROM gaps WHERE filled_at IS NULL"
    if symbol is not None:
        rows = select(connection, f"{sql} AND symbol = %s ORDER BY symbol, first_trade_id", (symbol,))
    else:
        rows = select(connection, f"{sql} ORDER BY symbol, first_trade_id")
    return [_gap(row) for row in rows]


def _trades(connection: Connection, where: str, parameters: Sequence[Any]) -> list[Trade]:
    return [
        trade_of(row) for row in select(connection, f"SELECT {_TRADE} FROM trades WHERE {where}", naive(parameters))
    ]


def _one(connection: Connection, where: str, parameters: Sequence[Any]) -> Trade | None:
    return next(iter(_trades(connection, where, parameters)), None)
