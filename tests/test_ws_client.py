"""The capture end to end: `python ws_client.py` as a process, the stand-in exchange, and a real database server."""

import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

import ws_client
from binance import checks
from process.child import ROOT
from tests.support.harness import PATCHED, QUICK, REAL, Rig
from tests.support.servers import PrivateServer, Server
from tools.exchange.malformed import MALFORMED
from tools.lab.children import Capture, wait_for

pytestmark = pytest.mark.slow

WAIT_S_MAX = 30.0
TAPE = ROOT.parent / "shared" / "data" / "2024-08-08_btcusdt_ethusdt_trades.ndjson.gz"
TAPE_TRADES = 15_836
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ROWS = "SELECT symbol, timestamp, trade_id, price, quantity, buyer_is_maker FROM {}.trades ORDER BY symbol, trade_id"


def counters(summary: str) -> dict[str, int]:
    """The numbers of the summary, by name; fails unless each parsed trade has exactly one fate."""
    found = {name: int(number) for name, number in re.findall(r"([a-z][a-z ]*?) (\d+)", summary)}
    fates = ("inserted", "duplicate", "dropped", "left over")
    assert found["parsed"] == sum(found[fate] for fate in fates), summary
    return found


def wait_for_end(rig: Rig, trades: int) -> None:
    """Until the tape has ended and so many trades are stored."""
    wait_for("the tape has ended", lambda: rig.exchange.state()["tape"] == "ended", WAIT_S_MAX)

    def stored() -> bool:
        with suppress(mysql.connector.Error):
            return bool(rig.rows("SELECT COUNT(*) FROM {}.trades")[0][0] >= trades)
        return False

    wait_for("all trades are stored", stored, WAIT_S_MAX)


def check_counters(found: dict[str, int], trades: int, connections: int) -> None:
    """Each trade was inserted once; the slower connections may have been stopped before they had read all of it."""
    assert found["inserted"] == trades
    assert found["parsed"] == trades + found["duplicate"]
    assert found["duplicate"] <= trades * (connections - 1)


def tape_rows() -> list[tuple[Any, ...]]:
    """The trades of the recorded tape, as the table is to hold them."""
    rows = []
    with gzip.open(TAPE, "rt") as lines:
        for line in lines:
            trade = json.loads(line.partition(" ")[2])["data"]
            when = _EPOCH + timedelta(milliseconds=trade["T"])
            rows.append((trade["s"], when, trade["t"], Decimal(trade["p"]), Decimal(trade["q"]), trade["m"]))
    return sorted(rows, key=lambda row: (row[0], row[2]))


def stored_rows(rig: Rig) -> list[tuple[Any, ...]]:
    """The whole table, in the order of symbol and id."""
    return [(row[0], row[1].replace(tzinfo=UTC), *row[2:5], bool(row[5])) for row in rig.rows(ROWS)]


def capture_the_tape(server: Server, folder: Path, connections: int) -> None:
    """All of the recorded tape at full speed, and each field of each row as in the file."""
    if not TAPE.exists():
        pytest.skip(f"the recorded tape is not here: {TAPE}")
    flags = ("--replay", str(TAPE), "--speed", "full", "--wait-clients", str(connections), "--after-end", "stay")
    with Rig(server, folder, flags) as rig:
        with rig.capture((*REAL, "--connections", str(connections))) as capture:
            wait_for_end(rig, TAPE_TRADES)
            found = counters(capture.stop())
        rows = stored_rows(rig)
        assert len(rows) == TAPE_TRADES
        assert rows == tape_rows()
        assert rig.rows("SELECT COUNT(*) FROM {}.gaps") == [(0,)]
        assert rig.rows("SELECT COUNT(*) FROM {}.trades WHERE received_at IS NULL") == [(0,)]
        check_counters(found, TAPE_TRADES, connections)


def test_the_recorded_tape(server: Server, tmp_path: Path) -> None:
    """15,836 real frames at full speed are in the table, field by field, on each family of servers."""
    capture_the_tape(server, tmp_path, 2)


@pytest.mark.parametrize("connections", [1, 4])
def test_the_recorded_tape_over_other_numbers_of_connections(
    any_server: Server, tmp_path: Path, connections: int
) -> None:
    """However many connections read it, each trade is stored once."""
    capture_the_tape(any_server, tmp_path, connections)


