"""Clusters of private database servers: MariaDB Galera, MySQL group replication, and Spider with its shards.

Each has three nodes, on free ports of 127.0.0.1; any of them can be killed and started again. As with the single ones,
their data are disposable.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import mysql.connector

from mysqld import program
from process.child import ROOT
from storage import schema
from tools.lab.children import wait_for
from tools.lab.servers import PrivateServer, Server, free_port, short_folder

NODES = 3
JOIN_S_MAX = 60.0
RECOVER_S_MAX = 60.0
GALERA = ROOT / ".cache" / "galera" / "libgalera_smm.so"
SPIDER = ROOT / ".cache" / "spider" / "ha_spider.so"
"""Where tests/fetch_clusters.sh puts them."""
GROUP = "7d0b6f5e-2c1a-4c55-9d3f-6f1d2f0c8a11"
"""The name of the group is a UUID."""

Node = TypeVar("Node", bound=PrivateServer)


class Cluster(Server, Generic[Node]):
    """Several nodes as one server; `environ` names all of them, and connect() goes to the first that serves."""

    host = "127.0.0.1"
    socket_path = None

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = list(nodes)
        self.family, self.port = nodes[0].family, nodes[0].port

    @property
    def environ(self) -> dict[str, str]:
        """The MYSQL_* variables, with the nodes in their order."""
        return super().environ | {"MYSQL_HOST": self.hosts(range(len(self.nodes))), "MYSQL_PORT": ""}

    def hosts(self, order: Sequence[int]) -> str:
        """The value of MYSQL_HOST with the nodes of these indexes."""
        return ",".join(f"127.0.0.1:{self.nodes[index].port}" for index in order)

    def connect(self) -> Any:
        """A plain connection of the driver to the first node that serves."""
        for node in self.nodes[:-1]:
            with suppress(mysql.connector.Error):
                connection = node.connect()
                if self.serves(connection):
                    return connection
                connection.close()
        return self.nodes[-1].connect()

    def serves(self, connection: Any) -> bool:
        """Whether the node is one of the cluster; what it then tells is up to date."""
        del connection
        return True


def ask(connection: Any, sql: str) -> list[Any]:
    """The rows of a statement, which may have none."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def run(server: Server, *statements: str) -> None:
    """Runs statements on a server."""
    with server.connect() as connection:
        connection.autocommit = True
        for statement in statements:
            ask(connection, statement)


def value(server: Server, sql: str) -> Any:
    """The last column of the first row; None: there is no row, or the server does not answer."""
    with suppress(mysql.connector.Error), server.connect() as connection:
        rows = ask(connection, sql)
        return rows[0][-1] if rows else None
    return None


# ---- Galera.


class GaleraNode(PrivateServer):
    """A node of a Galera cluster; the members listen for each other at `members`, and this one is number `index`."""

    def __init__(
        self, binary: program.Binary, template: Path, folder: Path, members: Sequence[int], index: int
    ) -> None:
        shutil.copy(GALERA, folder / "galera.so")
        provider = {
            "gmcast.listen_addr": f"tcp://127.0.0.1:{members[index]}",
            "ist.recv_addr": f"127.0.0.1:{free_port()}",
            "gcache.size": "64M",
        }
        options = [
            "--wsrep-on=ON",
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            f"--wsrep-provider={folder / 'galera.so'}",
            f"--wsrep-provider-options={';'.join(f'{name}={text}' for name, text in provider.items())}",
            "--wsrep-cluster-name=lab",
            f"--wsrep-cluster-address=gcomm://{','.join(f'127.0.0.1:{port}' for port in members)}",
            f"--wsrep-node-name=node{index + 1}",
            f"--wsrep-node-address=127.0.0.1:{members[index]}",
            "--wsrep-sst-method=lab",
        ]
        super().__init__(binary, template, folder, options)
        # Accounts are replicated, and the program of a state transfer is looked for in PATH.
        bare = [option for option in self._command if not option.startswith("--init-file=")]
        self._bare = ["env", f"PATH={Path(__file__).parent}:{os.environ.get('PATH', os.defpath)}", *bare]
        self._command = self._bare

    def start(self) -> None:
        """Starts it where it stopped, and waits until it is a ready member of its cluster."""
        self.begin()
        wait_for("the node joins its cluster", self.ready, JOIN_S_MAX)

    def begin(self, first: bool = False) -> None:
        """Starts it, and does not wait for the others; `first`: it is the first of a new cluster."""
        recover = subprocess.run(
            [*self._bare, "--wsrep-recover"], capture_output=True, text=True, timeout=RECOVER_S_MAX, check=False
        )
        found = recover.stderr.partition("Recovered position:")[2].split()
        self._command = [
            *self._bare,
            *([f"--wsrep-start-position={found[0]}"] if found else []),
            *(["--wsrep-new-cluster"] if first else []),
        ]
        super().start()

    def ready(self) -> bool:
        """Whether it takes statements."""
        return bool(value(self, "SHOW STATUS LIKE 'wsrep_ready'") == "ON")


