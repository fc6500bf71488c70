"""All trades from a day on: the days that are over from the archive, newest first, so that what is stored stays joined.

Where a day is of no use in the archive, or not published yet, its ids are left as a gap, as is the part of today before
the first stored trade; REST fills it afterwards (capture/gap_filler.py). A day is one step that can be repeated.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import db
from binance.archive import Archive, ArchiveError, Expected
from binance.archive_file import Defect
from binance.rest import PAGE_TRADES_MAX, Rest, RestError
from history.importer import Progress, import_day
from model.gaps import HISTORY, Gap
from model.times import midnight

log = logging.getLogger("history")

DAY = timedelta(days=1)
GRACE_S = 1.5
RETAINED = (
    "the day is in a Parquet file; if it is to be completed, bring it back before, by"
    " `python -m tools.restore --symbol {symbol} --day {day}`"
)


class Wanted(NamedTuple):
    """The days of `symbols` from `since` to `until` (inclusive), in UTC."""

    symbols: tuple[str, ...]
    since: date
    until: date


class Outcome(NamedTuple):
    """What became of a day: how many trades it has, how many were new; why not, if they are not from the archive."""

    symbol: str
    day: date
    trades: int
    new: int
    why: str | None

    def __str__(self) -> str:
        what = f"{self.symbol} {self.day}"
        if self.why is not None:
            return f"{what}: not from the archive: {self.why}"
        return f"{what}: {self.trades:,} trades in the archive, {self.new:,} of them new"


class History:
    """Brings days of the archive into the database over one connection, which may send files from `folder`.

    Raises db.DatabaseError, RestError from each method unless it says otherwise.
    """

    def __init__(self, connection: db.Connection, archive: Archive, rest: Rest, folder: Path) -> None:
        self._connection = connection
        self._archive = archive
        self._rest = rest
        self._folder = folder
        self._counted = ""
        self._counts: dict[date, int] = {}

    def count(self, wanted: Wanted) -> int:
        """How many trades the exchange has of the days, by its klines."""
        return sum(sum(self._fetch_counts(symbol, wanted.since, wanted.until).values()) for symbol in wanted.symbols)

    def days(self, wanted: Wanted, progress: Progress) -> Iterator[Outcome]:
        """Loads each day that is over, one symbol after the other; yields what became of it."""
        last = min(wanted.until, datetime.now(UTC).date() - DAY)
        for symbol in wanted.symbols:
            self._counted, self._counts = "", {}
            try:
                self._counts = self._fetch_counts(symbol, wanted.since, last)
                self._counted = symbol
            except RestError as error:
                log.warning("how many trades a day has is not known: %s", error)
            # Where it is known, a day without trades has no file: it is from before the symbol was listed.
            day = last
            while day >= wanted.since:
                if self._counted != symbol or day in self._counts:
                    yield self.day(symbol, day, progress)
                day -= DAY

    def day(self, symbol: str, day: date, progress: Progress) -> Outcome:
        """Loads a day, if it is not stored as a whole already."""
        trades = self._count(symbol, day)
        for one in db.days_in_files(self._connection, symbol, [day]):
            progress(one.trades)
            why = None if one.trades == trades else RETAINED.format(symbol=symbol, day=day)
            return Outcome(symbol, day, one.trades, 0, why)
        if trades is not None and is_whole(self._connection, symbol, day, trades):
            progress(trades)
            return Outcome(symbol, day, trades, 0, None)
        try:
            after = db.ids_beside(self._connection, symbol, midnight(day), midnight(day) + DAY)[1]
            expected = Expected(trades, after - 1 if after is not None else None)
            with self._archive.day(symbol, day, expected) as archived:
                new = import_day(self._connection, archived, self._folder, progress)
                db.seal_history(self._connection, symbol)
                return Outcome(symbol, day, archived.content.trades, new, None)
        except (Defect, ArchiveError) as error:
            return Outcome(symbol, day, 0, 0, str(error))

    def join(self, wanted: Wanted) -> bool:
        """Whether both ends of what was traded are stored, after a page there was fetched if need be: what lies between
        is stored or a gap then."""
        done = True
        for symbol in wanted.symbols:
            first = self._rest.fetch_first_id(symbol, midnight(wanted.since))
            is_over = wanted.until < datetime.now(UTC).date()
            after = self._rest.fetch_first_id(symbol, midnight(wanted.until + DAY)) if is_over else None
            last = after - 1 if after is not None else self._rest.fetch_newest_id(symbol)
            if first is None or first > last:
                continue
            begin = max(first, last - PAGE_TRADES_MAX + 1)
            if not is_over and db.missing_runs(self._connection, symbol, begin, last):
                # A capture that runs is about to store the newest, with the times at which it received them.
                time.sleep(GRACE_S)
            for run in ((first, first), (begin, last)):
                if db.missing_runs(self._connection, symbol, *run):
                    done = self._store_page(symbol, run[0], last) and done
        return done

    def _store_page(self, symbol: str, begin: int, last: int) -> bool:
        """Whether the exchange serves the id `begin`; with it what follows in a page is stored."""
        # What the exchange does not serve by REST any more it passes over.
        found = self._rest.fetch_trades(symbol, begin).trades
        page = [trade for trade in found if trade.trade_id <= min(last, begin + PAGE_TRADES_MAX - 1)]
        if page:
            db.insert_trades(self._connection, page, reason=HISTORY)
        if page and page[0].trade_id == begin:
            return True
        log.warning(
            "%s: id %d is neither in the archive nor served, and so what is missing from there on", symbol, begin
        )
        return False

    def heal(self, gaps: Sequence[Gap], progress: Progress) -> Iterator[Outcome]:
        """Loads the days that are over of which ids are missing in `gaps`; yields what became of each."""
        today = datetime.now(UTC).date()
        days = {(gap.symbol, day) for gap in gaps for day in _days(gap) if day < today}
        for symbol, day in sorted(days, key=lambda one: (one[1], one[0]), reverse=True):
            yield self.day(symbol, day, progress)

    def _fetch_counts(self, symbol: str, since: date, until: date) -> dict[date, int]:
        """The number of trades of each day that has any."""
        counts: dict[date, int] = {}
        start = midnight(since)
        while start.date() <= until and (klines := self._rest.fetch_klines(symbol, "1d", start)):
            counts |= {kline.start.date(): kline.trades for kline in klines if kline.trades}
            start = klines[-1].start + DAY
        return {day: trades for day, trades in counts.items() if since <= day <= until}

    def _count(self, symbol: str, day: date) -> int | None:
        """The number of trades of a day; None: not known."""
        if symbol == self._counted and day in self._counts:
            return self._counts[day]
        try:
            return self._fetch_counts(symbol, day, day).get(day)
        except RestError as error:
            log.info("how many trades %s has on %s is not known: %s", symbol, day, error)
            return None


def is_whole(connection: db.Connection, symbol: str, day: date, trades: int) -> bool:
    """Whether so many trades of a day are stored, and none of it is missing."""
    start = midnight(day)
    found = db.min_max(connection, symbol, start, start + DAY)
    return found is not None and found.trades == trades and not db.missing_in(connection, symbol, start, start + DAY)


def _days(gap: Gap) -> list[date]:
    first, last = gap.timestamp_before.date(), gap.timestamp_after.date()
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
