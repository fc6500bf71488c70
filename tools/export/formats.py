"""The formats of an export, and how trades get from the database into its files."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import db
from model import candles as bars
from model.candles import DAY
from storage import lines
from storage.lines import Chunk
from storage.stored_lines import stored_lines
from tools.export.compression import COMPRESSORS, Sink
from tools.export.files import ExportError, Output, Place

CSV_HEADER = b"symbol,timestamp,trade_id,price,quantity,buyer_is_maker,received_at\n"


class Writer(Protocol):
    """Turns chunks into a file."""

    def write(self, symbol: str, chunk: Chunk) -> None:
        """Adds the trades of `chunk`, which are all of `symbol`."""

    def close(self) -> None:
        """Writes whatever is still buffered."""


class Format(NamedTuple):
    """How a file is written: its lines, its writer, and its name in a partitioned folder.

    `one_symbol`: the file does not name its symbol, so it can hold only one.
    """

    layout: str
    open: Callable[[Any, bool], Writer]
    name: str
    one_symbol: bool = False


class Span(NamedTuple):
    """The trades of a symbol in [start, end)."""

    symbol: str
    start: datetime
    end: datetime


class Export(NamedTuple):
    """What is exported, whether into one file or into one per symbol and UTC day, and how the file is compressed: by
    the ending of its name, if by any."""

    format: Format
    partition: bool
    spans: list[Span]
    compression: str | None = None


class File(NamedTuple):
    """What the manifest says about a file; `name` is relative to its folder."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Part:
    """What was exported for one symbol. `ids_missing_in_range`: how many ids are in the open gaps that reach into the
    range, those at its edges too, of which nobody knows whether they belong there."""

    def __init__(self, symbol: str, first_trade_id: int) -> None:
        self.symbol = symbol
        self.rows = 0
        self.first_trade_id = self.last_trade_id = first_trade_id
        self.ids_missing_in_range = 0

    @property
    def missing(self) -> int:
        """How many ids between the first and the last have no row."""
        return max(0, self.last_trade_id - self.first_trade_id + 1 - self.rows)

    def as_json(self) -> dict[str, object]:
        """The manifest's entry."""
        return {**vars(self), "ids_missing": self.missing}


class Tally:
    """What was written: the files, the symbols, and how many amounts a float cannot hold (None: no floats)."""

    def __init__(self, counts_inexact: bool) -> None:
        self.files: list[File] = []
        self.symbols: dict[str, Part] = {}
        self.inexact = 0 if counts_inexact else None

    def add(self, symbol: str, chunk: Chunk) -> None:
        """Counts `chunk`."""
        part = self.symbols.setdefault(symbol, Part(symbol, chunk.first_trade_id))
        part.rows += chunk.rows
        part.last_trade_id = chunk.last_trade_id
        if self.inexact is not None:
            self.inexact += inexact(chunk.text)


def write(connection: db.Connection, export: Export, place: Place | None, advance: Callable[[int], object]) -> Tally:
    """Writes the files of `export` to the stage of `place`, or one file to stdout if there is none; calls `advance`
    with the number of trades in each chunk."""
    tally = Tally(export.format.layout == lines.INFLUX)
    for name, spans in _files(export):
        path = place and (place.stage / name if name else place.stage)
        trades = _trades(connection, export.format.layout, spans)
        if file := _write_file(path, export, trades, (tally, advance)):
            tally.files.append(file._replace(name=name or (place.target.name if place else "-")))
    return tally


def _files(export: Export) -> Iterator[tuple[str, Sequence[Span]]]:
    """The names of the files in the folder, or "" for a single file, and what goes into each, in order."""
    if not export.partition:
        yield "", export.spans
        return
    for symbol, start, end in export.spans:
        day = bars.floor(start, DAY)
        while day < end:
            following = day + timedelta(seconds=DAY)
            name = export.format.name.format(symbol=quote(symbol, safe=""), day=f"{day:%Y-%m-%d}")
            yield name, [Span(symbol, max(start, day), min(end, following))]
            day = following


