"""Loads Parquet files into the database: an export from elsewhere, or the days that left another database's table.

FOLDER is what `tools.export parquet --partition` made, or DATA_DIR/parquet/DATABASE of `tools.retain`. Trades that are
stored already are passed over, ids that are missing become gaps, and candles are made. It can be killed at any moment:
run it again. Beside an export's manifest each file must have the hash and the number of trades that are written there.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import config
import db
from model.times import midnight
from process import command
from process.command import Parser
from storage import day_files

BATCH_ROWS = 10_000
"""Trades in a transaction."""
MANIFEST = "_manifest.json"
SEAL_S_MAX = 120
"""One statement makes the candles of many trades, which may take longer than a writer's time-out allows."""


class WrongError(Exception):
    """What is asked for cannot be; the message says why."""


class File(NamedTuple):
    """The file of a symbol's UTC day; `entry`: what the manifest says of it, if there is one."""

    path: Path
    symbol: str
    day: date
    entry: dict[str, Any] | None


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0, or 2 after one line on stderr."""
    parser = Parser(prog="python -m tools.load", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with symbol=BTCUSDT/day=2026-11-25/trades.parquet")
    parser.add_argument("--demo", action="store_true", help="the database of `make demo`")
    arguments = parser.parse_args(argv)
    return command.run(parser, lambda: _main(arguments), (config.ConfigError, db.DatabaseError, OSError, WrongError))


def _main(arguments: argparse.Namespace) -> int:
    settings = config.load()
    settings = config.demo_of(settings) if arguments.demo else settings
    day_files.check_package()
    # All of them, before anything is stored.
    files = _files(arguments.folder)
    with closing(db.connect(settings, read_s_max=SEAL_S_MAX)) as connection:
        for symbol, some in groupby(files, lambda one: one.symbol):
            for one in some:
                rows, new = _load(connection, one)
                print(f"{symbol} {one.day}: {rows:,} trades, {new:,} of them new", flush=True)
            db.seal_history(connection, symbol)
    print(f"database {settings.place}: {len(files)} files loaded")
    return 0


def _files(folder: Path) -> list[File]:
    """By symbol and day, checked. Raises WrongError, OSError."""
    entries = _entries(folder)
    found = sorted(folder.glob("symbol=*/day=*/trades.parquet"))
    names = [str(path.relative_to(folder)) for path in found]
    if not found:
        raise WrongError(
            f"{folder}: no symbol=…/day=…/trades.parquet in it; `tools.export parquet --partition` makes them"
        )
    lost = sorted(set(entries or ()) - set(names))
    if lost:
        raise WrongError(f"{folder}: {lost[0]} is not there, and {MANIFEST} names it")
    files = []
    for path, name in zip(found, names, strict=True):
        entry = None if entries is None else entries.get(name)
        if entries is not None and (entry is None or day_files.hash_of(path) != entry["sha256"]):
            raise WrongError(f"{path} is not as {MANIFEST} says: copy it again, or export again")
        files.append(File(path, unquote(path.parts[-3].partition("=")[2]), _day(path), entry))
    return files


def _day(path: Path) -> date:
    text = path.parts[-2].partition("=")[2]
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise WrongError(f"{path}: {text!r} is not a day, such as 2026-11-25") from None


def _entries(folder: Path) -> dict[str, dict[str, Any]] | None:
    """What the manifest of an export says of each file; None if there is none. Raises WrongError, OSError."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        return {one["name"]: one for one in json.loads(path.read_text(encoding="utf-8"))["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise WrongError(f"{path} is not the manifest of an export: {error!r}") from None


def _load(connection: db.Connection, file: File) -> tuple[int, int]:
    """How many trades the file has, and how many of them were new. Raises WrongError, DatabaseError."""
    start, rows, new = midnight(file.day), 0, 0
    for batch in _batches(day_files.trades(file.path, file.symbol, start, start + timedelta(days=1))):
        rows += len(batch)
        new += db.insert_trades(connection, batch)
    if rows != (count := day_files.count(file.path)):
        raise WrongError(f"{file.path}: {rows} of its {count} trades are of {file.day}; what is the right day?")
    if file.entry is not None and file.entry["rows"] != rows:
        raise WrongError(f"{file.path}: {rows} trades of {file.day}, and {MANIFEST} says {file.entry['rows']}")
    return rows, new


def _batches(trades: Iterator[db.Trade]) -> Iterator[list[db.Trade]]:
    while batch := list(islice(trades, BATCH_ROWS)):
        yield batch


if __name__ == "__main__":
    sys.exit(main())
