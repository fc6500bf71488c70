"""Backups by the commands of the documents, taken while trades are stored: elsewhere all is the same, and goes on."""

import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet

import config
import db
from model.times import midnight
from process.child import ROOT
from storage import accounts
from storage.accounts import READER, RIGHTS, Account
from tests.makers import trade
from tests.support.audited import BTC, COIN, DAY_TRADES, FLAGS, MORE, Audited, audited, days_ago
from tests.support.keeping import DAY_TRADES as KEPT_TRADES
from tests.support.keeping import keeping
from tests.support.servers import MYSQL_CACHE, Server
from tests.support.stand_in import StandIn
from tests.support.tables import ask, check, due, runs, sealed, stored
from tools import load
from tools.export import __main__ as export

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

BUSY = "ETHUSDT"
S_MAX = 60.0
DUMPS = {
    "mariadb": ROOT / ".cache" / "mariadb-client" / "usr" / "bin" / "mariadb-dump",
    "mysql": MYSQL_CACHE / "mysqldump",
}
TABLES = ("trades", "candles", "gaps", "symbols", "proofs", "archive_files", "prices")


@pytest.fixture(scope="module")
def exchange() -> Iterator[StandIn]:
    """An exchange with five days of history, whose tape waits for a capture."""
    with StandIn(*FLAGS, *MORE, "--rate", "200") as running:
        yield running


@pytest.fixture(scope="module")
def elsewhere(server: Server, _farm: Any) -> Iterator[Server]:
    """Another server of the same family."""
    if server.family not in DUMPS:
        pytest.skip("the server that MYSQL_* names is not ours to copy")
    if not DUMPS[server.family].exists():
        pytest.skip(f"no {DUMPS[server.family].name}; `make test` fetches it on Debian")
    with ExitStack() as stack:
        yield _farm.create(server.family, stack)


@pytest.fixture
def here(server: Server, exchange: StandIn, tmp_path: Path) -> Iterator[Audited]:
    """A database with three audited days, one of them of a symbol that is not ASCII, and their candles."""
    with audited(server, exchange, tmp_path) as case:
        case.load(days_ago(3), days_ago(2))
        case.load(days_ago(2), symbol=COIN)
        assert case.run().code == 0
        yield case


@contextmanager
def busy(case: Audited) -> Iterator[threading.Event]:
    """Stores a trade or a few all the time, and sometimes leaves one out; the event is set after some of them."""
    begun, over = threading.Event(), threading.Event()

    def store() -> None:
        start = midnight(days_ago(1))
        with closing(db.connect(case.settings)) as connection:
            for n in count(1):
                some = [
                    trade(6 * n + k, start + (6 * n + k) * timedelta(milliseconds=1), symbol=BUSY) for k in range(5)
                ]
                db.insert_trades(connection, some)
                if n == 20:
                    begun.set()
                if over.is_set():
                    return

    thread = threading.Thread(target=store)
    thread.start()
    try:
        yield begun
    finally:
        over.set()
        thread.join()


def commands(family: str, name: str) -> tuple[str, str]:
    """Those of deploy/README.md that dump and that restore, with this database, and all files in the working folder."""
    text = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\bbinance\b(?![.-])", name, text.replace("/etc/binance-recorder/", "./"))
    (dump,) = re.findall(rf"```sh\n({DUMPS[family].name} .*?)```", text, re.DOTALL)
    (restore,) = re.findall(r"```sh\n(mariadb --defaults-file.*?)```", text, re.DOTALL)
    return dump, restore.replace("mariadb ", "mysql ") if family == "mysql" else restore


def run(script: str, folder: Path, family: str) -> None:
    """Types the commands into a shell that stops at the first error."""
    path = f"{DUMPS[family].parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=S_MAX,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def client(path: Path, server: Server, user: str, password: str) -> None:
    """The file that says where and who."""
    path.write_text(f"[client]\nsocket = {server.socket_path}\nuser = {user}\npassword = {password}\n")


def table(connection: db.Connection, name: str, symbol: str) -> list[Any]:
    """All rows of a symbol, in an order of their own."""
    return sorted(ask(connection, f"SELECT * FROM {name} WHERE symbol = %s", symbol), key=repr)


