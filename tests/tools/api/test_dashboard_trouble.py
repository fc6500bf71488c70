"""What the dashboard says when something stands still: the database, the API, the capture, or only the market."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import db
from process.child import ROOT
from tests.support.dashboard import Page, Recorder, history, trade
from tests.support.servers import PrivateServer, Server
from tests.support.serving import serving
from tests.support.tables import ask

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

NAMED_S_MAX = 9.0
"""It takes up to 5 s where the machine has nothing else to do."""
HOLD_THE_LOCK = """
import sys
from pathlib import Path
from process import lock
assert lock.try_alone(lock.open_lock(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def capturing(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a capture, and does nothing else."""
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(folder / "capture.lock")]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(page: Page, kind: str) -> str:
    """The words of the banner as soon as it says this."""
    page.page.wait_for_selector(f"#banner[data-kind='{kind}']:visible")
    return page.text("#banner")


def named_after_s(page: Page, since: datetime) -> float:
    """The seconds from `since` until the banner said what it says, by the page's clock, which is this machine's."""
    return (datetime.fromisoformat(str(page.page.get_attribute("#banner", "data-since"))) - since).total_seconds()


@pytest.mark.parametrize("killable_server", ["mariadb"], indirect=True)
def test_a_frozen_database_is_named(browser: Any, killable_server: PrivateServer, tmp_path: Path) -> None:
    """It is there but does not answer, which is not the API's fault; the page goes on by itself."""
    settings = killable_server.settings("test_frozen", tmp_path)
    with closing(db.connect(settings)) as connection:
        db.insert_trades(connection, [trade("BTCUSDT", 1, datetime.now(UTC), "97000.5")])
    environ = killable_server.environ | {"MYSQL_DATABASE": "test_frozen", "DATA_DIR": str(tmp_path)}
    with capturing(tmp_path), serving(environ) as api:
        page = Page(browser, api.address)
        page.page.wait_for_selector("#gaps-words[data-complete=true]")
        frozen_at = datetime.now(UTC)
        killable_server.suspend()
        try:
            words = wait_for(page, "database-silent")
            took_s = named_after_s(page, frozen_at)
            verdict = page.text("#gaps-words")
        finally:
            killable_server.resume()
        page.page.wait_for_selector("#banner:not([data-kind='database-silent'])", state="attached")
        page.context.close()

    assert words.startswith("The database does not answer")
    assert verdict.startswith("Not known now: the database does not answer.")
    assert took_s < NAMED_S_MAX


def test_an_api_that_sends_nothing_is_named(browser: Any, any_server: Server, tmp_path: Path) -> None:
    """Its process is suspended, so that no connection is cut; the page goes on by itself."""
    settings = any_server.settings("test_silent", tmp_path)
    history(settings)
    with serving(any_server.environ | {"MYSQL_DATABASE": "test_silent", "DATA_DIR": str(tmp_path)}) as api:
        page = Page(browser, api.address)
        page.page.wait_for_selector("#gaps-words[data-complete=false]")
        silent_at = datetime.now(UTC)
        os.kill(api.process.pid, signal.SIGSTOP)
        try:
            words = wait_for(page, "api")
            took_s = named_after_s(page, silent_at)
            verdict = page.text("#gaps-words")
        finally:
            os.kill(api.process.pid, signal.SIGCONT)
        page.page.wait_for_selector("#banner:not([data-kind='api'])", state="attached")
        page.context.close()
    with any_server.connect() as plain:
        ask(plain, "DROP DATABASE test_silent")

    assert words.startswith("No connection to the API (nothing has come for 4 s)")
    assert verdict.startswith("Not known now: the API does not answer. At 20")
    assert took_s < NAMED_S_MAX


def test_a_quiet_market_is_no_stopped_capture(browser: Any, any_server: Server, tmp_path: Path) -> None:
    """The lock of the capture tells them apart: nobody was ever seen to hold it, it is held, its process is suspended,
    it ended. Only when trades may be missed now, what has traded since is not known."""
    settings = any_server.settings("test_quiet", tmp_path)
    with closing(db.connect(settings)) as connection:
        old = datetime.now(UTC) - timedelta(seconds=30)
        db.insert_trades(connection, [trade("BTCUSDT", 1, old, "97000.5")])
    # A symbol that is captured would be called stale after a minute.
    about = {"MYSQL_DATABASE": "test_quiet", "DATA_DIR": str(tmp_path), "SYMBOLS": "OTHER"}
    with serving(any_server.environ | about) as api:
        page = Page(browser, api.address)
        found = [(wait_for(page, "no-trades"), page.page.get_attribute("#gaps-words", "data-complete"))]
        with capturing(tmp_path) as process:
            for kind, number in (("quiet", None), ("capture-frozen", signal.SIGSTOP), ("quiet", signal.SIGCONT)):
                if number is not None:
                    process.send_signal(number)
                found.append((wait_for(page, kind), page.page.get_attribute("#gaps-words", "data-complete")))
        found.append((wait_for(page, "capture-stopped"), page.page.get_attribute("#gaps-words", "data-complete")))
        recorder = Recorder(settings)
        recorder.start()
        page.live()
        recorder.stop()
        page.context.close()
    with any_server.connect() as plain:
        ask(plain, "DROP DATABASE test_quiet")

    words = [one.partition("No new trade for ")[2].partition(" s")[2] for one, _ in found]
    assert [one[:30] for one in words] == [
        ". Is the capture running?",
        ". The capture is running: the ",
        ": the capture is suspended. It",
        ". The capture is running: the ",
        ": the capture has stopped.",
    ]
    assert [complete for _, complete in found] == ["unknown", "true", "unknown", "true", "unknown"]
