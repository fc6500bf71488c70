"""Proofs looked at again, per family: an honest revision is told from a silent change, and a broken chain is named."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest

import db
from binance.archive import Archive
from binance.limits import Cooldown
from binance.rest import Rest
from model.proof import BLOCK_IDS
from model.trade import Trade
from proof import recheck, text
from proof.days import NONE, Auditor
from proof.recheck import Kind
from storage.proofs import EQUAL, Proof
from tests.makers import BTC, MIDNIGHT
from tests.support.tables import age, ask

DAY = MIDNIGHT.date()
EDGE = 9 * BLOCK_IDS
FIRST = EDGE - 50
"""The first id of the day: its trades are in two blocks."""
BLOCK = {8: (EDGE - BLOCK_IDS, EDGE - 1), 9: (EDGE, EDGE + BLOCK_IDS - 1)}
COLUMNS = "symbol, timestamp, trade_id, price, quantity, buyer_is_maker"


def trades(first: int, last: int) -> list[Trade]:
    """Trades of the day, a minute apart, those with ids first to last (inclusive) counted from FIRST."""
    return [
        Trade(BTC, MIDNIGHT + n * timedelta(minutes=1), FIRST + n, Decimal(100 + n), Decimal(1), n % 2 == 0)
        for n in range(first, last + 1)
    ]


class Case(NamedTuple):
    """A database, and what audits it."""

    connection: db.Connection
    auditor: Auditor

    def store(self, *pieces: tuple[int, int]) -> None:
        """Stores the trades of these runs."""
        for piece in pieces:
            db.insert_trades(self.connection, trades(*piece))
        age(self.connection)

    def prove(self) -> Proof:
        """Audits the day, and adds the proof to the chain."""
        return db.add_proof(self.connection, self.auditor.audit(BTC, DAY, NONE).proof)

    def found(self, proof: Proof) -> tuple[Kind, int, Sequence[tuple[int, int]]]:
        """What has become of the proof, as it is read from the table."""
        stored = db.newest_proof(self.connection, BTC, DAY)
        assert stored == proof
        return recheck.recheck(self.connection, stored)[1:]

    def sql(self, statement: str) -> None:
        """What somebody does to the tables behind our back."""
        ask(self.connection, statement)


@pytest.fixture
def case(connection: db.Connection, tmp_path: Path, closed_port: int) -> Case:
    """An empty database, and an exchange that is away."""
    nowhere = f"http://127.0.0.1:{closed_port}"
    return Case(connection, Auditor(connection, Archive(nowhere, tmp_path), Rest(nowhere, Cooldown()), tmp_path))


def test_a_day_that_is_as_it_was(case: Case) -> None:
    """Also the stored trades again, which change nothing."""
    case.store((0, 99))
    proof = case.prove()
    assert case.found(proof) == (Kind.UNCHANGED, 0, [])
    case.store((0, 99))
    assert case.found(proof) == (Kind.UNCHANGED, 0, [])


def test_a_gap_that_was_filled_later_is_an_honest_revision(case: Case) -> None:
    """Over the border of two blocks; the gap's record says when it was filled."""
    case.store((0, 39), (60, 99))
    proof = case.prove()
    assert (proof.verdict, proof.missing) == ("gapped", 20)
    case.store((40, 59))
    assert case.found(proof) == (Kind.REVISED, 20, [])


def test_a_gap_that_was_filled_before_and_after_the_proof(case: Case) -> None:
    """The part that was there when the day was proven is still part of it, though both have one record at first."""
    case.store((0, 39), (60, 99), (40, 49))
    proof = case.prove()
    assert proof.missing == 10
    case.store((50, 59))
    assert case.found(proof) == (Kind.REVISED, 10, [])
    case.sql(f"UPDATE trades SET price = price + 1 WHERE trade_id = {FIRST + 45}")
    assert case.found(proof) == (Kind.CHANGED, 10, [BLOCK[8]])


def test_a_young_gap_that_the_stream_closed_after_the_proof(case: Case) -> None:
    """Such a gap leaves no record, unless a proof says that its ids were missing."""
    received = datetime.now(UTC)
    early, late = ([one._replace(received_at=received) for one in trades(*run)] for run in ((50, 99), (40, 49)))
    case.store((0, 39))
    db.insert_trades(case.connection, early)
    proof = case.prove()
    db.insert_trades(case.connection, late)
    assert case.found(proof) == (Kind.REVISED, 10, [])


