"""The copy in PostgreSQL has each trade of MySQL exactly once, whatever order they come in and whatever is killed."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

import config
import db
from model.trade import Trade
from process.child import ROOT
from tests.support.postgres import MISSING, Postgres, find_programs
from tests.support.servers import POLL_S, PrivateServer, Server, short_folder
from tools.mirror import __main__ as mirror
from tools.mirror import postgres as mirror_postgres
from tools.mirror import questions

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

MIDNIGHT = datetime(2025, 3, 1, tzinfo=UTC)
COLUMNS = "symbol, timestamp, trade_id, price, quantity, buyer_is_maker, received_at"
LAG_S_MAX = 2.0
SETTLE_S_MAX = 30.0
KILLS = 6


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that the tests of this module share."""
    programs = find_programs()
    if programs is None:
        pytest.skip(MISSING)
    with short_folder() as folder:
        server = Postgres(programs, folder)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def copy(postgres: Postgres) -> Iterator[str]:
    """The address of an empty database of this test's own."""
    name = f"copy_{uuid.uuid4().hex[:12]}"
    with postgres.connect() as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres.url(name)
    with postgres.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def trades_of(any_server: Server, tmp_path: Path) -> Iterator[config.Settings]:
    """The settings of an empty database with the schema, on a server of either family."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    settings = any_server.settings(name, tmp_path)
    db.close(db.connect(settings))
    yield settings
    with any_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name}")


class Mirror:
    """`python -m tools.mirror` as a process; ends with a `with` block."""

    def __init__(self, server: Server, database: str, *arguments: str) -> None:
        self._environ = server.environ | {"MYSQL_DATABASE": database, "DATA_DIR": ""}
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        """Starts it (again)."""
        command = [sys.executable, "-m", "tools.mirror", *self._arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, env=self._environ, stdout=pipe, stderr=pipe, text=True)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Exit code, output and log after a signal."""
        self.process.send_signal(number)
        output, log = self.process.communicate(timeout=SETTLE_S_MAX)
        return self.process.returncode, output, log

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def trade(trade_id: int, symbol: str = "BTCUSDT", streamed: bool = True, price: str | None = None) -> Trade:
    """A trade whose time stamp rises with the id, give or take less than the second that db.py allows for."""
    when = MIDNIGHT + timedelta(milliseconds=20 * trade_id + 7_919 * trade_id % 980)
    value = Decimal(price or f"{1 + trade_id % 977}.{trade_id % 10**8:08d}")
    received = when + timedelta(microseconds=123_456) if streamed else None
    return Trade(symbol, when, trade_id, value, Decimal(f"0.{trade_id % 10**8:08d}"), trade_id % 2 == 0, received)


def trades(*ids: int, symbol: str = "BTCUSDT") -> list[Trade]:
    """The trades of `ids`, in their order."""
    return [trade(number, symbol) for number in ids]


def mysql_rows(settings: config.Settings) -> list[tuple[Any, ...]]:
    """All of the table `trades`, in order."""
    connection = db.connect(settings)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {COLUMNS} FROM trades ORDER BY symbol, timestamp, trade_id")
        found: list[Any] = cursor.fetchall()
        rows = [_row(row) for row in found]
    db.close(connection)
    return rows


def postgres_rows(url: str) -> list[tuple[Any, ...]]:
    """All of the table `prices`, in the same order; none while there is no such table."""
    with psycopg.connect(url, options="-c TimeZone=UTC") as connection:
        if connection.execute("SELECT to_regclass('prices')").fetchone() == (None,):
            return []
        rows = connection.execute(f"SELECT {COLUMNS} FROM prices")
        # In Python, because the order of texts is the database's own.
        return sorted((_row(row) for row in rows), key=lambda row: row[:3])


def _row(row: Sequence[Any]) -> tuple[Any, ...]:
    """The values such that equal means identical: the digits of a decimal, the moment of a time."""
    symbol, timestamp, trade_id, price, quantity, maker, received = row
    times = [time and time.replace(tzinfo=UTC) for time in (timestamp, received)]
    return symbol, times[0], trade_id, str(price), str(quantity), bool(maker), times[1]


