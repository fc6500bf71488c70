"""The table `gaps`, and what is known of the ids: which are accounted for, which are missing, which were filled.

Contract: stored ids and open gaps together are every id from the first stored one to the last. So whoever stores trades
works out, in the same transaction, what they reveal (account) and what they fill (fill).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from model import gaps as trade_ids
from model.gaps import Gap, Point, Span
from model.times import floor_ms
from model.trade import Trade
from storage.errors import guard
from storage.session import Connection, execute, run, select, sent
from storage.transaction import State, transaction
from storage.values import aware, batches, marks, naive

ABSORB_S = 5
"""A gap that the streams close themselves within so many seconds was a reordering: no record of it is kept."""
SPAN_MARGIN_S = 1


def spans(connection: Connection, locked: dict[str, State]) -> dict[str, Span | None]:
    """The spans of the locked symbols: as remembered, or from the tables where somebody else has written since."""
    mine, remembered = connection.token, connection.spans
    others = [symbol for symbol, state in locked.items() if state.token != mine or symbol not in remembered]
    if others:
        sql = f"UPDATE symbols SET token = %s WHERE symbol IN ({marks(others)})"
        run(connection, sql, [connection.token, *others])
        # What we remembered of them is outdated, which the token, now ours again, will not show next time.
        for symbol in others:
            connection.spans.pop(symbol, None)
    read = {symbol: _read_span(connection, symbol) for symbol in others}
    return {symbol: read[symbol] if symbol in read else connection.spans[symbol] for symbol in locked}


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


def account(connection: Connection, span: Span | None, trades: Sequence[Trade], reason: str, found: list[Gap]) -> Span:
    """The span after `trades` of one symbol; new gaps are appended to `found`, open ones brought up to date."""
    ahead = continued(span, trades)
    if ahead is not None:
        return ahead
    points = sorted({trade.trade_id: floor_ms(trade.timestamp) for trade in trades}.items())
    now = datetime.now(UTC)
    grown, stretches, late = trade_ids.account(span, points)
    for stretch in stretches:
        found += trade_ids.holes(trades[0].symbol, stretch, reason, now)
    if late:
        from_stream = all(trade.received_at is not None for trade in trades)
        _fill(connection, trades[0].symbol, late, now, absorb=from_stream)
    return grown


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
        for part in batches(gaps)
    ]


_GAP = "symbol, first_trade_id, last_trade_id, reason, detected_at, filled_at, timestamp_before, timestamp_after"


def _fill(connection: Connection, symbol: str, points: Sequence[Point], now: datetime, absorb: bool) -> None:
    """Takes the ids of `points`, which are stored, out of the open gaps; with `absorb` a young gap leaves no record."""
    for gap in _open_gaps(connection, symbol, points[0][0], points[-1][0]):
        still_open, filled = trade_ids.fill(gap, points, now)
        if not filled:
            continue
        if absorb and timedelta() <= now - gap.detected_at < timedelta(seconds=ABSORB_S):
            filled = []
        _replace_gap(connection, gap, still_open + [_joined(connection, run) for run in filled])


@guard
def give_up(connection: Connection, symbol: str, first: int, last: int, reason: str) -> int:
    """How many ids from first to last (inclusive) are in open gaps; these get `reason` and stay open."""
    now = datetime.now(UTC)
    changed = 0
    with transaction(connection, [symbol]) as work:
        spans(connection, work.states)
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
    execute(connection, delete, *replace_statements(connection, parts))


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


@guard
def open_gaps(connection: Connection, symbol: str | None = None) -> list[Gap]:
    """The runs of missing ids, of one symbol or of all, in order of symbol and id."""
    sql = f"SELECT {_GAP} FROM gaps WHERE filled_at IS NULL"
    if symbol is not None:
        rows = select(connection, f"{sql} AND symbol = %s ORDER BY symbol, first_trade_id", (symbol,))
    else:
        rows = select(connection, f"{sql} ORDER BY symbol, first_trade_id")
    return [_gap(row) for row in rows]


@guard
def gaps_in(connection: Connection, symbol: str, start: datetime, end: datetime) -> list[Gap]:
    """The open gaps of which a trade may be missing in [start, end): their ids lie between their neighbours' times."""
    sql = f"SELECT {_GAP} FROM gaps WHERE filled_at IS NULL AND symbol = %s AND timestamp_after >= %s"
    sql += " AND timestamp_before < %s ORDER BY first_trade_id"
    return [_gap(row) for row in select(connection, sql, naive((symbol, start, end)))]


class OpenGaps(NamedTuple):
    """How many runs of ids are missing, and how many ids that are."""

    gaps: int
    missing: int


@guard
def count_open_gaps(connection: Connection) -> dict[str, OpenGaps]:
    """How much is missing of each symbol; those of which nothing is are left out."""
    sql = "SELECT symbol, COUNT(*), SUM(last_trade_id - first_trade_id + 1) FROM gaps WHERE filled_at IS NULL"
    return {symbol: OpenGaps(gaps, int(ids)) for symbol, gaps, ids in select(connection, f"{sql} GROUP BY symbol")}


@guard
def last_open_gaps(connection: Connection, symbol: str | None, size: int) -> list[Gap]:
    """At most `size` open gaps of one symbol or of all; of a symbol those with the highest ids, these first."""
    sql = f"SELECT {_GAP} FROM gaps WHERE filled_at IS NULL"
    if symbol is None:
        rows = select(connection, f"{sql} ORDER BY symbol DESC, first_trade_id DESC LIMIT %s", (size,))
    else:
        rows = select(connection, f"{sql} AND symbol = %s ORDER BY first_trade_id DESC LIMIT %s", (symbol, size))
    return [Gap(*map(aware, row)) for row in rows]