class Galera(Cluster[GaleraNode]):
    """Three nodes, each of which takes writes."""

    def serves(self, connection: Any) -> bool:
        """Whether it is ready; what was committed elsewhere is then waited for."""
        ask(connection, "SET SESSION wsrep_sync_wait = 1")
        return bool(ask(connection, "SHOW STATUS LIKE 'wsrep_ready'")[0][1] == "ON")


@contextmanager
def galera(binary: program.Binary, template: Path) -> Iterator[Galera]:
    """A running Galera cluster; all of it is gone at the end."""
    members = [free_port() for _ in range(NODES)]
    with ExitStack() as stack:

        def node(index: int, data: Path) -> GaleraNode:
            made = GaleraNode(binary, data, stack.enter_context(short_folder()), members, index)
            stack.callback(made.kill)
            return made

        first = node(0, template)
        first.begin(first=True)
        wait_for("the first node is ready", first.ready, JOIN_S_MAX)
        run(first, *_ROOT_BY_TCP)
        first.stop()
        # The others begin as copies of it, and then need no transfer of the whole.
        data = first.socket_path.parent / "data"
        for name in ("galera.cache", "gvwstate.dat"):
            (data / name).unlink(missing_ok=True)
        nodes = [first, *(node(index, data) for index in range(1, NODES))]
        first.begin(first=True)
        wait_for("the first node is ready", first.ready, JOIN_S_MAX)
        for other in nodes[1:]:
            other.start()
        yield Galera(nodes)


_ROOT_BY_TCP = (
    "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1'",
    "GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION",
)


# ---- Group replication.


class GroupNode(PrivateServer):
    """A node of a MySQL group with one primary; the members talk to each other at `members`, this one is `index`."""

    def __init__(
        self, binary: program.Binary, template: Path, folder: Path, members: Sequence[int], index: int
    ) -> None:
        group = {
            "group-name": GROUP,
            "start-on-boot": "OFF",
            "local-address": f"127.0.0.1:{members[index]}",
            "group-seeds": ",".join(f"127.0.0.1:{port}" for port in members),
            # The accounts of the group have passwords; without TLS they are sent encrypted by the server's key.
            "recovery-get-public-key": "ON",
            # A new primary first stores what the old one had committed.
            "consistency": "BEFORE_ON_PRIMARY_FAILOVER",
        }
        options = [
            f"--server-id={index + 1}",
            "--log-bin=binlog",
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            "--performance-schema=ON",
            # A node that starts takes no writes before it is in the group, which takes this off the primary.
            "--super-read-only=ON",
            "--report-host=127.0.0.1",
            "--plugin-load-add=group_replication.so",
            *(f"--loose-group-replication-{name}={text}" for name, text in group.items()),
        ]
        super().__init__(binary, template, folder, options)
        # The copies of one template are one server to each other; and what a node creates by itself is not the group's.
        (folder / "data" / "auto.cnf").unlink(missing_ok=True)
        self._command = [
            option for option in self._command if not option.startswith(("--init-file=", "--skip-log-bin"))
        ]

    def start(self) -> None:
        """Starts it, and waits until it is a member of its group, which has begun already."""
        self.begin()
        self.join()

    def begin(self) -> None:
        """Starts it; it is in no group yet."""
        super().start()

    def join(self, first: bool = False) -> None:
        """Lets it join the group; `first`: the group begins with it."""
        if first:
            run(self, "SET GLOBAL group_replication_bootstrap_group = ON")
        run(self, "START GROUP_REPLICATION")
        if first:
            run(self, "SET GLOBAL group_replication_bootstrap_group = OFF")
        wait_for("the node joins its group", self.ready, JOIN_S_MAX)

    def prepare(self) -> None:
        """Starts it for the first time, and gives it the accounts, which every node has before it joins."""
        super().start()
        run(
            self,
            "SET GLOBAL super_read_only = OFF",
            "SET sql_log_bin = 0",
            *_ROOT_BY_TCP,
            "SET sql_log_bin = 1",
            "CHANGE REPLICATION SOURCE TO SOURCE_USER = 'root' FOR CHANNEL 'group_replication_recovery'",
        )

    def ready(self) -> bool:
        """Whether it is a member of the group that is up to date."""
        return bool(value(self, _STATE.format(what="member_state")) == "ONLINE")

    def is_primary(self) -> bool:
        """Whether it is the one that takes writes."""
        return self.ready() and value(self, _STATE.format(what="member_role")) == "PRIMARY"


