"""Sealing: bars are made once their time is over, and made again by whoever stores a trade in a sealed one.

A bar is made by the server from the trades (minutes, and the seconds of a minute that is sealed in part), from the
minutes (hours) or from the hours (days). Per symbol `symbols.sealed_until` says up to when this was done. The contract:
every bar that ends by then equals its trades, at every moment and after every crash. Three things keep it:

- Who stores trades before sealed_until makes their bars again, in the same transaction (remake_statements), while it
  holds the row of the symbol in `symbols`.
- Sealing does not hold that row while it makes bars, so no writer waits for it. It first sets `fence` to the time that
  it is going to seal up to, plus a random part of a second: from then on nobody stores an earlier trade without looking
  at the row. Who does store one takes the fence away; and at the end sealed_until is set only if the fence still is the
  very same, so bars that were made without that trade are rolled back.
- Everything is committed at once: bars, sealed_until, and the end of the seconds of a minute that is whole now. It is
  sent at once too: what takes the row's lock fails by itself if the fence is another, so that nobody waits for a
  question and its answer to travel, however far the database is.
"""

import functools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, ParamSpec

import mysql.connector
from mysql.connector import errorcode

from model import candles as bars
from model.candles import DAY, FINE, FINER, HOUR, MINUTE
from model.gaps import Point
from process.retry import backoff_s, jittered
from storage import bars as sql_of
from storage.bars import span_sql
from storage.errors import ContentionError, guard
from storage.retained import days_in_files, first_in_files
from storage.session import Connection, execute, run, select, sent
from storage.transaction import pull_down_fence, roll_back, transaction
from storage.values import aware, marks, naive

FENCE_US_MAX = 500_000
SPANS_PER_STATEMENT_MAX = 50
HISTORY_STEP = timedelta(hours=1)
_BEGIN = datetime(1000, 1, 2, tzinfo=UTC)

TRIES_MAX = 8
"""Of a step by hand that somebody else is in the way of: about a minute."""

Times = tuple[datetime, datetime]
P = ParamSpec("P")


class Sealable(NamedTuple):
    """A symbol: up to when it is sealed (None: not at all), and its newest stored trade (None: it has none)."""

    sealed_until: datetime | None
    newest: Point | None


@guard
def sealable(connection: Connection, symbols: Sequence[str] | None = None) -> dict[str, Sealable]:
    """What there is to seal of `symbols`, or of all that anybody has stored trades of."""
    which = "" if symbols is None else f" WHERE symbol IN ({marks(symbols)})"
    rows = select(connection, _SEALABLE.format(which=which), symbols or ()) if symbols is None or symbols else []
    return {
        symbol: Sealable(aware(until), None if trade_id is None else (trade_id, aware(when)))
        for symbol, until, when, trade_id in rows
    }


# The whole key in each order, or MariaDB would sort the trades of the symbol.
_SEALABLE = (
    "SELECT symbol, sealed_until, newest, (SELECT trade_id FROM trades AS t WHERE t.symbol = ends.symbol"
    " AND t.timestamp = newest ORDER BY t.symbol DESC, t.timestamp DESC, t.trade_id DESC LIMIT 1)"
    " FROM (SELECT symbol, sealed_until, (SELECT t.timestamp FROM trades AS t WHERE t.symbol = symbols.symbol"
    " ORDER BY t.symbol DESC, t.timestamp DESC LIMIT 1) AS newest FROM symbols{which}) AS ends"
)


@guard
def first_from(connection: Connection, symbol: str, start: datetime | None) -> datetime | None:
    """The time of the first stored trade at or after `start`; None: there is none."""
    sql = "SELECT timestamp FROM trades WHERE symbol = %s AND timestamp >= %s ORDER BY timestamp LIMIT 1"
    rows = select(connection, sql, naive((symbol, start or _BEGIN)))
    return aware(rows[0][0]) if rows else None


