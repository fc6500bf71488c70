"""backfill.py by hand: what is missing is listed, filled, and the exit code says whether all is there."""

import fcntl
import logging
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import backfill
import config
import db
from capture import gap_filler
from capture.gap_filler import Filler
from model.gaps import MISSED
from process.child import ROOT
from tests.support.child import wait_until
from tests.support.history import HISTORICAL, HISTORY, LONG_S, NEWEST, OLDEST, RUN_S_MAX, calls, leave_gap
from tests.support.servers import Server
from tests.support.stand_in import StandIn
from tests.support.tables import check, runs, stored_ids

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_filling")]


@pytest.fixture
def command(
    settings: config.Settings, server: Server, exchange: StandIn, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """main(), with the environment of `settings` and of the exchange."""
    environ = server.environ | {"MYSQL_DATABASE": settings.mysql_database, "DATA_DIR": str(settings.data_dir / "new")}
    for name, value in (environ | {"BINANCE_REST_URL": exchange.http}).items():
        monkeypatch.setenv(name, value)
    # It sends the log to the standard error of this one test.
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    return lambda *arguments: backfill.main(list(arguments))


@pytest.fixture
def by_tcp(settings: config.Settings, server: Server) -> config.Settings:
    """The settings as the command finds them."""
    return settings._replace(mysql_unix_socket=None, mysql_host=server.host, mysql_port=server.port)


def test_by_hand_the_list_names_the_missing_ids(
    command: Callable[..., int],
    by_tcp: config.Settings,
    connection: db.Connection,
    exchange: StandIn,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of nothing it is not said; code 0 and one line when nothing is missing; ranges and code 1 when something is."""
    assert command("--list") == 2
    assert f"no trade is stored in database {by_tcp.place} yet" in capsys.readouterr().err
    leave_gap(connection, exchange, OLDEST)
    assert command("--list") == 0
    assert capsys.readouterr().out == f"database {by_tcp.place}: no id is missing\n"
    leave_gap(connection, exchange, OLDEST, OLDEST + 5, OLDEST + 7)
    leave_gap(connection, exchange, OLDEST, OLDEST + 2, symbol="ETHUSDT")
    before = calls(exchange)
    assert command("--list") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[1:4]] == [
        ["BTCUSDT", str(OLDEST + 1), str(OLDEST + 4), "4"],
        ["BTCUSDT", str(OLDEST + 6), str(OLDEST + 6), "1"],
        ["ETHUSDT", str(OLDEST + 1), str(OLDEST + 1), "1"],
    ]
    assert lines[-1] == f"database {by_tcp.place}: 6 ids are missing in 3 gaps"
    assert calls(exchange) == before
    assert command("--list", "--symbol", "ethusdt") == 1
    assert "BTCUSDT" not in capsys.readouterr().out


def test_by_hand_everything_is_filled(
    command: Callable[..., int], connection: db.Connection, exchange: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """One symbol on request, then all; exit code 0 when no id is missing."""
    for symbol in ("BTCUSDT", "ETHUSDT"):
        leave_gap(connection, exchange, OLDEST, OLDEST + 1_500, symbol=symbol)
    assert command("--symbol", "ETHUSDT") == 0
    assert "filled 1499 ids, gave up 0" in capsys.readouterr().out
    assert command("--list") == 1
    assert command() == 0
    output = capsys.readouterr()
    assert "no id is missing" in output.out
    assert "trades" not in output.err
    assert len(stored_ids(connection)) == len(stored_ids(connection, "ETHUSDT")) == 1_501


def test_by_hand_what_is_not_served_is_tried_again(
    command: Callable[..., int],
    connection: db.Connection,
    exchange: StandIn,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hole: code 1, and that it is not served now, which is no reason to give it up; once the exchange has it: 0."""
    monkeypatch.setattr(gap_filler, "CONFIRM_S", 7_200.0)
    leave_gap(connection, exchange, OLDEST, OLDEST + 100)
    exchange.fault("rest_hole", symbol="BTCUSDT", first=OLDEST + 3, last=OLDEST + 9, seconds=LONG_S)
    assert command() == 1
    output = capsys.readouterr().out
    assert "filled 92 ids, gave up 0; not served now: 7" in output
    assert MISSED in output
    assert command() == 1
    exchange.clear()
    assert command() == 0
    check(connection)


def test_by_hand_an_exchange_that_is_down_is_not_tried_for_ever(
    command: Callable[..., int], connection: db.Connection, exchange: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some attempts, then the end, with code 1 and the list of what is missing."""
    leave_gap(connection, exchange, OLDEST, OLDEST + 100)
    exchange.fault("rest_down", seconds=LONG_S)
    assert command() == 1
    output = capsys.readouterr()
    assert "99 ids are missing in 1 gaps" in output.out
    assert "Traceback" not in output.err


def test_by_hand_a_refused_symbol_does_not_stop_the_others(
    command: Callable[..., int], connection: db.Connection, exchange: StandIn
) -> None:
    """The first in the alphabet fails each time; the other is filled."""
    for symbol in ("BTCUSDT", "ETHUSDT"):
        leave_gap(connection, exchange, OLDEST, OLDEST + 1_500, symbol=symbol)
    exchange.fault("rest_status", status=503, symbol="BTCUSDT", seconds=LONG_S)
    assert command() == 1
    assert (len(stored_ids(connection)), len(stored_ids(connection, "ETHUSDT"))) == (2, 1_501)


def test_by_hand_a_refused_row_is_kept(
    command: Callable[..., int], connection: db.Connection, exchange: StandIn, settings: config.Settings
) -> None:
    """In the rejects of a folder that did not exist before."""
    leave_gap(connection, exchange, OLDEST, OLDEST + 10)
    exchange.fault("rest_bad_row", count=1, **HISTORICAL)
    command()
    assert "NaN" in (settings.data_dir / "new" / "rejects.jsonl").read_text()


@pytest.mark.parametrize("arguments", [["--list"], []])
def test_by_hand_a_database_that_is_not_there_is_not_made(
    command: Callable[..., int],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    """A mistyped name, and a DATA_DIR without a private server: one line and code 2, and nothing is created."""
    monkeypatch.setenv("MYSQL_DATABASE", "test_mistyped")
    assert command(*arguments) == 2
    assert "test_mistyped" in capsys.readouterr().err
    with server.connect() as plain, plain.cursor() as cursor:
        cursor.execute("SHOW DATABASES LIKE 'test_mistyped'")
        assert cursor.fetchall() == []
    for name in ("MYSQL_HOST", "MYSQL_UNIX_SOCKET", "MYSQL_USER", "MYSQL_PORT"):
        monkeypatch.setenv(name, "")
    folder = Path(os.environ["DATA_DIR"])
    assert command(*arguments) == 2
    error = capsys.readouterr().err
    assert str(folder) in error
    assert error.count("\n") == 1
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--symbol", "BTC USDT"], "--symbol"),
        (["--symbol", ","], "--symbol"),
        (["--symbol", ""], "--symbol"),
        (["--symbol", "BTCUSDT,ETHUSDT"], "--symbol"),
    ],
)
def test_by_hand_a_mistake_is_one_line(
    command: Callable[..., int], arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And exit code 2."""
    assert command(*arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_by_hand_without_a_database_it_is_one_line(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens, or the password is wrong."""
    monkeypatch.setenv("MYSQL_USER", "nobody_such")
    assert command("--list") == 2
    error = capsys.readouterr().err
    assert "MYSQL_USER" in error
    assert error.count("\n") == 1


def test_by_hand_a_lock_of_the_capture_is_waited_for(
    command: Callable[..., int],
    connection: db.Connection,
    exchange: StandIn,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The capture and the command work on one database: contention is no reason to end."""
    leave_gap(connection, exchange, OLDEST, OLDEST + 10)
    left = [2]
    real = db.insert_acceptable

    def contended(*arguments: Any) -> int:
        left[0] -= 1
        if left[0] >= 0:
            raise db.ContentionError("Deadlock found when trying to get lock (error 1213)")
        return real(*arguments)

    monkeypatch.setattr(db, "insert_acceptable", contended)
    assert command() == 0


def test_by_hand_ctrl_c_is_no_traceback(
    command: Callable[..., int],
    connection: db.Connection,
    exchange: StandIn,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line says that the next run goes on."""
    leave_gap(connection, exchange, OLDEST, OLDEST + 10)

    def interrupt(*_arguments: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Filler, "fill_pages", interrupt)
    assert command() == 2
    assert "interrupted" in capsys.readouterr().err


def _process(settings: config.Settings, server: Server, exchange: StandIn, **options: Any) -> "subprocess.Popen[str]":
    environ = (
        os.environ | server.environ | {"MYSQL_DATABASE": settings.mysql_database, "BINANCE_REST_URL": exchange.http}
    )
    environ["DATA_DIR"] = str(settings.data_dir)
    return subprocess.Popen([sys.executable, "backfill.py"], cwd=ROOT, env=environ, text=True, **options)


def test_a_process_that_is_killed_in_the_middle_has_lost_nothing(
    settings: config.Settings, server: Server, connection: db.Connection, exchange: StandIn
) -> None:
    """kill -9 between two pages; the second process ends the work and says so with its exit code."""
    leave_gap(connection, exchange, OLDEST, NEWEST)
    exchange.fault("rest_slow", delay=1.2, seconds=LONG_S)
    with _process(settings, server, exchange) as first:
        wait_until(lambda: runs(connection) != [(OLDEST + 1, NEWEST - 1)], RUN_S_MAX)
        first.send_signal(signal.SIGKILL)
    check(connection)
    assert runs(connection)
    exchange.clear()
    with _process(settings, server, exchange, stdout=subprocess.PIPE) as second:
        output, _ = second.communicate(timeout=RUN_S_MAX)
    assert second.returncode == 0
    assert output.endswith("no id is missing\n")
    check(connection)
    assert len(stored_ids(connection)) == HISTORY


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_is_for_a_terminal(
    settings: config.Settings, server: Server, connection: db.Connection, exchange: StandIn, terminal: bool
) -> None:
    """In a pipe there is none."""
    leave_gap(connection, exchange, OLDEST, NEWEST)
    reader, writer = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with _process(settings, server, exchange, stdout=subprocess.DEVNULL, stderr=writer) as process:
        assert process.wait(RUN_S_MAX) == 0
    os.close(writer)
    shown = b""
    try:
        while piece := os.read(reader, 10_000):
            shown += piece
    except OSError:
        # That is how a pseudo-terminal ends.
        assert terminal
    os.close(reader)
    assert (b"3998/3998" in shown) == terminal
    assert terminal or shown == b""