def wait_until(what: str, condition: Callable[[], bool], seconds: float = SETTLE_S_MAX) -> float:
    """The seconds until `condition` held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, what
        time.sleep(POLL_S)
    return time.monotonic() - began


def has(url: str, *ids: int, symbol: str = "BTCUSDT") -> Callable[[], bool]:
    """Whether the copy has the trades of all these ids."""

    def condition() -> bool:
        try:
            return set(ids) <= {row[2] for row in postgres_rows(url) if row[0] == symbol}
        except psycopg.OperationalError:
            return False

    return condition


def equal(settings: config.Settings, url: str) -> Callable[[], bool]:
    """Whether both tables are the same."""

    def condition() -> bool:
        try:
            return postgres_rows(url) == mysql_rows(settings)
        except (psycopg.OperationalError, db.GoneError):
            return False

    return condition


def level(follower: mirror.Follower) -> None:
    """Lets `follower` copy until it says that it has all."""
    for _ in range(1_000):
        if follower.round():
            return
    raise AssertionError("the follower never gets level")


def once(settings: config.Settings, url: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `--once` in this process."""
    monkeypatch.setenv("MYSQL_HOST", settings.mysql_host or "")
    monkeypatch.setenv("MYSQL_PORT", str(settings.mysql_port))
    monkeypatch.setenv("MYSQL_UNIX_SOCKET", settings.mysql_unix_socket or "")
    monkeypatch.setenv("MYSQL_USER", settings.mysql_user)
    monkeypatch.setenv("MYSQL_PASSWORD", settings.mysql_password)
    monkeypatch.setenv("MYSQL_DATABASE", settings.mysql_database)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return mirror.main(["--to", url, "--once"])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def store(settings: config.Settings, *batches: Sequence[Trade]) -> None:
    """Stores each batch as a writer does."""
    connection = db.connect(settings)
    for batch in batches:
        db.insert_trades(connection, batch)
    db.close(connection)


@pytest.fixture
def follower(trades_of: config.Settings, copy: str) -> Iterator[mirror.Follower]:
    """A follower in this process, to be moved by rounds."""
    made = mirror.Follower(trades_of, mirror_postgres.parse_target(copy))
    yield made
    made.close()


# ---- What is copied.


def test_every_value_arrives_as_it_is(
    settings: config.Settings, copy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All digits, both clocks, a missing receipt, a shared millisecond, a name that is not ASCII; then the summary."""
    special = [
        trade(1, price="9999999999.99999999"),
        trade(2, price="0.00000001"),
        trade(3)._replace(timestamp=trade(2).timestamp, quantity=Decimal("999999999999.99999999")),
        trade(4, streamed=False),
        trade(5, symbol="币安人生USDT"),
        trade(6, symbol="ETHUSDT")._replace(trade_id=2**63 - 1),
    ]
    store(settings, special)

    assert once(settings, copy, monkeypatch) == 0

    rows = postgres_rows(copy)
    assert len(rows) == len(special)
    assert rows == mysql_rows(settings)
    assert capsys.readouterr().out == "copied 6 trades, 0 of them late; 0 outages\n"


def test_the_table_is_as_promised(trades_of: config.Settings, copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns' types and the key, in their order."""
    assert once(trades_of, copy, monkeypatch) == 0

    with psycopg.connect(copy) as connection:
        types = connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'prices'::regclass AND attnum > 0 ORDER BY attnum"
        ).fetchall()
        key = connection.execute("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'prices_pkey'")
        assert key.fetchone() == ('PRIMARY KEY ("timestamp", symbol, trade_id)',)
    assert types[:4] == [
        ("timestamp", "timestamp with time zone"),
        ("symbol", "text"),
        ("trade_id", "bigint"),
        ("price", "numeric(18,8)"),
    ]


