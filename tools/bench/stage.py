"""Shared by the parts of the benchmark: a durable server, the feed and its readers, and a watcher of the database."""

import json
import math
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import mysql.connector

import config
import db
from mysqld import program
from process.child import ROOT
from tools.bench.feed import MARKET_RATE
from tools.lab.children import Capture, Process, RigError
from tools.lab.servers import PrivateServer
from tools.lab.tls import make_certificate, server_options

ANSWER_S_MAX = 180.0
"""How long a child may take for an answer; encoding 100,000 frames takes one second."""
END_S_MAX = 10.0
CAPTURE_S_MAX = 900.0
"""Longer than any part takes."""
POLL_S = 0.005
"""How often to look for the last row: the resolution of the rates, half a per cent of a second."""
VISIBLE_S_MAX = 180.0

_UNSET = (
    "MYSQL_HOST",
    "MYSQL_PORT",
    "MYSQL_PASSWORD",
    "MYSQL_PASSWORD_FILE",
    "MYSQL_SSL_CA",
    "MYSQL_TLS",
    "MYSQL_COMPRESS",
    "SYMBOLS",
    "BINANCE_ARCHIVE_URL",
)


class BenchServer(PrivateServer):
    """A server with exactly the settings of the private one that users get, durability included."""

    def __init__(self, binary: program.Binary, template: Path, folder: Path) -> None:
        super().__init__(binary, template, folder)
        self.version = binary.version
        # The comparisons need LOAD DATA LOCAL, which MySQL refuses by default.
        self._command = [
            *program.command(binary, folder / "data", self.socket_path, folder / "pid"),
            "--local-infile=1",
        ]

    @contextmanager
    def over_tls(self, folder: Path) -> Iterator[Path]:
        """The block has the server listen on its port of 127.0.0.1, with TLS, and gets the certificate of its CA."""
        make_certificate(folder, "bench")
        network = ["--skip-networking=0", "--bind-address=127.0.0.1", f"--init-file={self._folder / 'accounts.sql'}"]
        before = self._command
        self._restart([*before, *network, *server_options(folder, "bench")])
        try:
            yield folder / "bench-ca.pem"
        finally:
            self._restart(before)

    def _restart(self, command: list[str]) -> None:
        self.stop()
        self._command = command
        self.start()

    def connect_to(self, database: str) -> Any:
        """A plain connection of the driver that may load files, and sees each commit at once."""
        return mysql.connector.connect(
            unix_socket=str(self.socket_path),
            user=self.user,
            password=self.password,
            database=database,
            charset="utf8mb4",
            collation="utf8mb4_bin",
            autocommit=True,
            allow_local_infile=True,
        )


class Bench(NamedTuple):
    """What a part gets: the server, a folder for its files, whether to use only small sizes, and whether to keep the
    table of the queries."""

    server: BenchServer
    folder: Path
    quick: bool
    keep: bool

    def settings(self, database: str) -> config.Settings:
        """The settings for a database, with a DATA_DIR of its own."""
        folder = self.folder / database
        folder.mkdir(exist_ok=True)
        return self.server.settings(database, folder)

    @contextmanager
    def database(self, name: str, keep: bool = False) -> Iterator[config.Settings]:
        """The settings of a new database `name` with the tables in it; it is dropped at the end, unless `keep` is true
        and nothing was raised."""
        self._drop(name)
        settings = self.settings(name)
        db.close(db.connect(settings))
        try:
            yield settings
        except BaseException:
            self._drop(name)
            raise
        if not keep:
            self._drop(name)

    def has_database(self, name: str) -> bool:
        """Whether there already is a database with that name."""
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW DATABASES")
            return name in [found for (found,) in cursor.fetchall()]

    def _drop(self, name: str) -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name}")

    def child_environ(self, database: str, feed: "Feed") -> dict[str, str]:
        """The variables for a child: those of environ(), and the feed's group of the same name."""
        return {
            **self.environ(database),
            "BINANCE_WS_URL": f"{feed.ws}/{database}",
            "BINANCE_REST_URL": feed.http,
        }

    def environ(self, database: str) -> dict[str, str]:
        """The variables of a database, by the socket as with the private server; none of the user's settings."""
        return {
            **dict.fromkeys(_UNSET, ""),
            "MYSQL_UNIX_SOCKET": str(self.server.socket_path),
            "MYSQL_USER": self.server.user,
            "MYSQL_DATABASE": database,
            "DATA_DIR": str(self.folder / database),
        }

    def capture(self, database: str, feed: "Feed", *flags: str, way: Mapping[str, str] | None = None) -> Capture:
        """`python ws_client.py` in that environment; `way`: the variables of another way to the server."""
        # If this process is killed, the capture ends by itself some time later.
        flags = ("--duration", f"{CAPTURE_S_MAX:.0f}", *flags)
        environ = self.child_environ(database, feed) | dict(way or {})
        return Capture(environ, self.folder / database, ("ws_client.py", *flags))

    def log(self, name: str) -> Path:
        """The log file of a child with that name."""
        return self.folder / f"{name}.log"


