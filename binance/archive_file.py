"""A file of the exchange's archive, once it is on the disk: opened without trusting it, checked row by row.

A row is `id,price,qty,quoteQty,time,isBuyerMaker,isBestMatch`, by rising id; time is in milliseconds before 2025 and in
microseconds since, whichever a row has; a header line may come first (github.com/binance/binance-public-data, README).
Each row is checked as strictly as a frame of the stream, and none is repaired: one that is not as documented, or an id
that does not follow the one before, makes the whole file unusable. A checksum proves the transport, this the content.
"""

import errno
import re
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, NamedTuple

from binance.checks import TRADE_ID_MAX
from model.proof import BLOCK_IDS, block_of
from model.times import EPOCH, MILLISECOND, midnight

CSV_BYTES_MAX = 64 * 2**30
"""Of the unpacked file. The busiest month of BTCUSDT is some 15 GB; what is longer is a bomb or a mistake."""
CHUNK_BYTES = 2**20
LINE_BYTES_MAX = 256

DAMAGED = "damaged"
BAD_ROW = "has a row that is not a trade"
IDS_MISSING = "lacks ids"
UNSORTED = "has ids out of order"
OTHER_DAY = "has a trade of another day"
EMPTY = "has no trade"


class Defect(Exception):
    """What is wrong with a file of the archive: `kind` is one of the words above or in archive.py."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Content(NamedTuple):
    """What a checked file has of a day: its ids, which are consecutive; their number; the first and last time."""

    first_trade_id: int
    last_trade_id: int
    first_at: datetime
    last_at: datetime

    @property
    def trades(self) -> int:
        """How many."""
        return self.last_trade_id - self.first_trade_id + 1


class Rows(NamedTuple):
    """Whole lines of a file: the id of the first, how many, and their text."""

    first_trade_id: int
    number: int
    text: bytes

    @property
    def last_trade_id(self) -> int:
        """The id of the last line."""
        return self.first_trade_id + self.number - 1


# Digits are spelt out, since \d is slower; quantifiers are possessive, so that no line is looked at twice.
_AMOUNT = rb"(?!0++(?:\.0++)?+,)[0-9]{1,12}+(?:\.[0-9]{1,8}+)?+"
_LINE = (
    rb"[1-9][0-9]{0,18}+,%b,%b,[0-9]{1,24}+(?:\.[0-9]{1,16}+)?+,[0-9]{13}(?:[0-9]{3})?+,(?:True|False),(?:True|False)\n"
)
_are_rows = re.compile(rb"(?>" + _LINE % (_AMOUNT, _AMOUNT) + rb")*+").fullmatch
# As nearly all are: eight decimals, no zero in front and none alone. It is three times as fast to see.
_PLAIN = rb"(?>[1-9][0-9]{0,11}+\.[0-9]{8}|0\.(?!00000000)[0-9]{8})"
_are_plain_rows = re.compile(
    rb"(?>[1-9][0-9]{0,18}+,%b,%b,[0-9]{1,24}+\.[0-9]{8},[0-9]{16},(?:True|False),True\n)*+" % (_PLAIN, _PLAIN)
).fullmatch
_is_row = re.compile(_LINE % (_AMOUNT, _AMOUNT)).fullmatch
_eight_decimals = re.compile(rb"(?>[1-9][0-9]*+\.[0-9]{8}|0\.[0-9]{8}|,)*+").fullmatch
_FIELDS = 7
_ID, _PRICE, _QUANTITY, _TIME, _MAKER = 0, 1, 2, 4, 5


class ArchiveFile:
    """The trades of `day` in the zip at `path`, whose one member must be `member`; `monthly`: it has other days too."""

    def __init__(self, path: Path, member: str, day: date, monthly: bool = False) -> None:
        self.path = path
        self.member = member
        self.monthly = monthly
        start = midnight(day)
        self._start = b"%d" % ((start - EPOCH) // MILLISECOND)
        self._end = b"%d" % ((start + timedelta(days=1) - EPOCH) // MILLISECOND)

    def check(self) -> Content:
        """What the file has of the day, after looking at every row of it. Raises Defect."""
        first = last = 0
        times: tuple[bytes, bytes] | None = None
        for rows, _, (low, high) in self._checked():
            first = first or rows.first_trade_id
            last = rows.last_trade_id
            times = (min(times[0], low), max(times[1], high)) if times else (low, high)
        if times is None:
            raise Defect(EMPTY, f"{self.path.name} has no trade")
        return Content(first, last, _when(times[0]), _when(times[1]))

    def rows(self) -> Iterator[Rows]:
        """The lines of the day, about a megabyte at a time, for a file that check() has passed. Raises Defect."""
        for text in self._texts():
            text = self._of_day(text) if self.monthly else text
            if text:
                yield Rows(int(text[: text.index(b",")]), text.count(b"\n"), text)

    def canonical(self) -> Iterator[tuple[int, bytes]]:
        """The canonical lines of the day (model/proof.py), a block of ids at a time with its number. The rows are
        checked on the way. Raises Defect."""
        block, parts = -1, list[bytes]()
        for rows, fields, _ in self._checked():
            made = _canonical(fields)
            done = 0
            while done < rows.number:
                number = block_of(rows.first_trade_id + done)
                if number != block and parts:
                    yield block, b"".join(parts)
                    parts = []
                block = number
                end = min(rows.number, (number + 1) * BLOCK_IDS - rows.first_trade_id)
                parts.append(b"".join(made[done:end]))
                done = end
        if parts:
            yield block, b"".join(parts)

    def _checked(self) -> Iterator[tuple[Rows, list[bytes], tuple[bytes, bytes]]]:
        """The lines of the day, each checked, with all their fields one after the other, and the least and the most of
        their milliseconds."""
        last = 0
        for text in self._texts():
            if not _are_plain_rows(text) and not _are_rows(text):
                raise self._bad_row(text)
            text = self._of_day(text) if self.monthly else text
            if not text:
                continue
            fields = text.replace(b"\n", b",").split(b",")
            fields.pop()
            ids = list(map(int, fields[_ID::_FIELDS]))
            rows = Rows(ids[0], len(ids), text)
            if ids != list(range(ids[0], ids[0] + len(ids))):
                raise self._misplaced(*next(pair for pair in pairwise(ids) if pair[1] != pair[0] + 1))
            if ids[-1] > TRADE_ID_MAX:
                raise Defect(BAD_ROW, f"{self.path.name}: not a trade: id {ids[-1]} is over {TRADE_ID_MAX}")
            # The first 13 digits are the milliseconds, whether there are 13 or 16.
            stamps = fields[_TIME::_FIELDS]
            low, high = min(stamps)[:13], max(stamps)[:13]
            if not self.monthly and not (self._start <= low and high < self._end):
                raise Defect(OTHER_DAY, f"{self.path.name}: ids {ids[0]} to {ids[-1]} have a trade of another day")
            if last and ids[0] != last + 1:
                raise self._misplaced(last, ids[0])
            last = ids[-1]
            yield rows, fields, (low, high)

    def _of_day(self, text: bytes) -> bytes:
        """Those of the lines of a month that are of the day."""
        first, last = (line.split(b",")[_TIME][:13] for line in (text[: text.index(b"\n")], _last_line(text)))
        if self._start <= first and last < self._end:
            return text
        if last < self._start or first >= self._end:
            return b""
        kept = [line for line in text.splitlines(True) if self._start <= line.split(b",")[_TIME][:13] < self._end]
        return b"".join(kept)

    def _misplaced(self, below: int, above: int) -> Defect:
        if above > below + 1:
            return Defect(IDS_MISSING, f"{self.path.name} lacks the ids {below + 1} to {above - 1}")
        return Defect(UNSORTED, f"{self.path.name} has id {above} after id {below}")

    def _bad_row(self, text: bytes) -> Defect:
        bad = next(line for line in text.splitlines(True) if not _is_row(line))
        return Defect(BAD_ROW, f"{self.path.name}: not a trade: {bad[:LINE_BYTES_MAX]!r}")

    def _texts(self) -> Iterator[bytes]:
        """The text of the file in whole lines, without a header. Raises Defect."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self._member(archive)) as member:
                yield from _lines(member)
        except Defect as defect:
            raise Defect(defect.kind, f"{self.path.name}: {defect}") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            # RuntimeError: it wants a password.
            raise Defect(DAMAGED, f"{self.path.name} cannot be unpacked: {error}") from error
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # The library looks for a part where the file says that it is: before its start.
            raise Defect(DAMAGED, f"{self.path.name} cannot be unpacked: {error}") from error

    def _member(self, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
        found = archive.infolist()
        if len(found) != 1 or self.member not in _names(found[0]):
            names = ", ".join(info.filename[:80] for info in found[:3]) or "nothing"
            raise Defect(DAMAGED, f"it should hold {self.member} alone, and holds {names}")
        if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # The library unpacks the other kinds without a bound: four kilobytes may become gigabytes.
            raise Defect(
                DAMAGED, f"it is packed in a way (type {found[0].compress_type}) that the archive does not use"
            )
        if found[0].file_size > CSV_BYTES_MAX:
            raise Defect(DAMAGED, f"it unpacks to {found[0].file_size} bytes; at most {CSV_BYTES_MAX} are believed")
        return found[0]


def _names(info: zipfile.ZipInfo) -> set[str]:
    """The name of a member; also as UTF-8, which not every program marks as such."""
    try:
        return {info.filename, info.filename.encode("cp437").decode("utf-8")}
    except UnicodeError:
        return {info.filename}


def _lines(member: IO[bytes]) -> Iterator[bytes]:
    # The library stops at the size that the member claims, so this one bound holds for what is really unpacked.
    rest, is_start = b"", True
    while piece := member.read(CHUNK_BYTES):
        text = rest + piece
        if is_start and text[:1].isalpha() and b"\n" in text:
            text = text[text.index(b"\n") + 1 :]
        is_start = False
        end = text.rfind(b"\n") + 1
        rest = text[end:]
        if len(rest) > LINE_BYTES_MAX:
            raise Defect(BAD_ROW, f"a line of more than {LINE_BYTES_MAX} bytes: {rest[:80]!r}")
        if end:
            yield text[:end]
    if rest:
        raise Defect(BAD_ROW, f"its last line is not whole: {rest[:80]!r}")


def _last_line(text: bytes) -> bytes:
    return text[text.rfind(b"\n", 0, -1) + 1 :]


def _canonical(fields: list[bytes]) -> list[bytes]:
    columns = [fields[column::_FIELDS] for column in (_ID, _PRICE, _QUANTITY, _TIME, _MAKER)]
    if not _eight_decimals(b",".join(chain(columns[1], columns[2]))):
        columns[1:3] = [list(map(_padded, column)) for column in columns[1:3]]
    columns[3] = [stamp[:13] for stamp in columns[3]]
    columns[4] = [b"1\n" if maker == b"True" else b"0\n" for maker in columns[4]]
    return list(map(b",".join, zip(*columns, strict=True)))


def _padded(amount: bytes) -> bytes:
    """An amount with eight decimals and without leading zeros; some symbols have fewer in the archive."""
    whole, _, decimals = amount.partition(b".")
    return b"%d.%b" % (int(whole), decimals.ljust(8, b"0"))


def _when(stamp: bytes) -> datetime:
    return EPOCH + timedelta(milliseconds=int(stamp))
