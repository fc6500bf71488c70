"""backfill.py from the terminal, and what reads the tables after history has come: audit, export and copy."""

import csv
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

import db
from history import place
from process.child import ROOT
from tests.makers import trade
from tests.support.audited import BTC, COIN, SCRIPT_S_MAX, Audited, Outcome, audited, days_ago
from tests.support.days import not_published
from tests.support.past import stored_trades, true_days
from tests.support.postgres import MISSING, Postgres, find_programs
from tests.support.servers import Server, short_folder
from tests.support.stand_in import StandIn
from tests.support.tables import due, runs, sealed

pytestmark = pytest.mark.slow

DAY_TRADES = 300
FLAGS = ("--days", "4", "--day-trades", str(DAY_TRADES), "--symbols", f"{BTC},{COIN}", "--wait-clients", "1")
MORE = ("--rest-lag", "0", "--weight-limit", "1000000")
ALWAYS = {"seconds": 3_600.0}
AWAY = "http://127.0.0.1:9"
"""Nobody listens there."""
SINCE = ("--since", "2025-01-02")
"""For what is refused."""


@pytest.fixture(scope="module")
def market_of_days() -> Iterator[StandIn]:
    """An exchange with four days of history; its tape waits for ever."""
    with StandIn(*FLAGS, *MORE) as running:
        yield running


@pytest.fixture
def exchange(market_of_days: StandIn) -> Iterator[StandIn]:
    """That exchange without faults of other tests."""
    yield market_of_days
    market_of_days.clear()


@pytest.fixture
def case(any_server: Server, exchange: StandIn, tmp_path: Path) -> Iterator[Audited]:
    """A database that does not exist yet."""
    with audited(any_server, exchange, tmp_path) as made:
        yield made


@pytest.fixture
def each(server: Server, exchange: StandIn, tmp_path: Path) -> Iterator[Audited]:
    """The same on each family."""
    with audited(server, exchange, tmp_path) as made:
        yield made


def start(case: Audited, exchange: StandIn, *argv: str, **environ: str) -> "subprocess.Popen[str]":
    """A script from the terminal, by default backfill.py; `argv` are its flags."""
    words = list(argv) if argv[:1] == ("-m",) else ["backfill.py", *argv]
    urls = {"BINANCE_REST_URL": exchange.http, "BINANCE_ARCHIVE_URL": exchange.http}
    pipe = subprocess.PIPE
    all_of = os.environ | case.environ | urls | environ
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, env=all_of, stdout=pipe, stderr=pipe, text=True)


def run(case: Audited, exchange: StandIn, *argv: str, **environ: str) -> Outcome:
    """What it returned and wrote."""
    with start(case, exchange, *argv, **environ) as process:
        out, err = process.communicate(timeout=SCRIPT_S_MAX)
    return Outcome(process.returncode, out, err)


def place_of(case: Audited) -> str:
    """The database as a script that was told its address finds it."""
    address = {name: case.environ[name] for name in case.environ if name.startswith("MYSQL_") and case.environ[name]}
    host, port = address.get("MYSQL_HOST"), int(address.get("MYSQL_PORT", "3306"))
    socket = address.get("MYSQL_UNIX_SOCKET")
    return case.settings._replace(mysql_host=host, mysql_port=port, mysql_unix_socket=socket).place


def came(symbol: str, *days: int, new: int = DAY_TRADES) -> list[str]:
    """The lines about days that came from the archive."""
    return [f"{symbol} {days_ago(day)}: {DAY_TRADES} trades in the archive, {new} of them new" for day in days]


def assert_exact(case: Audited, exchange: StandIn, *days: int, symbol: str = BTC) -> None:
    """The table is all trades of these days and no others, nothing is missing, and the bars are theirs."""
    with closing(db.connect(case.settings)) as connection:
        assert stored_trades(connection, symbol) == true_days(exchange, symbol, *map(days_ago, days))
        assert runs(connection, symbol) == []
        assert sealed(connection, symbol) == due(connection, symbol) != []


def leave_gap(case: Audited, exchange: StandIn, day: date) -> tuple[int, int]:
    """Stores a day but for ids that REST does not serve, which are returned."""
    trades = true_days(exchange, BTC, day)
    with closing(db.connect(case.settings)) as connection:
        db.insert_trades(connection, trades[:1])
        db.insert_trades(connection, trades[-1:])
        (gap,) = runs(connection)
    exchange.fault("rest_hole", symbol=BTC, first=gap[0], last=gap[1])
    return gap


# ---- --since.


def test_days_before_those_that_are_stored(case: Audited, exchange: StandIn) -> None:
    """--until: no trade of a later day comes; of several symbols, one of which is not ASCII, each is joined."""
    both = f"{BTC},{COIN.lower()}"
    done = run(case, exchange, "--since", str(days_ago(3)), "--until", str(days_ago(2)), "--symbol", both)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:-1] == came(BTC, 2, 3) + came(COIN, 2, 3)
    for symbol in (BTC, COIN):
        assert_exact(case, exchange, 3, 2, symbol=symbol)
    done = run(case, exchange, "--since", str(days_ago(4)), "--symbol", COIN)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:-1] == came(COIN, 1) + came(COIN, 2, 3, new=0) + came(COIN, 4)
    assert_exact(case, exchange, 4, 3, 2, 1, 0, symbol=COIN)
    assert_exact(case, exchange, 3, 2)


