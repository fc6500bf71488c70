"""The table `gaps`, and what is known of the ids: which are accounted for, which are missing, which were filled.

Contract: stored ids and open gaps together are every id from the first stored one to the last. So whoever stores trades
works out, in the same transaction, what they reveal (account) and what they fill (fill).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

import mysql.connector
from mysql.connector import errorcode

from model import candles as bars
from model import gaps as trade_ids
from model.candles import MINUTE, Piece
from model.gaps import Gap, Point, Span
from model.times import floor_ms
from model.trade import Trade
from storage.errors import OtherHistoryError, guard
from storage.retained import FIRST_SQL, LAST_SQL, first_in_files, has_files, last_in_files
from storage.session import Connection, execute, run, select, sent
from storage.transaction import State, own_tokens, transaction
from storage.values import aware, batches, marks, naive

ABSORB_S = 5
"""A gap that the streams close themselves within so many seconds was a reordering: no record of it is kept, unless a
proof says that its ids were missing."""
DISORDER = timedelta(minutes=1)
"""The exchange's time stamps rise with the ids; what contradicts that by more is not of the same history."""


class Reasons(NamedTuple):
    """Why ids are missing: in general, and right behind what was stored before."""

    within: str
    behind: str


def spans(connection: Connection, locked: dict[str, State]) -> dict[str, Span | None]:
    """The spans of the locked symbols: as remembered, or from the tables where somebody else has written since."""
    own, remembered = own_tokens(connection), connection.spans
    others = [symbol for symbol, state in locked.items() if state.token not in own or symbol not in remembered]
    if others:
        sql = f"UPDATE symbols SET token = %s WHERE symbol IN ({marks(others)})"
        # With the first question of read_span, since others wait for the rows that are locked.
        connection.opening = (sent(connection, sql, [connection.token, *others]),)
        # What we remembered of them is outdated, which the token, now ours again, will not show next time.
        for symbol in others:
            connection.spans.pop(symbol, None)
    read = {symbol: read_span(connection, symbol) for symbol in others}
    connection.unproven.update(others)
    return {symbol: read[symbol] if symbol in read else connection.spans[symbol] for symbol in locked}


NEAR = timedelta(seconds=1)
"""The trades so near to the end are looked at for the highest id, which is then proven if it matters."""


def read_span(connection: Connection, symbol: str) -> Span | None:
    """The span of the stored trades, as far as their times tell: see proven_span. Those in files count."""
    first, last = first_in_files(connection, symbol), last_in_files(connection, symbol)
    rows = _span_of_rows(connection, symbol)
    if first is None or last is None:
        return rows
    return Span(min(first, rows.first), max(last, rows.last)) if rows else Span(first, last)


def _span_of_rows(connection: Connection, symbol: str) -> Span | None:
    # Two questions, because MariaDB reads every trade of the symbol when the bound is a subquery; both ends in each,
    # because a writer asks them while others wait.
    ends = [f"(SELECT timestamp FROM trades WHERE symbol = %s {_by_time(way)})" for way in ("ASC", "DESC")]
    times = sorted(when for (when,) in select(connection, " UNION ALL ".join(ends), (symbol, symbol)))
    if not times:
        return None
    near = "(SELECT {place}, trade_id, timestamp FROM trades WHERE symbol = %s AND timestamp {beyond} %s"
    near += " ORDER BY trade_id {way} LIMIT 1)"
    both = f"{near.format(place=0, beyond='<=', way='ASC')} UNION ALL {near.format(place=1, beyond='>=', way='DESC')}"
    found = select(connection, both, (symbol, times[0] + NEAR, symbol, times[-1] - NEAR))
    first, last = (point_of(row[1:]) for row in sorted(found))
    return Span(first, last)


def _by_time(way: str) -> str:
    return f"ORDER BY timestamp {way}, trade_id {way} LIMIT 1"


