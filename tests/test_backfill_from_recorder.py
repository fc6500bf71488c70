"""backfill.py --from-recorder: two recorders with a database each, and other holes, repair each other."""

import logging
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import backfill
import config
import db
from history import from_recorder
from history import recorder as other_recorder
from model.times import MILLISECOND
from model.trade import Trade
from process import retry
from process.child import ROOT
from process.log import write_out
from tests.makers import MIDNIGHT, streamed
from tests.support.child import wait_until
from tests.support.servers import Server
from tests.support.serving import Api, serving
from tests.support.tables import ask, check, due, runs, sealed, stored, stored_ids

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

FIRST, LAST = 1_000, 7_500
"""More than a page of the API."""
TOKEN = "0123456789abcdef"
RUN_S_MAX = 60.0


class Outcome(NamedTuple):
    """How a run of the command ended."""

    code: int
    out: str
    err: str


class Recorder:
    """A database with trades of a symbol, and the command that repairs it."""

    def __init__(self, server: Server, folder: Path, ids: Sequence[int], symbol: str = "BTCUSDT") -> None:
        self.name = f"test_{uuid.uuid4().hex[:12]}"
        self.server = server
        self.environ = server.environ | {"MYSQL_DATABASE": self.name, "DATA_DIR": str(folder / self.name)}
        self.connection = db.connect(server.settings(self.name, folder))
        db.insert_trades(self.connection, [streamed(number, symbol) for number in ids])

    def command(self, *arguments: str, **environ: str) -> "subprocess.Popen[str]":
        """The command, as from a terminal."""
        return subprocess.Popen(
            [sys.executable, "backfill.py", *arguments],
            cwd=ROOT,
            env=os.environ | self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def drop(self) -> None:
        """Removes the database."""
        db.close(self.connection)
        with closing(self.server.connect()) as plain:
            ask(plain, f"DROP DATABASE {self.name}")


@contextmanager
def recorder(server: Server, folder: Path, ids: Sequence[int], symbol: str = "BTCUSDT") -> Iterator[Recorder]:
    """A recorder that has the trades with these ids."""
    made = Recorder(server, folder, ids, symbol)
    try:
        yield made
    finally:
        made.drop()


@contextmanager
def api_of(one: Recorder, **environ: str) -> Iterator[Api]:
    """Its API, once it can answer."""
    with serving(one.environ | environ) as api:
        headers = {"Authorization": f"Bearer {environ['API_TOKEN']}"} if "API_TOKEN" in environ else {}
        wait_until(lambda: api.get("/api/symbols", headers).status == 200)
        yield api


@pytest.fixture
def repair(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the command to its end, for a recorder, with the address of the other, more flags and variables."""
    # It sends the log to the standard error of this one test.
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)

    def run(own: Recorder, url: str, *arguments: str, **environ: str) -> Outcome:
        with monkeypatch.context() as here:
            for name, value in (own.environ | environ).items():
                here.setenv(name, value)
            code = backfill.main(["--from-recorder", url, *arguments])
            write_out()
        out, err = capsys.readouterr()
        assert "Traceback" not in err, err
        return Outcome(code, out, err)

    return run


def holes(seed: int, count: int) -> list[int]:
    """All ids but for so many runs; the first and the last id are there."""
    chosen = random.Random(seed)
    gone: set[int] = set()
    for _ in range(count):
        begin = chosen.randint(FIRST + 1, LAST - 1)
        gone.update(range(begin, min(LAST, begin + chosen.choice([1, 3, 40, 700]))))
    return [number for number in range(FIRST, LAST + 1) if number not in gone]


def truth(symbol: str = "BTCUSDT") -> list[Trade]:
    """What was traded, without the time of receipt."""
    return [streamed(number, symbol)._replace(received_at=None) for number in range(FIRST, LAST + 1)]


def rows(one: Recorder, symbol: str = "BTCUSDT") -> list[Trade]:
    """What is stored, without the time of receipt."""
    return [trade._replace(received_at=None) for trade in stored(one.connection, symbol)]


@pytest.fixture
def own(any_server: Server, tmp_path: Path) -> Iterator[Recorder]:
    """A recorder with two gaps, the newer of which is longer than two pages."""
    with recorder(any_server, tmp_path, [FIRST, 1_001, 1_050, LAST]) as made:
        yield made


@pytest.fixture(scope="module")
def other(any_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """One that has it all."""
    with recorder(any_server, tmp_path_factory.mktemp("other"), range(FIRST, LAST + 1)) as made:
        yield made


@pytest.fixture(scope="module")
def api(other: Recorder) -> Iterator[Api]:
    """Its API."""
    with api_of(other) as running:
        yield running


def test_two_recorders_repair_each_other(server: Server, tmp_path: Path, repair: Callable[..., Outcome]) -> None:
    """After both have run, both tables are what was traded, row by row; only what both lack is still a gap."""
    with (
        recorder(server, tmp_path, [number for number in holes(1, 20) if number not in (5_000, 5_001)]) as one,
        recorder(server, tmp_path, [number for number in holes(2, 20) if number not in (5_000, 5_001)]) as two,
    ):
        known = {number: trade for trade in stored(one.connection) for number in [trade.trade_id]}
        both_lack = sorted(set(range(FIRST, LAST)) - {*stored_ids(one.connection)} - {*stored_ids(two.connection)})
        expected = [trade for trade in truth() if trade.trade_id not in both_lack]
        for mine, others in ((one, two), (two, one)):
            missing = LAST - FIRST + 1 - len(stored_ids(mine.connection))
            with api_of(others) as api:
                ended = repair(mine, f"{api.address}/")
            assert ended.code == 1
            assert f"BTCUSDT: filled {missing - len(both_lack):,} of {missing:,} missing ids" in ended.out
            assert ended.out.endswith(f"{len(both_lack)} ids are missing in {len(runs(mine.connection))} gaps\n")
            assert rows(mine) == expected
            check(mine.connection)
            assert sealed(mine.connection, "BTCUSDT") == due(mine.connection, "BTCUSDT")
        # What was received keeps its time, and what was not has none.
        now = {trade.trade_id: trade for trade in stored(one.connection)}
        assert {number: now[number] for number in known} == known
        assert {now[number].received_at for number in now.keys() - known.keys()} == {None}
        assert ask(one.connection, "SELECT DISTINCT reason FROM gaps WHERE filled_at IS NULL") == [
            ("missing in the stream",)
        ]


def test_a_symbol_that_the_other_lacks(
    own: Recorder, any_server: Server, tmp_path: Path, repair: Callable[..., Outcome]
) -> None:
    """It is said, and the others are filled; --symbol takes one of them."""
    db.insert_trades(own.connection, [streamed(1, "ETHUSDT"), streamed(5, "ETHUSDT")])
    with recorder(any_server, tmp_path, range(1, 6), "ETHUSDT") as eth, api_of(eth) as api:
        only = repair(own, api.address, "--symbol", "BTCUSDT")
        assert only.code == 1
        assert "no trade of BTCUSDT is stored there" in only.err
        assert runs(own.connection, "ETHUSDT") == [(2, 4)]
        assert repair(own, api.address).out.count("ETHUSDT: filled 3 of 3 missing ids") == 1
    assert runs(own.connection, "ETHUSDT") == []


@pytest.mark.parametrize("neighbour", [1_050, LAST])
def test_another_history_is_refused(
    own: Recorder, other: Recorder, api: Api, neighbour: int, repair: Callable[..., Outcome]
) -> None:
    """A neighbour that differs in anything: one line, and nothing of that gap is stored."""
    before, good = stored(own.connection), streamed(neighbour)
    for change in (
        {"price": good.price + Decimal("0.00000001")},
        {"quantity": good.quantity + Decimal("0.00000001")},
        {"buyer_is_maker": not good.buyer_is_maker},
        {"timestamp": good.timestamp + MILLISECOND},
    ):
        _put(other, good, good._replace(**change))
        try:
            ended = repair(own, api.address)
        finally:
            _put(other, good._replace(**change), good)
        assert ended.code == 1
        assert f"the other recorder has another history: its trade {neighbour} is" in ended.err
        assert [trade for trade in stored(own.connection) if trade.trade_id > 1_050] == before[3:]
        # Below, the other gap is filled, if its own neighbours are good.
        assert runs(own.connection) == [*([(1_002, 1_049)] if neighbour == 1_050 else []), (1_051, LAST - 1)]


def _put(one: Recorder, there: Trade, wanted: Trade) -> None:
    """Replaces a stored trade, as somebody who tampers with it would."""
    sql = "UPDATE trades SET timestamp = %s, price = %s, quantity = %s, buyer_is_maker = %s"
    sql += " WHERE symbol = %s AND timestamp = %s AND trade_id = %s"
    values = (wanted.price, wanted.quantity, wanted.buyer_is_maker, wanted.symbol)
    times = [trade.timestamp.replace(tzinfo=None) for trade in (wanted, there)]
    ask(one.connection, sql, times[0], *values, times[1], wanted.trade_id)


def test_without_a_common_neighbour_nobody_knows(
    any_server: Server, own: Recorder, tmp_path: Path, repair: Callable[..., Outcome]
) -> None:
    """A recorder that began in the middle of the gap and ended before it was over has nothing to compare with."""
    with recorder(any_server, tmp_path, range(3_000, 4_000)) as two, api_of(two) as api:
        ended = repair(own, api.address)
    assert ended.code == 1
    assert "has none of the 100 trades beside it that are stored here" in ended.err
    assert len(stored_ids(own.connection)) == 4


def test_one_that_began_later_repairs_what_it_has(
    any_server: Server, own: Recorder, tmp_path: Path, repair: Callable[..., Outcome]
) -> None:
    """On one side of the gap the two are compared, and the rest stays a gap."""
    with recorder(any_server, tmp_path, range(3_000, LAST + 1)) as two, api_of(two) as api:
        assert repair(own, api.address).code == 1
    assert runs(own.connection) == [(1_002, 1_049), (1_051, 2_999)]
    check(own.connection)


def test_the_token(own: Recorder, other: Recorder, repair: Callable[..., Outcome]) -> None:
    """None, a wrong one, one that no header can carry, one in the address: one line and code 2, which do not show it;
    the right one fills."""
    with api_of(other, API_TOKEN=TOKEN) as api:
        wrong = [
            repair(own, api.address),
            repair(own, api.address, RECORDER_TOKEN="fedcba9876543210"),
            repair(own, api.address, RECORDER_TOKEN="fedcba 9876543210"),
            repair(own, api.address.replace("//", "//me:fedcba9876543210@")),
        ]
        right = repair(own, api.address, RECORDER_TOKEN=TOKEN)
    for ended, words in zip(wrong, ["is not set", "is wrong", "a header cannot carry", "others can read"], strict=True):
        assert (ended.code, ended.out) == (2, "")
        assert words in ended.err
        assert "RECORDER_TOKEN" in ended.err
        assert ended.err.count("\n") == 1
        assert "fedcba" not in ended.err
    assert right.code == 0
    assert rows(own) == truth()


@pytest.mark.parametrize("url", ["other:8000", "ftp://other", "http://other:8000/api", "http://other/?a=1", ""])
def test_a_wrong_address_is_one_line(own: Recorder, url: str, repair: Callable[..., Outcome]) -> None:
    """And exit code 2."""
    ended = repair(own, url)
    assert ended.code == 2
    assert "--from-recorder" in ended.err
    assert ended.err.count("\n") == 1


def test_two_things_to_do_are_refused(own: Recorder, repair: Callable[..., Outcome]) -> None:
    """It goes with no other way of filling."""
    ended = repair(own, "http://127.0.0.1:9", "--list")
    assert ended.code == 2
    assert "--list and --from-recorder are two things to do" in ended.err


def test_killed_in_between(own: Recorder, api: Api, repair: Callable[..., Outcome]) -> None:
    """What was stored stays, the tables are sound, and the next run ends the work."""
    with own.command("--from-recorder", api.address) as process:
        wait_until(lambda: len(stored_ids(own.connection)) > 4, RUN_S_MAX)
        process.send_signal(signal.SIGKILL)
    check(own.connection)
    assert runs(own.connection)
    assert repair(own, api.address).code == 0
    assert rows(own) == truth()
    check(own.connection)


def test_an_other_that_dies_in_between(
    own: Recorder, other: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What came is stored, the list says what is left, and it is not waited for without end."""
    monkeypatch.setattr(retry, "BACKOFF_S_MIN", 0.01)
    monkeypatch.setattr(other_recorder, "TRIES_MAX", 3)
    settings: config.Settings = own.server.settings(own.name, Path("."))
    with api_of(other) as api, closing(db.connect(settings)) as connection:
        real = db.insert_trades

        def last(*arguments: Any) -> int:
            api.stop(signal.SIGKILL)
            return real(*arguments)

        monkeypatch.setattr(db, "insert_trades", last)
        client = other_recorder.Recorder(api.address, None)
        gaps = db.open_gaps(connection)
        (outcome,) = from_recorder.fill(connection, client, gaps, lambda _count: None)

    assert (outcome.symbol, outcome.missing) == ("BTCUSDT", LAST - FIRST - 3)
    assert runs(own.connection) == [(1_002, 1_049), (6_051, LAST - 1)]
    assert "what is left stays missing until the next run" in caplog.text


def test_the_first_trades_are_of_one_day() -> None:
    """What the tests above take for granted of their trades."""
    assert {trade.timestamp.date() for trade in truth()} == {MIDNIGHT.date()}