@pytest.mark.parametrize("connections", [1, 2, 4])
def test_the_synthetic_tape(any_server: Server, tmp_path: Path, connections: int) -> None:
    """20,000 trades of the project's own tape at full speed are in the table, field by field."""
    flags = ("--trades", "20000", "--speed", "full", "--wait-clients", str(connections), "--after-end", "stay")
    with Rig(any_server, tmp_path, flags) as rig:
        with rig.capture((*REAL, "--connections", str(connections))) as capture:
            wait_for_end(rig, 20_000)
            found = counters(capture.stop())
        compared = rig.compared()
        assert all(one.exact for one in compared), "\n".join(map(str, compared))
        assert sum(one.stored for one in compared) == 20_000
        check_counters(found, 20_000, connections)


# Ends.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_under_load_ends_it_in_order(any_server: Server, tmp_path: Path, number: signal.Signals) -> None:
    """What was read is stored before it ends with exit code 0, and the summary accounts for every trade; one line says
    how many were still to be stored, and what a second signal does."""
    with Rig(any_server, tmp_path, ("--rate", "3000")) as rig, rig.capture(REAL) as capture:
        rig.stores()
        found = counters(capture.stop(number))
        told = re.findall(
            r"stopping; trades still to be stored: \d+\. A second Ctrl-C", capture.process.log.read_text()
        )
        assert len(told) == 1
        assert found["left over"] == 0
        assert rig.rows("SELECT COUNT(*) FROM {}.trades") == [(found["inserted"],)]
        assert all(one.exact for one in rig.compared())


def test_a_second_signal_ends_it_at_once(killable_server: PrivateServer, tmp_path: Path) -> None:
    """While the first one's ending waits for a database that hangs, the second one does not wait."""
    with Rig(killable_server, tmp_path, ("--rate", "300")) as rig, rig.capture(REAL) as capture:
        rig.stores()
        killable_server.suspend()
        try:
            before = rig.exchange.newest()["BTCUSDT"]
            wait_for("trades wait", lambda: rig.exchange.newest()["BTCUSDT"] > before + 100, WAIT_S_MAX)
            capture.process.send(signal.SIGTERM)
            wait_for("it stops reading", lambda: not rig.exchange.state()["connections"], WAIT_S_MAX)
            assert capture.process.exit_code is None
            asked_s = time.monotonic()
            capture.process.send(signal.SIGTERM)
            assert capture.process.wait(WAIT_S_MAX) == 128 + signal.SIGTERM
            assert time.monotonic() - asked_s < 5.0
        finally:
            killable_server.resume()


def test_duration(any_server: Server, tmp_path: Path) -> None:
    """--duration ends it by itself, in order."""
    with Rig(any_server, tmp_path, ("--rate", "300")) as rig:
        began_s = time.monotonic()
        # The time counts from the start: on a busy machine the first trade comes seconds later, and the end too.
        with rig.capture(("ws_client.py", "--duration", "6")) as capture:
            assert capture.process.wait(WAIT_S_MAX) == 0
        assert time.monotonic() - began_s >= 6.0
        found = counters(capture.process.out.read_text())
        assert found["inserted"] > 0
        assert found["left over"] == 0


# The database dies in the middle.


def test_the_database_dies_in_the_middle(killable_server: PrivateServer, tmp_path: Path) -> None:
    """Connections killed between the statements of a batch, then kill -9 of the server and a start: the summary of that
    one run accounts for every trade, and the tables are what was traded."""
    with Rig(killable_server, tmp_path, ("--rate", "2000")) as rig, rig.capture(REAL) as capture:
        rig.stores()
        for _ in range(20):
            with killable_server.connect() as connection, connection.cursor() as cursor:
                cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", (rig.database,))
                for (number,) in cursor.fetchall():
                    with suppress(mysql.connector.Error):
                        cursor.execute(f"KILL {number:d}")
            rig.stores()
        killable_server.kill()
        killable_server.start()
        rig.settle()
        found = counters(capture.stop())
        assert found["spooled"] > 0
        assert (found["left over"], found["dropped"], found["gaps opened"]) == (0, 0, 0)
        assert rig.rows("SELECT COUNT(*) FROM {}.trades WHERE received_at IS NULL") == [(0,)]