def leaves_hole(span: Span, trades: Sequence[Trade]) -> bool:
    """Whether ids right behind `span` are missing, if it is true and `trades` of its symbol are stored."""
    ahead = [trade.trade_id for trade in trades if trade.trade_id > span.last[0]]
    return bool(ahead) and min(ahead) > span.last[0] + 1


def proven_span(connection: Connection, symbol: str, span: Span, sealed_until: datetime | None) -> Span:
    """`span`, which was read from the tables, with the highest id that is stored.

    Times may have run back by any amount just before the last writer ended, so that id is not looked for by time: the
    sealed bars know theirs, and the trades behind them are all looked at.
    """
    first, last = span
    pieces = bars.pieces(bars.floor(first[1], MINUTE), last[1] + DISORDER, sealed_until)
    for piece in pieces:
        last = max(last, _highest(connection, symbol, piece) or last)
    return Span(first, last)


_HIGHEST = "SELECT trade_id, timestamp FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s"
_HIGHEST += " ORDER BY trade_id DESC LIMIT 1"
_HIGHEST_BAR = "SELECT timestamp FROM candles WHERE symbol = %s AND resolution = %s AND timestamp >= %s"
_HIGHEST_BAR += " AND timestamp < %s ORDER BY last_trade_id DESC LIMIT 1"


def _highest(connection: Connection, symbol: str, piece: Piece) -> Point | None:
    """The trade with the highest id in a piece of time; of bars, that in the one which has it. None: there is none."""
    if piece.resolution:
        rows = select(connection, _HIGHEST_BAR, naive((symbol, piece.resolution, piece.start, piece.end)))
        if not rows:
            return None
        start = aware(rows[0][0])
        end = start + timedelta(seconds=piece.resolution)
        return _highest(connection, symbol, Piece(bars.FINER[piece.resolution], start, end))
    found: Point | None = None
    start = piece.start
    # As short as one statement can always read; nearly always there is one.
    while start < piece.end:
        end = min(piece.end, start + _STEP)
        rows = select(connection, _HIGHEST, naive((symbol, start, end)))
        for row in rows:
            found = max(found or point_of(row), point_of(row))
        start = end
    return found


_STEP = timedelta(hours=1)


def point_of(row: tuple[int, datetime]) -> Point:
    return row[0], row[1].replace(tzinfo=UTC)


def account(
    connection: Connection, span: Span | None, trades: Sequence[Trade], reasons: Reasons, found: list[Gap]
) -> Span:
    """The span after `trades` of one symbol; new gaps are appended to `found`, open ones brought up to date."""
    ahead = continued(span, trades)
    if ahead is not None:
        return ahead
    symbol = trades[0].symbol
    points = sorted({trade.trade_id: floor_ms(trade.timestamp) for trade in trades}.items())
    if span is not None and points[0][0] < span.first[0]:
        forget_before(connection, symbol, span.first[0])
    now = datetime.now(UTC)
    grown, stretches, late = trade_ids.account(span, points)
    for stretch in stretches:
        for hole in trade_ids.holes(symbol, stretch, reasons.within, now):
            behind = span is not None and hole.first_trade_id == span.last[0] + 1
            found.append(hole._replace(reason=reasons.behind) if behind else hole)
    if late:
        from_stream = all(trade.received_at is not None for trade in trades)
        _fill(connection, symbol, late, now, absorb=from_stream)
    return grown


def check_history(symbol: str, span: Span, trades: Sequence[Trade]) -> None:
    """Raises OtherHistoryError if an id that is lower comes with a time that is later, or the other way round."""
    for trade in trades:
        check_point(symbol, span, (trade.trade_id, trade.timestamp))