def test_a_dump_elsewhere_is_the_same_and_goes_on(
    here: Audited, server: Server, elsewhere: Server, exchange: StandIn, tmp_path: Path
) -> None:
    """Dumped by the account that may only read, while trades and gaps are stored: one moment of the database. Its days
    are equal to the archive there, its proofs are whole, and a capture continues."""
    reader = Account(f"{here.name.removeprefix('test_')}_reader", "localhost", "secret")
    with closing(db.connect(here.settings)) as administrator:
        accounts.set_up(administrator, reader, here.name, RIGHTS[READER])
    client(tmp_path / "backup.cnf", server, reader.name, reader.password)
    client(tmp_path / "restore.cnf", elsewhere, elsewhere.user, elsewhere.password)
    dump, restore = commands(server.family, here.name)
    with busy(here) as begun:
        assert begun.wait(S_MAX)
        run(dump, tmp_path, server.family)
    run(restore, tmp_path, server.family)
    here.sql(f"DROP USER '{reader.name}'@'localhost'")
    (tmp_path / "there").mkdir()
    shutil.copy(here.folder / "proofs.jsonl", tmp_path / "there")
    there = Audited(elsewhere, exchange.http, tmp_path / "there", here.name)

    with closing(db.connect(here.settings)) as before, closing(db.connect(there.settings, create=False)) as after:
        for symbol in (BTC, COIN):
            assert [table(after, one, symbol) for one in TABLES] == [table(before, one, symbol) for one in TABLES]
            assert sealed(after, symbol) == due(after, symbol) != []
        assert ask(after, "SELECT * FROM schema_version") == ask(before, "SELECT * FROM schema_version")
        # Of what was stored meanwhile: everything up to a moment, with the gaps of that moment.
        kept = stored(after, BUSY)
        assert kept == stored(before, BUSY)[: len(kept)]
        assert runs(after, BUSY) == runs(before, BUSY)[: len(runs(after, BUSY))] != []
        check(after, BUSY)
        assert ask(after, "SELECT price FROM prices WHERE symbol = %s ORDER BY timestamp DESC LIMIT 1", BUSY)
    rows = there.run("--since", str(days_ago(3)), "--symbol", f"{BTC},{COIN}", "--json").rows
    equal = [(row["symbol"], row["day"]) for row in rows if row["verdict"] == "equal"]
    assert equal == [(BTC, str(days_ago(3))), (BTC, str(days_ago(2))), (COIN, str(days_ago(2)))]
    assert there.run("--recheck").code == 0
    assert_goes_on(there, exchange)


def assert_goes_on(there: Audited, exchange: StandIn) -> None:
    """A capture stores there, without changing the schema; what was traded since is a gap or filled."""
    environ = {"BINANCE_WS_URL": exchange.ws, "BINANCE_REST_URL": exchange.http, "BINANCE_ARCHIVE_URL": exchange.http}
    done = subprocess.run(
        [sys.executable, str(ROOT / "ws_client.py"), "--duration", "6"],
        env=os.environ | there.environ | environ,
        capture_output=True,
        text=True,
        timeout=S_MAX,
    )
    assert (done.returncode, "schema version" in done.stderr) == (0, False), done.stderr
    with closing(db.connect(there.settings)) as connection:
        assert len(stored(connection, BTC)) > 2 * DAY_TRADES
        check(connection, BTC)


@pytest.fixture
def of_other_family(server: Server, _farm: Any) -> Server:
    """The server of the other family, for which a dump is of no use."""
    if server.family not in DUMPS:
        pytest.skip("the server that MYSQL_* names has no other beside it")
    other: Server = _farm.shared("mysql" if server.family == "mariadb" else "mariadb")
    return other


