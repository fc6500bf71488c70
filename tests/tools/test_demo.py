"""`python -m tools.demo`: the capture with the API beside it, one after the other ended, whatever happens."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from process.child import ROOT
from tests.support.child import Answer, wait_until
from tests.support.servers import Server
from tests.support.serving import Api
from tools.demo import HISTORY_DAYS

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

WAIT_S = 40.0


class Demo:
    """A running demo with a DATA_DIR of its own, on `server`. Use it in a `with` block."""

    def __init__(self, server: Server, folder: Path, *flags: str) -> None:
        self._log = folder / "demo.log"
        environ = server.environ | {"MYSQL_DATABASE": "test_shown", "DATA_DIR": str(folder)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tools.demo", *flags],
                cwd=ROOT,
                env=os.environ | environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> "Demo":
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    def address(self) -> str:
        """The dashboard's address, as it is told to the user."""
        wait_until(lambda: "The dashboard is at" in self.log(), WAIT_S)
        found = re.search(r"The dashboard is at (http://127\.0\.0\.1:\d+)/ and the API at \1/docs", self.log())
        assert found, self.log()
        return found[1]

    def get(self, path: str) -> Answer:
        """An answer of its API."""
        api = Api.__new__(Api)
        api.port = int(self.address().rpartition(":")[2])
        return api.get(path)


@pytest.fixture
def demo(any_server: Server, tmp_path: Path) -> Iterator[Demo]:
    """A demo that runs until it is stopped."""
    with Demo(any_server, tmp_path, "--symbols", "BTCUSDT") as running:
        yield running
    with any_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("DROP DATABASE IF EXISTS test_shown_demo")


def listens(demo: Demo) -> bool:
    """Whether somebody still answers at its address."""
    try:
        return demo.get("/").status == 200
    except OSError:
        return False


def test_prices_move_one_command_after_the_clone(demo: Demo) -> None:
    """The address that is printed has a dashboard, and the latest trade changes; Ctrl-C ends all of it."""
    wait_until(lambda: listens(demo) and demo.get("/api/latest/BTCUSDT").status == 200, WAIT_S)
    first = demo.get("/api/latest/BTCUSDT").body
    wait_until(lambda: demo.get("/api/latest/BTCUSDT").body["trade_id"] > first["trade_id"])

    assert demo.get("/").body.startswith("<!doctype html>")
    assert demo.get("/api/health").body["demo"] is True
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(WAIT_S) == 0
    assert not listens(demo)
    assert re.search(r"^parsed \d+ = inserted \d+", demo.log(), re.M)
    assert "Traceback" not in demo.log()


def test_the_demo_has_some_days_of_history(demo: Demo) -> None:
    """Without being told, as many as are said; they are joined to what is captured."""
    wait_until(lambda: "no id is missing" in demo.log() or "ids are missing" in demo.log(), WAIT_S)
    found = re.findall(r"history: BTCUSDT (\S+): 20,000 trades in the archive, 20,000 of them new$", demo.log(), re.M)

    today = datetime.now(UTC).date()
    assert found == [str(today - timedelta(days=day)) for day in range(1, HISTORY_DAYS + 1)]


def test_a_day_that_was_asked_for_is_the_first(any_server: Server, tmp_path: Path) -> None:
    """--since goes before the default."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    with Demo(any_server, tmp_path, "--symbols", "BTCUSDT", "--since", str(yesterday)) as demo:
        wait_until(lambda: "no id is missing" in demo.log() or "ids are missing" in demo.log(), WAIT_S)
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(WAIT_S) == 0
    with any_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("DROP DATABASE IF EXISTS test_shown_demo")

    assert re.findall(r"history: BTCUSDT (\S+): ", demo.log()) == [str(yesterday)]


def test_the_api_ends_with_a_demo_that_is_killed(demo: Demo) -> None:
    """No process is left that nobody would think of."""
    wait_until(lambda: listens(demo), WAIT_S)
    demo.process.kill()
    demo.process.wait()

    wait_until(lambda: not listens(demo), WAIT_S)


def test_a_wrong_flag_is_refused_before_anything_is_started(any_server: Server, tmp_path: Path) -> None:
    """One line, in the name of the command that was run."""
    with Demo(any_server, tmp_path, "--duration", "soon") as demo:
        assert demo.process.wait(WAIT_S) == 2
    assert re.fullmatch(r"tools\.demo: argument --duration: 'soon' is not .*\n", demo.log())


def test_duration(any_server: Server, tmp_path: Path) -> None:
    """The flags of the capture are handed on."""
    begun = time.monotonic()
    with Demo(any_server, tmp_path, "--symbols", "BTCUSDT", "--duration", "1") as demo:
        assert demo.process.wait(WAIT_S) == 0
    with any_server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("DROP DATABASE IF EXISTS test_shown_demo")

    assert time.monotonic() - begun < WAIT_S
