"""Fills gaps from another recorder, which captured the same symbols: two of them repair each other.

Of a gap nothing is stored before the trades beside it are compared: those that both have must be the same. Each page is
a transaction (db.insert_trades), so this can be killed anywhere. What the other does not have either stays a gap, and
nothing is marked as final: whether the exchange serves it is another question.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import db
from binance.checks import TRADE_ID_MAX
from history.recorder import PAGE_TRADES_MAX, GarbageError, Recorder, RecorderError, RefusedError
from model.gaps import Gap
from model.ids import Run
from model.trade import Trade
from process.retry import insisted

log = logging.getLogger("recorder")

WITNESSES_MAX = 100
"""Trades on each side of a gap that are compared; if both have only one of them, that one must do."""
TRIES_MAX = 8
"""Of a page that another writer is in the way of: about a minute."""

Progress = Callable[[int], object]


class Outcome(NamedTuple):
    """What became of the gaps of a symbol: how many ids they had, and how many of them were new to us."""

    symbol: str
    missing: int
    filled: int

    def __str__(self) -> str:
        return f"{self.symbol}: filled {self.filled:,} of {self.missing:,} missing ids from the other recorder"


class OtherHistoryError(Exception):
    """What the other recorder has does not go with what is stored here."""


def fill(connection: db.Connection, recorder: Recorder, gaps: Sequence[Gap], progress: Progress) -> Iterator[Outcome]:
    """Tries each of `gaps`, newest first; yields what became of them, symbol by symbol.

    `progress` is called with the number of ids that were tried. It ends early, with a line in the log, if the other
    stops answering. Raises RecorderError if it does not answer at all, RefusedError, db.DatabaseError.
    """
    there = recorder.fetch_symbols()
    for symbol in dict.fromkeys(gap.symbol for gap in gaps):
        mine = [gap for gap in gaps if gap.symbol == symbol]
        counts = [0]
        if symbol not in there:
            log.warning("%s: no trade of %s is stored there", recorder.url, symbol)
        try:
            for gap in reversed(mine) if symbol in there else ():
                counts.append(_fill(connection, recorder, gap))
                progress(gap.missing)
        except RecorderError as error:
            if isinstance(error, RefusedError):
                raise
            log.warning("%s; what is left stays missing until the next run", error)
            yield Outcome(symbol, sum(gap.missing for gap in mine), sum(counts))
            return
        yield Outcome(symbol, sum(gap.missing for gap in mine), sum(counts))


def _fill(connection: db.Connection, recorder: Recorder, gap: Gap) -> int:
    """How many ids of `gap` were new; why not more, if it is no fault of the way there, is in the log."""
    filled = 0
    # What the capture, or another back-fill, has stored meanwhile is not asked for.
    left = db.missing_runs(connection, gap.symbol, gap.first_trade_id, gap.last_trade_id)
    try:
        if left:
            _compare(connection, recorder, gap)
        for run in left:
            for trades in _pages(recorder, gap, run):
                filled += _insert(connection, trades)
    except (OtherHistoryError, GarbageError, db.RefusedError, db.RetainedError) as error:
        ids = f"{gap.symbol} {gap.first_trade_id} to {gap.last_trade_id}"
        log.warning("%s: %s: %s", recorder.url, ids, error)
    return filled


def _compare(connection: db.Connection, recorder: Recorder, gap: Gap) -> None:
    """Raises OtherHistoryError unless what both have beside `gap` is the same, to the last digit."""
    below = max(1, gap.first_trade_id - WITNESSES_MAX), gap.first_trade_id - 1
    above = gap.last_trade_id + 1, TRADE_ID_MAX
    shared = 0
    for ids in (below, above):
        theirs = recorder.fetch(gap.symbol, ids, WITNESSES_MAX).trades if ids[0] <= ids[1] else []
        ours = {trade.trade_id: trade for trade in _stored(connection, gap.symbol, theirs)}
        for trade in theirs:
            mine = ours.get(trade.trade_id)
            shared += mine is not None
            if mine is not None and mine._replace(received_at=None) != trade:
                raise OtherHistoryError(
                    f"the other recorder has another history: its trade {trade.trade_id} is {_words(trade)}, and ours"
                    f" {_words(mine)}; nothing of this gap is stored"
                )
    if not shared:
        raise OtherHistoryError(
            f"the other recorder has none of the {WITNESSES_MAX} trades beside it that are stored here, so nobody knows"
            " whether it is the same history; nothing of this gap is stored"
        )


def _stored(connection: db.Connection, symbol: str, theirs: Sequence[Trade]) -> list[Trade]:
    """Our trades with their ids, and those between."""
    if not theirs:
        return []
    first, last = theirs[0].trade_id, theirs[-1].trade_id
    return db.with_ids(connection, symbol, first, min(last, first + PAGE_TRADES_MAX), PAGE_TRADES_MAX)


def _words(trade: Trade) -> str:
    side = "sold" if trade.buyer_is_maker else "bought"
    return f"{trade.price} × {trade.quantity}, {side} at {trade.timestamp.isoformat(' ', 'milliseconds')}"


def _pages(recorder: Recorder, gap: Gap, run: Run) -> Iterator[list[Trade]]:
    """The other's trades with the ids of `run`, which is in `gap`. Raises OtherHistoryError for one that cannot be."""
    first: int | None = run[0]
    times = gap.timestamp_before - db.DISORDER, gap.timestamp_after + db.DISORDER
    while first is not None:
        page = recorder.fetch(gap.symbol, (first, run[1]))
        for trade in page.trades:
            if not times[0] <= trade.timestamp <= times[1]:
                raise OtherHistoryError(
                    f"the other recorder has another history: its trade {trade.trade_id} is of {trade.timestamp}, and"
                    f" this gap from {gap.timestamp_before} to {gap.timestamp_after}"
                )
        if page.trades:
            yield page.trades
        first = page.next_id


def _insert(connection: db.Connection, trades: Sequence[Trade]) -> int:
    """How many were new; tried again while others are in the way."""
    return insisted(lambda: db.insert_trades(connection, trades), db.ContentionError, TRIES_MAX)
