"""Gaps beside runs of ids: history is stored by the hundred thousand, so what is missing is told from the ends.

The contract is that of storage/gaps.py, which keeps it for trades that are known one by one.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from model import gaps as trade_ids
from model.gaps import Point, Span
from model.ids import Run
from storage.errors import guard
from storage.gaps import (
    DISORDER,
    check_point,
    forget_before,
    joined,
    open_gaps_among,
    point_of,
    read_span,
    replace_gap,
    replace_statements,
)
from storage.retained import nearest_in_files
from storage.session import Connection, execute, run, select
from storage.values import naive


def check_run(connection: Connection, symbol: str, ends: Span) -> None:
    """As check_history() for a run of ids with these ends, before it is stored."""
    span = read_span(connection, symbol)
    if span is not None:
        for point in ends:
            check_point(symbol, span, point)


def take_over(connection: Connection, symbol: str) -> None:
    """Makes every connection, this one too, read anew what is stored of a symbol, whose row is locked."""
    run(connection, "UPDATE symbols SET token = %s WHERE symbol = %s", (connection.token, symbol))
    connection.spans.pop(symbol, None)


def account_run(connection: Connection, symbol: str, ids: Run, at: Callable[[int], datetime]) -> None:
    """As account(), for all ids of a run, which are stored already and whose times `at` tells. There are many, so what
    is missing beside them is told from their neighbours."""
    ends = Span((ids[0], at(ids[0])), (ids[1], at(ids[1])))
    now = datetime.now(UTC)
    for gap in open_gaps_among(connection, symbol, *ids):
        still_open, filled = trade_ids.fill_run(gap, ids, at, now)
        replace_gap(connection, gap, still_open + [joined(connection, one) for one in filled])
    before = _neighbour(connection, symbol, ends.first, below=True)
    after = _neighbour(connection, symbol, ends.last, below=False)
    if before is None:
        forget_before(connection, symbol, ids[0])
    for below, above in ((before, ends.first), (ends.last, after)):
        for hole in trade_ids.holes(symbol, [below, above], trade_ids.HISTORY, now) if below and above else []:
            there = open_gaps_among(connection, symbol, hole.first_trade_id, hole.last_trade_id)
            # What lies between two stored ids is in open gaps as a whole, but for what old rows, deleted since, left.
            if sum(gap.missing for gap in there) == hole.missing:
                continue
            for gap in there:
                replace_gap(connection, gap, [])
            execute(connection, *replace_statements(connection, [hole]))


def _neighbour(connection: Connection, symbol: str, point: Point, below: bool) -> Point | None:
    """The stored trade whose id is next below, or above, that of `point`, in the table or in a file; None: there is
    none."""
    found = _neighbour_row(connection, symbol, point, below), nearest_in_files(connection, symbol, point, below)
    there = [one for one in found if one is not None]
    return (max(there) if below else min(there)) if there else None


def _neighbour_row(connection: Connection, symbol: str, point: Point, below: bool) -> Point | None:
    """The same of the table alone. It is looked for by time, which may contradict the ids by DISORDER."""
    trade_id, when = point
    sql = "SELECT {what} FROM trades WHERE symbol = %s AND timestamp {until} %s AND trade_id {side} %s{more}"
    sql += " ORDER BY {by} {order} LIMIT 1"
    words = {"until": "<=", "side": "<", "order": "DESC"} if below else {"until": ">=", "side": ">", "order": "ASC"}
    far = when + DISORDER if below else when - DISORDER
    nearest = sql.format(what="timestamp", more="", by="timestamp", **words)
    # Two statements, since only the first of them has an index to follow.
    for (near,) in select(connection, nearest, naive((symbol, far, trade_id))):
        beyond = near - DISORDER if below else near + DISORDER
        more = f" AND timestamp {'>=' if below else '<='} %s"
        next_one = sql.format(what="trade_id, timestamp", more=more, by="trade_id", **words)
        return point_of(select(connection, next_one, [*naive((symbol, far, trade_id)), beyond])[0])
    return None


@guard
def missing_runs(connection: Connection, symbol: str, first: int, last: int) -> list[Run]:
    """Which of the ids first to last (inclusive) are not stored: those in open gaps, and those beyond the span."""
    span = read_span(connection, symbol)
    if span is None:
        return [(first, last)]
    beyond = [(first, min(last, span.first[0] - 1)), (max(first, span.last[0] + 1), last)]
    gaps = open_gaps_among(connection, symbol, first, last)
    # What lies before the first stored trade is beyond, also where old rows that were deleted have left a gap.
    low = max(first, span.first[0])
    inside = [(max(low, gap.first_trade_id), min(last, gap.last_trade_id)) for gap in gaps]
    return sorted(run for run in [*beyond, *inside] if run[0] <= run[1])


@guard
def filled_since(connection: Connection, symbol: str, first: int, last: int, since: datetime) -> list[Run]:
    """The runs of ids from `first` to `last` (inclusive) that were missing at `since`, and are stored now."""
    sql = "SELECT first_trade_id, last_trade_id FROM gaps WHERE symbol = %s AND filled_at > %s"
    sql += " AND first_trade_id <= %s AND last_trade_id >= %s ORDER BY first_trade_id"
    return [(low, high) for low, high in select(connection, sql, naive((symbol, since, last, first)))]