def test_history_that_was_brought_in_below_is_an_honest_revision(case: Case) -> None:
    """The day was proven from the first stored trade on."""
    case.store((20, 99))
    proof = case.prove()
    assert proof.reason == "nothing earlier is stored than 00:20:00"
    case.store((0, 19))
    assert case.found(proof) == (Kind.REVISED, 20, [])


def test_trades_that_came_after_the_proof_are_an_honest_revision(case: Case) -> None:
    """Where nothing later was stored: the capture was away, or the day went on."""
    case.store((0, 79))
    proof = case.prove()
    case.store((80, 99))
    assert case.found(proof) == (Kind.REVISED, 20, [])


def test_a_day_without_a_trade_that_has_some_later(case: Case) -> None:
    """The gap was the whole day."""
    case.store((-1, -1), (1_440, 1_440))
    proof = case.prove()
    assert (proof.verdict, proof.trades, proof.missing, proof.first_trade_id) == ("gapped", 0, 1_440, None)
    case.store((5, 9))
    assert case.found(proof) == (Kind.REVISED, 5, [])


@pytest.mark.parametrize(
    ("statement", "blocks"),
    [
        (f"UPDATE trades SET price = price + 0.00000001 WHERE trade_id = {FIRST + 10}", [BLOCK[8]]),
        (f"UPDATE trades SET quantity = 2 WHERE trade_id = {FIRST + 70}", [BLOCK[9]]),
        (f"UPDATE trades SET buyer_is_maker = 1 - buyer_is_maker WHERE trade_id = {FIRST + 70}", [BLOCK[9]]),
        (f"UPDATE trades SET timestamp = timestamp + INTERVAL 1 SECOND WHERE trade_id = {FIRST + 70}", [BLOCK[9]]),
        (f"DELETE FROM trades WHERE trade_id IN ({FIRST + 10}, {FIRST + 70})", [BLOCK[8], BLOCK[9]]),
        (f"DELETE FROM trades WHERE trade_id >= {EDGE}", [BLOCK[9]]),
        ("DELETE FROM trades", [BLOCK[8], BLOCK[9]]),
        (
            f"INSERT INTO trades ({COLUMNS}) VALUES ('{BTC}', '2025-03-01 00:05:01', {FIRST + 5}, 1, 1, 0)",
            [BLOCK[8]],
        ),
        (
            f"INSERT INTO trades ({COLUMNS}) VALUES ('{BTC}', '2025-03-01 00:45:30', {FIRST + 45}, 1, 1, 0)",
            [BLOCK[8]],
        ),
    ],
    ids=["digit", "quantity", "maker", "time", "deleted", "block deleted", "all deleted", "stored twice", "in a gap"],
)
def test_what_was_changed_in_silence_is_found(case: Case, statement: str, blocks: list[tuple[int, int]]) -> None:
    """And the block named; a gap that was filled meanwhile does not hide it."""
    case.store((0, 39), (42, 43), (46, 99))
    proof = case.prove()
    case.store((40, 41))
    assert case.found(proof) == (Kind.REVISED, 2, [])
    case.sql(statement)
    kind, _, found = case.found(proof)
    assert (kind, found) == (Kind.CHANGED, blocks)


def test_a_change_is_found_though_the_day_was_audited_again(case: Case) -> None:
    """Beside the earlier proof; not once the day is equal to the archive, nor beside a proof that found it wrong."""
    case.store((0, 39), (60, 99))
    case.prove()
    case.store((40, 59))
    first = case.prove()
    assert case.found(first) == (Kind.UNCHANGED, 0, [])
    case.sql(f"UPDATE trades SET price = price + 1 WHERE trade_id = {FIRST + 10}")
    again = case.prove()
    found = recheck.recheck(case.connection, again)
    assert (found.proof, found.kind, found.blocks) == (first, Kind.CHANGED, [BLOCK[8]])
    equal = db.add_proof(case.connection, again._replace(verdict=EQUAL))
    assert recheck.recheck(case.connection, equal).kind is Kind.UNCHANGED
    case.sql("DELETE FROM proofs WHERE number < 3")
    case.sql("UPDATE proofs SET verdict = 'different'")
    case.sql(f"UPDATE trades SET price = price - 1 WHERE trade_id = {FIRST + 10}")
    assert case.found(case.prove())[0] is Kind.UNCHANGED


