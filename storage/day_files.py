"""The Parquet file of a symbol's UTC day: written, and read back as trades or as canonical lines.

In the layout of `tools.export parquet --partition day`: symbol=BTCUSDT/day=2026-08-01/trades.parquet, by time and id.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from model.times import EPOCH, MILLISECOND
from model.trade import Trade
from process.disk import sync_folder
from storage.errors import FatalError
from storage.lines import Chunk

BATCH_ROWS = 10_000
"""Read at once: a few MB."""
HASHED_BYTES = 2**20


def path_of(symbol: str, day: date) -> str:
    """The path of the file, below the folder of all."""
    return f"symbol={symbol}/day={day}/trades.parquet"


def check_package() -> None:
    """Raises FatalError if the package that reads and writes the files is not there."""
    _parquet()


@contextmanager
def written(path: Path, symbol: str, chunks: Iterable[Chunk]) -> Iterator[Path]:
    """A block in which `chunks` of the layout `plain`, in the order of the table's key, are in a file beside `path`,
    under a name of its own, and on the disk. It is gone afterwards, unless put() has given it the name `path`. Raises
    OSError, FatalError without pyarrow."""
    parquet = _parquet()
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.part"):
        # Of one that was killed: there is only one at a time.
        left.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            writer = parquet.ParquetWriter(file, with_symbol=False)
            for chunk in chunks:
                writer.write(symbol, chunk)
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        yield part
    finally:
        part.unlink(missing_ok=True)
        with suppress(OSError):
            # Only an empty one goes.
            path.parent.rmdir()


def put(part: Path, path: Path) -> None:
    """Gives a file that was written its name, in place of one that has it, which is on the disk when this returns."""
    part.replace(path)
    # The name is in the folder, which is in another, which may be new too.
    for folder in (path.parent, *list(path.parents)[1:3]):
        sync_folder(folder)


def hash_of(path: Path) -> str:
    """The SHA-256 of a file. Raises OSError."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(HASHED_BYTES):
            whole.update(piece)
    return whole.hexdigest()


def count(path: Path) -> int:
    """How many trades the file has. Raises FatalError if it is not there, or is none."""
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def trades(path: Path, symbol: str, start: datetime, end: datetime) -> Iterator[Trade]:
    """The trades of the file in [start, end), in the order of the table's key; only the parts of the file that have any
    are read. Raises FatalError if the file is not there, or is none."""
    for batch in _batches(path, start, end):
        times = batch.column("timestamp").cast("int64").to_pylist()
        received = batch.column("received_at").cast("int64").to_pylist()
        columns = (batch.column(name).to_pylist() for name in ("trade_id", "price", "quantity", "buyer_is_maker"))
        for ms, us, trade_id, price, quantity, maker in zip(times, received, *columns, strict=True):
            arrived = None if us is None else EPOCH + timedelta(microseconds=us)
            yield Trade(symbol, EPOCH + timedelta(milliseconds=ms), trade_id, price, quantity, maker, arrived)


def canonical(path: Path, start: datetime, end: datetime) -> Iterator[Chunk]:
    """The same as canonical lines (storage/lines.py)."""
    for batch in _batches(path, start, end):
        ids = batch.column("trade_id").to_pylist()
        times = batch.column("timestamp").cast("int64").to_pylist()
        columns = (batch.column(name).to_pylist() for name in ("price", "quantity", "buyer_is_maker"))
        made = [
            f"{trade_id},{price:f},{quantity:f},{ms},{maker:d}\n"
            for trade_id, ms, price, quantity, maker in zip(ids, times, *columns, strict=True)
        ]
        yield Chunk("".join(made).encode(), len(made), ids[0], ids[-1])


def _batches(path: Path, start: datetime, end: datetime) -> Iterator[Any]:
    """The rows of [start, end) in record batches, of which none is empty."""
    pa = _parquet().pa
    low, high = (-((EPOCH - when) // MILLISECOND) for when in (start, end))
    with _opened(path) as file:
        groups = [number for number in range(file.num_row_groups) if _has_any(file, number, start, end)]
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, use_threads=False):
            times = batch.column("timestamp").cast("int64")
            kept = batch.filter(pa.compute.and_(pa.compute.greater_equal(times, low), pa.compute.less(times, high)))
            if kept.num_rows:
                yield kept


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A block that reads a file. Raises FatalError."""
    pa, parquet = _parquet().pa, _parquet().parquet
    try:
        with parquet.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow)
            yield file
    except (OSError, pa.ArrowException) as error:
        raise FatalError(
            f"the Parquet file {path} cannot be read ({error}): bring it back from a backup; the table `retained` has"
            " its SHA-256"
        ) from error


def _check_columns(path: Path, found: Any) -> None:
    """Raises FatalError unless the columns are those that are written here; others beside them are passed over."""
    kinds = {field.name: field.type for field in found}
    for field in _parquet().schema(with_symbol=False):
        if (kind := kinds.get(field.name)) != field.type:
            there = f"its column {field.name} is {kind}, not {field.type}" if kind else f"it has no column {field.name}"
            raise FatalError(
                f"the Parquet file {path} is not as this program writes them ({there}): did another one write it anew?"
                " Take the original"
            )


def _has_any(file: Any, number: int, start: datetime, end: datetime) -> bool:
    group = file.metadata.row_group(number)
    times = group.column(file.schema_arrow.get_field_index("timestamp")).statistics
    return times is None or not times.has_min_max or (times.min < end and times.max >= start)


def _parquet() -> Any:
    # Arrow reads this when it is imported. Its own allocator does not return memory: a tenth more than the system's.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        import pyarrow.compute  # type: ignore[import-untyped]  # noqa: F401

        from storage import parquet
    except ImportError as error:
        raise FatalError(
            f"days in Parquet files need another package: pip install -r requirements-tools.txt ({error})"
        ) from error
    return parquet
