"""What can go wrong with the archive of the stand-in exchange: one small function per fault, in three tables.

ARCHIVE answers instead of the archive (None lets it answer); LINES changes the lines of a file, FILES the zip itself.
Those two strike where the file is made, so its CHECKSUM is right, unless the fault says otherwise.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import IO

from aiohttp import web

from tools.exchange import answer_faults as answers
from tools.exchange.answer_faults import Answer
from tools.exchange.archive import Content, Recipe, Write, asked_for, checksum, missing, write_zip
from tools.exchange.clock import DAY_US
from tools.exchange.stream_faults import Active, Args, World

HOLE_IDS = 10
"""How many ids are missing if no fault says which."""

_HEADER = "id,price,qty,quoteQty,time,isBuyerMaker,isBestMatch\n"
_PRICE, _TIME = 1, 4
_BLOCK_BYTES = 16 << 20
_MILLISECOND_DIGITS = 13

LineChange = Callable[[Iterator[str], Content, Args], Iterator[str]]
FileChange = Callable[[IO[bytes], str, Iterator[str], Args], None]


async def absent(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """404 for the zip and its CHECKSUM."""
    return missing()


async def no_checksum(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """404 for the CHECKSUM; the zip is there."""
    return missing()


async def bad_checksum(request: web.Request, args: Args, world: World) -> web.StreamResponse | None:
    """The CHECKSUM is that of other bytes."""
    asked = asked_for(request.path)
    file = await world.archive.file(asked) if asked else None
    if asked is None or file is None:
        return None
    return web.Response(body=checksum(file.sha256[::-1], asked.stem), content_type="binary/octet-stream")


async def status(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """HTTP `status` instead of a file of the archive."""
    return await answers.status(request, args, world)


async def drop(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """The connection is reset instead of sending a file of the archive."""
    return await answers.drop(request, args, world)


async def slow(request: web.Request, args: Args, world: World) -> None:
    """A file of the archive is `delay` seconds late."""
    await answers.slow(request, args, world)


async def truncated(request: web.Request, args: Args, world: World) -> web.StreamResponse:
    """Half of a zip is sent, then the connection is closed (of a CHECKSUM only if `path` has that word)."""
    return await world.archive.serve(request, share=0.5)


def cut_short(rows: Iterator[str], content: Content, args: Args) -> Iterator[str]:
    """The last `rows` lines of a file (default: a tenth of them) are missing."""
    return islice(rows, max(0, content.total - (args.rows or content.total // 10 or 1)))


def hole(rows: Iterator[str], content: Content, args: Args) -> Iterator[str]:
    """A file lacks the ids from `first` to `last` (default: ten in the middle)."""
    if args.first:
        last = args.last or args.first
        return (row for row in rows if not args.first <= int(row.partition(",")[0]) <= last)
    begin = max(0, content.total // 2 - HOLE_IDS // 2)
    return (row for n, row in enumerate(rows) if not begin <= n < begin + HOLE_IDS)


def doubled(rows: Iterator[str], content: Content, args: Args) -> Iterator[str]:
    """One line of a file is there twice."""
    return _at_middle(rows, content, lambda row: [row, row])


def unsorted(rows: Iterator[str], content: Content, args: Args) -> Iterator[str]:
    """Two neighbouring lines of a file are swapped."""
    before = list(islice(rows, content.total // 2 + 1))
    return chain(before[:-2], before[-2:][::-1], rows)


def changed(rows: Iterator[str], content: Content, args: Args) -> Iterator[str]:
    """One digit of one price in a file differs, as in a file that was published again."""

    def change(price: str) -> str:
        place = max(n for n, digit in enumerate(price) if digit not in "0.")
        return price[:place] + str(int(price[place]) % 9 + 1) + price[place + 1 :]

    return _at_middle(rows, content, lambda row: [_with(row, _PRICE, change)])


def header(rows: Iterator[str], content: Content, args: Args) -> Iterator[str]:
    """A file begins with a line of column names."""
    return chain([_HEADER], rows)


def milliseconds(rows: Iterator[str], content: Content, args: Args) -> Iterator[str]:
    """The times of a file are in milliseconds, whatever its year."""
    return (_with(row, _TIME, lambda time: time[:_MILLISECOND_DIGITS]) for row in rows)


def bad_row(rows: Iterator[str], content: Content, args: Args) -> Iterator[str]:
    """One price of a file is NaN."""
    return _at_middle(rows, content, lambda row: [_with(row, _PRICE, lambda price: "NaN")])


def other_day(rows: Iterator[str], content: Content, args: Args) -> Iterator[str]:
    """The time of one line of a file lies a day later."""

    def later(time: str) -> str:
        return str(int(time) + (DAY_US if len(time) > _MILLISECOND_DIGITS else DAY_US // 1000))

    return _at_middle(rows, content, lambda row: [_with(row, _TIME, later)])


def _at_middle(rows: Iterator[str], content: Content, change: Callable[[str], list[str]]) -> Iterator[str]:
    for n, row in enumerate(rows):
        yield from change(row) if n == content.total // 2 else (row,)


def _with(row: str, place: int, change: Callable[[str], str]) -> str:
    fields = row.split(",")
    fields[place] = change(fields[place])
    return ",".join(fields)


def damaged(file: IO[bytes], stem: str, rows: Iterator[str], args: Args) -> None:
    """A file is no zip at all."""
    file.write(b"<html><body>We are undergoing maintenance.</body></html>" * 100)


def two_members(file: IO[bytes], stem: str, rows: Iterator[str], args: Args) -> None:
    """A zip has a second CSV beside the one that it should have."""
    first = next(rows)
    write_zip(file, [(f"{stem}.csv", chain([first], rows)), (f"{stem}-2.csv", iter([first]))])


def wrong_member(file: IO[bytes], stem: str, rows: Iterator[str], args: Args) -> None:
    """The CSV in a zip has the name of another day."""
    write_zip(file, [(f"{stem.partition('-')[0]}-trades-2017-08-17.csv", rows)])


def bomb(file: IO[bytes], stem: str, rows: Iterator[str], args: Args) -> None:
    """A zip of about a thousandth of `size` unpacks to `size` bytes (default 20 GiB), a single line of zeros."""
    name, size = f"{stem}.csv".encode(), args.size
    blocks, rest = divmod(size, _BLOCK_BYTES)
    start = file.tell()
    # The sizes are in the 64-bit fields. The sum over the content is wrong: who reads that far is lost anyway.
    wide = struct.pack("<HHQQ", 1, 16, size, 0)
    file.write(
        struct.pack("<IHHHHHIIIHH", 0x04034B50, 45, 0, 8, 0, 0x21, 0, 2**32 - 1, 2**32 - 1, len(name), len(wide))
    )
    file.write(name + wide)
    begin = file.tell()
    # A block that ends with a full flush stands alone, so that it can be repeated without being packed again.
    block = _packed(_BLOCK_BYTES, zlib.Z_FULL_FLUSH) if blocks else b""
    for _ in range(blocks):
        file.write(block)
    file.write(_packed(rest, zlib.Z_FINISH))
    end = file.tell()
    file.seek(begin - 8)
    file.write(struct.pack("<Q", end - begin))
    file.seek(end)
    _write_directory(file, name, (size, end - begin), start)


def _packed(size: int, flush: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(b"0" * size) + packer.flush(flush)


def _write_directory(file: IO[bytes], name: bytes, sizes: tuple[int, int], start: int) -> None:
    """The end of a zip with one member, whose unpacked and packed sizes these are."""
    begin, wide = file.tell(), struct.pack("<HHQQ", 1, 16, *sizes)
    head = struct.pack("<IHHHHHHIII", 0x02014B50, 45, 45, 0, 8, 0, 0x21, 0, 2**32 - 1, 2**32 - 1)
    file.write(head + struct.pack("<HHHHHII", len(name), len(wide), 0, 0, 0, 0, start) + name + wide)
    file.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, file.tell() - begin, begin, 0))


ARCHIVE: dict[str, Answer] = {
    "archive_missing": absent,
    "archive_no_checksum": no_checksum,
    "archive_bad_checksum": bad_checksum,
    "archive_status": status,
    "archive_reset": drop,
    "archive_truncated": truncated,
    "archive_slow": slow,
}

LINES: dict[str, LineChange] = {
    "archive_cut_short": cut_short,
    "archive_hole": hole,
    "archive_doubled": doubled,
    "archive_unsorted": unsorted,
    "archive_changed": changed,
    "archive_header": header,
    "archive_ms": milliseconds,
    "archive_bad_row": bad_row,
    "archive_other_day": other_day,
}

FILES: dict[str, FileChange] = {
    "archive_damaged": damaged,
    "archive_two_members": two_members,
    "archive_wrong_member": wrong_member,
    "archive_bomb": bomb,
}


def early() -> None:
    """The file of a day that is not over exists, as far as it has been traded."""


CONTENT = {**LINES, **FILES, "archive_early": early}
"""Faults of what is in a file."""

LASTS = "Until it is switched off, or for `seconds`; `count` is a number of files, default all that are meant."

_CHECKSUMS = {"archive_no_checksum", "archive_bad_checksum"}


def symbol_of(path: str) -> str:
    """The symbol of a file of the archive; "" if the path is none."""
    asked = asked_for(path)
    return asked.symbol if asked else ""


def is_meant(active: Active, path: str) -> bool:
    """Whether a fault of ARCHIVE may strike a request for that path."""
    is_checksum = path.endswith(".CHECKSUM")
    if active.name in _CHECKSUMS:
        return is_checksum
    return not is_checksum or active.name != "archive_truncated" or "CHECKSUM" in active.args.path


def recipe(actives: list[Active]) -> Recipe:
    """How a file is made that these faults strike."""
    changes = [partial(_change, LINES[active.name], active.args) for active in actives if active.name in LINES]
    write: Write | None = None
    for active in actives:
        if active.name in FILES:
            write = partial(_write, FILES[active.name], active.args)
    is_early = any(active.name == "archive_early" for active in actives)
    key = tuple(active.number for active in actives if active.name != "archive_early")
    return Recipe(key, tuple(changes), write, is_early)


def _change(change: LineChange, args: Args, rows: Iterator[str], content: Content) -> Iterator[str]:
    return change(rows, content, args)


def _write(change: FileChange, args: Args, file: IO[bytes], stem: str, rows: Iterator[str]) -> None:
    change(file, stem, rows, args)
