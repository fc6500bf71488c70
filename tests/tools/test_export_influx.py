"""The export's line protocol in a real InfluxDB (Debian's), by the commands of docs/operations.md, and read back."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from model.times import EPOCH
from model.trade import Trade
from process.child import ROOT
from tests.support.servers import Server
from tests.support.tables import ask, store
from tests.support.until_stdin_closes import running
from tools.lab.children import wait_for
from tools.lab.servers import free_port
from tools.lab.verdict import DIRECT

INFLUXD = ROOT / ".cache" / "influxdb" / "usr" / "bin" / "influxd"
S_MAX = 40.0
MICROSECOND = timedelta(microseconds=1)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not INFLUXD.exists(), reason="no InfluxDB; `make test` fetches it on Debian"),
]

CONFIG = """\
reporting-disabled = true
bind-address = "127.0.0.1:{backup}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[monitor]
  store-enabled = false
"""

BITCOIN, COIN = "BTCUSDT", "币安人生"
AMOUNTS = ["93576.01", "0.003127", "0.00000001", "61838", "12345678.00000001", "999999999999.99999999"]


def tape() -> list[Trade]:
    """Two symbols, of which each has ten trades a millisecond, on both sides of an id that ends with six zeros."""
    start, made = datetime(2026, 11, 25, 23, 59, 59, 990_000, UTC), []
    for symbol in (BITCOIN, COIN):
        for n in range(100):
            amount, at = Decimal(AMOUNTS[n % len(AMOUNTS)]), start + n // 10 * timedelta(milliseconds=1)
            received = at + n * MICROSECOND if n % 3 else None
            made.append(Trade(symbol, at, 6_123_999_950 + n, amount, amount, n % 2 == 0, received))
    return made


@pytest.fixture(scope="module")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an InfluxDB with a folder of its own."""
    folder, port = tmp_path_factory.mktemp("influx"), free_port()
    (folder / "influxdb.conf").write_text(CONFIG.format(folder=folder, port=port, backup=free_port()))
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return bool(DIRECT.open(f"{address}/ping", timeout=S_MAX).status == 204)
        except urllib.error.URLError:
            return False

    with running([str(INFLUXD), "-config", str(folder / "influxdb.conf")], folder / "influxd.log"):
        wait_for("InfluxDB answers", answers, S_MAX)
        yield address
        DIRECT.open(f"{address}/query", urllib.parse.urlencode({"q": "DROP DATABASE trades"}).encode(), timeout=S_MAX)


class Loaded(NamedTuple):
    """An InfluxDB at `address` with the tape, brought there by the commands of the document: what they printed, and the
    folder with their files."""

    address: str
    printed: str
    folder: Path

    def lines(self, name: str) -> bytes:
        """An export."""
        return (self.folder / name).read_bytes()

    def manifest(self, name: str) -> Any:
        """What the export says of itself."""
        return json.loads(self.lines(f"{name}.manifest.json"))


