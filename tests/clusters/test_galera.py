"""MariaDB Galera: captures on several nodes at once, and nodes that die and come back."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import config
import db
from storage import session
from storage.errors import guard
from storage.transaction import transaction
from tests.clusters.support import assert_nodes_agree, measure, report, settings_of
from tests.makers import stream
from tests.support.audited import FLAGS as EXCHANGE_FLAGS
from tests.support.audited import MORE, Audited, days_ago
from tests.support.harness import Rig
from tests.support.stand_in import StandIn
from tests.support.tables import check, runs, stored_ids
from tools.lab.children import broken_identities, wait_for
from tools.lab.clusters import Galera, run, value

pytestmark = [pytest.mark.clusters, pytest.mark.timeout(240)]

NAME = "test_galera"
WAIT_S_MAX = 60.0
FLAGS = ("--rate", "150", "--ping-interval", "0.5")


@pytest.fixture
def on(galera: Galera, tmp_path: Path) -> Iterator[list[config.Settings]]:
    """The settings of a database on each node."""
    yield [settings_of(node, NAME, tmp_path) for node in galera.nodes]
    run(galera, f"DROP DATABASE IF EXISTS {NAME}")


def test_two_nodes_cannot_store_past_each_other(on: list[config.Settings]) -> None:
    """Two transactions that both believe to be the last writer's: one of them is undone, and then finds the other's."""
    with closing(db.connect(on[0])) as one, closing(db.connect(on[1])) as other:
        assert one.certified
        assert other.certified
        db.insert_trades(one, stream(1, 10))
        other.token, other.spans = one.token, dict(one.spans)

        @guard
        def store_meanwhile() -> None:
            with transaction(one, ["BTCUSDT"]):
                assert db.insert_trades(other, stream(21, 10)) == 10

        with pytest.raises(db.ContentionError):
            store_meanwhile()
        assert db.insert_trades(one, stream(31, 10)) == 10
        for connection in (one, other):
            assert stored_ids(connection) == [*range(1, 11), *range(21, 41)]
            assert runs(connection) == [(11, 20)]
            check(connection)


def test_each_store_counts_the_token_up(on: list[config.Settings]) -> None:
    """So that each changes the row by which two nodes find each other, however few the trades and whichever way."""
    with closing(db.connect(on[0])) as one:
        tokens = []
        for first in range(1, 40, 2):
            db.insert_trades(one, stream(first, 2))
            tokens.append(session.select(one, "SELECT token FROM symbols")[0][0])
        assert tokens == sorted(set(tokens))
        assert tokens[-1] < one.token + (1 << session.TOKEN_BITS)
        # A request of several would go on after its transaction was undone.
        assert list(session._requests(one, ["BEGIN", "COMMIT"])) == [("BEGIN",), ("COMMIT",)]


def test_who_reads_on_another_node_sees_what_is_stored(on: list[config.Settings]) -> None:
    """At once, however far that node is behind."""
    with closing(db.connect(on[0])) as writer, closing(db.connect(on[2], read_only=False)) as reader:
        for number in range(1, 2_001, 100):
            db.insert_trades(writer, stream(number, 100))
            newest = db.latest(reader, "BTCUSDT")
            assert newest is not None
            assert newest.trade_id == number + 99


def test_two_captures_on_two_nodes_one_of_which_dies(galera: Galera, tmp_path: Path) -> None:
    """Both begin at once with nothing, connections are cut, trades lost, each capture's node is killed and comes back:
    nothing is lost, doubled or forgotten, and all nodes have the same tables."""
    with Rig(galera, tmp_path, FLAGS) as rig, ExitStack() as stack:
        captures = [
            stack.enter_context(
                rig.capture(
                    name=f"capture-{number}",
                    MYSQL_HOST=galera.hosts([(number + index) % 3 for index in range(3)]),
                    DATA_DIR=str(tmp_path / f"data-{number}"),
                )
            )
            for number in range(2)
        ]
        rig.stores()
        rig.exchange.fault("skip", seconds=60, probability=0.02, target="all")
        for node in galera.nodes[:2]:
            rig.exchange.fault("reset", target="all")
            rig.stores()
            node.kill()
            rig.exchange.fault("skip", count=25, target="all")
            rig.stores()
            assert "BTCUSDT" in report(rig.environ, "latest")
            began = time.monotonic()
            node.start()
            print(f"\nGalera: a node that was killed is back after {time.monotonic() - began:.1f} s")
            rig.stores()
        rig.settle()
        for number, capture in enumerate(captures):
            assert capture.starts == 1
            capture.stop()
            assert broken_identities(tmp_path / f"capture-{number}") == []
        assert_nodes_agree(rig, galera.nodes)


def test_history_is_brought_in_and_audited(galera: Galera, tmp_path: Path) -> None:
    """On the first node; on another one it equals the exchange's archive, row by row."""
    with StandIn(*EXCHANGE_FLAGS, *MORE) as exchange:
        case = Audited(galera, exchange.http, tmp_path)
        try:
            case.load(days_ago(2), days_ago(1))
            elsewhere = {"MYSQL_HOST": galera.hosts([2])}
            assert case.verdicts(**elsewhere) == (0, [("equal", ""), ("equal", "")])
        finally:
            run(galera, f"DROP DATABASE IF EXISTS {case.name}")


def test_a_node_that_is_cut_off_is_passed_over(galera: Galera, on: list[config.Settings], tmp_path: Path) -> None:
    """A node without the others answers, but is not ready: the next one is used."""
    every = config.load(galera.environ | {"MYSQL_DATABASE": NAME, "DATA_DIR": str(tmp_path)})
    db.close(db.connect(every))
    first = galera.nodes[0]
    run(first, "SET GLOBAL wsrep_provider_options = 'gmcast.isolate=1'")
    try:
        wait_for("the node is not ready", lambda: not first.ready(), WAIT_S_MAX)
        for read_only in (False, True):
            with closing(db.connect(every, read_only=read_only)) as connection:
                assert session.select(connection, "SELECT @@port") == [(galera.nodes[1].port,)]
        with pytest.raises(db.GoneError):
            db.connect(on[0])
    finally:
        run(first, "SET GLOBAL wsrep_provider_options = 'gmcast.isolate=0'")
    wait_for("the node is back", first.ready, WAIT_S_MAX)
    assert value(first, "SHOW STATUS LIKE 'wsrep_cluster_size'") == "3"


def test_what_it_costs(on: list[config.Settings]) -> None:
    """Measured; the figures are in docs/operations.md."""
    measure("Galera, three nodes", on[0])