@guard
def seal(connection: Connection, symbols: Sequence[str], since: datetime | None, until: datetime) -> bool:
    """Seals `symbols`, all sealed until `since` (None: not at all), up to `until`, a whole second; whether it did.

    False: nothing has changed, since somebody has sealed one of them or stored a trade before `until` meanwhile.
    """
    fence = until + timedelta(microseconds=1 + secrets.randbelow(FENCE_US_MAX))
    of_them = f"symbol IN ({marks(symbols)}) AND sealed_until <=> %s"
    which = [*symbols, since]
    if run(connection, f"UPDATE symbols SET fence = %s WHERE {of_them}", naive([fence, *which])) < len(symbols):
        return False
    # NULL, which the column refuses, fails the whole transaction; the fence comes first, since MySQL sees what was
    # assigned before. After the bars, because this locks the rows: every writer of these symbols waits for the commit.
    seal_them = (
        "UPDATE symbols SET fence = IF(fence = %s AND sealed_until <=> %s, %s, NULL), sealed_until = %s"
        f" WHERE symbol IN ({marks(symbols)})"
    )
    last = sent(connection, seal_them, naive([fence, since, until, until, *symbols]))
    made = _bars_statements(connection, symbols, since, until)
    try:
        execute(connection, "BEGIN", *made, last, *_end_of_seconds(connection, symbols, since, until), "COMMIT")
    except mysql.connector.IntegrityError as error:
        roll_back(connection)
        if error.errno != errorcode.ER_BAD_NULL_ERROR:
            raise
        return False
    except BaseException:
        roll_back(connection)
        raise
    return True


@guard
def seal_locked(connection: Connection, symbol: str, since: datetime | None, until: datetime) -> bool:
    """As seal(), of one symbol, while its writers wait: for one whose sealing others have stopped again and again."""
    with transaction(connection, [symbol]) as work:
        if work.states[symbol].sealed_until != since:
            return False
        sealed = "UPDATE symbols SET sealed_until = %s, fence = %s WHERE symbol = %s"
        work.last = [
            *_bars_statements(connection, [symbol], since, until),
            sent(connection, sealed, naive((until, until, symbol))),
            *_end_of_seconds(connection, [symbol], since, until),
        ]
    return True


def _bars_statements(
    connection: Connection, symbols: Sequence[str], since: datetime | None, until: datetime
) -> Iterator[str]:
    """What makes the bars that end after `since` and by `until`."""
    since = since or _BEGIN
    for resolution in (MINUTE, HOUR, DAY):
        span = bars.floor(since, resolution), bars.floor(until, resolution)
        if span[0] < span[1]:
            yield from _make(connection, symbols, resolution, [span])
    span = max(since, bars.floor(until, MINUTE)), until
    if span[0] < span[1]:
        yield from _make(connection, symbols, FINE, [span])


def _end_of_seconds(
    connection: Connection, symbols: Sequence[str], since: datetime | None, until: datetime
) -> list[str]:
    """What removes the seconds of minutes that are whole now."""
    span = bars.floor(since or _BEGIN, MINUTE), bars.floor(until, MINUTE)
    return [_delete(connection, symbols, FINE, [span])] if since and span[0] < span[1] else []


def remake_statements(
    connection: Connection, symbol: str, times: Sequence[datetime], sealed_until: datetime | None
) -> Iterator[str]:
    """What makes those sealed bars again that have a trade at one of `times`; for who holds the symbol's row."""
    if sealed_until is None:
        return
    minute = bars.floor(sealed_until, MINUTE)
    late = {time for time in times if time < sealed_until}
    begins = {FINE: {bars.floor(time, FINE) for time in late if time >= minute}}
    # Coarser ones from finer ones, which are fewer; of each only those that are over.
    begins[MINUTE] = {bars.floor(time, MINUTE) for time in late if time < minute}
    for resolution in (HOUR, DAY):
        over = bars.floor(minute, resolution)
        begins[resolution] = {bars.floor(time, resolution) for time in begins[FINER[resolution]] if time < over}
    for resolution, found in begins.items():
        spans = _spans(sorted(found), resolution)
        for start in range(0, len(spans), SPANS_PER_STATEMENT_MAX):
            yield from _make(connection, [symbol], resolution, spans[start : start + SPANS_PER_STATEMENT_MAX])


def _spans(begins: Sequence[datetime], resolution: int) -> list[Times]:
    """The bars that start at `begins`, which rise, as runs of neighbours."""
    length, spans = timedelta(seconds=resolution), list[Times]()
    for begin in begins:
        if spans and begin == spans[-1][1]:
            spans[-1] = spans[-1][0], begin + length
        else:
            spans.append((begin, begin + length))
    return spans


def _make(connection: Connection, symbols: Sequence[str], resolution: int, spans: Sequence[Times]) -> list[str]:
    """What makes the bars that begin in `spans`, whatever is there."""
    where, values = span_sql(spans)
    query = sql_of.query(resolution, [(FINER[resolution], f"symbol IN ({marks(symbols)}) AND {where}")])
    return [
        _delete(connection, symbols, resolution, spans),
        sent(connection, f"INSERT INTO candles ({sql_of.COLUMNS}) {query}", [*symbols, *values]),
    ]


def _delete(connection: Connection, symbols: Sequence[str], resolution: int, spans: Sequence[Times]) -> str:
    where, values = span_sql(spans)
    sql = f"DELETE FROM candles WHERE symbol IN ({marks(symbols)}) AND resolution = {resolution} AND {where}"
    return sent(connection, sql, [*symbols, *values])