@pytest.fixture(scope="module")
def loaded(influx: str, any_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """The commands, run once; the same export with numbers is in numbers.lp."""
    folder, database = tmp_path_factory.mktemp("exports"), f"test_{uuid.uuid4().hex[:12]}"
    store(any_server.settings(database, folder), tape())
    # As in a terminal with the virtual environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    names = {"MYSQL_DATABASE": database, "PATH": path, "PYTHONPATH": str(ROOT), "no_proxy": "*"}
    environ = os.environ | any_server.environ | names
    yield Loaded(
        influx, run(f"{commands(influx)}\npython -m tools.export influx numbers.lp >log", environ, folder), folder
    )
    with any_server.connect() as connection:
        ask(connection, f"DROP DATABASE {database}")


def read(address: str, sql: str) -> dict[str, list[dict[str, Any]]]:
    """What InfluxDB answers, by symbol; numbers as the decimals that it wrote, times in nanoseconds."""
    words = urllib.parse.urlencode({"db": "trades", "epoch": "ns", "q": f"{sql} GROUP BY symbol"})
    with DIRECT.open(f"{address}/query?{words}", timeout=S_MAX) as reply:
        (result,) = json.loads(reply.read(), parse_float=Decimal)["results"]
    return {
        one["tags"]["symbol"]: [dict(zip(one["columns"], row, strict=True)) for row in one["values"]]
        for one in result.get("series", [])
    }


def written(address: str, body: bytes) -> tuple[int, str]:
    """The status and the words of InfluxDB for these lines."""
    request = urllib.request.Request(f"{address}/write?db=trades", body)
    try:
        with DIRECT.open(request, timeout=S_MAX) as reply:
            return reply.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def commands(address: str) -> str:
    """Those of the document, for this InfluxDB, and with a few lines in a part."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^### Into InfluxDB\n.*?```sh\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    assert "http://localhost:8086" in block
    assert "-l 100000" in block
    return str(block).replace("http://localhost:8086", address).replace("-l 100000", "-l 30")


def run(script: str, environ: dict[str, str], folder: Path) -> str:
    """What a shell prints that runs `script` in `folder`, and stops at the first error."""
    done = subprocess.run(
        ["sh", "-eu", "-c", script], cwd=folder, env=environ, capture_output=True, text=True, timeout=S_MAX
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def point(trade: Trade, price: object, quantity: object) -> dict[str, Any]:
    """The point that a trade must be."""
    received = trade.received_at
    return {
        "time": (trade.timestamp - EPOCH) // MICROSECOND * 1_000 + trade.trade_id % 1_000_000,
        "trade_id": trade.trade_id,
        "price": price,
        "quantity": quantity,
        "buyer_is_maker": trade.buyer_is_maker,
        "received_at": None if received is None else (received - EPOCH) // MICROSECOND,
    }


def in_order(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of InfluxDB: within a millisecond that of the last six digits of the id."""
    return sorted(points, key=lambda one: int(one["time"]))


def test_every_trade_comes_back_with_all_its_digits(loaded: Loaded) -> None:
    """By the commands of the document: ten trades of a millisecond stay ten. Done again, nothing is there twice."""
    answer = json.loads(loaded.printed.splitlines()[-1])
    counted = {one["tags"]["symbol"]: one["values"][0][1] for one in answer["results"][0]["series"]}
    told = loaded.manifest("trades.lp")["symbols"]
    assert counted == {part["symbol"]: part["rows"] for part in told} == {BITCOIN: 100, COIN: 100}
    for _ in range(2):
        found = read(loaded.address, "SELECT * FROM trades")
        for symbol in (BITCOIN, COIN):
            points = [point(one, f"{one.price:.8f}", f"{one.quantity:.8f}") for one in tape() if one.symbol == symbol]
            assert found[symbol] == in_order(points)
        assert written(loaded.address, loaded.lines("trades.lp")) == (204, "")


def test_numbers_come_back_as_floats_and_what_they_lose_was_said(loaded: Loaded) -> None:
    """InfluxDB can reckon with them; those that have changed are as many as the manifest says."""
    lines = loaded.lines("numbers.lp").replace(b"trades,", b"numbers,")
    assert written(loaded.address, lines) == (204, "")
    found, changed = read(loaded.address, "SELECT * FROM numbers"), 0
    for symbol in (BITCOIN, COIN):
        trades = [one for one in tape() if one.symbol == symbol]
        points = [point(one, float_of(one.price), float_of(one.quantity)) for one in trades]
        assert found[symbol] == in_order(points)
        changed += sum((one.price != float_of(one.price)) + (one.quantity != float_of(one.quantity)) for one in trades)
    assert changed == loaded.manifest("numbers.lp")["amounts_inexact_as_float"] > 0
    (high,) = read(loaded.address, "SELECT MAX(price) FROM numbers")[BITCOIN]
    assert high["max"] == float_of(Decimal(AMOUNTS[-1]))


def float_of(amount: Decimal) -> Decimal:
    """What is left of it in a 64-bit float."""
    return Decimal(repr(float(amount)))


def test_a_database_has_text_or_numbers(loaded: Loaded) -> None:
    """The second kind is refused, and the first stays."""
    status, words = written(loaded.address, loaded.lines("numbers.lp"))
    assert (status, "field type conflict" in words) == (400, True)
    assert read(loaded.address, "SELECT LAST(price) FROM trades")[COIN][0]["last"] == "61838.00000000"


def test_times_without_the_ids_would_lose_trades(loaded: Loaded) -> None:
    """So that the first test can fail: by the millisecond alone, one trade of ten is left."""
    floored = re.sub(rb"\d{6}\n", b"000000\n", loaded.lines("trades.lp")).replace(b"trades,", b"floored,")
    assert written(loaded.address, floored) == (204, "")
    found = read(loaded.address, "SELECT * FROM floored")
    assert {symbol: len(points) for symbol, points in found.items()} == {BITCOIN: 10, COIN: 10}
