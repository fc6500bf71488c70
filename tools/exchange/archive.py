"""The archive of the stand-in exchange: daily and monthly zip files of trades, each with its CHECKSUM.

A file is made in a thread when it is asked for, and is the same bytes each time. A fault changes what is in it by a
Recipe.
"""

import asyncio
import hashlib
import os
import re
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import IO, NamedTuple

from aiohttp import web

from tools.exchange.clock import DAY_US, Clock, day_named, month_named
from tools.exchange.history import Columns
from tools.exchange.ledger import Ledger, Truth
from tools.exchange.tape import E8

MICROSECONDS_FROM_US = 1_735_689_600_000_000
"""Trades since 2025-01-01 have times in microseconds, older ones in milliseconds."""

IN_MEMORY_BYTES_MAX = 4 << 20
"""A larger file is put into a temporary file on the disk."""

CACHED_FILES_MAX = 8

SETTLED_US = 2_000_000
"""How long after midnight the last trades of a day may still be on their way to the ledger."""

_LINES_AT_ONCE = 4096
_READ_BYTES = 256 << 10
_DATE_IN_ZIP = (2020, 1, 1, 0, 0, 0)
_NAME = re.compile(
    r"/data/spot/(daily|monthly)/trades/([^/]+)/(\2-trades-(\d{4}-\d{2}(?:-\d{2})?))\.zip(\.CHECKSUM)?", re.ASCII
)
_NO_SUCH_KEY = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>'
    "<Message>The specified key does not exist.</Message></Error>"
)


class Asked(NamedTuple):
    """A file of the archive; `end_us` is exclusive."""

    symbol: str
    stem: str
    begin_us: int
    end_us: int
    checksum: bool


class Content(NamedTuple):
    """What the lines of a file are: its name without .csv, and how many there are."""

    stem: str
    total: int


RowChange = Callable[[Iterator[str], Content], Iterator[str]]
Write = Callable[[IO[bytes], str, Iterator[str]], None]


class Recipe(NamedTuple):
    """How a file is made: what changes its lines, what writes it (None: write_zip), and the numbers of these faults.

    `early`: it exists before its day is over.
    """

    key: tuple[int, ...] = ()
    changes: tuple[RowChange, ...] = ()
    write: Write | None = None
    early: bool = False


class File(NamedTuple):
    """A file that was made: its bytes, or the temporary file that has them."""

    size: int
    sha256: str
    body: bytes | IO[bytes]

    def read(self, offset: int) -> bytes:
        """The next bytes from an offset on; several readers do not disturb each other."""
        if isinstance(self.body, bytes):
            return self.body[offset:]
        return os.pread(self.body.fileno(), _READ_BYTES, offset)


def asked_for(path: str) -> Asked | None:
    """The file that a path names; None if no file can have that name."""
    match = _NAME.fullmatch(path)
    if match is None:
        return None
    kind, symbol, stem, period, checksum = match.groups()
    try:
        first, after = (day_named(period), day_named(period) + 1) if kind == "daily" else month_named(period)
    except ValueError:
        return None
    return Asked(symbol, stem, first * DAY_US, after * DAY_US, checksum is not None)


def lines(columns: Columns) -> Iterator[str]:
    """The trades as the archive writes them."""
    for one, price, size, time_us, maker in zip(*columns, strict=True):
        quote = price * size // E8
        time = time_us if time_us >= MICROSECONDS_FROM_US else time_us // 1000
        yield (
            f"{one},{price // E8}.{price % E8:08d},{size // E8}.{size % E8:08d},{quote // E8}.{quote % E8:08d},"
            f"{time},{'True' if maker else 'False'},True\n"
        )