def check_point(symbol: str, span: Span, point: Point) -> None:
    (first, first_at), (last, last_at) = span
    trade_id, when = point
    lower = trade_id < first and when > first_at + DISORDER
    within = trade_id <= last and when > last_at + DISORDER
    if lower or within or (trade_id >= first and when < first_at - DISORDER):
        raise OtherHistoryError(
            f"trade {trade_id} of {symbol}, of {_said(when)}, is not of the history that is stored, whose ids"
            f" {first} to {last} are of {_said(first_at)} to {_said(last_at)}: the ids have begun anew, as on a"
            " test network, or it comes from another exchange. Set MYSQL_DATABASE to another name"
        )


def _said(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S}"


def forget_before(connection: Connection, symbol: str, first: int) -> None:
    """Deletes the open gaps that old rows, deleted since, have left; what is older now has gaps of its own."""
    sql = "DELETE FROM gaps WHERE symbol = %s AND filled_at IS NULL AND last_trade_id < %s"
    run(connection, sql, (symbol, first))


def continued(span: Span | None, trades: Sequence[Trade]) -> Span | None:
    """The span after `trades` of one symbol if they are, in any order, exactly those that come next; otherwise None."""
    ids = [trade.trade_id for trade in trades]
    low, high = min(ids), max(ids)
    if span is None or low != span.last[0] + 1 or not high - low + 1 == len(ids) == len(set(ids)):
        return None
    return Span(span.first, (high, floor_ms(trades[ids.index(high)].timestamp)))


def replace_statements(connection: Connection, gaps: Sequence[Gap]) -> list[str]:
    # REPLACE, because a gap that was filled and then lost again already has a row with the same first id.
    return [
        sent(
            connection,
            f"REPLACE INTO gaps ({_GAP}) VALUES " + ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s)"] * len(part)),
            [value for gap in part for value in naive(gap)],
        )
        for part in batches(gaps, connection.manners.bytes_max)
    ]


_GAP = "symbol, first_trade_id, last_trade_id, reason, detected_at, filled_at, timestamp_before, timestamp_after"
_FIRST_ROW = (
    "(SELECT timestamp FROM trades WHERE trades.symbol = gaps.symbol ORDER BY trades.symbol, trades.timestamp LIMIT 1)"
)
_OPEN = f"filled_at IS NULL AND timestamp_before >= {_FIRST_ROW}"
_BEHIND_ROW, _BEHIND_FILE = f"timestamp_before >= {_FIRST_ROW}", f"timestamp_before >= {FIRST_SQL}"
_OPEN_BESIDE_FILES = f"filled_at IS NULL AND (COALESCE({_BEHIND_ROW}, {_BEHIND_FILE})"
_OPEN_BESIDE_FILES += f" OR COALESCE({_BEHIND_FILE}, {_BEHIND_ROW}))"


def _open(connection: Connection) -> str:
    """What is missing. Where the trade before a gap was deleted, as with old rows, its ids are below the first stored
    one: they are of the time before the recorder. (Both families read one row for each subquery, but not for a MIN.)"""
    return _OPEN_BESIDE_FILES if has_files(connection) else _OPEN


def _fill(connection: Connection, symbol: str, points: Sequence[Point], now: datetime, absorb: bool) -> None:
    """Takes the ids of `points`, which are stored, out of the open gaps; with `absorb` a young gap leaves no record."""
    for gap in open_gaps_among(connection, symbol, points[0][0], points[-1][0]):
        still_open, filled = trade_ids.fill(gap, points, now)
        if not filled:
            continue
        young = timedelta() <= now - gap.detected_at < timedelta(seconds=ABSORB_S)
        if absorb and young and not _was_proven_since(connection, gap.symbol, gap.detected_at):
            filled = []
        replace_gap(connection, gap, still_open + [joined(connection, run) for run in filled])


