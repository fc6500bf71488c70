"""What the tests of all clusters share."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

import config
import db
from process.child import ROOT
from tests.makers import stream
from tests.support.harness import Rig
from tests.support.tables import check
from tools.lab.clusters import ask
from tools.lab.servers import PrivateServer, Server
from tools.lab.verdict import compare, fetch_truth

_UP_TO_DATE = {
    "mariadb": "SET SESSION wsrep_sync_wait = 1",
    "mysql": "SET SESSION group_replication_consistency = 'BEFORE'",
}
"""Lets a node first apply what others have committed."""


def settings_of(server: Server, database: str, folder: Path) -> config.Settings:
    """The settings for `database` on a server, or on one node of a cluster, by TCP."""
    return config.load(server.environ | {"MYSQL_DATABASE": database, "DATA_DIR": str(folder)})


def assert_nodes_agree(rig: Rig, nodes: Sequence[PrivateServer]) -> None:
    """Each node has the same tables, which are what was traded; nobody writes any more."""
    found = []
    for node in nodes:
        with node.connect() as connection:
            ask(connection, _UP_TO_DATE[node.family])
            compared = [
                compare(connection, rig.database, symbol, fetch_truth(rig.exchange.http, symbol))
                for symbol in rig.symbols
            ]
            assert all(one.consistent for one in compared), "\n".join(map(str, compared))
            tables = ("trades", "candles", "gaps", "symbols")
            found.append(
                [ask(connection, f"SELECT * FROM {rig.database}.{table} ORDER BY 1, 2, 3") for table in tables]
            )
            connection.rollback()
    assert all(one == found[0] for one in found)


def report(environ: Mapping[str, str], *arguments: str) -> str:
    """What query_examples.py prints, as a user runs it."""
    line = [sys.executable, "query_examples.py", *arguments]
    done = subprocess.run(line, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measure(name: str, settings: config.Settings) -> None:
    """Prints what storing costs in an empty database, through one connection by TCP, and checks what was stored."""
    rates, singles_ms, first = [], [], 1
    with closing(db.connect(settings)) as connection:
        for count in (BATCH_TRADES,) * BATCHES + (1,) * SINGLES:
            trades = stream(first, count)
            first += count
            began = time.monotonic()
            assert db.insert_trades(connection, trades) == count
            took_s = time.monotonic() - began
            if count == 1:
                singles_ms.append(took_s * 1_000)
            else:
                rates.append(count / took_s)
        check(connection)
    print(
        f"\n{name}: {median(rates):,.0f} trades/s in transactions of {BATCH_TRADES:,}, one trade in"
        f" {median(singles_ms):.2f} ms (medians of {BATCHES} and {SINGLES})"
    )


BATCH_TRADES, BATCHES, SINGLES = 4_000, 11, 301
