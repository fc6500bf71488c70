"""Grafana's dashboards: as the script makes them, and every query answered by the account that Grafana has."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import config
import db
from deploy.grafana import make
from deploy.grafana.asked import FOLDER, asked, expanded
from model.times import midnight
from storage import accounts, proofs
from storage.accounts import READER, RIGHTS, Account
from tests.makers import trade
from tests.support.servers import Server
from tests.support.tables import ask

pytestmark = pytest.mark.slow

FILES = sorted(FOLDER.glob("*.json"))
DAY = timedelta(days=1)
NOW = midnight(datetime.now(UTC).date())
RANGES = {"hours": timedelta(hours=6), "days": timedelta(days=3), "months": timedelta(days=90)}
LAG = "Lag of $symbol: mean of the last 20 trades before each of 60 moments (ms)"
SMALL = ("symbols", "gaps", "last", "<derived2>", "<derived3>")
"""Tables that may be read as a whole: a row for each symbol, or what is open."""


def test_the_files_are_what_the_script_makes() -> None:
    """Whoever changes one changes the other."""
    assert {path.name: path.read_text() for path in FILES} == {name: make.text_of(name) for name in make.DASHBOARDS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.name))
def test_the_files_are_as_grafana_reads_them(path: Any) -> None:
    """Its own models take them, and write the same."""
    text = json.loads(path.read_text())
    assert json.loads(json.dumps(Dashboard.from_json(text), cls=JSONEncoder)) == text
    assert (text["timezone"], len(text["panels"])) == ("utc", 5 if path.name == "prices.json" else 6)
    assert {target["datasource"]["uid"] for one in text["panels"] for target in one["targets"]} == {"recorder"}


@pytest.fixture
def reader(server: Server, settings: config.Settings) -> Iterator[Any]:
    """The connection of Grafana to a database with three months of BTCUSDT, a gap, and proofs."""
    name = settings.mysql_database.removeprefix("test_")
    with closing(db.connect(settings)) as connection:
        times = [NOW - 90 * DAY + n * timedelta(hours=1) for n in range(90 * 24)]
        trades = [trade(1 + n, when, str(100 + n % 7)) for n, when in enumerate(times)]
        last = [trade(3_000 + n, NOW - timedelta(minutes=60 - n), "101") for n in range(60)]
        received = [one._replace(received_at=one.timestamp + timedelta(milliseconds=12)) for one in (*trades, *last)]
        db.insert_trades(connection, received)
        db.seal_history(connection, "BTCUSDT")
        for n in range(1, 90):
            for symbol in ("BTCUSDT", "ETHUSDT"):
                db.add_proof(connection, PROOF._replace(symbol=symbol, day=(NOW - n * DAY).date()))
        ask(connection, "ANALYZE TABLE proofs, trades, candles")
        account = Account(f"{name}_reader", "%", "secret")
        accounts.set_up(connection, account, settings.mysql_database, RIGHTS[READER])
        with server.connect() as opened:
            opened.cmd_change_user(account.name, account.password, settings.mysql_database)
            ask(opened, "SET time_zone = '+00:00'")
            yield opened
        ask(connection, f"DROP USER '{account.name}'@'%'")


PROOF = proofs.Proof(
    *(0, "BTCUSDT", (NOW - DAY).date(), "equal", "", 1, 2, 24, 0, "a" * 64, "b" * 64, "archive", "c" * 64),
    *(NOW, "", "", ""),
)


@pytest.mark.parametrize("length", RANGES)
def test_every_query_is_answered_by_the_keys(reader: Any, length: str) -> None:
    """For hours, days and months: something, and no table of trades or candles is read as a whole."""
    start = NOW - RANGES[length]
    for one in asked():
        sql = expanded(one.sql, start, NOW)
        assert ask(reader, sql), one.panel
        for plan in plans(reader, sql):
            if plan["table"] and plan["table"] not in SMALL and not plan["table"].startswith(("<derived", "<union")):
                assert (plan["key"] is not None, plan["type"] in ("ALL", "index")) == (True, False), (one.panel, plan)


@pytest.mark.parametrize("length", RANGES)
def test_no_query_reads_much(reader: Any, length: str) -> None:
    """A key that is used can still be read from its beginning, for each row of another table once more: rows are
    counted. The table has 2,220 trades; the lag needs 1,200 of them, which the server reads again as it sorts."""
    start = NOW - RANGES[length]
    for one in asked():
        before = rows_read(reader)
        ask(reader, expanded(one.sql, start, NOW))
        assert rows_read(reader) - before < 5_000, one.panel


def rows_read(reader: Any) -> int:
    """How many rows the server has read for this connection."""
    return sum(int(count) for _, count in ask(reader, "SHOW SESSION STATUS LIKE 'Handler_read%'"))


def plans(reader: Any, sql: str) -> list[dict[str, Any]]:
    """How the server reads each table."""
    with reader.cursor(dictionary=True) as cursor:
        cursor.execute(f"EXPLAIN /*!80000 FORMAT = TRADITIONAL */ {sql}")
        return list(cursor.fetchall())


def test_the_answers_are_right(reader: Any) -> None:
    """Minutes for hours, hours for days, days for months; sums and the lag are exact."""
    by_panel = {one.panel: one.sql for one in asked()}
    for length, resolution in (("hours", 60), ("days", 3_600), ("months", 86_400)):
        start = NOW - RANGES[length]
        rows = ask(reader, expanded(by_panel["$symbol"], start, NOW))
        sql = "SELECT COUNT(*) FROM candles WHERE resolution = %s AND timestamp >= %s AND timestamp <= %s"
        assert [(len(rows),)] == ask(reader, sql, resolution, start.replace(tzinfo=None), NOW.replace(tzinfo=None))
    recent = NOW - RANGES["hours"], NOW
    assert ask(reader, expanded(by_panel["Missing ids"], *recent)) == [(3_000 - 90 * 24 - 1,)]
    lags = ask(reader, expanded(by_panel[LAG], *recent))
    # The last hour has a trade a minute, those before it one an hour.
    assert (len(lags), {lag for _, lag in lags}) == (make.LAG_MOMENTS, {Decimal(12), None})
    assert [lag for _, lag in lags[-10:]] == [Decimal(12)] * 10
    assert [when for when, _ in lags[::20]] == [
        recent[0].replace(tzinfo=None) + n * timedelta(minutes=6) for n in (1, 21, 41)
    ]
    ((low, high, volume),) = ask(reader, expanded(by_panel["Low, high and volume of the range (USDT)"], *recent))
    sql = "SELECT MIN(price), MAX(price), SUM(price * quantity) FROM trades WHERE timestamp >= %s AND timestamp < %s"
    until = ask(reader, "SELECT MAX(timestamp) + INTERVAL 1 MINUTE FROM candles WHERE resolution = 60")[0][0]
    assert [(low, high, volume)] == ask(reader, sql, recent[0].replace(tzinfo=None), until)
