"""The hourly comparison beside an exchange whose klines are asked for: what was brought in, and what was changed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from binance.limits import Cooldown
from capture import checker
from capture.checker import Checker
from process.child import ROOT
from tests.support.audited import BTC, SCRIPT_S_MAX, Audited, audited, days_ago
from tests.support.child import wait_until
from tests.support.servers import Server
from tests.support.stand_in import StandIn

pytestmark = pytest.mark.slow

FLAGS = ("--days", "2", "--day-trades", "20000", "--symbols", BTC, "--wait-clients", "1", "--rest-lag", "0")
ALL_AGREE = re.compile(r"(\d+) minutes of the last hour agree with the exchange's klines: trades, prices, volumes")
ONE_DIFFERS = r"1 of (\d+) minutes of the last hour are not as the exchange's klines: BTCUSDT {}: {} "


@pytest.fixture(scope="module")
def exchange() -> Iterator[StandIn]:
    """An exchange with two days of history, in which each minute has some trades; its tape waits for ever."""
    with StandIn(*FLAGS, "--weight-limit", "1000000") as running:
        yield running


@pytest.fixture
def case(any_server: Server, exchange: StandIn, tmp_path: Path) -> Iterator[Audited]:
    """A database with all trades since yesterday, sealed as far as they go."""
    with audited(any_server, exchange, tmp_path) as made:
        urls = {"BINANCE_REST_URL": exchange.http, "BINANCE_ARCHIVE_URL": exchange.http}
        command = [sys.executable, "backfill.py", "--since", str(days_ago(1))]
        environ = os.environ | made.environ | urls
        subprocess.run(command, cwd=ROOT, env=environ, check=True, timeout=SCRIPT_S_MAX, capture_output=True)
        yield made
    exchange.clear()


@contextmanager
def checking(
    case: Audited, exchange: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Checker]:
    """A thread that has compared once."""
    caplog.set_level("INFO", "audit")
    monkeypatch.setattr(checker, "FIRST_S", 0.01)
    # The exchange's tape stands still: however long this has taken, its last trades are within it.
    monkeypatch.setattr(checker, "SPAN", timedelta(hours=2))
    thread = Checker(case.settings._replace(rest_url=exchange.http), Cooldown(), lambda: (BTC,))
    thread.start()
    wait_until(lambda: any("klines" in message for message in caplog.messages))
    yield thread
    thread.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_what_was_brought_in_agrees(
    case: Audited, exchange: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, with the number of minutes."""
    with checking(case, exchange, monkeypatch, caplog) as thread:
        (line,) = [message for message in caplog.messages if "klines" in message]
        found = ALL_AGREE.fullmatch(line)
        assert found, line
        assert int(found[1]) == thread.agreed > 60
        assert thread.differed == 0


def test_a_kline_that_is_wrong(
    case: Audited, exchange: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning, which names the minute and what differs."""
    exchange.fault("kline_wrong")
    with checking(case, exchange, monkeypatch, caplog) as thread:
        (record,) = [record for record in caplog.records if "klines" in record.getMessage()]
        assert record.levelname == "WARNING"
        assert re.match(ONE_DIFFERS.format(r"\d\d:\d\d", "close"), record.getMessage())
        assert thread.differed == 1


def test_a_row_that_was_changed(
    case: Audited, exchange: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By somebody who has made the bars anew: its minute is named."""
    old = "timestamp < (SELECT MAX(timestamp) FROM trades) - INTERVAL 9 MINUTE"
    sql = f"SELECT trade_id, timestamp FROM trades WHERE buyer_is_maker AND {old} ORDER BY timestamp DESC LIMIT 1"
    ((number, when),) = case.sql(sql)
    case.sql("UPDATE trades SET quantity = quantity + 1 WHERE trade_id = %s", number)
    case.reseal()
    with checking(case, exchange, monkeypatch, caplog) as thread:
        (line,) = [message for message in caplog.messages if "klines" in message]
        assert re.match(ONE_DIFFERS.format(f"{when:%H:%M}", "volume, quote_volume"), line), line
        assert thread.differed == 1


def test_nothing_to_compare_is_not_called_agreement(
    case: Audited, exchange: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While no minute is sealed, as right after a start."""
    case.sql("UPDATE symbols SET sealed_until = NULL")
    with checking(case, exchange, monkeypatch, caplog) as thread:
        (line,) = [message for message in caplog.messages if "klines" in message]
        assert line == "nothing of the last hour could be compared with the exchange's klines yet"
        assert (thread.agreed, thread.differed) == (0, 0)