class Child:
    """A child that writes lines of JSON; it ends with the `with` block, or on its own when this process ends."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(END_S_MAX)

    def tell(self, order: Mapping[str, object]) -> None:
        """Sends one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """The next line. Raises RigError if there is none."""
        try:
            line = self._lines.get(timeout=ANSWER_S_MAX)
        except queue.Empty:
            line = b""
        if not line:
            raise RigError(f"{self._process.args!r} gave no answer (exit code {self._process.poll()})")
        return json.loads(line)


class Feed(Child):
    """The feeder; `ws` and `http` are its addresses."""

    def __init__(self, *symbols: str, market_rate: float = MARKET_RATE) -> None:
        super().__init__(["-m", "tools.bench.feed", str(market_rate), *symbols])
        port = self.answer()["port"]
        self.ws, self.http = f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}"

    def __enter__(self) -> "Feed":
        return self

    def order(self, do: str, **fields: object) -> Any:
        """The answer to an order (bench_feed.Feed)."""
        self.tell({"do": do, **fields})
        return self.answer()


class Look(NamedTuple):
    """The newest id that was visible, and the end of the look in nanoseconds of the monotonic clock."""

    ns: int
    newest: int


class Watcher:
    """A connection other than the writer's, which checks how far the stored trades of a symbol have come."""

    def __init__(
        self, server: BenchServer, database: str, symbol: str, before_ms: int | None = None, table: str = "trades"
    ) -> None:
        self._connection = server.connect_to(database)
        self._cursor = self._connection.cursor()
        bound = "" if before_ms is None else f" AND timestamp < '{sql_time(before_ms)}'"
        # Both orders together read the index from its end.
        self._sql = (
            f"SELECT trade_id FROM {table} WHERE symbol = '{symbol}'{bound}"
            " ORDER BY timestamp DESC, trade_id DESC LIMIT 1"
        )

    def newest_id(self) -> int:
        """The id of the newest visible trade; 0 before the first."""
        self._cursor.execute(self._sql)
        rows = self._cursor.fetchall()
        return int(rows[0][0]) if rows else 0

    def look(self) -> Look:
        """The newest visible trade now."""
        newest = self.newest_id()
        return Look(time.monotonic_ns(), newest)

    def wait_for(self, trade_id: int, process: Process | None = None) -> Look:
        """The first look that sees a trade with this id or a later one; looks are POLL_S apart.

        Raises RigError if there is none within VISIBLE_S_MAX, or if `process`, which should store it, has ended.
        """
        until = time.monotonic() + VISIBLE_S_MAX
        while True:
            ended = process is not None and process.exit_code is not None
            look = self.look()
            if look.newest >= trade_id:
                return look
            if ended or time.monotonic() > until:
                words = process.last_words() if process is not None else ""
                raise RigError(f"trade {trade_id} is not visible, but {look.newest} is\n{words}")
            time.sleep(POLL_S)

    def age_ms(self) -> float:
        """How old the newest visible trade is, by its own time and this machine's clock, in milliseconds."""
        self._cursor.execute(self._sql.replace("trade_id", "timestamp", 1))
        rows = self._cursor.fetchall()
        now = datetime.now(UTC).replace(tzinfo=None)
        return float((now - rows[0][0]).total_seconds() * 1_000) if rows else math.inf

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def sql_time(milliseconds: int) -> str:
    """A count of milliseconds since 1970 as SQL text, in UTC."""
    whole, rest = divmod(milliseconds, 1_000)
    return f"{datetime.fromtimestamp(whole, UTC).isoformat(' ')[:19]}.{rest:03d}"


class Stage(NamedTuple):
    """A capture that reads from its group of the feed into the database `name`."""

    bench: Bench
    name: str
    feed: Feed
    capture: Capture


@contextmanager
def stage(
    bench: Bench, name: str, connections: int, market_rate: float = MARKET_RATE, way: Mapping[str, str] | None = None
) -> Iterator[Stage]:
    """A connected capture that has stored nothing yet; at the end it must have stored everything it was sent. `way`:
    the variables of another way to the server than its socket."""
    with (
        Feed(market_rate=market_rate) as feed,
        bench.database(name),
        bench.capture(name, feed, "--connections", str(connections), way=way) as capture,
    ):
        feed.order("wait", to=name, connections=connections)
        yield Stage(bench, name, feed, capture)
        stop_lossless(capture)


def stop_lossless(capture: Capture) -> None:
    """Stops a capture. Raises RigError unless everything that it read is in the database."""
    summary = capture.stop(signal.SIGTERM)
    found = re.search(r"dropped (\d+).* left over (\d+)", summary)
    if not found or found.groups() != ("0", "0"):
        raise RigError(f"the capture lost trades, so the run does not count:\n{summary}")


def say(text: str) -> None:
    """Prints progress to stderr, apart from the result."""
    print(text, file=sys.stderr, flush=True)
