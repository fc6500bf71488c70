"""Proofs looked at again: whether what was proven is still stored, row by row, and whether the chain is whole.

A day may have more trades than when it was proven, because a gap was filled since: that is an honest revision, and the
table `gaps` says so. History that was brought in before the first stored trade, or came after the last, is one too,
unless the day was proven whole. So the hashes are made again without what came later; if they are not what they were, a
row was changed, removed or added afterwards, in silence.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import db
from binance.checks import TRADE_ID_MAX
from model import ids
from model.ids import Run
from model.proof import BLOCK_IDS, CHAIN_START, leaf_hash
from model.times import midnight
from proof import calendar
from proof.klines import SETTLE
from storage import canonical
from storage.proofs import AGREES, EQUAL, Proof, earlier_proofs
from storage.runs import filled_since

LINE_BYTES_MAX = 16_384


class Kind(StrEnum):
    """What became of a day since its proof."""

    UNCHANGED = "unchanged"
    REVISED = "revised"
    CHANGED = "changed"


class Recheck(NamedTuple):
    """What became of a proven day: how many trades were added since, in gaps that were filled; the blocks of ids, first
    to last, in which a trade was changed, removed or added in silence."""

    proof: Proof
    kind: Kind
    added: int
    blocks: list[Run]


def newest(connection: db.Connection, symbol: str, day: date | None, since: date | None) -> Iterator[Proof]:
    """The last proof of `day`, or of each day from `since` on (None: of all) that has one, with its blocks."""
    for one in [day] if day else [known.day for known in calendar.days(connection, symbol, since)]:
        if (found := db.newest_proof(connection, symbol, one)) is not None:
            yield found


def recheck(connection: db.Connection, proof: Proof) -> Recheck:
    """The stored trades beside `proof`, the newest of its day, with its blocks; and beside those before it: who changes
    a row may have audited the day again. Raises db.DatabaseError."""
    found = _beside(connection, proof)
    if found.kind is Kind.CHANGED or proof.verdict == EQUAL:
        # That it is equal to the archive now is all that matters.
        return found
    others = (_beside(connection, one) for one in earlier_proofs(connection, proof))
    return next((one for one in others if one.kind is Kind.CHANGED), found)


def _beside(connection: db.Connection, proof: Proof) -> Recheck:
    start = midnight(proof.day)
    end = start + timedelta(days=1)
    low, high = proof.first_trade_id or 0, proof.last_trade_id or 0
    later = filled_since(connection, proof.symbol, low, high, proof.proven_at)
    if proof.verdict in (EQUAL, AGREES) and proof.proven_at >= end + SETTLE:
        # The exchange knew the first and the last trade of the day, so nothing can come before or after them.
        low, high = 0, TRADE_ID_MAX
    try:
        found = _hashes(canonical.stored_blocks(connection, proof.symbol, start, end), (low, high), later)
    except canonical.OutOfOrderError:
        found = _hashes(canonical.stored_blocks(connection, proof.symbol, start, end, by_id=True), (low, high), later)
    hashes, added = found
    wanted = {int(number): leaf for number, leaf in (line.split() for line in proof.blocks.splitlines())}
    wrong = sorted(number for number in hashes.keys() | wanted.keys() if hashes.get(number) != wanted.get(number))
    kind = Kind.CHANGED if wrong else Kind.REVISED if added else Kind.UNCHANGED
    return Recheck(proof, kind, added, [(number * BLOCK_IDS, (number + 1) * BLOCK_IDS - 1) for number in wrong])


def _hashes(blocks: Iterable[canonical.Block], proven: Run, later: list[Run]) -> tuple[dict[int, str], int]:
    """The hash of each block as it was when the proof was made, and how many trades were added since."""
    hashes, added = {}, 0
    for block in blocks:
        span = block.number * BLOCK_IDS, (block.number + 1) * BLOCK_IDS - 1
        text = block.lines
        if span[0] < proven[0] or span[1] > proven[1] or any(run[0] <= span[1] and run[1] >= span[0] for run in later):
            lines = text.splitlines(True)
            kept = [line for line in lines if _was_there(int(line[: line.index(b",")]), proven, later)]
            added += len(lines) - len(kept)
            text = b"".join(kept)
        if text:
            hashes[block.number] = leaf_hash(text).hex()
    return hashes, added


def _was_there(trade_id: int, proven: Run, later: list[Run]) -> bool:
    return proven[0] <= trade_id <= proven[1] and not ids.inside(later, trade_id)


def broken_links(proofs: Iterable[Proof], file: Path, database: str = "") -> tuple[int, list[str]]:
    """How many proofs there are; what is wrong with their chain, and where it is not what `file`, which has the proofs
    of `database`, says; in words."""
    said = dict(_lines(file, database))
    found, number, previous, total = list[str](), 0, CHAIN_START, 0
    for proof in proofs:
        total += 1
        if proof.number != number + 1:
            found.append(f"proof {number + 1} is not there")
        if proof.hash != proof.right_hash():
            found.append(f"proof {proof.number} ({proof.symbol} {proof.day}) was changed: its hash is not that of it")
        elif proof.previous != previous and proof.number == number + 1:
            found.append(f"proof {proof.number} does not follow proof {number}")
        if said.get(proof.number, proof.hash) != proof.hash:
            found.append(f"proof {proof.number} is not the one in {file}")
        number, previous = proof.number, proof.hash
    if said and max(said) > number:
        found.append(f"{file} has proofs up to {max(said)}, the table up to {number}")
    return total, found


def _lines(file: Path, database: str) -> Iterable[tuple[int, str]]:
    """Number and hash of each proof of the database. A line that is no proof, as on a full disk, is left out."""
    if not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            try:
                row = json.loads(line[:LINE_BYTES_MAX])
                if row.get("database", database) == database:
                    yield int(row["number"]), str(row["hash"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