def test_pongs_do_not_wait_for_the_database(killable_server: PrivateServer, tmp_path: Path) -> None:
    """An exchange that wants its pongs within seconds keeps the connections while the database hangs for longer."""
    # A busy machine may let the capture or the exchange rest for a second, which is no fault of theirs.
    flags = ("--rate", "300", "--ping-interval", "0.2", "--pong-timeout", "4")
    with Rig(killable_server, tmp_path, flags) as rig, rig.capture(REAL) as capture:
        rig.stores()
        killable_server.suspend()
        try:
            before = rig.exchange.newest()["BTCUSDT"]
            wait_for("the tape goes on", lambda: rig.exchange.newest()["BTCUSDT"] > before + 1_300, WAIT_S_MAX)
        finally:
            killable_server.resume()
        rig.settle()
        assert counters(capture.stop())["reconnects"] == 0


# Two of them.


def test_two_captures_of_one_database(server: Server, tmp_path: Path) -> None:
    """Two machines may write to the same tables: no double, no error, no false gap; one may die."""
    with Rig(server, tmp_path, ("--rate", "1000")) as rig:
        # That one is ahead of the other for a moment must not become a gap on a busy machine either.
        patient = {"capture.gap_filler.GRACE_S": 60.0, "storage.gaps.ABSORB_S": 60}
        one = rig.capture(PATCHED, patient, "one", DATA_DIR=str(tmp_path / "one"))
        two = rig.capture(PATCHED, patient, "two", DATA_DIR=str(tmp_path / "two"))
        with one, two:
            rig.stores()
            before = rig.exchange.newest()["BTCUSDT"]
            wait_for("the tape goes on", lambda: rig.exchange.newest()["BTCUSDT"] > before + 1_500, WAIT_S_MAX)
            rig.settle()
            found = [counters(two.stop())]
            rig.stores()
            writers = "SELECT symbol, token FROM {}.symbols"
            tokens = set(rig.rows(writers))
            two.start()
            wait_for("both read", lambda: len(rig.exchange.state()["connections"]) == 4, WAIT_S_MAX)
            # What it stores first may be ahead of the other, in whose memory the trades between must not be lost.
            wait_for("the second stores", lambda: not tokens & set(rig.rows(writers)), WAIT_S_MAX)
            rig.settle()
            one.kill()
            rig.settle()
            found.append(counters(two.stop()))
        assert all(numbers["duplicate"] > 0 for numbers in found)
        for capture in (one, two):
            assert "warning" not in capture.process.log.read_text()
            assert "error" not in capture.process.log.read_text()
        assert rig.rows("SELECT COUNT(*) FROM {}.gaps") == [(0,)]


# What is no trade.

NOT_TRADES = (
    *("event_unknown", "event_aggregate", "event_block", "event_kline"),
    *("error_flat", "error_nested", "error_without_id", "answer_null", "answer_list", "answer_bool"),
)
REASONS = {
    "price_number": "not a trade",
    "price_zero": "price is zero",
    "price_negative": "is not a decimal",
    "quantity_decimals": "is not a decimal",
    "id_string": "not a trade",
    "id_negative": "is not a positive 64-bit integer",
    "time_2016": "is not in the years 2017 to 2099",
    "symbol_sql": "was not subscribed",
    "symbol_unsubscribed": "was not subscribed",
    "utf8_invalid": "UTF-8",
    "json_truncated": "malformed JSON",
    "json_nested": "malformed JSON",
    "html": "malformed JSON",
}


def test_a_storm_of_malformed_frames(any_server: Server, tmp_path: Path) -> None:
    """Each malformed kind is kept with its reason or counted by its name; the good trades between them are stored."""
    with Rig(any_server, tmp_path, ("--rate", "500")) as rig:
        with rig.capture((*REAL, "--connections", "1")) as capture:
            rig.stores()
            for variant in MALFORMED:
                rig.exchange.fault("inject", variant=variant, target=0)
            rig.exchange.faults([{"fault": "inject", "target": 0}] * 10)
            rig.settle()
            found = counters(capture.stop())
        assert all(one.exact for one in rig.compared())
        lines = [json.loads(line) for line in (tmp_path / "data" / "rejects.jsonl").read_text().splitlines()]
        refused = [variant for variant in MALFORMED if variant not in NOT_TRADES]
        assert len(lines) == found["rejected"] == 11 * len(refused)
        reasons = dict(zip(refused, (line["reason"] for line in lines), strict=False))
        assert {variant: words for variant, words in REASONS.items() if words not in reasons[variant]} == {}
        assert all(line["reason"] and ("frame" in line) != ("frame_base64" in line) for line in lines)
        assert (found["error"], found["answer"]) == (33, 33)
        # Kept verbatim: a frame that fitted is refused again, for the same reason.
        for line in lines[: len(refused)]:
            if "frame" in line and line["bytes"] < 65_536:
                with pytest.raises(checks.Refusal) as refusal:
                    ws_client.parse_trade(line["frame"], None, frozenset(("BTCUSDT", "ETHUSDT")))
                assert str(refusal.value) == line["reason"]


