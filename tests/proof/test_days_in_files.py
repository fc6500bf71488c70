"""Days in files are audited as those in the table are: the same verdict, and a digit that was changed is found."""

from datetime import timedelta
from pathlib import Path

import pytest

import db
from binance.archive import Archive
from binance.limits import Cooldown
from binance.rest import Rest
from model.times import midnight
from proof.days import NONE, Auditor, Finding
from proof.recheck import Kind, recheck
from storage import stored_lines
from storage.errors import FileError
from storage.lines import PLAIN
from storage.proofs import Proof
from tests.makers import BTC
from tests.support.moved import days, fill, move, tape, write
from tests.support.tables import ask


@pytest.fixture
def auditor(connection: db.Connection, tmp_path: Path, closed_port: int) -> Auditor:
    """Of a database with several days; the exchange is away."""
    nowhere = f"http://127.0.0.1:{closed_port}"
    fill(connection, tape())
    return Auditor(connection, Archive(nowhere, tmp_path), Rest(nowhere, Cooldown()), tmp_path)


def without_clock(found: Finding) -> tuple[object, ...]:
    """What was found, but for when."""
    proof = found.proof._replace(proven_at=midnight(days(0)[0]))
    return (proof, *found[1:])


def test_the_verdict_and_the_hashes_are_those_of_the_table(connection: db.Connection, auditor: Auditor) -> None:
    """Of days with missing ids, whose ids run back at midnight; each proof is as it was."""
    over = days(0, 1, 2, 3)
    before = {day: auditor.audit(BTC, day, NONE) for day in over}
    proofs = {day: db.add_proof(connection, found.proof) for day, found in before.items()}
    assert {found.proof.verdict for found in before.values()} == {"gapped"}
    for day in over[1:]:
        move(connection, day)
    for day in over:
        assert without_clock(auditor.audit(BTC, day, NONE)) == without_clock(before[day])
        assert recheck(connection, proofs[day]).kind == Kind.UNCHANGED


def test_a_digit_that_was_changed_is_found(connection: db.Connection, auditor: Auditor) -> None:
    """In the file alone: the proof does not fit it, and nor do the candles."""
    day = days(1)[0]
    proof = db.add_proof(connection, auditor.audit(BTC, day, NONE).proof)
    path = move(connection, day)
    change(connection, path, proof)
    assert recheck(connection, proof).kind == Kind.CHANGED
    found = auditor.audit(BTC, day, NONE)
    assert found.proof.verdict == "different"
    assert found.problems


def change(connection: db.Connection, path: Path, proof: Proof) -> None:
    """Writes the file anew, with another last digit of one quantity."""
    start = midnight(proof.day)
    span = start, start + timedelta(days=1)
    ((stored, *_),) = ask(connection, "SELECT path FROM retained WHERE day = %s", proof.day)
    assert path == connection.files / stored
    chunks = list(stored_lines.stored_lines(connection, BTC, *span, PLAIN))
    lines = b"".join(chunk.text for chunk in chunks).splitlines(True)
    place = next(n for n, line in enumerate(lines) if line.split(b",")[3] == b"1.50000000")
    lines[place] = lines[place].replace(b",1.50000000,", b",1.50000001,")
    write(path, BTC, [chunk._replace(text=b"".join(lines)) for chunk in chunks[:1]])


def test_a_file_that_is_damaged_stops_the_audit(connection: db.Connection, auditor: Auditor) -> None:
    """It is no verdict about the trades."""
    day = days(1)[0]
    path = move(connection, day)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FileError, match=str(path)):
        auditor.audit(BTC, day, NONE)
