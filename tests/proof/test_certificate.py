"""Certificates: as their schema says, checked by their own commands, and compared with those of another recorder."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import pytest

import config
import db
from binance.archive import Archive
from binance.limits import Cooldown
from binance.rest import Rest
from history.importer import import_day
from model.proof import BLOCK_IDS
from model.times import midnight
from model.trade import Trade
from process.child import ROOT
from proof import certificate
from proof.against import AgainstError, chosen
from proof.certificate import Certificate, CertificateError
from proof.days import ARCHIVE, NONE, Auditor
from storage import day_files
from storage.proofs import Proof
from tests.makers import BTC, MIDNIGHT, trade
from tests.support.days import of_today
from tests.support.moved import days, fill, move, tape
from tests.support.servers import Server
from tests.support.stand_in import StandIn
from tests.support.tables import ask

DAY = MIDNIGHT.date()
COIN = "币安人生"
FLAGS = ["--days", "3", "--day-trades", "300", "--symbols", f"{BTC},{COIN}", "--wait-clients", "1", "--rest-lag", "0"]
COMMAND_S_MAX = 60


@pytest.fixture(scope="module")
def market_of_days() -> Iterator[Callable[[], StandIn]]:
    """An exchange with three days of history in its archive."""
    with of_today(lambda: FLAGS) as exchange:
        yield exchange


class Case(NamedTuple):
    """A database, what audits it, and the folder of this test."""

    connection: db.Connection
    auditor: Auditor
    archive: Archive
    settings: config.Settings
    folder: Path

    def prove(self, day: date, against: str = NONE, symbol: str = BTC) -> Proof:
        """A proof of what is stored, in the chain."""
        return db.add_proof(self.connection, self.auditor.audit(symbol, day, against).proof)

    def write(self, *proofs: Proof) -> Path:
        """The certificate of these."""
        path = self.folder / "certificate.json"
        certificate.write(path, proofs, self.connection, self.settings.place, self.settings.mysql_database)
        return path

    def load(self, symbol: str, day: date) -> None:
        """Brings in a day from the archive."""
        with self.archive.day(symbol, day) as archived:
            import_day(self.connection, archived, self.folder, lambda _: None)


@pytest.fixture
def case(
    settings: config.Settings, connection: db.Connection, market_of_days: Callable[[], StandIn], tmp_path: Path
) -> Iterator[Case]:
    """An empty database."""
    exchange = market_of_days()
    archive, rest = Archive(exchange.http, tmp_path / "archive"), Rest(exchange.http, Cooldown())
    yield Case(connection, Auditor(connection, archive, rest, tmp_path), archive, settings, tmp_path)
    archive.close()
    rest.close()


def yesterday() -> date:
    """The last day that is over."""
    return datetime.now(UTC).date() - timedelta(days=1)


def content(path: Path) -> Any:
    """What is in a certificate, after it was checked against the published schema."""
    schema = json.loads((ROOT / "docs" / "certificate.schema.json").read_text())
    found = json.loads(path.read_text())
    jsonschema_rs.meta.validate(schema)
    jsonschema_rs.validator_for(schema, validate_formats=True).validate(found)
    return found


def printed(command: str, folder: Path, environ: dict[str, str]) -> tuple[str, str]:
    """The first word that a command prints, and the one that it promises."""
    for program in ("mysql", "curl", "unzip", "awk", "sha256sum"):
        if program in command.split() and not shutil.which(program):
            pytest.skip(f"no {program}, with which a stranger checks this certificate")
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=COMMAND_S_MAX,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0], command.rpartition("# ")[2]


def client(server: Server, folder: Path) -> dict[str, str]:
    """The environment in which the mysql client finds the server; its user has set what is in the way."""
    where = f"socket={server.socket_path}" if server.socket_path else f"host={server.host}\nport={server.port}"
    lines = ["[client]", f"user={server.user}", f"password={server.password}", where]
    (folder / ".my.cnf").write_text("\n".join([*lines, "default-character-set=latin1", "[mysql]", "table", ""]))
    return {"HOME": str(folder), "LC_ALL": "C", "no_proxy": "*"}


@pytest.mark.parametrize("symbol", [BTC, COIN])
def test_a_stranger_checks_a_certificate(case: Case, server: Server, symbol: str) -> None:
    """Each command gives the promised hash: of the table, of the file of the archive, and of the trades in the file."""
    case.load(symbol, yesterday())
    proof = case.prove(yesterday(), ARCHIVE, symbol)
    assert (proof.verdict, proof.trades) == ("equal", 300)
    (day,) = content(case.write(proof))["days"]
    environ = client(server, case.folder)
    pairs = [printed(command, case.folder, environ) for command in day["checks"]]
    assert pairs == [(hash, hash) for hash in (proof.sha256, proof.source_sha256, proof.sha256)]


def test_what_came_later_does_not_spoil_the_check(case: Case, server: Server) -> None:
    """Trades before the first and after the last that were there, on the same day, and the days around it."""
    trades = [
        Trade(BTC, MIDNIGHT + n * timedelta(seconds=864), 100 + n, Decimal(n + 1), Decimal(1), n % 3 == 0)
        for n in range(100)
    ]
    db.insert_trades(case.connection, trades[20:80])
    proof = case.prove(DAY)
    db.insert_trades(
        case.connection, [*trades, trade(99, MIDNIGHT - timedelta(seconds=1)), trade(200, MIDNIGHT + timedelta(days=1))]
    )
    (day,) = content(case.write(proof))["days"]
    (command,) = day["checks"]
    assert printed(command, case.folder, client(server, case.folder)) == (proof.sha256, proof.sha256)
    ask(case.connection, "UPDATE trades SET quantity = 2 WHERE trade_id = 150")
    assert printed(command, case.folder, client(server, case.folder))[0] != proof.sha256


def test_a_day_without_a_trade_can_be_certified(case: Case, server: Server) -> None:
    """Its hash is that of nothing."""
    db.insert_trades(case.connection, [trade(1, MIDNIGHT - timedelta(days=1)), trade(2, MIDNIGHT + timedelta(days=1))])
    (day,) = content(case.write(case.prove(DAY)))["days"]
    assert (day["first_trade_id"], day["trades"], day["blocks"]) == (None, 0, {})
    assert printed(day["checks"][0], case.folder, client(server, case.folder)) == (day["sha256"], day["sha256"])


def test_a_day_in_a_file_is_checked_there(case: Case) -> None:
    """Its trades are not in the table; times that run back, 12 and 8 digits, and a name with a quote in its folder."""
    case.connection.files = case.folder / "o'clock"
    fill(case.connection, tape())
    day = days(1)[0]
    path = move(case.connection, day)
    proof = case.prove(day)
    (described,) = content(case.write(proof))["days"]
    (command,) = described["checks"]
    # Its own Python has DuckDB.
    environ = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    assert printed(command, case.folder, environ) == (proof.sha256, proof.sha256)
    trades = list(day_files.trades(path, BTC, midnight(day), midnight(day) + timedelta(days=1)))
    assert len(trades) == proof.trades > 300


def test_amounts_of_fewer_decimals_and_months_are_checked_too(tmp_path: Path) -> None:
    """As some files of the archive have them; of a monthly file only the day, without the header."""
    rows = ["id,price,qty,quoteQty,time,isBuyerMaker,isBestMatch", "7,1.5,10,15,1740787199999999,True,True"]
    rows += ["8,1.5,10,15,1740787200000000,True,True", "9,0.00000001,123456789012.1,1,1740873599999,False,True"]
    rows += ["10,1.5,10,15,1740873600000000,True,True"]
    name = "BTCUSDT-trades-2025-03"
    (tmp_path / f"{name}.csv").write_text("".join(f"{row}\n" for row in rows))
    shutil.make_archive(str(tmp_path / name), "zip", tmp_path, f"{name}.csv")
    text = b"8,1.50000000,10.00000000,1740787200000,1\n9,0.00000001,123456789012.10000000,1740873599999,0\n"
    proof = proof_of(text)._replace(compared_with=f"https://example.org/monthly/{name}.zip", source_sha256="0" * 64)
    command = list(certificate._of_archive(proof))[1]
    assert printed(command, tmp_path, {}) == (proof.sha256, proof.sha256)


def proof_of(text: bytes) -> Proof:
    """A proof of DAY that it is equal, of trades with these lines."""
    return Proof(1, BTC, DAY, "equal", "", 8, 9, 2, 0, hashlib.sha256(text).hexdigest(), "0" * 64, "", "", MIDNIGHT)


def test_what_a_certificate_says_of_its_software(case: Case) -> None:
    """Which commit wrote it, of which version the tables are, and in which database they are."""
    found = content(case.write())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert found["software"]["commit"] == (commit or None)
    assert found["database"] == case.settings.place
    assert found["days"] == []


# ---- Two recorders.


def recorded(case: Case, trades: Sequence[Trade]) -> Path:
    """The certificate of a recorder that has these trades of DAY alone."""
    db.insert_trades(case.connection, trades)
    path = case.write(case.prove(DAY))
    ask(case.connection, "DELETE FROM trades")
    ask(case.connection, "DELETE FROM gaps")
    case.connection.spans.clear()
    return path


EDGE = 5 * BLOCK_IDS
TRADES = [trade(EDGE - 5 + n, MIDNIGHT + n * timedelta(minutes=1)) for n in range(10)]


@pytest.mark.parametrize(
    ("theirs", "verdict", "reason"),
    [
        ("equal", "equal", "by hash the same trades as there, where they are equal"),
        ("agrees", "agrees", "by hash the same trades as there, where they are agrees"),
        ("contiguous", "contiguous", "by hash the same trades as there, where they are contiguous"),
        ("unverifiable", "contiguous", "by hash the same trades as there, where they are unverifiable"),
    ],
)
def test_two_recorders_have_the_same(case: Case, theirs: str, verdict: str, reason: str) -> None:
    """What is known here then is what the other has compared it with, and no more."""
    path = recorded(case, TRADES)
    path.write_text(path.read_text().replace('"verdict": "contiguous"', f'"verdict": "{theirs}"'))
    db.insert_trades(case.connection, TRADES)
    proof = chosen(str(path)).audit(case.auditor, BTC, DAY).proof
    assert (proof.verdict, proof.reason) == (verdict, f"{reason}; nothing earlier is stored than 00:00:00")
    assert (proof.compared_with, proof.source_sha256) == (str(path), certificate.sha256_of(path))


def test_two_recorders_learn_which_blocks_differ(case: Case) -> None:
    """By the ids of the block; a trade that only one has counts too."""
    path = recorded(case, TRADES)
    changed = [one._replace(price=Decimal(1)) if one.trade_id == EDGE + 1 else one for one in TRADES]
    db.insert_trades(case.connection, changed)
    found = chosen(str(path)).audit(case.auditor, BTC, DAY)
    words = f"ids {EDGE} to {EDGE + BLOCK_IDS - 1} differ"
    assert (found.proof.verdict, found.problems) == ("different", [words])
    ask(case.connection, f"DELETE FROM trades WHERE trade_id < {EDGE}")
    found = chosen(str(path)).audit(case.auditor, BTC, DAY)
    assert found.problems == [f"ids {EDGE - BLOCK_IDS} to {EDGE - 1} differ", words]


def test_a_day_that_was_not_over_is_not_compared(case: Case) -> None:
    """The two ended at different trades, which is no difference."""
    path = recorded(case, TRADES)
    lines = [
        f' "proven_at": "{MIDNIGHT:%Y-%m-%d}T23:59:59Z",' if "proven_at" in one else one
        for one in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines))
    db.insert_trades(case.connection, TRADES)
    with pytest.raises(CertificateError, match=r"was made while 2025-03-01 was not over; only whole days are compared"):
        chosen(str(path)).audit(case.auditor, BTC, DAY)


def test_what_a_certificate_covers(case: Case) -> None:
    """The symbols and days that are in it."""
    found = Certificate(recorded(case, TRADES))
    assert found.covers(BTC, DAY)
    assert not found.covers("ETHUSDT", DAY)
    assert not found.covers(BTC, DAY + timedelta(days=1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no certificate: Input data was truncated"),
        ("[]", "is no certificate: Expected `object`, got `array`"),
        ('{"certificate": 1}', "is no certificate: Object missing required field `days`"),
        ('{"certificate": 2, "days": []}', "has the format 2; this program knows 1"),
        ("[" * 100_000, "is no certificate: "),
        (
            '{"certificate": 1, "days": [{"symbol": "A", "day": "2025-03-01", "verdict": "equal",'
            ' "proven_at": "2025-03-02T00:00:00Z", "blocks": {"1": "no hash"}}]}',
            "is no certificate: Expected `str` matching regex",
        ),
    ],
)
def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """In one line that says why."""
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(CertificateError) as refused:
        chosen(str(path))
    assert str(refused.value).startswith(f"{path} {words}")


def test_a_certificate_with_a_number_of_a_block_that_is_none(tmp_path: Path) -> None:
    """Is refused when it is read, not when it is compared."""
    path = tmp_path / "other.json"
    path.write_text(
        '{"certificate": 1, "days": [{"symbol": "A", "day": "2025-03-01", "verdict": "equal",'
        f' "proven_at": "2025-03-02T00:00:00Z", "blocks": {{"x": "{"0" * 64}"}}}}]}}'
    )
    with pytest.raises(CertificateError, match="is no certificate: "):
        chosen(str(path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.zip", "give archive, klines, none, or a file that is there"),
        ("some.zip", "a file of the archive has a name such as BTCUSDT-trades-2026-11-25.zip"),
    ],
)
def test_what_is_no_file_to_compare_with(tmp_path: Path, name: str, words: str) -> None:
    """Not there, or without the name that says what it is of."""
    (tmp_path / "some.zip").touch()
    with pytest.raises(AgainstError, match=words):
        chosen(str(tmp_path / name))
