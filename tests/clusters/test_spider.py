"""Spider: trades on two shards by symbol, and everything runs on the server before them."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import config
import db
from storage.errors import guard
from storage.transaction import transaction
from tests.clusters.support import measure, report, settings_of
from tests.conftest import _Farm
from tests.makers import stream
from tests.support.audited import BTC, COIN, DAY_TRADES, FLAGS, MORE, Audited, days_ago
from tests.support.harness import Rig
from tests.support.stand_in import StandIn
from tests.support.tables import check, runs, stored_ids
from tools.lab.children import Capture, broken_identities, wait_for
from tools.lab.clusters import Spider, run, value
from tools.lab.servers import Server
from tools.lab.verdict import compare, fetch_truth

pytestmark = [pytest.mark.clusters, pytest.mark.timeout(240)]

NAME = "test_spider"
WAIT_S_MAX = 30.0


@pytest.fixture
def settings(spider: Spider, tmp_path: Path) -> Iterator[config.Settings]:
    """The settings of an empty database."""
    spider.create(NAME)
    yield settings_of(spider, NAME, tmp_path)
    spider.drop(NAME)


def test_two_writers_agree(settings: config.Settings) -> None:
    """The lock of a symbol's row is the shard's, so the second waits for the first, and finds what it has stored."""
    with closing(db.connect(settings)) as one, closing(db.connect(settings)) as other:
        for symbol in ("BTCUSDT", "ETHUSDT"):
            db.insert_trades(one, stream(1, 10, symbol))
            db.insert_trades(other, stream(11, 10, symbol))
            entered, leave = threading.Event(), threading.Event()

            @guard
            def hold(symbol: str = symbol, entered: threading.Event = entered, leave: threading.Event = leave) -> None:
                with transaction(one, [symbol]):
                    entered.set()
                    leave.wait(WAIT_S_MAX)

            holder = threading.Thread(target=hold)
            holder.start()
            assert entered.wait(WAIT_S_MAX)
            with pytest.raises(db.ContentionError):
                db.insert_trades(other, stream(21, 2, symbol))
            leave.set()
            holder.join(WAIT_S_MAX)
            db.insert_trades(one, stream(31, 10, symbol))
            db.insert_trades(other, stream(51, 2, symbol))
            assert stored_ids(one, symbol) == [*range(1, 21), *range(31, 41), 51, 52]
            assert runs(one, symbol) == [(21, 30), (41, 50)]
            check(other, symbol)


def test_two_captures_and_the_death_of_a_shard(spider: Spider, tmp_path: Path) -> None:
    """Each symbol is on its shard; while one is away the trades wait on the disk, and then the tables are what was
    traded. The reports answer."""
    with Rig(spider, tmp_path, ("--rate", "100", "--ping-interval", "0.5")) as rig, ExitStack() as stack:
        spider.create(rig.database)
        stack.callback(spider.drop, rig.database)
        captures = [
            stack.enter_context(rig.capture(name=f"capture-{number}", DATA_DIR=str(tmp_path / f"data-{number}")))
            for number in range(2)
        ]
        rig.stores()
        rig.exchange.fault("skip", seconds=60, probability=0.02, target="all")
        rig.exchange.fault("reset", target="all")
        rig.stores()
        for shard in spider.shards:
            shard.kill()
            _wait_for_spooling(captures[0])
            shard.start()
            rig.stores()
        rig.settle()
        for number, capture in enumerate(captures):
            assert capture.starts == 1
            capture.stop()
            assert broken_identities(tmp_path / f"capture-{number}") == []
        compared = rig.compared()
        assert all(one.consistent for one in compared), "\n".join(map(str, compared))
        for symbol, shard in zip(rig.symbols, spider.shards, strict=True):
            assert value(shard, f"SELECT GROUP_CONCAT(DISTINCT symbol) FROM {rig.database}.trades") == symbol
            with shard.connect() as connection:
                alone = compare(connection, rig.database, symbol, fetch_truth(rig.exchange.http, symbol))
            assert alone in compared
        for arguments in (["latest"], ["range", "--last", "1h"], ["candles", "1m"]):
            assert all(symbol in report(rig.environ, *arguments) for symbol in rig.symbols)


def _wait_for_spooling(capture: Capture) -> None:
    log = capture.process.log
    before = log.read_text().count("wait on the disk")
    wait_for("trades wait on the disk", lambda: log.read_text().count("wait on the disk") > before, WAIT_S_MAX)


def test_the_audit(spider: Spider, tmp_path: Path) -> None:
    """History is brought in, and equals the exchange's archive row by row, on both shards."""
    with StandIn(*FLAGS, *MORE) as exchange, ExitStack() as stack:
        case = Audited(spider, exchange.http, tmp_path)
        spider.create(case.name)
        stack.callback(spider.drop, case.name)
        for symbol, shard in zip((BTC, COIN), spider.shards, strict=True):
            case.load(days_ago(2), days_ago(1), symbol=symbol)
            assert case.verdicts("--symbol", symbol) == (0, [("equal", ""), ("equal", "")])
            assert value(shard, f"SELECT COUNT(*) FROM {case.name}.trades") == 2 * DAY_TRADES


def test_what_it_costs(settings: config.Settings, alone: Server, tmp_path: Path) -> None:
    """Measured, beside a server without Spider; the figures are in docs/operations.md."""
    measure("Spider, two shards", settings)
    measure("MariaDB alone", settings_of(alone, NAME, tmp_path))


@pytest.fixture
def alone(_farm: _Farm) -> Iterator[Server]:
    """A server that is in no cluster."""
    server = _farm.shared("mariadb")
    yield server
    run(server, f"DROP DATABASE IF EXISTS {NAME}")