# ---- By hand: for a table that something else has filled or changed.


def _repeated(step: Callable[P, None]) -> Callable[P, None]:
    """`step` again whenever somebody else, such as a capture that seals, was in the way; after a growing wait."""

    @functools.wraps(step)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> None:
        for attempt in range(TRIES_MAX):
            try:
                return step(*args, **kwargs)
            except ContentionError:
                if attempt + 1 == TRIES_MAX:
                    raise
            time.sleep(jittered(backoff_s(attempt)))

    return repeated


@_repeated
@guard
def seal_history(connection: Connection, symbol: str, step: timedelta = HISTORY_STEP) -> None:
    """Seals a symbol up to its newest stored minute, piece by piece."""
    with transaction(connection, [symbol]):
        pass  # A symbol that nobody has stored trades of through this program gets its row.
    while (found := sealable(connection, [symbol])[symbol]).newest is not None:
        since, until = found.sealed_until, bars.floor(found.newest[1], MINUTE)
        if since is not None and since >= until:
            break
        first = first_from(connection, symbol, since)
        if first is not None and first + step < until:
            until = bars.floor(first + step, MINUTE)
        if since is not None and since >= until:
            break
        seal(connection, [symbol], since, until) or seal_locked(connection, symbol, since, until)


@guard
def reseal(connection: Connection, symbol: str, start: datetime | None = None, end: datetime | None = None) -> None:
    """Makes every sealed bar of `symbol` again that has a part in [start, end), and seals what can be sealed.

    An hour of minutes, or a day of hours, is one transaction, so that a capture of the symbol never waits for long. Who
    seals it meanwhile may be in the way; a step is then tried again, TRIES_MAX times in all. The bars of days that are
    in files stay as they are. Raises ContentionError.
    """
    found = sealable(connection, [symbol]).get(symbol)
    until = found.sealed_until if found else None
    firsts = first_from(connection, symbol, None), (first_in_files(connection, symbol) or (0, None))[1]
    first = min((one for one in firsts if one is not None), default=None)
    if until is not None:
        begin = bars.floor(max(start or _BEGIN, first or until), DAY)
        if start is None:
            _forget_before(connection, symbol, begin)
        while begin < min(end or until, until):
            _reseal_day(connection, symbol, begin)
            begin += timedelta(seconds=DAY)
    seal_history(connection, symbol)


@_repeated
@guard
def _forget_before(connection: Connection, symbol: str, begin: datetime) -> None:
    with transaction(connection, [symbol]):
        run(connection, "DELETE FROM candles WHERE symbol = %s AND timestamp < %s", naive((symbol, begin)))


def _reseal_day(connection: Connection, symbol: str, day: datetime) -> None:
    hours = [day + timedelta(hours=number) for number in range(24)]
    for hour in hours:
        _remake(connection, symbol, (FINE, MINUTE), (hour, hour + timedelta(seconds=HOUR)))
    _remake(connection, symbol, (HOUR, DAY), (day, day + timedelta(seconds=DAY)))


@_repeated
@guard
def _remake(connection: Connection, symbol: str, resolutions: Sequence[int], span: Times) -> None:
    """Makes the sealed bars of `span` again in a transaction of their own."""
    with transaction(connection, [symbol]) as work:
        # Of a day in a file there may be no rows to make them from.
        if days_in_files(connection, symbol, [span[0].date()]):
            return
        # A sealing that is under way may have made its bars from those that are wrong.
        pull_down_fence(connection, symbol, work.states[symbol], span[0])
        until = work.states[symbol].sealed_until
        made: list[str] = []
        for resolution in resolutions if until is not None else ():
            assert until is not None
            minute = bars.floor(until, MINUTE)
            low, high = (minute, until) if resolution == FINE else (span[0], bars.floor(minute, resolution))
            part = max(span[0], low), min(span[1], high)
            if part[0] < part[1]:
                made += _make(connection, [symbol], resolution, [part])
        work.last = made


# ---- For who reads.


def sealed_until(connection: Connection, symbol: str) -> datetime | None:
    """Up to when the bars of `symbol` are sealed; None: none is, as in a database that is still of version 1."""
    try:
        rows = select(connection, "SELECT sealed_until FROM symbols WHERE symbol = %s", (symbol,))
    except mysql.connector.ProgrammingError as error:
        if error.errno not in (errorcode.ER_NO_SUCH_TABLE, errorcode.ER_BAD_FIELD_ERROR):
            raise
        rows = []
    return aware(rows[0][0]) if rows else None