@guard
def give_up(connection: Connection, symbol: str, first: int, last: int, reason: str) -> int:
    """How many ids from first to last (inclusive) are in open gaps; these get `reason` and stay open."""
    now = datetime.now(UTC)
    changed = 0
    with transaction(connection, [symbol]) as work:
        spans(connection, work.states)
        for gap in open_gaps_among(connection, symbol, first, last):
            low, high = max(first, gap.first_trade_id), min(last, gap.last_trade_id)
            ends = [(low - 1, gap.timestamp_before), (high + 1, gap.timestamp_after)]
            parts = [
                gap._replace(last_trade_id=low - 1),
                *trade_ids.holes(symbol, ends, reason, now),
                gap._replace(first_trade_id=high + 1),
            ]
            replace_gap(connection, gap, [part for part in parts if part.missing > 0])
            changed += high - low + 1
    return changed


def replace_gap(connection: Connection, gap: Gap, parts: Sequence[Gap]) -> None:
    key = (gap.symbol, gap.first_trade_id)
    delete = sent(connection, "DELETE FROM gaps WHERE symbol = %s AND first_trade_id = %s", key)
    execute(connection, delete, *replace_statements(connection, parts))


def joined(connection: Connection, run: Gap) -> Gap:
    """`run` together with the filled run of the same gap that ends right before it (which is deleted), if any."""
    rows = select(
        connection,
        f"SELECT {_GAP} FROM gaps WHERE symbol = %s AND first_trade_id < %s ORDER BY first_trade_id DESC LIMIT 1",
        (run.symbol, run.first_trade_id),
    )
    for before in map(_gap, rows):
        same = (before.last_trade_id + 1, before.detected_at) == (run.first_trade_id, run.detected_at)
        if same and before.filled_at is not None and not _was_proven_since(connection, run.symbol, before.filled_at):
            return run._replace(first_trade_id=before.first_trade_id, timestamp_before=before.timestamp_before)
    return run


def _was_proven_since(connection: Connection, symbol: str, when: datetime) -> bool:
    """Whether there may be a proof for which it matters what was stored by then (proof/recheck.py)."""
    sql = "SELECT 1 FROM proofs WHERE symbol = %s AND proven_at >= %s LIMIT 1"
    try:
        return bool(select(connection, sql, naive((symbol, when))))
    except mysql.connector.Error as error:
        # An account that only captures need not have a right to the proofs.
        if error.errno != errorcode.ER_TABLEACCESS_DENIED_ERROR:
            raise
        return True


def open_gaps_among(connection: Connection, symbol: str, first: int, last: int) -> list[Gap]:
    inside = "symbol = %s AND first_trade_id <= %s AND last_trade_id >= %s"
    sql = f"SELECT {_GAP} FROM gaps WHERE filled_at IS NULL AND {inside} ORDER BY first_trade_id"
    return [_gap(row) for row in select(connection, sql, (symbol, last, first))]


def _gap(row: Sequence[Any]) -> Gap:
    return Gap(*(aware(value) for value in row))


@guard
def open_gaps(connection: Connection, symbol: str | None = None) -> list[Gap]:
    """The runs of missing ids, of one symbol or of all, in order of symbol and id."""
    sql = f"SELECT {_GAP} FROM gaps WHERE {_open(connection)}"
    if symbol is not None:
        rows = select(connection, f"{sql} AND symbol = %s ORDER BY symbol, first_trade_id", (symbol,))
    else:
        rows = select(connection, f"{sql} ORDER BY symbol, first_trade_id")
    return [_gap(row) for row in rows]


_REACHES = "filled_at IS NULL AND symbol = %s AND timestamp_after >= %s AND timestamp_before < %s"
_MISSING = "last_trade_id - first_trade_id + 1"


@guard
def gaps_in(connection: Connection, symbol: str, start: datetime, end: datetime, size: int | None = None) -> list[Gap]:
    """The open gaps of which a trade may be missing in [start, end): their ids lie between their neighbours' times.
    The `size` longest of them, if given; in order of their ids."""
    sql = f"SELECT {_GAP} FROM gaps WHERE {_REACHES}"
    if size is not None:
        sql += f" ORDER BY {_MISSING} DESC LIMIT {size:d}"
    found = [_gap(row) for row in select(connection, sql, naive((symbol, start, end)))]
    return sorted(found, key=attrgetter("first_trade_id"))


