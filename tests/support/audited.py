"""A database with days of the stand-in exchange's archive, and audit.py as users run it."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import config
import db
from binance.archive import Archive
from history.importer import import_day
from process.child import ROOT
from storage import sealing
from tests.support.servers import Server
from tests.support.stand_in import StandIn
from tests.support.tables import ask

BTC, COIN = "BTCUSDT", "币安人生"
DAY_TRADES = 400
FLAGS = ("--days", "5", "--day-trades", str(DAY_TRADES), "--symbols", f"{BTC},{COIN}", "--wait-clients", "1")
MORE = ("--rest-lag", "0", "--weight-limit", "1000000")
SCRIPT_S_MAX = 60


class Outcome(NamedTuple):
    """What audit.py returned and wrote."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines below the first, which names the database."""
        return self.out.splitlines()[1:]

    @property
    def rows(self) -> list[Any]:
        """What it wrote as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


class Audited:
    """A database of its own, or the one of that name, on `server`, and the exchange at `url`."""

    def __init__(self, server: Server, url: str, folder: Path, name: str = "") -> None:
        self.name = name or f"test_{uuid.uuid4().hex[:12]}"
        self.folder, self._url = folder, url
        self.settings: config.Settings = server.settings(self.name, folder)
        self.environ = server.environ | {"MYSQL_DATABASE": self.name, "DATA_DIR": str(folder), "SYMBOLS": BTC}

    def load(self, *days: date, symbol: str = BTC) -> None:
        """Brings in days from the archive, and seals them."""
        with closing(db.connect(self.settings)) as connection, closing(Archive(self._url, self.folder)) as archive:
            for day in days:
                with archive.day(symbol, day) as archived:
                    import_day(connection, archived, self.folder, lambda _: None)
            db.seal_history(connection, symbol)

    def reseal(self) -> None:
        """Makes all bars again, as one does who has written with SQL."""
        with closing(db.connect(self.settings)) as connection:
            for symbol in db.symbols(connection):
                sealing.reseal(connection, symbol)

    def sql(self, statement: str, *values: object) -> list[Any]:
        """What somebody asks, or does to the tables behind our back."""
        with closing(db.connect(self.settings)) as connection:
            return ask(connection, statement, *values)

    def run(self, *argv: str, **environ: str) -> Outcome:
        """audit.py from the terminal."""
        urls = {"BINANCE_REST_URL": self._url, "BINANCE_ARCHIVE_URL": self._url}
        done = subprocess.run(
            [sys.executable, str(ROOT / "audit.py"), *argv],
            env=os.environ | self.environ | urls | environ,
            capture_output=True,
            text=True,
            timeout=SCRIPT_S_MAX,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def verdicts(self, *argv: str, **environ: str) -> tuple[int, list[tuple[str, str]]]:
        """The exit code, and verdict and reason of each day."""
        done = self.run("--json", *argv, **environ)
        assert not done.err, done.err
        return done.code, [(row["verdict"], row["reason"]) for row in done.rows]


@contextmanager
def audited(server: Server, exchange: StandIn, folder: Path) -> Iterator[Audited]:
    """A database that is dropped afterwards."""
    case = Audited(server, exchange.http, folder)
    yield case
    with server.connect() as connection:
        ask(connection, f"DROP DATABASE IF EXISTS {case.name}")


def days_ago(number: int) -> date:
    """A UTC day before today."""
    return datetime.now(UTC).date() - timedelta(days=number)