def test_the_audit_agrees(case: Audited, exchange: StandIn) -> None:
    """What was brought in is equal to the archive."""
    assert run(case, exchange, "--since", str(days_ago(2)), "--until", str(days_ago(1))).code == 0
    assert case.verdicts() == (0, [("equal", ""), ("equal", "")])


def test_ids_that_nobody_serves_are_listed(case: Audited, exchange: StandIn) -> None:
    """Exit code 1, and exactly which."""
    ids = [trade.trade_id for trade in true_days(exchange, BTC, days_ago(1))]
    not_published(exchange, days_ago(1))
    exchange.fault("rest_hole", symbol=BTC, first=ids[10], last=ids[12])
    done = run(case, exchange, "--since", str(days_ago(2)))
    assert done.code == 1
    assert [line.split()[:4] for line in done.out.splitlines()[-2:-1]] == [[BTC, str(ids[10]), str(ids[12]), "3"]]
    assert done.out.splitlines()[-1] == f"database {place_of(case)}: 3 ids are missing in 1 gaps"


# ---- Gaps.


@pytest.mark.parametrize("flags", [(), ("--from-archive",)])
def test_a_gap_that_rest_does_not_serve(case: Audited, exchange: StandIn, flags: tuple[str, ...]) -> None:
    """Is filled from the archive, if its day is over."""
    leave_gap(case, exchange, days_ago(1))
    done = run(case, exchange, *flags)
    assert came(BTC, 1, new=DAY_TRADES - 2)[0] in done.out.splitlines()
    assert done.out.splitlines()[-1] == f"database {place_of(case)}: no id is missing"
    assert (done.code, done.err) == (0, "")
    assert_exact(case, exchange, 1)


def test_from_the_archive_alone(case: Audited, exchange: StandIn) -> None:
    """REST is not asked for a gap, and one of today stays."""
    # Soon after midnight the exchange has no gap of today to offer.
    now = datetime.now(UTC)
    with closing(db.connect(case.settings)) as connection:
        db.insert_trades(connection, [trade(1, now), trade(5, now)])
        gaps = runs(connection)
    done = run(case, exchange, "--from-archive")
    assert (done.code, done.err) == (1, "")
    with closing(db.connect(case.settings)) as connection:
        assert runs(connection) == gaps != []


# ---- Mistakes.

MISTAKES: dict[str, tuple[str, ...]] = {
    "--symbol=''": (*SINCE, "--symbol", ""),
    "--list": (*SINCE, "--list"),
    "--from-archive": (*SINCE, "--from-archive"),
    "--demo: the stand-in exchange does not run": (*SINCE, "--demo"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line(case: Audited, exchange: StandIn, words: str) -> None:
    """With exit code 2, and nothing is created; what cannot be done together is not done in part."""
    unset = {"BINANCE_REST_URL": ""} if "--demo" in words else {}
    done = run(case, exchange, *MISTAKES[words], **unset)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert words in done.err
    assert not (case.folder / place.FOLDER).exists()


def test_a_day_before_the_exchange_was_there(case: Audited, exchange: StandIn) -> None:
    """Of which there are hundreds of thousands: no file of them is asked for, also where no klines say so."""
    exchange.fault("rest_status", status=503, path="klines", **ALWAYS)
    done = run(case, exchange, "--since", "0001-01-01", "--until", "2017-07-16")
    days = [f"2017-07-{number:02}" for number in range(16, 12, -1)]
    assert [line.split(": ")[0] for line in done.out.splitlines()[:-1]] == [f"{BTC} {day}" for day in days]
    assert done.out.splitlines()[-1].endswith("no id is missing")


# ---- What reads the tables.


def test_an_export_has_all_of_it(case: Audited, exchange: StandIn, tmp_path: Path) -> None:
    """Each trade of the days once, in its order."""
    assert run(case, exchange, "--since", str(days_ago(2)), "--until", str(days_ago(1))).code == 0
    out = tmp_path / "all.csv"
    done = run(case, exchange, "-m", "tools.export", "csv", str(out))
    assert done.code == 0, done.err
    with out.open() as file:
        found = [int(row["trade_id"]) for row in csv.DictReader(file)]
    assert found == [trade.trade_id for trade in true_days(exchange, BTC, days_ago(2), days_ago(1))]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of an empty database of PostgreSQL."""
    programs = find_programs()
    if programs is None:
        pytest.skip(MISSING)
    with short_folder() as folder:
        server = Postgres(programs, folder)
        server.start()
        name = f"copy_{uuid.uuid4().hex[:12]}"
        with server.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        yield server.url(name)
        server.stop()


def test_a_copy_gets_days_that_came_afterwards(case: Audited, exchange: StandIn, postgres: str) -> None:
    """They are older than what it has copied already."""
    copied = "-m", "tools.mirror", "--once", "--to", postgres
    assert run(case, exchange, "--since", str(days_ago(1))).code == 0
    assert run(case, exchange, *copied).code == 0
    assert run(case, exchange, "--since", str(days_ago(3))).code == 0
    done = run(case, exchange, *copied)
    assert done.code == 0, done.err
    with psycopg.connect(postgres) as connection:
        rows: list[Any] = connection.execute(
            "SELECT trade_id, price, quantity FROM prices ORDER BY trade_id"
        ).fetchall()
    assert rows == [
        (one.trade_id, one.price, one.quantity) for one in true_days(exchange, BTC, *map(days_ago, range(4)))
    ]
