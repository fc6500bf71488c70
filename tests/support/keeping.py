"""A database with old days, `tools.retain` and `tools.restore` as users run them, and what must be true afterwards."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import config
import db
from model.candles import Candle
from model.gaps import NOT_SERVED, Gap, Span
from model.times import midnight
from model.trade import Trade
from process.child import ROOT
from storage import day_files, gaps, retention
from storage.retained import RESTORED
from tests.makers import BTC
from tests.support.servers import Server
from tests.support.tables import ask, sealed, stored

COIN = "币安人生"
DAY = timedelta(days=1)
DAYS, DAY_TRADES = 5, 40
"""So many days before today and today have so many trades each."""
SCRIPT_S_MAX = 60
QUICK: dict[str, Any] = {
    "storage.retained.KNOWN_S_MAX": 0.02,
    "storage.retention.PIECE_ROWS": 15,
    "tools.load.BATCH_ROWS": 15,
}


class Outcome(NamedTuple):
    """What a command returned and wrote."""

    code: int
    out: str
    err: str


class State(NamedTuple):
    """What is stored of a symbol, wherever it is; its bars, its open gaps and its span."""

    trades: list[Trade]
    bars: list[Candle]
    gaps: list[Gap]
    span: Span | None


def today() -> date:
    """The UTC day."""
    return datetime.now(UTC).date()


def days_ago(number: int) -> date:
    """A UTC day before today."""
    return today() - number * DAY


def trades_of(day: date, symbol: str = BTC, count: int = DAY_TRADES) -> list[Trade]:
    """The trades of a day, ids by the day, over all of it; some share a millisecond, some were back-filled."""
    first = 1 + DAY_TRADES * (day - days_ago(DAYS)).days
    begin, step = midnight(day), timedelta(minutes=34)
    return [
        Trade(
            symbol,
            begin + (n // 2) * 2 * step + timedelta(milliseconds=7),
            first + n,
            Decimal("0.00000001") * (1 + n),
            Decimal(n % 7) + Decimal("1.5"),
            n % 3 == 0,
            None if n % 5 else begin + n * step + timedelta(microseconds=123_457),
        )
        for n in range(count)
    ]


class Keeping:
    """A database of its own on `server`, with DATA_DIR in `folder`."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.name = f"test_{uuid.uuid4().hex[:12]}"
        self.server, self.folder = server, folder
        self.settings: config.Settings = server.settings(self.name, folder)
        self.environ = server.environ | {"MYSQL_DATABASE": self.name, "DATA_DIR": str(folder), "SYMBOLS": BTC}

    def fill(self, symbol: str = BTC, without: Sequence[int] = (), given_up: bool = True) -> None:
        """Stores all days and today, sealed, without some ids."""
        days = [one for number in range(DAYS, -1, -1) for one in trades_of(days_ago(number), symbol)]
        with closing(db.connect(self.settings)) as connection:
            db.insert_trades(connection, [one for one in days if one.trade_id not in without])
            for number in without if given_up else ():
                db.give_up(connection, symbol, number, number, NOT_SERVED)
            db.seal_history(connection, symbol)

    def sql(self, statement: str, *values: object) -> list[Any]:
        """What somebody asks, or does to the tables behind our back."""
        with closing(db.connect(self.settings)) as connection:
            return ask(connection, statement, *values)

    def retain(self, *argv: str, die_at: str = "", **environ: str) -> Outcome:
        """tools.retain, by default keeping two days, with quick bounds."""
        return self._run([*(argv or ("--keep", "2d"))], die_at, environ)

    def restore(self, *argv: str, die_at: str = "", **environ: str) -> Outcome:
        """tools.restore, the same way."""
        return self._run(["--restore", *argv], die_at, environ)

    def load(self, folder: Path, die_at: str = "") -> Outcome:
        """tools.load, the same way."""
        return self._run(["--load", str(folder)], die_at, {})

    def _run(self, argv: Sequence[str], die_at: str, environ: dict[str, str]) -> Outcome:
        around = {"PATCHES": json.dumps(QUICK), "DIE_AT": die_at, **environ}
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.patched_retain", *argv],
            cwd=ROOT,
            env=os.environ | self.environ | around,
            capture_output=True,
            text=True,
            timeout=SCRIPT_S_MAX,
        )
        assert done.returncode == -signal.SIGKILL if die_at else done.returncode >= 0, done
        return Outcome(done.returncode, done.stdout, done.stderr)

    def state(self, symbol: str = BTC) -> State:
        """What is true of a symbol: each trade is in its file if its day is, and otherwise in the table."""
        with closing(db.connect(self.settings)) as connection:
            found: list[Trade] = []
            days = {one.day: one for one in retention.recorded_days(connection, symbol) if one.state != RESTORED}
            for one in days.values():
                path = self.settings.retained_dir / one.path
                assert day_files.hash_of(path) == one.file_sha256
                found += day_files.trades(path, symbol, one.start, one.end)
            rows = stored(connection, symbol)
            # Rows of a day that is in its file are on their way, and none but those of the file.
            assert set(found).issuperset(row for row in rows if row.timestamp.date() in days)
            found += [row for row in rows if row.timestamp.date() not in days]
            found.sort(key=lambda trade: (trade.timestamp, trade.trade_id))
            bars, open_gaps = sealed(connection, symbol), db.open_gaps(connection, symbol)
            return State(found, bars, open_gaps, gaps.read_span(connection, symbol))

    def days(self, symbol: str = BTC) -> dict[int, str]:
        """The states of the days that were moved, by how many days ago they are."""
        rows = self.sql("SELECT day, state FROM retained WHERE symbol = %s ORDER BY day", symbol)
        return {(today() - day).days: state for day, state in rows}

    def in_table(self, symbol: str = BTC) -> dict[int, int]:
        """How many rows of each day the table has, by how many days ago it is."""
        sql = "SELECT DATE(timestamp), COUNT(*) FROM trades WHERE symbol = %s GROUP BY DATE(timestamp) ORDER BY 1"
        return {(today() - day).days: count for day, count in self.sql(sql, symbol)}

    def files(self) -> list[str]:
        """The files of days, and what else is in their folders."""
        folder = self.settings.retained_dir
        paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
        return sorted(str(path.relative_to(folder)) for path in paths)


@contextmanager
def keeping(server: Server, folder: Path) -> Iterator[Keeping]:
    """A database that is dropped afterwards."""
    case = Keeping(server, folder)
    yield case
    with server.connect() as connection:
        ask(connection, f"DROP DATABASE IF EXISTS {case.name}")