# What an operator sees.


COMMANDS = [[path.name] for path in sorted(ROOT.glob("*.py")) if "\ndef main(" in path.read_text()]
COMMANDS += [["-m", f"tools.{path.parent.name}"] for path in sorted(ROOT.glob("tools/*/__main__.py"))]
COMMANDS += [["-m", f"tools.{path.stem}"] for path in sorted(ROOT.glob("tools/*.py")) if path.stem != "__init__"]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_help(arguments: list[str]) -> None:
    """Every script explains itself, whatever the settings, also where only ASCII can be shown."""
    done = subprocess.run(
        [sys.executable, *arguments, "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout
    assert len(done.stdout.splitlines()) > 3


WRONG = {
    "MYSQL_PORT": "many",
    "MYSQL_DATABASE": "binance; DROP TABLE trades",
    "MYSQL_SSL_CA": "/no/such/file.pem",
    "SYMBOLS": "BTC/USDT",
    "BINANCE_WS_URL": "https://stream.binance.com",
    "BINANCE_REST_URL": "wss://api.binance.com",
    "BINANCE_ARCHIVE_URL": "data.binance.vision",
    "DATA_DIR": "/dev/null/data",
}


def run_capture(environ: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    """A capture that must end by itself."""
    return subprocess.run(
        [sys.executable, "ws_client.py", *flags],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
    )


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_one_line(name: str) -> None:
    """It names the variable and the value, and the exit code is 2."""
    done = run_capture({name: WRONG[name]})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert name in line or name == "DATA_DIR"
    assert WRONG[name] in line
    assert done.stdout == ""


def test_a_wrong_password_is_fatal_and_names_the_setting(any_server: Server, tmp_path: Path) -> None:
    """Trying again would not help, so it ends with one line, which does not hold the password."""
    environ = any_server.environ | {"DATA_DIR": str(tmp_path), "MYSQL_USER": "nobody", "MYSQL_PASSWORD": "s3cret-word"}
    done = run_capture(environ, "--duration", "60")
    assert done.returncode == 2
    assert "MYSQL_PASSWORD" in done.stderr.splitlines()[-1]
    assert "s3cret-word" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "flags", [("--duration", "0"), ("--duration", "x"), ("--connections", "5"), ("--symbols", "/")]
)
def test_a_wrong_flag_is_refused(flags: tuple[str, str]) -> None:
    """It is named, and the exit code is 2."""
    done = run_capture({}, *flags)
    assert done.returncode == 2
    assert flags[0] in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_line_and_its_colour(any_server: Server, tmp_path: Path) -> None:
    """A line every few seconds shows price, rate and lag of each symbol; it has colour on a terminal only."""
    patches = QUICK | {"capture.pipeline.LINE_S": 0.3}
    with Rig(any_server, tmp_path, ("--rate", "300")) as rig, rig.capture(patches=patches) as capture:
        lag = r"[\d.]+ [\d.]+/s lag -?\d+/-?\d+ ms"
        line = re.compile(rf"Z BTCUSDT {lag} · ETHUSDT {lag} · queue \d+, committed [1-9]")
        # The first lines may come before the first trades.
        wait_for("two lines", lambda: len(line.findall(capture.process.log.read_text())) >= 2, WAIT_S_MAX)
        capture.stop()
        assert "\x1b" not in capture.process.log.read_text()
        assert "\x1b[2m" in on_a_terminal(rig, capture)


def on_a_terminal(rig: Rig, capture: Capture) -> str:
    """What a capture writes to a terminal as its stderr."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, **rig.environ}
    process = subprocess.Popen(
        [sys.executable, "ws_client.py", "--duration", "0.5"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    # The terminal's other end is closed when the process has ended.
    with suppress(OSError):
        while chunk := os.read(ours, 4_096):
            written += chunk
    os.close(ours)
    assert process.wait(WAIT_S_MAX) == 0
    return written.decode()