def test_any_order_loss_and_repetition(settings: config.Settings, copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaps, parts of them filled later, history below, repeats, pages that end anywhere: equal after every round."""
    monkeypatch.setattr(mirror, "PAGE_TRADES_MAX", 7)
    chance = random.Random(5)
    writer = db.connect(settings)
    follower = mirror.Follower(settings, mirror_postgres.parse_target(copy))
    frontier = {"BTCUSDT": 500, "ETHUSDT": 900}
    for number in range(60):
        symbol = chance.choice(sorted(frontier))
        newest = frontier[symbol]
        begin = chance.choice([newest, newest + chance.randrange(30), chance.randrange(300, newest)])
        ids = [trade_id for trade_id in range(begin, begin + chance.randrange(1, 40)) if chance.random() < 0.7]
        chance.shuffle(ids)
        frontier[symbol] = max([newest, *ids])
        db.insert_trades(writer, trades(*ids, symbol=symbol))
        if number % 10 == 3:
            follower.close()  # As after an outage: what was copied is read from the copy again.
        if number % 3 == 0:
            level(follower)
            assert postgres_rows(copy) == mysql_rows(settings)
    level(follower)

    rows = mysql_rows(settings)
    assert postgres_rows(copy) == rows
    assert follower.copied == len(rows)
    assert 0 < follower.late < len(rows)
    gaps = [(gap.symbol, *gap[1:3], *gap[6:]) for gap in db.open_gaps(writer)]
    db.close(writer)
    with psycopg.connect(copy, options="-c TimeZone=UTC") as connection:
        assert connection.execute("SELECT * FROM mirror_holes ORDER BY 1, 2").fetchall() == gaps
    follower.close()


def test_only_what_is_new_is_read(
    trades_of: config.Settings, follower: mirror.Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round with nothing new reads no trade, though gaps are open, and stores nothing."""
    store(trades_of, trades(*range(100, 200), *range(300, 400)))
    level(follower)
    stored: list[object] = []
    monkeypatch.setattr(mirror_postgres.Target, "store", lambda *arguments: stored.append(arguments))

    assert follower.round()

    assert stored == []


def test_trades_that_are_deleted_do_not_stop_it(
    trades_of: config.Settings, copy: str, follower: mirror.Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """Ids that are neither stored nor in an open gap are said once and looked for again; the rest goes on."""
    store(trades_of, trades(*range(1, 10)))
    connection = db.connect(trades_of)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM trades WHERE trade_id IN (4, 5)")

    level(follower)
    level(follower)
    db.insert_trades(connection, trades(10))
    level(follower)

    assert [record.message for record in caplog.records if "neither" in record.message] == [
        "BTCUSDT ids 4 to 5 are neither stored nor in an open gap"
    ]
    assert [row[2] for row in postgres_rows(copy)] == [number for number in range(1, 11) if number not in (4, 5)]
    db.insert_trades(connection, trades(4, 5))
    follower._look_again_at = 0.0
    level(follower)
    assert postgres_rows(copy) == mysql_rows(trades_of)
    db.close(connection)


def test_two_mirrors_of_one_copy(trades_of: config.Settings, copy: str, follower: mirror.Follower) -> None:
    """They take turns without an error: one that was overtaken reads what was copied and goes on from there."""
    other = mirror.Follower(trades_of, mirror_postgres.parse_target(copy))
    for number, (first, second) in enumerate([(follower, other), (other, follower)] * 3):
        store(trades_of, trades(*range(10 * number + 1, 10 * number + 11, 1 + number % 2)))
        level(first)
        level(second)
        assert postgres_rows(copy) == mysql_rows(trades_of)
    other.close()

    assert follower.copied + other.copied == len(mysql_rows(trades_of))


# ---- Following, and what may happen meanwhile.


def test_behind_a_proxy_that_pools_transactions_it_works_again_and_again(
    trades_of: config.Settings, copy: str, postgres: Postgres
) -> None:
    """Each transaction may get another session, with the tables of one before it and without prepared statements."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no pgbouncer; Debian, Ubuntu: apt-get install pgbouncer")
    with postgres.bouncer(program) as host, closing(db.connect(trades_of)) as connection:
        address = f"postgresql://postgres@/{copy.partition('@/')[2].partition('?')[0]}?host={host}&port=6432"
        for number in range(1, 9):
            db.insert_trades(connection, [mirrored(number * 10 + one) for one in range(number % 3 + 1)])
            follower = mirror.Follower(trades_of, mirror_postgres.parse_target(address))
            while not follower.round():
                pass
            follower.close()
        with psycopg.connect(copy) as plain:
            ids = [one for (one,) in plain.execute("SELECT trade_id FROM prices ORDER BY 1").fetchall()]
    assert ids == [number * 10 + one for number in range(1, 9) for one in range(number % 3 + 1)]


def mirrored(trade_id: int) -> Trade:
    """A trade of which only the id matters."""
    return Trade(
        "BTCUSDT", MIDNIGHT + timedelta(milliseconds=trade_id), trade_id, Decimal("1"), Decimal("1"), True, None
    )


def test_it_follows_within_two_seconds(any_server: Server, trades_of: config.Settings, copy: str) -> None:
    """New trades, a back-filled gap, older history and a new symbol; then SIGTERM ends it with a summary."""
    writer = db.connect(trades_of)
    db.insert_trades(writer, trades(1_000))
    with Mirror(any_server, trades_of.mysql_database, "--to", copy) as process:
        wait_until("the first trade is copied", has(copy, 1_000))
        lags = []
        for batch in (
            trades(*range(1_001, 1_100)),
            trades(1_200, 1_201),
            trades(*range(1_150, 1_160)),
            trades(*range(1_100, 1_150), *range(1_160, 1_200)),
            trades(10, 12),
            trades(11),
            trades(77, symbol="ETHUSDT"),
        ):
            db.insert_trades(writer, batch)
            ids = [one.trade_id for one in batch]
            lags.append(wait_until("it follows", has(copy, *ids, symbol=batch[0].symbol), LAG_S_MAX))
        code, output, log = process.end()
    db.close(writer)

    assert max(lags) < LAG_S_MAX
    assert postgres_rows(copy) == mysql_rows(trades_of)
    assert (code, output) == (0, "copied 206 trades, 103 of them late; 0 outages\n")
    assert "Traceback" not in log


class Load:
    """Two writers that store shuffled, lossy, repeated stretches of the same ids until the `with` block ends."""

    def __init__(self, settings: config.Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(seed,)) for seed in (1, 2)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, seed: int) -> None:
        chance = random.Random(seed)
        connection = db.connect(self._settings)
        newest = 1_000
        while not self._stop.is_set():
            ids = [number for number in range(newest - 60, newest + 20) if chance.random() < 0.3]
            chance.shuffle(ids)
            try:
                db.insert_trades(connection, trades(*ids))
                newest += 10
            except db.DatabaseError:
                db.close(connection)
                if self._stop.wait(0.1):
                    return
                connection = self._again(connection)
            self._stop.wait(0.01)
        db.close(connection)

    def _again(self, connection: db.Connection) -> db.Connection:
        try:
            return db.connect(self._settings)
        except db.DatabaseError:
            return connection


def test_killed_at_random_moments(any_server: Server, trades_of: config.Settings, copy: str) -> None:
    """kill -9 while two writers store: each time the copy has nothing twice and nothing that is not in MySQL."""
    chance = random.Random(7)
    with Load(trades_of), Mirror(any_server, trades_of.mysql_database, "--to", copy) as process:
        for _ in range(KILLS):
            before = len(postgres_rows(copy))
            wait_until("it copies", lambda before=before: len(postgres_rows(copy)) > before)  # type: ignore[misc]
            threading.Event().wait(chance.random() / 4)
            process.end(signal.SIGKILL)
            assert set(postgres_rows(copy)) <= set(mysql_rows(trades_of))
            process.start()
    with Mirror(any_server, trades_of.mysql_database, "--to", copy, "--once") as process:
        assert process.process.wait(SETTLE_S_MAX) == 0
    assert postgres_rows(copy) == mysql_rows(trades_of)


def test_killed_between_the_statements(trades_of: config.Settings, copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied and what is known of it are one transaction: an end between the two leaves neither."""
    store(trades_of, trades(*range(1, 20)))

    def die(*_: object) -> None:
        raise SystemExit

    for step in ("_advance", "_store_holes", "_copy"):
        with monkeypatch.context() as patch:
            patch.setattr(mirror_postgres.Target, step, die)
            with pytest.raises(SystemExit):
                once(trades_of, copy, monkeypatch)
        assert postgres_rows(copy) == []

    assert once(trades_of, copy, monkeypatch) == 0
    assert postgres_rows(copy) == mysql_rows(trades_of)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_postgresql_is_away(
    any_server: Server, postgres: Postgres, trades_of: config.Settings, copy: str, number: signal.Signals
) -> None:
    """Shut down or crashed, and started again while the writers go on: it says so, waits, and is equal in the end."""
    store(trades_of, trades(1))
    with Mirror(any_server, trades_of.mysql_database, "--to", copy) as process:
        with Load(trades_of):
            wait_until("it copies", lambda: len(postgres_rows(copy)) > 50)
            postgres.stop(number)
            stored = len(mysql_rows(trades_of))
            wait_until("the writers go on", lambda: len(mysql_rows(trades_of)) > stored + 50)
            postgres.start()
            wait_until("it copies again", lambda: len(postgres_rows(copy)) > stored)
        wait_until("both are equal", equal(trades_of, copy))
        code, output, log = process.end()

    assert code == 0
    assert re.search(r"; [1-9] outages", output)
    assert "PostgreSQL: " in log
    assert "trying again in" in log


def test_mysql_is_away(killable_server: PrivateServer, copy: str, tmp_path: Path) -> None:
    """Its connection is killed, and then the server, while the mirror follows: it is equal in the end."""
    settings = killable_server.settings("outage", tmp_path)
    store(settings, trades(1))
    with Mirror(killable_server, "outage", "--to", copy) as process:
        with Load(settings):
            wait_until("it copies", lambda: len(postgres_rows(copy)) > 50)
            kill_readers(killable_server)
            copied = len(postgres_rows(copy))
            wait_until("it copies again", lambda: len(postgres_rows(copy)) > copied)
            killable_server.kill()
            killable_server.start()
            stored = len(mysql_rows(settings))
            wait_until("it copies once more", lambda: len(postgres_rows(copy)) > stored)
        wait_until("both are equal", equal(settings, copy))
        code, output, _ = process.end()

    assert code == 0
    assert "; 2 outages" in output


def kill_readers(server: Server) -> None:
    """Kills every other connection, the writers' too, which connect again."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND db = 'outage'")
        for (number,) in cursor.fetchall():
            cursor.execute(f"KILL {number}")


# ---- Refusals.


def test_a_price_that_does_not_fit_is_named(
    trades_of: config.Settings, copy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never rounded nor left out: what is before it is copied, and it goes on once the column was made wider."""
    store(trades_of, [trade(1), trade(2, price="10000000000.00000001"), trade(3)])

    assert once(trades_of, copy, monkeypatch) == 2

    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tools.mirror: ")]
    when = trade(2).timestamp.isoformat(" ", "milliseconds")
    assert error == (
        f"tools.mirror: BTCUSDT trade 2 at {when}: its price 10000000000.00000001 does not fit prices.price"
        " NUMERIC(18,8);"
        " ALTER TABLE prices ALTER price TYPE NUMERIC(20,8) makes room"
    )
    copied = {row[2] for row in postgres_rows(copy)}
    assert copied == {one.trade_id for one in sorted([trade(1), trade(3)]) if one.timestamp < trade(2).timestamp}

    with psycopg.connect(copy) as connection:
        connection.execute("ALTER TABLE prices ALTER price TYPE NUMERIC(20,8)")
    assert once(trades_of, copy, monkeypatch) == 0
    assert postgres_rows(copy) == mysql_rows(trades_of)


def test_an_id_that_does_not_fit_is_named(trades_of: config.Settings, follower: mirror.Follower) -> None:
    """MySQL's ids are unsigned, PostgreSQL's are not."""
    store(trades_of, [trade(1)._replace(trade_id=2**63)])

    with pytest.raises(
        mirror_postgres.MirrorError, match=r"BTCUSDT trade 9223372036854775808 .* prices.trade_id BIGINT"
    ):
        follower.round()


def test_a_column_that_is_not_exact_is_refused(copy: str) -> None:
    """A table that is there already must hold decimals, all eight of them or fewer if they are zeros."""
    with psycopg.connect(copy) as connection:
        connection.execute(mirror_postgres._TABLES)
        connection.execute("ALTER TABLE prices ALTER quantity TYPE NUMERIC(12,2)")
    target = mirror_postgres.Target(copy, "binance")
    even, odd = trade(1)._replace(quantity=Decimal("1.50000000")), trade(2)
    assert target.fitting([even, odd]) == [even]
    target.close()

    with psycopg.connect(copy) as connection:
        connection.execute("ALTER TABLE prices ALTER price TYPE DOUBLE PRECISION")
    with pytest.raises(mirror_postgres.MirrorError, match=r"prices\.price has the type double precision"):
        mirror_postgres.Target(copy, "binance")


def test_real_and_made_up_trades_never_mix(
    trades_of: config.Settings, copy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy belongs to one MySQL database."""
    store(trades_of, trades(1))
    assert once(trades_of, copy, monkeypatch) == 0
    with psycopg.connect(copy) as connection:
        connection.execute("UPDATE mirror_symbols SET source = 'binance_demo'")

    assert once(trades_of, copy, monkeypatch) == 2

    assert "--to holds a copy of 'binance_demo', not of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://user:secret@host/db", "--to is not a PostgreSQL address"),
        ("postgresql://user:secret@host:port/db?nonsense", "--to is not a PostgreSQL address"),
        ("postgresql://user:secret@127.0.0.1:1/db", "127.0.0.1"),
    ],
)
def test_an_address_that_is_wrong(
    trades_of: config.Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str,
    words: str,
) -> None:
    """One line that says what is wrong, without the password in it."""
    assert once(trades_of, url, monkeypatch) == 2

    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error
    assert "secret" not in error


def test_a_database_that_is_missing_on_either_side(
    any_server: Server, trades_of: config.Settings, postgres: Postgres, copy: str
) -> None:
    """Waiting would not help, so it ends, without --once too."""
    for database, url in ((trades_of.mysql_database, postgres.url("nowhere")), ("nowhere", copy)):
        with Mirror(any_server, database, "--to", url) as process:
            _, log = process.process.communicate(timeout=SETTLE_S_MAX)
        assert process.process.returncode == 2
        assert log.splitlines()[-1].startswith("tools.mirror: ")
        assert "nowhere" in log


# ---- The questions.


def test_the_questions_have_the_answers_of_mysql(
    trades_of: config.Settings, copy: str, follower: mirror.Follower
) -> None:
    """Latest, a second, as of then, low and high with when and which trade: the same as from db.py."""
    store(trades_of, [*trades(*range(1, 400)), *trades(*range(5, 90), symbol="ETHUSDT")])
    level(follower)
    source = db.connect(trades_of)
    start, end = MIDNIGHT + timedelta(seconds=1.5), MIDNIGHT + timedelta(seconds=6)
    when = MIDNIGHT + timedelta(seconds=3, milliseconds=217)
    latest, as_of = db.latest(source, "BTCUSDT"), db.price_as_of(source, "BTCUSDT", when)
    span = db.min_max_by_scan(source, "BTCUSDT", start, end)
    assert latest
    assert as_of
    assert span
    expected = [
        [latest],
        db.trades_in_second(source, "BTCUSDT", when),
        [as_of],
    ]

    answers = [
        ask(copy, sql)
        for sql in (
            questions.latest_sql("BTCUSDT"),
            questions.second_sql("BTCUSDT", when),
            questions.as_of_sql("BTCUSDT", when),
        )
    ]
    extremes = ask(copy, questions.min_max_sql("BTCUSDT", start, end))

    assert len(answers[1]) > 10
    assert answers == [[facts(one) for one in group] for group in expected]
    assert extremes == [("low", span.trades, *facts(span.low)), ("high", span.trades, *facts(span.high))]
    db.close(source)


def facts(one: Trade) -> tuple[Any, ...]:
    """The columns of an answer."""
    return one.timestamp, one.trade_id, one.price, one.quantity, one.buyer_is_maker


def ask(url: str, sql: str) -> list[Any]:
    """The rows of a query as psql would send it."""
    with psycopg.connect(url, options="-c TimeZone=UTC") as connection:
        return connection.execute(sql.encode()).fetchall()


def test_the_sql_is_printed_to_paste(
    trades_of: config.Settings, copy: str, follower: mirror.Follower, capsys: pytest.CaptureFixture[str]
) -> None:
    """UTC, then the statements behind their questions, which PostgreSQL takes; no database is needed for that."""
    follower.round()

    assert mirror.main(["--sql", "btcusdt"]) == 0

    printed = capsys.readouterr().out
    assert len(re.findall(r"^-- .*BTCUSDT", printed, re.MULTILINE)) == 3
    time_zone, *statements = [part for part in printed.split(";\n") if part.strip()]
    assert time_zone == "SET TIME ZONE 'UTC'"
    assert len(statements) == 5
    assert [ask(copy, statement) for statement in statements] == [[], [], [], [], [(0,)]]


def test_a_round_without_news_asks_nothing_of_a_symbol(trades_of: config.Settings, copy: str) -> None:
    """As many statements for forty symbols as for ten, and its line does not name them all; what is new is copied."""
    names = [f"S{number:02d}USDT" for number in range(40)]
    connection = db.connect(trades_of)
    follower = mirror.Follower(trades_of, copy)

    def asked() -> int:
        source = follower._source
        assert source is not None
        source.asked = []
        assert follower.round()
        statements, source.asked = source.asked, None
        return len(statements)

    with closing(connection), closing(follower):
        counts = []
        for some in (names[:10], names[10:]):
            db.insert_trades(connection, [one for name in some for one in trades(1, 2, 5, symbol=name)])
            level(follower)
            counts.append(asked())
        line = follower.line()
        db.insert_trades(connection, trades(3, symbol=names[7]) + trades(6, symbol=names[30]))
        level(follower)
        assert equal(trades_of, copy)()

    assert counts[0] == counts[1]
    assert line.startswith("40 symbols · lag")
