"""Measures capture, queries, export and API against a floor, a plain design, and the bounds that they must meet.

Each part runs on a private server with the settings that users get, over real sockets, with the feed in a process of
its own; docs/performance.md explains how. Exit code: 0 if everything was measured (whatever the result), 1 if a part
failed, 2 if nothing could run.
"""

if __name__ == "__main__":
    from process import start

    start.prepare()

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mysql.connector

import db
from mysqld import program
from process import command
from process.child import ROOT
from process.command import Parser
from tools.bench import (
    api,
    backfill,
    export,
    history,
    ingest,
    latency,
    live,
    memory,
    network,
    queries,
    replay,
    retention,
    symbols,
)
from tools.bench.figures import Figure, machine, table
from tools.bench.stage import Bench, BenchServer
from tools.lab.children import RigError
from tools.lab.servers import copy_sparse, find_server

PARTS: dict[str, Callable[[Bench], list[Figure]]] = {
    ingest.PART: ingest.run,
    latency.PART: latency.run,
    network.PART: network.run,
    live.PART: live.run,
    memory.PART: memory.run,
    symbols.PART: symbols.run,
    backfill.PART: backfill.run,
    history.PART: history.run,
    export.PART: export.run,
    replay.PART: replay.run,
    api.PART: api.run,
    queries.PART: queries.run,
    retention.PART: retention.run,
}
SCHEMA = ROOT / "schema.sql"
KEPT = ROOT / ".cache" / "bench"
"""Where --keep keeps a server's data with the table of the part `queries`: 2 GB."""
DISK = Path("/var/tmp")
"""Not /tmp, which is in memory on many systems, where a database has no disk to wait for."""


def measure(bench: Bench, names: Sequence[str]) -> tuple[list[Figure], dict[str, float], dict[str, str]]:
    """The figures of these parts, the seconds that each took, and the errors of those that failed."""
    figures: list[Figure] = []
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name in names:
        begun_s = time.monotonic()
        try:
            figures += PARTS[name](bench)
        except (RigError, db.DatabaseError, mysql.connector.Error, OSError) as error:
            failed[name] = str(error)
        seconds[name] = round(time.monotonic() - begun_s, 1)
    return figures, seconds, failed


@contextmanager
def started(family: str, folder: Path, quick: bool, keep: bool) -> Iterator[Bench]:
    """A server in `folder`, stopped afterwards. `keep`: use the data kept earlier, and keep them again.

    Raises ServerError.
    """
    binary = find_server(family)
    if isinstance(binary, str):
        raise program.ServerError(binary)
    schema = zlib.crc32(SCHEMA.read_bytes())
    rows = queries.sizes_of(quick).rows
    kept = KEPT / f"{binary.family}-{binary.version}-{rows}-{schema:08x}"
    template = kept if keep and kept.exists() else folder / "template"
    if not template.exists():
        program.initialise(binary, template)
    server = BenchServer(binary, template, folder)
    server.start()
    try:
        bench = Bench(server, folder, quick, keep)
        yield bench
        if keep and template != kept and bench.has_database(queries.DATABASE):
            server.stop()
            KEPT.mkdir(parents=True, exist_ok=True)
            copy_sparse(folder / "data", kept)
    finally:
        server.kill()


def main(argv: list[str] | None = None) -> int:
    """Measures, prints the table and writes the JSON; the module's docstring explains the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    for name in arguments.parts:
        if name not in PARTS:
            parser.error(f"{name!r} is not a part; the parts are {', '.join(PARTS)}")
    return command.run(parser, lambda: _main(arguments), (program.ServerError, OSError))


def _main(arguments: argparse.Namespace) -> int:
    names = [name for name in PARTS if name in (arguments.parts or PARTS)]
    begun_s = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="tb-", dir=_disk(), ignore_cleanup_errors=True) as folder,
        started(arguments.family, Path(folder), arguments.quick, arguments.keep) as bench,
    ):
        around = machine(Path(folder))
        figures, seconds, failed = measure(bench, names)
        server = f"{program.FAMILIES[bench.server.family]} {bench.server.version}"
    document = {
        "server": server,
        "family": arguments.family,
        "quick": arguments.quick,
        "machine": around,
        "seconds": seconds | {"all": round(time.monotonic() - begun_s, 1)},
        "figures": [figure.as_json() for figure in figures],
        "failed": failed,
    }
    return _report(document, figures, arguments.json)


def _report(document: dict[str, Any], figures: list[Figure], path: Path | None) -> int:
    print(headline(document))
    print(table(figures))
    missed = sum(figure.verdict == "MISSED" for figure in figures)
    print(f"{missed} of {sum(figure.bound is not None for figure in figures)} bounds missed")
    if document["quick"]:
        print("with --quick the sizes are too small for the figures to mean anything")
    for name, words in document["failed"].items():
        print(f"tools.bench: {name} failed: {words}", file=sys.stderr)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return 1 if document["failed"] else 0


def headline(document: dict[str, Any]) -> str:
    """Two lines: the server and packages measured, and the machine."""
    around = document["machine"]
    extension = "C extension" if around["c_extension"] else "NO C extension"
    packages = ", ".join(f"{name} {version}" for name, version in around["packages"].items())
    return "\n".join(
        (
            f"{document['server']} on {around['file_system'] or 'an unknown file system'},"
            f" Python {around['python']}, {packages} ({extension})",
            f"{around['cpu'] or 'unknown CPU'}, {around['cores']} cores, {around['memory_mb'] / 1024:.0f} GB,"
            f" {around['system']}; load before {around['load_before']:.2f}; took {document['seconds']['all']:.0f} s",
        )
    )


def _disk() -> Path | None:
    return DISK if os.access(DISK, os.W_OK) else None


def _parser() -> Parser:
    parser = Parser(prog="python -m tools.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--family", choices=("mariadb", "mysql"), default="mariadb", help="(default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures and the machine to FILE")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to check that it works")
    parser.add_argument(
        "--keep", action="store_true", help="keep the 20 million rows of `queries` in .cache/bench for the next run"
    )
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