def _trades(connection: db.Connection, layout: str, spans: Sequence[Span]) -> Iterator[tuple[str, Chunk]]:
    for span in spans:
        for chunk in stored_lines(connection, *span, layout):
            yield span.symbol, chunk


Counters = tuple[Tally, Callable[[int], object]]


def _write_file(
    path: Path | None, export: Export, trades: Iterator[tuple[str, Chunk]], counters: Counters
) -> File | None:
    """The file at `path`, or stdout, with all of `trades`; None, and no file, if there are none."""
    first = next(trades, None)
    if first is None:
        return None
    tally, advance = counters
    rows = 0
    with Output(path) as output:
        compressed = COMPRESSORS[export.compression](output) if export.compression else None
        writer = export.format.open(compressed or output, not export.partition)
        for symbol, chunk in chain([first], trades):
            writer.write(symbol, chunk)
            tally.add(symbol, chunk)
            rows += chunk.rows
            advance(chunk.rows)
        writer.close()
        if compressed:
            compressed.close()
    return File("", rows, output.bytes, output.sha256)


# ---- The formats.


class TextWriter:
    """Writes the server's lines, each with a prefix that names its symbol."""

    def __init__(self, output: Sink, prefix: Callable[[str], bytes], header: bytes = b"") -> None:
        self._output = output
        self._prefix = prefix
        self._output.write(header)

    def write(self, symbol: str, chunk: Chunk) -> None:
        """Adds the trades of `chunk`, which are all of `symbol`."""
        prefix, text = self._prefix(symbol), chunk.text
        if prefix:
            text = prefix + text[:-1].replace(b"\n", b"\n" + prefix) + b"\n"
        self._output.write(text)

    def close(self) -> None:
        """Does nothing: nothing is buffered."""


def _csv(output: Sink, with_symbol: bool) -> Writer:
    return TextWriter(output, csv_prefix, CSV_HEADER)


def csv_prefix(symbol: str) -> bytes:
    """The symbol as the first field of a line of CSV."""
    quoted = symbol.replace('"', '""')
    return (f'"{quoted}",' if re.search(r'[",\r\n]', symbol) else f"{symbol},").encode()


def _binance(output: Sink, with_symbol: bool) -> Writer:
    return TextWriter(output, lambda symbol: b"")


def _influx(output: Sink, with_symbol: bool) -> Writer:
    return TextWriter(output, influx_prefix)


def influx_prefix(symbol: str) -> bytes:
    """The measurement and the tag of a point."""
    escaped = re.sub("([,= ])", r"\\\1", symbol)
    return f"trades,symbol={escaped} ".encode()


def _parquet(output: Output, with_symbol: bool) -> Writer:
    # Arrow reads this when it is imported. Its own allocator does not return memory: a tenth more than the system's.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        from storage.parquet import ParquetWriter
    except ImportError as error:
        raise ExportError(f"Parquet needs another package: pip install -r requirements-tools.txt ({error})") from error
    return ParquetWriter(output, with_symbol)


_DAILY = "{symbol}-trades-{day}"
FORMATS = {
    "csv": Format(lines.PLAIN, _csv, f"{_DAILY}.csv"),
    "binance": Format(lines.BINANCE, _binance, f"{_DAILY}.csv", one_symbol=True),
    "parquet": Format(lines.PLAIN, _parquet, "symbol={symbol}/day={day}/trades.parquet"),
    "influx": Format(lines.INFLUX, _influx, f"{_DAILY}.lp"),
    "influx-text": Format(lines.INFLUX_TEXT, _influx, f"{_DAILY}.lp"),
}

# A float holds any number of up to 15 digits; with 8 decimals, only those of ten million or more need a look.
_LONG_AMOUNT = re.compile(rb"(?:price|quantity)=([0-9]{8,}\.[0-9]{8})")


def inexact(points: bytes) -> int:
    """How many amounts in these points a 64-bit float would change."""
    return sum(Decimal(repr(float(text))) != Decimal(text.decode()) for text in _LONG_AMOUNT.findall(points))
