"""The trades that a copy of the table `trades` does not have yet: new ones, late ones in former gaps, older history.

The table does not record the order of insertions. But every id from the first stored one to the last is either stored
or in an open gap, so a copy that remembers its first and last trade, and the ids that were missing when it passed them
(its holes), knows what to look for: ids above its last, ids below its first, and ids in a hole of its own that are no
longer in an open gap. One snapshot answers all three, so that nothing is committed in between.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence, Set
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from model import gaps as trade_ids
from model.gaps import Gap, Point, Span
from model.times import MILLISECOND
from model.trade import Trade
from storage import past
from storage.errors import guard
from storage.gaps import DISORDER, OpenGaps, count_open_gaps, open_gaps
from storage.past import ID_MAX
from storage.retained import Part
from storage.session import Connection, select
from storage.trades import latest_of_all, time_spans
from storage.transaction import in_snapshot, snapshot
from storage.values import naive, trade_of

RUNS_PER_STATEMENT_MAX = 100
_BEGIN = datetime(1000, 1, 2, tzinfo=UTC)
_END = datetime(9999, 12, 30, tzinfo=UTC)
"""Before and after every stored time, with room for the margin inside what DATETIME can hold."""
_MARGIN = timedelta(seconds=1)
"""Where the next trades are looked for, four times a second. One whose time is further back leaves a hole in the copy,
which is looked for within DISORDER."""
_TRADE = ", ".join(Trade._fields)
_NOTHING = OpenGaps(0, 0)


class Copied(NamedTuple):
    """What a copy has of a symbol: every trade of the span except those in the holes, which are ordered by id."""

    symbol: str
    span: Span | None = None
    holes: tuple[Gap, ...] = ()


class Run(NamedTuple):
    """Ids `first` to `last` (inclusive), with timestamps from `start` to `end`, plus or minus the margin."""

    first: int
    last: int
    start: datetime
    end: datetime


class Beyond(NamedTuple):
    """Trades that a copy does not have, the open gaps at that moment, and whether these are all the missing trades."""

    trades: list[Trade]
    gaps: list[Gap]
    complete: bool


class Look(NamedTuple):
    """By which it shows that a symbol has trades that it did not have before: the time of the first, time and id of the
    newest, and what is missing between them."""

    first_at: datetime
    last_at: datetime
    last_id: int
    gaps: OpenGaps


@in_snapshot
def looks(connection: Connection) -> dict[str, Look]:
    """How each symbol looks, in order: as long as it looks the same, nothing was stored of it. A few statements,
    however many symbols there are."""
    times, gaps = time_spans(connection), count_open_gaps(connection)
    return {
        trade.symbol: Look(*times[trade.symbol], trade.trade_id, gaps.get(trade.symbol, _NOTHING))
        for trade in latest_of_all(connection)
    }


@guard
def beyond(connection: Connection, copied: Copied, skip: Set[tuple[int, int]], trades_max: int) -> Beyond:
    """The trades that `copied` does not have: at most about three times `trades_max`, those above its last id first.

    Runs of ids in `skip` are not looked up in the holes.
    """
    with snapshot(connection):
        gaps = open_gaps(connection, copied.symbol)
        if copied.span is None:
            trades = _read(connection, copied.symbol, [Run(0, ID_MAX, _BEGIN, _END)], trades_max)
            return Beyond(trades, gaps, len(trades) < trades_max)
        (first, first_at), (last, last_at) = copied.span
        late = [
            run._replace(start=run.start - DISORDER, end=run.end + DISORDER)
            for run in in_no_gap(copied.holes, gaps)
            if (run.first, run.last) not in skip
        ]
        parts = [_read(connection, copied.symbol, [Run(last + 1, ID_MAX, last_at, _END)], trades_max)]
        parts.append(_read(connection, copied.symbol, [Run(0, first - 1, _BEGIN, first_at)], trades_max))
        complete = all(len(part) < trades_max for part in parts)
        for group in _near(late):
            left = trades_max - sum(map(len, parts[2:]))
            if left <= 0:
                complete = False
                break
            parts.append(_read(connection, copied.symbol, group, left))
            complete = complete and len(parts[-1]) < left
        return Beyond([trade for part in parts for trade in part], gaps, complete)


def in_no_gap(holes: Sequence[Gap], gaps: Sequence[Gap]) -> Iterator[Run]:
    """The ids of `holes` that are in none of `gaps`; both are ordered by id.

    A gap knows the timestamps of its neighbours, so of a long hole only the part that was filled is read.
    """
    index = 0
    for hole in holes:
        first, start = hole.first_trade_id, hole.timestamp_before
        while index < len(gaps) and gaps[index].first_trade_id <= hole.last_trade_id:
            gap = gaps[index]
            if gap.last_trade_id >= first:
                if gap.first_trade_id > first:
                    yield Run(first, gap.first_trade_id - 1, start, gap.timestamp_before)
                first, start = gap.last_trade_id + 1, gap.timestamp_after
            if gap.last_trade_id > hole.last_trade_id:
                break  # It may reach into the next hole as well.
            index += 1
        if first <= hole.last_trade_id:
            yield Run(first, hole.last_trade_id, start, hole.timestamp_after)


def grown(copied: Copied, trades: Sequence[Trade]) -> Copied:
    """`copied` with `trades` added; there is at least one trade."""
    points = sorted({trade.trade_id: trade.timestamp for trade in trades}.items())
    span, stretches, late = trade_ids.account(copied.span, points)
    now = datetime.now(UTC)
    holes = [part for hole in copied.holes for part in _filled(hole, late, now)]
    holes += [hole for stretch in stretches for hole in trade_ids.holes(copied.symbol, stretch, "", now)]
    return Copied(copied.symbol, span, tuple(sorted(holes, key=_first)))


def _first(gap: Gap) -> int:
    return gap.first_trade_id


def _filled(hole: Gap, late: Sequence[Point], now: datetime) -> list[Gap]:
    begin = bisect_left(late, hole.first_trade_id, key=_id)
    inside = late[begin : bisect_left(late, hole.last_trade_id + 1, key=_id)]
    return trade_ids.fill(hole, inside, now)[0] if inside else [hole]


def _id(point: Point) -> int:
    return point[0]


def _near(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The runs in groups, each close enough together for one range of time."""
    group: list[Run] = []
    end = _BEGIN
    for run in sorted(runs, key=_start):
        if group and (run.start - _MARGIN > end + _MARGIN or len(group) == RUNS_PER_STATEMENT_MAX):
            yield group
            group = []
        end = max(end, run.end) if group else run.end
        group.append(run)
    if group:
        yield group