def test_parquet_files_elsewhere_are_the_same(
    here: Audited, of_other_family: Server, exchange: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported, and loaded into an empty database of the other family: trades with their times of arrival, gaps and
    candles are those of here, and the days are equal to the archive. Loaded again, nothing is new."""
    with closing(db.connect(here.settings)) as connection:
        noon = midnight(days_ago(1)) + timedelta(hours=12)
        db.insert_trades(connection, [trade(n, noon + timedelta(seconds=n // 2), symbol=BUSY) for n in (1, 2, 5, 6)])
        db.seal_history(connection, BUSY)
    (tmp_path / "there").mkdir()
    there = Audited(of_other_family, exchange.http, tmp_path / "there", here.name)
    monkeypatch.setattr(config, "load", lambda: here.settings)
    assert export.main(["parquet", str(tmp_path / "backup"), "--partition"]) == 0
    monkeypatch.setattr(config, "load", lambda: there.settings)
    try:
        for _ in range(2):
            assert load.main([str(tmp_path / "backup")]) == 0
        with closing(db.connect(here.settings)) as before, closing(db.connect(there.settings)) as after:
            for symbol in (BTC, COIN, BUSY):
                assert stored(after, symbol) == stored(before, symbol)
                assert sealed(after, symbol) == sealed(before, symbol) == due(after, symbol)
                assert runs(after, symbol) == runs(before, symbol)
            assert runs(after, BUSY) == [(3, 4)]
        rows = there.run("--since", str(days_ago(3)), "--symbol", f"{BTC},{COIN}", "--json").rows
        assert sum(row["verdict"] == "equal" for row in rows) == 3
    finally:
        there.sql(f"DROP DATABASE {there.name}")


@pytest.mark.timeout(300)
def test_loading_goes_on_wherever_it_was_killed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every moment what is not stored yet is above what is, or a gap; the next run loads the rest."""
    lost = 2 * KEPT_TRADES + 7
    with keeping(server, tmp_path) as here, keeping(server, tmp_path) as there:
        here.fill(without=[lost], given_up=False)
        monkeypatch.setattr(config, "load", lambda: here.settings)
        assert export.main(["parquet", str(tmp_path / "backup"), "--partition"]) == 0
        for death in ("before 1 INSERT", "after 2 INSERT", "before 7 INSERT", "after 5 COMMIT", "after 1 candles"):
            there.load(tmp_path / "backup", die_at=death)
            with closing(db.connect(there.settings)) as connection:
                check(connection)
        done = there.load(tmp_path / "backup")
        assert (done.code, done.err) == (0, "")
        assert there.state().trades == here.state().trades
        assert there.state().bars == here.state().bars
        with closing(db.connect(there.settings)) as connection:
            assert runs(connection) == [(lost, lost)]


def test_files_that_are_not_as_they_were_exported(
    any_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is stored of an export of which a file is damaged or gone: one line, exit code 2."""
    settings = any_server.settings(f"test_{uuid.uuid4().hex[:12]}", tmp_path)
    monkeypatch.setattr(config, "load", lambda: settings)
    backup = tmp_path / "backup"
    with closing(db.connect(settings)) as connection:
        db.insert_trades(connection, [trade(n, midnight(days_ago(2)) + n * timedelta(hours=15)) for n in (1, 2)])
        assert export.main(["parquet", str(backup), "--partition"]) == 0
        ask(connection, "DELETE FROM trades")
        capsys.readouterr()
        first, second = sorted(backup.glob("*/*/*.parquet"))
        second.write_bytes(second.read_bytes()[:-1])
        assert (load.main([str(backup)]), capsys.readouterr().err) == (
            2,
            f"tools.load: {second} is not as _manifest.json says: copy it again, or export again\n",
        )
        first.unlink()
        assert load.main([str(backup)]) == 2
        assert "is not there, and _manifest.json names it" in capsys.readouterr().err
        assert load.main([str(tmp_path / "nowhere")]) == 2
        assert "`tools.export parquet --partition` makes them" in capsys.readouterr().err
        assert ask(connection, "SELECT COUNT(*) FROM trades") == [(0,)]
        ask(connection, f"DROP DATABASE {settings.mysql_database}")


def test_files_that_another_program_wrote_anew(
    any_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times of another unit, a column that is missing, a folder of another day: one line and exit code 2, not an empty
    success."""
    settings = any_server.settings(f"test_{uuid.uuid4().hex[:12]}", tmp_path)
    monkeypatch.setattr(config, "load", lambda: settings)
    backup, day = tmp_path / "backup", days_ago(2)
    with closing(db.connect(settings)) as connection:
        db.insert_trades(connection, [trade(n, midnight(day) + n * timedelta(hours=5)) for n in (1, 2)])
        assert export.main(["parquet", str(backup), "--partition"]) == 0
        ask(connection, "DELETE FROM trades")
        (backup / "_manifest.json").unlink()
        (path,) = backup.glob("*/*/*.parquet")
        original = parquet.read_table(path, partitioning=None)
        by_unit = original.schema.field("timestamp").with_type(pa.timestamp("us", tz="UTC"))
        for changed, words in (
            (
                original.set_column(0, by_unit, original["timestamp"].cast(by_unit.type)),
                "timestamp is timestamp[us, tz",
            ),
            (original.drop_columns(["received_at"]), "it has no column received_at"),
        ):
            parquet.write_table(changed, path)
            capsys.readouterr()
            assert load.main([str(backup)]) == 2
            said = capsys.readouterr().err
            assert (said.startswith(f"tools.load: the Parquet file {path} is not as"), said.count("\n")) == (True, 1)
            assert words in said
        parquet.write_table(original, path)
        path.parent.rename(path.parent.with_name(f"day={days_ago(1)}"))
        assert load.main([str(backup)]) == 2
        assert f": 0 of its 2 trades are of {days_ago(1)}; what is the right day?\n" in capsys.readouterr().err
        assert ask(connection, "SELECT COUNT(*) FROM trades") == [(0,)]
        # A column more does no harm.
        (folder,) = backup.glob("*/day=*")
        folder.rename(folder.with_name(f"day={day}"))
        parquet.write_table(original.append_column("day", pa.array([str(day)] * 2)), path)
        assert load.main([str(backup)]) == 0
        assert ask(connection, "SELECT COUNT(*) FROM trades") == [(2,)]
        ask(connection, f"DROP DATABASE {settings.mysql_database}")
