"""MySQL group replication with one primary: it is killed, and the capture goes on with the next one."""

import time
from contextlib import closing, suppress
from pathlib import Path

import mysql.connector
import pytest

import config
import db
from storage import session
from tests.clusters.support import assert_nodes_agree, measure, settings_of
from tests.conftest import _Farm
from tests.makers import stream
from tests.support.harness import Rig
from tools.lab.children import broken_identities, wait_for
from tools.lab.clusters import Group, run, value
from tools.lab.servers import Server

pytestmark = [pytest.mark.clusters, pytest.mark.timeout(240)]

NAME = "test_group"
FLAGS = ("--rate", "150", "--ping-interval", "0.5")
FAILOVER_S_MAX = 90.0


def test_who_writes_goes_to_the_primary(group: Group, tmp_path: Path) -> None:
    """Wherever it is in the list; who reads goes to the first node, and what is stored arrives there."""
    primary = group.primary()
    assert primary is not None
    last = [index for index, node in enumerate(group.nodes) if node is primary]
    first = [index for index, node in enumerate(group.nodes) if node is not primary]
    every = config.load(
        group.environ | {"MYSQL_HOST": group.hosts(first + last), "MYSQL_DATABASE": NAME, "DATA_DIR": str(tmp_path)}
    )
    try:
        with closing(db.connect(every)) as writer:
            assert session.select(writer, "SELECT @@port") == [(primary.port,)]
            assert not writer.certified
            db.insert_trades(writer, stream(1, 10))
        secondary = group.nodes[first[0]]
        wait_for("it arrives", lambda: _has_trades(settings_of(secondary, NAME, tmp_path)), FAILOVER_S_MAX)
        with closing(db.connect(every, read_only=True)) as reader:
            assert session.select(reader, "SELECT @@port") == [(secondary.port,)]
        with closing(db.connect(settings_of(secondary, NAME, tmp_path))) as alone, pytest.raises(db.NotWritableError):
            db.insert_trades(alone, stream(11, 10))
    finally:
        run(group, f"DROP DATABASE IF EXISTS {NAME}")


def test_who_asks_passes_over_a_node_that_left_the_group(group: Group, tmp_path: Path) -> None:
    """Whether it writes or only reads, and whatever the node takes: what is stored there never reaches the others."""
    left, *others = sorted(group.nodes, key=lambda node: node.is_primary())
    order = [group.nodes.index(node) for node in (left, *others)]
    run(group, "CREATE USER 'half'@'%'", f"GRANT ALL ON {NAME}.* TO 'half'@'%'")
    environ = group.environ | {"MYSQL_HOST": group.hosts(order), "MYSQL_DATABASE": NAME, "DATA_DIR": str(tmp_path)}
    every = config.load(environ)
    try:
        db.close(db.connect(every))
        run(left, "STOP GROUP_REPLICATION", "SET GLOBAL read_only = OFF")
        for read_only in (False, True):
            with closing(db.connect(every, read_only=read_only)) as connection:
                assert session.select(connection, "SELECT @@port") != [(left.port,)]
        # An account that may not ask is let in, as ever.
        with closing(db.connect(every._replace(mysql_user="half"), read_only=True)) as connection:
            assert session.select(connection, "SELECT @@port") == [(left.port,)]
    finally:
        left.join()
        run(group, f"DROP DATABASE IF EXISTS {NAME}", "DROP USER 'half'@'%'")


def test_a_node_that_starts_takes_no_writes(group: Group) -> None:
    """Before it is in its group again, whoever asks."""
    node = next(node for node in group.nodes if not node.is_primary())
    node.kill()
    node.begin()
    try:
        assert value(node, "SELECT @@super_read_only") == 1
        with pytest.raises(mysql.connector.Error, match="read-only"):
            run(node, f"CREATE DATABASE {NAME}")
    finally:
        node.join()


def _has_trades(settings: config.Settings) -> bool:
    """Whether trades, and before them the tables, have arrived on a node."""
    with suppress(db.NothingError), closing(db.connect(settings, read_only=True)) as connection:
        return db.latest(connection, "BTCUSDT") is not None
    return False


@pytest.fixture
def alone(_farm: _Farm) -> Server:
    """A server that is in no group."""
    return _farm.shared("mysql")


def test_what_it_costs(group: Group, alone: Server, tmp_path: Path) -> None:
    """Measured, beside a server that is in no group; the figures are in docs/operations.md."""
    for name, server in {"Group replication, three nodes": group, "MySQL alone": alone}.items():
        try:
            measure(name, settings_of(server, NAME, tmp_path))
        finally:
            run(server, f"DROP DATABASE IF EXISTS {NAME}")


def test_a_capture_survives_the_death_of_the_primary(group: Group, tmp_path: Path) -> None:
    """Trades wait on the disk until there is a new one; the old one comes back, and all nodes have what was traded."""
    with Rig(group, tmp_path, FLAGS) as rig, rig.capture() as capture:
        rig.stores()
        rig.exchange.fault("skip", seconds=60, probability=0.02, target="all")
        old = group.primary()
        assert old is not None
        began = time.monotonic()
        old.kill()
        wait_for("trades wait on the disk", lambda: "wait on the disk" in capture.process.log.read_text(), 30.0)
        wait_for("there is a new primary", lambda: group.primary() not in (None, old), FAILOVER_S_MAX)
        rig.stores(FAILOVER_S_MAX)
        took_s = time.monotonic() - began
        print(f"\nGroup replication: trades are stored again {took_s:.1f} s after its primary was killed")
        old.start()
        rig.settle()
        assert capture.starts == 1
        capture.stop()
        assert broken_identities(tmp_path / "capture") == []
        assert_nodes_agree(rig, group.nodes)