def _start(run: Run) -> datetime:
    return run.start


def _read(connection: Connection, symbol: str, runs: Sequence[Run], limit: int) -> list[Trade]:
    """The oldest `limit` stored trades of `runs`. Raises FileError."""
    start, end = min(run.start for run in runs) - _MARGIN, max(run.end for run in runs) + _MARGIN
    found: list[Trade] = []
    for part in past.parts(connection, symbol, start, end + MILLISECOND):
        left = limit - len(found)
        if part.retained:
            rows = past.trades(connection, part)
            found += islice((one for one in rows if any(run.first <= one.trade_id <= run.last for run in runs)), left)
        else:
            found += _read_table(connection, symbol, runs, part, left)
        if len(found) >= limit:
            break
    return found


def _read_table(connection: Connection, symbol: str, runs: Sequence[Run], part: Part, limit: int) -> list[Trade]:
    ids = " OR ".join(["trade_id BETWEEN %s AND %s"] * len(runs))
    sql = f"SELECT {_TRADE} FROM trades WHERE symbol = %s AND timestamp >= %s AND timestamp < %s AND ({ids})"
    values: list[Any] = [symbol, part.start, part.end]
    values += [number for run in runs for number in (run.first, run.last)]
    rows = select(connection, f"{sql} ORDER BY timestamp, trade_id LIMIT {limit:d}", naive(values))
    return [trade_of(row) for row in rows]
