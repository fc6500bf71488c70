"""The commands on systems that are not as expected: closed streams, other accounts, folders, terminals, signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import db
from process import log
from process.child import ROOT
from tests.makers import trade
from tests.support.harness import PATCHED, QUICK, Rig
from tests.support.servers import Server
from tools.lab.children import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

S_MAX = 40.0
SCRIPTS = ("ws_client.py", "query_examples.py", "backfill.py --list", "backfill.py", "private_mysql.py status")
TOOLS = ("-m tools.export csv OUT", "-m tools.reseal --symbol BTCUSDT")


def run(line: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command as a user gives it."""
    return subprocess.run(
        [sys.executable, *line.split()],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=S_MAX,
    )


def shell(line: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A command with redirections."""
    return subprocess.run(
        ["sh", "-c", line], cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, timeout=S_MAX
    )


def test_a_closed_stderr_is_a_file_instead(any_server: Server, tmp_path: Path) -> None:
    """`2>&-`, pythonw, a service: it captures all the same, and what it says is in DATA_DIR."""
    with Rig(any_server, tmp_path) as rig:
        environ = rig.environ | {"PYTHONWARNINGS": "error"}
        done = shell(f"exec {sys.executable} ws_client.py --duration 4 <&- >&- 2>&-", environ)
        said = (tmp_path / "data" / log.FILE).read_text()
        assert done.returncode == 0, said
        assert rig.rows("SELECT COUNT(*) > 20 FROM {}.trades") == [(1,)]
        assert f"capturing BTCUSDT, ETHUSDT into database {rig.database}" in said
        assert "Traceback" not in said
        wrong = shell(f"exec {sys.executable} ws_client.py 2>&-", environ | {"MYSQL_USER": "nobody_such"})
        assert wrong.returncode == 2
        assert "check MYSQL_USER and MYSQL_PASSWORD" in (tmp_path / "data" / log.FILE).read_text().splitlines()[-1]


def test_the_end_of_the_terminal_is_like_sigterm(any_server: Server, tmp_path: Path) -> None:
    """It stores what was received and ends in order; under `nohup` it goes on."""
    with Rig(any_server, tmp_path) as rig, rig.capture() as capture:
        rig.stores()
        summary = capture.stop(signal.SIGHUP)
        assert summary.startswith("parsed ")
        outlives = rig.capture(("-c", _NOHUP, *PATCHED[1:]))
        outlives.start()
        rig.stores()
        outlives.process.send(signal.SIGHUP)
        rig.stores()
        assert outlives.running()
        assert outlives.stop().startswith("parsed ")


_NOHUP = """
import runpy, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
module, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("line", SCRIPTS + TOOLS)
def test_a_data_dir_that_cannot_be_is_named(line: str, tmp_path: Path) -> None:
    """In one line and with exit code 2, or 1 where only the state is asked."""
    done = run(line.replace("OUT", str(tmp_path / "out")), DATA_DIR="/proc/nope")

    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    words = done.stderr + done.stdout
    assert "/proc/nope" in words
    if done.returncode == 2:
        assert "DATA_DIR" in words
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave a folder to another account")
@pytest.mark.parametrize("line", SCRIPTS + TOOLS)
def test_a_first_run_as_root_and_then_as_a_user(line: str, tmp_path: Path) -> None:
    """One line that says what it is, from every script."""
    folder = tmp_path / "data"
    for part in (folder, folder / "mysql", folder / "mysql" / "data", folder / "spool"):
        part.mkdir(mode=0o700)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    words = line.replace("OUT", str(tmp_path / "out")).removeprefix("-m ").split()
    name = words[0].removesuffix(".py")
    module = f"{name}.__main__" if (ROOT / name.replace(".", "/")).is_dir() else name
    # What is imported later, the other account may not be able to read.
    code = (
        f"import os, sys, encodings.idna, importlib; sys.path.insert(0, {str(ROOT)!r}); sys.argv = {words!r}\n"
        f"module = importlib.import_module({module!r}); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(module.main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=S_MAX,
    )

    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode in (1, 2)
    if done.returncode == 2:
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert str(folder) in done.stderr or "DATA_DIR" in done.stderr


def test_a_terminal_that_cannot_show_a_character_is_no_error(any_server: Server, tmp_path: Path) -> None:
    """A symbol and a folder that ASCII does not have, in every command that shows them."""
    folder = tmp_path / "datän"
    settings = any_server.settings("test_ascii", folder)
    with any_server.connect() as root, root.cursor() as cursor:
        cursor.execute("DROP DATABASE IF EXISTS test_ascii")
    connection = db.connect(settings)
    db.insert_trades(connection, [trade(number, symbol="币安USDT") for number in (1, 5)])
    db.close(connection)
    environ = any_server.environ | {
        "MYSQL_DATABASE": "test_ascii",
        "DATA_DIR": str(folder),
        "PYTHONIOENCODING": "ascii:strict",
        "PYTHONUTF8": "0",
        "LC_ALL": "C",
    }
    lines = {
        "query_examples.py": 0,
        "query_examples.py --symbol NÖ": 2,
        "backfill.py --list": 1,
        f"-m tools.export csv {tmp_path / 'ö.csv'} --symbol 币安USDT": 2,
        "-m tools.export csv /nöwhere/x": 2,
        "-m tools.reseal --symbol 币安USDT": 2,
        "-m tools.mirror --sql 币安USDT": 2,
        "private_mysql.py status": 1,
        "ws_client.py --symbols ö/ö": 2,
        "-m tools.api --host nöwhere.example": 2,
    }
    try:
        for line, code in lines.items():
            done = run(line, **environ)
            assert (line, done.returncode) == (line, code), done.stderr
            assert "Traceback" not in done.stderr
    finally:
        with any_server.connect() as root, root.cursor() as cursor:
            cursor.execute("DROP DATABASE test_ascii")


# Nothing comes in, and somebody says so.


@pytest.mark.parametrize(("symbols", "more"), [("BTC-USDT", ""), ("NOSUCHUSDT,ALSONOT", ""), ("NONE", "--duration 3")])
def test_symbols_that_the_exchange_does_not_know_end_it(
    any_server: Server, tmp_path: Path, symbols: str, more: str
) -> None:
    """Within seconds, by name, with exit code 2; also if it was to end by itself before."""
    with Rig(any_server, tmp_path) as rig:
        began = time.monotonic()
        done = run(f"ws_client.py --symbols {symbols} {more}", **rig.environ)
        assert time.monotonic() - began < 25.0
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert f"the exchange knows no symbol {symbols.replace(',', ', ')}" in last
    assert "the exchange knows no symbol" in done.stderr.replace(last, "")


def test_a_stand_in_that_refuses_a_symbol_says_why_itself(any_server: Server, tmp_path: Path) -> None:
    """Nobody is told to install what is installed."""
    with Rig(any_server, tmp_path) as rig:
        done = run("ws_client.py --demo --symbols BTC-USDT", **rig.environ)
    assert done.returncode == 2
    assert "tools.exchange: --symbols='BTC-USDT'" in done.stderr.splitlines()[-2]
    assert done.stderr.splitlines()[-1].endswith("did not start; the line above says why")


def test_one_symbol_of_several_is_named_when_it_is_silent_and_when_it_is_back(
    any_server: Server, tmp_path: Path
) -> None:
    """The exchange is asked about it; since it trades, the connections are renewed, and nothing is lost in the end."""
    patches = {"capture.silence.SILENT_S": 2.0, "capture.silence.LATE_S": 0.5, "capture.pipeline.LOOK_S": 0.2}
    with Rig(any_server, tmp_path, ("--rate", "100")) as rig:
        capture = rig.capture(patches=QUICK | patches)
        capture.start()
        rig.stores()
        rig.exchange.fault("skip", symbol="ETHUSDT", seconds=6.0, target="all")
        wait_for("it is named", lambda: "no trade for a while of ETHUSDT (2 s)" in capture.process.last_words(), S_MAX)
        wait_for(
            "the streams are found dead", lambda: "ETHUSDT trades (its newest" in capture.process.last_words(), S_MAX
        )
        wait_for("it is back", lambda: "trades come again of ETHUSDT" in capture.process.last_words(), S_MAX)
        rig.settle()
        assert "BTCUSDT (" not in capture.process.last_words()
        capture.stop()


def test_an_empty_list_of_symbols_is_a_mistake() -> None:
    """And not the default."""
    done = run("ws_client.py --symbols ''".replace("''", ","))
    empty = subprocess.run(
        [sys.executable, "ws_client.py", "--symbols", ""], cwd=ROOT, capture_output=True, text=True, timeout=S_MAX
    )
    for one in (done, empty):
        assert one.returncode == 2
        assert one.stderr.startswith("ws_client.py: --symbols=")


def test_ids_that_begin_anew_end_the_capture(any_server: Server, tmp_path: Path) -> None:
    """As after the wipe of a test network: exit code 2, one line, and nothing of it in the tables or in the spool."""
    with Rig(any_server, tmp_path) as rig:
        with rig.capture() as capture:
            rig.stores()
            capture.stop()
        before = rig.newest_stored()
        # What is stored is of an hour ago then, with ids that the exchange has long passed.
        with rig.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {rig.database}.trades SET trade_id = trade_id + 900000,"
                " timestamp = timestamp - INTERVAL 1 HOUR"
            )
            for table in ("candles", "gaps", "symbols"):
                cursor.execute(f"DELETE FROM {rig.database}.{table}")
            connection.commit()
        other = rig.capture(name="other")
        other.start()
        assert other.process.wait(S_MAX) == 2
        line = other.process.last_words().splitlines()[-1]
        assert "is not of the history that is stored" in line
        assert "MYSQL_DATABASE" in line
        assert rig.newest_stored() == {symbol: number + 900_000 for symbol, number in before.items()}
        assert rig.open_gaps() == []
        assert list((tmp_path / "data" / "spool").glob("*.spool")) == []
        assert "not of the history" in (tmp_path / "data" / "rejects.jsonl").read_text()


def test_an_exchange_that_wants_a_key_is_told_and_asked_seldom(any_server: Server, tmp_path: Path) -> None:
    """One line says it and the way out; the gap stays open."""
    with Rig(any_server, tmp_path, ("--rate", "100")) as rig, rig.capture() as capture:
        rig.stores()
        rig.exchange.fault("rest_status", status=401, seconds=60.0)
        rig.exchange.fault("skip", count=10, target="all")
        wait_for("it is told", lambda: "wants an API key" in capture.process.last_words(), S_MAX)
        rig.settle()
        assert capture.running()


def test_the_server_of_a_proxy_in_the_environment_does_not_stop_the_demo_exchange(
    any_server: Server, tmp_path: Path
) -> None:
    """What is on this machine is reached directly."""
    dead = "http://127.0.0.1:1"
    with Rig(any_server, tmp_path) as rig:
        capture = rig.capture(HTTP_PROXY=dead, http_proxy=dead, https_proxy=dead, ALL_PROXY=dead)
        capture.start()
        rig.stores()
        capture.stop()
