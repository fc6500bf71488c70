"""A database on another machine, 20 ms away and over TLS: it costs round trips, so what is done often takes one."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import config
import db
from capture.inbox import BATCH_TRADES_MAX
from storage import session
from tests.makers import BTC, MIDNIGHT, stream, trade
from tests.support.harness import Rig
from tests.support.servers import PrivateServer, Server
from tests.support.tables import due, sealed
from tests.support.tls import needs_openssl
from tools.lab.children import wait_for
from tools.lab.delay import DelayLine
from tools.lab.tls import make_certificate, server_options

pytestmark = pytest.mark.slow

RTT_MS = 20.0
RATE = 500
WAIT_S_MAX = 30.0
MINUTE = timedelta(minutes=1)


@pytest.fixture
def far(server: Server, database: str, tmp_path: Path) -> Iterator[tuple[DelayLine, config.Settings]]:
    """A delay line before a server, which adds nothing but counts, and the settings of a database behind it."""
    near = server.settings(database, tmp_path)
    db.close(db.connect(near))
    with DelayLine(server.port) as line:
        yield line, near._replace(mysql_unix_socket=None, mysql_host="127.0.0.1", mysql_port=line.port)


def test_a_batch_of_any_size_is_one_round_trip(far: tuple[DelayLine, config.Settings]) -> None:
    """One trade, and as many as a batch ever has."""
    line, settings = far
    connection = db.connect(settings)
    db.insert_trades(connection, stream(1, 1))
    before = line.trips
    db.insert_trades(connection, stream(2, 1))
    db.insert_trades(connection, stream(3, 100))
    db.insert_trades(connection, stream(103, BATCH_TRADES_MAX))
    assert line.trips == before + 3
    db.close(connection)


def test_a_batch_after_another_writer_takes_few_round_trips(
    far: tuple[DelayLine, config.Settings], server: Server
) -> None:
    """The row is locked, the ends of what is stored are read in two, it is stored: three while others wait."""
    line, settings = far
    connection, other = db.connect(settings), db.connect(settings._replace(mysql_port=server.port))
    db.insert_trades(connection, stream(1, 10))
    db.insert_trades(other, stream(11, 10))
    before = line.trips
    db.insert_trades(connection, stream(21, 10))
    assert line.trips == before + 4
    db.close(connection)
    db.close(other)


def test_what_is_sealed_is_sealed_in_two_round_trips(far: tuple[DelayLine, config.Settings]) -> None:
    """The second of them has the locks for which writers wait: taken and given back before it is answered."""
    line, settings = far
    connection = db.connect(settings)
    db.insert_trades(connection, [trade(1, MIDNIGHT, "1"), trade(2, MIDNIGHT + MINUTE, "2")])
    before = line.trips
    assert db.seal(connection, [BTC], None, MIDNIGHT + MINUTE)
    assert line.trips == before + 2
    assert sealed(connection, BTC) == due(connection, BTC)
    db.close(connection)


@pytest.mark.parametrize("compress", [False, True])
def test_what_goes_far_is_compressed_if_that_is_set(far: tuple[DelayLine, config.Settings], compress: bool) -> None:
    """Trades in SQL are mostly repetitions: they become a fifth at most, and the same rows."""
    line, settings = far
    connection = db.connect(settings._replace(mysql_compress=compress))
    before, trades = line.sent_bytes, stream(1, 4_000)
    db.insert_trades(connection, trades)
    a_trade = (line.sent_bytes - before) / len(trades)
    assert a_trade < 20 if compress else a_trade > 80
    assert db.with_ids(connection, BTC, 1, 4_000, 4_000) == trades
    db.close(connection)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_session_is_set_up_in_one_request(
    far: tuple[DelayLine, config.Settings], monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    """After the driver has logged in, all settings go with one question, and the tables are looked at with another."""
    requests, send = [], session.Connection.cmd_query

    def noted(connection: db.Connection, request: Any) -> Any:
        requests.append(request)
        return send(connection, request)

    monkeypatch.setattr(session.Connection, "cmd_query", noted)
    db.close(db.connect(far[1], read_only=read_only))
    assert len(requests) == 2


@needs_openssl
def test_a_capture_keeps_up_with_a_database_that_is_far_away(killable_server: PrivateServer, tmp_path: Path) -> None:
    """Every trade is stored, nothing is missing, what waits stays little, and the end is clean."""
    make_certificate(tmp_path, "far")
    server = killable_server
    server.stop()
    server._command += server_options(tmp_path, "far")
    server.start()
    with DelayLine(server.port, RTT_MS) as line, Rig(server, tmp_path, ("--rate", str(RATE))) as rig:
        ca = str(tmp_path / "far-ca.pem")
        with rig.capture(MYSQL_PORT=str(line.port), MYSQL_SSL_CA=ca) as capture:
            rig.stores(WAIT_S_MAX)

            def lag() -> int:
                newest, found = rig.exchange.newest(), rig.newest_stored()
                return sum(newest[symbol] - found[symbol] for symbol in rig.symbols)

            # A second's worth; a round trip for each trade would let it grow by nine tenths of all.
            for _ in range(5):
                rig.stores(WAIT_S_MAX)
                wait_for("what waits is little", lambda: lag() < RATE, WAIT_S_MAX)
            rig.settle()
            summary = capture.stop()
        assert rig.open_gaps() == []
        assert all(one.exact for one in rig.compared())
    assert re.search(r"dropped 0\b.* left over 0\b", summary), summary
