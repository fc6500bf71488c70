"""History: days of the archive brought in and audited, against LOAD DATA of the same rows.

The stand-in exchange makes the files before anything is measured. The import is `python backfill.py --since DAY`, from
its start to its end: downloaded, verified, stored, sealed. The audit is `python audit.py --day DAY` of the same
day, beside the archive. LOAD DATA LOCAL reads a finished file, without candles or gaps, as in the part `backfill`.
"""

import io
import os
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from process.child import ROOT
from tools.bench.figures import Figure, at_least, at_most
from tools.bench.stage import Bench, say, sql_time
from tools.lab.children import RigError
from tools.lab.verdict import DIRECT

PART = "history"
SYMBOL = "BTCUSDT"
LOAD_TABLE = "loaded_trades"
READY_S_MAX = 600.0
"""For the exchange to make a file of five million trades."""


class Sizes(NamedTuple):
    """The trades of a day in the rounds of which the median counts, their number, and those of the one large day."""

    trades: int
    rounds: int
    large: int


FULL, QUICK = Sizes(1_000_000, 3, 5_000_000), Sizes(20_000, 1, 50_000)


class Done(NamedTuple):
    """A child that has ended: its seconds, the most memory that it had, in MB, and what it printed."""

    seconds: float
    memory_mb: float
    output: str


def run(bench: Bench) -> list[Figure]:
    """The rates, their ratio, and the seconds and memory of a large day."""
    sizes = QUICK if bench.quick else FULL
    ratios: list[float] = []
    loads: list[float] = []
    with _exchange(sizes.trades) as address:
        file = _file(address, bench.folder)
        for number in range(sizes.rounds + 1):
            loaded = _load(bench, file)
            with bench.database("bench_history"):
                done = _import(_environ(bench, "bench_history", address))
            say(f"{PART}: round {number}: LOAD DATA {loaded:.1f} s, import {done.seconds:.1f} s")
            if number:
                loads.append(sizes.trades / loaded)
                ratios.append(loaded / done.seconds)
    say(f"{PART}: a day of {sizes.large:,} trades")
    with _exchange(sizes.large) as address:
        _file(address, bench.folder)
        imported, audited, found = _large(bench, address)
    return [
        Figure(PART, "LOAD DATA LOCAL", "rows/s", loads),
        Figure(PART, "import / LOAD DATA", "×", ratios, at_least(0.4, 0.7)),
        Figure(PART, "a large day imported", "s", [imported.seconds], at_most(60, 25)),
        Figure(PART, "a large day audited", "s", [audited.seconds], at_most(20, 10)),
        Figure(PART, "memory of the import", "MB", [imported.memory_mb], at_most(150, 100)),
        Figure(PART, "memory of the audit", "MB", [audited.memory_mb], at_most(150, 100)),
        Figure(PART, "one altered row is named", "times", [float(found)], at_least(1, 1)),
    ]


def _large(bench: Bench, address: str) -> tuple[Done, Done, bool]:
    """The import and the audit of a large day, and whether the audit names a row that is altered afterwards."""
    name = "bench_history_large"
    with bench.database(name):
        environ = _environ(bench, name, address)
        imported = _import(environ)
        audited = _child(["audit.py", "--day", str(_day()), "--json"], environ, 0)
        altered = _alter(bench, name)
        wrong = _child(["audit.py", "--day", str(_day())], environ, 1)
    return imported, audited, f"trade {altered} differs in price" in wrong.output


def _alter(bench: Bench, name: str) -> int:
    """The id of a trade in the middle of the day, whose price is another one now."""
    connection = bench.server.connect_to(name)
    middle = f"{_day()} 13:00:00"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT trade_id, timestamp FROM trades WHERE symbol = %s AND timestamp >= %s LIMIT 1", (SYMBOL, middle)
        )
        ((trade_id, when),) = cursor.fetchall()
        cursor.execute(
            "UPDATE trades SET price = price + 0.01 WHERE symbol = %s AND timestamp = %s AND trade_id = %s",
            (SYMBOL, when, trade_id),
        )
    connection.close()
    return int(trade_id)


def _day() -> date:
    return datetime.now(UTC).date() - timedelta(days=1)


@contextmanager
def _exchange(trades: int) -> Iterator[str]:
    """The address of a stand-in exchange with a day of so many trades."""
    words = ["-m", "tools.exchange", "--port", "0", "--symbols", SYMBOL, "--days", "1", "--day-trades", str(trades)]
    process = subprocess.Popen(
        [sys.executable, *words, "--rate", "1", "--until-stdin-closes"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().split()
        if len(said) != 3:
            raise RigError("the stand-in exchange did not start")
        yield said[2]
    finally:
        process.kill()
        process.wait()


def _file(address: str, folder: Path) -> Path:
    """The file of the day, which the exchange has made then."""
    url = f"{address}/data/spot/daily/trades/{SYMBOL}/{SYMBOL}-trades-{_day()}.zip"
    path = folder / "day.zip"
    with DIRECT.open(urllib.request.Request(url), timeout=READY_S_MAX) as answer:
        path.write_bytes(answer.read())
    return path


def _load(bench: Bench, file: Path) -> float:
    """The seconds that LOAD DATA takes for the rows of `file`."""
    rows = bench.folder / "rows.tsv"
    with zipfile.ZipFile(file) as archive, archive.open(archive.namelist()[0]) as lines, rows.open("w") as out:
        for line in io.TextIOWrapper(lines):
            trade_id, price, quantity, _, when, maker, _ = line.split(",")
            at = sql_time(int(when[:13]))
            out.write(f"{SYMBOL}\t{at}\t{trade_id}\t{price}\t{quantity}\t{maker == 'True':d}\t\\N\n")
    with bench.database("bench_loaded"):
        connection = bench.server.connect_to("bench_loaded")
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {LOAD_TABLE} LIKE trades")
            begun_s = time.monotonic()
            cursor.execute(f"LOAD DATA LOCAL INFILE '{rows}' INTO TABLE {LOAD_TABLE}")
            seconds = time.monotonic() - begun_s
        connection.close()
    rows.unlink()
    return seconds


def _environ(bench: Bench, name: str, address: str) -> dict[str, str]:
    settings = bench.settings(name)
    return {
        **os.environ,
        "MYSQL_HOST": "",
        "MYSQL_UNIX_SOCKET": str(settings.mysql_unix_socket),
        "MYSQL_USER": settings.mysql_user,
        "MYSQL_PASSWORD": settings.mysql_password,
        "MYSQL_DATABASE": name,
        "DATA_DIR": str(settings.data_dir),
        "BINANCE_REST_URL": address,
        "BINANCE_ARCHIVE_URL": address,
    }


def _import(environ: Mapping[str, str]) -> Done:
    flags = ["--since", str(_day()), "--until", str(_day()), "--symbol", SYMBOL]
    return _child(["backfill.py", *flags], environ, 0)


def _child(arguments: Sequence[str], environ: Mapping[str, str], code: int) -> Done:
    """What became of `python ARGUMENTS`. Raises RigError if its exit code is another one."""
    begun_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    output = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begun_s
    if process.returncode != code:
        raise RigError(f"{arguments[0]} ended with {process.returncode}, not {code}: {output[-500:]}")
    return Done(seconds, used.ru_maxrss / 1024, output)