def write_zip(file: IO[bytes], members: Iterable[tuple[str, Iterator[str]]]) -> None:
    """Writes a zip of these members, each a name and its lines; it has the same bytes each time."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, rows in members:
            member = zipfile.ZipInfo(name, _DATE_IN_ZIP)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            with packed.open(member, "w", force_zip64=True) as out:
                while batch := "".join(islice(rows, _LINES_AT_ONCE)):
                    out.write(batch.encode())


class Archive:
    """The files, made from the truth. `recipe`: set by the faults, it gives the recipe of a path."""

    def __init__(self, truth: Truth, clock: Clock, lag_s: float) -> None:
        self.calls: dict[str, int] = {}
        self.recipe: Callable[[str], Recipe] = lambda path: Recipe()
        self._truth = truth
        self._clock = clock
        self._lag_us = max(SETTLED_US, int(lag_s * 1e6)) if clock.is_real else int(lag_s * 1e6)
        self._files: OrderedDict[tuple[object, ...], File] = OrderedDict()
        self._making = asyncio.Lock()

    async def serve(self, request: web.Request, share: float = 1.0) -> web.StreamResponse:
        """The answer to a GET or HEAD: the file or its CHECKSUM; 404 if it does not exist. `share` below 1: the
        connection is closed after that part of the body."""
        self.calls[request.path] = self.calls.get(request.path, 0) + 1
        asked = asked_for(request.path)
        file = await self.file(asked) if asked else None
        if asked is None or file is None:
            return missing()
        if asked.checksum:
            body = checksum(file.sha256, asked.stem)
            file = File(len(body), "", body)
        return await _send(request, file, share)

    async def file(self, asked: Asked) -> File | None:
        """The zip file, from the cache or made now; None if it does not exist."""
        recipe = self.recipe(path_of(asked))
        ledger = self._truth.ledgers.get(asked.symbol)
        if ledger is None or not (recipe.early or asked.end_us + self._lag_us <= self._clock.now_us()):
            return None
        if asked.begin_us >= self._clock.now_us():
            return None
        async with self._making:
            begin, end = ledger.positions(asked.begin_us, asked.end_us)
            count = end - begin + _deep_count(ledger, asked)
            key = (asked.stem, count, recipe.key)
            if count and key not in self._files:
                self._files[key] = await asyncio.to_thread(
                    _made, asked.stem, recipe, count, ledger.between(asked.begin_us, asked.end_us)
                )
            if not count:
                return None
            self._files.move_to_end(key)
            if len(self._files) > CACHED_FILES_MAX:
                self._files.popitem(last=False)
            return self._files[key]


def path_of(asked: Asked) -> str:
    """The path of the zip file."""
    kind = "daily" if asked.end_us - asked.begin_us == DAY_US else "monthly"
    return f"/data/spot/{kind}/trades/{asked.symbol}/{asked.stem}.zip"


def checksum(sha256: str, stem: str) -> bytes:
    """The text of a CHECKSUM file."""
    return f"{sha256}  {stem}.zip\n".encode()


def missing() -> web.Response:
    """HTTP 404 as the archive's store answers it."""
    return web.Response(status=404, text=_NO_SUCH_KEY, content_type="application/xml")


def _deep_count(ledger: Ledger, asked: Asked) -> int:
    past = ledger.past
    return past.id_at(asked.end_us) - past.id_at(asked.begin_us) if past else 0


def _made(stem: str, recipe: Recipe, count: int, parts: Iterator[Columns]) -> File:
    """The file; runs in a thread."""
    rows: Iterator[str] = chain.from_iterable(map(lines, parts))
    content = Content(stem, count)
    for change in recipe.changes:
        rows = change(rows, content)
    file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES_MAX)  # noqa: SIM115
    if recipe.write is None:
        write_zip(file, [(f"{stem}.csv", rows)])
    else:
        recipe.write(file, stem, rows)
    size = file.tell()
    file.seek(0)
    sha256 = hashlib.sha256()
    while part := file.read(_READ_BYTES):
        sha256.update(part)
    if size > IN_MEMORY_BYTES_MAX:
        file.flush()
        return File(size, sha256.hexdigest(), file)
    file.seek(0)
    return File(size, sha256.hexdigest(), file.read())


async def _send(request: web.Request, file: File, share: float) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "binary/octet-stream"})
    response.content_length = file.size
    await response.prepare(request)
    offset, end = 0, int(file.size * share)
    while offset < end and request.method != "HEAD":
        part = (await asyncio.to_thread(file.read, offset))[: end - offset]
        await response.write(part)
        offset += len(part)
    if share < 1 and request.transport is not None:
        request.transport.close()
    return response
