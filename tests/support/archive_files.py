"""Files of the exchange's archive as a test wants them: their lines, the zip around these, and its CHECKSUM."""

import hashlib
import io
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from binance.archive_file import ArchiveFile
from tests.makers import BTC, MIDNIGHT

HEADER = "id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n"
DAY = MIDNIGHT.date()
STEM = f"{BTC}-trades-{DAY}"
START_MS = int(MIDNIGHT.timestamp()) * 1_000
DAY_MS = 86_400_000

FLAGS, CRC, BYTES = (6, 8, 2), (14, 16, 4), (22, 24, 4)
"""What a zip says of a member: the place in the header before it, the place in the directory, and the length."""
ENCRYPTED, IS_UTF8 = 0x1, 0x800


def line(trade_id: int | str, after_ms: int = 0, /, **changed: object) -> str:
    """A line of a file: that trade, so long after the day began; columns as text where they matter."""
    fields: dict[str, object] = {
        "id": trade_id,
        "price": "97000.12000000",
        "qty": "0.00012000",
        "quote": "11.64001440",
        "time": START_MS + after_ms,
        "maker": "False",
        "best": "True",
    }
    return ",".join(map(str, (fields | changed).values())) + "\n"


def lines(first: int, last: int, after_ms: int = 0) -> str:
    """Lines with the ids `first` to `last` (inclusive), a millisecond apart."""
    return "".join(line(number, after_ms + number - first) for number in range(first, last + 1))


def packed(text: str | bytes, name: str = f"{STEM}.csv", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with one member."""
    return packed_all([(name, text)], method)


def packed_all(members: Iterable[tuple[str, str | bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, text in members:
            archive.writestr(zipfile.ZipInfo(name, (2025, 3, 2, 0, 0, 0)), text, method)
    return file.getvalue()


def said(content: bytes, what: tuple[int, int, int]) -> int:
    """A number that the zip `content` says of its first member."""
    local, _, size = what
    return int.from_bytes(content[local : local + size], "little")


def saying(content: bytes, what: tuple[int, int, int], number: int) -> bytes:
    """The zip `content` with another number in both of its places."""
    changed, (local, central, size) = bytearray(content), what
    for place in (local, content.index(b"PK\x01\x02") + central):
        changed[place : place + size] = number.to_bytes(size, "little")
    return bytes(changed)


def checksum(content: bytes, name: str = f"{STEM}.zip") -> bytes:
    """The CHECKSUM of a file."""
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


def file_of(folder: Path, text: str | bytes, monthly: bool = False) -> ArchiveFile:
    """The file of DAY, or of its month, with that text; in `folder`."""
    return file_with(folder, packed(text), monthly)


def file_with(folder: Path, content: bytes, monthly: bool = False) -> ArchiveFile:
    """The file of DAY with these bytes; in `folder`."""
    path = folder / f"{STEM}.zip"
    path.write_bytes(content)
    return ArchiveFile(path, f"{STEM}.csv", DAY, monthly)


def at_ms(after_ms: int) -> datetime:
    """The moment so many milliseconds after the day began."""
    return datetime.fromtimestamp((START_MS + after_ms) / 1_000, UTC)
