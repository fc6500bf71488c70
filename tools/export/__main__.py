"""Exports stored trades to files: CSV, the exchange's archive format, Parquet, InfluxDB's line protocol.

    python -m tools.export csv trades.csv --symbol BTCUSDT --start 2025-11-20 --end 2025-11-21
    python -m tools.export csv archive --format binance --partition
    python -m tools.export parquet trades.parquet --last 1h
    python -m tools.export influx trades.lp --amounts text
    python -m tools.export csv trades.csv.gz --last 1d
    python -m tools.export csv - --last 5m | head

Times are ISO 8601, UTC unless they have an offset. The range includes START and excludes END; without them, everything
stored is exported. A file appears complete or not at all, with a manifest (counts, first and last id, SHA-256) beside
it. Prices and quantities are the exact decimals that are stored.

A name that ends in .gz or .zst is compressed. With - as OUT the rows go to stdout, without a manifest, and all words,
also what is missing, to stderr; they are complete if the exit code is 0.

csv: a header, then symbol,timestamp,trade_id,price,quantity,buyer_is_maker,received_at; received_at is empty if the
trade was back-filled.

csv --format binance: the rows of the exchange's daily archive, without a header or a symbol. Stored times are whole
milliseconds, so from 2025-01-01 on, when the archive switched to microseconds, the last three digits are 000. quoteQty
is exactly price times qty, truncated after the eighth decimal, as on the exchange. isBestMatch, which is not stored, is
always True.

parquet: decimal128(20, 8), timestamp[ms, UTC], received_at timestamp[us, UTC], zstd.

influx: measurement trades, tag symbol. InfluxDB stores numbers as 64-bit floats of 15 to 17 digits; the export reports
how many amounts lose digits. With --amounts text they are exact strings, which InfluxDB cannot average. A point in
InfluxDB replaces an earlier one with the same timestamp, so times are in nanoseconds and their last six digits are
those of the trade id.

--partition creates a folder with one file per symbol and UTC day: BTCUSDT-trades-2025-11-20.csv, or for Parquet
symbol=BTCUSDT/day=2025-11-20/trades.parquet, which readers show as two extra columns.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import signal
import sys
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

import config
import db
from model.times import MILLISECOND
from process import command
from process.command import Parser
from report.options import parse_duration, parse_time
from report.source import Mistake, Source, open_source, wanted_symbols
from report.text import iso
from storage import gaps as stored_gaps
from storage import pages
from tools.export.compression import ending_of
from tools.export.files import ExportError, Place, publish, staged
from tools.export.formats import FORMATS, Export, Span, Tally, write

STDOUT = Path("-")


def main(argv: list[str] | None = None) -> int:
    """Exports what the command line asks for; returns 0, or 2 after one line on stderr."""
    parser, options = parse_options(argv)
    known = (Mistake, ExportError, config.ConfigError, db.DatabaseError)
    return command.run(parser, lambda: _main(options), known)


def _main(options: argparse.Namespace) -> int:
    source = open_source(config.load(), options.demo)
    with closing(source.connection):
        try:
            _export(source, options)
        except BrokenPipeError:
            # Whoever reads stdout has seen enough.
            raise
        except OSError as error:
            raise ExportError(f"{options.out}: {error.strerror or error}") from error
    return 0


def parse_options(argv: list[str] | None) -> tuple[Parser, argparse.Namespace]:
    """The parser, and the command line's `kind`, `out`, `symbol`, `start`, `end`, `last` and switches.

    Exits with 2 after one line if something is wrong.
    """
    common = Parser(add_help=False, allow_abbrev=False)
    words = "the file to create (.gz, .zst: compressed), or with --partition the folder; - for stdout"
    common.add_argument("out", metavar="OUT", type=Path, help=words)
    common.add_argument("--symbol", action="append", default=[], help="only this symbol; repeat it, or use commas")
    common.add_argument("--start", metavar="TIME", type=parse_time, help="start of the range (inclusive)")
    common.add_argument("--end", metavar="TIME", type=parse_time, help="end of the range (exclusive)")
    common.add_argument("--last", metavar="DURATION", type=parse_duration, help="up to the newest trade: 5m, 2h, 1d")
    common.add_argument("--partition", action="store_true", help="a folder with one file per symbol and UTC day")
    common.add_argument("--force", action="store_true", help="replace an earlier export")
    common.add_argument("--demo", action="store_true", help="export the made-up trades of the demo")
    parser = Parser(
        prog="python -m tools.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(dest="kind", metavar="{csv,parquet,influx}", title="formats", required=True)
    csv = kinds.add_parser("csv", parents=[common], allow_abbrev=False, help="comma-separated text")
    csv.add_argument("--format", choices=("plain", "binance"), default="plain", help="which columns (default: plain)")
    kinds.add_parser("parquet", parents=[common], allow_abbrev=False, help="columns for pandas, DuckDB, Spark …")
    influx = kinds.add_parser("influx", parents=[common], allow_abbrev=False, help="InfluxDB's line protocol")
    influx.add_argument("--amounts", choices=("number", "text"), default="number", help="decimals as (default: number)")
    options = parser.parse_args(argv)
    if options.last is not None and (options.start or options.end):
        parser.error("give either --start and --end, or --last")
    if options.start and options.end and options.start >= options.end:
        parser.error(
            f"the range from {iso(options.start)} to {iso(options.end)} is empty: --start must be before --end"
        )
    if refused := _refused(options):
        parser.error(refused)
    return parser, options


def _refused(options: argparse.Namespace) -> str | None:
    """Why nothing can be written as it was asked for; None: it can."""
    ending = ending_of(options.out)
    if options.out == STDOUT and (options.partition or options.force):
        flag = "--partition" if options.partition else "--force"
        return f"{flag} does not go with - (stdout), where there are no files; leave it out, or give a name"
    if options.out == STDOUT and options.kind == "parquet" and sys.stdout.isatty():
        return "parquet is not text, and would only confuse the terminal: redirect it, or give a name"
    if ending and options.partition:
        return f"{options.out} would be a folder, which is not compressed: leave out {ending}"
    if ending and options.kind == "parquet":
        return f"{options.out}: Parquet is compressed by itself: leave out {ending}"
    return None


def _format_name(options: argparse.Namespace) -> str:
    if options.kind == "csv":
        return "binance" if options.format == "binance" else "csv"
    if options.kind == "influx" and options.amounts == "text":
        return "influx-text"
    return str(options.kind)


def _export(source: Source, options: argparse.Namespace) -> None:
    if source.fallback:
        raise Mistake(f"only database {source.settings.place} has trades, and they are made up; --demo exports them")
    spans = [_span(source, symbol, options) for symbol in wanted_symbols(source, options.symbol)]
    asked = FORMATS[_format_name(options)], options.partition, [span for span in spans if span]
    export = Export(*asked, ending_of(options.out))
    if not export.spans:
        raise Mistake("no trade is stored in that range; `python query_examples.py` shows what is")
    if export.format.one_symbol and not options.partition and len(export.spans) > 1:
        raise Mistake("rows in the exchange's format do not name their symbol: give one --symbol, or --partition")
    begun_s = time.monotonic()
    place = None
    if options.out == STDOUT:
        tally = _tally(source, options, export, None)
    else:
        with staged(options.out, options.partition, options.force) as place:
            tally = _tally(source, options, export, place)
            publish(place, _manifest(source, options, tally))
    _report(source, place, tally, time.monotonic() - begun_s)


def _tally(source: Source, options: argparse.Namespace, export: Export, place: Place | None) -> Tally:
    """What was written to the stage of `place`, or to stdout, and what is missing in it."""
    tally = _write(source, export, place)
    for symbol, start, end in _asked(export.spans, options):
        if symbol in tally.symbols:
            missing = stored_gaps.missing_in(source.connection, symbol, start, end)
            tally.symbols[symbol].ids_missing_in_range = missing
    return tally


def _asked(spans: list[Span], options: argparse.Namespace) -> list[Span]:
    """The spans as they were asked for, which may reach beyond what is stored."""
    return [span._replace(start=options.start or span.start, end=options.end or span.end) for span in spans]


def _span(source: Source, symbol: str, options: argparse.Namespace) -> Span | None:
    """The requested part of the stored trades of `symbol`; None if there is none."""
    stored = pages.ends(source.connection, symbol)
    if stored is None:
        return None
    first, beyond = stored[0], stored[1] + MILLISECOND
    start, end = max(options.start or first, first), min(options.end or beyond, beyond)
    if options.last is not None:
        start = max(start, end - options.last)
    return Span(symbol, start, end) if start < end else None


def _write(source: Source, export: Export, place: Place | None) -> Tally:
    """Writes the files, with a progress bar on a terminal. Raises Mistake if there is nothing to write."""
    total = _expected(source, export.spans) if sys.stderr.isatty() else None
    with tqdm(total=total, unit=" trades", unit_scale=True, disable=None, file=sys.stderr) as bar:
        tally = write(source.connection, export, place, bar.update)
    if not tally.files:
        raise Mistake("no trade is stored in that range; `python query_examples.py` shows what is")
    return tally


def _expected(source: Source, spans: list[Span]) -> int | None:
    """How many trades the candles count; None if they are damaged, which must not prevent an export."""
    with suppress(db.DatabaseError):
        found = [db.min_max(source.connection, *span) for span in spans]
        return sum(one.trades for one in found if one)
    return None


def _manifest(source: Source, options: argparse.Namespace, tally: Tally) -> dict[str, object]:
    return {
        "format": _format_name(options),
        "database": source.settings.mysql_database,
        "server": source.settings.server,
        "made_up": source.settings.demo,
        "created_at": iso(datetime.now(UTC)),
        "start": iso(options.start) if options.start else None,
        "end": iso(options.end) if options.end else None,
        "rows": sum(file.rows for file in tally.files),
        "amounts_inexact_as_float": tally.inexact,
        "symbols": [part.as_json() for part in tally.symbols.values()],
        "files": [file._asdict() for file in tally.files],
    }


def _report(source: Source, place: Place | None, tally: Tally, seconds: float) -> None:
    rows, size = sum(file.rows for file in tally.files), sum(file.bytes for file in tally.files)
    written = f"{rows:,} trades, {size:,} bytes"
    files = f" in {len(tally.files):,} files" if place and place.folder else ""
    lines = [f"database {source.settings.place}"]
    if place:
        lines.append(f"{place.target}: {written}{files}, {seconds:.1f} s; see {place.manifest}")
    else:
        lines.append(f"stdout: {written}, {seconds:.1f} s")
    for part in tally.symbols.values():
        if part.missing or part.ids_missing_in_range:
            ids = f"{part.first_trade_id} to {part.last_trade_id}"
            words = f"{part.symbol}: {part.missing:,} of ids {ids} are not stored"
            if part.ids_missing_in_range > part.missing:
                words += f", and up to {part.ids_missing_in_range:,} are missing in that range"
            lines.append(f"{words}; see `python backfill.py --list`")
    if tally.inexact:
        lines.append(f"{tally.inexact:,} amounts have more digits than a float can hold; --amounts text keeps them all")
    print("\n".join(lines), file=sys.stdout if place else sys.stderr)


def _stop(signal_number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # As an exception it passes the code that removes half-written files.
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