@guard
def missing_in(connection: Connection, symbol: str, start: datetime, end: datetime, after_id: int | None = None) -> int:
    """How many ids are in the open gaps that reach into [start, end), and begin after `after_id`. Nobody knows how many
    of the ids of a gap that reaches beyond it belong there, so all are counted."""
    return count_gaps_in(connection, symbol, start, end, after_id).missing


@guard
def forget_history(connection: Connection) -> int:
    """How many open gaps were deleted because the trades before them were: their ids are below the first stored one."""
    # Read first: neither family lets a DELETE read rows without locking them.
    sql = f"SELECT symbol, first_trade_id FROM gaps WHERE filled_at IS NULL AND NOT ({_open(connection)})"
    rows = select(connection, sql)
    for symbol, first in rows:
        run(
            connection,
            "DELETE FROM gaps WHERE symbol = %s AND first_trade_id = %s AND filled_at IS NULL",
            (symbol, first),
        )
    return len(rows)


class OpenGaps(NamedTuple):
    """How many runs of ids are missing, and how many ids that are."""

    gaps: int
    missing: int


@guard
def count_gaps_in(
    connection: Connection, symbol: str, start: datetime, end: datetime, after_id: int | None = None
) -> OpenGaps:
    """How many open gaps reach into [start, end), and begin after `after_id`; and how many ids are in them."""
    sql = f"SELECT COUNT(*), COALESCE(SUM({_MISSING}), 0) FROM gaps WHERE {_REACHES}"
    values: list[Any] = [symbol, start, end]
    if after_id is not None:
        sql += " AND first_trade_id > %s"
        values.append(after_id)
    gaps, ids = select(connection, sql, naive(values))[0]
    return OpenGaps(gaps, int(ids))


@guard
def count_open_gaps(connection: Connection) -> dict[str, OpenGaps]:
    """How much is missing of each symbol; those of which nothing is are left out."""
    sql = f"SELECT symbol, COUNT(*), SUM({_MISSING}) FROM gaps WHERE {_open(connection)}"
    return {symbol: OpenGaps(gaps, int(ids)) for symbol, gaps, ids in select(connection, f"{sql} GROUP BY symbol")}


@guard
def missing_at_newest(connection: Connection) -> dict[str, int]:
    """How many ids are in the open gaps that reach up to the millisecond of the newest trade, of each symbol; those of
    which none are, are left out. As missing_in(), of all symbols at once."""
    # Who only reads may find a database of a version without the table `retained`.
    newest = (
        _NEWEST if not has_files(connection) else f"COALESCE(GREATEST({_NEWEST}, {LAST_SQL}), {_NEWEST}, {LAST_SQL})"
    )
    sql = f"SELECT symbol, SUM({_MISSING}) FROM gaps WHERE filled_at IS NULL AND timestamp_after >= {newest}"
    sql += f" AND timestamp_before <= {newest} GROUP BY symbol"
    return {symbol: int(ids) for symbol, ids in select(connection, sql)}


_NEWEST = "(SELECT t.timestamp FROM trades AS t WHERE t.symbol = gaps.symbol"
_NEWEST += " ORDER BY t.symbol DESC, t.timestamp DESC LIMIT 1)"


@guard
def last_open_gaps(connection: Connection, symbol: str | None, size: int) -> list[Gap]:
    """At most `size` open gaps of one symbol or of all; of a symbol those with the highest ids, these first."""
    sql = f"SELECT {_GAP} FROM gaps WHERE {_open(connection)}"
    if symbol is None:
        rows = select(connection, f"{sql} ORDER BY symbol DESC, first_trade_id DESC LIMIT %s", (size,))
    else:
        rows = select(connection, f"{sql} AND symbol = %s ORDER BY first_trade_id DESC LIMIT %s", (symbol, size))
    return [Gap(*map(aware, row)) for row in rows]
