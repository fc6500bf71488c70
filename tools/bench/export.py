"""The speed of the export: `python -m tools.export csv`, the whole process, against `mysql --batch` of the same rows.

They take turns, both writing to a file; LOAD DATA fills the table beforehand.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import config
from mysqld import program
from process.child import ROOT
from tools.bench.backfill import SYMBOL, fill, tape_of
from tools.bench.figures import Figure, at_least
from tools.bench.stage import Bench, say
from tools.lab.children import RigError

PART = "export"
EXPORT_S_MAX = 120.0
COLUMNS = "timestamp, symbol, trade_id, price, quantity, buyer_is_maker"


class Sizes(NamedTuple):
    """The rows of a run, and the number of runs that count."""

    rows: int
    runs: int


FULL, QUICK = Sizes(2_000_000, 3), Sizes(5_000, 1)


def run(bench: Bench) -> list[Figure]:
    """Rows per second of both, and their ratio, round by round."""
    sizes = QUICK if bench.quick else FULL
    client, exported = [], []
    with bench.database("bench_export") as settings:
        fill(bench, "bench_export", "trades", tape_of(sizes.rows))
        for index in range(sizes.runs + 1):
            client.append(sizes.rows / _client_s(settings))
            exported.append(sizes.rows / _export_s(settings))
            say(f"{PART}: round {index}: mysql --batch {client[-1]:,.0f}, export {exported[-1]:,.0f} rows/s")
    ratios = [ours / theirs for ours, theirs in zip(exported[1:], client[1:], strict=True)]
    return [
        Figure(PART, "mysql --batch", "rows/s", client[1:]),
        Figure(PART, "tools.export csv", "rows/s", exported[1:]),
        Figure(PART, "export / mysql --batch", "×", ratios, at_least(0.5, 1)),
    ]


def _client_s(settings: config.Settings) -> float:
    sql = f"SELECT {COLUMNS} FROM trades WHERE symbol = '{SYMBOL}' ORDER BY timestamp, trade_id"
    command = [str(program.find_client()), "--no-defaults", f"--socket={settings.mysql_unix_socket}"]
    command += [f"--user={settings.mysql_user}", "--batch", "--quick", f"--execute={sql}", settings.mysql_database]
    return _seconds(command, {}, settings.data_dir / "client.tsv")


def _export_s(settings: config.Settings) -> float:
    environ = {
        "MYSQL_UNIX_SOCKET": str(settings.mysql_unix_socket),
        "MYSQL_USER": settings.mysql_user,
        "MYSQL_DATABASE": settings.mysql_database,
        "DATA_DIR": str(settings.data_dir),
    }
    target = settings.data_dir / "export.csv"
    command = [sys.executable, "-m", "tools.export", "csv", str(target), "--symbol", SYMBOL, "--force"]
    return _seconds(command, environ, settings.data_dir / "export.log")


def _seconds(command: Sequence[str], environ: dict[str, str], output: Path) -> float:
    """How many seconds the process took. Raises RigError if it failed."""
    with output.open("wb") as file:
        begun_s = time.monotonic()
        done = subprocess.run(
            command, env=environ, cwd=ROOT, stdout=file, stderr=subprocess.PIPE, timeout=EXPORT_S_MAX, check=False
        )
        seconds = time.monotonic() - begun_s
    if done.returncode:
        raise RigError(f"{command[0]} ended with exit code {done.returncode}: {done.stderr.decode()[-500:]}")
    return seconds
