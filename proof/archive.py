"""The exchange's own files: whether each is whole, and joined to that of the day before. Needs no database."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

from binance.archive import Archive, Expected
from binance.archive_file import Defect
from binance.rest import Rest
from proof.klines import day_count


class ArchiveDay(NamedTuple):
    """What a file of the archive is like: the words say what it has, or what is wrong with it."""

    symbol: str
    day: date
    whole: bool
    words: str

    def __str__(self) -> str:
        return f"{self.symbol:<10} {self.day}  {'whole' if self.whole else 'not whole':<10} {self.words}"


def archive_days(archive: Archive, rest: Rest, symbol: str, days: tuple[date, date]) -> Iterator[ArchiveDay]:
    """The files of the days from the first to the last (inclusive), oldest first. Raises ArchiveError."""
    day, before = days[0], 0
    while day <= days[1]:
        try:
            with archive.day(symbol, day, Expected(day_count(rest, symbol, day))) as found:
                first, last = found.content.first_trade_id, found.content.last_trade_id
            joined = not before or first == before + 1
            words = f"{found.content.trades:,} trades, ids {first} to {last}, SHA-256 {found.sha256}"
            words += "" if joined else f"; the day before ends with id {before}"
            yield ArchiveDay(symbol, day, joined, words)
            before = last
        except Defect as defect:
            yield ArchiveDay(symbol, day, False, str(defect))
            before = 0
        day += timedelta(days=1)