@pytest.mark.parametrize("n", [-1, 100])
def test_a_row_beyond_a_day_that_was_proven_whole_is_a_silent_change(case: Case, n: int) -> None:
    """The archive knew the first and the last trade, so nothing honest can come before or after them."""
    case.store((0, 99))
    proof = case.auditor.audit(BTC, DAY, NONE).proof
    proof = db.add_proof(case.connection, proof._replace(verdict=EQUAL))
    case.sql(
        f"INSERT INTO trades ({COLUMNS}) VALUES ('{BTC}', '2025-03-01 12:00:00', {FIRST + n}, 1, 1, 0)"
        if n > 0
        else f"INSERT INTO trades ({COLUMNS}) VALUES ('{BTC}', '2025-03-01 00:00:00', {FIRST + n}, 1, 1, 0)"
    )
    assert case.found(proof) == (Kind.CHANGED, 0, [BLOCK[9 if n > 0 else 8]])


def test_the_words_of_a_recheck(case: Case) -> None:
    """A line for the day; one more for each block that was changed."""
    case.store((0, 39), (60, 99))
    proof = case.prove()
    head = f"BTCUSDT    2025-03-01  {{}} since {proof.proven_at:%Y-%m-%d %H:%M:%S} (gapped)"
    assert text.of_recheck(recheck.recheck(case.connection, proof)) == head.format("unchanged ")
    case.store((40, 59))
    revised = (
        head.format("revised   ") + ": 20 trades were added since, in gaps or at the ends; all others are unchanged"
    )
    assert text.of_recheck(recheck.recheck(case.connection, proof)) == revised
    case.sql(f"DELETE FROM trades WHERE trade_id = {FIRST + 10}")
    assert text.of_recheck(recheck.recheck(case.connection, proof)).splitlines() == [
        head.format("changed   "),
        f"  ids {EDGE - BLOCK_IDS} to {EDGE - 1}: a trade was changed, removed or added without a record",
    ]


# ---- The chain.


@pytest.fixture
def chain(case: Case) -> Case:
    """Four proofs in the chain."""
    case.store((0, 99))
    for _ in range(4):
        case.prove()
    return case


def lines(case: Case, file: Path) -> None:
    """Writes what the table has as the file beside it."""
    rows = [json.dumps(text.values(one)) for one in db.proofs(case.connection)]
    file.write_text("".join(f"{row}\n" for row in rows))


def broken(case: Case, file: Path) -> list[str]:
    """What is wrong with the chain."""
    return recheck.broken_links(db.proofs(case.connection), file)[1]


def test_a_chain_that_is_whole(chain: Case, tmp_path: Path) -> None:
    """With and without the file, and with a file of which the end is torn."""
    file = tmp_path / "proofs.jsonl"
    assert broken(chain, file) == []
    lines(chain, file)
    assert broken(chain, file) == []
    file.write_text(file.read_text()[:-40] + "\nnot JSON\n[]\n{}\n")
    assert broken(chain, file) == []


def test_a_stranger_can_check_a_hash(chain: Case) -> None:
    """From a line of the file: the hash before, then the columns in their order, a line each."""
    values = text.values(list(db.proofs(chain.connection))[2])
    words = [str("" if value is None else value) for name, value in values.items() if name not in ("previous", "hash")]
    made = hashlib.sha256("\n".join([str(values["previous"]), *words]).encode()).hexdigest()
    assert made == values["hash"]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE proofs SET verdict = 'equal' WHERE number = 2", ["was changed"]),
        ("UPDATE proofs SET trades = trades + 1 WHERE number = 4", ["was changed"]),
        ("UPDATE proofs SET proven_at = proven_at + INTERVAL 1 MICROSECOND WHERE number = 1", ["was changed"]),
        ("DELETE FROM proofs WHERE number = 2", ["proof 2 is not there"]),
        ("DELETE FROM proofs WHERE number = 1", ["proof 1 is not there"]),
    ],
)
def test_a_chain_that_was_broken(chain: Case, tmp_path: Path, statement: str, words: list[str]) -> None:
    """By a change or by a removal; the table alone shows it."""
    chain.sql(statement)
    found = broken(chain, tmp_path / "none")
    assert [word in line for word, line in zip(words, found, strict=True)] == [True]


def test_a_chain_that_was_made_anew_is_found_by_the_file(chain: Case, tmp_path: Path) -> None:
    """The file may be on another disk than the table: it shows what was cut off the end too."""
    file = tmp_path / "proofs.jsonl"
    lines(chain, file)
    rows = list(db.proofs(chain.connection))
    chain.sql("DELETE FROM proofs WHERE number >= 3")
    assert broken(chain, tmp_path / "none") == []
    assert broken(chain, file) == [f"{file} has proofs up to 4, the table up to 2"]
    for one in (rows[2]._replace(trades=7), rows[3]):
        db.add_proof(chain.connection, one)
    assert broken(chain, tmp_path / "none") == []
    assert broken(chain, file) == [f"proof {number} is not the one in {file}" for number in (3, 4)]
