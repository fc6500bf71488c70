"""Exchange, capture and database joined: disturb them, let them settle, and compare every trade."""

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import mysql.connector

from tests.support.servers import Server
from tools.lab.children import Capture, Exchange, RigError, wait_for
from tools.lab.verdict import Comparison, compare, fetch_truth

SYMBOLS = ("BTCUSDT", "ETHUSDT")
SETTLE_S_MAX = 45.0
LIFE_S_MAX = 300
"""Should the tests be killed, what they started ends by itself so long after."""
EXCHANGE_FLAGS = ("--connect-limit", "0", "--rest-lag", "0.05", "--duration", str(LIFE_S_MAX), "--after-end", "exit")
PATCHED = ("-m", "tests.support.patched_capture", "--duration", str(LIFE_S_MAX))
REAL = ("ws_client.py", "--duration", str(LIFE_S_MAX))

QUICK: dict[str, Any] = {
    "capture.gap_filler.LOOK_S": 0.1,
    "capture.gap_filler.GRACE_S": 0.2,
    "capture.gap_filler.CONFIRM_S": 0.1,
    "capture.gap_filler.AGAIN_S": 0.1,
    "capture.gap_filler.AGAIN_S_MAX": 0.5,
    "process.retry.BACKOFF_S_MIN": 0.05,
    "process.retry.BACKOFF_S_MAX": 0.5,
    "binance.limits.CONNECTS_WINDOW_S": 5.0,
    "ws_client.CONNECT_S_MAX": 1.0,
    "binance.rest.READ_S_MAX": 1.0,
    "storage.session.CONNECT_S_MAX": 1,
    "storage.session.WRITE_S_MAX": 2,
    "storage.session.LOCK_WAIT_S_MAX": 1,
    "capture.writer.NOT_WRITABLE_S_MIN": 0.2,
    "capture.sealer.LOOK_S": 0.05,
    "capture.sealer.FINE_TRADES_MIN": 50,
    "limits": {"silent_s_max": 2.0, "behind_s_max": 0.5, "take_over_s_max": 5.0},
}
"""The real behaviour with shorter waits, so that a fault is over in a second."""


class Rig:
    """A capture of `symbols` from a stand-in exchange into a database of its own on `server`, in `folder`. Use it in a
    `with` block, at whose end all of it is gone."""

    def __init__(
        self, server: Server, folder: Path, flags: Sequence[str] = (), symbols: Sequence[str] = SYMBOLS
    ) -> None:
        self.server, self.folder, self.symbols = server, folder, symbols
        self.database = f"rig_{uuid.uuid4().hex[:12]}"
        self._captures: list[Capture] = []
        self._stack = ExitStack()
        self.exchange = Exchange(folder, *EXCHANGE_FLAGS, *flags)
        self._stack.callback(self.exchange.kill)

    def __enter__(self) -> "Rig":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        # The test may have killed the server.
        with suppress(mysql.connector.Error), self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {self.database}")

    @property
    def environ(self) -> dict[str, str]:
        """The settings that join the three."""
        environ = self.server.environ | self.exchange.environ | {"MYSQL_DATABASE": self.database}
        return environ | {"DATA_DIR": str(self.folder / "data"), "SYMBOLS": ",".join(self.symbols)}

    def capture(
        self,
        arguments: Sequence[str] = PATCHED,
        patches: Mapping[str, Any] | None = None,
        name: str = "capture",
        **environ: str,
    ) -> Capture:
        """A capture that is not started yet; `patches` (default: QUICK) are for PATCHED ones."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        wanted = json.dumps(QUICK if patches is None else patches)
        capture = Capture({**self.environ, "PATCHES": wanted, **environ}, folder, arguments)
        self._stack.callback(capture.__exit__, None, None, None)
        self._captures.append(capture)
        return capture

    def rows(self, sql: str, *values: object) -> list[Any]:
        """What a query of the test gives; `{}` in it stands for the database."""
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql.format(self.database), values)
            rows: list[Any] = cursor.fetchall()
        return rows

    def newest_stored(self) -> dict[str, int]:
        """Per symbol the highest stored id, 0 when there is none."""
        try:
            rows = self.rows("SELECT symbol, MAX(trade_id) FROM {}.trades GROUP BY symbol")
        except mysql.connector.Error:
            # There is no such table yet, or no server.
            rows = []
        return {**dict.fromkeys(self.symbols, 0), **dict(rows)}

    def open_gaps(self) -> list[tuple[str, int, int, str]]:
        """Symbol, first and last missing id and reason of each open gap."""
        sql = "SELECT symbol, first_trade_id, last_trade_id, reason FROM {}.gaps WHERE filled_at IS NULL"
        return self.rows(f"{sql} ORDER BY symbol, first_trade_id")

    def stores(self, seconds: float = SETTLE_S_MAX) -> None:
        """Returns when a trade of each symbol is stored that was emitted after the call."""
        newest = self.exchange.newest()

        def stored() -> bool:
            started = [capture for capture in self._captures if capture.starts]
            if not any(capture.running() for capture in started):
                raise RigError(f"no capture runs\n{started[-1].process.last_words()}")
            found = self.newest_stored()
            return all(found[symbol] > newest[symbol] for symbol in self.symbols)

        wait_for("what was emitted is stored", stored, seconds)

    def settle(self, seconds: float = SETTLE_S_MAX) -> None:
        """Ends all faults, and waits until what was emitted so far is stored and the tables are what was traded, from
        the first stored trade on. At every moment the open gaps must list exactly what is missing."""
        self.exchange.clear()
        self.stores(seconds)
        if not self._exact():
            wait_for("no gap is open", lambda: not self.open_gaps(), seconds)
            wait_for("the tables are what was traded", self._exact, seconds)

    def _exact(self) -> bool:
        compared = self.compared()
        assert all(one.consistent for one in compared), "\n".join(map(str, compared))
        return all(one.exact for one in compared)

    def compared(self) -> list[Comparison]:
        """The tables as they are now against what was emitted."""
        with self.server.connect() as connection:
            return [
                compare(connection, self.database, symbol, fetch_truth(self.exchange.http, symbol))
                for symbol in self.symbols
            ]