_STATE = "SELECT {what} FROM performance_schema.replication_group_members WHERE member_id = @@server_uuid"


class Group(Cluster[GroupNode]):
    """Three nodes, of which the primary takes writes."""

    def primary(self) -> GroupNode | None:
        """The node that takes writes now; None: there is none."""
        return next((node for node in self.nodes if node.is_primary()), None)

    def serves(self, connection: Any) -> bool:
        """Whether it is the primary."""
        return bool(ask(connection, _STATE.format(what="member_role")) == [("PRIMARY",)])


@contextmanager
def group(binary: program.Binary, template: Path) -> Iterator[Group]:
    """A running group of MySQL with one primary; all of it is gone at the end. Raises mysql.connector.Error if the
    server has no group replication."""
    members = [free_port() for _ in range(NODES)]
    with ExitStack() as stack:
        nodes = []
        for index in range(NODES):
            node = GroupNode(binary, template, stack.enter_context(short_folder()), members, index)
            stack.callback(node.kill)
            node.prepare()
            node.join(first=index == 0)
            nodes.append(node)
        yield Group(nodes)


# ---- Spider.


class Spider(Cluster[PrivateServer]):
    """A server that keeps no trades itself, and its two shards: `nodes` is that server alone, `shards` the others."""

    def __init__(self, front: PrivateServer, shards: Sequence[PrivateServer]) -> None:
        super().__init__([front])
        self.shards = list(shards)

    def create(self, database: str) -> None:
        """Creates the tables on the shards and the server: BTCUSDT is on the first shard, all else on the second."""
        run(*self._with_tables(self.shards[0], database))
        run(*self._with_tables(self.shards[1], database))
        servers = [
            f"CREATE OR REPLACE SERVER {database}_{number} FOREIGN DATA WRAPPER mysql OPTIONS (HOST '127.0.0.1',"
            f" PORT {shard.port}, USER 'root', PASSWORD '', DATABASE '{database}')"
            for number, shard in enumerate(self.shards, 1)
        ]
        tables = [SHARDED.format(table=table, server=database) for table in SHARDED_TABLES]
        run(*self._with_tables(self.nodes[0], database), *servers, *tables)

    def drop(self, database: str) -> None:
        """Drops the tables everywhere."""
        for server in (*self.nodes, *self.shards):
            run(server, f"DROP DATABASE IF EXISTS {database}")

    def _with_tables(self, server: PrivateServer, database: str) -> tuple[Any, ...]:
        create = f"CREATE DATABASE {database} CHARACTER SET utf8mb4"
        return (server, create, f"USE {database}", *schema.statements())


SHARDED_TABLES = ("trades", "candles", "gaps", "symbols", "archive_files")
"""Those that have a symbol in their key; `proofs` is one chain, and stays on the server itself."""
SHARDED = (
    'ALTER TABLE {table} ENGINE = SPIDER COMMENT = \'wrapper "mysql", table "{table}"\''
    " PARTITION BY LIST COLUMNS (symbol) (PARTITION first VALUES IN ('BTCUSDT') COMMENT = 'srv \"{server}_1\"',"
    " PARTITION others DEFAULT COMMENT = 'srv \"{server}_2\"')"
)


@contextmanager
def spider(binary: program.Binary, template: Path) -> Iterator[Spider]:
    """A running server with Spider and two shards; all of it is gone at the end."""
    with ExitStack() as stack:

        def server(*options: str) -> PrivateServer:
            made = PrivateServer(binary, template, stack.enter_context(short_folder()), options)
            made.start()
            stack.callback(made.kill)
            return made

        # What Spider does not pass on: a lock is waited for as long as the shard says.
        shards = [server("--innodb-lock-wait-timeout=5") for _ in range(2)]
        yield Spider(server(f"--plugin-dir={SPIDER.parent}", "--plugin-load-add=ha_spider"), shards)
